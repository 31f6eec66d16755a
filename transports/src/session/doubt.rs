//! Doubts a session's pipe long before it is given up.
//!
//! In: how many bytes have come so far, looked at now and then, and whether the peer owes an answer. Out: the wish to ask for
//! a sign of life, and the doubt; once there is doubt, the relief. Keeps: two numbers and a flag.
//!
//! A pipe that is silent is given up after the idle timeout, since to give one up costs something. To have another one beside
//! it costs little, and who types does not want to wait for that long. So a session that has said something to which nothing
//! comes back asks for a sign of life, once; and if there is none, it looks for another pipe while it keeps this one.

use std::time::Duration;

use tokio::time::sleep;

use super::shared::Shared;

/// How often it is looked while there are streams, and while there are none.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_AT_REST: Duration = Duration::from_secs(1);

/// For how long nothing may have come back before the peer is asked.
const QUIET: Duration = Duration::from_millis(500);

/// How long the answer to that may take at least; and in round trips, where that is more.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_ROUND_TRIPS: u32 = 4;

/// How long nothing has come.
///
/// It adds up the times between looks and does not ask the clock: who was suspended, or had no processor, looks once when
/// it goes on, and so does not take its own absence for the peer's.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    received: u64,
    lasts: Duration,
    /// How long it had lasted when the peer was asked.
    asked: Option<Duration>,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It is time to ask.
    Ask,
    /// There was no answer.
    Doubt,
}

/// What there is to see of a session.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// How many bytes have come.
    received: u64,
    /// Something went out since something came.
    is_owed: bool,
    /// How long the peer has to answer.
    patience: Duration,
    /// Since the last look.
    elapsed: Duration,
}

impl Doubt {
    /// Waits until there is doubt. Cancel-safe.
    pub(super) async fn arises(&mut self, shared: &Shared) {
        loop {
            let opened = shared.opened.notified();
            let is_at_rest = shared.lock().session.open_streams() == 0;
            let elapsed = if is_at_rest { LOOK_AT_REST } else { LOOK };
            tokio::select! {
                biased;
                () = opened, if is_at_rest => continue,
                () = sleep(elapsed) => {}
            }
            match self.look(see(shared, elapsed)) {
                Verdict::Fine => {}
                Verdict::Ask => shared.with(|state| state.session.ping()),
                Verdict::Doubt => return,
            }
        }
    }

    /// Waits until something comes after all. Cancel-safe.
    pub(super) async fn is_dispelled(&mut self, shared: &Shared) {
        while see(shared, LOOK).received == self.received {
            sleep(LOOK).await;
        }
    }

    fn look(&mut self, look: Look) -> Verdict {
        if look.received != self.received || !look.is_owed {
            *self = Self { received: look.received, ..Self::default() };
            return Verdict::Fine;
        }
        self.lasts += look.elapsed;
        match self.asked {
            None if self.lasts >= QUIET => {
                self.asked = Some(self.lasts);
                Verdict::Ask
            }
            Some(asked) if self.lasts >= asked + look.patience => {
                *self = Self { received: look.received, ..Self::default() };
                Verdict::Doubt
            }
            None | Some(_) => Verdict::Fine,
        }
    }
}

fn see(shared: &Shared, elapsed: Duration) -> Look {
    let state = shared.lock();
    let session = &state.session;
    let rtt = session.rtt().map_or(Duration::ZERO, |rtt| rtt.smoothed);
    Look {
        received: session.stats().bytes_received,
        // Before both ends have agreed on that, there can be no other pipe.
        is_owed: session.is_owed_an_answer() && session.id().is_some(),
        patience: PATIENCE.max(rtt * PATIENCE_ROUND_TRIPS),
        elapsed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(received: u64, is_owed: bool) -> Look {
        Look { received, is_owed, patience: PATIENCE, elapsed: LOOK }
    }

    fn verdicts(doubt: &mut Doubt, look: Look, count: usize) -> Vec<Verdict> {
        (0..count).map(|_| doubt.look(look)).collect()
    }

    #[test]
    fn who_gets_no_answer_asks_once_and_then_doubts() {
        use Verdict::{Ask, Doubt as Doubts, Fine};
        let mut doubt = Doubt::default();
        assert_eq!(doubt.look(look(7, true)), Fine, "something has come");
        assert_eq!(verdicts(&mut doubt, look(7, true), 4), [Fine, Ask, Fine, Doubts]);
        // As long as nothing comes, it begins again.
        assert_eq!(verdicts(&mut doubt, look(7, true), 4), [Fine, Ask, Fine, Doubts]);
    }

    #[test]
    fn who_is_owed_nothing_does_not_doubt() {
        let mut doubt = Doubt::default();
        assert_eq!(verdicts(&mut doubt, look(0, false), 100), [Verdict::Fine; 100]);
    }

    #[test]
    fn any_byte_dispels_it() {
        use Verdict::{Ask, Fine};
        let mut doubt = Doubt::default();
        assert_eq!(verdicts(&mut doubt, look(0, true), 3), [Fine, Ask, Fine]);
        assert_eq!(verdicts(&mut doubt, look(1, true), 3), [Fine, Fine, Ask]);
    }

    /// A long way is no reason to doubt.
    #[test]
    fn the_answer_may_take_four_round_trips() {
        let rtt = Duration::from_secs(1);
        let far = Look { patience: rtt * PATIENCE_ROUND_TRIPS, ..look(0, true) };
        let found = verdicts(&mut Doubt::default(), far, 18);
        assert!(!found[..17].contains(&Verdict::Doubt), "{found:?}");
        assert_eq!(found[17], Verdict::Doubt);
    }
}
