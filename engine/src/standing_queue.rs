//! The queue that this end's own bulk keeps on the way, and how it is kept short while somebody types beside it.
//!
//! In: pings that leave beside bulk, and how long their answers took. Out: when to send one, and how much bulk may be on its
//! way. Keeps: what the last pings met, and a limit. Spec: PROTOCOL §6.2.
//!
//! Nothing overtakes what is on its way. A slow path carries a fixed rate, so whatever more is on its way only waits, and keys
//! with it. A ping that leaves beside bulk takes as long as a key would: by how much more than the path, so much too much is
//! on its way. The least of a few counts, as what all of them met stands there, and what one met passes.

use core::time::Duration;

use crate::fingerprint::Digest;
use crate::liveness::in_nanos;
use crate::time::Instant;

/// How long keys may wait in it: half of what a record of bulk may hold them up. With none, a path that has caught up
/// would idle until more comes.
const AIM: Duration = Duration::from_millis(10);

/// How long they may wait where [`AIM`] would leave less than [`SMALL`]: the few records that are there then come in
/// bursts, each of which takes longer than that.
const SMALL_AIM: Duration = Duration::from_millis(40);

/// As many bytes as come, at most, before they are acknowledged.
const SMALL: u64 = 64 << 10;

/// The least limit: two full records, one on its way and one that is acknowledged.
const LEAST: u64 = 32 << 10;

/// Of how many pings the least counts, once there is a limit: the first key shall not wait for so many.
const ROUND: u8 = 5;

/// How long after a ping the next one may leave. A shorter queue than that is none, and a ping costs the peer some work.
const BETWEEN_PINGS: Duration = Duration::from_millis(5);

/// For how long after the last key bulk gives way. Where others fill the path's queue as well, who gives way gets less.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the queue on one pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandingQueue {
    /// Until when it matters.
    matters_until: Instant,
    /// When the last ping left.
    asked: Option<Instant>,
    /// How much bulk was on its way when the ping left that is out, if it was enough to tell something.
    asked_with: Option<u64>,
    /// Of this round's pings: how many were answered, and the least time that one took, in nanoseconds, with how much bulk
    /// had been on its way.
    answered: u8,
    least: (u64, u64),
    /// How much bulk may be on its way. [`u64::MAX`] while nothing says otherwise.
    limit: u64,
}

impl StandingQueue {
    pub(crate) const UNKNOWN: Self = Self {
        matters_until: Instant::from_nanos(0),
        asked: None,
        asked_with: None,
        answered: 0,
        least: (u64::MAX, 0),
        limit: u64::MAX,
    };

    /// Something urgent goes out beside bulk.
    pub(crate) fn matters(&mut self, now: Instant) {
        self.matters_until = now + PATIENCE;
    }

