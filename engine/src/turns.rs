//! Whose data goes next: deficit round robin within a class, the more urgent class first, and none starves.
//!
//! In: streams that have something to send, and how much of it went. Out: the stream whose turn it is. Keeps: a
//! place in a queue for each such stream, and three pairs of counts. Spec: PROTOCOL §4.7.
//!
//! Streams are bytes and can be cut anywhere, so a turn that is over leaves no deficit; only the stream at the front
//! of its class may have a turn that a record's end has cut.

use crate::id::StreamId;
use crate::line::Line;

/// A stream's urgency: whose data goes first.
///
/// Streams of one class take turns, 16 KiB each. A class waits while a more urgent one has something to
/// send, so the last word of an [`Interactive`](Self::Interactive) stream waits for at most one record of bulk; but
/// every class that waits gets a sixteenth of what goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A human waits for it: keystrokes, requests, whatever is short.
    Interactive,
    /// What nobody said anything about.
    #[default]
    Normal,
    /// Whenever there is room: backups, updates.
    Bulk,
}

impl Urgency {
    pub(crate) const COUNT: usize = 3;

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        }
    }
}

/// After so many turns of other classes, a class that waits has one. Turns may end an eighth early, so this gives it a
/// sixteenth even if a third class has waited as long.
const PATIENCE: u64 = 11;

/// The queues.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    classes: [Class; Urgency::COUNT],
}

#[derive(Clone, Debug, Default)]
struct Class {
    queue: Line,
    /// How much the stream at the front has sent in its turn.
    spent: u64,
    /// How much went out of other classes while this one waited.
    waited: u64,
}

/// A turn: whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) id: StreamId,
    /// How many bytes of it are left.
    pub(crate) left: u64,
    /// When less than this is left, it is over: to go on in the next record would cut the turns of all who follow in two.
    pub(crate) scrap: u64,
    class: usize,
}

impl Turns {
    /// The stream has something to send; its turn comes after those of all others of its class.
    pub(crate) fn push(&mut self, urgency: Urgency, id: StreamId) {
        self.classes[urgency.index()].queue.push_back(id);
    }

    /// The stream's turn is not to come, for now.
    pub(crate) fn remove(&mut self, urgency: Urgency, id: StreamId) {
        let class = &mut self.classes[urgency.index()];
        if class.queue.front() == Some(id) {
            class.spent = 0;
        }
        class.queue.remove(id);
    }

    /// Drops those at the front that are gone, so that who is at the front is there. Returns how many.
    pub(crate) fn pass_over(&mut self, is_gone: impl Fn(StreamId) -> bool + Copy) -> u32 {
        let mut count = 0;
        for class in &mut self.classes {
            if class.queue.front().is_some_and(is_gone) {
                class.spent = 0;
                count += class.queue.pass_over(is_gone);
            }
        }
        count
    }

    /// Whose turn it is, if a turn is `quantum` bytes.
    pub(crate) fn next(&self, quantum: u64) -> Option<Turn> {
        let index = self.class(quantum)?;
        let class = &self.classes[index];
        let left = quantum.saturating_sub(class.spent).max(1);
        Some(Turn { id: class.queue.front()?, left, scrap: quantum / 8, class: index })
    }

    /// The stream whose turn [it is](Self::next) has sent `count` bytes of `quantum`, and `has_more`. Returns whether
    /// its turn is over: then it is in no queue.
    pub(crate) fn spend(&mut self, turn: Turn, quantum: u64, count: u64, has_more: bool) -> bool {
        let index = turn.class;
        let others = self.classes.iter_mut().enumerate().filter(|(other, _)| *other != index);
        for (_, class) in others {
            class.waited = if class.queue.is_empty() { 0 } else { class.waited.saturating_add(count) };
        }
        let class = &mut self.classes[index];
        class.spent += count;
        let is_over = !has_more || class.spent + turn.scrap > quantum;
        if is_over {
            class.queue.pop_front();
            (class.spent, class.waited) = (0, 0);
        }
        is_over
    }

