//! What was found once is found again: every file under `fuzz/regressions/` and `fuzz/seeds/` runs as the fuzzer ran it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use towline_fuzz_bodies::TARGETS;

fn files(kind: &str, target: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(kind).join(target);
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(kind: &str) {
    for target in TARGETS {
        for file in files(kind, target.name) {
            println!("{}", file.display()); // the last one is the one that fails
            (target.run)(&std::fs::read(file).unwrap());
        }
    }
}

#[test]
fn regressions() {
    replay("regressions");
}

#[test]
fn seeds() {
    replay("seeds");
}

#[test]
fn seeds_are_what_the_generator_makes() {
    for target in TARGETS {
        let made = towline_fuzz_bodies::seeds::of(target.name).unwrap();
        let there = files("seeds", target.name);
        let names: Vec<_> =
            there.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert!(
            made.keys().eq(&names),
            "{}: run `cargo run -p towline-fuzz-bodies --bin make-seeds`",
            target.name
        );
        for file in there {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(std::fs::read(&file).unwrap(), made[&name], "{}: {name}", target.name);
        }
    }
}

#[test]
fn regressions_are_of_a_target() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regressions");
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name == "README.md" || TARGETS.iter().any(|target| target.name == name), "{name}");
    }
}
