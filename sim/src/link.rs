//! A link: what happens to a packet on its way, in one direction.
//!
//! In: when a packet of so many bytes is sent. Out: when it arrives, once, twice, or never. Keeps: until when the line is
//! busy. In this order: larger than the MTU, forgotten by a NAT, lost, no room in the queue, the rate, the delay, jitter
//! that never reorders, a detour on which others overtake it, duplication. Whole nanoseconds, so that every machine comes
//! to the same time.

use serde::{Deserialize, Serialize};

use crate::random::Stream;
use crate::scenario::{Rate, Share, Size, Span};

/// What a link is like, in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSpec {
    /// How long a byte is under way.
    pub delay: Span,
    /// By how much more at most, drawn for each packet. Packets do not overtake each other for that.
    pub jitter: Span,
    /// How many bits a second it takes. `None`: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How many bytes wait for their turn, with a rate. `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Size>,
    /// How many packets are lost, each by itself.
    pub loss: Share,
    /// Losses that come together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// Packets that others overtake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// How many packets arrive twice.
    pub duplicate: Share,
    /// The largest packet, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// After how long without a packet a NAT forgets whose it is; then nothing comes in until something goes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_timeout: Option<Span>,
}

impl LinkSpec {
    /// Whether packets are lost, overtake each other, or arrive twice.
    pub fn is_unreliable(&self) -> bool {
        self.loss.0 > 0 || self.burst.is_some() || self.reorder.is_some() || self.duplicate.0 > 0
    }
}

/// Packets that take a detour: those behind them go on, and may overtake them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reorder {
    /// How many packets do.
    pub share: Share,
    /// How much longer that takes.
    pub by: Span,
}

/// Losses that come together: a link that is good or bad, and changes from packet to packet (Gilbert and Elliott).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// How likely a good link turns bad.
    pub enter: Share,
    /// How likely a bad link turns good.
    pub leave: Share,
    /// How many packets are lost while it is bad.
    pub loss: Share,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, perhaps twice.
    Arrives {
        /// When, in nanoseconds.
        at: u64,
        /// When again.
        again: Option<u64>,
    },
    /// It is larger than the link takes.
    TooLarge,
    /// There is no room for it.
    QueueFull,
    /// It is lost.
    Lost,
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Link {
    spec: LinkSpec,
    random: Stream,
    /// Until when the line is busy with what was sent before.
    free_at: u64,
    /// When the last packet arrives. The next one arrives no sooner.
    last_arrival: u64,
    is_bad: bool,
}

impl Link {
    /// A link that nothing was sent on.
    pub fn new(spec: LinkSpec, random: Stream) -> Self {
        Self { spec, random, free_at: 0, last_arrival: 0, is_bad: false }
    }

    /// What it is like.
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// From now on it is like this.
    pub fn set_spec(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    /// A packet of `len` bytes is sent at `now`.
    pub fn send(&mut self, now: u64, len: usize) -> Fate {
        if self.spec.mtu.is_some_and(|mtu| len as u64 > u64::from(mtu)) {
            return Fate::TooLarge;
        }
        if self.loses() {
            return Fate::Lost;
        }
        if !self.has_room(now, len) {
            return Fate::QueueFull;
        }
        let at = self.carry(now, len) + self.detour();
        let again = self.random.happens(self.spec.duplicate.0).then(|| self.carry(now, len));
        Fate::Arrives { at, again }
    }

    /// When `len` bytes arrive that are sent at `now`, on a link whose ends see to it that nothing is lost: a connection
    /// waits for room rather than lose, so that loss and queue are for those who ask.
    pub fn carry(&mut self, now: u64, len: usize) -> u64 {
        self.free_at = self.free_at.max(now) + self.nanos(len as u64);
        let jitter = self.random.between(0, self.spec.jitter.0);
        let at = self.free_at + self.spec.delay.0 + jitter;
        self.last_arrival = self.last_arrival.max(at);
        self.last_arrival
    }

    /// Until when the line is busy with what was sent before.
    pub fn free_at(&self) -> u64 {
        self.free_at
    }

    /// How many bytes wait at `now`, those included that are half out.
    pub fn backlog(&self, now: u64) -> u64 {
        let nanos = u128::from(self.free_at.saturating_sub(now));
        let rate = self.spec.rate.map_or(0, |rate| u128::from(rate.0));
        u64::try_from((nanos * rate).div_ceil(8_000_000_000)).unwrap_or(u64::MAX)
    }

    /// Whether the queue takes `len` bytes more.
    pub fn has_room(&self, now: u64, len: usize) -> bool {
        self.spec.queue.is_none_or(|queue| self.backlog(now) + len as u64 <= queue.0)
    }

    /// How long the line is busy with `len` bytes: rounded up, so that no rate is exceeded.
    fn nanos(&self, len: u64) -> u64 {
        let Some(rate) = self.spec.rate else { return 0 };
        let nanos = (u128::from(len) * 8_000_000_000).div_ceil(u128::from(rate.0.max(1)));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// How much longer a packet takes than those behind it.
    fn detour(&mut self) -> u64 {
        self.spec
            .reorder
            .filter(|reorder| self.random.happens(reorder.share.0))
            .map_or(0, |reorder| reorder.by.0)
    }

    fn loses(&mut self) -> bool {
        if let Some(burst) = self.spec.burst {
            let turns = if self.is_bad { burst.leave } else { burst.enter };
            self.is_bad ^= self.random.happens(turns.0);
            if self.is_bad && self.random.happens(burst.loss.0) {
                return true;
            }
        }
        self.random.happens(self.spec.loss.0)
    }
}

/// What a NAT remembers of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Nat {
    timeout: Option<Span>,
    last: u64,
}

impl Nat {
    /// One that forgets after `timeout` without a packet.
    pub fn new(timeout: Option<Span>, now: u64) -> Self {
        Self { timeout, last: now }
    }

