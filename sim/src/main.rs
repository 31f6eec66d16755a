//! The command line of the laboratory.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use towline_sim::cli;
use towline_sim::explore::{Bounds, Case, Progress, Report, Scope, print_json, print_table, walk};

/// Towline's laboratory: scenarios in simulated time, always the same, and every interleaving of two sessions.
#[derive(Parser)]
#[command(name = "towline-sim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(cli::List),
    #[command(after_help = RUN_HELP)]
    Run(cli::Run),
    #[command(after_help = SWEEP_HELP)]
    Sweep(cli::Sweep),
    Shrink(cli::Shrink),
    Replay(cli::Replay),
    Diff(cli::Diff),
    Report(cli::Report),
    Golden(cli::Golden),
    ExportCorpus(cli::ExportCorpus),
    /// Walk every interleaving of two sessions
    #[command(after_help = "\
Examples:
  towline-sim explore                       all scopes but full, in some minutes
  towline-sim explore --scope race --json   one scope, for programs
  towline-sim explore --scope full --max-states 3000000

Exit status: 0 if all properties held, 1 if one did not, 2 for wrong usage.")]
    Explore(Explore),
    /// Arm known bugs, one by one, and see who finds them
    #[cfg(towline_sabotage)]
    #[command(after_help = "\
Examples:
  towline-sim sabotage                          all bugs
  towline-sim sabotage --bug FinLostAtDetach    one, and the shortest way to it as a test

Exit status: 0 if every bug was found, 1 if one was not, 2 for wrong usage.")]
    Sabotage(towline_sim::sabotage::Options),
    #[cfg(towline_sabotage)]
    Hunt(cli::Hunt),
}

#[derive(Args)]
struct Explore {
    /// What to walk
    #[arg(long, value_enum, default_value_t = Scope::All)]
    scope: Scope,
    /// How many threads walk [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// End each walk after about so many states, counted as often as they are reached
    #[arg(long, value_name = "N")]
    max_states: Option<usize>,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

const RUN_HELP: &str = "\
Examples:
  towline-sim run link-loss --seed 7 --check           twice, and the same
  towline-sim run link-loss --seed 7 --trace run.qlog  every event, for `report`, `replay` and `diff`
  towline-sim run ./mine.toml --seed 7 --plan          what was drawn, and nothing run

Exit status: 0 if all held, 1 if a property broke, 2 for wrong usage or input, 3 if a run was not deterministic.";

const SWEEP_HELP: &str = "\
Examples:
  towline-sim sweep all --seeds 0..1000
  towline-sim sweep link-loss --seeds 0..100000 --time '10 min' --failures failures

Exit status: 0 if all held, 1 if a property broke or --time left a scenario out, 2 for wrong usage or input.";

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(cli::USAGE)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(options) => options.execute(),
        Command::Run(options) => options.execute(),
        Command::Sweep(options) => options.execute(),
        Command::Shrink(options) => options.execute(),
        Command::Replay(options) => options.execute(),
        Command::Diff(options) => options.execute(),
        Command::Report(options) => options.execute(),
        Command::Golden(options) => options.execute(),
        Command::ExportCorpus(options) => options.execute(),
        Command::Explore(options) => explore(&options),
        #[cfg(towline_sabotage)]
        Command::Sabotage(options) => towline_sim::sabotage::run(&options),
        #[cfg(towline_sabotage)]
        Command::Hunt(options) => options.execute(),
    }
}

fn explore(options: &Explore) -> anyhow::Result<ExitCode> {
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    let bounds = Bounds { threads: threads.unwrap_or(1), max_states: options.max_states, timeout: None };
    let reports: Vec<Report> = options.scope.cases().iter().map(|case| walk_loudly(case, bounds)).collect();
    if options.json {
        print_json(&reports)?;
    } else {
        print_table(&reports);
    }
    let all_held = reports.iter().all(|report| report.finding.is_none());
    Ok(if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Walks, and says on standard error how far it is: over and over on a terminal, else every ten seconds.
fn walk_loudly(case: &Case, bounds: Bounds) -> Report {
    let mut stderr = std::io::stderr();
    let is_terminal = stderr.is_terminal();
    let mut last = (Duration::ZERO, 0);
    let report = walk(case, bounds, &mut |progress: Progress| {
        let since = progress.elapsed.saturating_sub(last.0);
        if !is_terminal && since < Duration::from_secs(10) {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = progress.states.saturating_sub(last.1) as f64 / since.as_secs_f64().max(0.001);
        last = (progress.elapsed, progress.states);
        let scope = format!("{:?}", case.scope).to_lowercase();
        let (before, after) = if is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let Progress { what, states, unique, depth, .. } = progress;
        // Who closed standard error does not want to know.
        let _ = write!(
            stderr,
            "{before}{scope}, {}: {what}, {states} states, {unique} unique, {rate:.0}/s, depth {depth}{after}",
            case.name
        );
    });
    if is_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    report
}
