//! The line itself: two networks, and the thread between them.
//!
//! In: packets that the kernel routes to a TUN device. Out: the same packets at the other one, when they are due. It waits in
//! `ppoll` until shortly before, and looks at the clock from then on, since a timer alone is late by as much as a LAN's
//! whole round trip.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::Serialize;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use towline_sim::link::Link;
use towline_sim::profile::Profile;
use towline_sim::random::Random;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::line::{Counts, LONGEST, Line};
use super::namespace::{Namespace, ip};
use super::stage::round_trip;

/// How long before a packet is due the clock is looked at all the time.
const SPIN: Duration = Duration::from_micros(60);

/// How long the thread goes on without a rest where a packet is always about to be due.
const MOST_AWAKE: Duration = Duration::from_millis(1);

/// How long it rests then. The kernel stops a thread in real time that takes more than 95 % of a second for what is left
/// of it (`sched_rt_runtime_us`), which is 50 ms, and queues overflow meanwhile.
const NAP: Duration = Duration::from_micros(60);

/// How many packets are read from a device before those that are due get their turn.
const READS: usize = 64;

/// For how long nothing passes a line on which nobody talks any more, keep-alives excepted; and for two round trips, since
/// who waits for an answer is silent as well.
const QUIET: Duration = Duration::from_millis(300);

/// How many packets pass all the same: a sign of life that somebody gives twice a second, and what acknowledges it.
const SIGNS_OF_LIFE: u64 = 2;

/// How long that may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it waits at a time.
const REST: Duration = Duration::from_millis(50);

/// How late one packet in a hundred may be; a run in which more are is worth nothing.
const MOST_LATE: Duration = Duration::from_millis(1);

/// How often something is measured in which packets are late each time, before the machine is said to be too busy.
pub(crate) const TRIES: usize = 3;

/// Measures until that `is_enough`, [`TRIES`] times at most: again where packets were late, since what that gives is worth
/// nothing. Returns what the last time gave, and which time that was.
pub(crate) fn in_time<T>(
    measure: impl Fn() -> anyhow::Result<T>,
    is_enough: impl Fn(&T) -> bool,
) -> anyhow::Result<(T, usize)> {
    let mut tries = 1;
    loop {
        let measured = measure()?;
        if tries == TRIES || is_enough(&measured) {
            return Ok((measured, tries));
        }
        tries += 1;
    }
}

/// The fastest line that two processors carry with the ends of it, in bits a second.
pub(super) const FASTEST: u64 = 200_000_000;

/// The largest IP packet of the line.
const MTU: u16 = 1500;

/// The two ends of a line.
#[derive(Debug)]
pub struct Ends {
    /// The end that calls.
    pub near: Namespace,
    /// The rest of the world.
    pub far: Namespace,
}

/// A line that runs until this is dropped.
#[derive(Debug)]
pub struct Lab {
    ends: Arc<Ends>,
    over: Arc<AtomicBool>,
    passed: Arc<AtomicU64>,
    /// How long nothing passes before it is taken to be quiet.
    quiet: Duration,
    carrying: Option<JoinHandle<io::Result<Carried>>>,
}

/// What the thread that carries packets comes back with.
#[derive(Debug)]
struct Carried {
    lines: [Line; 2],
    /// How long packets may have waited before they were looked at.
    unseen: Histogram<u64>,
    is_real_time: bool,
}

