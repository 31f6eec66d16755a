//! Whether somebody waits for what a stream says.
//!
//! In: how long each piece is that is written to it. Out: its urgency, when that changes. Keeps: one number.
//!
//! Nobody tells what a connection is: it may carry keystrokes or a backup. But who types says little at a time, and what is
//! bulk comes in large pieces, all the more if it has to wait. Without that, keys would wait for the room that bulk leaves in
//! a session's send buffer, and take turns with it.

use towline_engine::Urgency;

/// What says less at a time than this, in the mean, is what somebody waits for, in bytes.
const LITTLE: u32 = 2 << 10;

/// The part of the mean that the last piece is.
const WEIGHT: u32 = 8;

/// How much a stream says at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// The mean of what was said at a time, in bytes.
    mean: u32,
}

impl Pace {
    /// How urgent a stream is that has said nothing yet: its first words are a request.
    pub const FIRST: Urgency = Urgency::Interactive;

    /// Notes a piece of `len` bytes. Returns how urgent the stream is from this one on, if that has changed.
    pub fn handle_piece(&mut self, len: usize) -> Option<Urgency> {
        let before = self.urgency();
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.mean = self.mean - self.mean / WEIGHT + len / WEIGHT;
        Some(self.urgency()).filter(|urgency| *urgency != before)
    }

    fn urgency(self) -> Urgency {
        if self.mean < LITTLE { Self::FIRST } else { Urgency::Normal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_urgent_and_a_copy_is_not() {
        let mut keys = Pace::default();
        assert!((0..1000).all(|key| keys.handle_piece(1 + key % 300).is_none()));
        let mut copy = Pace::default();
        assert_eq!(copy.handle_piece(64 << 10), Some(Urgency::Normal));
        assert!((0..1000).all(|_| copy.handle_piece(16 << 10).is_none()));
    }

    /// Who has copied something and types then is urgent after a word.
    #[test]
    fn who_changes_is_seen_to_after_some_pieces() {
        let mut pace = Pace::default();
        assert_eq!(pace.handle_piece(64 << 10), Some(Urgency::Normal));
        assert!((0..100).all(|_| pace.handle_piece(16 << 10).is_none()));
        let urgent_after = (1..).find(|_| pace.handle_piece(1) == Some(Urgency::Interactive));
        assert!(urgent_after.is_some_and(|keys| (8..24).contains(&keys)), "{urgent_after:?}");
    }
}
