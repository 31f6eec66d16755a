//! One turn of one way: all workloads, one after the other, on a line on which nothing else is under way.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::load::{Bulk, Echo, Ready, abort, mbit_per_s, requests};
use super::ways::Way;
use super::workload::Workload;
use crate::lab::stage::Stage;

/// How many connections share an upload.
const SHARED: usize = 64;

/// How many others send messages beside the one that is measured.
const OTHERS: usize = 4;

/// A key, and a message where packets are lost.
const KEY_BYTES: usize = 1;
const MESSAGE_BYTES: usize = 32;

/// How long it is from one request to the next, from key to key, and from message to message. A keyboard repeats a key
/// after 33 ms.
const REQUEST_EVERY: Duration = Duration::from_millis(50);
const KEY_EVERY: Duration = Duration::from_millis(33);
const MESSAGE_EVERY: Duration = Duration::from_millis(20);

/// How much is done in a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) keys: usize,
    pub(crate) requests: usize,
    /// How long bulk runs, and is measured, before keys are typed beside it.
    pub(crate) bulk: Duration,
    /// Whether there is time for the workloads that are about many connections.
    pub(crate) has_wide: bool,
}

impl Amount {
    /// How long that takes over a line with such a round trip, if nothing disturbs it and there are no wide workloads.
    pub(crate) fn duration(&self, round_trip: Duration) -> Duration {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let typed = 3 * KEY_EVERY.saturating_mul(count(self.keys));
        let requests = REQUEST_EVERY.saturating_mul(count(self.requests));
        // Dialling, and what ends a workload: some round trips each.
        typed + requests + 2 * self.bulk + 16 * round_trip
    }
}

/// What a workload of a turn gave.
pub(crate) type Samples = (Workload, Vec<f64>);

/// Does all that there is to do over a clean line. What was measured before something failed is in `samples`.
pub(crate) fn turn(
    stage: &Stage,
    way: &Way,
    amount: Amount,
    samples: &mut Vec<Samples>,
) -> anyhow::Result<()> {
    over(stage, way, |address, cold| {
        samples.push((Workload::Cold, vec![millis(cold)]));
        workloads(stage, address, amount, samples)
    })
}

/// Does `work` over a way, with where one connects to it, and how long that took.
fn over(
    stage: &Stage,
    way: &Way,
    work: impl FnOnce(SocketAddr, Duration) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let open = way.open(stage)?;
    let done = work(open.address, open.cold);
    open.close(stage);
    done
}

/// Does what there is to do over a line that loses packets.
pub(crate) fn lossy_turn(
    stage: &Stage,
    way: &Way,
    amount: Amount,
    samples: &mut Vec<Samples>,
) -> anyhow::Result<()> {
    over(stage, way, |address, _| {
        let latencies =
            stage.near(|| head_of_line(address, 2 * amount.keys).context("messages beside others"));
        samples.push((Workload::HeadOfLine, latencies?));
        Ok(())
    })
}

/// Where bulk comes first, what it leaves on the way would be beside what comes next: so that is waited for, and comes last.
fn workloads(
    stage: &Stage,
    address: SocketAddr,
    amount: Amount,
    samples: &mut Vec<Samples>,
) -> anyhow::Result<()> {
    let Amount { keys, bulk, .. } = amount;
    let near = |what: &'static str, work: &(dyn Fn() -> io::Result<Vec<Samples>> + Sync)| {
        stage.near(|| work().context(what))
    };
    samples.extend(near("requests", &|| {
        let requests = requests(address, amount.requests, REQUEST_EVERY)?;
        Ok(vec![(Workload::Request, all_millis(requests))])
    })?);
    samples.extend(near("keys", &|| {
        let keys = Echo::open(address, KEY_BYTES)?.send(keys, KEY_EVERY)?;
        Ok(vec![(Workload::Key, all_millis(keys))])
    })?);
    let beside =
        |workloads, begin: &dyn Fn() -> io::Result<Bulk>| beside_bulk(address, keys, bulk, workloads, begin);
    if amount.has_wide {
        samples.extend(near("keys beside a reader that has stopped", &|| {
            Ok(vec![(Workload::SlowReader, slow_reader(address, keys, bulk)?)])
        })?);
        stage.lab.wait_until_quiet()?;
    }
    samples.extend(near("a download, and keys beside it", &|| {
        beside([Workload::Download, Workload::KeyBesideDownload], &|| Bulk::down(address))
    })?);
    stage.lab.wait_until_quiet()?;
    samples.extend(near("an upload, and keys beside it", &|| {
        beside([Workload::Upload, Workload::KeyBesideUpload], &|| Bulk::up(address, &stage.meters))
    })?);
    if amount.has_wide {
        stage.lab.wait_until_quiet()?;
        samples.extend(near("64 uploads at once", &|| {
            Ok(vec![(Workload::SharedUpload, shared_upload(stage, address, bulk)?)])
        })?);
    }
    Ok(())
}