/// How a line has done.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// How late packets were given on, in microseconds: the middle.
    pub late_p50_us: f64,
    /// One in a hundred was later than this.
    pub late_p99_us: f64,
    /// How long one packet in a hundred may have waited, in microseconds, before its time began to count: since the device was
    /// looked at before.
    pub unseen_p99_us: f64,
    /// Whether the thread that carries them goes before all that are not in real time.
    pub is_real_time: bool,
    /// How many packets the kernels at the ends had for the line that it did not take in time. Their loss is no part of the
    /// profile.
    pub missed: u64,
    /// From the end that calls.
    pub up: Counts,
    /// To the end that calls.
    pub down: Counts,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Lab {
    /// The address of the end that calls.
    pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    /// The address of the rest of the world.
    pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    /// Two networks, and a line of this profile between them. What is drawn is drawn from `seed`.
    ///
    /// # Errors
    ///
    /// The line is too fast for this; or the system lacks something, which the error names.
    pub fn start(profile: &Profile, seed: u64) -> anyhow::Result<Self> {
        let fastest = [&profile.up, &profile.down].iter().filter_map(|link| link.rate).max();
        if fastest.is_some_and(|rate| rate.0 > FASTEST) {
            bail!(
                "a line may take {} Mbit/s at most: beyond, the emulator measures itself",
                FASTEST / 1_000_000
            );
        }
        let (near, near_device) = end(Self::NEAR, Self::FAR)?;
        let (far, far_device) = end(Self::FAR, Self::NEAR)?;
        let random = Random::new(seed);
        let line = |spec, name| Line::new(Link::new(spec, random.stream(name)), profile.blocks_udp);
        let lines = [line(profile.up.clone(), "up"), line(profile.down.clone(), "down")];
        let (over, passed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let carrying = thread::Builder::new().name("line".into()).spawn({
            let (over, passed) = (over.clone(), passed.clone());
            move || {
                let is_real_time = in_real_time();
                let (lines, unseen) = carry([near_device, far_device], lines, &over, &passed)?;
                Ok(Carried { lines, unseen, is_real_time })
            }
        })?;
        let quiet = QUIET.max(2 * round_trip(profile));
        Ok(Self { ends: Arc::new(Ends { near, far }), over, passed, quiet, carrying: Some(carrying) })
    }

    /// Waits until nothing but signs of life has passed for a while.
    ///
    /// # Errors
    ///
    /// Somebody still talks after half a minute.
    pub fn wait_until_quiet(&self) -> anyhow::Result<()> {
        let (begun, mut passed) = (Instant::now(), self.passed.load(Ordering::Acquire));
        while begun.elapsed() < PATIENCE {
            thread::sleep(self.quiet);
            let before = std::mem::replace(&mut passed, self.passed.load(Ordering::Acquire));
            if passed - before <= SIGNS_OF_LIFE {
                return Ok(());
            }
        }
        bail!("somebody still talks on the line after {} s", PATIENCE.as_secs())
    }

    /// The networks at its ends.
    pub fn ends(&self) -> &Arc<Ends> {
        &self.ends
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// A device has failed.
    pub fn stop(mut self) -> anyhow::Result<Report> {
        let missed = missed(&self.ends.near)? + missed(&self.ends.far)?;
        let Carried { lines: [up, down], unseen, is_real_time } = self.join()?;
        let mut lateness = up.lateness().clone();
        lateness.add(down.lateness())?;
        let micros = |of: &Histogram<u64>, part| of.value_at_quantile(part) as f64 / 1000.0;
        Ok(Report {
            late_p50_us: micros(&lateness, 0.5),
            late_p99_us: micros(&lateness, 0.99),
            unseen_p99_us: micros(&unseen, 0.99),
            is_real_time,
            missed,
            up: up.counts(),
            down: down.counts(),
        })
    }

    fn join(&mut self) -> anyhow::Result<Carried> {
        self.over.store(true, Ordering::Release);
        let carrying = self.carrying.take().context("it was stopped already")?;
        carrying.join().expect("it does not panic").context("the line broke")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.join();
    }
}

impl Report {
    /// Whether the packets were on time, and none was lost that was not to be.
    pub fn is_punctual(&self) -> bool {
        let most = MOST_LATE.as_secs_f64() * 1e6;
        let dropped = self.missed + self.up.dropped + self.down.dropped;
        self.late_p99_us <= most && self.unseen_p99_us <= most && dropped == 0
    }
}

impl Report {
    /// How this line and another have done together: the later of the two, and all packets of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            late_p50_us: self.late_p50_us.max(other.late_p50_us),
            late_p99_us: self.late_p99_us.max(other.late_p99_us),
            unseen_p99_us: self.unseen_p99_us.max(other.unseen_p99_us),
            is_real_time: self.is_real_time && other.is_real_time,
            missed: self.missed + other.missed,
            up: self.up.and(other.up),
            down: self.down.and(other.down),
        }
    }
}

/// A network with a device in it, over which everything to `peer` goes.
fn end(own: Ipv4Addr, peer: Ipv4Addr) -> anyhow::Result<(Namespace, SyncDevice)> {
    let namespace = Namespace::new()?;
    let device = namespace.run(|| {
        let device = DeviceBuilder::new().name("line").enable(false).build_sync();
        let device = device.context("cannot make a TUN device; is there a /dev/net/tun?")?;
        device.set_nonblocking(true)?;
        // What it would say by itself is no part of what is measured.
        set("net/ipv6/conf/line/disable_ipv6", "1")?;
        // The same for all who run over the line, whatever the system's own choice is, which a network may not change; and
        // nothing that one of them has learnt of it is there for the next.
        set("net/ipv4/tcp_no_metrics_save", "1")?;
        ip(&["link", "set", "line", "mtu", &MTU.to_string(), "txqueuelen", "1000", "up"])?;
        ip(&["addr", "add", &own.to_string(), "dev", "line"])?;
        ip(&["route", "add", &peer.to_string(), "dev", "line", "src", &own.to_string(), "congctl", "cubic"])?;
        Ok(device)
    })?;
    Ok((namespace, device))
}

