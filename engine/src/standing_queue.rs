//! The queue that this end's own bulk keeps on the way, and how it is kept short while somebody types beside it.
//!
//! In: pings that leave beside bulk, and how long their answers took. Out: when to send one, and how much bulk may be on its
//! way. Keeps: what the last pings met, and a limit. Spec: PROTOCOL §6.2.
//!
//! Nothing overtakes what is on its way. A slow path carries a fixed rate, so whatever more is on its way only waits, and keys
//! with it. A ping that leaves beside bulk takes as long as a key would: by how much more than the path, so much too much is
//! on its way. The fastest of a few counts, as what all of them met stands there, and what one met passes.

use core::time::Duration;

use crate::ack::ACK_BYTES;
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
const SMALL: u64 = ACK_BYTES;

/// The least limit: four times what is acknowledged at once where the path is slow.
const LEAST: u64 = 32 << 10;

/// Of how many pings the fastest counts, once there is a limit: the first key shall not wait for so many.
const ROUND: u8 = 5;

/// How long after a ping the next one may leave. A shorter queue than that is none, and a ping costs the peer some work.
const BETWEEN_PINGS: Duration = Duration::from_millis(5);

/// And how long after it where less than half of what may be on its way is kept: nothing fills the path then, unless it has
/// become slower.
const BETWEEN_LESSER_PINGS: Duration = Duration::from_millis(50);

/// For how long after the last key bulk gives way. Where others fill the path's queue as well, who gives way gets less.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the queue on one pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandingQueue {
    /// Until when it matters.
    matters_until: Instant,
    /// When the last ping left.
    asked: Option<Instant>,
    /// How much bulk was on its way when the ping left that is out.
    asked_with: Option<u64>,
    /// Of this round's pings, those that told something: how many were answered, and how much bulk may be on its way by the
    /// one that allows the most.
    answered: u8,
    most_fitting: u64,
    /// How much bulk may be on its way. [`u64::MAX`] while nothing says otherwise.
    limit: u64,
}

impl StandingQueue {
    pub(crate) const UNKNOWN: Self = Self {
        matters_until: Instant::from_nanos(0),
        asked: None,
        asked_with: None,
        answered: 0,
        most_fitting: 0,
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

    /// Whether it is time for a ping, where so much bulk is on its way, of so much that is kept. Behind little it tells
    /// nothing, and while more is about to go out it waits for that.
    pub(crate) fn may_ask(&self, now: Instant, on_its_way: u64, kept: u64) -> bool {
        let (enough, wait) = match self.limit {
            u64::MAX => (LEAST, BETWEEN_PINGS),
            limit if kept >= limit / 2 => (limit / 2, BETWEEN_PINGS),
            _ => (LEAST, BETWEEN_LESSER_PINGS),
        };
        on_its_way >= enough && self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= wait)
    }

    /// A ping leaves behind so many bytes of bulk.
    pub(crate) fn handle_ping(&mut self, now: Instant, bulk: u64) {
        self.asked = Some(now);
        self.asked_with = Some(bulk);
    }

    /// The last ping was answered after `round_trip`, on a path of this length.
    pub(crate) fn handle_pong(&mut self, round_trip: Duration, path: Duration) {
        let bulk = self.asked_with.take();
        let Some(fitting) = bulk.and_then(|bulk| self.fitting(round_trip, path, bulk)) else { return };
        self.most_fitting = self.most_fitting.max(fitting);
        self.answered += 1;
        if self.answered == ROUND || !self.is_limited() {
            self.limit = self.most_fitting.min(self.limit.saturating_add(self.limit / 4));
            (self.answered, self.most_fitting) = (0, 0);
        }
    }

    /// How much bulk may be on its way by a ping that met `bulk`: that took `round_trip`, so in proportion for the time that
    /// it may take. `None` if the ping tells nothing.
    fn fitting(&self, round_trip: Duration, path: Duration, bulk: u64) -> Option<u64> {
        let fits = |bulk: u64| {
            let within = |queue: Duration| {
                let bytes = u128::from(bulk) * (path + queue).as_nanos() / round_trip.as_nanos().max(1);
                u64::try_from(bytes).unwrap_or(u64::MAX)
            };
            within(AIM).max(within(SMALL_AIM).min(SMALL)).max(LEAST)
        };
        if !self.is_limited() {
            return Some(fits(bulk)).filter(|fitting| *fitting < bulk);
        }
        if bulk >= self.limit / 2 {
            return Some(fits(bulk.max(self.limit))); // the rest of it left right behind the ping
        }
        // There may have been so little for want of more, which is no reason to allow more, or less.
        let is_queue = round_trip > path + AIM;
        (bulk >= LEAST).then(|| if is_queue { fits(bulk).min(self.limit) } else { self.limit })
    }

