//! `diff`: where two traces part.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::NOT_DETERMINISTIC;
use super::files::{self, Replayable, Trace};
use super::run::is_same;
use crate::say::say;

/// Name the first event in which two traces differ
#[derive(Args, Debug)]
pub struct Diff {
    /// A trace
    one: PathBuf,
    /// Another one
    other: PathBuf,
}

impl Diff {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        let (one, other) = (trace(&self.one)?, trace(&self.other)?);
        if one.of.plan != other.of.plan {
            eprintln!("they are of different plans");
        }
        if is_same(&one.lines, &other.lines) {
            say!("{} events, the same", one.lines.len());
            return Ok(ExitCode::SUCCESS);
        }
        Ok(ExitCode::from(NOT_DETERMINISTIC))
    }
}

/// A trace from a file.
pub(super) fn trace(path: &Path) -> anyhow::Result<Trace> {
    match files::read(path)? {
        Replayable::Trace(trace) => Ok(*trace),
        Replayable::Failure(_) => {
            bail!("{}: it is a failure; `replay --trace` makes a trace of it", path.display())
        }
        Replayable::Log(_) => bail!("{}: it is the event log of a session; `replay` runs it", path.display()),
    }
}
