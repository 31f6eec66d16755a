//! `sweep`: many seeds, and what broke in which of them.
//!
//! Threads take seeds one by one; what is printed does not depend on how many there are.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::files::{self, Failure};
use super::status;
use crate::event::TraceHash;
use crate::property::Properties;
use crate::run::{Sink, run};
use crate::scenario::{Backend, Scenario, Span};
use crate::scenarios;
use crate::table::{number, table};

/// Run scenarios with many seeds
#[derive(Args, Debug)]
pub struct Sweep {
    /// The name of a scenario, the path of a .toml file, or `all`
    scenario: String,
    /// Which seeds: from the first to before the last
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = seeds)]
    seeds: (u64, u64),
    /// How many threads run [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Begin no more runs after so long, such as "10 min"
    #[arg(long)]
    time: Option<Span>,
    /// What runs them [default: as each scenario says]
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Where to write failures, one file for each property of each scenario
    #[arg(long, value_name = "DIRECTORY")]
    failures: Option<PathBuf>,
    /// Arm a known bug first, to see that it is found
    #[cfg(towline_sabotage)]
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// What came of a scenario's seeds.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) runs: u64,
    simulated: u64,
    pub(super) properties: Properties,
    /// The seeds that failed, by the property that broke first.
    pub(super) failed: BTreeMap<String, Vec<u64>>,
    /// Of all traces, in the order of seeds.
    hash: TraceHash,
    wall: f64,
}

pub(super) fn seeds(text: &str) -> Result<(u64, u64), String> {
    let range = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    range.filter(|(from, to)| from < to).ok_or_else(|| "write it like 0..1000".to_owned())
}

