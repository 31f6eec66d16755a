//! How fast the pipe takes what it is given, and so how long a record may be.
//!
//! In: when records were handed to the pipe, and how long they were. Out: the length that takes 20 ms. Keeps: one
//! sum and one rate. Spec: PROTOCOL §3.4.

use core::time::Duration;

use crate::time::Instant;

/// For how long a record of bulk may hold up what is urgent: a fifth of what people notice.
const RECORD_TIME: Duration = Duration::from_millis(20);

/// No record is made shorter than this: below, headers and system calls cost more than the wait.
const MIN_RECORD: usize = 1024;

/// How long the pipe is watched for a sample. Shorter, and the system's buffers, which take much at once and then
/// nothing, would be measured instead.
const SAMPLE: Duration = Duration::from_millis(100);

/// What was measured before so long a silence says nothing any more, and would keep records short for ever where there
/// is never so much to send that the pipe is measured again.
const FORGET: Duration = Duration::from_secs(5);

/// The estimate for one pipe.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// Since when there has been something to send at all times; or when something was sent last.
    since: Instant,
    /// How many bytes went since; 0 if there was a time with nothing to send.
    taken: u64,
    /// 0 while nothing is known.
    bytes_per_second: u64,
}

impl Rate {
    /// The pipe has taken what it was given before, and is given `length` bytes, with more to come if `has_more`.
    pub(crate) fn handle_transmit(&mut self, now: Instant, length: u64, has_more: bool) {
        if self.taken == 0 {
            if now.saturating_duration_since(self.since) >= FORGET {
                self.bytes_per_second = 0;
            }
            self.since = now;
        }
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= SAMPLE {
            let sample = u128::from(self.taken) * 1_000_000_000 / elapsed.as_nanos();
            let sample = u64::try_from(sample).unwrap_or(u64::MAX).max(1);
            // The last samples count most: a path that has become slow must be noticed soon.
            let old = if self.bytes_per_second == 0 { sample } else { self.bytes_per_second };
            self.bytes_per_second = sample.min(old / 2 + sample / 2).max(1);
            (self.since, self.taken) = (now, 0);
        }
        if has_more {
            self.taken += length;
        } else {
            (self.since, self.taken) = (now, 0);
        }
    }

    /// How many bytes a record may have. All that anybody wants, until the pipe is known to be slow.
    pub(crate) fn record_limit(&self) -> usize {
        if self.bytes_per_second == 0 {
            return usize::MAX;
        }
        let bytes = u128::from(self.bytes_per_second) * RECORD_TIME.as_nanos() / 1_000_000_000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(MIN_RECORD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands 200 records to a pipe that takes `rate` bytes a second, and returns the length of the last.
    fn last_record(rate: u64, burst: u64) -> u64 {
        let mut estimate = Rate::default();
        let (mut now, mut buffered) = (Instant::default(), 0);
        let mut length = 0;
        for _ in 0..200 {
            length = 16384.min(estimate.record_limit() as u64);
            estimate.handle_transmit(now, length, true);
            // The pipe has room for `burst` bytes, and then for as much as has left.
            buffered += length;
            let over = buffered.saturating_sub(burst);
            now = now + Duration::from_nanos(over * 1_000_000_000 / rate);
            buffered -= over;
        }
        length
    }

    #[test]
    fn a_record_takes_at_most_20_ms() {
        for (rate, expected) in [(100_000, 2000), (400_000, 8000), (10_000, 1024), (100_000_000, 16384)] {
            for burst in [0, 50_000] {
                let length = last_record(rate, burst);
                assert!(length.abs_diff(expected) <= expected / 10, "{rate} B/s, burst {burst}: {length}");
            }
        }
    }

    #[test]
    fn a_path_that_has_become_slow_is_noticed_with_the_first_sample() {
        let mut estimate = Rate { bytes_per_second: 100_000_000, ..Rate::default() };
        for seconds in [10, 12] {
            estimate.handle_transmit(Instant::from_nanos(seconds * 1_000_000_000), 20_000, true);
        }
        assert_eq!(estimate.record_limit(), MIN_RECORD, "10 kB/s");
    }

    #[test]
    fn a_silence_forgets() {
        let mut estimate = Rate::default();
        for millis in [10_000, 10_200, 10_400] {
            estimate.handle_transmit(Instant::from_nanos(millis * 1_000_000), 1000, millis < 10_400);
        }
        assert_eq!(estimate.record_limit(), MIN_RECORD, "5 kB/s");
        estimate.handle_transmit(Instant::from_nanos(15_399_000_000), 10, false);
        assert_eq!(estimate.record_limit(), MIN_RECORD);
        estimate.handle_transmit(Instant::from_nanos(20_399_000_000), 10, false);
        assert_eq!(estimate.record_limit(), usize::MAX);
    }

    #[test]
    fn who_has_nothing_to_say_is_not_slow() {
        let mut estimate = Rate::default();
        for second in 0..100 {
            let now = Instant::from_nanos(second * 1_000_000_000);
            estimate.handle_transmit(now, 10, false);
        }
        assert_eq!(estimate.record_limit(), usize::MAX);
    }
}
