//! The drain of a session: what was begun may finish, nothing new begins, and nobody is left in doubt.
//!
//! In: the application's wish, or the peer's DRAIN. Out: DRAIN; refusals of streams that came too late, which the
//! application never sees. Keeps: two counts and a deadline. Spec: PROTOCOL §6.8.

use alloc::boxed::Box;
use core::time::Duration;

use crate::error::{CloseReason, Violation};
use crate::event::Event;
use crate::frame::{Close, CloseKind, Drain, Frame, MAX_STATE_FRAME};
use crate::id::{ByDir, Code, StreamId};
use crate::record_writer::RecordWriter;
use crate::session::{Phase, Session};
use crate::time::Instant;

/// A drain that this end began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draining {
    /// How many streams of the peer's had been seen.
    pub(crate) opened: ByDir<u64>,
    pub(crate) deadline: Instant,
    pub(crate) retry: Duration,
    /// The peer is still to be told, on this pipe.
    pub(crate) owed: bool,
}

impl Code {
    /// What a stream is reset and stopped with that came after the drain: no application has seen it, so to try
    /// again elsewhere is safe (PROTOCOL §6.8).
    pub const REFUSED: Self = Self::new(0x544c_0002).unwrap();
}

impl Session {
    /// Ends the session gently: streams that the peer has opened so far may finish until `deadline` has passed,
    /// later ones are refused with [`Code::REFUSED`], and then the session closes with code 0. The peer is told, if
    /// the session [can resume](Self::id), and also after how long it may come `back`.
    ///
    /// This end's own streams may finish, too; new ones are for the peer to refuse. Without effect on a session that
    /// is over, closing or draining.
    pub fn drain(&mut self, now: Instant, deadline: Duration, back: Duration) {
        if !matches!(self.phase, Phase::Open) || self.draining.is_some() {
            return;
        }
        let opened = self.streams.remote_opened();
        let draining = Draining { opened, deadline: now + deadline, retry: back, owed: true };
        self.draining = Some(Box::new(draining));
    }

    /// Whether a stream of the peer's came too late.
    pub(crate) fn is_too_late(&self, id: StreamId) -> bool {
        self.draining
            .as_ref()
            .is_some_and(|draining| id.opener() != self.side && id.index() >= *draining.opened.get(id.dir()))
    }

    /// Ends a stream that came too late, unseen by the application.
    pub(crate) fn refuse_late(&mut self, id: StreamId) {
        self.abandon(id, Code::REFUSED);
        let entry = self.streams.get_mut(id).expect("it was just opened");
        entry.released = true;
        if let Some(recv) = &mut entry.recv {
            recv.stop = Some(Code::REFUSED);
            recv.stop_owed = true;
        }
        self.streams.schedule(id);
    }

    pub(crate) fn drain_owed(&self) -> bool {
        self.resume.is_some() && self.draining.as_ref().is_some_and(|draining| draining.owed)
    }

    pub(crate) fn write_drain(&mut self, now: Instant, record: &mut RecordWriter<'_>) {
        if !self.drain_owed() || record.space() < MAX_STATE_FRAME {
            return;
        }
        let draining = self.draining.as_mut().expect("a drain is owed");
        draining.owed = false;
        let millis = |duration: Duration| {
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(crate::varint::MAX)
        };
        record.frame(&Frame::Drain(Drain {
            opened: draining.opened,
            deadline: millis(draining.deadline.saturating_duration_since(now)),
            retry: millis(draining.retry),
        }));
    }

    pub(crate) fn on_drain(&mut self, drain: Drain) -> Result<(), Violation> {
        if self.resume.is_none() {
            return Err(Violation::UnknownFrame);
        }
        // Said again after a change of pipe.
        if !self.peer_drains {
            self.peer_drains = true;
            self.news.draining = Some(Box::new((drain.deadline, drain.retry)));
        }
        Ok(())
    }

    /// The news of the peer's drain.
    pub(crate) fn take_drain_news(&mut self) -> Option<Event> {
        let (deadline, retry) = *self.news.draining.take()?;
        Some(Event::Draining {
            deadline: Duration::from_millis(deadline),
            retry_after: Duration::from_millis(retry),
        })
    }

    /// The drain's deadline has passed.
    pub(crate) fn end_drain(&mut self) {
        self.draining = None;
        let (code, reason) = match &self.phase {
            Phase::Closing(closing) => (closing.code, closing.reason.clone()),
            Phase::Open | Phase::Closed(_) => Default::default(),
        };
        let why =
            if self.has_flushed() { CloseReason::Local(code) } else { CloseReason::LocalUnflushed(code) };
        self.end(why, Some(Close { kind: CloseKind::Application { code }, reason }));
    }
}