impl Sweep {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If a scenario cannot be run, or a file cannot be written.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        #[cfg(towline_sabotage)]
        crate::sabotage::arm_named(self.bug.as_deref())?;
        let scenarios = match self.scenario.as_str() {
            "all" => scenarios::names().map(files::scenario).collect::<anyhow::Result<Vec<_>>>()?,
            name => vec![files::scenario(name)?],
        };
        for scenario in &scenarios {
            files::plan(scenario, self.seeds.0, self.backend)?;
        }
        if let Some(directory) = &self.failures {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot write {}", directory.display()))?;
            files::check_writable(Some(&directory.join("failure.json")))?;
        }
        let until = self.time.map(|time| now() + time.duration());
        let jobs = self.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
        let mut all = Vec::new();
        for scenario in &scenarios {
            let swept = sweep(scenario, self.seeds, jobs.unwrap_or(1), self.backend, until)?;
            self.keep_failures(scenario, &swept)?;
            all.push((scenario.name.clone(), swept));
        }
        if self.json {
            print_json(&all);
        } else {
            print_table(&all);
        }
        Ok(status(all.iter().all(|(_, swept)| swept.failed.is_empty())))
    }

    fn keep_failures(&self, scenario: &Scenario, swept: &Swept) -> anyhow::Result<()> {
        let Some(directory) = &self.failures else { return Ok(()) };
        for (property, seeds) in &swept.failed {
            let Some(&seed) = seeds.first() else { continue };
            let plan = files::plan(scenario, seed, self.backend)?;
            let outcome = run(&plan, Sink::new())?;
            if let Some(failure) = Failure::new(plan, &outcome) {
                let path = directory.join(format!("{}-{property}-{seed}.json", scenario.name));
                files::write(&path, serde_json::to_string_pretty(&failure)?.as_bytes())?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a limit of real time")]
fn now() -> Instant {
    Instant::now()
}

/// Runs a scenario with all seeds, in `jobs` threads.
pub(super) fn sweep(
    scenario: &Scenario,
    (first, end): (u64, u64),
    jobs: usize,
    backend: Option<Backend>,
    until: Option<Instant>,
) -> anyhow::Result<Swept> {
    let bar = bar(&scenario.name, end - first);
    let started = now();
    let next = AtomicU64::new(first);
    let results = Mutex::new(BTreeMap::new());
    let trouble = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_late = until.is_some_and(|until| now() > until);
            if seed >= end || is_late || stop.load(Ordering::Relaxed) {
                return;
            }
            let outcome = files::plan(scenario, seed, backend).and_then(|plan| run(&plan, Sink::new()));
            match outcome {
                Ok(outcome) => _ = results.lock().expect("nobody panics with it").insert(seed, outcome),
                Err(error) => {
                    *trouble.lock().expect("nobody panics with it") = Some(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| _ = scope.spawn(work)));
    bar.finish_and_clear();
    if let Some(error) = trouble.into_inner().expect("nobody panics with it") {
        bail!(error);
    }
    let mut swept = Swept { wall: started.elapsed().as_secs_f64(), ..Swept::default() };
    for (seed, outcome) in results.into_inner().expect("nobody panics with it") {
        swept.runs += 1;
        swept.hash.add(&outcome.hash);
        swept.simulated += outcome.simulated;
        swept.properties.add(&outcome.properties);
        if let Some(property) = &outcome.properties.first {
            swept.failed.entry(property.clone()).or_default().push(seed);
        }
    }
    Ok(swept)
}

pub(super) fn bar(name: &str, count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{msg} [{bar:40}] {pos}/{len} seeds, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(count).with_style(style).with_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn print_table(all: &[(String, Swept)]) {
    let mut rows =
        table(&["scenario", "seeds", "failed", "simulated s/s", "seeds/min", "sometimes", "never"]);
    for (name, swept) in all {
        let sometimes = &swept.properties.sometimes;
        let never: Vec<_> =
            sometimes.iter().filter(|(_, count)| **count == 0).map(|(it, _)| it.as_str()).collect();
        let failed: usize = swept.failed.values().map(Vec::len).sum();
        rows.add_row([
            name.clone(),
            number(usize::try_from(swept.runs).unwrap_or(usize::MAX)),
            number(failed),
            format!("{:.0}", swept.simulated as f64 / 1e9 / swept.wall.max(1e-9)),
            format!("{:.0}", swept.runs as f64 * 60.0 / swept.wall.max(1e-9)),
            format!("{} of {}", sometimes.len() - never.len(), sometimes.len()),
            never.join(", "),
        ]);
    }
    println!("{rows}");
    let mut sum = Properties::default();
    all.iter().for_each(|(_, swept)| sum.add(&swept.properties));
    let mut rows = table(&["property", "looked at"]);
    for (name, tally) in &sum.always {
        rows.add_row([name.clone(), number(usize::try_from(tally.checked).unwrap_or(usize::MAX))]);
    }
    println!("\n{rows}");
    for (name, swept) in all {
        for (property, seeds) in &swept.failed {
            let detail = swept.properties.always.get(property).and_then(|tally| tally.broken.as_ref());
            let shown: Vec<_> = seeds.iter().take(10).map(u64::to_string).collect();
            let more = if seeds.len() > 10 { " ..." } else { "" };
            println!("\nBROKEN {property} in {name}: {} seeds: {}{more}", seeds.len(), shown.join(" "));
            if let Some(detail) = detail {
                println!("  {}: {}", detail.who, detail.detail);
            }
            println!("  towline-sim run {name} --seed {} --failure {property}.json", seeds[0]);
        }
    }
}

fn print_json(all: &[(String, Swept)]) {
    let entry = |(name, swept): &(String, Swept)| {
        serde_json::json!({
            "scenario": name, "seeds": swept.runs, "failed": swept.failed, "wall_seconds": swept.wall,
            "simulated_ns": swept.simulated, "hash": swept.hash.to_string(), "properties": swept.properties,
        })
    };
    println!("{}", serde_json::Value::from(all.iter().map(entry).collect::<Vec<_>>()));
}
