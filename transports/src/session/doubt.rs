//! Doubts a session's pipe long before it is given up.
//!
//! In: how many bytes have come so far, looked at now and then, and whether it is the peer's turn. Out: the wish to ask for a
//! sign of life, and the doubt; once there is doubt, the relief. Keeps: a [`Silence`], how attentive it is, and how cautious it
//! has become.
//!
//! A pipe that is silent is given up after the idle timeout, since to give one up costs something. To have another one beside
//! it costs little, and who types does not want to wait for that long. So a session that has said something to which nothing
//! comes back asks for a sign of life, once; and if there is none, it looks for another pipe while it keeps this one. On a
//! path that is often silent this would not end: each doubt that was dispelled makes the next one come later.
//!
//! Who has asked for something and waits for the answer has not spoken last any more once the request is acknowledged, nor has
//! who has more to say when the pipe takes nothing. So the peer is asked for a sign of life as well if it is silent when it
//! is not its turn, ever more seldom, until the next byte of payload.

use std::time::Duration;

use tokio::time::sleep;

use super::shared::Shared;
use crate::silence::{Pace, Silence, Verdict};

/// While there are streams. While there are none, nobody waits for anything.
const PACE: Pace = Pace { look: Duration::from_millis(250), quiet: Duration::from_millis(250) };

/// For how long nothing comes at most, when it is not the peer's turn, before it is asked: longer than the session's own keep-alive
/// lets it be silent, so that nobody is asked who is at rest.
const MAX_QUIET: Duration = Duration::from_secs(8);

/// How long the answer to that may take at least; and in round trips, where that is more.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_ROUND_TRIPS: u32 = 3;

/// How much longer the peer has at most, on a path that was in doubt again and again without a reason.
const MAX_CAUTION: u32 = 16;

/// After how long without such a doubt that is over.
const CALM: Duration = Duration::from_secs(30);

/// How a session stands with its pipe.
#[derive(Debug)]
pub(super) struct Doubt {
    silence: Silence,
    /// How much payload was written and has come.
    moved: [u64; 2],
    /// How long nothing may come, when it is not the peer's turn, before it is asked.
    quiet: Duration,
    was_peers_turn: bool,
    /// How much longer than usual the peer has to answer.
    caution: u32,
    /// For how long there was no doubt without a reason.
    calm: Duration,
}

impl Default for Doubt {
    fn default() -> Self {
        Self {
            silence: Silence::since(0),
            moved: [0; 2],
            quiet: PACE.quiet,
            was_peers_turn: false,
            caution: 1,
            calm: Duration::ZERO,
        }
    }
}

/// What there is to see of a session.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// How many bytes have come.
    received: u64,
    /// How much payload was written and has come.
    moved: [u64; 2],
    /// Something went out since something came.
    is_peers_turn: bool,
    /// How long the peer has to answer.
    patience: Duration,
}

impl Doubt {
    /// Waits until there is doubt. Cancel-safe.
    pub(super) async fn until_arisen(&mut self, shared: &Shared) {
        loop {
            let opened = shared.opened.notified();
            if shared.lock().session.open_streams() == 0 {
                opened.await;
                self.begin_anew();
            }
            sleep(PACE.look).await;
            match see(shared).map(|look| self.look(look)) {
                None | Some(Verdict::Fine) => {}
                Some(Verdict::Ask) => shared.with(|state| state.session.ping()),
                Some(Verdict::Dark) => return,
            }
        }
    }

    /// Waits until something comes after all: there was no reason to doubt. Cancel-safe.
    pub(super) async fn until_dispelled(&mut self, shared: &Shared) {
        while !see(shared).is_some_and(|look| self.is_needless(look)) {
            sleep(PACE.look).await;
        }
        self.become_cautious();
    }

    /// There is another pipe. Who was about to hear from the one before is as cautious as who did.
    pub(super) fn there_is_another_pipe(&mut self, shared: &Shared) {
        self.settle(see(shared));
    }

    fn settle(&mut self, look: Option<Look>) {
        if look.is_some_and(|look| self.is_needless(look)) {
            self.become_cautious();
        }
        self.begin_anew();
    }

    fn is_needless(&self, look: Look) -> bool {
        look.received != self.silence.received()
    }

    fn become_cautious(&mut self) {
        self.calm = Duration::ZERO;
        self.caution = (2 * self.caution).min(MAX_CAUTION);
    }

    /// There is a reason to look again.
    pub(super) fn begin_anew(&mut self) {
        self.silence = Silence::since(self.silence.received());
    }

    fn look(&mut self, look: Look) -> Verdict {
        self.calm += PACE.look;
        if self.calm >= CALM {
            self.caution = 1;
        }
        if self.moved != look.moved {
            (self.moved, self.quiet) = (look.moved, PACE.quiet);
        } else if self.silence.has_asked() && self.silence.received() != look.received {
            self.quiet = (2 * self.quiet).min(MAX_QUIET);
        }
        let was_peers_turn = std::mem::replace(&mut self.was_peers_turn, look.is_peers_turn);
        if look.is_peers_turn && !was_peers_turn && !self.silence.has_asked() {
            self.silence = Silence::since(look.received); // how long both were at rest before says nothing
            return Verdict::Fine;
        }
        let quiet = if look.is_peers_turn { PACE.quiet } else { self.quiet };
        let verdict = self.silence.look(look.received, Pace { quiet, ..PACE }, look.patience * self.caution);
        if verdict == Verdict::Dark {
            self.begin_anew();
        }
        verdict
    }
}

