//! `towline-sim`: looks for mistakes in the engine.

mod explore;
#[cfg(towline_sabotage)]
mod sabotage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks for mistakes in the engine's real code.
#[derive(Debug, Parser)]
#[command(
    name = "towline-sim",
    version,
    after_help = "\
Example, the scope in which two pipes contend, and then all of them, a hundred thousand states each:
  cargo sim explore --scope race
  cargo sim explore --max-states 100000"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Walk every interleaving of two sessions, within a scope
    Explore(explore::ExploreArgs),
    /// Arm each known bug in turn, and see who finds it
    #[cfg(towline_sabotage)]
    Sabotage,
    /// Arm one known bug, and print who finds it, as JSON
    #[cfg(towline_sabotage)]
    #[command(hide = true)]
    Hunt {
        /// Which
        bug: u8,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Explore(args) => explore::run(&args).map(|held| ExitCode::from(u8::from(!held))),
        #[cfg(towline_sabotage)]
        Command::Sabotage => sabotage::run(),
        #[cfg(towline_sabotage)]
        Command::Hunt { bug } => sabotage::hunt(bug).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("towline-sim: {error:#}");
            ExitCode::from(64)
        }
    }
}
