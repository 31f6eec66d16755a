//! What came of a walk, for people and for programs.

use comfy_table::CellAlignment;
use serde::Serialize;
use towline_model::Op;

use crate::explore::scope::{Case, Scope};
use crate::explore::state::Action;
use crate::explore::trace::{replay, test};
use crate::say::say;
use crate::table::{bytes, number, seconds, table};

/// What came of a walk.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was walked.
    pub scope: Scope,
    /// And which part of it.
    pub case: &'static str,
    /// How many states were reached, counted as often as they were.
    pub states: usize,
    /// How many different ones.
    pub unique_states: usize,
    /// How many steps the longest way took.
    pub depth: usize,
    /// How long it took.
    pub seconds: f64,
    /// The most memory that the process held meanwhile.
    pub peak_memory_bytes: Option<u64>,
    /// Whether every state was reached.
    pub is_exhausted: bool,
    /// Up to which depth every state was reached, if not all were.
    pub exhausted_depth: Option<usize>,
    /// How many states lie on ways that were drawn at random, if not all were reached.
    pub drawn_states: Option<usize>,
    /// What held in all of them.
    pub properties: Vec<&'static str>,
    /// What did not hold.
    pub finding: Option<Finding>,
    /// After how long that was found, without the search for the shortest way.
    pub seconds_to_finding: Option<f64>,
}

/// A property that does not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Its name.
    pub property: &'static str,
    /// What was said about it, and where.
    pub message: String,
    /// How many steps lead there.
    pub steps: usize,
    /// Whether there is no shorter way.
    pub is_shortest: bool,
    /// A test that shows it.
    pub test: String,
    /// What the test does.
    #[serde(skip)]
    pub operations: Vec<Op>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            scope: Scope::All,
            case: "",
            states: 0,
            unique_states: 0,
            depth: 0,
            seconds: 0.0,
            peak_memory_bytes: None,
            is_exhausted: false,
            exhausted_depth: None,
            drawn_states: None,
            properties: Vec::new(),
            finding: None,
            seconds_to_finding: None,
        }
    }
}

impl Finding {
    pub(crate) fn new(case: &Case, property: &'static str, way: &[Action], is_shortest: bool) -> Self {
        let (operations, broken) = replay(case, way);
        let broken = broken.expect("the way leads there");
        debug_assert_eq!(property, broken.property);
        let test = test(case, &broken, &operations);
        Self { property, message: broken.message, steps: way.len(), is_shortest, test, operations }
    }
}

/// Prints what came of the walks: a table, the properties that held, and tests for those that did not.
pub fn print_table(reports: &[Report]) {
    let mut rows = table(&["scope", "", "states", "unique", "depth", "time", "memory", "properties"]);
    for report in reports {
        let scope = format!("{:?}", report.scope).to_lowercase();
        rows.add_row([
            scope,
            report.case.to_owned(),
            number(report.states),
            number(report.unique_states),
            number(report.depth),
            seconds(report.seconds),
            report.peak_memory_bytes.map_or("?".to_owned(), bytes),
            outcome(report),
        ]);
    }
    for column in 2..7 {
        if let Some(column) = rows.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    say!("{rows}");
    print_properties(reports);
    for report in reports {
        print_coverage(report);
        if let Some(finding) = &report.finding {
            let way = if finding.is_shortest { "the shortest way" } else { "a short way" };
            say!("\n{} does not hold; {way} there has {} steps:\n", finding.property, finding.steps);
            say!("{}", finding.test);
        }
    }
}

fn outcome(report: &Report) -> String {
    match (&report.finding, report.is_exhausted) {
        (Some(finding), _) => format!("BROKEN: {}", finding.property),
        (None, true) => format!("all {} held", report.properties.len()),
        (None, false) => format!("all {} held, not exhausted", report.properties.len()),
    }
}

/// The properties that held in all that was walked, and those that held where they apply.
fn print_properties(reports: &[Report]) {
    let sound: Vec<_> = reports.iter().filter(|report| report.finding.is_none()).collect();
    let mut names: Vec<_> = sound.iter().flat_map(|report| &report.properties).copied().collect();
    let order = crate::explore::broken::PROPERTIES;
    names.sort_by_key(|name| order.iter().position(|other| other == name));
    names.dedup();
    if !names.is_empty() {
        say!("\nHeld in every state, where they apply: {}.", names.join(", "));
    }
}

fn print_coverage(report: &Report) {
    if let (Some(depth), false) = (report.exhausted_depth, report.is_exhausted) {
        say!(
            "\n{:?} was not exhausted: every state within {depth} steps, and {} states on ways to the end that were \
             drawn at random.",
            report.scope,
            number(report.drawn_states.unwrap_or(0))
        );
    }
}

/// Prints the reports as JSON. If standard output cannot be written to, that is told, and the program ends.
///
/// # Errors
///
/// They are no JSON, which cannot be.
pub fn print_json(reports: &[Report]) -> serde_json::Result<()> {
    say!("{}", serde_json::to_string_pretty(reports)?);
    Ok(())
}
