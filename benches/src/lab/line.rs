//! One direction of the line: which packet is due, and how late it was given on.
//!
//! In: packets, and the time. Out: packets that are due. Keeps: those that are on their way, and how late the others were.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hdrhistogram::Histogram;
use towline_sim::link::{Fate, Link};

/// An IP packet.
pub(super) type Packet = Box<[u8]>;

/// One direction of a line. Times are in nanoseconds.
pub(super) struct Line {
    link: Link,
    blocks_udp: bool,
    /// By when they are due, and then by when they came.
    waiting: BinaryHeap<Reverse<(u64, u64, Packet)>>,
    came: u64,
    lateness: Histogram<u64>,
    counts: Counts,
}

/// What has become of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Given on, those included that were given on twice.
    pub carried: u64,
    /// Lost on the way.
    pub lost: u64,
    /// For which the queue had no room.
    pub overflowed: u64,
    /// Larger than the line takes, or UDP where none passes.
    pub refused: u64,
    /// Due, and then for the kernel at the other end to have no room for.
    pub dropped: u64,
}

impl Counts {
    /// Those of two lines together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            carried: self.carried + other.carried,
            lost: self.lost + other.lost,
            overflowed: self.overflowed + other.overflowed,
            refused: self.refused + other.refused,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// The longest delay that is told apart, in nanoseconds.
pub(super) const LONGEST: u64 = 10_000_000_000;

impl Line {
    pub(super) fn new(link: Link, blocks_udp: bool) -> Self {
        let lateness = Histogram::new_with_max(LONGEST, 3).expect("the bounds are valid");
        let (waiting, counts) = (BinaryHeap::new(), Counts::default());
        Self { link, blocks_udp, waiting, came: 0, lateness, counts }
    }

    /// A packet comes.
    pub(super) fn push(&mut self, now: u64, packet: &[u8]) {
        if self.blocks_udp && is_udp(packet) {
            self.counts.refused += 1;
            return;
        }
        match self.link.send(now, packet.len()) {
            Fate::Arrives { at, again } => {
                for due in std::iter::once(at).chain(again) {
                    self.came += 1;
                    self.waiting.push(Reverse((due, self.came, packet.into())));
                }
            }
            Fate::TooLarge => self.counts.refused += 1,
            Fate::QueueFull => self.counts.overflowed += 1,
            Fate::Lost => self.counts.lost += 1,
        }
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((due, ..))| *due)
    }

    /// Takes the next one, if it is due.
    pub(super) fn pop(&mut self, now: u64) -> Option<Packet> {
        let due = self.due().filter(|due| *due <= now)?;
        self.lateness.saturating_record(now - due);
        self.counts.carried += 1;
        self.waiting.pop().map(|Reverse((.., packet))| packet)
    }

    /// The packet that was taken last was not taken from us.
    pub(super) fn drop_last(&mut self) {
        self.counts.carried -= 1;
        self.counts.dropped += 1;
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn lateness(&self) -> &Histogram<u64> {
        &self.lateness
    }
}

/// Whether this is UDP. A fragment that is not the first says so as well.
fn is_udp(packet: &[u8]) -> bool {
    const UDP: u8 = 17;
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9) == Some(&UDP),
        Some(6) => packet.get(6) == Some(&UDP),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use towline_sim::link::{Burst, LinkSpec};
    use towline_sim::random::Random;
    use towline_sim::scenario::{Rate, Share, Size, Span};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn line(spec: LinkSpec) -> Line {
        Line::new(Link::new(spec, Random::new(1).stream("line")), false)
    }

    /// An IP packet of so many bytes.
    fn packet(protocol: u8, length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        (packet[0], packet[9]) = (0x45, protocol);
        packet
    }

    /// Takes all packets at the moment when they are due, and returns these moments.
    fn arrivals(line: &mut Line) -> Vec<u64> {
        std::iter::from_fn(|| {
            let due = line.due()?;
            assert!(due == 0 || line.pop(due - 1).is_none(), "not before");
            line.pop(due).map(|_| due)
        })
        .collect()
    }

    #[test]
    fn a_full_line_gives_on_what_its_rate_is() {
        let mut line = line(LinkSpec {
            rate: Some(Rate(10_000_000)),
            delay: Span::millis(20),
            queue: Some(Size(125 << 10)),
            ..LinkSpec::default()
        });
        // Twice as much as it takes, for two seconds.
        for index in 0..3334 {
            line.push(index * SECOND / 1667, &packet(6, 1500));
        }
        let arrivals = arrivals(&mut line);
        let took = arrivals[arrivals.len() - 1] - arrivals[0];
        let rate = (arrivals.len() as u64 - 1) * 1500 * 8 * SECOND / took;
        assert!(rate.abs_diff(10_000_000) < 1000, "{rate}");
        assert_eq!(arrivals[0], 21_200_000);
        let Counts { carried, lost, overflowed, refused, .. } = line.counts();
        assert_eq!((carried + overflowed, lost, refused), (3334, 0, 0));
        assert!(overflowed > 1500);
    }

    #[test]
    fn losses_are_as_many_as_they_should_be() {
        let burst = Burst { enter: Share(2_000), leave: Share(125_000), loss: Share(500_000) };
        for (spec, expected) in [
            (LinkSpec { loss: Share(10_000), ..LinkSpec::default() }, 0.01),
            (LinkSpec { burst: Some(burst), ..LinkSpec::default() }, 0.5 * 2.0 / 127.0),
        ] {
            let mut line = line(spec);
            let all = 1_000_000;
            for index in 0..all {
                line.push(index, &packet(17, 100));
            }
            let share = line.counts().lost as f64 / all as f64;
            assert!((share / expected - 1.0).abs() < 0.05, "{share} of {expected}");
        }
    }

    #[test]
    fn packets_that_are_due_together_keep_their_order() {
        let mut line = line(LinkSpec { delay: Span::millis(1), ..LinkSpec::default() });
        for length in [100, 300, 200] {
            line.push(7, &packet(6, length));
        }
        let lengths: Vec<_> = std::iter::from_fn(|| line.pop(SECOND)).map(|packet| packet.len()).collect();
        assert_eq!(lengths, [100, 300, 200]);
        assert!(line.lateness().min() > SECOND - 2_000_000, "and it is known that they were late");
    }

    #[test]
    fn where_no_udp_passes_everything_else_does() {
        let mut line = Line::new(Link::new(LinkSpec::default(), Random::new(1).stream("line")), true);
        let mut v6 = vec![0; 60];
        (v6[0], v6[6]) = (0x60, 17);
        for packet in [packet(17, 100), packet(6, 100), packet(1, 100), v6, vec![]] {
            line.push(0, &packet);
        }
        assert_eq!((line.counts().refused, arrivals(&mut line).len()), (2, 3));
    }
}
