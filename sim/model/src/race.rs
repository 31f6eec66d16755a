//! Two pipes contend: the client has gone over to the next one, and bytes of the last one still arrive.
//!
//! In: what a network does that has not noticed. Out: what a session makes of it, which is nothing if it has gone
//! over, too. Each end goes over at its own time: the client when it attaches, the server when a RESUME arrives.

use bytes::Bytes;
use towline_engine::{Acceptor, Arrival, Epoch, PipeClosed, Refused, Secret, Side};

use crate::world::{BOTH, SECRET, World};

impl World {
    /// As [`reconnect`](Self::reconnect), but what was under way on the last pipe can still arrive.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn overtake(&mut self) {
        let was_connected = self.connected;
        if self.attach_next() && !was_connected {
            self.older.pop();
        }
    }

    /// How many older pipes there are whose bytes can still arrive.
    pub fn older(&self) -> usize {
        self.older.len()
    }

    /// Whether something that the client wrote is under way on an older pipe.
    pub fn is_under_way_on(&self, older: usize) -> bool {
        !self.older[older].is_empty(Side::Client)
    }

    /// As [`cuts`](Self::cuts), of what the client wrote on an older pipe.
    pub fn cuts_on(&self, older: usize) -> Vec<usize> {
        self.older[older].cuts(Side::Client)
    }

    /// Whether the server, which has not heard of a newer pipe, has something to say to an older one.
    pub fn wants_transmit_older(&self) -> bool {
        self.is_behind().is_some() && self.peek(Side::Server).wants_transmit()
    }

    /// Lets the server, which has not heard of a newer pipe, write a record to an older one. Nobody reads it: the
    /// client has left. Returns its length.
    ///
    /// # Panics
    ///
    /// If the server is inconsistent after it, or the record breaks a rule.
    pub fn transmit_older(&mut self, max: usize) -> usize {
        let Some(older) = self.is_behind() else { return 0 };
        let epoch = self.older[older].epoch;
        let mut out = Vec::new();
        let length = self.server.get_mut().poll_transmit(self.now, max, &mut out);
        self.peek(Side::Server).check_invariants();
        if length > 0 {
            self.observe(Side::Server, epoch, &out.concat());
        }
        length
    }

    /// Brings at most `count` of the bytes that the client wrote to an older pipe to the server. Returns how many.
    ///
    /// # Panics
    ///
    /// If the server is inconsistent after it.
    pub fn deliver_older(&mut self, older: usize, count: usize) -> usize {
        let (before, was_there) = (self.server_epoch, !self.peek(Side::Server).is_closed());
        let Some(pipe) = self.older.get_mut(older) else { return 0 };
        let Some(arrived) = pipe.take(Side::Client, count) else { return 0 };
        let (length, epoch) = (arrived.bytes.len(), pipe.epoch);
        pipe.arrive(self.server.get_mut(), self.now, arrived.bytes);
        let is_effective = pipe.acceptor.is_none() && epoch >= before;
        self.note_server_epoch();
        if is_effective && was_there {
            self.note_ends(Side::Client, arrived.ends);
        }
        self.peek(Side::Server).check_invariants();
        length
    }

    /// The older pipe that the server is on, if it has not heard of the present one.
    fn is_behind(&self) -> Option<usize> {
        self.pipe.acceptor.as_ref()?;
        self.older.iter().rposition(|pipe| pipe.acceptor.is_none())
    }

    /// Checks that what comes from pipes that an end has left changes nothing: frames, closes and errors.
    ///
    /// # Panics
    ///
    /// If it does.
    pub fn check_fencing(&self) {
        for side in BOTH {
            let before = self.peek(side).fingerprint(self.now);
            let mut end = self.peek(side).clone();
            for epoch in (0..self.epoch_of(side).0).map(Epoch) {
                end.handle_input(self.now, epoch, Bytes::from_static(POISON));
                end.handle_pipe_closed(self.now, epoch, PipeClosed::Failed);
            }
            assert_eq!(end.fingerprint(self.now), before, "fencing: {side:?}");
        }
    }

    /// Checks that a pipe that may not carry the session changes nothing, and learns what it may: nothing without a
    /// proof, that it is stale with one.
    ///
    /// # Panics
    ///
    /// If it does, or learns anything else.
    pub fn check_proof_first(&self) {
        if self.peek(Side::Server).id().is_none() {
            return;
        }
        let before = self.peek(Side::Server).fingerprint(self.now);
        let mut server = self.peek(Side::Server).clone();
        let present = self.epoch_of(Side::Server);
        for epoch in [Epoch(0), present, Epoch(present.0 + 1)] {
            let refused = server.resume(self.now, epoch, &WRONG, &mut self.acceptor());
            assert_eq!(refused, Err(Refused::Unknown), "proof_first: a wrong one");
        }
        let refused = server.resume(self.now, present, &SECRET, &mut self.acceptor());
        assert!(self.is_stale(refused), "proof_first: the present epoch, {refused:?}");
        for (_, record) in self.resumes.iter().filter(|(epoch, _)| *epoch <= present) {
            let mut acceptor = self.acceptor();
            match acceptor.handle_input(record.clone()) {
                Some(Arrival::Resume { epoch, proof, .. }) => {
                    let refused = server.resume(self.now, epoch, &proof, &mut acceptor);
                    assert!(self.is_stale(refused), "proof_first: a replay, {refused:?}");
                }
                arrival => panic!("proof_first: {arrival:?} in a replay"),
            }
        }
        assert_eq!(server.fingerprint(self.now), before, "proof_first: it had an effect");
    }

    /// Whether that is the server's answer to a proof that holds and an epoch that does not.
    fn is_stale(&self, outcome: Result<(), Refused>) -> bool {
        match outcome {
            Err(Refused::Stale(epoch)) => epoch == self.epoch_of(Side::Server),
            Err(Refused::Expired | Refused::Closed(_)) => self.peek(Side::Server).is_closed(),
            Ok(()) | Err(_) => false,
        }
    }

    /// The number of the pipe that `side` was on last.
    fn epoch_of(&self, side: Side) -> Epoch {
        match side {
            Side::Client => self.epoch,
            Side::Server => self.server_epoch,
        }
    }

    fn acceptor(&self) -> Acceptor {
        Acceptor::new(&self.config)
    }
}

/// A record that no end may send.
const POISON: &[u8] = &[0];

const WRONG: Secret = Secret::new([0x5f; Secret::LEN]);
