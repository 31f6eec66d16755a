//! What the hub allows, and the bucket that rates are counted with.

use std::time::Duration;

use towline_engine::Instant;

/// How many tunnels to one device may be live at a time, unless a hub's limits say otherwise. The windows of links are made
/// for as many.
pub const TUNNELS_PER_DEVICE: u32 = 1000;

/// What a hub allows. Each has a flag of `towline hub`, and a default that suits a hub of some thousand devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many tunnels a service may open, or lists it may ask for, in a second, in the long run. Default: 100.
    pub opens_per_second: u32,
    /// How many it may open at once, after a rest. Default: 200.
    pub open_burst: u32,
    /// How many tunnels to one device may be live at a time. Default: [`TUNNELS_PER_DEVICE`].
    ///
    /// More cost more: a hub may have to keep a stream window, 64 KiB or more, for each, on every link.
    pub tunnels_per_device: u32,
    /// How many connections may be on their way through the handshake; one more waits while enough
    /// of them get through, or else the oldest of them is dropped ([`Lobby`](super::Lobby)). Default: 1,000.
    pub unauthenticated: usize,
    /// How long a connection has to show who it is: TLS and the hello. Default: 10 s.
    pub handshake: Duration,
    /// How many devices that are gone are remembered, to tell "offline" from "unknown". Default: 100,000.
    pub remembered: usize,
    /// How long a device stays away after another holder of its identity took its place. Default: 30 s.
    pub superseded_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            opens_per_second: 100,
            open_burst: 200,
            tunnels_per_device: TUNNELS_PER_DEVICE,
            unauthenticated: 1_000,
            handshake: Duration::from_secs(10),
            remembered: 100_000,
            superseded_wait: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The same, with this many tunnels to one device.
    #[must_use]
    pub fn tunnels_per_device(mut self, tunnels: u32) -> Self {
        self.tunnels_per_device = tunnels;
        self
    }

    /// The same, with this many opens a second in the long run, and at once.
    #[must_use]
    pub fn opens(mut self, per_second: u32, burst: u32) -> Self {
        (self.opens_per_second, self.open_burst) = (per_second, burst);
        self
    }

    /// The same, with this many connections on their way through the handshake.
    #[must_use]
    pub fn unauthenticated(mut self, connections: usize) -> Self {
        self.unauthenticated = connections;
        self
    }

    /// The same, with this much time for the handshake.
    #[must_use]
    pub fn handshake(mut self, deadline: Duration) -> Self {
        self.handshake = deadline;
        self
    }
}

/// The longest that the handshake of a tunnel may take, whatever the asker says.
pub const MAX_DEADLINE: Duration = Duration::from_secs(60);

/// The longest that a tunnel waits for its device to come, whatever the asker says: 10 min.
pub const MAX_PARKING: Duration = Duration::from_secs(600);

/// How many tunnels may wait for devices that are away, at a hub.
pub const MAX_PARKED: usize = 10_000;

/// How many of them may be one service's, so that nobody keeps the others from waiting.
pub const MAX_PARKED_OF_SERVICE: usize = 256;

/// A bucket of tokens: each thing done takes one, and they come back at a steady rate.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    /// How long one token takes to come back.
    interval: Duration,
    /// How long all do.
    fill: Duration,
    /// How long those that were taken still take to come back, as of `at`.
    debt: Duration,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens, of which `per_second` come back in a second.
    pub(crate) fn new(now: Instant, per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, fill: interval * burst.max(1), debt: Duration::ZERO, at: now }
    }

    /// Takes a token.
    ///
    /// # Errors
    ///
    /// How long it takes until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let debt = self.debt(now) + self.interval;
        if debt > self.fill {
            return Err(debt - self.fill);
        }
        (self.debt, self.at) = (debt, now);
        Ok(())
    }

    /// Whether the bucket is full, and so like a new one.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.debt(now).is_zero()
    }

    fn debt(&self, now: Instant) -> Duration {
        self.debt.saturating_sub(now.saturating_duration_since(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the very beginning of time, when a bucket must be full all the same.
    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_burst_then_a_steady_rate() {
        let mut bucket = TokenBucket::new(at(0), 10, 3);
        assert_eq!([(); 3].map(|()| bucket.take(at(0))), [Ok(()); 3]);
        assert_eq!(bucket.take(at(0)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(at(60)), Err(Duration::from_millis(40)));
        assert_eq!(bucket.take(at(100)), Ok(()));
        assert_eq!(bucket.take(at(100)), Err(Duration::from_millis(100)));
        let taken = (100..10_100).filter(|&now| bucket.take(at(now)).is_ok()).count();
        assert_eq!(taken, 99, "ten a second");
    }

    #[test]
    fn rest_fills_it_and_no_more() {
        let mut bucket = TokenBucket::new(at(0), 10, 3);
        while bucket.take(at(0)).is_ok() {}
        assert!(!bucket.is_full(at(299)));
        assert!(bucket.is_full(at(300)));
        let taken = std::iter::from_fn(|| bucket.take(at(60_000)).ok()).count();
        assert_eq!(taken, 3);
    }
}
