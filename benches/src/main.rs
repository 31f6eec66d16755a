//! `towline-bench`: the project's figures, the whole product, and the comparison with peers.

use clap::{Parser, Subcommand};
use towline_bench::figures;

/// Measures Towline, alone and beside others who do the same. See `benches/README.md`.
#[derive(Debug, Parser)]
#[command(name = "towline-bench", version, after_help = EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example, the figures that come out the same on every run:
  cargo run --release -p towline-bench -- figures";

#[derive(Debug, Subcommand)]
enum Command {
    /// Count what idle streams and sessions cost, and what 16 KiB of payload cost on the wire and on the heap
    #[command(after_help = "\
Example, one number for a script:
  towline-bench figures --json | jq '.[] | select(.what | startswith(\"idle stream\"))'")]
    Figures {
        /// Over how many streams, sessions and links
        #[arg(long, default_value_t = 2000, value_name = "N")]
        count: usize,
        /// Print JSON: an array of objects
        #[arg(long)]
        json: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Figures { count, json } => figures::print(&figures::measure(count), json),
    }
}
