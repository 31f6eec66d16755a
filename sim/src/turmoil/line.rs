//! An endpoint's line to the rest of the world: a link each way, and what is wrong with it.
//!
//! In: pieces and packets, and faults. Out: when they arrive, if they do. TCP repeats what is lost: a connection over a
//! line that is cut stands still, and goes on when it is repaired. What is lost of UDP is lost.

use crate::link::{Fate, Link, LinkSpec};
use crate::random::Random;
use crate::scenario::Span;

/// A direction, as the endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the world.
    Up,
    /// From the world.
    Down,
}

/// Both ways.
pub const BOTH: [Way; 2] = [Way::Up, Way::Down];

/// Whether somebody is at the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The program runs.
    Here,
    /// The machine runs, and says that nobody listens there.
    Dead,
    /// Nobody says anything.
    Gone,
}

/// An endpoint's line. Faults overlap, so it counts how many say that something is wrong: all is well after the last.
#[derive(Clone, Debug)]
pub struct Line {
    links: [Link; 2],
    cuts: [u32; 2],
    mutes: [u32; 2],
    holds: [u32; 2],
    udp_blocks: u32,
    tls_blocks: u32,
    presence: Presence,
    /// How often the endpoint has got another address.
    moves: u64,
}

/// How much waits at a line with a rate and no limit to its queue, in bytes, before TCP writes no more.
const QUEUE: u64 = 64 << 10;

impl Line {
    /// A line on which all is well, of the endpoint called `who`.
    pub fn new(specs: [LinkSpec; 2], random: Random, who: &str) -> Self {
        let [up, down] = specs;
        let link = |spec, way| Link::new(spec, random.stream(&format!("line/{who}/{way}")));
        Self {
            links: [link(up, "up"), link(down, "down")],
            cuts: [0; 2],
            mutes: [0; 2],
            holds: [0; 2],
            presence: Presence::Here,
            udp_blocks: 0,
            tls_blocks: 0,
            moves: 0,
        }
    }

    /// Nothing gets through this way any more, or one fault less says so. Packets are lost.
    pub fn set_cut(&mut self, way: Way, cut: bool) {
        count(&mut self.cuts[way as usize], cut);
    }

    /// Nothing gets through this way, and nobody at either end is told. Packets are lost.
    pub fn set_mute(&mut self, way: Way, mute: bool) {
        count(&mut self.mutes[way as usize], mute);
    }

    /// Nothing gets through this way, and nothing is lost: it comes when the line is let go.
    pub fn set_held(&mut self, way: Way, held: bool) {
        count(&mut self.holds[way as usize], held);
    }

    /// Whether somebody is there.
    pub fn set_presence(&mut self, presence: Presence) {
        self.presence = presence;
    }

    /// Whether somebody is there.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// No packet of UDP gets through, and TCP does.
    pub fn set_udp_blocked(&mut self, blocked: bool) {
        count(&mut self.udp_blocks, blocked);
    }

    /// No TLS gets through but a web browser's.
    pub fn set_tls_blocked(&mut self, blocked: bool) {
        count(&mut self.tls_blocks, blocked);
    }

    pub(super) fn is_tls_blocked(&self) -> bool {
        self.tls_blocks > 0
    }

    /// The endpoint has another address.
    pub fn move_on(&mut self) {
        self.moves += 1;
    }

    /// How often the endpoint has got another address.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// From now on the link is like this, this way.
    pub fn set_spec(&mut self, way: Way, spec: LinkSpec) {
        self.links[way as usize].set_spec(spec);
    }

    /// After how long a NAT on the line forgets whose a port is.
    pub(super) fn nat_timeout(&self) -> Option<Span> {
        self.links[Way::Up as usize].spec().nat_timeout
    }

    pub(super) fn is_stopped(&self, way: Way) -> bool {
        self.is_held(way) || self.is_cut(way) || self.is_mute(way)
    }

    pub(super) fn is_held(&self, way: Way) -> bool {
        self.holds[way as usize] > 0
    }

    pub(super) fn is_cut(&self, way: Way) -> bool {
        self.cuts[way as usize] > 0
    }

    fn is_mute(&self, way: Way) -> bool {
        self.mutes[way as usize] > 0
    }

    /// Whether what is under way as UDP is lost.
    pub(super) fn loses_datagrams(&self, way: Way) -> bool {
        self.udp_blocks > 0 || self.is_cut(way) || self.is_mute(way) || self.presence != Presence::Here
    }

    /// When a piece of a connection arrives.
    pub(super) fn carry_segment(&mut self, way: Way, now: u64, length: usize) -> u64 {
        self.links[way as usize].carry(now, length)
    }

    /// When a packet arrives.
    pub(super) fn carry_datagram(&mut self, way: Way, now: u64, length: usize) -> Fate {
        self.links[way as usize].send(now, length)
    }

    /// From when on a connection may write: not while the queue is full.
    pub(super) fn sendable_at(&self, way: Way) -> u64 {
        let link = &self.links[way as usize];
        let Some(rate) = link.spec().rate else { return 0 };
        let queue = link.spec().queue.map_or(QUEUE, |queue| queue.0);
        let drains_in = u128::from(queue) * 8_000_000_000 / u128::from(rate.0.max(1));
        link.free_at().saturating_sub(u64::try_from(drains_in).unwrap_or(u64::MAX))
    }
}

/// One fault more says so, or one less.
fn count(faults: &mut u32, begins: bool) {
    *faults = if begins { *faults + 1 } else { faults.saturating_sub(1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_faults_stop_goes_on_after_the_last() {
        type Fault = (fn(&mut Line, bool), fn(&Line) -> bool);
        let faults: [Fault; 5] = [
            (|line, begins| line.set_cut(Way::Up, begins), |line| line.is_cut(Way::Up)),
            (|line, begins| line.set_mute(Way::Up, begins), |line| line.loses_datagrams(Way::Up)),
            (|line, begins| line.set_held(Way::Down, begins), |line| line.is_held(Way::Down)),
            (Line::set_udp_blocked, |line| line.loses_datagrams(Way::Up)),
            (Line::set_tls_blocked, Line::is_tls_blocked),
        ];
        let mut line = Line::new([(); 2].map(|()| LinkSpec::default()), Random::new(1), "device");
        for (index, (change, is_wrong)) in faults.into_iter().enumerate() {
            let mut said = Vec::new();
            for begins in [true, true, false, false] {
                change(&mut line, begins);
                said.push(is_wrong(&line));
            }
            assert_eq!(said, [true, true, true, false], "{index}");
        }
    }
}
