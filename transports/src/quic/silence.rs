//! Notices that a path has gone dark: that nothing comes back over UDP any more.
//!
//! In: how many datagrams have come so far. Out: the wish to ask for a sign of life, or the verdict. Keeps: a [`Silence`].
//!
//! QUIC itself finds out after the idle timeout, and asks only as often as the keepalive says. While somebody uses a link,
//! to find out sooner is worth a datagram each way after each second in which nothing else comes: 42 bytes and 35, and with
//! the headers of UDP and IPv4 133, every 1.25 s. That is 9 MB for a whole day in which a tunnel is open and says nothing.
//! At rest, a link asks only when its keepalive was not answered, so nothing is sent that would not be sent anyway.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::link::Shared;
use crate::silence::{Pace, Silence, Verdict};

/// How long the answer may take at least. quinn repeats what is not acknowledged, the first time after about two round
/// trips, and then ever later.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the answer may take in round trips, where that is more: as long as it takes to ask twice.
const PATIENCE_ROUND_TRIPS: u32 = 3;

/// How long the answer may take at most: as long as a link over TLS may be silent by default. A round trip can be measured
/// to any length by an end that was asleep while the answer waited for it, and QUIC's own timers then grow with it.
const PATIENCE_AT_MOST: Duration = Duration::from_secs(15);

impl Pace {
    /// While somebody uses it.
    pub const IN_USE: Self = Self { look: Duration::from_millis(250), quiet: Duration::from_secs(1) };

    /// At rest: the answer to the keepalive, which goes out after `keep_alive` of silence, has a second. Without one,
    /// silence says nothing.
    pub fn at_rest(keep_alive: Option<Duration>) -> Self {
        let second = Duration::from_secs(1);
        let quiet = keep_alive.map_or(Duration::MAX, |interval| interval.saturating_add(second));
        Self { look: second, quiet }
    }
}

/// Waits until the path has gone dark. The link is in use while it has more than `at_rest` streams.
pub(super) async fn until_dark(shared: &Shared, at_rest: usize, keep_alive: Option<Duration>) {
    let mut silence = Silence::since(shared.received());
    loop {
        let is_used = shared.open_streams.load(Ordering::Relaxed) > at_rest;
        let pace = if is_used { Pace::IN_USE } else { Pace::at_rest(keep_alive) };
        tokio::select! {
            biased;
            () = shared.more_streams_than(at_rest), if !is_used => {
                silence = Silence::since(shared.received());
                continue;
            }
            () = sleep(pace.look) => {}
        }
        match silence.look(shared.received(), pace, patience(shared.rtt())) {
            Verdict::Fine => {}
            Verdict::Ask => shared.ask_for_a_sign_of_life(),
            Verdict::Dark => return,
        }
    }
}

/// How long an answer may take on a path with this round trip.
pub fn patience(rtt: Duration) -> Duration {
    rtt.saturating_mul(PATIENCE_ROUND_TRIPS).clamp(PATIENCE, PATIENCE_AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which looks the peer is asked, and given up, of so many at which nothing has come.
    fn looks(silence: &mut Silence, count: usize, pace: Pace, rtt: Duration) -> [Option<usize>; 2] {
        let received = silence.received();
        let verdicts: Vec<_> = (0..count).map(|_| silence.look(received, pace, patience(rtt))).collect();
        let first = |verdict| verdicts.iter().position(|it| *it == verdict).map(|at| at + 1);
        [first(Verdict::Ask), first(Verdict::Dark)]
    }

    const NEAR: Duration = Duration::from_millis(20);

    #[test]
    fn who_says_nothing_is_asked_after_a_second_and_given_up_after_one_more() {
        assert_eq!(looks(&mut Silence::since(7), 9, Pace::IN_USE, NEAR), [Some(4), Some(8)]);
    }

    #[test]
    fn at_rest_who_does_not_answer_the_keepalive_is_asked_and_given_up() {
        let pace = Pace::at_rest(Some(Duration::from_secs(5)));
        assert_eq!(looks(&mut Silence::since(7), 9, pace, NEAR), [Some(6), Some(7)]);
        assert_eq!(looks(&mut Silence::since(7), 1000, Pace::at_rest(None), NEAR), [None, None]);
    }

    /// For instance from another address, to which it has moved.
    #[test]
    fn who_answers_at_the_last_moment_is_not_given_up() {
        let mut silence = Silence::since(7);
        for received in 8..100 {
            assert_eq!(looks(&mut silence, 7, Pace::IN_USE, NEAR), [Some(4), None]);
            assert_eq!(silence.look(received, Pace::IN_USE, PATIENCE), Verdict::Fine);
        }
    }

    #[test]
    fn a_long_way_gets_three_round_trips() {
        let far = Duration::from_millis(600);
        assert_eq!(
            looks(&mut Silence::since(7), 12, Pace::IN_USE, far),
            [Some(4), Some(12)],
            "1.8 s, and a look"
        );
    }

    /// The first acknowledgements after half a minute of sleep say that the way is as long as that.
    #[test]
    fn a_round_trip_that_was_slept_through_does_not_make_it_patient_for_a_minute() {
        let slept = Duration::from_secs(25);
        assert_eq!(
            looks(&mut Silence::since(7), 400, Pace::IN_USE, slept),
            [Some(4), Some(64)],
            "1 s and 15 s"
        );
        assert_eq!(patience(Duration::MAX), PATIENCE_AT_MOST);
    }
}
