//! What both ends tell each other first on a pipe that is not the session's first: who resumes, and how every
//! stream stands.
//!
//! In: RESUME or its answer, then the peer's state. Out: the same of this end. Keeps: how far each has come; a
//! frame is made from the session's state when it is written. Spec: PROTOCOL §6.3 to §6.5.

use core::ops::Bound::{Excluded, Unbounded};

use crate::error::{CloseReason, Violation};
use crate::frame::{Frame, MAX_SHORT_FRAME, MAX_STATE_FRAME, Refusal, SessionState};
use crate::id::{ByDir, Dir, Side, StreamId};
use crate::record::Item;
use crate::record_writer::RecordWriter;
use crate::resume::{Detached, Refused};
use crate::session::Session;
use crate::stream::End;
use crate::time::Instant;

/// How far the exchange has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// What this end has told.
    pub(crate) ours: Step,
    /// What the peer has told.
    pub(crate) theirs: Step,
    /// How many of this end's streams the peer has seen, once it has told.
    pub(crate) seen: ByDir<u64>,
}

/// One end's part of the exchange: what comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Step {
    /// RESUME, or the answer to it.
    #[default]
    Opening,
    /// SESSION_STATE.
    Session,
    /// STREAM_STATE for the streams after this one, in the order of their ids; then STATE_END.
    Streams(Option<StreamId>),
    /// Nothing: it is complete.
    Done,
}

impl Exchange {
    /// Whether this end may say other things.
    ///
    /// The end that accepts waits for the peer's state, since it comes in the same flight as the RESUME. The other
    /// would wait for a round trip; what it sends before may be refused, or be there already.
    pub(crate) fn lets_frames_out(&self, side: Side, optimistic: bool) -> bool {
        self.ours == Step::Done && (self.theirs == Step::Done || side == Side::Client && optimistic)
    }

    fn is_over(&self) -> bool {
        self.ours == Step::Done && self.theirs == Step::Done
    }
}

impl Session {
    // Out.

    /// Writes what this end has yet to tell, as far as it fits.
    pub(crate) fn write_exchange(&mut self, record: &mut RecordWriter<'_>) {
        while record.space() >= MAX_STATE_FRAME
            && let Some(step) = self.exchange().map(|exchange| exchange.ours)
        {
            let next = match step {
                Step::Opening => {
                    record.frame(&self.opening());
                    Step::Session
                }
                Step::Session => {
                    record.frame(&Frame::SessionState(SessionState {
                        opened: self.streams.remote_opened(),
                        max_data: if sabotaged!(LimitShrinksOnResume) { 0 } else { self.window.limit() },
                        max_streams: self.streams.remote_limits(),
                    }));
                    Step::Streams(None)
                }
                Step::Streams(last) => match self.streams.after(last) {
                    Some(id) => {
                        self.write_stream_state(id, record);
                        Step::Streams(Some(id))
                    }
                    None => {
                        record.frame(&Frame::StateEnd);
                        Step::Done
                    }
                },
                Step::Done => return,
            };
            if let Some(exchange) = self.exchange() {
                exchange.ours = next;
            }
            self.end_exchange();
        }
    }

    fn opening(&self) -> Frame {
        let epoch = self.epoch.expect("there is a pipe");
        match (self.side, &self.resume) {
            (Side::Client, Some(resume)) => {
                Frame::Resume { session: resume.id, secret: resume.secret.clone(), epoch }
            }
            _ => Frame::Resumed { epoch },
        }
    }

    /// Tells how a stream stands. Who hears of its end in this way needs no other word about it.
    fn write_stream_state(&mut self, id: StreamId, record: &mut RecordWriter<'_>) {
        debug_assert!(record.space() >= MAX_SHORT_FRAME);
        let entry = self.streams.get_mut(id).expect("it was just found");
        let (received, limit) = match &mut entry.recv {
            Some(recv) => {
                recv.acked = recv.progress();
                (recv.acked, recv.window.limit())
            }
            None => (0, 0),
        };
        record.frame(&Frame::StreamState { id, received, limit });
        self.streams.retire(id);
    }

    // In.

    /// Takes what the peer tells before it may say other things.
    pub(crate) fn on_exchange(&mut self, now: Instant, item: Item) -> Result<(), Violation> {
        let Item::Frame(frame) = item else { return Err(Violation::ResumeOutOfPlace) };
        let (side, epoch) = (self.side, self.epoch);
        let theirs = self.exchange().expect("there is an exchange").theirs;
        let next = match (theirs, frame) {
            (_, Frame::Padding) => return Ok(()),
            (_, Frame::Close(close)) => {
                self.on_close(close);
                return Ok(());
            }
            // The owner has looked at the proof before it attached the pipe.
            (Step::Opening, Frame::Resume { epoch: theirs, .. })
                if side == Side::Server && epoch == Some(theirs) =>
            {
                Step::Session
            }
            (Step::Opening, Frame::Resumed { epoch: theirs })
                if side == Side::Client && epoch == Some(theirs) =>
            {
                Step::Session
            }
            (Step::Opening, Frame::ResumeRefused(refusal)) if side == Side::Client => {
                return self.on_refused(now, &refusal);
            }
            (Step::Session, Frame::SessionState(state)) => {
                self.on_session_state(now, state)?;
                Step::Streams(None)
            }
            (Step::Streams(last), Frame::StreamState { id, received, limit }) => {
                if last.is_some_and(|last| id <= last) {
                    return Err(Violation::ResumeOutOfPlace);
                }
                self.on_absent_between(last, Some(id))?;
                self.on_stream_state(id, received, limit)?;
                Step::Streams(Some(id))
            }
            (Step::Streams(last), Frame::StateEnd) => {
                self.on_absent_between(last, None)?;
                Step::Done
            }
            _ => return Err(Violation::ResumeOutOfPlace),
        };
        if let Some(exchange) = self.exchange() {
            exchange.theirs = next;
        }
        self.end_exchange();
        Ok(())
    }

