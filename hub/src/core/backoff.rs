//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// The shortest wait.
pub const MIN_WAIT: Duration = Duration::from_millis(50);

/// The longest wait.
pub const MAX_WAIT: Duration = Duration::from_secs(10);

/// How long a connection must have lasted for the next wait to be short again. Otherwise a hub that lets
/// everybody in and throws them out would be called on twenty times a second.
pub const SETTLED: Duration = Duration::from_secs(5);

/// The longest wait that a hub can ask for, and of one of several holders of the same identity, but for jitter: whatever
/// number a hub says, its devices come back.
pub const MAX_HINTED_WAIT: Duration = Duration::from_secs(15 * 60);

/// Exponential back-off with full jitter: each wait is drawn from a range that doubles, so that devices which lost
/// their hub at the same moment do not come back at the same moment.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    /// How often in a row another holder of the identity took our place.
    takeovers: u32,
}

impl Backoff {
    /// The wait after a failure; `random` is any number, evenly distributed.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = MIN_WAIT.saturating_mul(1 << self.failures.min(16)).min(MAX_WAIT);
        self.failures += 1;
        between(MIN_WAIT, ceiling, random)
    }

    /// The wait after the hub said when to come back: at least that long, and up to a quarter more.
    pub fn next_with_hint(&mut self, hint: Duration, random: u64) -> Duration {
        let hint = hint.min(MAX_HINTED_WAIT);
        self.next(random).max(between(hint, hint + hint / 4, random))
    }

    /// The wait after another holder of the identity took our place: at least `hint`, and twice as long each time,
    /// so that the two do not take turns for ever.
    pub fn next_superseded(&mut self, hint: Duration, random: u64) -> Duration {
        let wait = hint.saturating_mul(1 << self.takeovers.min(10)).min(MAX_HINTED_WAIT);
        self.takeovers += 1;
        between(wait, wait + wait / 4, random)
    }

    /// The connection lasted for `duration` before it ended.
    pub fn connected_for(&mut self, duration: Duration) {
        if duration >= SETTLED {
            self.failures = 0;
        }
        if duration >= MAX_HINTED_WAIT {
            self.takeovers = 0;
        }
    }
}

/// A point between `least` and `most`, by `random`.
fn between(least: Duration, most: Duration, random: u64) -> Duration {
    // The upper 32 bits as a fraction of 2^32.
    let fraction = u128::from(random >> 32);
    let nanos = (most.saturating_sub(least).as_nanos() * fraction) >> 32;
    least + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = u64::MAX;

    #[test]
    fn waits_double_up_to_ten_seconds_and_never_fall_below_fifty_milliseconds() {
        let mut backoff = Backoff::default();
        let most: Vec<_> = (0..10).map(|_| backoff.next(MOST).as_millis()).collect();
        assert_eq!(most, [50, 99, 199, 399, 799, 1599, 3199, 6399, 9999, 9999]);
        for _ in 0..100 {
            assert_eq!(backoff.next(0), MIN_WAIT);
        }
    }

    #[test]
    fn a_connection_that_lasted_makes_the_next_wait_short() {
        let mut backoff = Backoff::default();
        (0..10).for_each(|_| _ = backoff.next(MOST));
        backoff.connected_for(Duration::from_secs(1));
        assert!(backoff.next(MOST) > Duration::from_secs(9));
        backoff.connected_for(SETTLED);
        assert_eq!(backoff.next(MOST), MIN_WAIT);
    }

    #[test]
    fn the_hubs_hint_is_honoured() {
        let mut backoff = Backoff::default();
        let hint = Duration::from_secs(30);
        for random in [0, MOST / 2, MOST] {
            let wait = backoff.next_with_hint(hint, random);
            assert!(wait >= hint && wait <= hint * 5 / 4);
        }
    }

    #[test]
    fn a_hub_cannot_send_anybody_away_for_ever() {
        for hint in [MAX_HINTED_WAIT * 2, Duration::from_millis(u64::MAX), Duration::MAX] {
            for random in [0, MOST] {
                let expected = MAX_HINTED_WAIT..=MAX_HINTED_WAIT * 5 / 4;
                assert!(expected.contains(&Backoff::default().next_with_hint(hint, random)));
                assert!(expected.contains(&Backoff::default().next_superseded(hint, random)));
            }
        }
    }

    #[test]
    fn two_holders_of_an_identity_do_not_flap() {
        let mut backoff = Backoff::default();
        let hint = Duration::from_secs(30);
        let waits: Vec<_> = (0..8).map(|_| backoff.next_superseded(hint, 0).as_secs()).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900, 900]);
    }
}
