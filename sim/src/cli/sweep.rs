//! `sweep`: many seeds, and what broke in which of them.
//!
//! Threads take seeds one by one; what is printed does not depend on how many there are.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::files::{self, Failure};
use super::status;
use crate::event::TraceHash;
use crate::output;
use crate::property::Properties;
use crate::run::{Outcome, Sink, run};
use crate::say::say;
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
        let load = |name: &str| files::scenario_for(name, self.backend);
        let scenarios = match self.scenario.as_str() {
            "all" => scenarios::names().map(load).collect::<anyhow::Result<Vec<_>>>()?,
            name => vec![load(name)?],
        };
        for scenario in &scenarios {
            files::plan(scenario, self.seeds.0, self.backend)?;
        }
        if let Some(directory) = &self.failures {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot write {}", directory.display()))?;
            output::check_writable(Some(&directory.join("failure.json")))?;
        }
        let until = self.time.and_then(|time| now().checked_add(time.duration()));
        let jobs = self.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
        let mut all = Vec::new();
        // Where there is not time for all seeds, scenarios take turns, so that each gets as many. Else one after the other
        // is quicker to say what failed.
        let together = if until.is_some() { scenarios.len() } else { 1 };
        for some in scenarios.chunks(together.max(1)) {
            let (swept, trouble) = sweep(some, self.seeds, jobs.unwrap_or(1), self.backend, until);
            for (scenario, swept) in some.iter().zip(swept) {
                self.keep_failures(scenario, &swept)?;
                all.push((scenario.name.clone(), swept));
            }
            // What was found before it is kept.
            if let Some(error) = trouble {
                bail!(error);
            }
        }
        let asked = self.seeds.1 - self.seeds.0;
        for (name, swept) in all.iter().filter(|(_, swept)| swept.runs < asked) {
            eprintln!("{name}: {} of {asked} seeds, as the time was up", swept.runs);
        }
        if self.json {
            print_json(&all, asked);
        } else {
            print_table(&all);
        }
        // Nothing is known of what was not run at all.
        Ok(status(all.iter().all(|(_, swept)| swept.failed.is_empty() && swept.runs > 0)))
    }

    fn keep_failures(&self, scenario: &Scenario, swept: &Swept) -> anyhow::Result<()> {
        let Some(directory) = &self.failures else { return Ok(()) };
        for (property, seeds) in &swept.failed {
            let Some(&seed) = seeds.first() else { continue };
            let plan = files::plan(scenario, seed, self.backend)?;
            let outcome = run(&plan, Sink::new())?;
            if let Some(failure) = Failure::new(plan, &outcome) {
                let path = directory.join(format!("{}-{property}-{seed}.json", scenario.name));
                output::write(&path, serde_json::to_string_pretty(&failure)?.as_bytes())?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a limit of real time")]
fn now() -> Instant {
    Instant::now()
}

/// How far runs may be ahead of the oldest that is not over, so that what is kept of them has a bound.
const MOST_AHEAD: usize = 1024;

/// What is next, and what came of what was before.
struct Progress {
    /// The seed and the scenario whose turn it is: each scenario has its turn with a seed before any has the next seed.
    seed: u64,
    turn: usize,
    /// How many runs were begun, and how many were added to `swept`.
    begun: u64,
    added: u64,
    /// Runs that are over before an earlier one is.
    early: BTreeMap<u64, (usize, u64, Outcome)>,
    swept: Vec<Swept>,
    /// How long the runs of each scenario took, in seconds.
    busy: Vec<f64>,
    trouble: Option<anyhow::Error>,
}

impl Progress {
    /// A run is over. What came of it is added in the order in which runs were begun.
    fn over(&mut self, number: u64, turn: usize, seed: u64, outcome: Outcome) {
        self.early.insert(number, (turn, seed, outcome));
        while let Some((turn, seed, outcome)) = self.early.remove(&self.added) {
            self.added += 1;
            self.swept[turn].add(seed, &outcome);
        }
    }
}

impl Swept {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.runs += 1;
        self.hash.add(&outcome.hash);
        self.simulated += outcome.simulated;
        self.properties.add(&outcome.properties);
        if let Some(property) = &outcome.properties.first {
            self.failed.entry(property.clone()).or_default().push(seed);
        }
    }
}

/// Tells those who wait for a run that it will never be over, if its thread panics.
struct Unwinding<'a> {
    progress: &'a Mutex<Progress>,
    changed: &'a Condvar,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.trouble = Some(anyhow!("a run has panicked outside of its world"));
            self.changed.notify_all();
        }
    }
}

