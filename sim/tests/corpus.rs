//! `export-corpus`: seeds for the fuzzers. That the fuzzers read them as they are meant is tested there
//! (`fuzz/bodies/tests/exported.rs`).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use towline_sim::corpus::{MOST_BYTES, TARGETS};

fn export(directory: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline-sim"));
    command.arg("export-corpus").arg(directory).args(more).output().unwrap()
}

/// The inputs, by their paths.
fn inputs(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut inputs = BTreeMap::new();
    for target in TARGETS {
        for entry in std::fs::read_dir(directory.join(target)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{target}/{}", entry.file_name().into_string().unwrap());
            inputs.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    inputs
}

#[test]
fn the_same_inputs_come_out_each_time_and_none_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let arguments =
        ["--scenario", "many-small-streams", "--scenario", "link-loss", "--seeds", "0..3", "--json"];
    let first = export(&one, &arguments);
    assert!(first.status.success(), "{first:?}");
    std::fs::create_dir(&other).unwrap(); // an empty one will do
    assert!(export(&other, &arguments).status.success());
    let inputs_of_one = inputs(&one);
    assert_eq!(inputs_of_one, inputs(&other));
    let said: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    for target in TARGETS {
        let of_target = || inputs_of_one.iter().filter(|(name, _)| name.starts_with(target));
        assert!(of_target().count() > 0, "{target}");
        assert!(of_target().all(|(_, input)| !input.is_empty() && input.len() <= MOST_BYTES), "{target}");
        assert_eq!(said["targets"][target]["inputs"], of_target().count());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn no_more_than_are_wanted_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("few");
    let output = export(&directory, &["--scenario", "many-small-streams", "--seeds", "0..5", "--most", "2"]);
    assert!(output.status.success(), "{output:?}");
    for target in TARGETS {
        assert!(std::fs::read_dir(directory.join(target)).unwrap().count() <= 2);
    }
    assert!(String::from_utf8(output.stdout).unwrap().contains("LEFT OUT"));
}

#[test]
fn a_folder_that_cannot_be_written_is_named_and_nothing_is_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "").unwrap();
    let file = full.join("mine");
    for (directory, message) in [
        (full.as_path(), "it is not empty"),
        (file.as_path(), "cannot write"),
        (Path::new("/no/such/place"), "cannot write /no/such/"),
    ] {
        let output = export(directory, &["--scenario", "link-loss"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(message) && said.lines().count() == 1, "{said}");
    }
    let unknown = export(&folder.path().join("new"), &["--scenario", "no-such"]);
    assert_eq!(unknown.status.code(), Some(2));
    let on_the_other = export(&folder.path().join("new"), &["--scenario", "product-expiry"]);
    assert_eq!(
        on_the_other.status.code(),
        Some(2),
        "sessions are heard on the fast backend only: {on_the_other:?}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
