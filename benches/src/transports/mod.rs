//! Every transport beside others who do the same: over real sockets on loopback, in rounds that take turns.
//!
//! Each end is a thread with a runtime of its own, so that what an end costs is what its thread's clock says.

pub mod contender;
pub(crate) mod far;
pub mod live;
pub(crate) mod near;
mod table;
pub(crate) mod trust;

use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use serde::Serialize;
use tokio::time::timeout;

use crate::report;
use crate::stats::{Spread, percentile};
use contender::{Connect, Name, Transport, Use, Visit};
use far::Far;
use near::{Cost, Latencies};
pub use table::print;
use trust::Trust;

/// How long a contender's part of a round may take before it is taken to stand still.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom; nobody means all.
    pub contenders: Vec<Name>,
    /// How many rounds.
    pub rounds: usize,
    /// How much a transfer moves, in bytes.
    pub bytes: usize,
    /// An eighth of the work.
    pub quick: bool,
}

/// What a transfer took. CPU time is in seconds for 10^9 bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Transfer {
    /// 10^9 bytes a second.
    pub gb_per_s: Spread,
    /// Both ends.
    pub cpu_s_per_gb: Spread,
    /// The end that sends.
    pub sender_cpu_s_per_gb: Spread,
    /// The end that receives.
    pub receiver_cpu_s_per_gb: Spread,
}

/// What something that is done many times took, each time, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// The median.
    pub p50_us: Spread,
    /// The 99th percentile.
    pub p99_us: Spread,
    /// CPU time of the end that connects.
    pub near_cpu_us: Spread,
    /// CPU time of the end that accepts.
    pub far_cpu_us: Spread,
}

/// What one contender took for everything that it can do.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Whose row.
    pub contender: Name,
    /// Bytes on one stream.
    pub bulk: Transfer,
    /// Bytes on 64 streams at once.
    pub bulk_64: Option<Transfer>,
    /// 1 KiB there and back on a live stream.
    pub echo: Times,
    /// The same, while another stream of the connection carries bulk.
    pub echo_beside_bulk: Option<Times>,
    /// A new connection, and 1 KiB there and back on it.
    pub cold: Times,
    /// A new stream, and 1 KiB there and back on it.
    pub warm: Option<Times>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// How many bytes a transfer had.
    pub bytes: usize,
    /// How many rounds there were.
    pub rounds: usize,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// One contender's part of a round.
#[derive(Clone, Debug)]
struct Round {
    bulk: Cost,
    bulk_64: Option<Cost>,
    echo: Latencies,
    echo_beside_bulk: Option<Latencies>,
    cold: Latencies,
    warm: Option<Latencies>,
}

/// How much of everything there is in a round.
#[derive(Clone, Copy, Debug)]
struct Plan {
    bytes: usize,
    echoes: usize,
    echoes_beside_bulk: usize,
    cold: usize,
    warm: usize,
    /// Whether there is one stream only.
    is_bare: bool,
}

impl Plan {
    fn of(options: &Options, name: Name) -> Self {
        let part = |count: usize| if options.quick { count / 8 } else { count };
        Self {
            bytes: part(options.bytes),
            echoes: part(8000),
            echoes_beside_bulk: part(2000),
            cold: part(400),
            warm: part(4000),
            is_bare: name.is_bare(),
        }
    }
}

