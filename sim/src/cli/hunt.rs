//! `hunt`: whether the scenarios find the known bugs, how soon, and how small `shrink` makes what they find.
//!
//! Each bug is armed in a process of its own, as it is for the whole process. There the scenarios are tried in turn, each
//! with the same seeds, until one fails; what fails is shrunk.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use towline_engine::sabotage::Bug;

use super::shrink::smallest;
use super::{files, status};
use crate::run::{Sink, run};
use crate::say::say;
use crate::scenario::{Plan, Role};
use crate::table::table;

/// Arm known bugs, one by one, and see which scenarios find them
#[derive(Args, Debug)]
pub struct Hunt {
    /// Only this bug
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// How many seeds of each scenario
    #[arg(long, value_name = "N", default_value_t = 60)]
    seeds: u64,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// What is tried, in this order: what has least in it first, so that what is found is small.
const SCENARIOS: [&str; 7] = [
    "late-reset",
    "hasty-close",
    "small-windows",
    "link-loss",
    "intruder",
    "drained-sessions",
    "many-small-streams",
];

/// How a bug was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    scenario: String,
    property: String,
    /// How many seeds it took, and how many of all fail so.
    needed: u64,
    failed: u64,
    before: String,
    after: String,
}

/// A bug, and how it was found if it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outcome {
    bug: String,
    found: Option<Found>,
}

impl Hunt {
    /// Runs the command. A bug that is missed is a failure.
    ///
    /// # Errors
    ///
    /// If there is no such bug, or a process cannot be started.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        let outcomes = match &self.bug {
            Some(bug) => {
                crate::sabotage::arm_named(Some(bug))?;
                vec![Outcome { bug: bug.clone(), found: self.search()? }]
            }
            None => {
                Bug::ALL.iter().map(|bug| self.in_its_own_process(*bug)).collect::<anyhow::Result<_>>()?
            }
        };
        if self.json {
            say!("{}", serde_json::to_string(&outcomes)?);
        } else {
            print(&outcomes, self.seeds);
        }
        Ok(status(outcomes.iter().all(|outcome| outcome.found.is_some())))
    }

    fn in_its_own_process(&self, bug: Bug) -> anyhow::Result<Outcome> {
        let program = std::env::current_exe().context("where this program is")?;
        let output = Command::new(program)
            .args(["hunt", "--json", "--bug", &format!("{bug:?}"), "--seeds", &self.seeds.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .context("a process for a bug")?;
        let outcomes: Vec<Outcome> = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("what came of {bug:?}, {}", output.status))?;
        outcomes.into_iter().next().with_context(|| format!("nothing came of {bug:?}"))
    }

    /// The first scenario that fails, in the smallest form.
    fn search(&self) -> anyhow::Result<Option<Found>> {
        for name in SCENARIOS {
            let scenario = files::scenario(name)?;
            let mut first: Option<(u64, Plan, String)> = None;
            let mut failed = 0;
            for seed in 0..self.seeds {
                let plan = files::plan(&scenario, seed, None)?;
                if let Some(property) = run(&plan, Sink::new())?.properties.first {
                    failed += 1;
                    first.get_or_insert((seed, plan, property));
                }
            }
            let Some((seed, plan, property)) = first else { continue };
            let before = size(&plan);
            let after = smallest(plan, &property)?.map(|plan| size(&plan)).unwrap_or_default();
            let scenario = name.to_owned();
            return Ok(Some(Found { scenario, property, needed: seed + 1, failed, before, after }));
        }
        Ok(None)
    }
}

/// What there is in a plan, for a table.
fn size(plan: &Plan) -> String {
    let endpoints = plan.hosts.iter().filter(|host| matches!(host.role, Role::Device | Role::Service));
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    [
        plural(plan.faults.len(), "fault"),
        plural(plan.streams.len(), "stream"),
        plural(endpoints.count(), "endpoint"),
    ]
    .join(", ")
}

fn print(outcomes: &[Outcome], seeds: u64) {
    let of = format!("of {seeds}");
    let mut rows = table(&["bug", "scenario", "property", "seeds needed", &of, "before", "after"]);
    for Outcome { bug, found } in outcomes {
        let mut row = vec![bug.clone()];
        match found {
            Some(Found { scenario, property, needed, failed, before, after }) => row.extend([
                scenario.clone(),
                property.clone(),
                needed.to_string(),
                failed.to_string(),
                before.clone(),
                after.clone(),
            ]),
            None => row.push("MISSED".to_owned()),
        }
        rows.add_row(row);
    }
    say!("{rows}");
}