    /// Whether nothing urgent has gone out beside bulk for long.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.matters_until
    }

    /// Whether a ping may leave, as far as the last one is concerned.
    pub(crate) fn may_ask(&self, now: Instant) -> bool {
        self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= BETWEEN_PINGS)
    }

    /// A ping leaves behind so many bytes of bulk. If that is much less than may be there, the ping tells nothing.
    pub(crate) fn handle_ping(&mut self, now: Instant, bulk: u64) {
        self.asked = Some(now);
        self.asked_with = Some(bulk).filter(|bulk| self.limit == u64::MAX || *bulk >= self.limit / 2);
    }

    /// The last ping was answered after `round_trip`, on a path of this length.
    pub(crate) fn handle_pong(&mut self, round_trip: Duration, path: Duration) {
        let Some(bulk) = self.asked_with.take() else { return };
        self.least = self.least.min((in_nanos(round_trip).max(1), bulk));
        self.answered += 1;
        if self.answered == ROUND || self.limit == u64::MAX {
            self.adjust(path);
            (self.answered, self.least) = (0, (u64::MAX, 0));
        }
    }

    /// As much as was on its way takes `least`; so in proportion for the time that it may take. More is allowed little by
    /// little, as it may not be what took the time.
    fn adjust(&mut self, path: Duration) {
        let (least, bulk) = self.least;
        let bulk = if self.limit < u64::MAX { self.limit.max(bulk) } else { bulk };
        let fits = |queue: Duration| {
            let bytes = u128::from(bulk) * (path + queue).as_nanos() / u128::from(least);
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        let fitting = fits(AIM).max(fits(SMALL_AIM).min(SMALL)).max(LEAST);
        if self.limit < u64::MAX || fitting < bulk {
            self.limit = fitting.min(self.limit.saturating_add(self.limit / 4));
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Feeds what decides about the future to `digest`, with times relative to `now`.
    pub(crate) fn digest(&self, now: Instant, digest: &mut Digest) {
        digest.number(in_nanos(self.matters_until.saturating_duration_since(now)));
        let since = self.asked.map(|asked| now.saturating_duration_since(asked).min(BETWEEN_PINGS));
        digest.option(since.map(in_nanos));
        digest.option(self.asked_with);
        digest.numbers(&[u64::from(self.answered), self.least.0, self.least.1, self.limit]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Runs bulk that is always at its limit over a path of this length that carries `rate` bytes a second, until `rounds`
    /// have passed; some of what others do is on top of each round trip. Returns the limit.
    fn after(rounds: u64, rate: u64, path: Duration, others: impl Fn(u64) -> Duration) -> u64 {
        let mut queue = StandingQueue::UNKNOWN;
        for ping in 0..rounds * u64::from(ROUND) {
            let bulk = queue.limit().min(1 << 20);
            let carried = Duration::from_nanos(bulk * 1_000_000_000 / rate);
            queue.handle_ping(Instant::default(), bulk);
            queue.handle_pong(path.max(carried) + others(ping), path);
        }
        queue.limit()
    }

    #[test]
    fn bulk_fills_the_path_and_ten_milliseconds_more() {
        for (rate, path) in
            [(2_500_000, ms(40)), (1_250_000, ms(100)), (12_500_000, ms(60)), (6_000_000, ms(5))]
        {
            let expected = rate * u64::try_from((path + AIM).as_millis()).unwrap() / 1000;
            for rounds in [1, 2, 50] {
                let limit = after(rounds, rate, path, |_| ms(0));
                assert!(limit.abs_diff(expected) <= expected / 100, "{rate} B/s, {path:?}: {limit}");
            }
        }
    }

    #[test]
    fn a_slow_path_has_an_acknowledgements_worth_or_forty_milliseconds() {
        assert_eq!(after(50, 1_250_000, ms(30), |_| ms(0)), SMALL, "52 ms");
        let limit = after(50, 500_000, ms(40), |_| ms(0));
        assert!(limit.abs_diff(40_000) <= 400, "{limit}");
        assert_eq!(after(50, 125_000, ms(40), |_| ms(0)), LEAST, "262 ms");
    }

    #[test]
    fn what_a_ping_meets_by_chance_changes_nothing() {
        let limit = after(50, 2_500_000, ms(40), |ping| ms(if ping % 5 == 4 { 0 } else { 30 }));
        assert!(limit.abs_diff(125_000) <= 1250, "{limit}");
    }

    #[test]
    fn a_path_that_carries_all_is_not_limited() {
        assert_eq!(after(50, 1 << 30, ms(1), |_| ms(9)), u64::MAX);
    }

    #[test]
    fn the_queue_of_others_leaves_two_records() {
        assert_eq!(after(50, 1_250_000, ms(40), |_| ms(200)), LEAST);
    }

    #[test]
    fn a_path_that_becomes_faster_is_filled_again() {
        let mut queue = StandingQueue::UNKNOWN;
        queue.limit = LEAST;
        for _ in 0..ROUND * 10 {
            queue.handle_ping(Instant::default(), queue.limit());
            queue.handle_pong(ms(40), ms(40));
        }
        assert!(queue.limit() > 8 * LEAST, "{}", queue.limit());
    }

    #[test]
    fn a_ping_that_met_little_bulk_does_not_raise_the_limit() {
        let mut queue = StandingQueue { limit: 100_000, ..StandingQueue::UNKNOWN };
        for bulk in [0, 1000, 49_999].repeat(100) {
            queue.handle_ping(Instant::default(), bulk);
            queue.handle_pong(ms(40), ms(40));
        }
        assert_eq!(queue.limit(), 100_000);
    }

    #[test]
    fn pings_leave_five_milliseconds_apart() {
        let mut queue = StandingQueue::UNKNOWN;
        let now = Instant::from_nanos(1);
        assert!(queue.may_ask(now));
        queue.handle_ping(now, 1);
        assert!(!queue.may_ask(now + Duration::from_micros(4_999)) && queue.may_ask(now + ms(5)));
    }

    #[test]
    fn it_is_over_ten_seconds_after_the_last_key() {
        let now = Instant::from_nanos(1);
        let mut queue = StandingQueue::UNKNOWN;
        assert!(queue.is_over(now));
        for now in [now, now + ms(5_000)] {
            queue.matters(now);
            assert!(!queue.is_over(now + ms(9_999)) && queue.is_over(now + ms(10_000)));
        }
    }
}