/// Sets a variable of the kernel's, in the network of this thread.
fn set(name: &str, value: &str) -> anyhow::Result<()> {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
}

/// How many packets a network had for its line that were not taken in time.
fn missed(network: &Namespace) -> anyhow::Result<u64> {
    // After the name: eight numbers of what came, then bytes, packets, errors and drops of what went.
    const DROPPED: usize = 11;
    let devices = network.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let mut numbers = devices.lines().filter_map(|line| line.trim().strip_prefix("line:"));
    let number = numbers.next().and_then(|numbers| numbers.split_whitespace().nth(DROPPED));
    number.and_then(|number| number.parse().ok()).context("the kernel does not say what it dropped")
}

/// Has this thread go before all that are not in real time. Returns whether the system lets it.
pub(super) fn in_real_time() -> bool {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::from_posix(thread_priority::ScheduleParams { sched_priority: 10 });
    set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
}

/// Whether a kernel had no room for a packet, which is lost then as in a network card.
fn has_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.kind() == ErrorKind::WouldBlock || matches!(errno, Some(Errno::ENOBUFS | Errno::ENOMEM))
}

fn in_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("not for 584 years")
}

/// Carries packets until it is over: what comes from the first device by the first line to the second, and back.
/// Returns the lines, and how long packets may have waited before they were looked at.
fn carry(
    devices: [SyncDevice; 2],
    mut lines: [Line; 2],
    over: &AtomicBool,
    passed: &AtomicU64,
) -> io::Result<([Line; 2], Histogram<u64>)> {
    let start = Instant::now();
    let clock = || in_nanos(start.elapsed());
    let mut packet = [0; 1 << 16];
    let mut unseen = Histogram::new_with_max(LONGEST, 3).expect("the bounds are valid");
    // When each device was known to have nothing more.
    let mut empty = [0; 2];
    // When it last had a rest.
    let mut rested = clock();
    while !over.load(Ordering::Acquire) {
        for (from, line) in lines.iter_mut().enumerate() {
            // Not for ever: what is due does not wait for a flood.
            for _ in 0..READS {
                match devices[from].recv(&mut packet) {
                    Ok(length) => {
                        let now = clock();
                        unseen.saturating_record(now - empty[from]);
                        line.push(now, &packet[..length]);
                        passed.fetch_add(1, Ordering::Release);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        empty[from] = clock();
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            while let Some(packet) = line.pop(clock()) {
                match devices[1 - from].send(&packet) {
                    // A kernel that has no room for it has lost it, as a network card would have.
                    Ok(_) => {}
                    Err(error) if has_no_room(&error) => line.drop_last(),
                    Err(error) => return Err(error),
                }
            }
        }
        let begun = clock();
        if begun - rested >= in_nanos(MOST_AWAKE) {
            // Not in `ppoll`, which would return at once: there is always something to read.
            thread::sleep(NAP);
            rested = clock();
            continue;
        }
        let due = lines.iter().filter_map(Line::due).min();
        // Not for long at a time, since a timer is late in proportion, and somebody may end this.
        let left = due.map_or(REST, |due| Duration::from_nanos(due.saturating_sub(clock())).min(REST));
        if let Some(left) = left.checked_sub(SPIN).filter(|left| !left.is_zero()) {
            let mut wait =
                [&devices[0], &devices[1]].map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN));
            match ppoll(&mut wait, Some(TimeSpec::from_duration(left)), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            // It returns with the first packet.
            let now = clock();
            empty = [now; 2];
            if now - begun >= in_nanos(NAP) {
                rested = now;
            }
        }
    }
    Ok((lines, unseen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_late_is_measured_again_and_three_times_in_all() {
        for (in_time_at, wanted) in [(1, (1, 1)), (2, (2, 2)), (9, (TRIES, TRIES))] {
            let count = std::cell::Cell::new(0);
            let measure = || {
                count.set(count.get() + 1);
                Ok(count.get())
            };
            assert_eq!(in_time(measure, |&measured| measured == in_time_at).unwrap(), wanted);
        }
        assert!(in_time(|| anyhow::bail!("it cannot be"), |()| false).is_err());
    }
}
