//! Connections that have not shown who they are.
//!
//! They cost a bounded number of descriptors: when one more comes than there is room for, the oldest goes. An
//! honest peer is through the handshake long before it is the oldest of a thousand.

use std::collections::BTreeSet;

/// A connection's number, in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Visitor(u64);

/// Who waits.
#[derive(Clone, Debug)]
pub struct Lobby {
    room: usize,
    next: u64,
    waiting: BTreeSet<Visitor>,
}

impl Lobby {
    /// An empty lobby with room for `room` connections, at least one.
    pub fn new(room: usize) -> Self {
        Self { room: room.max(1), next: 0, waiting: BTreeSet::new() }
    }

    /// A connection arrives. Returns its number, and that of the one that has to go for it.
    pub fn arrive(&mut self) -> (Visitor, Option<Visitor>) {
        let goes = if self.waiting.len() >= self.room { self.evict() } else { None };
        let visitor = Visitor(self.next);
        self.next += 1;
        self.waiting.insert(visitor);
        (visitor, goes)
    }

    /// Lets the oldest go, to make room for something more important.
    pub fn evict(&mut self) -> Option<Visitor> {
        self.waiting.pop_first()
    }

    /// The connection has shown who it is, or is gone. Without effect on one that had to go before.
    pub fn leave(&mut self, visitor: Visitor) {
        self.waiting.remove(&visitor);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_who_left_does_not() {
        let mut lobby = Lobby::new(3);
        let first: Vec<_> = (0..3).map(|_| lobby.arrive()).collect();
        assert!(first.iter().all(|(_, goes)| goes.is_none()));
        let (visitors, _): (Vec<_>, Vec<_>) = first.into_iter().unzip();
        lobby.leave(visitors[0]);
        assert_eq!(lobby.arrive().1, None, "there was room");
        assert_eq!(lobby.arrive().1, Some(visitors[1]));
        assert_eq!(lobby.arrive().1, Some(visitors[2]));
        assert_eq!(lobby.len(), 3);
    }

    #[test]
    fn ten_thousand_visitors_never_fill_more_than_the_room() {
        let mut lobby = Lobby::new(100);
        let gone = (0..10_000).filter_map(|_| lobby.arrive().1).count();
        assert_eq!((gone, lobby.len()), (9_900, 100));
    }
}
