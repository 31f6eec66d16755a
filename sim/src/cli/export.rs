//! `export-corpus`: what happens in scenarios, as seeds for the fuzzers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::files;
use super::sweep::{bar, seeds};
use crate::corpus::{Corpus, MOST_BYTES, TARGETS};
use crate::output;
use crate::say::say;
use crate::scenario::{Backend, Scenario};
use crate::scenarios;
use crate::table::{number, table};

/// Write what happens in scenarios as seeds for the fuzzers
#[derive(Args, Debug)]
pub struct ExportCorpus {
    /// Where to: a folder that is not there, or is empty. Each target gets a folder in it
    directory: PathBuf,
    /// The name of a scenario, or the path of a .toml file; may be repeated [default: all that the fast backend runs]
    #[arg(long, value_name = "SCENARIO")]
    scenario: Vec<String>,
    /// Which seeds: from the first to before the last
    #[arg(long, value_name = "A..B", default_value = "0..4", value_parser = seeds)]
    seeds: (u64, u64),
    /// How many inputs for each target at most
    #[arg(long, value_name = "N", default_value_t = 500)]
    most: usize,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

impl ExportCorpus {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If a scenario cannot be run, or the folder cannot be written.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        let parent = self.writable_parent()?;
        let scenarios = self.scenarios()?;
        let mut corpus = Corpus::new(self.most);
        let (first, end) = self.seeds;
        let bar = bar("export-corpus", (end - first) * scenarios.len() as u64);
        // The first seed of each scenario comes before the second of any, so that there are some of each.
        for seed in first..end {
            for scenario in &scenarios {
                corpus.add(&files::plan(scenario, seed, Some(Backend::Des))?)?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        self.write(&corpus, &parent)?;
        self.print(&corpus, scenarios.len());
        Ok(ExitCode::SUCCESS)
    }

    /// The scenarios that were asked for, or those that can be run. The storm of ten thousand devices is many times the same.
    fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        if !self.scenario.is_empty() {
            return self.scenario.iter().map(|name| files::scenario(name)).collect();
        }
        let all = scenarios::names().filter(|name| *name != "reconnect-storm").map(files::scenario);
        let all = all.collect::<anyhow::Result<Vec<_>>>()?;
        let runs = |scenario: &Scenario| files::plan(scenario, self.seeds.0, Some(Backend::Des)).is_ok();
        Ok(all.into_iter().filter(runs).collect())
    }

    /// Where the folder will be, after a look that it can be.
    fn writable_parent(&self) -> anyhow::Result<PathBuf> {
        let name = self.directory.display();
        match std::fs::read_dir(&self.directory).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => bail!("cannot write {name}: it is not empty"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {name}")),
        }
        let parent = match self.directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        output::check_writable(Some(&parent.join("corpus")))?;
        Ok(parent)
    }

    /// Writes all of it somewhere else first, so that there is all of it or nothing.
    fn write(&self, corpus: &Corpus, parent: &Path) -> anyhow::Result<()> {
        let context = || format!("cannot write {}", self.directory.display());
        let making = tempfile::tempdir_in(parent).with_context(context)?;
        let made = making.path().join("corpus");
        for target in TARGETS {
            let folder = made.join(target);
            std::fs::create_dir_all(&folder).with_context(context)?;
            for (name, input) in corpus.of(target) {
                std::fs::write(folder.join(name), input).with_context(context)?;
            }
        }
        std::fs::rename(&made, &self.directory).with_context(context)
    }

    fn print(&self, corpus: &Corpus, scenarios: usize) {
        let bytes = |target| corpus.of(target).iter().map(|(_, input)| input.len()).sum::<usize>();
        let largest = |target| corpus.of(target).iter().map(|(_, input)| input.len()).max().unwrap_or(0);
        if self.json {
            let targets: serde_json::Map<_, _> = TARGETS
                .iter()
                .map(|&target| {
                    let value = serde_json::json!({
                        "inputs": corpus.of(target).len(), "bytes": bytes(target), "largest": largest(target),
                        "left_out": corpus.left_out(target),
                    });
                    (target.to_owned(), value)
                })
                .collect();
            let value = serde_json::json!({
                "directory": self.directory, "scenarios": scenarios, "seeds": [self.seeds.0, self.seeds.1],
                "targets": targets,
            });
            say!("{value}");
            return;
        }
        let mut rows = table(&["target", "inputs", "bytes", "largest", "left out"]);
        for target in TARGETS {
            rows.add_row([
                target.to_owned(),
                number(corpus.of(target).len()),
                number(bytes(target)),
                number(largest(target)),
                number(corpus.left_out(target)),
            ]);
        }
        say!("{rows}");
        say!(
            "{scenarios} scenarios, seeds {}..{}; no input is longer than {} bytes, and none is there twice",
            self.seeds.0,
            self.seeds.1,
            number(MOST_BYTES)
        );
    }
}