/// Measures everybody at everything.
///
/// # Errors
///
/// There are no certificates to be had.
pub fn measure(options: &Options) -> anyhow::Result<Results> {
    let all = Name::value_variants().iter().copied().filter(|&name| name != Name::QuinnTuned);
    let names = if options.contenders.is_empty() { all.collect() } else { options.contenders.clone() };
    let trust = Trust::new()?;
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); names.len()];
    let mut missing = Vec::new();
    let bar = report::progress(options.rounds * names.len());
    for _ in 0..options.rounds {
        for (&name, rounds) in names.iter().zip(&mut rounds) {
            bar.set_message(name.text());
            match run(name, Plan::of(options, name), trust.clone()) {
                Ok(round) => rounds.push(round),
                Err(error) => missing.push(format!("{}: {error:#}", name.text())),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let rows = names.iter().zip(rounds).filter_map(|(&name, rounds)| row(name, options, rounds)).collect();
    Ok(Results { bytes: Plan::of(options, Name::Tcp).bytes, rounds: options.rounds, rows, missing })
}

/// One contender's part of a round, in a thread of its own.
fn run(name: Name, plan: Plan, trust: Trust) -> anyhow::Result<Round> {
    let near = thread::Builder::new().name("near".into());
    let near = near.spawn(move || name.visit(Use::Work, RunRound { plan, trust }))?;
    near.join().map_err(|_| anyhow!("it has failed; what it said is above"))?
}

struct RunRound {
    plan: Plan,
    trust: Trust,
}

impl Visit for RunRound {
    type Output = anyhow::Result<Round>;

    fn visit(self, transport: impl Transport) -> anyhow::Result<Round> {
        let Self { plan, trust } = self;
        let mut far = Far::start(transport, trust.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let connector = transport.connector(&trust, far.address)?;
            let round = timeout(PATIENCE, round(&connector, &far, plan)).await;
            far.stop();
            round.context("it was not done after five minutes: it stands still")
        })
    }
}

/// A transfer of a contender on so many streams of one connection.
pub(crate) fn bulk(name: Name, streams: usize, bytes: usize) -> anyhow::Result<Cost> {
    let bulk = RunBulk { streams, bytes, trust: Trust::new()? };
    let near = thread::Builder::new().name("near".into()).spawn(move || name.visit(Use::Work, bulk))?;
    near.join().map_err(|_| anyhow!("it has failed; what it said is above"))?
}

struct RunBulk {
    streams: usize,
    bytes: usize,
    trust: Trust,
}

impl Visit for RunBulk {
    type Output = anyhow::Result<Cost>;

    fn visit(self, transport: impl Transport) -> anyhow::Result<Cost> {
        let Self { streams, bytes, trust } = self;
        let mut far = Far::start(transport, trust.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let connector = transport.connector(&trust, far.address)?;
            let opener = connector.connect().await;
            let cost = timeout(PATIENCE, near::bulk(&opener, &far, streams, bytes)).await;
            far.stop();
            cost.context("it was not done after five minutes: it stands still")
        })
    }
}

/// Everything that a contender can do, each on a connection of its own.
async fn round(connector: &impl Connect, far: &Far, plan: Plan) -> Round {
    let has_many = !plan.is_bare;
    // The first connection pays for what is made once.
    near::cold(connector, far, 1).await;
    let bulk = near::bulk(&connector.connect().await, far, 1, plan.bytes).await;
    let echo = near::echo(&connector.connect().await, far, plan.echoes).await;
    let cold = near::cold(connector, far, plan.cold).await;
    let mut round = Round { bulk, bulk_64: None, echo, echo_beside_bulk: None, cold, warm: None };
    if has_many {
        let opener = connector.connect().await;
        round.bulk_64 = Some(near::bulk(&opener, far, STREAMS, plan.bytes).await);
        round.warm = Some(near::warm(&opener, far, plan.warm).await);
        let opener = connector.connect().await;
        round.echo_beside_bulk = Some(near::echo_beside_bulk(&opener, far, plan.echoes_beside_bulk).await);
    }
    round
}

/// How many streams there are, where there are many.
const STREAMS: usize = 64;

