//! Tells the program which compiler has made it, and with which quinn, since its reports say so.

use std::fs;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    if let Ok(output) = Command::new(rustc).arg("--version").output() {
        println!("cargo::rustc-env=TOWLINE_BENCH_RUSTC={}", String::from_utf8_lossy(&output.stdout).trim());
    }
    let locked = "../Cargo.lock";
    println!("cargo::rerun-if-changed={locked}");
    let version = |text: String| {
        let (_, package) = text.split_once("name = \"quinn\"\nversion = \"")?;
        package.split_once('"').map(|(version, _)| version.to_owned())
    };
    if let Some(version) = fs::read_to_string(locked).ok().and_then(version) {
        println!("cargo::rustc-env=TOWLINE_BENCH_QUINN={version}");
    }
}
