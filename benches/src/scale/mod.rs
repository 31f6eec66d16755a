//! What more of everything costs: streams, tunnels, devices. A cost that grows with their number shows as a line that bends.
//!
//! In: numbers of each. Out: for each number what a byte costs, or what one of them does; and a page with a plot of each.

mod page;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Builder;
use towline::Environment;
use towline_sim::output;

use crate::idle::{self, Name as Idle};
use crate::report;
use crate::stats::short;
use crate::transports::contender::Name as Contender;
use crate::transports::trust::Trust;
use crate::tunnel::product::Product;
use crate::tunnel::target::{self, Meters, Upload};
use crate::{clock, transports};

/// How many devices are on a hub, as far as descriptors go.
const DEVICES: [usize; 6] = [500, 1000, 2000, 5000, 10_000, MOST];

/// How long what is left of a product may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

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
        }
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
    /// How many rounds of transfers there are.
    pub rounds: usize,
    /// How long devices are idle before they are looked at, and their hub's processor time is counted.
    pub settle: Duration,
    /// The most devices.
    pub devices: usize,
}

/// What a transfer costs that so many share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Transfer {
    /// How many streams or tunnels.
    pub count: usize,
    /// 10^9 bytes a second, the middle of the rounds.
    pub gb_per_s: f64,
    /// CPU seconds for 10^9 bytes, of everything.
    pub cpu_s_per_gb: f64,
}

/// What devices cost their hub, all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Devices {
    /// How many.
    pub count: usize,
    /// Resident memory of its process, in bytes.
    pub rss_bytes: i64,
    /// Live heap, in bytes.
    pub heap_bytes: i64,
    /// CPU time in an hour, in seconds.
    pub cpu_s_per_hour: f64,
}

/// What transfers over one way cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shared {
    /// Which way, and what shares it.
    pub what: &'static str,
    /// For each number of sharers.
    pub points: Vec<Transfer>,
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
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// Wall and CPU time, in seconds for 10^9 bytes.
type Cost = [f64; 2];

/// Measures all of it.
///
/// # Errors
///
/// The system does not let a process have enough descriptors, or there are no certificates to be had.
pub fn measure(options: &Options) -> anyhow::Result<Results> {
    let most = idle::most()?;
    if options.what.contains(&What::Devices) && options.devices > most {
        bail!(
            "a process may hold {most} devices here: ask for --devices {most}, or raise the hard limit (ulimit -Hn)"
        );
    }
    let mut results = Results {
        bytes: options.bytes,
        rounds: options.rounds,
        shared: Vec::new(),
        devices: Vec::new(),
        missing: Vec::new(),
    };
    let meters = Meters::default();
    let target = target::start(Ipv4Addr::LOCALHOST, &meters)?;
    let transfers = options.what.iter().filter(|&&what| what != What::Devices).count();
    let bar = report::progress(transfers * options.counts.len() * options.rounds);
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
                match devices(options) {
                    Ok(devices) => results.devices = devices,
                    Err(error) => results.missing.push(format!("{}: {error:#}", what.text())),
                }
            }
        }
    }
    meters.end(target);
    bar.finish_and_clear();
    Ok(results)
}

/// Measures a transfer for each number of sharers, which take turns.
fn share(
    what: &'static str,
    options: &Options,
    results: &mut Results,
    bar: &ProgressBar,
    transfer: &dyn Fn(usize) -> anyhow::Result<Cost>,
) {
    let mut costs = vec![Vec::<Cost>::new(); options.counts.len()];
    for _ in 0..options.rounds {
        for (&count, costs) in options.counts.iter().zip(&mut costs) {
            bar.set_message(format!("{count} {what}"));
            match transfer(count) {
                Ok(cost) => costs.push(cost),
                Err(error) => results.missing.push(format!("{count} {what}: {error:#}")),
            }
            bar.inc(1);
        }
    }
    let point = |(&count, costs): (&usize, &Vec<Cost>)| {
        let middle =
            |part: usize| Some(crate::stats::Spread::of(costs.iter().map(|cost| cost[part]))?.median);
        Some(Transfer { count, gb_per_s: 1.0 / middle(0)?, cpu_s_per_gb: middle(1)? })
    };
    let points = options.counts.iter().zip(&costs).filter_map(point).collect();
    results.shared.push(Shared { what, points });
}

fn per_gb(wall: Duration, cpu: Duration, bytes: usize) -> Cost {
    [wall, cpu].map(|time| time.as_secs_f64() * 1e9 / bytes as f64)
}

/// One transfer on so many streams of one link.
fn streams(contender: Contender, count: usize, bytes: usize) -> anyhow::Result<Cost> {
    let cost = transports::bulk(contender, count, bytes)?;
    Ok(per_gb(cost.wall, cost.near + cost.far, bytes / count * count))
}

/// One transfer through so many tunnels, or connections of a session, of the whole product in this process. That they are
/// open is no part of it.
fn tunnels(target: SocketAddr, is_session: bool, count: usize, bytes: usize) -> anyhow::Result<Cost> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let product = runtime.block_on(Product::start(target, Environment::system()))?;
    let address = if is_session { product.near.session } else { product.near.forward };
    let cost = uploads(address, count, (bytes / count) as u64);
    {
        let _entered = runtime.enter();
        drop(product);
    }
    // Whatever is left of it must not be at work while the next one is measured.
    runtime.shutdown_timeout(PATIENCE);
    cost
}

