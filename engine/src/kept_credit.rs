//! Credit of the session that others leave to interactive streams.
//!
//! In: that an interactive stream has found none, that more has come, that one has taken some, the clock. Out: how many bytes
//! are kept, and until when. Keeps: that. Spec: PROTOCOL §4.7.
//!
//! Whoever waits for the session's credit is told when more has come. Bulk takes all that there is, and if its task comes first
//! each time, who types waits for ever. A part that is kept at all times would be no good, nor one without an end: a peer may
//! give more only to who has used what there was.

use alloc::boxed::Box;

use crate::offers::PATIENCE;
use crate::room::INTERACTIVE_PART;
use crate::time::Instant;

/// The most that is kept: about a record.
const MOST: u16 = 16 << 10;

/// What is kept. In a box, since few sessions ever have any.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptCredit(Option<Box<Kept>>);

#[derive(Clone, Copy, Debug)]
enum Kept {
    /// Nothing yet, but an interactive stream has found no credit.
    Wanted,
    /// So many bytes, since then.
    Since(u16, Instant),
}

impl KeptCredit {
    /// An interactive stream has found no credit.
    pub(crate) fn want(&mut self) {
        if self.bytes() == 0 {
            self.0 = Some(Box::new(Kept::Wanted));
        }
    }

    /// More has come, and `available` is what there is now.
    pub(crate) fn handle_credit(&mut self, now: Instant, available: u64) {
        let part = u16::try_from(available / INTERACTIVE_PART).unwrap_or(MOST).min(MOST);
        if let Some(kept) = &mut self.0 {
            **kept = match **kept {
                Kept::Wanted => Kept::Since(part, now),
                // Whoever it is for has yet to come, and has no more time for that.
                Kept::Since(kept, since) => Kept::Since(kept.max(part), since),
            };
        }
    }

    /// When it is to be let go of.
    pub(crate) fn lapses_at(&self) -> Option<Instant> {
        if let Kept::Since(_, since) = **self.0.as_ref()? { Some(since + PATIENCE) } else { None }
    }

    /// Somebody has taken of it, or it was kept for long enough. Returns how many bytes are for all again.
    pub(crate) fn let_go(&mut self) -> u64 {
        core::mem::take(self).bytes()
    }

    /// How many bytes are kept.
    pub(crate) fn bytes(&self) -> u64 {
        match self.0.as_deref() {
            None | Some(Kept::Wanted) => 0,
            Some(Kept::Since(bytes, _)) => u64::from(*bytes),
        }
    }

    /// Whether an interactive stream has found none, and none has come since.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    #[test]
    fn a_part_is_kept_for_who_has_found_none() {
        let mut kept = KeptCredit::default();
        kept.handle_credit(NOW, 1 << 20);
        assert_eq!(kept.bytes(), 0, "nobody needs it");
        for (available, part) in [(7, 0), (800, 100), (128 << 10, 16 << 10), (u64::MAX, 16 << 10)] {
            kept.want();
            kept.handle_credit(NOW, available);
            assert_eq!((kept.bytes(), kept.let_go()), (part, part));
            kept.handle_credit(NOW, available);
            assert_eq!(kept.bytes(), 0, "that was once");
        }
    }

    #[test]
    fn who_found_credit_elsewhere_needs_none() {
        let mut kept = KeptCredit::default();
        kept.want();
        assert_eq!(kept.let_go(), 0);
        kept.handle_credit(NOW, 800);
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn more_that_comes_makes_it_no_longer() {
        let mut kept = KeptCredit::default();
        kept.want();
        assert_eq!(kept.lapses_at(), None);
        kept.handle_credit(NOW, 80);
        kept.handle_credit(NOW + PATIENCE / 2, 800);
        kept.handle_credit(NOW + PATIENCE, 80);
        kept.want();
        assert_eq!((kept.bytes(), kept.lapses_at()), (100, Some(NOW + PATIENCE)));
    }
}
