//! A queue of streams that costs a pointer while nobody has ever stood in it.
//!
//! Most sessions are idle most of the time, and most queues of a busy one are empty. A stream that is gone is not
//! searched for: it is passed over when its turn comes, so that the end of a session with n streams takes n steps.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use crate::id::StreamId;

/// The queue. Whoever lets streams stand in it sees to it that none does so twice.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "eight bytes instead of 32, in each of nine queues of each session"
)]
pub(crate) struct Line(Option<Box<VecDeque<StreamId>>>);

/// A queue that has more room than this gives it back when it runs empty.
const KEEP: usize = 16;

impl Line {
    pub(crate) fn push_back(&mut self, id: StreamId) {
        self.0.get_or_insert_default().push_back(id);
    }

    pub(crate) fn push_front(&mut self, id: StreamId) {
        self.0.get_or_insert_default().push_front(id);
    }

    pub(crate) fn pop_front(&mut self) -> Option<StreamId> {
        let queue = self.0.as_mut()?;
        let id = queue.pop_front();
        if queue.is_empty() && queue.capacity() > KEEP {
            self.0 = None;
        }
        id
    }

    pub(crate) fn front(&self) -> Option<StreamId> {
        self.0.as_ref()?.front().copied()
    }

    pub(crate) fn remove(&mut self, id: StreamId) {
        if let Some(queue) = &mut self.0 {
            queue.retain(|&queued| queued != id);
        }
    }

    /// Drops those at the front that are gone, so that who is at the front is there. Returns how many.
    pub(crate) fn pass_over(&mut self, is_gone: impl Fn(StreamId) -> bool) -> u32 {
        let mut count = 0;
        while self.front().is_some_and(&is_gone) {
            self.pop_front();
            count += 1;
        }
        count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = StreamId> {
        self.0.iter().flat_map(|queue| queue.iter().copied())
    }

    /// Gives back what an empty queue has kept for the next time.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }

    /// Feeds those who are not gone to `digest`.
    pub(crate) fn digest(&self, digest: &mut crate::fingerprint::Digest, is_gone: impl Fn(StreamId) -> bool) {
        let mut count = 0;
        for id in self.iter().filter(|&id| !is_gone(id)) {
            digest.number(id.to_wire());
            count += 1;
        }
        digest.number(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Dir, Side};
    use alloc::vec::Vec;

    #[test]
    fn who_is_gone_is_passed_over() {
        let ids: Vec<_> = (0..6).map(|n| StreamId::new(Side::Client, Dir::Bi, n).unwrap()).collect();
        let mut line = Line::default();
        ids.iter().for_each(|&id| line.push_back(id));
        let is_gone = |id: StreamId| id.index() != 2;
        assert_eq!(line.pass_over(is_gone), 2);
        assert_eq!(line.pop_front(), Some(ids[2]));
        assert_eq!(line.pass_over(is_gone), 3);
        assert!(line.is_empty());
    }

    #[test]
    fn first_come_first_served_and_nothing_kept() {
        let ids: Vec<_> = (0..40).map(|n| StreamId::new(Side::Client, Dir::Bi, n).unwrap()).collect();
        let mut line = Line::default();
        assert_eq!((line.front(), line.pop_front(), line.len()), (None, None, 0));
        for &id in &ids {
            line.push_back(id);
        }
        line.remove(ids[1]);
        assert_eq!((line.front(), line.len()), (Some(ids[0]), 39));
        assert!(line.iter().eq(ids.iter().copied().filter(|&id| id != ids[1])));
        while line.pop_front().is_some() {}
        assert!(line.0.is_none(), "a large one is given back at once");
        line.push_back(ids[0]);
        line.pop_front();
        assert!(line.0.is_some(), "a small one is kept");
        line.shrink();
        assert!(line.0.is_none());
    }
}
