//! `golden`: whether this build says what all builds say.
//!
//! In: the hashes that are written down with the tests, of the first seeds of each scenario. Out: those that are others here.
//! The tests look at them in a build with assertions; this command does in any.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use clap::Args;

use super::{NOT_DETERMINISTIC, files};
use crate::run::{Sink, run};
use crate::say::say;

/// Compare the traces of this build with the hashes in sim/tests
#[derive(Args, Debug)]
pub struct Golden {
    /// Where golden.txt and golden/*.txt are
    #[arg(default_value = "sim/tests")]
    directory: PathBuf,
}

/// A scenario, a seed and the hash of its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hash {
    scenario: String,
    seed: u64,
    hash: String,
}

impl Hash {
    /// What it is in this build.
    fn run(&self) -> anyhow::Result<String> {
        let plan = files::plan(&files::scenario(&self.scenario)?, self.seed, None)?;
        Ok(run(&plan, Sink::new())?.hash)
    }
}

impl Golden {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or is of something else.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        let expected = read(&self.directory)?;
        let scenarios: BTreeSet<_> = expected.iter().map(|hash| &hash.scenario).collect();
        let mut differ = 0;
        for (Hash { scenario, seed, hash }, found) in expected.iter().zip(run_all(&expected)) {
            let found = found?;
            if found != *hash {
                say!("{scenario} with seed {seed} is {found} here, and {hash} elsewhere");
                differ += 1;
            }
        }
        if differ > 0 {
            eprintln!("{differ} of {} traces differ", expected.len());
            return Ok(ExitCode::from(NOT_DETERMINISTIC));
        }
        say!("{} traces of {} scenarios, the same", expected.len(), scenarios.len());
        Ok(ExitCode::SUCCESS)
    }
}

/// What each hash is in this build, in order; on all processors.
fn run_all(expected: &[Hash]) -> impl Iterator<Item = anyhow::Result<String>> {
    let found: Vec<_> = expected.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some(hash) = expected.get(number)
        {
            found[number].get_or_init(|| hash.run());
        }
    };
    let jobs = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| (0..jobs).for_each(|_| _ = scope.spawn(work)));
    found.into_iter().map(|found| found.into_inner().expect("all were run"))
}

/// All that is written down: lines of name, seed and hash; and files with the name of a scenario and a hash for each seed.
fn read(directory: &Path) -> anyhow::Result<Vec<Hash>> {
    let text = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let path = directory.join("golden.txt");
    let mut hashes = Vec::new();
    for line in text(&path)?.lines() {
        let mut words = line.split(' ');
        let (Some(scenario), Some(Ok(seed)), Some(hash)) =
            (words.next(), words.next().map(str::parse), words.next())
        else {
            bail!("{}: `{line}` is not a name, a seed and a hash", path.display());
        };
        hashes.push(Hash { scenario: scenario.to_owned(), seed, hash: hash.to_owned() });
    }
    let folder = directory.join("golden");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let scenario = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (seed, line) in (0..).zip(text(&path)?.lines()) {
            hashes.push(Hash { scenario: scenario.clone(), seed, hash: line.to_owned() });
        }
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        std::fs::create_dir(path.join("golden")).expect("it can be made");
        std::fs::write(path.join("golden.txt"), "link-loss 3 aa\n").expect("it can be written");
        std::fs::write(path.join("golden/product-twins.txt"), "bb\ncc\n").expect("it can be written");
        let hash = |scenario: &str, seed, hash: &str| {
            let (scenario, hash) = (scenario.to_owned(), hash.to_owned());
            Hash { scenario, seed, hash }
        };
        let expected =
            [hash("link-loss", 3, "aa"), hash("product-twins", 0, "bb"), hash("product-twins", 1, "cc")];
        assert_eq!(read(path).expect("it is well"), expected);
        std::fs::write(path.join("golden.txt"), "link-loss aa\n").expect("it can be written");
        assert!(read(path).expect_err("no seed").to_string().contains("not a name, a seed and a hash"));
    }
}
