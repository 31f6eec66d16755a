//! Cuts reads and writes short, and has some of them repeated.

use std::task::{Context, Poll};

use crate::random::Stream;

/// Draws how much of a read or write is done. The order of its draws is that of the calls, so it is the same each time.
#[derive(Debug)]
pub(super) struct Chaos {
    random: Stream,
    /// The last answer was "not now".
    paused: bool,
}

impl Chaos {
    pub(super) fn new(random: Stream) -> Self {
        Self { random, paused: false }
    }

    /// How many of `count` bytes it will be: now and then none yet, a single one, or a part.
    pub(super) fn cut(&mut self, count: usize, context: &mut Context<'_>) -> Poll<usize> {
        match self.random.below(16) {
            0 if !self.paused => {
                self.paused = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            1 => return Poll::Ready(1),
            2..6 => {
                let part = self.random.below(count as u64);
                return Poll::Ready(usize::try_from(part).map_or(count, |part| part + 1));
            }
            _ => {}
        }
        self.paused = false;
        Poll::Ready(count)
    }
}
