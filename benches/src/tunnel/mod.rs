//! The whole product on loopback, beside the least that two legs of TLS can be, beside other products, and beside no tunnel
//! at all.

pub(crate) mod bare_quic;
pub(crate) mod bore;
pub(crate) mod chain;
mod ideal;
pub(crate) mod keys;
mod live;
mod part;
pub mod peers;
pub(crate) mod penguin;
pub(crate) mod product;
pub(crate) mod rathole;
mod round;
pub(crate) mod socat;
pub(crate) mod ssh;
pub(crate) mod target;
mod way;

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::report;
use crate::stats::Spread;
pub use live::Live;
use peers::{Missing, Peer};
use round::{Keys, Requests, Round, Transfer};
use target::Meters;
use way::Way;
pub use way::Which;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many bytes a transfer has.
    pub bytes: u64,
    /// How many tunnels are opened in a round, and how many keys are typed. Who needs more than 10 ms for one opens a tenth of
    /// that.
    pub opens: usize,
    /// How many rounds there are.
    pub rounds: usize,
    /// Which ways that need no program of others.
    pub ways: Vec<Which>,
    /// Beside whom.
    pub peers: Vec<Peer>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// How many bytes a transfer had.
    pub bytes: u64,
    /// How many rounds there were.
    pub rounds: usize,
    /// Each way from a client to the target.
    pub ways: Vec<Outcome>,
    /// Peers that are not installed.
    pub missing: Vec<Missing>,
}

/// One way from a client to the target. GB are 10^9 bytes; CPU is that of all that the way is made of, the kernel's part
/// included, and not that of the load.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which way.
    pub way: &'static str,
    /// How many legs of it are encrypted.
    pub legs: u8,
    /// From the client to the target.
    pub up: Moved,
    /// From the target to the client.
    pub down: Moved,
    /// Until the device had accepted a tunnel, in microseconds; where that can be seen.
    pub open_p50_us: Option<Spread>,
    /// The same of the slowest hundredth.
    pub open_p99_us: Option<Spread>,
    /// How many requests a round had.
    pub requests: usize,
    /// To connect, to get a kibibyte back, and to leave, in microseconds.
    pub request_p50_us: Option<Spread>,
    /// The same of the slowest hundredth.
    pub request_p99_us: Option<Spread>,
    /// What a request cost.
    pub request_cpu_us: Option<Spread>,
    /// Until a key that is typed has come back, in microseconds, where a client can connect.
    pub key_p50_us: Option<Spread>,
    /// The same of the slowest hundredth.
    pub key_p99_us: Option<Spread>,
    /// The same while another connection uploads as much as it can.
    pub key_beside_bulk_p50_us: Option<Spread>,
    /// The same of the slowest hundredth.
    pub key_beside_bulk_p99_us: Option<Spread>,
}

/// What a transfer took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Moved {
    /// 10^9 bytes a second.
    pub gb_per_s: Spread,
    /// What that cost.
    pub cpu_s_per_gb: Option<Spread>,
    /// What of that is of the part that both ends connect to, where there is one: the hub's.
    pub middle_cpu_s_per_gb: Option<Spread>,
}

