//! One round over one way: two transfers and many requests.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::{block_in_place, yield_now};

use super::part::Cpu;
use super::way::Way;
use super::{Options, target};
use crate::stats::percentile;

/// How long a bulk transfer takes to fill whatever there is on its way.
const WARM_UP: Duration = Duration::from_millis(300);

/// How long a request takes where a round has but a tenth of them.
const SLOW: Duration = Duration::from_millis(10);

/// How many requests tell that: the first one may find something that is not there yet.
const PROBES: usize = 3;

/// What a round gave.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) up: Transfer,
    pub(crate) down: Transfer,
    pub(crate) requests: Option<Requests>,
    pub(crate) keys: Option<Keys>,
}

/// How long a key takes to come back: the median and the 99th percentile, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) alone: [f64; 2],
    pub(crate) beside_bulk: [f64; 2],
}

#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) gb_per_s: f64,
    pub(crate) cpu_s_per_gb: Option<f64>,
    /// The part of it that is the middle's.
    pub(crate) middle_cpu_s_per_gb: Option<f64>,
}

impl Transfer {
    fn new(bytes: u64, wall: Duration, cpu: Option<Cpu>) -> Self {
        let gb = bytes as f64 / 1e9;
        let per_gb = |cpu: Duration| cpu.as_secs_f64() / gb;
        Self {
            gb_per_s: gb / wall.as_secs_f64(),
            cpu_s_per_gb: cpu.map(|cpu| per_gb(cpu.all)),
            middle_cpu_s_per_gb: cpu.and_then(|cpu| cpu.middle).map(per_gb),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) count: usize,
    /// The median and the 99th percentile, in microseconds.
    pub(crate) opened: Option<[f64; 2]>,
    pub(crate) done: [f64; 2],
    pub(crate) cpu_us: Option<f64>,
}

/// Measures `way` once. What blocks gives way in between, so that whoever waits for the end of all this can have it.
pub(crate) async fn measure(way: &Way, options: &Options) -> anyhow::Result<Round> {
    let &Options { bytes, opens, .. } = options;
    way.upload(bytes / 16).await?;
    let before = way.cpu()?;
    let wall = way.upload(bytes).await?;
    let between = way.cpu()?;
    yield_now().await;
    let up = Transfer::new(bytes, wall, since(between, before));
    let wall = way.download(bytes).await?;
    let down = Transfer::new(bytes, wall, since(way.cpu()?, between));
    yield_now().await;
    if way.only_transfers() {
        return Ok(Round { up, down, requests: None, keys: None });
    }
    let [_, probes] = way.requests(PROBES).await?;
    let count = if probes.iter().all(|took| *took > SLOW) { (opens / 10).max(1) } else { opens };
    let requests = Some(requests(way, count).await?);
    yield_now().await;
    let keys = way.port().map(|port| block_in_place(|| keys(port, opens))).transpose()?;
    Ok(Round { up, down, requests, keys })
}

fn since(now: Option<Cpu>, before: Option<Cpu>) -> Option<Cpu> {
    let (now, before) = (now?, before?);
    let middle = now.middle.zip(before.middle).map(|(now, before)| now - before);
    Some(Cpu { all: now.all - before.all, middle })
}

fn keys(port: SocketAddr, count: usize) -> anyhow::Result<Keys> {
    let percentiles = |mut latencies: Vec<Duration>| [0.5, 0.99].map(|part| percentile(&mut latencies, part));
    let alone = percentiles(target::keystrokes(port, count)?);
    let beside_bulk = percentiles(target::keystrokes_beside_bulk(port, count, WARM_UP)?);
    Ok(Keys { alone, beside_bulk })
}

async fn requests(way: &Way, count: usize) -> anyhow::Result<Requests> {
    yield_now().await;
    let before = way.cpu()?;
    let [mut opened, mut done] = way.requests(count).await?;
    let cpu = since(way.cpu()?, before);
    let percentiles = |latencies: &mut [Duration]| [0.5, 0.99].map(|part| percentile(latencies, part));
    Ok(Requests {
        count,
        opened: (!opened.is_empty()).then(|| percentiles(&mut opened)),
        done: percentiles(&mut done),
        cpu_us: cpu.map(|cpu| cpu.all.as_secs_f64() * 1e6 / count as f64),
    })
}
