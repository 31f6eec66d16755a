//! The queue that this end's own bulk keeps on the way, and how it is kept short while somebody types beside it.
//!
//! In: pings that leave beside bulk, and how long their answers took. Out: how much bulk may be on its way. Keeps: the last
//! round of pings, and a limit. Spec: PROTOCOL §6.2.
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

/// As many bytes as one acknowledgement is for.
const SMALL: u64 = 64 << 10;

/// The least limit: two full records, one on its way and one that is acknowledged.
const LEAST: u64 = 32 << 10;

/// Of how many pings the least counts, once there is a limit: the first key shall not wait for so many.
const ROUND: u8 = 5;

/// For how long after the last key bulk gives way. Where others fill the path's queue as well, who gives way gets less.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the queue on one pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandingQueue {
    /// Until when it matters.
    matters_until: Instant,
    /// How much bulk was on its way when the ping left that is out.
    asked_with: Option<u64>,
    /// Of this round's pings: how many were answered, and the least time that one took, in nanoseconds, with how much bulk
    /// had been on its way.
    answered: u8,
    least: (u64, u64),
    /// How much bulk may be on its way. [`u64::MAX`] while nothing says otherwise.
    limit: u64,
}

impl StandingQueue {
    /// Something urgent goes out beside bulk, for the first time in long.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            matters_until: now + PATIENCE,
            asked_with: None,
            answered: 0,
            least: (u64::MAX, 0),
            limit: u64::MAX,
        }
    }

    /// Something urgent goes out beside bulk again.
    pub(crate) fn matters(&mut self, now: Instant) {
        self.matters_until = now + PATIENCE;
    }

    /// Whether nothing urgent has gone out beside bulk for long.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.matters_until
    }

    /// A ping leaves beside so many bytes of bulk.
    pub(crate) fn handle_ping(&mut self, bulk: u64) {
        self.asked_with = Some(bulk);
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
        let mut queue = StandingQueue::new(Instant::default());
        for ping in 0..rounds * u64::from(ROUND) {
            let bulk = queue.limit().min(1 << 20);
            let carried = Duration::from_nanos(bulk * 1_000_000_000 / rate);
            queue.handle_ping(bulk);
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
        let limit = after(50, 2_500_000, ms(40), |ping| ms(if ping % 5 == 0 { 0 } else { 30 }));
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
        let mut queue = StandingQueue::new(Instant::default());
        queue.limit = LEAST;
        for _ in 0..ROUND * 10 {
            queue.handle_ping(queue.limit());
            queue.handle_pong(ms(40), ms(40));
        }
        assert!(queue.limit() > 8 * LEAST, "{}", queue.limit());
    }

    #[test]
    fn it_is_over_ten_seconds_after_the_last_key() {
        let now = Instant::from_nanos(1);
        let mut queue = StandingQueue::new(now);
        assert!(!queue.is_over(now + ms(9_999)) && queue.is_over(now + ms(10_000)));
        queue.matters(now + ms(5_000));
        assert!(!queue.is_over(now + ms(14_999)) && queue.is_over(now + ms(15_000)));
    }
}