/// Runs scenarios with all seeds, in `jobs` threads, in turns. Returns what came of it, and what ended it early.
pub(super) fn sweep(
    scenarios: &[Scenario],
    (first, end): (u64, u64),
    jobs: usize,
    backend: Option<Backend>,
    until: Option<Instant>,
) -> (Vec<Swept>, Option<anyhow::Error>) {
    let name = scenarios.first().filter(|_| scenarios.len() == 1).map_or("all", |it| it.name.as_str());
    let bar = bar(name, (end - first).saturating_mul(scenarios.len() as u64));
    let started = now();
    let progress = Mutex::new(Progress {
        seed: first,
        turn: 0,
        begun: 0,
        added: 0,
        early: BTreeMap::new(),
        swept: scenarios.iter().map(|_| Swept::default()).collect(),
        busy: vec![0.0; scenarios.len()],
        trouble: None,
    });
    let changed = Condvar::new();
    let next = || {
        let mut it = progress.lock().expect("nobody panics with it");
        while it.early.len() >= MOST_AHEAD && it.trouble.is_none() {
            it = changed.wait(it).expect("nobody panics with it");
        }
        let is_late = until.is_some_and(|until| now() > until);
        if it.seed >= end || is_late || it.trouble.is_some() {
            return None;
        }
        let taken = (it.begun, it.turn, it.seed);
        it.begun += 1;
        it.turn += 1;
        if it.turn == scenarios.len() {
            (it.turn, it.seed) = (0, it.seed + 1);
        }
        Some(taken)
    };
    let work = || {
        let _unwinding = Unwinding { progress: &progress, changed: &changed };
        while let Some((number, turn, seed)) = next() {
            let began = now();
            let plan = files::plan(&scenarios[turn], seed, backend);
            let outcome = plan.and_then(|plan| run(&plan, Sink::new()));
            let mut it = progress.lock().expect("nobody panics with it");
            it.busy[turn] += began.elapsed().as_secs_f64();
            match outcome {
                Ok(outcome) => it.over(number, turn, seed, outcome),
                Err(error) => it.trouble = Some(error),
            }
            changed.notify_all();
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| _ = scope.spawn(work)));
    bar.finish_and_clear();
    let Progress { mut swept, busy, trouble, .. } = progress.into_inner().expect("nobody panics with it");
    // Each has its part of the time that all took.
    let (all, wall) = (busy.iter().sum::<f64>().max(1e-9), started.elapsed().as_secs_f64());
    swept.iter_mut().zip(busy).for_each(|(swept, busy)| swept.wall = wall * busy / all);
    (swept, trouble)
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
    say!("{rows}");
    let mut sum = Properties::default();
    all.iter().for_each(|(_, swept)| sum.add(&swept.properties));
    let count = |count: u64| number(usize::try_from(count).unwrap_or(usize::MAX));
    let mut rows = table(&["property", "looked at"]);
    sum.always.iter().for_each(|(name, tally)| _ = rows.add_row([name.clone(), count(tally.checked)]));
    say!("\n{rows}");
    if !sum.sometimes.is_empty() {
        let mut rows = table(&["sometimes", "happened"]);
        sum.sometimes.iter().for_each(|(name, times)| _ = rows.add_row([name.clone(), count(*times)]));
        say!("\n{rows}");
    }
    for (name, swept) in all {
        for (property, seeds) in &swept.failed {
            let detail = swept.properties.always.get(property).and_then(|tally| tally.broken.as_ref());
            let shown: Vec<_> = seeds.iter().take(10).map(u64::to_string).collect();
            let more = if seeds.len() > 10 { " ..." } else { "" };
            say!("\nBROKEN {property} in {name}: {} seeds: {}{more}", seeds.len(), shown.join(" "));
            if let Some(detail) = detail {
                say!("  {}: {}", detail.who, detail.detail);
            }
            say!("  towline-sim run {name} --seed {} --failure {property}.json", seeds[0]);
        }
    }
}

fn print_json(all: &[(String, Swept)], asked: u64) {
    let entry = |(name, swept): &(String, Swept)| {
        serde_json::json!({
            "scenario": name, "seeds": swept.runs, "asked": asked, "failed": swept.failed, "wall_seconds": swept.wall,
            "simulated_ns": swept.simulated, "hash": swept.hash.to_string(), "properties": swept.properties,
        })
    };
    say!("{}", serde_json::Value::from(all.iter().map(entry).collect::<Vec<_>>()));
}