fn row(name: Name, options: &Options, mut rounds: Vec<Round>) -> Option<Row> {
    let plan = Plan::of(options, name);
    let transfer = |cost: &dyn Fn(&Round) -> Option<Cost>, streams: usize| {
        let gb = (plan.bytes / streams * streams) as f64 / 1e9;
        let costs: Vec<_> = rounds.iter().filter_map(cost).collect();
        let all = |value: fn(&Cost) -> Duration| {
            Spread::of(costs.iter().map(|cost| value(cost).as_secs_f64() / gb))
        };
        Some(Transfer {
            gb_per_s: Spread::of(costs.iter().map(|cost| gb / cost.wall.as_secs_f64()))?,
            cpu_s_per_gb: all(|cost| cost.near + cost.far)?,
            sender_cpu_s_per_gb: all(|cost| cost.near)?,
            receiver_cpu_s_per_gb: all(|cost| cost.far)?,
        })
    };
    let bulk = transfer(&|round| Some(round.bulk), 1)?;
    let bulk_64 = transfer(&|round| round.bulk_64, STREAMS);
    let mut times = |latencies: &dyn Fn(&mut Round) -> Option<&mut Latencies>| {
        let mut all: Vec<_> = rounds.iter_mut().filter_map(latencies).collect();
        let mut part =
            |part| Spread::of(all.iter_mut().map(|one| percentile(&mut one.each, part)).collect::<Vec<_>>());
        let (p50_us, p99_us) = (part(0.5)?, part(0.99)?);
        let cpu = |value: fn(&Cost) -> Duration| {
            Spread::of(all.iter().map(|one| value(&one.cost).as_secs_f64() * 1e6 / one.each.len() as f64))
        };
        Some(Times { p50_us, p99_us, near_cpu_us: cpu(|cost| cost.near)?, far_cpu_us: cpu(|cost| cost.far)? })
    };
    Some(Row {
        contender: name,
        bulk,
        bulk_64,
        echo: times(&|round| Some(&mut round.echo))?,
        echo_beside_bulk: times(&|round| round.echo_beside_bulk.as_mut()),
        cold: times(&|round| Some(&mut round.cold))?,
        warm: times(&|round| round.warm.as_mut()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::muxer::{Open, Stream};

    struct Carry(Trust);

    impl Visit for Carry {
        type Output = anyhow::Result<()>;

        fn visit(self, transport: impl Transport) -> anyhow::Result<()> {
            let mut far = Far::start(transport, self.0.clone())?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connector = transport.connector(&self.0, far.address)?;
                let carried = timeout(Duration::from_secs(60), carry(&connector)).await;
                far.stop();
                Ok(carried?)
            })
        }
    }

    /// Messages of all sizes, up to some records, come back as they were.
    async fn carry(connector: &impl Connect) {
        let pattern: Vec<u8> = (0..100_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let pattern = bytes::Bytes::from(pattern);
        let mut stream = connector.connect().await.open().await;
        for size in [1, 2, 1000, 16_384, 16_385, 40_000, 65_536, 3] {
            near::there_and_back(&mut stream, &pattern.slice(..size)).await;
        }
        stream.finish().await;
        assert_eq!(stream.read(|_| ()).await, 0);
    }

    #[test]
    fn everybody_carries_bytes_as_they_are() {
        let trust = Trust::new().unwrap();
        for &name in Name::value_variants() {
            let carried = name.visit(Use::Work, Carry(trust.clone()));
            carried.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        }
    }

    #[test]
    fn everybody_does_everything() {
        let options = Options { contenders: Vec::new(), rounds: 1, bytes: 1 << 20, quick: true };
        let trust = Trust::new().unwrap();
        for &name in Name::value_variants() {
            let plan =
                Plan { echoes: 20, echoes_beside_bulk: 20, cold: 2, warm: 20, ..Plan::of(&options, name) };
            let round = run(name, plan, trust.clone()).unwrap_or_else(|error| panic!("{name:?}: {error}"));
            let row = row(name, &options, vec![round]).unwrap();
            assert_eq!(row.warm.is_some(), !name.is_bare(), "{name:?}");
            assert!(row.bulk.receiver_cpu_s_per_gb.median > 0.0, "{name:?}");
        }
    }
}
