//! The commands of the laboratory.
//!
//! Each is a file. Exit status: 0 if all held, 1 if a property broke, 2 for wrong usage or input, 3 if a run was not
//! deterministic.

mod diff;
mod export;
mod files;
mod golden;
#[cfg(towline_sabotage)]
mod hunt;
mod list;
mod report;
mod run;
mod shrink;
mod sweep;
mod trace_line;

use std::process::ExitCode;

pub use diff::Diff;
pub use export::ExportCorpus;
pub use golden::Golden;
#[cfg(towline_sabotage)]
pub use hunt::Hunt;
pub use list::List;
pub use report::Report;
pub use run::{Replay, Run};
pub use shrink::Shrink;
pub use sweep::Sweep;

/// A property broke.
const BROKEN: u8 = 1;
/// Wrong usage, or input that cannot be used.
pub const USAGE: u8 = 2;
/// Two runs of the same plan differ.
const NOT_DETERMINISTIC: u8 = 3;

fn status(held: bool) -> ExitCode {
    if held { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) }
}