/// Nothing before both ends have agreed that there may be another pipe.
fn see(shared: &Shared) -> Option<Look> {
    let state = shared.lock();
    state.session.id()?;
    let (session, credit) = (&state.session, state.session.credit());
    let rtt = session.rtt().map_or(Duration::ZERO, |rtt| rtt.smoothed);
    Some(Look {
        received: session.stats().bytes_received,
        moved: [credit.written, credit.received],
        is_peers_turn: session.has_spoken_last(),
        patience: PATIENCE.max(rtt * PATIENCE_ROUND_TRIPS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(received: u64, is_peers_turn: bool) -> Look {
        Look { received, moved: [0; 2], is_peers_turn, patience: PATIENCE }
    }

    fn verdicts(doubt: &mut Doubt, look: Look, count: usize) -> Vec<Verdict> {
        (0..count).map(|_| doubt.look(look)).collect()
    }

    #[test]
    fn who_gets_no_answer_asks_once_and_then_doubts() {
        use Verdict::{Ask, Dark, Fine};
        let mut doubt = Doubt::default();
        assert_eq!(doubt.look(look(7, true)), Fine, "something has come");
        assert_eq!(verdicts(&mut doubt, look(7, true), 3), [Ask, Fine, Dark]);
    }

    /// Who wakes a radio after a rest waits for it as ever.
    #[test]
    fn a_rest_is_no_silence() {
        use Verdict::{Ask, Dark, Fine};
        // It was asked before, and has answered.
        let mut doubt = Doubt { quiet: MAX_QUIET, ..Doubt::default() };
        for received in [7, 8] {
            assert_eq!(verdicts(&mut doubt, look(received, false), 12), [Fine; 12]);
            assert_eq!(verdicts(&mut doubt, look(received, true), 1), [Fine], "after a rest, again");
            doubt.quiet = MAX_QUIET;
        }
        assert_eq!(verdicts(&mut doubt, look(8, true), 3), [Ask, Fine, Dark]);
    }

    /// The answer to a question may be lost with the pipe, when the question itself was acknowledged.
    #[test]
    fn who_has_said_all_asks_ever_more_seldom_until_something_moves() {
        use Verdict::{Ask, Dark, Fine};
        let mut doubt = Doubt::default();
        let mut received = 0;
        let mut looks_until_asked = |doubt: &mut Doubt, moved| {
            received += 1; // the answer to the last question
            let look = Look { moved, ..look(received, false) };
            (0..100).find(|_| doubt.look(look) == Ask)
        };
        let looks: Vec<_> = (0..6).map(|_| looks_until_asked(&mut doubt, [0; 2])).collect();
        assert_eq!(looks, [1, 2, 4, 8, 16, 32].map(Some));
        assert_eq!(looks_until_asked(&mut doubt, [1, 0]), Some(1));
        assert_eq!(looks_until_asked(&mut doubt, [1, 1]), Some(1));
        assert_eq!(verdicts(&mut doubt, Look { moved: [1, 1], ..look(received, true) }, 2), [Fine, Dark]);
    }

    #[test]
    fn any_byte_dispels_it() {
        use Verdict::{Ask, Fine};
        let mut doubt = Doubt::default();
        assert_eq!(verdicts(&mut doubt, look(0, true), 3), [Fine, Ask, Fine]);
        assert_eq!(verdicts(&mut doubt, look(1, true), 3), [Fine, Ask, Fine]);
    }

    /// A long way is no reason to doubt.
    #[test]
    fn the_answer_may_take_three_round_trips() {
        let rtt = Duration::from_secs(1);
        let far = Look { patience: rtt * PATIENCE_ROUND_TRIPS, ..look(0, true) };
        let found = verdicts(&mut Doubt::default(), far, 14);
        assert!(!found[..13].contains(&Verdict::Dark), "{found:?}");
        assert_eq!(found[13], Verdict::Dark);
    }

    /// Two hubs may die one after the other.
    #[test]
    fn a_doubt_that_had_a_reason_makes_nobody_cautious() {
        let mut doubt = Doubt::default();
        for received in 0..5 {
            doubt.look(look(received, true));
            assert_eq!(verdicts(&mut doubt, look(received, true), 3)[2], Verdict::Dark, "{received}");
            doubt.settle(Some(look(received, true)));
        }
    }

    /// A radio that is silent for two seconds now and then is doubted ever later, until it was calm for a while.
    #[test]
    fn who_was_in_doubt_again_and_again_is_more_patient() {
        let mut doubt = Doubt::default();
        let looks = |doubt: &mut Doubt, received| {
            doubt.look(look(received, true));
            let count = (1..).find(|_| doubt.look(look(received, true)) == Verdict::Dark).expect("it comes");
            doubt.settle(Some(look(received + 1, true)));
            count
        };
        let counts: Vec<_> = (1..8).map(|pipe| looks(&mut doubt, 10 * pipe)).collect();
        assert_eq!(counts, [3, 5, 9, 17, 33, 33, 33]);
        for received in 0..120 {
            doubt.look(look(100 + received, true));
        }
        assert_eq!(looks(&mut doubt, 1000), 3);
    }
}
