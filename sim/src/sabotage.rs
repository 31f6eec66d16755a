//! Who finds the known bugs, and how fast.
//!
//! Each bug is armed in a process of its own, as it is for the whole process: the explorer walks its scopes, smallest
//! first, until something breaks; and operations are drawn at random, as the property tests of the engine draw them.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use towline_engine::sabotage::{Bug, arm};

use crate::drawn;
use crate::explore::{Bounds, Case, Scope, walk};
use crate::say::say;
use crate::table::{number, seconds, table};

/// What to do, from the command line.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only this bug; prints the shortest way to it as a test
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// How many seconds the explorer and the random operations have for each bug, each
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// How many threads walk
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// Who found a bug.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    bug: String,
    explorer: Option<Walked>,
    random: Option<Drawn>,
}

/// How the explorer found it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Walked {
    scope: String,
    property: String,
    states: usize,
    seconds: f64,
    /// How long other scopes took that did not find it.
    before: f64,
    steps: usize,
    is_shortest: bool,
    test: String,
}

/// How random operations found it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drawn {
    property: String,
    cases: u64,
    seconds: f64,
}

/// Arms the bugs, one by one, and tells who found them.
///
/// # Errors
///
/// If there is no such bug, or a process cannot be started.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let outcomes = match &options.bug {
        Some(name) => vec![search(named(name)?, options)],
        None => {
            Bug::ALL.iter().map(|bug| in_its_own_process(*bug, options)).collect::<anyhow::Result<_>>()?
        }
    };
    if options.json {
        say!("{}", serde_json::to_string(&outcomes)?);
    } else {
        print(&outcomes, options.bug.is_some());
    }
    let is_missed = |outcome: &&Outcome| outcome.explorer.is_none() && outcome.random.is_none();
    let missed = outcomes.iter().filter(is_missed).count();
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Arms the bug with this name, if there is one.
pub(crate) fn arm_named(name: Option<&str>) -> anyhow::Result<()> {
    name.map(named).transpose().map(|bug| bug.into_iter().for_each(arm))
}

fn named(name: &str) -> anyhow::Result<Bug> {
    let names = || Bug::ALL.map(|bug| format!("{bug:?}")).join(", ");
    Bug::named(name).with_context(|| format!("no bug {name}; there are {}", names()))
}

fn in_its_own_process(bug: Bug, options: &Options) -> anyhow::Result<Outcome> {
    eprintln!("{bug:?} ...");
    let program = std::env::current_exe().context("where this program is")?;
    let output = Command::new(program)
        .args(["sabotage", "--json", "--bug", &format!("{bug:?}")])
        .args(["--limit", &options.limit.to_string(), "--threads", &options.threads.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("a process for a bug")?;
    let outcomes: Vec<Outcome> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("what came of {bug:?}, {}", output.status))?;
    match outcomes.into_iter().next() {
        Some(outcome) => Ok(outcome),
        None => bail!("nothing came of {bug:?}"),
    }
}

fn search(bug: Bug, options: &Options) -> Outcome {
    arm(bug);
    let limit = Duration::from_secs(options.limit);
    Outcome { bug: format!("{bug:?}"), explorer: explore(limit, options.threads), random: draw(limit) }
}

/// Looks into every case a little, and then into all of them.
fn explore(limit: Duration, threads: usize) -> Option<Walked> {
    let mut taken = 0.0;
    for max_states in [Some(A_LITTLE), None] {
        for case in by_size() {
            let left = Duration::try_from_secs_f64(limit.as_secs_f64() - taken).ok()?;
            let report = walk(&case, Bounds { threads, max_states, timeout: Some(left) }, &mut |_| ());
            if let Some(finding) = report.finding {
                return Some(Walked {
                    scope: format!("{:?}, {}", case.scope, case.name).to_lowercase(),
                    property: finding.property.to_owned(),
                    states: report.states,
                    seconds: report.seconds_to_finding.unwrap_or(report.seconds),
                    before: taken,
                    steps: finding.steps,
                    is_shortest: finding.is_shortest,
                    test: finding.test,
                });
            }
            taken += report.seconds;
        }
    }
    None
}

const A_LITTLE: usize = 300_000;

/// All cases, the smallest first.
fn by_size() -> Vec<Case> {
    let mut cases = Scope::All.cases();
    cases.sort_by_key(|case| {
        BY_SIZE.iter().position(|(scope, name)| (case.scope, case.name) == (*scope, *name))
    });
    cases
}

const BY_SIZE: [(Scope, &str); 14] = [
    (Scope::Close, "one place"),
    (Scope::Delivery, "one place"),
    (Scope::Race, "two pipes"),
    (Scope::Race, "three pipes"),
    (Scope::Race, "silent pipes"),
    (Scope::Resume, "in part"),
    (Scope::Delivery, "one way"),
    (Scope::Delivery, "both ways"),
    (Scope::Close, "one stream"),
    (Scope::Resume, "three pipes"),
    (Scope::Resume, "no optimism"),
    (Scope::Close, "session"),
    (Scope::Close, "two streams"),
    (Scope::Close, "drain"),
];

fn draw(limit: Duration) -> Option<Drawn> {
    let found = drawn::search(limit)?;
    Some(Drawn { property: found.property.to_owned(), cases: found.cases, seconds: found.seconds })
}

fn print(outcomes: &[Outcome], with_test: bool) {
    let heads = ["bug", "explorer", "", "states", "time", "before", "steps", "random", "cases", "time"];
    let mut rows = table(&heads);
    for Outcome { bug, explorer, random } in outcomes {
        let mut row = vec![bug.clone()];
        row.extend(match explorer {
            Some(it) => [
                it.scope.clone(),
                it.property.clone(),
                number(it.states),
                seconds(it.seconds),
                seconds(it.before),
                format!("{}{}", if it.is_shortest { "" } else { "< " }, it.steps),
            ],
            None => ["MISSED", "", "", "", "", ""].map(str::to_owned),
        });
        row.extend(match random {
            Some(it) => [
                it.property.clone(),
                number(usize::try_from(it.cases).unwrap_or(usize::MAX)),
                seconds(it.seconds),
            ],
            None => ["missed", "", ""].map(str::to_owned),
        });
        rows.add_row(row);
    }
    say!("{rows}");
    for walked in outcomes.iter().filter_map(|outcome| outcome.explorer.as_ref()).filter(|_| with_test) {
        say!("\n{}", walked.test);
    }
}
