//! `run` and `replay`: one run, and what came of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;

use super::files::{self, Failure, Replayable, seconds};
use super::{NOT_DETERMINISTIC, status};
use crate::engine_log::{End, EngineLog, Replayed};
use crate::output;
use crate::run::{Ended, Outcome, Sink, run};
use crate::say::say;
use crate::scenario::{Backend, Plan};
use crate::table::number;

/// Run a scenario with one seed
#[derive(Args, Debug)]
pub struct Run {
    /// The name of a scenario, or the path of a .toml file
    scenario: String,
    /// What is drawn, is drawn from this number
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What runs it [default: as the scenario says]
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Arm a known bug first, to see that it is found
    #[cfg(towline_sabotage)]
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Run twice, and name the first event that differs
    #[arg(long)]
    check: bool,
    /// Write all events to this file, as a JSON text sequence in the shape of qlog
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// If it fails, write what to replay and to shrink to this file
    #[arg(long, value_name = "FILE")]
    failure: Option<PathBuf>,
    /// Print the plan, with everything fixed that is drawn, and do not run it
    #[arg(long)]
    plan: bool,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If the scenario cannot be run, or a file cannot be written.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        #[cfg(towline_sabotage)]
        crate::sabotage::arm_named(self.bug.as_deref())?;
        let scenario = files::scenario_for(&self.scenario, self.backend)?;
        let plan = files::plan(&scenario, self.seed, self.backend)?;
        if self.plan {
            say!("{}", plan.to_json());
            return Ok(ExitCode::SUCCESS);
        }
        let (trace, failure) = (self.trace.as_deref(), self.failure.as_deref());
        output::check_different(("--trace", trace), ("--failure", failure))?;
        output::check_writable(self.trace.as_deref())?;
        output::check_writable(self.failure.as_deref())?;
        let started = now();
        let outcome =
            run(&plan, if self.trace.is_some() || self.check { Sink::keeping() } else { Sink::new() })?;
        let wall = started.elapsed().as_secs_f64();
        if let Some(path) = &self.trace {
            files::write_trace(path, &plan, &outcome)?;
        }
        print(&plan, &outcome, wall, self.json)?;
        if self.check && !is_same(&outcome.lines, &run(&plan, Sink::keeping())?.lines) {
            return Ok(ExitCode::from(NOT_DETERMINISTIC));
        }
        if let (Some(path), Some(failure)) = (&self.failure, Failure::new(plan, &outcome)) {
            output::write(path, serde_json::to_string_pretty(&failure)?.as_bytes())?;
        }
        Ok(status(outcome.properties.held()))
    }
}

/// Run again what is in a file that `sweep`, `shrink`, `run --trace` or `towline --qlog` has written, and compare
#[derive(Args, Debug)]
pub struct Replay {
    /// A failure, a trace, or the event log of a session
    file: PathBuf,
    /// Write all events to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is of another version, or cannot be run.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        output::check_different(("FILE", Some(&self.file)), ("--trace", self.trace.as_deref()))?;
        output::check_writable(self.trace.as_deref())?;
        let (plan, hash, lines) = match files::read(&self.file)? {
            Replayable::Failure(failure) => (failure.plan, failure.hash, None),
            Replayable::Trace(trace) => (trace.of.plan, trace.of.hash, Some(trace.lines)),
            Replayable::Log(log) => return replay_log(&self.file, &log, self.json),
        };
        let started = now();
        let outcome = run(&plan, Sink::keeping())?;
        let wall = started.elapsed().as_secs_f64();
        print(&plan, &outcome, wall, self.json)?;
        if let Some(path) = &self.trace {
            files::write_trace(path, &plan, &outcome)?;
        }
        let same = match lines {
            Some(lines) => is_same(&lines, &outcome.lines),
            None if outcome.hash == hash => true,
            None => {
                eprintln!(
                    "not deterministic, or of another build: the hash was {hash} and is {}",
                    outcome.hash
                );
                false
            }
        };
        if !same {
            return Ok(ExitCode::from(NOT_DETERMINISTIC));
        }
        Ok(status(outcome.properties.held()))
    }
}

