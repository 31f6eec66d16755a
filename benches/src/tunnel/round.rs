//! One round over one way: two transfers and many requests.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::{block_in_place, yield_now};
use towline::Service;

use super::chain::Chain;
use super::{Options, product, socat, target};
use crate::clock;
use crate::stats::percentile;

/// How long a bulk transfer takes to fill whatever there is on its way.
const WARM_UP: Duration = Duration::from_millis(300);

/// A way from a client to the target.
#[derive(Debug)]
pub(crate) enum Way {
    /// No tunnel: what the load itself costs.
    Direct(SocketAddr),
    /// The product, used as a library.
    Handle(Service),
    /// The product's tunnels, through a local port.
    Forward(SocketAddr),
    /// The product's session end to end, through a local port.
    Session(SocketAddr),
    /// Other programs in a row, through a local port.
    Rival(&'static str, Chain),
}

impl Way {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Direct(_) => "no tunnel",
            Self::Handle(_) => "towline, as a library",
            Self::Forward(_) => "towline, tunnels",
            Self::Session(_) => "towline, end to end",
            Self::Rival(name, _) => name,
        }
    }

    /// The CPU time of everything that has a part in it.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let others = match self {
            Self::Direct(_) | Self::Handle(_) | Self::Forward(_) | Self::Session(_) => Duration::ZERO,
            Self::Rival(_, chain) => block_in_place(|| chain.cpu())?,
        };
        Ok(clock::process_cpu() + others)
    }

    /// Where a client connects, if it does not use the product as a library.
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(address) | Self::Forward(address) | Self::Session(address) => Some(*address),
            Self::Rival(_, chain) => Some(chain.address),
            Self::Handle(_) => None,
        }
    }

    async fn upload(&self, bytes: u64) -> anyhow::Result<Duration> {
        match self {
            Self::Direct(address)
            | Self::Forward(address)
            | Self::Session(address)
            | Self::Rival(_, Chain { address, .. }) => {
                Ok(block_in_place(|| target::upload(*address, bytes))?)
            }
            Self::Handle(service) => product::upload(service, bytes).await,
        }
    }

    async fn download(&self, bytes: u64) -> anyhow::Result<Duration> {
        match self {
            Self::Direct(address)
            | Self::Forward(address)
            | Self::Session(address)
            | Self::Rival(_, Chain { address, .. }) => {
                Ok(block_in_place(|| target::download(*address, bytes))?)
            }
            Self::Handle(service) => product::download(service, bytes).await,
        }
    }

    /// Makes `count` requests, one after the other. Returns how long each took until there was a tunnel, where that
    /// can be seen, and until all was done.
    async fn requests(&self, count: usize) -> anyhow::Result<[Vec<Duration>; 2]> {
        match self {
            Self::Direct(address)
            | Self::Forward(address)
            | Self::Session(address)
            | Self::Rival(_, Chain { address, .. }) => {
                let requests = || (0..count).map(|_| target::request(*address)).collect::<Result<_, _>>();
                Ok([Vec::new(), block_in_place(requests)?])
            }
            Self::Handle(service) => {
                let mut latencies = [Vec::with_capacity(count), Vec::with_capacity(count)];
                for _ in 0..count {
                    let (opened, done) = product::request(service).await?;
                    latencies[0].push(opened);
                    latencies[1].push(done);
                }
                Ok(latencies)
            }
        }
    }
}

/// What a round gave.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) up: Transfer,
    pub(crate) down: Transfer,
    pub(crate) requests: Requests,
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
    pub(crate) cpu_s_per_gb: f64,
}

impl Transfer {
    fn new(bytes: u64, wall: Duration, cpu: Duration) -> Self {
        let gb = bytes as f64 / 1e9;
        Self { gb_per_s: gb / wall.as_secs_f64(), cpu_s_per_gb: cpu.as_secs_f64() / gb }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) count: usize,
    /// The median and the 99th percentile, in microseconds.
    pub(crate) opened: Option<[f64; 2]>,
    pub(crate) done: [f64; 2],
    pub(crate) cpu_us: f64,
}

/// Measures `way` once. What blocks gives way in between, so that whoever waits for the end of all this can have it.
pub(crate) async fn measure(way: &Way, options: Options) -> anyhow::Result<Round> {
    let Options { bytes, opens, .. } = options;
    way.upload(bytes / 16).await?;
    let before = way.cpu()?;
    let wall = way.upload(bytes).await?;
    let between = way.cpu()?;
    yield_now().await;
    let up = Transfer::new(bytes, wall, between - before);
    let wall = way.download(bytes).await?;
    let down = Transfer::new(bytes, wall, way.cpu()? - between);
    let count = if matches!(way, Way::Rival(socat::NAME, _)) { (opens / 10).max(1) } else { opens };
    let requests = requests(way, count).await?;
    yield_now().await;
    let keys = way.address().map(|address| block_in_place(|| keys(address, opens))).transpose()?;
    Ok(Round { up, down, requests, keys })
}

fn keys(address: SocketAddr, count: usize) -> anyhow::Result<Keys> {
    let percentiles = |mut latencies: Vec<Duration>| [0.5, 0.99].map(|part| percentile(&mut latencies, part));
    let alone = percentiles(target::keystrokes(address, count)?);
    let beside_bulk = percentiles(target::keystrokes_beside_bulk(address, count, WARM_UP)?);
    Ok(Keys { alone, beside_bulk })
}

async fn requests(way: &Way, count: usize) -> anyhow::Result<Requests> {
    yield_now().await;
    let before = way.cpu()?;
    let [mut opened, mut done] = way.requests(count).await?;
    let cpu = way.cpu()? - before;
    let percentiles = |latencies: &mut [Duration]| [0.5, 0.99].map(|part| percentile(latencies, part));
    Ok(Requests {
        count,
        opened: (!opened.is_empty()).then(|| percentiles(&mut opened)),
        done: percentiles(&mut done),
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
    })
}
