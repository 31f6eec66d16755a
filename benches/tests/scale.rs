//! A hub is killed, and all its devices come back to the next one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

fn scale(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_towline-bench")).arg("scale").args(arguments).output().unwrap()
}

#[test]
fn all_devices_come_back_after_their_hub_was_killed_and_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let output =
        scale(&["storm", "--devices", "20", "--rounds", "2", "--json", "--out", page.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["missing"].as_array().unwrap().len(), 0, "{results}");
    assert_eq!((&results["shared"], &results["devices"]), (&Value::from([0; 0]), &Value::from([0; 0])));
    let [storm] = &results["storms"].as_array().unwrap()[..] else { panic!("{results}") };
    assert_eq!(storm["count"], 20);
    let figure = |name: &str, of: &str| storm[name][of].as_f64().unwrap();
    for of in ["min", "median", "max"] {
        let [half, p99, all] = ["half_s", "p99_s", "all_s"].map(|name| figure(name, of));
        assert!(0.0 < half && half <= p99 && p99 <= all, "{storm}");
    }
    for name in ["listens_s", "hub_cpu_s_each", "device_cpu_s_each"] {
        assert!(figure(name, "min") > 0.0, "{name}: {storm}");
    }
    assert_eq!(fs::read_to_string(page).unwrap().matches("<svg").count(), 1);
}

#[test]
fn more_devices_than_descriptors_are_refused_before_anything_is_measured() {
    let output = scale(&["storm", "--devices", "4294967295"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("--devices") && error.contains("ulimit"), "{error}");
}
