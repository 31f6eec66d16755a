//! Notices that a path has gone dark: that nothing comes back over UDP any more.
//!
//! In: how much has come so far, looked at four times a second. Out: the wish to ask for a sign of life, or the verdict.
//! Keeps: two numbers.
//!
//! QUIC itself finds out after the idle timeout, and asks only as often as the keepalive says. That is right for a link at
//! rest. While somebody uses it, to find out sooner is worth a datagram each way for each second in which nothing else
//! comes: some 130 bytes with their headers, and 11 MB for a whole day in which a tunnel is open and says nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::link::Shared;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long nothing may have come before the peer is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(1);

/// How long the answer may take at least. quinn repeats what is not acknowledged, the first time after about two round
/// trips, and then ever later.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the answer may take in round trips, where that is more: as long as it takes to ask twice.
const PATIENCE_ROUND_TRIPS: u32 = 3;

/// Waits until the path has gone dark, for as long as somebody uses the link: while it has more than `at_rest` streams.
pub(super) async fn until_dark(shared: &Shared, at_rest: usize) {
    loop {
        shared.more_streams_than(at_rest).await;
        let mut silence = Silence::since(shared.received());
        while shared.open_streams.load(Ordering::Relaxed) > at_rest {
            sleep(LOOK).await;
            match silence.look(shared.received(), patience(shared.rtt())) {
                Verdict::Fine => {}
                Verdict::Ask => shared.ask_for_a_sign_of_life(),
                Verdict::Dark => return,
            }
        }
    }
}

fn patience(rtt: Duration) -> Duration {
    PATIENCE.max(rtt * PATIENCE_ROUND_TRIPS)
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It is time to ask.
    Ask,
    /// There was no answer.
    Dark,
}

/// How long nothing has come.
///
/// It counts looks and not time: who was suspended, or had no processor, looks once when it goes on, and so does not take
/// its own absence for the peer's.
#[derive(Debug)]
struct Silence {
    received: u64,
    looks: u32,
}

impl Silence {
    fn since(received: u64) -> Self {
        Self { received, looks: 0 }
    }

    fn look(&mut self, received: u64, patience: Duration) -> Verdict {
        if received != self.received {
            *self = Self::since(received);
            return Verdict::Fine;
        }
        self.looks += 1;
        match LOOK * self.looks {
            silent if silent == QUIET => Verdict::Ask,
            silent if silent >= QUIET + patience => Verdict::Dark,
            _ => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts of so many looks at which nothing has come.
    fn looks(silence: &mut Silence, count: usize, patience: Duration) -> Vec<Verdict> {
        let received = silence.received;
        (0..count).map(|_| silence.look(received, patience)).collect()
    }

    #[test]
    fn who_says_nothing_is_asked_once_and_given_up() {
        use Verdict::{Ask, Dark, Fine};
        let mut silence = Silence::since(7);
        let verdicts = looks(&mut silence, 8, patience(Duration::from_millis(20)));
        assert_eq!(verdicts, [Fine, Fine, Fine, Ask, Fine, Fine, Fine, Dark]);
    }

    /// For instance from another address, to which it has moved.
    #[test]
    fn who_answers_at_the_last_moment_is_not_given_up() {
        let mut silence = Silence::since(7);
        for received in 8..100 {
            assert!(!looks(&mut silence, 7, PATIENCE).contains(&Verdict::Dark));
            assert_eq!(silence.look(received, PATIENCE), Verdict::Fine);
        }
    }

    #[test]
    fn a_long_way_gets_three_round_trips() {
        let patience = patience(Duration::from_millis(600));
        let verdicts = looks(&mut Silence::since(7), 12, patience);
        assert_eq!(verdicts.iter().position(|verdict| *verdict == Verdict::Dark), Some(11), "after 2.8 s");
    }
}
