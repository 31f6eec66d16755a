//! Time as the engine sees it: a number that its owner passes in.

use core::ops::Add;
use core::time::Duration;

/// A point in time, in nanoseconds since a start that the caller chooses.
///
/// It is a number rather than the operating system's opaque type, so that a test, a simulator or a log can
/// name it, and so that the engine works where there is no clock. It never wraps: sums stop at the end of the
/// scale, 584 years after the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The instant that lies `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// How many nanoseconds after the start this is.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this instant, or zero if `earlier` is the later one.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stop_at_the_end_of_the_scale() {
        assert_eq!(Instant::from_nanos(5) + Duration::from_nanos(7), Instant::from_nanos(12));
        assert_eq!(Instant::from_nanos(5) + Duration::MAX, Instant::from_nanos(u64::MAX));
    }

    #[test]
    fn a_clock_that_steps_back_gives_zero() {
        let (early, late) = (Instant::from_nanos(3), Instant::from_nanos(10));
        assert_eq!(late.saturating_duration_since(early), Duration::from_nanos(7));
        assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
    }
}