    /// Whether it still knows the flow at `now`.
    pub fn remembers(&self, now: u64) -> bool {
        self.timeout.is_none_or(|timeout| now.saturating_sub(self.last) <= timeout.0)
    }

    /// A packet passes.
    pub fn touch(&mut self, now: u64) {
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const SECOND: u64 = 1_000_000_000;

    fn link(spec: LinkSpec) -> Link {
        Link::new(spec, Random::new(1).stream("link"))
    }

    fn arrival(fate: Fate) -> u64 {
        match fate {
            Fate::Arrives { at, again: None } => at,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_packet_takes_its_length_by_the_rate_and_the_delay() {
        let mut link =
            link(LinkSpec { delay: Span::millis(20), rate: Some(Rate(10_000_000)), ..LinkSpec::default() });
        assert_eq!(arrival(link.send(0, 1250)), 21_000_000, "1 ms on the line, 20 ms under way");
        assert_eq!(arrival(link.send(0, 1250)), 22_000_000, "behind the first");
        assert_eq!(arrival(link.send(SECOND, 1250)), SECOND + 21_000_000, "the line was free again");
    }

    #[test]
    fn the_rate_is_what_goes_through() {
        let mut link = link(LinkSpec { rate: Some(Rate(50_000_000)), ..LinkSpec::default() });
        let last = (0..100_000).map(|_| arrival(link.send(0, 1200))).last();
        assert_eq!(last, Some(100_000 * 1200 * 8 * SECOND / 50_000_000));
    }

    #[test]
    fn a_full_queue_takes_nothing_until_it_has_drained() {
        let spec = LinkSpec { rate: Some(Rate(8_000)), queue: Some(Size(3000)), ..LinkSpec::default() };
        let mut link = link(spec);
        assert!((0..3).all(|_| matches!(link.send(0, 1000), Fate::Arrives { .. })));
        assert_eq!(link.backlog(0), 3000);
        assert_eq!(link.send(0, 1000), Fate::QueueFull);
        assert_eq!(link.send(SECOND - 1, 1000), Fate::QueueFull);
        assert!(matches!(link.send(SECOND, 1000), Fate::Arrives { .. }));
    }

    #[test]
    fn jitter_delays_and_does_not_reorder() {
        let spec = LinkSpec { delay: Span::millis(10), jitter: Span::millis(50), ..LinkSpec::default() };
        let mut link = link(spec);
        let mut last = 0;
        for packet in 0..1000 {
            let sent = packet * 1_000_000;
            let at = arrival(link.send(sent, 100));
            assert!(at >= last && (sent + 10_000_000..=sent + 60_000_000).contains(&at));
            last = at;
        }
    }

    #[test]
    fn packets_on_a_detour_are_overtaken_and_hold_up_nobody() {
        let reorder = Reorder { share: Share(100_000), by: Span::millis(5) };
        let mut link =
            link(LinkSpec { delay: Span::millis(10), reorder: Some(reorder), ..LinkSpec::default() });
        let mut late = 0;
        for packet in 0..10_000 {
            let sent = packet * 1_000_000;
            match arrival(link.send(sent, 100)) - sent {
                10_000_000 => {}
                15_000_000 => late += 1,
                other => panic!("{other} ns"),
            }
        }
        assert!((850..1_150).contains(&late), "one in ten, {late} of 10,000");
    }

    #[test]
    fn losses_are_as_many_as_they_should_be_and_come_together_if_they_should() {
        let runs = |spec: LinkSpec| {
            let mut link = link(spec);
            let lost: Vec<bool> = (0..200_000).map(|_| link.send(0, 100) == Fate::Lost).collect();
            let count = lost.iter().filter(|&&lost| lost).count();
            let starts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
            (count, count * 100 / starts)
        };
        let (alone, run) = runs(LinkSpec { loss: Share(10_000), ..LinkSpec::default() });
        assert!((1_850..2_150).contains(&alone) && run < 110, "1 % of all, {alone}, one by one, {run}");
        // Bad for 4 packets on the average, for 1 in 26 packets: 1 / (1 + 25) of all are lost.
        let burst = Burst { enter: Share(10_000), leave: Share(250_000), loss: Share(1_000_000) };
        let (together, run) = runs(LinkSpec { burst: Some(burst), ..LinkSpec::default() });
        assert!((7_000..8_400).contains(&together) && (370..430).contains(&run), "{together}, {run}");
    }

    #[test]
    fn too_large_is_too_large_and_twice_is_twice() {
        let mut link = link(LinkSpec { mtu: Some(1500), duplicate: Share(1_000_000), ..LinkSpec::default() });
        assert_eq!(link.send(0, 1501), Fate::TooLarge);
        assert_eq!(link.send(7, 1500), Fate::Arrives { at: 7, again: Some(7) });
    }

    #[test]
    fn a_nat_forgets_who_is_silent() {
        let mut nat = Nat::new(Some(Span::seconds(30)), 0);
        assert!(nat.remembers(30 * SECOND) && !nat.remembers(30 * SECOND + 1));
        nat.touch(29 * SECOND);
        assert!(nat.remembers(59 * SECOND));
        assert!(Nat::new(None, 0).remembers(u64::MAX));
    }
}
