//! The whole product on loopback, beside the same shape made of socat, beside `ssh -R` and rathole,
//! which are one leg, and beside no tunnel at all.

pub(crate) mod bore;
pub(crate) mod chain;
pub(crate) mod keys;
pub(crate) mod penguin;
pub(crate) mod product;
pub(crate) mod rathole;
mod round;
pub(crate) mod socat;
pub(crate) mod ssh;
pub(crate) mod target;

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;
use towline::Environment;

use crate::process::Needs;
use crate::report;
use crate::stats::Spread;
use chain::{Chain, Site};
use product::Product;
use round::{Round, Way};
use target::Meters;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many bytes a transfer has.
    pub bytes: u64,
    /// How many tunnels are opened in a round, and how many keys are typed. Socat, which needs a hundred times as long, opens
    /// a tenth of that.
    pub opens: usize,
    /// How many rounds there are.
    pub rounds: usize,
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
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// One way from a client to the target. GB are 10^9 bytes; CPU is that of everything: the load, the kernel's work for
/// it, and all processes.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which way.
    pub way: &'static str,
    /// From the client to the target.
    pub up_gb_per_s: Spread,
    /// What that cost.
    pub up_cpu_s_per_gb: Spread,
    /// From the target to the client.
    pub down_gb_per_s: Spread,
    /// What that cost.
    pub down_cpu_s_per_gb: Spread,
    /// Until the device had accepted a tunnel, in microseconds; where that can be seen.
    pub open_p50_us: Option<Spread>,
    /// The same of the slowest hundredth.
    pub open_p99_us: Option<Spread>,
    /// How many requests a round had.
    pub requests: usize,
    /// To connect, to get a kibibyte back, and to leave, in microseconds.
    pub request_p50_us: Spread,
    /// The same of the slowest hundredth.
    pub request_p99_us: Spread,
    /// What a request cost.
    pub request_cpu_us: Spread,
    /// Until a key that is typed has come back, in microseconds, where a client can connect.
    pub key_p50_us: Option<Spread>,
    /// The same of the slowest hundredth.
    pub key_p99_us: Option<Spread>,
    /// The same while another connection uploads as much as it can.
    pub key_beside_bulk_p50_us: Option<Spread>,
    /// The same of the slowest hundredth.
    pub key_beside_bulk_p99_us: Option<Spread>,
}

/// Another program that carries bytes from a local port to the target.
struct Rival {
    name: &'static str,
    needs: Needs,
    start: fn(&Site, SocketAddr) -> anyhow::Result<Chain>,
}

const RIVALS: [Rival; 3] = [
    Rival { name: socat::NAME, needs: socat::NEEDS, start: socat::start },
    Rival { name: "ssh -R", needs: ssh::NEEDS, start: ssh::start },
    Rival { name: "rathole, TLS", needs: rathole::NEEDS, start: rathole::start },
];

/// Measures all ways, in rounds that take turns.
///
/// # Errors
///
/// Something did not work as it should. All processes that were started have ended.
pub async fn measure(options: Options) -> anyhow::Result<Results> {
    let environment = Environment::system();
    let target = target::start(Ipv4Addr::LOCALHOST, &Meters::default())?;
    let product = Product::start(target, environment).await?;
    let mut ways = vec![
        Way::Direct(target),
        Way::Handle(product.near.service.clone()),
        Way::Forward(product.near.forward),
        Way::Session(product.near.session),
    ];
    let mut missing = Vec::new();
    for Rival { name, needs, start } in RIVALS {
        match needs.missing() {
            None => {
                let chain = tokio::task::block_in_place(|| start(&Site::loopback(), target))?;
                ways.push(Way::Rival(name, chain));
            }
            Some(absent) => missing.push(format!("there is no {absent} to compare with ({})", needs.install)),
        }
    }

    let bar = report::progress(options.rounds * ways.len());
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); ways.len()];
    for _ in 0..options.rounds {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            bar.set_message(way.name());
            rounds.push(round::measure(way, options).await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let ways = ways.iter().zip(&rounds).map(|(way, rounds)| outcome(way, rounds)).collect();
    Ok(Results { bytes: options.bytes, rounds: options.rounds, ways, missing })
}

fn outcome(way: &Way, rounds: &[Round]) -> Outcome {
    let all = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value)).expect("there was a round");
    let some = |value: fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(value));
    Outcome {
        way: way.name(),
        up_gb_per_s: all(|round| round.up.gb_per_s),
        up_cpu_s_per_gb: all(|round| round.up.cpu_s_per_gb),
        down_gb_per_s: all(|round| round.down.gb_per_s),
        down_cpu_s_per_gb: all(|round| round.down.cpu_s_per_gb),
        open_p50_us: some(|round| round.requests.opened.map(|[p50, _]| p50)),
        open_p99_us: some(|round| round.requests.opened.map(|[_, p99]| p99)),
        requests: rounds.first().map_or(0, |round| round.requests.count),
        request_p50_us: all(|round| round.requests.done[0]),
        request_p99_us: all(|round| round.requests.done[1]),
        request_cpu_us: all(|round| round.requests.cpu_us),
        key_p50_us: some(|round| round.keys.map(|keys| keys.alone[0])),
        key_p99_us: some(|round| round.keys.map(|keys| keys.alone[1])),
        key_beside_bulk_p50_us: some(|round| round.keys.map(|keys| keys.beside_bulk[0])),
        key_beside_bulk_p99_us: some(|round| round.keys.map(|keys| keys.beside_bulk[1])),
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
    let mut table = report::table(["ONE TUNNEL", "UP GB/s", "CPU s/GB", "DOWN GB/s", "CPU s/GB"], 1);
    for way in ways {
        let cells = [way.up_gb_per_s, way.up_cpu_s_per_gb, way.down_gb_per_s, way.down_cpu_s_per_gb];
        let cells = cells.map(|cell| cell.to_string());
        table.add_row([way.way.to_owned()].into_iter().chain(cells));
    }
    println!("{table}\n");
    let head = ["OPENING", "N", "ACCEPTED p50 us", "p99 us", "REQUEST p50 us", "p99 us", "CPU us"];
    let mut table = report::table(head, 1);
    for way in ways {
        let cell = |spread: Option<Spread>| spread.map_or("-".into(), |spread| spread.to_string());
        table.add_row([
            way.way.to_owned(),
            way.requests.to_string(),
            cell(way.open_p50_us),
            cell(way.open_p99_us),
            cell(Some(way.request_p50_us)),
            cell(Some(way.request_p99_us)),
            cell(Some(way.request_cpu_us)),
        ]);
    }
    println!("{table}\n");
    let mut table = report::table(["A KEY", "ALONE p50 us", "p99 us", "BESIDE BULK p50 us", "p99 us"], 1);
    for way in ways {
        let cells = [way.key_p50_us, way.key_p99_us, way.key_beside_bulk_p50_us, way.key_beside_bulk_p99_us];
        let cells = cells.map(|cell| cell.map_or("-".into(), |cell| cell.to_string()));
        table.add_row([way.way.to_owned()].into_iter().chain(cells));
    }
    println!("{table}\n");
    println!("{bytes} bytes a transfer, {rounds} rounds: median (min..max)");
    missing.iter().for_each(|missing| println!("{missing}"));
    Ok(())
}
