//! The product over a line: the hub and the device at one end, whoever calls at the other; beside no tunnel at all.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use towline::Transport;
use towline_sim::profile::Profile;

use super::stage::{BareQuic, Stage, find, rates};
use super::wire::Report;
use crate::report::{self, progress};
use crate::stats::{Spread, percentile};
use crate::tunnel::target;

/// How long a transfer takes where nothing is in its way.
const TRANSFER: Duration = Duration::from_secs(4);

/// How long bulk runs before keys are typed beside it: windows have grown and queues are full by then.
const WARM_UP: Duration = Duration::from_secs(4);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Over which lines, by their names.
    pub profiles: Vec<String>,
    /// Over which transports the caller has its link to the hub.
    pub transports: Vec<Transport>,
    /// How many rounds there are; the ways take turns.
    pub rounds: usize,
    /// How many keys are typed in a round, alone and beside bulk, and how many connections are opened.
    pub keys: usize,
    /// What is lost on the line, and how its delay varies, is drawn from this.
    pub seed: u64,
}

impl Options {
    fn has_quic(&self) -> bool {
        self.transports.contains(&Transport::Quic)
    }
}

/// What a line and the ways over it have done.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The line's name.
    pub profile: String,
    /// Where its figures come from.
    pub source: String,
    /// How the line has done.
    pub line: Report,
    /// Whether packets were on time; if not, the figures are worth nothing.
    pub is_punctual: bool,
    /// The ways.
    pub ways: Vec<Outcome>,
}

/// What one way has done.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which.
    pub way: String,
    /// Why it was not measured, if it was not.
    pub failed: Option<String>,
    /// From the near end, in Mbit/s.
    pub up_mbit_per_s: Option<Spread>,
    /// To the near end, in Mbit/s.
    pub down_mbit_per_s: Option<Spread>,
    /// To connect, to get a kibibyte back, and to leave, in milliseconds.
    pub request_p50_ms: Option<Spread>,
    /// Until a key that is typed has come back, in milliseconds: the middle.
    pub key_p50_ms: Option<Spread>,
    /// One in a hundred took longer.
    pub key_p99_ms: Option<Spread>,
    /// The same while another connection uploads as much as it can.
    pub key_beside_bulk_p50_ms: Option<Spread>,
    /// One in a hundred took longer.
    pub key_beside_bulk_p99_ms: Option<Spread>,
}

/// What a round gave: Mbit/s up and down, and milliseconds.
#[derive(Clone, Copy)]
struct Round {
    up: f64,
    down: f64,
    request: f64,
    alone: [f64; 2],
    beside_bulk: [f64; 2],
}

/// A way from the near end to the target.
struct Way {
    name: String,
    address: SocketAddr,
    rounds: Vec<Round>,
    failed: Option<String>,
}

/// Measures all ways over all lines.
///
/// # Errors
///
/// There is no such profile, or the system lacks something, which the error names.
pub fn measure(options: &Options) -> anyhow::Result<Vec<Results>> {
    // Before the first of them is measured for minutes.
    let profiles = options.profiles.iter().map(|name| Ok((name.as_str(), find(name)?)));
    let profiles = profiles.collect::<anyhow::Result<Vec<_>>>()?;
    let ways = 1 + 2 * options.transports.len() + usize::from(options.has_quic());
    let bar = progress(profiles.len() * options.rounds * ways);
    let results = profiles.into_iter().map(|(name, profile)| over(name, profile, options, &bar)).collect();
    bar.finish_and_clear();
    results
}

