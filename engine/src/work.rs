//! What a peer may make this end do for nothing.
//!
//! In: frames that carry nothing and change nothing, or that undo what others did. Out: whether that was too much.
//! Keeps: one number. Spec: PROTOCOL §4.10.
//!
//! Memory is bounded by limits, and streams by the places that the application holds; this bounds the work. It is a
//! bucket that fills with time: what honest peers waste in a second is a small part of it.

use core::time::Duration;

use crate::error::Violation;
use crate::time::Instant;

/// How much may be wasted at once, and in each second: about a tenth of a processor's time.
const CAPACITY: u64 = 1 << 20;

/// A frame that says nothing new: a limit that was known, an empty STREAM frame, somebody who waits.
pub(crate) const IDLE_FRAME: u64 = 1;

/// How many bytes of payload make up for the work of their frame.
const PAYLOAD_PER_FRAME: u64 = 32;

/// An answer to be written.
pub(crate) const PING: u64 = 64;

/// A stream that is set up and taken down: by the peer's reset, or by one that it provokes (Rapid Reset,
/// CVE-2023-44487, and MadeYouReset, CVE-2025-8671). The place that it held is the application's anyway.
pub(crate) const RESET: u64 = 128;

/// How much of the bucket is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    used: u64,
    at: Instant,
}

impl Work {
    /// Takes `cost` out of the bucket.
    ///
    /// # Errors
    ///
    /// [`Violation::ExcessiveLoad`] if it is empty.
    pub(crate) fn charge(&mut self, now: Instant, cost: u64) -> Result<(), Violation> {
        if self.used == 0 {
            self.at = now;
        }
        self.used += cost;
        if self.used <= CAPACITY {
            return Ok(());
        }
        // Nearly all peers never get here, so nobody looks at the clock before.
        let elapsed = now.saturating_duration_since(self.at);
        let refilled = elapsed.min(Duration::from_secs(1)).as_nanos() * u128::from(CAPACITY) / 1_000_000_000;
        self.used -= u64::try_from(refilled).unwrap_or(u64::MAX).min(self.used);
        self.at = now;
        if self.used > CAPACITY { Err(Violation::ExcessiveLoad) } else { Ok(()) }
    }

    /// The cost of a STREAM frame with `payload` bytes that neither begins nor ends its stream.
    pub(crate) fn of_payload(payload: u64) -> u64 {
        if payload < PAYLOAD_PER_FRAME { IDLE_FRAME } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_as_much_in_each_second() {
        let at = |millis: u64| Instant::from_nanos(60_000_000_000 + millis * 1_000_000);
        let mut work = Work { used: 0, at: at(0) };
        assert_eq!(work.charge(at(0), CAPACITY), Ok(()));
        assert_eq!(work.charge(at(0), 1), Err(Violation::ExcessiveLoad));
        let mut work = Work { used: CAPACITY, at: at(0) };
        for millis in (100..20_000).step_by(100) {
            assert_eq!(work.charge(at(millis), CAPACITY / 10), Ok(()), "at {millis} ms");
        }
        assert_eq!(work.charge(at(20_000), CAPACITY / 4), Err(Violation::ExcessiveLoad));
    }
}
