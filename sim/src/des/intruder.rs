//! What somebody does who is on the way: old beginnings of pipes played again, proofs of their own making, bytes of pipes that
//! were left. And a device's application that closes its sessions in the middle of it all.
//!
//! In: a fault that begins. Out: verdicts, on whether it had an effect that it must not have.

use towline_engine::{Acceptor, Arrival, Code, Epoch, Secret};

use super::judge;
use super::world::World;

/// What a device's application closes its sessions with.
const CLOSED: u32 = 9;

/// A proof that is none.
const WRONG: Secret = Secret::new([0x5f; Secret::LEN]);

impl World<'_> {
    /// The sessions of a host that go on.
    pub(super) fn sessions_of(&self, host: usize) -> Vec<usize> {
        let is_it = |&end: &usize| {
            let it = &self.ends[end];
            it.host == host && !it.is_over && self.is_running(it)
        };
        (0..self.ends.len()).filter(is_it).collect()
    }

    /// The device's application closes its sessions.
    pub(super) fn close_sessions(&mut self, host: usize) {
        let now = self.clock(host);
        for end in self.sessions_of(host) {
            let is_detached = self.ends[end].session.is_detached();
            self.sink.sometimes("session_closed_while_detached", is_detached);
            self.ends[end].session.close(now, Code::from(CLOSED), b"enough");
            self.dirty.insert(end);
        }
    }

    /// Old beginnings of pipes are played again.
    pub(super) fn replay(&mut self, host: usize) {
        for end in self.sessions_of(host) {
            let records = self.watches[self.ends[end].observers].resumes().to_vec();
            for record in records {
                let mut acceptor = Acceptor::new(&self.server_config());
                let Some(Arrival::Resume { epoch, proof, .. }) = acceptor.handle_input(record) else {
                    continue;
                };
                // One that was lost on its way is as good as new.
                if epoch <= self.ends[end].epoch {
                    self.intrude(end, epoch, &proof, acceptor);
                }
            }
        }
    }

    /// Somebody has a proof of their own making.
    pub(super) fn forge(&mut self, host: usize) {
        for end in self.sessions_of(host) {
            let present = self.ends[end].epoch.0;
            for epoch in [0, present, present + 1] {
                let acceptor = Acceptor::new(&self.server_config());
                self.intrude(end, Epoch(epoch), &WRONG, acceptor);
            }
        }
    }

    /// Asks for a session in a way that must have no effect.
    fn intrude(&mut self, end: usize, epoch: Epoch, proof: &Secret, mut acceptor: Acceptor) {
        let now = self.clock(self.ends[end].host);
        let name = self.ends[end].name.clone();
        let session = &mut self.ends[end].session;
        if session.id().is_none() {
            return;
        }
        let before = session.fingerprint(now);
        let outcome = session.resume(now, epoch, proof, &mut acceptor);
        let verdict = judge::is_unchanged(before, session.fingerprint(now));
        self.sink.judge("proof_first", verdict, self.now, &name);
        let detail = || format!("a pipe of epoch {} was let in", epoch.0);
        self.sink.always("proof_first", outcome.is_err(), self.now, &name, detail);
        self.sink.sometimes("somebody_was_not_let_in", outcome.is_err());
        self.dirty.insert(end);
    }

    /// What pipes had under way that were left arrives, and then they end.
    pub(super) fn late_bytes(&mut self, host: usize) {
        for end in self.sessions_of(host) {
            let (side, present) = (self.ends[end].side, self.ends[end].epoch);
            let older = self.watches[self.ends[end].observers].older(1 - side, present);
            self.sink.sometimes("bytes_of_an_older_pipe", !older.is_empty());
            for (epoch, record) in older {
                self.look_at_late_input(end, epoch, record);
                self.look_at_late_close(end, epoch);
            }
        }
    }
}
