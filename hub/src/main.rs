//! `towline`: the hub, the device agent and the service client in one program.

// They panic where the output is gone or full; see `cli/output.rs`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = cli::run();
    // Not by returning: a thread may be waiting in a read of the standard input, which nobody can interrupt.
    std::process::exit(status.into())
}
