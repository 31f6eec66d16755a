//! `shrink`: the smallest plan that fails in the same way.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::files::{self, Failure, Replayable};
use super::{BROKEN, run::print};
use crate::output;
use crate::run::{Sink, run};
use crate::say::say;
use crate::scenario::Plan;
use crate::shrink::{shrink, size};

/// Make a failure as small as can be: fewer faults, fewer streams, fewer hosts, shorter
#[derive(Args, Debug)]
pub struct Shrink {
    /// A failure that `sweep` or `run --failure` has written
    failure: PathBuf,
    /// Arm a known bug first, to see that it is found
    #[cfg(towline_sabotage)]
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Where to write the small one [default: next to it, with `.small.json` for `.json`]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Shrink {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If the failure cannot be read, does not fail, or the small one cannot be written.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        #[cfg(towline_sabotage)]
        crate::sabotage::arm_named(self.bug.as_deref())?;
        let out = self.out.clone().unwrap_or_else(|| self.failure.with_extension("small.json"));
        output::check_different(("FAILURE", Some(&self.failure)), ("--out", Some(&out)))?;
        output::check_writable(Some(&out))?;
        let Replayable::Failure(failure) = files::read(&self.failure)? else {
            bail!("{}: it is no failure; only those can be shrunk", self.failure.display());
        };
        let property = failure.property.clone();
        let Some(small) = smallest(failure.plan.clone(), &property)? else {
            bail!("{}: `{property}` holds now, so there is nothing to shrink", self.failure.display());
        };
        say!("from {}", size(&failure.plan));
        say!("to   {}", size(&small));
        let outcome = run(&small, Sink::new())?;
        print(&small, &outcome, 1.0, false)?;
        if let Some(failure) = Failure::new(small, &outcome) {
            output::write(&out, serde_json::to_string_pretty(&failure)?.as_bytes())?;
            say!("written to {}", out.display());
        }
        Ok(ExitCode::from(BROKEN))
    }
}

/// The smallest plan that breaks `property` as well. `None` if `plan` does not.
pub(super) fn smallest(plan: Plan, property: &str) -> anyhow::Result<Option<Plan>> {
    let breaks = |plan: &Plan| {
        let outcome = run(plan, Sink::new())?;
        Ok::<_, anyhow::Error>(outcome.properties.first.as_deref() == Some(property))
    };
    if !breaks(&plan)? {
        return Ok(None);
    }
    // A plan that cannot be run does not break anything.
    Ok(Some(shrink(plan, &mut |plan| breaks(plan).unwrap_or(false))))
}