fn uploads(address: SocketAddr, count: usize, each: u64) -> anyhow::Result<Cost> {
    // The first one of all begins the link, or the session.
    target::request(address).context("a request")?;
    let open = at_once((0..count).map(|_| move || Upload::open(address, each)), || ())?.0;
    let start = || (Instant::now(), clock::process_cpu());
    let (_, (wall, cpu)) = at_once(open.into_iter().map(|upload| move || upload.run()), start)?;
    let bytes = usize::try_from(each)? * count;
    Ok(per_gb(wall.elapsed(), clock::process_cpu() - cpu, bytes))
}

/// Does all of this at once, each in a thread of its own, and waits for all, whatever comes of any. Returns what came of it,
/// and of `start`, which is called once all threads are there, and before any does anything.
fn at_once<T: Send, S, W: FnOnce() -> io::Result<T> + Send>(
    work: impl ExactSizeIterator<Item = W>,
    start: impl FnOnce() -> S,
) -> anyhow::Result<(Vec<T>, S)> {
    let (there, go) = (Barrier::new(work.len() + 1), Barrier::new(work.len() + 1));
    thread::scope(|scope| {
        let begin = |work: W| {
            let (there, go) = (&there, &go);
            scope.spawn(move || {
                there.wait();
                go.wait();
                work()
            })
        };
        let threads: Vec<_> = work.map(begin).collect();
        there.wait();
        let start = start();
        go.wait();
        let done: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let done = done
            .into_iter()
            .map(|done| Ok(done.map_err(|_| anyhow!("it has failed; what it said is above"))??));
        Ok((done.collect::<anyhow::Result<_>>()?, start))
    })
}

/// What idle devices cost their hub, which is in a process of its own.
fn devices(options: &Options) -> anyhow::Result<Vec<Devices>> {
    let fewer = DEVICES.into_iter().filter(|&count| count < options.devices);
    let counts: Vec<_> = fewer.chain([options.devices]).collect();
    let held = idle::held(Idle::HubTls, &counts, options.settle, &Trust::new()?)?;
    let hours = options.settle.as_secs_f64() / 3600.0;
    let devices = counts.into_iter().zip(held).map(|(count, held)| Devices {
        count,
        rss_bytes: held.rss_bytes,
        heap_bytes: held.heap_bytes,
        cpu_s_per_hour: held.cpu_s / hours,
    });
    Ok(devices.collect())
}

/// How much more memory each device takes than there were before, with that of the first ones: resident, and heap, in bytes.
pub(crate) fn each(devices: &[Devices]) -> impl Iterator<Item = [f64; 2]> {
    let before = devices.iter().map(Some);
    let of = |at: Option<&Devices>| at.map_or((0, 0, 0), |at| (at.count, at.rss_bytes, at.heap_bytes));
    devices.iter().zip([None].into_iter().chain(before)).map(move |(now, before)| {
        let (count, rss, heap) = of(before);
        let more = (now.count - count) as f64;
        [(now.rss_bytes - rss) as f64 / more, (now.heap_bytes - heap) as f64 / more]
    })
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
    let mut table = report::table(["SHARED BY", "COUNT", "GB/s", "CPU s/GB"], 1);
    for Shared { what, points } in &results.shared {
        for Transfer { count, gb_per_s, cpu_s_per_gb } in points {
            table.add_row([*what, &count.to_string(), &short(*gb_per_s), &short(*cpu_s_per_gb)]);
        }
    }
    if !results.shared.is_empty() {
        println!("{table}\n");
    }
    let head =
        ["DEVICES ON A HUB", "RSS MB", "B EACH MORE", "HEAP MB", "B EACH MORE", "CPU s AN HOUR", "ms EACH"];
    let mut table = report::table(head, 0);
    for (devices, [rss, heap]) in results.devices.iter().zip(each(&results.devices)) {
        let Devices { count, rss_bytes, heap_bytes, cpu_s_per_hour } = *devices;
        let [all_rss, all_heap] = [rss_bytes, heap_bytes].map(|bytes| short(bytes as f64 / 1e6));
        let cpu = short(cpu_s_per_hour * 1000.0 / count as f64);
        table.add_row([
            count.to_string(),
            all_rss,
            short(rss),
            all_heap,
            short(heap),
            short(cpu_s_per_hour),
            cpu,
        ]);
    }
    if !results.devices.is_empty() {
        println!(
            "{table}\nof each more than there were in the row above; the first row has all that a hub needs"
        );
    }
    results.missing.iter().for_each(|missing| println!("missing: {missing}"));
    Ok(())
}

/// Writes a page with a plot of each.
///
/// # Errors
///
/// It cannot be drawn, or written.
pub fn write(results: &Results, file: &Path) -> anyhow::Result<()> {
    output::write(file, page::page(results)?.as_bytes())
}
