//! Pipes come and go: how a session gets one, loses it, and gets the next.
//!
//! In: news of pipes from their owner. Out: what has to go out again on the next one, or the end of the session.
//! Keeps: the present pipe's state; bytes and events of any other have no effect. Spec: PROTOCOL §3.1, §6.3.

use alloc::boxed::Box;

use crate::accept::Acceptor;
use crate::error::{AttachError, CloseReason, PipeClosed};
use crate::exchange::Exchange;
use crate::id::{Epoch, Side};
use crate::liveness::Liveness;
use crate::rate::Rate;
use crate::record::RecordReader;
use crate::resume::{Detached, Refused, Secret};
use crate::session::{Phase, Session};
use crate::standing_queue::StandingQueue;
use crate::time::Instant;

/// The pipe that carries the session now. Its number is the session's [epoch](Session).
#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    pub(crate) records: RecordReader,
    pub(crate) liveness: Liveness,
    pub(crate) rate: Rate,
    /// Only where somebody types beside bulk.
    pub(crate) standing_queue: Option<Box<StandingQueue>>,
    /// Nothing that was written is on its way in it, though some may be about to be.
    pub(crate) is_at_rest: bool,
    pub(crate) parameters_sent: bool,
    /// What the peer declared for this pipe. `None` until it did.
    pub(crate) peer: Option<PipeLimits>,
    /// What both ends tell each other on a pipe that is not the session's first, until they have.
    pub(crate) exchange: Option<Box<Exchange>>,
    /// The peer shall know that its session limit holds us up (RFC 9000 §4.1).
    pub(crate) data_blocked_owed: bool,
    pub(crate) acks: Acks,
}

/// What the peer declares anew for each pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PipeLimits {
    pub(crate) max_record_size: u64,
    pub(crate) max_idle_timeout: u64,
}

/// What the peer is still to hear of what has arrived (PROTOCOL §6.2).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Acks {
    /// Bytes that arrived and were not acknowledged, on all streams together.
    pub(crate) bytes: u64,
    /// It has waited long enough, or it is worth a frame.
    pub(crate) owed: bool,
    /// When it has waited long enough.
    pub(crate) due: Option<Instant>,
}

impl Pipe {
    fn new(now: Instant, max_record_size: u64, exchange: Option<Box<Exchange>>) -> Self {
        Self {
            records: RecordReader::new(max_record_size),
            liveness: Liveness::new(now),
            rate: Rate::default(),
            standing_queue: None,
            is_at_rest: true,
            parameters_sent: false,
            peer: None,
            exchange,
            data_blocked_owed: false,
            acks: Acks::default(),
        }
    }
}

impl Session {
    /// There is a pipe that this end opened, or a bare session's only one: the one with number `epoch`.
    ///
    /// A session that can resume takes another pipe at any time: what is left of the one before has no effect from
    /// now on, and what the peer may not have goes out again on this one. Epochs grow, from 0 for the first pipe.
    ///
    /// # Errors
    ///
    /// [`AttachError::NotResumable`] for a second pipe of a session that both ends have not agreed to resume, or of
    /// one whose pipes the peer opens; [`AttachError::Stale`] for an epoch that is not new, or beyond 2^62 - 1, which
    /// the wire cannot say; [`AttachError::Closed`] once the session is over.
    pub fn attach(&mut self, now: Instant, epoch: Epoch) -> Result<(), AttachError> {
        if self.is_closed() {
            return Err(AttachError::Closed);
        }
        if let Some(last) = self.epoch {
            if self.resume.is_none() || self.side == Side::Server {
                return Err(AttachError::NotResumable);
            }
            if !epoch.follows(last) {
                return Err(AttachError::Stale(last));
            }
        }
        self.take_pipe(now, epoch);
        Ok(())
    }