fn over(
    name: &str,
    profile: Profile,
    options: &Options,
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<Results> {
    let stage = Stage::start(&profile, options.seed)?;
    let mut ways = vec![way("no tunnel".into(), stage.target)];
    let mut nears = Vec::new();
    for &transport in &options.transports {
        let near = stage.near_end(transport)?;
        ways.push(way(format!("{transport}, tunnels"), near.forward));
        ways.push(way(format!("{transport}, end to end"), near.session));
        nears.push(near);
    }
    let bare = options.has_quic().then(|| stage.bare_quic()).transpose()?;
    ways.extend(bare.iter().map(|ends| way(BareQuic::NAME.into(), ends.near.address)));
    let bytes = rates(&profile).map(|bits| bits * TRANSFER.as_secs() / 8);
    for _ in 0..options.rounds {
        for way in &mut ways {
            bar.set_message(format!("{name}: {}", way.name));
            if way.failed.is_none() {
                // What the way before has left on the line is no part of this one.
                stage.lab.wait_until_quiet()?;
                match stage.near(|| round(way.address, bytes, options.keys)) {
                    Ok(round) => way.rounds.push(round),
                    Err(error) => way.failed = Some(format!("{error:#}")),
                }
            }
            bar.inc(1);
        }
    }
    nears.into_iter().for_each(|near| stage.end(near));
    drop(bare);
    let line = stage.stop()?;
    let ways = ways.into_iter().map(Outcome::from).collect();
    Ok(Results { profile: name.into(), source: profile.source, line, is_punctual: line.is_punctual(), ways })
}

fn way(name: String, address: SocketAddr) -> Way {
    Way { name, address, rounds: Vec::new(), failed: None }
}

/// Measures one way once. In the network of the near end.
fn round(address: SocketAddr, [up, down]: [u64; 2], keys: usize) -> anyhow::Result<Round> {
    let mbit = |bytes: u64, took: Duration| bytes as f64 * 8.0 / 1e6 / took.as_secs_f64();
    let millis = |latencies: &mut Vec<Duration>, part| percentile(latencies, part) / 1000.0;
    let both = |mut latencies: Vec<Duration>| [0.5, 0.99].map(|part| millis(&mut latencies, part));
    // The first one of all begins the link.
    target::request(address).context("a request")?;
    let mut requests =
        (0..keys.div_ceil(10)).map(|_| target::request(address)).collect::<Result<Vec<_>, _>>()?;
    Ok(Round {
        request: millis(&mut requests, 0.5),
        alone: both(target::keystrokes(address, keys).context("keys")?),
        up: mbit(up, target::upload(address, up).context("an upload")?),
        down: mbit(down, target::download(address, down).context("a download")?),
        beside_bulk: both(
            target::keystrokes_beside_bulk(address, keys, WARM_UP).context("keys beside bulk")?,
        ),
    })
}

impl From<Way> for Outcome {
    fn from(Way { name, rounds, failed, .. }: Way) -> Self {
        let all = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        Self {
            way: name,
            failed,
            up_mbit_per_s: all(|round| round.up),
            down_mbit_per_s: all(|round| round.down),
            request_p50_ms: all(|round| round.request),
            key_p50_ms: all(|round| round.alone[0]),
            key_p99_ms: all(|round| round.alone[1]),
            key_beside_bulk_p50_ms: all(|round| round.beside_bulk[0]),
            key_beside_bulk_p99_ms: all(|round| round.beside_bulk[1]),
        }
    }
}

/// Prints what was measured.
///
/// # Errors
///
/// The result cannot be written as JSON.
pub fn print(results: &[Results], json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(&results);
    }
    for Results { profile, source, line, is_punctual, ways } in results {
        println!("{profile}: {source}");
        let late = if *is_punctual { "" } else { "; TOO LATE, so that this is worth nothing" };
        println!(
            "packets were late by {:.0} us at p50, {:.0} us at p99, and unseen before for {:.0} us{late}\n",
            line.late_p50_us, line.late_p99_us, line.unseen_p99_us
        );
        let head = [
            "WAY",
            "UP Mbit/s",
            "DOWN Mbit/s",
            "REQUEST p50 ms",
            "KEY p50 ms",
            "p99 ms",
            "BESIDE BULK p50 ms",
            "p99 ms",
        ];
        let mut table = report::table(head, 1);
        for way in ways {
            let cells = [
                way.up_mbit_per_s,
                way.down_mbit_per_s,
                way.request_p50_ms,
                way.key_p50_ms,
                way.key_p99_ms,
                way.key_beside_bulk_p50_ms,
                way.key_beside_bulk_p99_ms,
            ];
            let cells = cells.map(|cell| cell.map_or("-".into(), |cell| cell.to_string()));
            table.add_row([way.way.clone()].into_iter().chain(cells));
        }
        println!("{table}\n");
        for (way, why) in ways.iter().filter_map(|way| Some((&way.way, way.failed.as_ref()?))) {
            println!("{way} failed: {why}");
        }
    }
    Ok(())
}
