//! Devices that come back at once: their hub's process is killed, and another takes its place.
//!
//! What each device says of itself counts, so the product's own waits between attempts are in it, with what it draws for them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use towline::core::SETTLED;
use towline::{Status, Transport};

use super::{Options, up_to};
use crate::clock;
use crate::idle::Name as Idle;
use crate::idle::holder::Holder;
use crate::idle::load::{Fleet, patiently};
use crate::stats::{Spread, quantile};
use crate::transports::trust::Trust;

/// How many there are.
const DEVICES: [usize; 6] = [100, 500, 1000, 2000, 5000, MOST];

/// The most devices that come back, unless somebody asks for others.
pub const MOST: usize = 10_000;

/// How long all have been online before the hub goes: then their first wait is a short one.
const QUIET: Duration = SETTLED.saturating_add(Duration::from_secs(1));

/// How so many devices came back, round by round. Times are in seconds since the hub's process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Storm {
    /// How many devices.
    pub count: usize,
    /// When the next hub listened.
    pub listens_s: Spread,
    /// When half of them were online again.
    pub half_s: Spread,
    /// When 99 % of them were.
    pub p99_s: Spread,
    /// When all were.
    pub all_s: Spread,
    /// The CPU time of the next hub's process from when it listened until all were back, in seconds for each device.
    pub hub_cpu_s_each: Spread,
    /// The CPU time of all devices' process meanwhile, in seconds for each device.
    pub device_cpu_s_each: Spread,
}

/// One round.
struct Round {
    listens: Duration,
    /// When each device was online again.
    back: Vec<Duration>,
    hub_cpu: Duration,
    device_cpu: Duration,
}

/// How many are measured one after the other, up to `most`.
pub(super) fn counts(most: usize) -> impl Iterator<Item = usize> {
    up_to(DEVICES, most)
}

/// Measures with more and more devices. Hubs are in processes of their own, one after the other.
pub(super) fn measure(options: &Options, bar: &ProgressBar) -> anyhow::Result<Vec<Storm>> {
    // The devices are in a thread of their own, so that whoever minds the hubs need not wait until they have done what they do.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let trust = Trust::new()?;
        let mut hub = Holder::start(Idle::HubTls, Duration::ZERO, &trust, None)?;
        let address = hub.address().await?;
        let mut fleet = Fleet::new(address, Transport::Tls, &trust, options.storm)?;
        let mut storms = Vec::new();
        for count in counts(options.storm) {
            bar.set_message(format!("{count} devices that come back at once"));
            fleet.grow(count).await?;
            let mut rounds = Vec::new();
            for _ in 0..options.rounds {
                let round;
                (hub, round) = storm(hub, address, &trust, &fleet).await?;
                rounds.push(round);
                bar.inc(1);
            }
            storms.extend(Storm::of(count, &rounds));
        }
        hub.stop();
        Ok(storms)
    })
}

/// Kills the hub, starts another at its address, and returns that once all devices are back.
async fn storm(
    mut hub: Holder,
    address: SocketAddr,
    trust: &Trust,
    fleet: &Fleet,
) -> anyhow::Result<(Holder, Round)> {
    // That the hub has all of them is its own word.
    hub.measure(fleet.devices.len()).await?;
    sleep(QUIET).await;
    let mut returns = JoinSet::new();
    for device in &fleet.devices {
        let mut status = device.status();
        if !matches!(*status.borrow_and_update(), Status::Online) {
            bail!("a device has lost its hub while that was there: {:?}", *status.borrow());
        }
        returns.spawn(online_again(status));
    }
    let (killed, device_cpu) = (Instant::now(), clock::process_cpu());
    hub.kill()?;
    let mut hub = Holder::start(Idle::HubTls, Duration::ZERO, trust, Some(address))?;
    hub.address().await.context("the next hub")?;
    let (listens, cpu) = (killed.elapsed(), hub.cpu()?);
    let back = patiently(async {
        let mut back = Vec::new();
        while let Some(at) = returns.join_next().await {
            back.push(at?? - killed);
        }
        anyhow::Ok(back)
    });
    let back = back.await??;
    let (hub_cpu, device_cpu) = (hub.cpu()? - cpu, clock::process_cpu() - device_cpu);
    hub.measure(fleet.devices.len()).await?;
    Ok((hub, Round { listens, back, hub_cpu, device_cpu }))
}

/// When a device that is online is so once more. That it is not in between is news as well, however short it is.
async fn online_again(mut status: watch::Receiver<Status>) -> anyhow::Result<Instant> {
    loop {
        status.changed().await?;
        if matches!(*status.borrow_and_update(), Status::Online) {
            return Ok(Instant::now());
        }
    }
}

impl Storm {
    /// `None` without rounds.
    fn of(count: usize, rounds: &[Round]) -> Option<Self> {
        let back = |part: f64| {
            let at = |round: &Round| {
                quantile(&round.back.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(), part)
            };
            Spread::of(rounds.iter().filter_map(at))
        };
        let each = |cpu: fn(&Round) -> Duration| {
            Spread::of(rounds.iter().map(|round| cpu(round).as_secs_f64() / count as f64))
        };
        Some(Self {
            count,
            listens_s: Spread::of(rounds.iter().map(|round| round.listens.as_secs_f64()))?,
            half_s: back(0.5)?,
            p99_s: back(0.99)?,
            all_s: back(1.0)?,
            hub_cpu_s_each: each(|round| round.hub_cpu)?,
            device_cpu_s_each: each(|round| round.device_cpu)?,
        })
    }

    fn cells(&self) -> [String; 7] {
        let Self { count, listens_s, half_s, p99_s, all_s, hub_cpu_s_each, device_cpu_s_each } = self;
        let (hub_ms, device_ms) = (hub_cpu_s_each.times(1000.0), device_cpu_s_each.times(1000.0));
        let [listens, half, p99, all, hub, device] =
            [listens_s, half_s, p99_s, all_s, &hub_ms, &device_ms].map(Spread::brief);
        [count.to_string(), listens, half, p99, all, hub, device]
    }
}

/// What there is in a row.
pub(super) const HEAD: [&str; 7] = [
    "DEVICES",
    "NEXT HUB s",
    "HALF BACK s",
    "99 % BACK s",
    "ALL BACK s",
    "HUB'S CPU ms EACH",
    "ITS OWN CPU ms",
];

/// A row for each number of devices, as it is shown, below [`HEAD`].
pub(super) fn rows(storms: &[Storm]) -> impl Iterator<Item = [String; 7]> {
    storms.iter().map(Storm::cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_over_for_half_for_nearly_all_and_for_all() {
        let second = Duration::from_secs;
        let back = (1..=200).rev().map(second).collect();
        let rounds = [Round { listens: second(1), back, hub_cpu: second(2), device_cpu: second(4) }];
        let storm = Storm::of(200, &rounds).unwrap();
        let [half, p99, all] = [storm.half_s, storm.p99_s, storm.all_s].map(|spread| spread.median);
        assert_eq!((half, p99, all), (100.0, 198.0, 200.0));
        assert_eq!(storm.cells()[5..], ["10.0", "20.0"], "milliseconds for each of 200");
        assert_eq!(Storm::of(200, &[]), None);
    }

    #[test]
    fn there_are_more_and_more_devices_up_to_as_many_as_are_asked_for() {
        assert_eq!(counts(20).collect::<Vec<_>>(), [20]);
        assert_eq!(counts(1000).collect::<Vec<_>>(), [100, 500, 1000]);
        assert_eq!(counts(12_000).last(), Some(12_000));
    }
}
