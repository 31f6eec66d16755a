//! The program starts itself as the process that holds connections, and tells what they cost.

use std::process::Command;

use clap::ValueEnum;
use towline_bench::idle::Name;

#[test]
fn everybody_is_held() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_towline-bench"));
    let output = bench.args(["idle", "--links", "12", "--settle", "0", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["missing"].as_array().unwrap().len(), 0, "{results}");
    let rows = results["rows"].as_array().unwrap();
    assert_eq!(rows.len(), Name::value_variants().len());
    for row in rows {
        assert!(row["heap_bytes"].as_f64().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn more_links_than_descriptors_are_refused_before_anything_is_measured() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_towline-bench"));
    let output = bench.args(["idle", "--links", "4294967295"]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("descriptors") && error.contains("--links"), "{error}");
}