    /// The class whose turn it is: one that has waited long enough, else the most urgent.
    fn class(&self, quantum: u64) -> Option<usize> {
        let is_impatient = |class: &Class| class.waited >= PATIENCE * quantum;
        let mut waiting = self.classes.iter().enumerate().filter(|(_, class)| !class.queue.is_empty());
        let first = waiting.next()?;
        let starved = waiting.filter(|(_, class)| is_impatient(class)).max_by_key(|(_, class)| class.waited);
        Some(starved.unwrap_or(first).0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.queue.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(|class| class.queue.len()).sum()
    }

    /// Whose turn it is in each class.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = StreamId> {
        self.classes.iter().filter_map(|class| class.queue.front())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = StreamId> {
        self.classes.iter().flat_map(|class| class.queue.iter())
    }

    /// Gives back what empty queues have kept for the next time.
    pub(crate) fn shrink(&mut self) {
        self.classes.iter_mut().for_each(|class| class.queue.shrink());
    }

    pub(crate) fn digest(
        &self,
        digest: &mut crate::fingerprint::Digest,
        is_gone: impl Fn(StreamId) -> bool + Copy,
    ) {
        for class in &self.classes {
            digest.numbers(&[class.spent, class.waited]);
            class.queue.digest(digest, is_gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Dir, Side};

    fn stream(index: u64) -> StreamId {
        StreamId::new(Side::Client, Dir::Uni, index).unwrap()
    }

    const QUANTUM: u64 = 10_000;

    /// How much each of the streams sends in `bytes` bytes of records of `record` bytes, all backlogged.
    fn shares(turns: &mut Turns, urgencies: &[Urgency], bytes: u64, record: u64) -> alloc::vec::Vec<u64> {
        let mut sent = alloc::vec![0; urgencies.len()];
        let (mut total, mut space) = (0, record);
        while total < bytes {
            let turn = turns.next(QUANTUM).unwrap();
            let (n, count) = (usize::try_from(turn.id.index()).unwrap(), turn.left.min(space));
            sent[n] += count;
            total += count;
            space = if space == count { record } else { space - count };
            if turns.spend(turn, QUANTUM, count, true) {
                turns.push(urgencies[n], turn.id);
            }
        }
        sent
    }

    #[test]
    fn fair_bound() {
        for record in [300, 9990, 10_000, 50_000] {
            let mut turns = Turns::default();
            (0..7).for_each(|n| turns.push(Urgency::Normal, stream(n)));
            for _ in 0..50 {
                let sent = shares(&mut turns, &[Urgency::Normal; 7], 7 * QUANTUM, record);
                let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
                assert!(most - least <= 2 * QUANTUM, "records of {record}: {sent:?}");
            }
        }
    }

    #[test]
    fn class_floor() {
        let urgencies = [Urgency::Interactive, Urgency::Normal, Urgency::Bulk, Urgency::Bulk];
        let mut turns = Turns::default();
        (0..4).zip(urgencies).for_each(|(n, urgency)| turns.push(urgency, stream(n)));
        let sent = shares(&mut turns, &urgencies, 10_000_000, 9_900);
        let total: u64 = sent.iter().sum();
        assert!(sent[1] * 16 >= total, "{sent:?}");
        assert!((sent[2] + sent[3]) * 16 >= total, "{sent:?}");
        assert!(sent[2].abs_diff(sent[3]) <= QUANTUM, "{sent:?}");
        assert!(sent[0] * 8 >= total * 6, "the most urgent still has most of it: {sent:?}");
    }

    #[test]
    fn a_stream_that_leaves_does_not_shorten_the_turn_of_the_next() {
        let mut turns = Turns::default();
        (0..2).for_each(|n| turns.push(Urgency::Normal, stream(n)));
        assert!(!turns.spend(turns.next(QUANTUM).unwrap(), QUANTUM, 500, true));
        turns.remove(Urgency::Normal, stream(0));
        let turn = turns.next(QUANTUM).unwrap();
        assert_eq!((turn.id, turn.left), (stream(1), QUANTUM));
        assert!(turns.spend(turn, QUANTUM, 10, false));
        assert!(turns.is_empty());
    }
}