    fn on_refused(&mut self, now: Instant, refusal: &Refusal) -> Result<(), Violation> {
        for &(id, received) in &refusal.received {
            let knows = id.sends(self.side) && self.streams.get(id).is_some();
            if knows {
                self.acknowledge(id, received)?;
            }
        }
        let why = refusal.why;
        if let Refused::Stale(epoch) = why {
            self.lose_pipe(now, Detached::Stale(epoch), CloseReason::ResumeRefused(why));
        } else {
            self.pipe = None;
            self.end(CloseReason::ResumeRefused(why), None);
        }
        Ok(())
    }

    fn on_session_state(&mut self, now: Instant, state: SessionState) -> Result<(), Violation> {
        for dir in [Dir::Bi, Dir::Uni] {
            if *state.opened.get(dir) > self.streams.local_opened(dir) {
                return Err(Violation::ResumeState);
            }
            self.on_max_streams(dir, *state.max_streams.get(dir));
        }
        if let Some(exchange) = self.exchange() {
            exchange.seen = state.opened;
        }
        self.on_max_data(now, state.max_data);
        Ok(())
    }

    fn on_stream_state(&mut self, id: StreamId, received: u64, limit: u64) -> Result<(), Violation> {
        if !self.streams.may_exist(id) {
            return Err(Violation::ResumeState);
        }
        // A stream without an entry is over here, which the peer learns from its absence in our state; or the peer
        // has opened it and nothing of it has arrived.
        if self.streams.get(id).is_none() {
            return Ok(());
        }
        if !id.sends(self.side) {
            return if received == 0 { Ok(()) } else { Err(Violation::ResumeState) };
        }
        self.raise_stream_credit(id, limit);
        self.acknowledge(id, received)?;
        Ok(())
    }

    /// The peer has told of no stream between these two.
    fn on_absent_between(
        &mut self,
        first: Option<StreamId>,
        last: Option<StreamId>,
    ) -> Result<(), Violation> {
        let mut at = first;
        while let Some(id) = self.streams.after(at).filter(|&id| last.is_none_or(|last| id < last)) {
            self.on_absent(id)?;
            at = Some(id);
        }
        Ok(())
    }

    /// The peer has told nothing of a stream that is live here: it has never seen it, or is done with it
    /// (PROTOCOL §6.4).
    fn on_absent(&mut self, id: StreamId) -> Result<(), Violation> {
        let seen = self.exchange().expect("there is an exchange").seen;
        let is_seen = id.opener() != self.side || id.index() < *seen.get(id.dir());
        let entry = self.streams.get_mut(id).expect("it was just found");
        if !is_seen {
            let untouched = entry.send.as_ref().is_none_or(|send| send.acked == 0)
                && entry.recv.as_ref().is_none_or(|recv| recv.progress() == 0);
            return if untouched { Ok(()) } else { Err(Violation::ResumeState) };
        }
        if sabotaged!(AbsentGoesOn) {
            return Ok(());
        }
        if let Some(recv) = &mut entry.recv {
            if !recv.state.has_ended() {
                return Err(Violation::ResumeState);
            }
            recv.acked = recv.progress();
        }
        if let Some(send) = &entry.send {
            if send.end == End::Unsent {
                return Err(Violation::ResumeState);
            }
            let all = send.most_acked();
            self.acknowledge(id, all)?;
        }
        self.streams.retire(id);
        Ok(())
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        self.pipe.as_mut()?.exchange.as_deref_mut()
    }

    /// Goes over to everyday life, once both have told all.
    fn end_exchange(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        if pipe.exchange.as_ref().is_some_and(|exchange| exchange.is_over()) {
            pipe.exchange = None;
            pipe.liveness.ask();
            self.news.attached = true;
            self.news.detached = None;
            if let Some(resume) = &mut self.resume {
                resume.gone_at = None;
            }
        }
    }
}

impl crate::streams::Streams {
    /// The first stream after `last`, in the order of ids.
    pub(crate) fn after(&self, last: Option<StreamId>) -> Option<StreamId> {
        let start = last.map_or(Unbounded, Excluded);
        self.range((start, Unbounded))
    }
}