/// Measures all ways, in rounds that take turns.
///
/// # Errors
///
/// Something did not work as it should. All processes that were started have ended.
pub async fn measure(options: &Options) -> anyhow::Result<Results> {
    let target = target::start(Ipv4Addr::LOCALHOST, &Meters::default())?;
    let mut ways = Way::ours(target, &options.ways).await?;
    let (there, missing) = peers::installed(&options.peers);
    for peer in &there {
        ways.push(Way::peer(target, peer)?);
    }

    let bar = report::progress(options.rounds * ways.len());
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); ways.len()];
    for _ in 0..options.rounds {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            bar.set_message(way.name);
            rounds.push(round::measure(way, options).await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let ways = ways.iter().zip(&rounds).map(|(way, rounds)| outcome(way, rounds)).collect();
    Ok(Results { bytes: options.bytes, rounds: options.rounds, ways, missing })
}

fn outcome(way: &Way, rounds: &[Round]) -> Outcome {
    let all = |value: &dyn Fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(value));
    let of_requests =
        |value: fn(&Requests) -> Option<f64>| all(&|round| round.requests.as_ref().and_then(value));
    let of_keys = |value: fn(&Keys) -> f64| all(&|round| round.keys.as_ref().map(value));
    let moved = |which: fn(&Round) -> &Transfer| Moved {
        gb_per_s: all(&|round| Some(which(round).gb_per_s)).expect("there was a round"),
        cpu_s_per_gb: all(&|round| which(round).cpu_s_per_gb),
        middle_cpu_s_per_gb: all(&|round| which(round).middle_cpu_s_per_gb),
    };
    Outcome {
        way: way.name,
        legs: way.legs,
        up: moved(|round| &round.up),
        down: moved(|round| &round.down),
        open_p50_us: of_requests(|requests| requests.opened.map(|[p50, _]| p50)),
        open_p99_us: of_requests(|requests| requests.opened.map(|[_, p99]| p99)),
        requests: rounds
            .first()
            .and_then(|round| round.requests.as_ref())
            .map_or(0, |requests| requests.count),
        request_p50_us: of_requests(|requests| Some(requests.done[0])),
        request_p99_us: of_requests(|requests| Some(requests.done[1])),
        request_cpu_us: of_requests(|requests| requests.cpu_us),
        key_p50_us: of_keys(|keys| keys.alone[0]),
        key_p99_us: of_keys(|keys| keys.alone[1]),
        key_beside_bulk_p50_us: of_keys(|keys| keys.beside_bulk[0]),
        key_beside_bulk_p99_us: of_keys(|keys| keys.beside_bulk[1]),
    }
}

/// Prints them.
///
/// # Errors
///
/// They cannot be written as JSON.
pub fn print(results: &Results, json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(results);
    }
    let Results { bytes, rounds, ways, missing } = results;
    let cell = |spread: Option<Spread>| spread.map_or("-".into(), |spread| spread.to_string());
    for (what, moved) in [("UPLOAD", (|way| way.up) as fn(&Outcome) -> Moved), ("DOWNLOAD", |way| way.down)] {
        let mut table = report::table([what, "LEGS", "GB/s", "CPU s/GB", "OF THE MIDDLE"], 1);
        for way in ways {
            let Moved { gb_per_s, cpu_s_per_gb, middle_cpu_s_per_gb } = moved(way);
            let cells = [Some(gb_per_s), cpu_s_per_gb, middle_cpu_s_per_gb].map(cell);
            table.add_row([way.way.to_owned(), way.legs.to_string()].into_iter().chain(cells));
        }
        println!("{table}\n");
    }
    let head = ["OPENING", "LEGS", "N", "ACCEPTED p50 us", "p99 us", "REQUEST p50 us", "p99 us", "CPU us"];
    let mut table = report::table(head, 1);
    for way in ways.iter().filter(|way| way.requests > 0) {
        let opened = [way.open_p50_us, way.open_p99_us];
        let cells = opened.into_iter().chain([way.request_p50_us, way.request_p99_us, way.request_cpu_us]);
        let names = [way.way.to_owned(), way.legs.to_string(), way.requests.to_string()];
        table.add_row(names.into_iter().chain(cells.map(cell)));
    }
    println!("{table}\n");
    let mut table =
        report::table(["A KEY", "LEGS", "ALONE p50 us", "p99 us", "BESIDE BULK p50 us", "p99 us"], 1);
    for way in ways.iter().filter(|way| way.key_p50_us.is_some()) {
        let cells = [way.key_p50_us, way.key_p99_us, way.key_beside_bulk_p50_us, way.key_beside_bulk_p99_us];
        table.add_row([way.way.to_owned(), way.legs.to_string()].into_iter().chain(cells.map(cell)));
    }
    println!("{table}\n");
    println!(
        "{bytes} bytes a transfer, {rounds} rounds: median (min..max); the load's CPU time is in no figure"
    );
    for Missing { peer, program, install } in missing {
        println!("{peer} is not measured: there is no {program} ({install})");
    }
    Ok(())
}
