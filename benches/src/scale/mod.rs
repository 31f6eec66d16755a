//! What more of everything costs: streams, tunnels, devices, and all of them coming back at once. A cost that grows with their
//! number shows as a line that bends.
//!
//! In: numbers of each. Out: for each number what a byte costs, or what one of them does; and a page with a plot of each.

mod devices;
mod page;
mod storm;
mod transfers;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use comfy_table::Table;
use serde::Serialize;
use towline_sim::output;

pub use devices::Devices;
pub use storm::{MOST as MOST_IN_A_STORM, Storm};
pub use transfers::{Shared, Transfer};

use crate::idle;
use crate::report;
use crate::transports::contender::Name as Contender;
use crate::tunnel::target::{self, Meters};
use transfers::{Cost, share, streams, tunnels, uploads};

/// The most devices, unless somebody asks for more.
pub const MOST: usize = 20_000;

/// What there may be more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Streams of a link over TLS.
    StreamsTls,
    /// Streams of a link over QUIC.
    StreamsQuic,
    /// Connections without a tunnel.
    NoTunnel,
    /// Tunnels.
    Tunnels,
    /// Connections of a session end to end.
    Session,
    /// Idle devices on a hub.
    Devices,
    /// Devices whose hub is killed, and that come back to another.
    Storm,
}

impl What {
    fn text(self) -> &'static str {
        match self {
            Self::StreamsTls => "streams of a link over TLS",
            Self::StreamsQuic => "streams of a link over QUIC",
            Self::NoTunnel => "connections without a tunnel",
            Self::Tunnels => "tunnels",
            Self::Session => "connections of a session end to end",
            Self::Devices => "idle devices",
            Self::Storm => "devices that come back at once",
        }
    }

    /// Whether it is a transfer that so many share.
    fn is_shared(self) -> bool {
        !matches!(self, Self::Devices | Self::Storm)
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of what.
    pub what: Vec<What>,
    /// How many streams, or tunnels, share a transfer.
    pub counts: Vec<usize>,
    /// How many bytes a transfer has, whoever shares it.
    pub bytes: usize,
    /// How many rounds of transfers, and of storms, there are.
    pub rounds: usize,
    /// How long devices are idle before they are looked at, and their hub's processor time is counted.
    pub settle: Duration,
    /// The most idle devices.
    pub devices: usize,
    /// The most devices that come back at once.
    pub storm: usize,
}

impl Options {
    /// How many steps there are.
    fn steps(&self) -> usize {
        let transfers = self.what.iter().filter(|what| what.is_shared()).count() * self.counts.len();
        let storms = if self.what.contains(&What::Storm) { storm::counts(self.storm).count() } else { 0 };
        (transfers + storms) * self.rounds
    }

    /// The most devices of all that is asked for.
    fn most_devices(&self) -> usize {
        let most = |&what: &What| match what {
            What::Devices => self.devices,
            What::Storm => self.storm,
            _ => 0,
        };
        self.what.iter().map(most).max().unwrap_or(0)
    }
}

/// Those of `counts` that are less than `most`, and `most`.
fn up_to(counts: [usize; 6], most: usize) -> impl Iterator<Item = usize> {
    counts.into_iter().filter(move |&count| count < most).chain([most])
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// How many bytes a transfer had.
    pub bytes: usize,
    /// How many rounds.
    pub rounds: usize,
    /// Transfers that streams or tunnels share.
    pub shared: Vec<Shared>,
    /// Devices that do nothing.
    pub devices: Vec<Devices>,
    /// Devices that come back at once.
    pub storms: Vec<Storm>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// Measures all of it.
///
/// # Errors
///
/// The system does not let a process have enough descriptors, or there are no certificates to be had.
pub fn measure(options: &Options) -> anyhow::Result<Results> {
    let most = idle::most()?;
    if options.most_devices() > most {
        bail!(
            "a process may hold {most} devices here: ask for --devices {most}, or raise the hard limit (ulimit -Hn)"
        );
    }
    let mut results = Results {
        bytes: options.bytes,
        rounds: options.rounds,
        shared: Vec::new(),
        devices: Vec::new(),
        storms: Vec::new(),
        missing: Vec::new(),
    };
    let meters = Meters::default();
    let target = target::start(Ipv4Addr::LOCALHOST, &meters)?;
    let bar = report::progress(options.steps());
    let bytes = options.bytes;
    for &what in &options.what {
        let mut share = |transfer: &dyn Fn(usize) -> anyhow::Result<Cost>| {
            share(what.text(), options, &mut results, &bar, transfer);
        };
        match what {
            What::StreamsTls => share(&|count| streams(Contender::TowlineTls, count, bytes)),
            What::StreamsQuic => share(&|count| streams(Contender::TowlineQuic, count, bytes)),
            What::NoTunnel => share(&|count| uploads(target, count, (bytes / count) as u64)),
            What::Tunnels => share(&|count| tunnels(target, false, count, bytes)),
            What::Session => share(&|count| tunnels(target, true, count, bytes)),
            What::Devices => {
                bar.set_message(what.text());
                match devices::measure(options) {
                    Ok(devices) => results.devices = devices,
                    Err(error) => results.missing.push(format!("{}: {error:#}", what.text())),
                }
            }
            What::Storm => match storm::measure(options, &bar) {
                Ok(storms) => results.storms = storms,
                Err(error) => results.missing.push(format!("{}: {error:#}", what.text())),
            },
        }
    }
    meters.end(target);
    bar.finish_and_clear();
    Ok(results)
}

/// Prints it.
///
/// # Errors
///
/// It cannot be written.
pub fn print(results: &Results, json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(results);
    }
    if !results.shared.is_empty() {
        println!("{}\n", table(transfers::HEAD, 1, transfers::rows(&results.shared)));
    }
    if !results.devices.is_empty() {
        println!(
            "{}\nof each more than there were in the row above; the first row has all that a hub needs\n",
            table(devices::HEAD, 0, devices::rows(&results.devices))
        );
    }
    if !results.storms.is_empty() {
        println!(
            "{}\nsince the hub's process was killed; the devices' own waits are part of it",
            table(storm::HEAD, 0, storm::rows(&results.storms))
        );
    }
    results.missing.iter().for_each(|missing| println!("missing: {missing}"));
    Ok(())
}

/// A table with this head and these rows. The columns after the first `left` hold numbers.
fn table<const COLUMNS: usize>(
    head: [&'static str; COLUMNS],
    left: usize,
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> Table {
    let mut table = report::table(head, left);
    table.add_rows(rows);
    table
}

/// Writes a page with a plot of each.
///
/// # Errors
///
/// It cannot be drawn, or written.
pub fn write(results: &Results, file: &Path) -> anyhow::Result<()> {
    output::write(file, page::page(results)?.as_bytes())
}
