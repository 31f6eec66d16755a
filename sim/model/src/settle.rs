//! What must be once everything that was promised has happened.

use towline_engine::{Dir, Event, Side};

use crate::checked::Checked;
use crate::waiting::What;
use crate::world::BOTH;

/// After how many timers a session is over for both ends that is over for one: each may have to give its pipe up, and
/// then the session.
const MAX_TIMERS: usize = 8;

impl Checked {
    /// Lets everything that was promised happen, and checks that it has, and that nothing is left in the end.
    ///
    /// # Panics
    ///
    /// If it has not.
    pub fn settle(mut self) {
        self.read_all();
        if BOTH.into_iter().any(|side| self.world.peek(side).is_closed()) {
            return self.settle_over();
        }
        self.model.check_settled();
        self.waiting.check_nobody(|what| !matches!(what, What::Write(_)));
        if self.world.is_resumable() {
            self.model.check_drains_heard();
        }
        self.release_all();
        self.world.recover();
        self.look();
        self.check_at_rest();
    }

    /// As [`settle`](Self::settle), of a session that is over for one: it will be for the other, and nothing is left.
    fn settle_over(&mut self) {
        let is_over = |this: &Self| BOTH.into_iter().all(|side| this.world.peek(side).is_closed());
        for _ in 0..MAX_TIMERS {
            if is_over(self) {
                break;
            }
            BOTH.into_iter().for_each(|side| self.world.fire(side));
            self.read_all();
        }
        assert!(is_over(self), "one_terminal_event: it is over for one");
        self.release_all();
        self.world.run();
        for side in BOTH {
            let end = self.world.peek(side);
            assert_eq!(end.open_streams(), 0, "no_residue: {side:?}");
            assert_eq!(end.poll_timeout(), None, "no_residue: {side:?}");
            assert!(!self.world.wants_transmit(side), "no_residue: {side:?} is quiet");
        }
    }

    fn release_all(&mut self) {
        for side in BOTH {
            for id in self.model.held(side).to_vec() {
                self.release(side, id);
            }
        }
    }

    /// Reads and accepts until nothing moves any more.
    fn read_all(&mut self) {
        loop {
            self.world.recover();
            self.look();
            let mut quiet = true;
            for side in BOTH {
                self.waiting.check(side, self.world.peek(side));
                quiet &= !self.read_here(side);
            }
            if quiet {
                return;
            }
        }
    }

    /// Accepts and reads on `side` what there is. Returns whether there was anything.
    pub(crate) fn read_here(&mut self, side: Side) -> bool {
        let mut was_any = false;
        for dir in [Dir::Bi, Dir::Uni] {
            while self.accept(side, dir) {
                was_any = true;
            }
        }
        for id in self.model.held(side).to_vec() {
            while !self.read(side, id, u64::MAX) {
                was_any = true;
            }
        }
        was_any
    }

    fn check_at_rest(&mut self) {
        // With everything released there is leave to open, and room for nobody left to want it.
        self.waiting.check_nobody(|what| matches!(what, What::Accept(_)));
        for side in BOTH {
            let window = self.window;
            let end = self.world.end(side);
            assert_eq!(end.open_streams(), 0, "no_residue: {side:?}");
            let credit = end.credit();
            assert_eq!(credit.unread, 0, "credit_conservation: {side:?}");
            assert_eq!(credit.promised + credit.withheld, window, "credit_conservation: {side:?}");
            while let Some(event) = end.poll_event() {
                assert!(!matches!(event, Event::Closed(_)), "no_violation: {side:?}: {event:?}");
            }
            assert!(!end.wants_transmit(), "no_residue: {side:?} is quiet");
        }
        let (client, server) =
            (self.world.peek(Side::Client).credit(), self.world.peek(Side::Server).credit());
        assert_eq!(client.available, server.promised, "credit_conservation: to the server");
        assert_eq!(server.available, client.promised, "credit_conservation: to the client");
    }
}
