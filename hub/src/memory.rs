//! What an endpoint remembers of the ways to its hub.
//!
//! In: how each way turned out, and in which network. Out: which way to try early the next time, and which late. Keeps: a
//! word for each of the last [`NETWORKS`] networks, until the program ends.

use std::net::IpAddr;

use crate::dial::Way;

/// How many networks are remembered: a machine that moves has a handful.
const NETWORKS: usize = 16;

/// Which network it was: this machine's own address on the way to the hub. `None` is wherever that is not known. Two
/// networks that give a machine the same address are one here, which costs a head start, and not the connection.
pub(crate) type Place = Option<IpAddr>;

/// How a way turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It worked, to the last word.
    Worked(Way),
    /// A link was up, and then nothing came back over it any more.
    WentDark(Way),
}

/// When a way is tried, among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    First,
    InOrder,
    Last,
}

/// What is known of each network.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The one that was in use last is at the end.
    networks: Vec<(Place, Verdict)>,
}

impl Memory {
    /// The last word on the ways in this network.
    pub(crate) fn note(&mut self, place: Place, verdict: Verdict) {
        self.forget(place);
        if self.networks.len() == NETWORKS {
            self.networks.remove(0);
        }
        self.networks.push((place, verdict));
    }

    /// What was so before may not be so any more.
    pub(crate) fn forget(&mut self, place: Place) {
        self.networks.retain(|(known, _)| *known != place);
    }

    /// When to try `way` in this network.
    pub(crate) fn turn(&self, place: Place, way: Way) -> Turn {
        match self.networks.iter().find(|(known, _)| *known == place) {
            Some((_, Verdict::Worked(worked))) if *worked == way => Turn::First,
            Some((_, Verdict::WentDark(dark))) if *dark == way => Turn::Last,
            Some(_) | None => Turn::InOrder,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::dial::Transport;

    const TLS: Way = Way { transport: Transport::Tls, proxied: false };
    const QUIC: Way = Way { transport: Transport::Quic, proxied: false };

    fn place(number: u8) -> Place {
        Some(Ipv4Addr::new(10, 0, 0, number).into())
    }

    #[test]
    fn each_network_has_its_own_way() {
        let mut memory = Memory::default();
        memory.note(place(1), Verdict::Worked(QUIC));
        memory.note(None, Verdict::Worked(TLS));
        assert_eq!([QUIC, TLS].map(|way| memory.turn(place(1), way)), [Turn::First, Turn::InOrder]);
        assert_eq!([QUIC, TLS].map(|way| memory.turn(None, way)), [Turn::InOrder, Turn::First]);
        assert_eq!([QUIC, TLS].map(|way| memory.turn(place(2), way)), [Turn::InOrder; 2]);
        memory.forget(place(1));
        assert_eq!(memory.turn(place(1), QUIC), Turn::InOrder);
        assert_eq!(memory.turn(None, TLS), Turn::First);
    }

    #[test]
    fn a_way_that_went_dark_comes_last_until_one_has_worked() {
        let mut memory = Memory::default();
        memory.note(place(1), Verdict::Worked(QUIC));
        memory.note(place(1), Verdict::WentDark(QUIC));
        assert_eq!([QUIC, TLS].map(|way| memory.turn(place(1), way)), [Turn::Last, Turn::InOrder]);
        memory.note(place(1), Verdict::Worked(TLS));
        assert_eq!([QUIC, TLS].map(|way| memory.turn(place(1), way)), [Turn::InOrder, Turn::First]);
    }

    #[test]
    fn the_network_that_was_left_longest_ago_is_forgotten() {
        let mut memory = Memory::default();
        (1..=16).for_each(|number| memory.note(place(number), Verdict::Worked(QUIC)));
        memory.note(place(1), Verdict::Worked(QUIC));
        memory.note(place(17), Verdict::Worked(QUIC));
        assert_eq!(memory.networks.len(), NETWORKS);
        assert_eq!(
            [1, 2, 17].map(|number| memory.turn(place(number), QUIC)),
            [Turn::First, Turn::InOrder, Turn::First]
        );
    }
}