    fn is_limited(&self) -> bool {
        self.limit < u64::MAX
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Feeds what decides about the future to `digest`, with times relative to `now`.
    pub(crate) fn digest(&self, now: Instant, digest: &mut Digest) {
        digest.number(in_nanos(self.matters_until.saturating_duration_since(now)));
        let since = self.asked.map(|asked| now.saturating_duration_since(asked).min(BETWEEN_LESSER_PINGS));
        digest.option(since.map(in_nanos));
        digest.option(self.asked_with);
        digest.numbers(&[u64::from(self.answered), self.most_fitting, self.limit]);
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
    fn the_queue_of_others_leaves_little() {
        for rounds in [4, 50] {
            assert_eq!(after(rounds, 1_250_000, ms(40), |_| ms(200)), LEAST);
        }
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
    fn pings_that_met_little_bulk_lower_the_limit_and_do_not_raise_it() {
        let limit = 4 << 20;
        for (bulk, took, expected) in [
            (limit / 2 - 1, ms(40), limit),
            (limit / 2 - 1, ms(50), limit),
            (LEAST, ms(50), limit),
            // 200 KiB in 200 ms are 50 in 50.
            (200 << 10, ms(200), SMALL),
            (2_000_000, ms(200), 500_000),
            (LEAST - 1, ms(5_000), limit),
            (0, ms(5_000), limit),
        ] {
            let mut queue = StandingQueue { limit, ..StandingQueue::UNKNOWN };
            for _ in 0..ROUND {
                queue.handle_ping(Instant::default(), bulk);
                queue.handle_pong(took, ms(40));
            }
            assert_eq!(queue.limit(), expected, "{bulk} in {took:?}");
        }
    }

    #[test]
    fn one_that_met_no_queue_is_enough_for_the_limit_to_stay() {
        let limit = 4 << 20;
        let mut queue = StandingQueue { limit, ..StandingQueue::UNKNOWN };
        for ping in 0..ROUND * 10 {
            queue.handle_ping(Instant::default(), 1 << 20);
            queue.handle_pong(ms(if ping % ROUND == 2 { 45 } else { 400 }), ms(40));
        }
        assert_eq!(queue.limit(), limit);
    }

    #[test]
    fn pings_leave_five_milliseconds_apart_behind_enough_bulk_and_fifty_where_there_is_less() {
        let mut queue = StandingQueue::UNKNOWN;
        let start = Instant::from_nanos(1);
        assert!(queue.may_ask(start, LEAST, LEAST) && !queue.may_ask(start, LEAST - 1, LEAST));
        queue.handle_ping(start, 1);
        let waits = |queue: &StandingQueue, bulk, kept| {
            let at = |us| start + Duration::from_micros(us);
            (0..100_000).step_by(100).find(|&us| queue.may_ask(at(us), bulk, kept))
        };
        assert_eq!(waits(&queue, LEAST, LEAST), Some(5_000), "there is no limit");
        queue.limit = 4 * LEAST;
        let found = [2 * LEAST, 2 * LEAST - 1, LEAST, LEAST - 1].map(|bulk| waits(&queue, bulk, bulk));
        assert_eq!(found, [Some(5_000), Some(50_000), Some(50_000), None]);
        assert_eq!(waits(&queue, LEAST, 2 * LEAST), None, "the rest is about to go out");
        queue.limit = LEAST;
        assert_eq!([LEAST / 2, LEAST / 2 - 1].map(|bulk| waits(&queue, bulk, LEAST)), [Some(5_000), None]);
    }

    /// What is kept up to the limit goes out at once, is there half a round trip later, and is acknowledged 25 ms after that:
    /// so pings that leave with the first of it would meet nothing.
    #[test]
    fn a_limit_that_one_hiccup_has_set_does_not_stay() {
        for trip in [1, 40, 60, 100, 200].map(ms) {
            let mut queue = StandingQueue { limit: LEAST, ..StandingQueue::UNKNOWN };
            let (mut now, mut bursts) = (Instant::from_nanos(1), 0);
            while queue.limit() < 20 * LEAST {
                let kept = queue.limit();
                let record = kept / 16;
                let met = (0..16).map(|index| index * record).find(|&gone| queue.may_ask(now, gone, kept));
                if let Some(met) = met {
                    queue.handle_ping(now, met);
                    queue.handle_pong(trip, trip);
                }
                now = now + trip + ms(25);
                bursts += 1;
                assert!(bursts < 500, "{trip:?}: {} after {bursts}", queue.limit());
            }
        }
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
