//! The program starts itself as the process that holds connections, and tells what they cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use towline_bench::idle::Name;

/// Nothing here that is waited for takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so. Whether it is.
fn comes_true(is_so: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() && begun.elapsed() < PATIENCE {
        thread::yield_now();
    }
    is_so()
}

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

#[test]
fn who_holds_connections_ends_with_whoever_asked_for_them() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_towline-bench"));
    bench.args(["idle", "--links", "12", "--settle", "3600", "hub-tls"]);
    let mut bench = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", bench.id());
    let holder = || fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
    // It has the port and six devices, and is about to be idle for an hour.
    let sockets = || {
        let files = fs::read_dir(format!("/proc/{}/fd", holder())).into_iter().flatten().flatten();
        let is_socket = |to: PathBuf| to.to_string_lossy().starts_with("socket:");
        files.filter(|file| fs::read_link(file.path()).is_ok_and(is_socket)).count()
    };
    let is_held = comes_true(|| sockets() > 6);
    let holder = holder();
    bench.kill().unwrap();
    bench.wait().unwrap();
    assert!(is_held, "there were no connections");
    let is_over = || Path::new(&format!("/proc/{holder}/exe")).read_link().is_err();
    assert!(comes_true(is_over), "it holds on to nothing");
}
