//! What will happen, in the order in which it will.
//!
//! In: things, each with a time. Out: the next one. Things of the same time come out in the order in which they went in,
//! so that the order never depends on how a heap is laid out.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// What will happen.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    time: u64,
    number: u64,
    what: T,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), next: 0 }
    }

    /// `what` will happen at `time`.
    pub(crate) fn push(&mut self, time: u64, what: T) {
        self.heap.push(Reverse(Entry { time, number: self.next, what }));
        self.next += 1;
    }

    /// The next thing, and its time.
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|Reverse(entry)| (entry.time, entry.what))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time, self.number).cmp(&(other.time, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_of_equals_the_first() {
        let mut queue = Queue::new();
        for (time, what) in [(5, "late"), (1, "one"), (1, "two"), (1, "three"), (0, "early")] {
            queue.push(time, what);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(0, "early"), (1, "one"), (1, "two"), (1, "three"), (5, "late")]);
    }
}