/// The rate of bulk that begins, and then keys beside it, on a connection that was there before.
fn beside_bulk(
    address: SocketAddr,
    keys: usize,
    duration: Duration,
    [alone, beside]: [Workload; 2],
    begin: &dyn Fn() -> io::Result<Bulk>,
) -> io::Result<Vec<Samples>> {
    let mut typed = Echo::open(address, KEY_BYTES)?;
    let bulk = begin()?;
    let rates = bulk.rates(duration);
    let latencies = typed.send(keys, KEY_EVERY)?;
    bulk.stop()?;
    Ok(vec![(alone, rates), (beside, all_millis(latencies))])
}

/// The mean rates of uploads that run at once.
fn shared_upload(stage: &Stage, address: SocketAddr, duration: Duration) -> io::Result<Vec<f64>> {
    // All are there before the first begins.
    let ready = thread::scope(|scope| {
        let open = || scope.spawn(|| Ready::open(address, &stage.meters));
        let open: Vec<_> = (0..SHARED).map(|_| open()).collect();
        open.into_iter().map(|open| open.join().expect("it does not panic")).collect::<io::Result<Vec<_>>>()
    })?;
    let begun = Instant::now();
    let uploads = ready.into_iter().map(Ready::begin).collect::<io::Result<Vec<_>>>()?;
    thread::sleep(duration);
    let (arrived, took) = (uploads.iter().map(Bulk::arrived), begun.elapsed());
    let rates = arrived.map(|arrived| mbit_per_s(arrived, took)).collect();
    // One after the other, but what one leaves free another takes: nothing is measured any more.
    uploads.into_iter().try_for_each(Bulk::stop)?;
    Ok(rates)
}

fn slow_reader(address: SocketAddr, keys: usize, duration: Duration) -> io::Result<Vec<f64>> {
    let mut typed = Echo::open(address, KEY_BYTES)?;
    let stalled = Bulk::ask_for_download(address)?;
    thread::sleep(duration);
    let latencies = typed.send(keys, KEY_EVERY)?;
    abort(&stalled)?;
    Ok(all_millis(latencies))
}

fn head_of_line(address: SocketAddr, messages: usize) -> io::Result<Vec<f64>> {
    let mut one = Echo::open(address, MESSAGE_BYTES)?;
    let others = (0..OTHERS).map(|_| Echo::open(address, MESSAGE_BYTES)).collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let begin = |mut other: Echo| scope.spawn(move || other.send(messages, MESSAGE_EVERY));
        let others: Vec<_> = others.into_iter().map(begin).collect();
        let latencies = one.send(messages, MESSAGE_EVERY)?;
        for other in others {
            other.join().expect("it does not panic")?;
        }
        Ok(all_millis(latencies))
    })
}

fn all_millis(latencies: Vec<Duration>) -> Vec<f64> {
    latencies.into_iter().map(millis).collect()
}

/// Milliseconds, to a microsecond.
fn millis(latency: Duration) -> f64 {
    latency.as_micros() as f64 / 1000.0
}
