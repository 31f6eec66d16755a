//! What more of everything costs: streams, tunnels, devices. A cost that grows with their number shows as a line that bends.
//!
//! In: numbers of each. Out: for each number what a byte costs, or what one of them does; and a page with a plot of each.

mod page;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Builder;
use towline::Environment;

use crate::idle::{self, Name as Idle};
use crate::report;
use crate::stats::short;
use crate::transports::contender::Name as Contender;
use crate::transports::trust::Trust;
use crate::tunnel::product::Product;
use crate::tunnel::target;
use crate::{clock, transports};

/// How many streams, and how many tunnels, share a transfer.
const SHARERS: [usize; 4] = [1, 10, 100, 1000];

/// How many devices are on a hub, as far as descriptors go.
const DEVICES: [usize; 5] = [1000, 2000, 5000, 10_000, MOST];

/// The most devices, unless somebody asks for more.
pub const MOST: usize = 20_000;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
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

/// What devices cost their hub.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Devices {
    /// How many.
    pub count: usize,
    /// Resident memory of each beyond the first thousand, or of all of the first, in bytes.
    pub rss_bytes: f64,
    /// The same of the heap.
    pub heap_bytes: f64,
    /// CPU time of the hub for each and hour, in milliseconds.
    pub cpu_ms_per_hour: f64,
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
    if options.devices > most {
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
    let bar = report::progress(4 * SHARERS.len() * options.rounds + 1);
    for (what, contender) in [
        ("streams of a link over TLS", Contender::TowlineTls),
        ("streams of a link over QUIC", Contender::TowlineQuic),
    ] {
        share(what, options, &mut results, &bar, |count| streams(contender, count, options.bytes));
    }
    for (what, is_session) in [("tunnels", false), ("connections of a session end to end", true)] {
        share(what, options, &mut results, &bar, |count| tunnels(is_session, count, options.bytes));
    }
    bar.set_message("idle devices");
    match devices(options) {
        Ok(devices) => results.devices = devices,
        Err(error) => results.missing.push(format!("devices: {error:#}")),
    }
    bar.finish_and_clear();
    Ok(results)
}

/// Measures a transfer for each number of sharers, which take turns.
fn share(
    what: &'static str,
    options: &Options,
    results: &mut Results,
    bar: &ProgressBar,
    transfer: impl Fn(usize) -> anyhow::Result<Cost>,
) {
    let mut costs: [Vec<Cost>; SHARERS.len()] = Default::default();
    for _ in 0..options.rounds {
        for (&count, costs) in SHARERS.iter().zip(&mut costs) {
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
    let points = SHARERS.iter().zip(&costs).filter_map(point).collect();
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

/// One transfer through so many tunnels, or connections of a session, of the whole product in this process.
fn tunnels(is_session: bool, count: usize, bytes: usize) -> anyhow::Result<Cost> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let target = target::start(std::net::Ipv4Addr::LOCALHOST)?;
    let product = runtime.block_on(Product::start(target, Environment::system()))?;
    let address = if is_session { product.near.session } else { product.near.forward };
    // The first one of all begins the link, or the session.
    target::request(address).context("a request")?;
    let each = (bytes / count) as u64;
    let (wall, cpu) = (Instant::now(), clock::process_cpu());
    let uploads: Vec<_> = (0..count).map(|_| thread::spawn(move || target::upload(address, each))).collect();
    for upload in uploads {
        upload.join().map_err(|_| anyhow!("it has failed; what it said is above"))??;
    }
    let cost = per_gb(wall.elapsed(), clock::process_cpu() - cpu, bytes / count * count);
    {
        let _entered = runtime.enter();
        drop(product);
    }
    runtime.shutdown_background();
    Ok(cost)
}

/// What idle devices cost their hub, which is in a process of its own.
fn devices(options: &Options) -> anyhow::Result<Vec<Devices>> {
    let counts: Vec<_> =
        DEVICES.into_iter().filter(|&count| count < options.devices).chain([options.devices]).collect();
    let held = idle::held(Idle::HubTls, &counts, options.settle, &Trust::new()?)?;
    let (first, rest) = (held[0].clone(), &held[1..]);
    let mut devices = Vec::new();
    for (&count, held) in counts[1..].iter().zip(rest) {
        let each = |bytes: i64| bytes as f64 / (count - counts[0]) as f64;
        let seconds = held.cpu_s / options.settle.as_secs_f64();
        devices.push(Devices {
            count,
            rss_bytes: each(held.rss_bytes - first.rss_bytes),
            heap_bytes: each(held.heap_bytes - first.heap_bytes),
            cpu_ms_per_hour: seconds * 3600.0 * 1000.0 / count as f64,
        });
    }
    Ok(devices)
}

/// Prints it, or writes the page.
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
    println!("{table}\n");
    let mut table = report::table(["DEVICES ON A HUB", "RSS B", "HEAP B", "CPU ms AN HOUR"], 1);
    for Devices { count, rss_bytes, heap_bytes, cpu_ms_per_hour } in &results.devices {
        table.add_row([count.to_string(), short(*rss_bytes), short(*heap_bytes), short(*cpu_ms_per_hour)]);
    }
    println!("{table}\neach, beyond the first {}", DEVICES[0]);
    results.missing.iter().for_each(|missing| println!("missing: {missing}"));
    Ok(())
}

/// Whether the page can be written.
///
/// # Errors
///
/// It cannot.
pub fn check_writable(file: &Path) -> anyhow::Result<()> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(|_| ()).with_context(|| format!("cannot write {}", file.display()))
}

/// Writes a page with a plot of each.
///
/// # Errors
///
/// It cannot be drawn, or written.
pub fn write(results: &Results, file: &Path) -> anyhow::Result<()> {
    std::fs::write(file, page::page(results)?).with_context(|| format!("cannot write {}", file.display()))
}