/// Runs a session of the product again.
fn replay_log(path: &Path, log: &EngineLog, json: bool) -> anyhow::Result<ExitCode> {
    let replayed = log.replay().with_context(|| path.display().to_string())?;
    let (title, total) = (&log.head.title, log.lines.len());
    let Replayed { events, shape, end } = &replayed;
    let (end, detail) = match end {
        End::Same => ("same", None),
        End::Unknown(why) => ("unknown", Some(why.clone())),
        End::Differs { line, logged, now } => {
            ("differs", Some(format!("line {line}: the log has\n  {logged}\nand now there is\n  {now}")))
        }
    };
    if json {
        let value = serde_json::json!({
            "session": title, "events": total, "found_again": events, "shape": shape, "end": end, "detail": detail,
        });
        say!("{value}");
    } else {
        say!("{title}: {} of {} events found again", number(*events), number(total));
        if let Some(shape) = shape {
            say!("  the session stood as the log says, last at {shape}");
        }
    }
    match (end, detail) {
        ("differs", Some(detail)) => {
            eprintln!("not deterministic, or of another build: {detail}");
            return Ok(ExitCode::from(NOT_DETERMINISTIC));
        }
        (_, Some(detail)) => eprintln!("the rest cannot be run again: {detail}"),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is measured by the real clock")]
fn now() -> Instant {
    Instant::now()
}

/// Whether two runs went alike. Names the first event that differs.
pub(super) fn is_same(one: &[String], other: &[String]) -> bool {
    let Some(at) = (0..one.len().max(other.len())).find(|&at| one.get(at) != other.get(at)) else {
        return true;
    };
    let show = |lines: &[String]| lines.get(at).map_or("nothing: it has ended", String::as_str).to_owned();
    eprintln!("event {at} differs, the first of {} and {}:", one.len(), other.len());
    eprintln!("  {}\n  {}", show(one), show(other));
    false
}

/// Prints what came of a run.
pub(super) fn print(plan: &Plan, outcome: &Outcome, wall: f64, json: bool) -> anyhow::Result<()> {
    if json {
        let value = serde_json::json!({
            "scenario": plan.scenario, "seed": plan.seed, "backend": plan.backend, "wall_seconds": wall,
            "outcome": outcome,
        });
        say!("{value}");
        return Ok(());
    }
    let Outcome { hash, events, simulated, ended, properties, figures, waiting, .. } = outcome;
    say!("{} seed={} backend={} trace={hash}", plan.scenario, plan.seed, plan.backend);
    say!("  {}", crate::shrink::size(plan));
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let speed = *simulated as f64 / 1e9 / wall.max(1e-9);
    say!(
        "  simulated {}, in {wall:.2} s of real time ({speed:.0} times as fast), {} events",
        seconds(*simulated),
        number(usize::try_from(*events).unwrap_or(usize::MAX))
    );
    let held = properties.always.values().filter(|tally| tally.broken.is_none()).count();
    say!("  always: {held} of {} held", properties.always.len());
    let hits = properties.sometimes.values().filter(|count| **count > 0).count();
    say!("  sometimes: {hits} of {} happened", properties.sometimes.len());
    for (name, value) in figures {
        say!("  {name}: {}", figure(name, *value));
    }
    if *ended != Ended::Done {
        say!("  ended early: {ended:?}");
        waiting.iter().for_each(|line| say!("    {line}"));
    }
    for (name, broken) in properties.broken() {
        say!("BROKEN {name}: {} at {}: {}", broken.who, seconds(broken.time), broken.detail);
    }
    Ok(())
}

fn figure(name: &str, value: u64) -> String {
    match value {
        u64::MAX => "never".to_owned(),
        _ if name.ends_with("_ns") => seconds(value),
        _ => number(usize::try_from(value).unwrap_or(usize::MAX)),
    }
}
