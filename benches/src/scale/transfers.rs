//! Transfers that streams, tunnels or connections share: what a byte costs, whoever shares it.

use std::io;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Builder;
use towline::Environment;

use super::{Options, Results};
use crate::stats::Spread;
use crate::transports::contender::Name as Contender;
use crate::tunnel::product::Product;
use crate::tunnel::target::{self, Upload};
use crate::{clock, transports};

/// How long what is left of a product may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What transfers over one way cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shared {
    /// Which way, and what shares it.
    pub what: &'static str,
    /// For each number of sharers.
    pub points: Vec<Transfer>,
}

/// What a transfer costs that so many share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Transfer {
    /// How many streams or tunnels.
    pub count: usize,
    /// 10^9 bytes a second.
    pub gb_per_s: Spread,
    /// CPU seconds for 10^9 bytes, of everything.
    pub cpu_s_per_gb: Spread,
}

/// Wall and CPU time, in seconds for 10^9 bytes.
pub(super) type Cost = [f64; 2];

/// Measures a transfer for each number of sharers, which take turns.
pub(super) fn share(
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
        let gb_per_s = Spread::of(costs.iter().map(|[wall, _]| 1.0 / wall))?;
        let cpu_s_per_gb = Spread::of(costs.iter().map(|&[_, cpu]| cpu))?;
        Some(Transfer { count, gb_per_s, cpu_s_per_gb })
    };
    let points = options.counts.iter().zip(&costs).filter_map(point).collect();
    results.shared.push(Shared { what, points });
}

fn per_gb(wall: Duration, cpu: Duration, bytes: usize) -> Cost {
    [wall, cpu].map(|time| time.as_secs_f64() * 1e9 / bytes as f64)
}

/// One transfer on so many streams of one link.
pub(super) fn streams(contender: Contender, count: usize, bytes: usize) -> anyhow::Result<Cost> {
    let cost = transports::bulk(contender, count, bytes)?;
    Ok(per_gb(cost.wall, cost.near + cost.far, bytes / count * count))
}

/// One transfer through so many tunnels, or connections of a session, of the whole product in this process. That they are
/// open is no part of it.
pub(super) fn tunnels(
    target: SocketAddr,
    is_session: bool,
    count: usize,
    bytes: usize,
) -> anyhow::Result<Cost> {
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

pub(super) fn uploads(address: SocketAddr, count: usize, each: u64) -> anyhow::Result<Cost> {
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

/// What there is in a row.
pub(super) const HEAD: [&str; 4] = ["SHARED BY", "COUNT", "GB/s", "CPU s/GB"];

/// A row for each number of sharers of each way, as it is shown, below [`HEAD`].
pub(super) fn rows(shared: &[Shared]) -> impl Iterator<Item = [String; 4]> {
    shared.iter().flat_map(|Shared { what, points }| {
        points.iter().map(|Transfer { count, gb_per_s, cpu_s_per_gb }| {
            [(*what).to_owned(), count.to_string(), gb_per_s.brief(), cpu_s_per_gb.brief()]
        })
    })
}
