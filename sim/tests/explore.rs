//! The walks, cut short: what is exhausted in minutes by `cargo sim explore` is looked into for seconds here.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use towline_sim::explore::{Bounds, Report, Scope, walk};

fn all_of(scope: Scope, max_states: usize) -> Vec<Report> {
    let bounds = Bounds { threads: 2, max_states: Some(max_states), timeout: None };
    scope.cases().iter().map(|case| walk(case, bounds, &mut |_| ())).collect()
}

fn holds(scope: Scope, max_states: usize) {
    for report in all_of(scope, max_states) {
        if let Some(finding) = report.finding {
            panic!("{:?}, {}:\n{}", report.scope, report.case, finding.test);
        }
        assert!(report.unique_states > max_states / 20, "{report:?}");
    }
}

#[test]
fn delivery() {
    holds(Scope::Delivery, 60_000);
}

#[test]
fn resume() {
    holds(Scope::Resume, 60_000);
}

#[test]
fn close() {
    holds(Scope::Close, 60_000);
}

#[test]
fn race() {
    holds(Scope::Race, 60_000);
}

#[test]
fn full_is_bounded_and_tells_how_far_it_came() {
    let reports = all_of(Scope::Full, 20_000);
    let report = &reports[0];
    assert!(!report.is_exhausted && report.finding.is_none());
    assert!(report.exhausted_depth.unwrap() >= 3);
    assert!(report.drawn_states.unwrap() >= 20_000);
}

#[test]
fn the_smallest_case_is_exhausted_and_always_the_same() {
    let mut cases = Scope::Close.cases();
    cases.retain(|case| case.name == "one place");
    let bounds = |threads| Bounds { threads, max_states: None, timeout: None };
    let one = walk(&cases[0], bounds(1), &mut |_| ());
    let two = walk(&cases[0], bounds(2), &mut |_| ());
    assert!(one.is_exhausted && two.is_exhausted);
    assert_eq!((one.states, one.unique_states), (two.states, two.unique_states));
}

fn sim(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_towline-sim")).args(arguments).output().unwrap()
}

#[test]
fn help_shows_an_example() {
    let output = sim(&["explore", "--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("towline-sim explore --scope race"), "{text}");
    assert_eq!(sim(&["explore", "--scope", "nowhere"]).status.code(), Some(2));
}

#[test]
fn json_is_for_programs_and_a_table_for_people() {
    let output = sim(&["explore", "--scope", "race", "--max-states", "1000", "--json"]);
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(reports[0]["scope"], "race");
    assert!(reports[0]["unique_states"].as_u64().unwrap() > 100);
    assert_eq!(reports[0]["finding"], serde_json::Value::Null);

    let output = sim(&["explore", "--scope", "race", "--max-states", "1000"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("SCOPE") && text.contains("fencing") && text.contains("not exhausted"), "{text}");
}