    /// As [`attach`](Self::attach), for a session's first pipe, whose beginning an [`Acceptor`] has read.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub fn attach_accepted(
        &mut self,
        now: Instant,
        epoch: Epoch,
        mut acceptor: Acceptor,
    ) -> Result<(), AttachError> {
        self.attach(now, epoch)?;
        self.take_over(now, epoch, &mut acceptor);
        Ok(())
    }

    /// As [`attach`](Self::attach), for a later pipe, which has asked for this session with `epoch` and `proof`
    /// ([`Arrival::Resume`](crate::Arrival::Resume)). The owner has made sure that it is of the same peer.
    ///
    /// # Errors
    ///
    /// Why not. The session is as it was, and `acceptor` has the answer for the peer to be sent, after which the
    /// owner closes the pipe.
    pub fn resume(
        &mut self,
        now: Instant,
        epoch: Epoch,
        proof: &Secret,
        acceptor: &mut Acceptor,
    ) -> Result<(), Refused> {
        if let Some(tombstone) = self.tombstone() {
            return Err(tombstone.refuse(proof, acceptor));
        }
        let known = self.resume.as_ref().filter(|_| self.side == Side::Server);
        if known.is_none_or(|resume| resume.secret != *proof) {
            if sabotaged!(ResumeBeforeProof) && self.resume.is_some() {
                self.take_pipe(now, epoch);
            }
            return Err(acceptor.refuse());
        }
        if let Some(last) = self.epoch.filter(|&last| !epoch.follows(last)) {
            return Err(acceptor.answer(Refused::Stale(last), alloc::vec::Vec::new()));
        }
        self.take_pipe(now, epoch);
        self.take_over(now, epoch, acceptor);
        Ok(())
    }

    /// The pipe with number `epoch` ended. The end of any other pipe has no effect.
    ///
    /// A session that can resume is detached; any other is over.
    pub fn handle_pipe_closed(&mut self, now: Instant, epoch: Epoch, how: PipeClosed) {
        if self.pipe.is_none() || self.epoch != Some(epoch) {
            return;
        }
        self.lose_pipe(now, Detached::Pipe(how), CloseReason::PipeLost(how));
    }

    /// The pipe is of no use any more. `why` is what ends the session if it cannot do without.
    pub(crate) fn lose_pipe(&mut self, now: Instant, how: Detached, why: CloseReason) {
        self.pipe = None;
        match (&mut self.phase, &mut self.resume) {
            (Phase::Closed(closed), _) => closed.frame = None,
            (Phase::Open | Phase::Closing(_), None) => self.end(why, None),
            (Phase::Open | Phase::Closing(_), Some(resume)) => {
                resume.gone_at.get_or_insert(now + resume.grace);
                self.news.detached = Some(how);
                if self.config.fail_fast {
                    self.wake_all();
                }
                self.offer_room();
                self.watch_rest(now);
            }
        }
    }

    fn take_pipe(&mut self, now: Instant, epoch: Epoch) {
        let exchange = self.epoch.is_some().then(Box::<Exchange>::default);
        if exchange.is_some() {
            let resume = self.resume.as_mut().expect("only a session that can resume gets a second pipe");
            resume.gone_at.get_or_insert(now + resume.grace);
            self.rewind();
            if let Some(draining) = &mut self.draining {
                draining.owed |= !sabotaged!(DrainLostAtDetach);
            }
        }
        self.epoch = Some(epoch);
        self.pipe = Some(Pipe::new(now, self.config.max_record_size, exchange));
        // Only of a session that has but this pipe.
        if let Some(agreed) = self.config.early_parameters() {
            self.raise_limits(now, &agreed);
        }
        self.offer_room();
        self.watch_rest(now);
    }

    /// Goes on where the acceptor has stopped.
    fn take_over(&mut self, now: Instant, epoch: Epoch, acceptor: &mut Acceptor) {
        if let Some(pipe) = &mut self.pipe {
            pipe.parameters_sent = acceptor.parameters_sent;
        }
        for bytes in acceptor.take_input() {
            self.handle_input(now, epoch, bytes);
        }
    }

    /// Everything that the peer may not have is to go out again.
    fn rewind(&mut self) {
        self.held.rewind();
        let mut next = self.streams.after(None);
        while let Some(id) = next {
            let entry = self.streams.get_mut(id).expect("it was just found");
            if let Some(send) = &mut entry.send {
                self.chunks.put_before(&mut send.unacked, &mut send.queue);
                send.rewind();
            }
            if let Some(recv) = &mut entry.recv {
                recv.rewind();
            }
            self.streams.schedule(id);
            next = self.streams.after(Some(id));
        }
    }

    /// Whether there is a pipe that may carry more than what begins it.
    pub(crate) fn carries_frames(&self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        match &pipe.exchange {
            // The limits are known, be it since they are agreed on.
            None => self.peer.is_some(),
            Some(exchange) => exchange.lets_frames_out(self.side, self.config.optimistic_resend),
        }
    }

    /// Whether the session goes on without a pipe.
    pub fn is_detached(&self) -> bool {
        self.pipe.is_none() && self.epoch.is_some() && !self.is_closed()
    }

    /// What the peer's bytes said so far about this pipe, for those who read them.
    pub(crate) fn input(&mut self, epoch: Epoch) -> Option<&mut Pipe> {
        let is_present = self.epoch == Some(epoch) || sabotaged!(StaleEpochAccepted);
        self.pipe.as_mut().filter(|_| is_present)
    }
}
