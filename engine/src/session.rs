//! The session: what its owner calls, and the state that the frames work on.
//!
//! What comes in is handled in `receive.rs`, what goes out is made in `transmit.rs`, what the application does
//! with a stream is in `stream/`; pipes come and go in `pipe.rs`, news are told in `event.rs`. This file holds the frame
//! around them: time, the close.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};

use crate::budget::Share;
use crate::chunks::Chunks;
use crate::config::Config;
use crate::drain::Draining;
use crate::entry::Surfaced;
use crate::error::{CloseReason, MAX_REASON, OpenError, UnknownStream, Violation};
use crate::event::SessionNews;
use crate::flow::{SendCredit, SessionWindow};
use crate::frame::{Close, CloseKind};
use crate::id::{ByDir, Code, Dir, Epoch, Side, StreamId};
use crate::kept_credit::KeptCredit;
use crate::liveness::Rtt;
use crate::offers::Rest;
use crate::params::StreamLimits;
use crate::pipe::Pipe;
use crate::resume::{Detached, MAX_REMEMBERED, Resume, SessionId, Tombstone};
use crate::room::Held;
use crate::stream::{Recv, Send, Stream};
use crate::streams::Streams;
use crate::time::Instant;
use crate::work::Work;

/// One end of a multiplexed session. Plain data: no socket, clock, waker, lock or randomness.
///
/// Every call is legal at any time. After any of them [`poll_transmit`](Self::poll_transmit),
/// [`poll_timeout`](Self::poll_timeout) and [`poll_event`](Self::poll_event) answer from the present state.
#[derive(Clone, Debug)]
pub struct Session {
    pub(crate) side: Side,
    pub(crate) config: Arc<Config>,
    pub(crate) phase: Phase,
    pub(crate) pipe: Option<Pipe>,
    /// The epoch of the last pipe that was attached.
    pub(crate) epoch: Option<Epoch>,
    /// What the peer declared for streams on the first pipe, or is held to until it does. `None` until then.
    pub(crate) peer: Option<StreamLimits>,
    /// Both ends want the session to outlive its pipe. Boxed, as whatever not every session has.
    pub(crate) resume: Option<Box<Resume>>,
    pub(crate) streams: Streams,
    /// The payload of all streams, both ways.
    pub(crate) chunks: Chunks,
    /// What we promised to receive on all streams together.
    pub(crate) window: SessionWindow,
    /// What the peer promised us on all streams together.
    pub(crate) credit: SendCredit,
    /// What of that is kept for interactive streams.
    pub(crate) kept_credit: KeptCredit,
    /// What the application wrote and is kept.
    pub(crate) held: Held,
    /// Whether those who were told of room come.
    pub(crate) rest: Rest,
    /// The drain that this end began.
    pub(crate) draining: Option<Box<Draining>>,
    /// The peer has begun one.
    pub(crate) peer_drains: bool,
    pub(crate) news: SessionNews,
    pub(crate) stats: Stats,
    /// What the peer has made us do for nothing.
    pub(crate) work: Work,
    /// Where frame headers are written. Kept between records for its allocation only.
    pub(crate) scratch: BytesMut,
}

/// The session's life.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Open,
    /// The application asked for the end; what it wrote before goes out first.
    Closing(Box<Closing>),
    /// It is over.
    Closed(Box<Closed>),
}

/// An end that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) code: Code,
    pub(crate) reason: Bytes,
    pub(crate) deadline: Instant,
}

/// The end of a session.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) why: CloseReason,
    /// The application has heard of it.
    pub(crate) told: bool,
    /// The CONNECTION_CLOSE that the peer is still to get.
    pub(crate) frame: Option<Close>,
    /// How far the streams that were live had come here, for a peer that resumes too late.
    received: Vec<(StreamId, u64)>,
}

/// What has passed through a session since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes that came from pipes.
    pub bytes_received: u64,
    /// Bytes that were handed to pipes.
    pub bytes_sent: u64,
    /// Records that were handed to pipes.
    pub records_sent: u64,
}

/// How the session's flow control stands, in bytes over all streams (RFC 9000 §4.1).
///
/// `promised`, `unread` and `withheld` always make up the session window: credit is neither lost nor made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credit {
    /// What the peer allows this end to send, beyond what was written.
    pub available: u64,
    /// What this end allows the peer to send, beyond what came.
    pub promised: u64,
    /// What came and was not read.
    pub unread: u64,
    /// What could still be promised: the session window starts small, and what was read is promised anew later.
    pub withheld: u64,
    /// What was written in all, less what was taken back by a reset before it went out.
    pub written: u64,
    /// What came in all.
    pub received: u64,
}

/// Which deadline [`Session::poll_timeout`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// The peer has been silent for so long that it will be asked for a sign of life.
    KeepAlive,
    /// The peer has been silent for so long that it is given up.
    Idle,
    /// A close has taken so long that what has not gone out is given up.
    Close,
    /// What has arrived is acknowledged.
    Ack,
    /// The drain has taken so long that what has not finished is given up.
    Drain,
    /// The session has been without a pipe for so long that it is given up.
    Grace,
    /// None of those who were told that the session has room has written for so long that all others are told as well, or what
    /// was kept for them is for all.
    Room,
}

/// The transport error code of a session that was not resumed in time (PROTOCOL §6.7).
const SESSION_EXPIRED: u64 = 0x544c_0001;

impl Session {
    /// A session with no pipe yet. Many of them can share one configuration.
    pub fn new(side: Side, config: impl Into<Arc<Config>>) -> Self {
        let config = Config::clamped(config.into());
        let concurrent = ByDir { bi: config.max_streams(Dir::Bi), uni: config.max_streams(Dir::Uni) };
        Self {
            side,
            phase: Phase::Open,
            pipe: None,
            epoch: None,
            peer: None,
            resume: None,
            streams: Streams::new(side, concurrent),
            chunks: Chunks::default(),
            window: SessionWindow::new(
                config.session_window,
                config.initial_session_window(),
                Share::new(config.budget.clone()),
            ),
            credit: SendCredit::default(),
            kept_credit: KeptCredit::default(),
            held: Held::default(),
            rest: Rest::default(),
            draining: None,
            peer_drains: false,
            news: SessionNews::default(),
            stats: Stats::default(),
            work: Work::default(),
            scratch: BytesMut::new(),
            config,
        }
    }

    // In.

    /// Bytes arrived from the pipe with number `epoch`, cut anywhere. Those of any other pipe have no effect.
    ///
    /// Payload is not copied: streams keep slices of `bytes` until they are read. A caller who wants the
    /// buffer behind them back calls [`copy_out`](Self::copy_out).
    pub fn handle_input(&mut self, now: Instant, epoch: Epoch, mut bytes: Bytes) {
        if self.is_closed() || bytes.is_empty() {
            return;
        }
        let Some(pipe) = self.input(epoch) else { return };
        pipe.liveness.handle_input(now);
        self.stats.bytes_received += bytes.len() as u64;
        while let Some(pipe) = self.input(epoch) {
            let outcome = match pipe.records.next(&mut bytes) {
                Ok(Some(item)) => self.on_item(now, item),
                Ok(None) => break,
                Err(violation) => Err(violation),
            };
            if let Err(violation) = outcome {
                return self.refuse(violation);
            }
            if self.is_closed() {
                return;
            }
        }
        self.watch_rest(now);
    }

    /// The time is `now`. Does what [`poll_timeout`](Self::poll_timeout) announced, if it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, timer)) = self.poll_timeout() {
            if now < deadline {
                return;
            }
            match timer {
                Timer::KeepAlive => {
                    self.ping();
                    self.shrink();
                }
                // Silently: whoever might listen has been gone for longer than both agreed (RFC 9000 §10.1).
                Timer::Idle => {
                    let liveness = self.pipe.as_mut().map(|pipe| &mut pipe.liveness);
                    if liveness.is_none_or(|liveness| !liveness.spare(now, deadline)) {
                        self.lose_pipe(now, Detached::IdleTimeout, CloseReason::IdleTimeout);
                    }
                }
                Timer::Close => {
                    if let Phase::Closing(closing) = &self.phase {
                        let (code, reason) = (closing.code, closing.reason.clone());
                        let kind = CloseKind::Application { code };
                        // Everything may have arrived, and only a pipe to say the close on was missing.
                        let why = if self.has_flushed() {
                            CloseReason::Local(code)
                        } else {
                            CloseReason::LocalUnflushed(code)
                        };
                        self.end(why, Some(Close { kind, reason }));
                    }
                }
                Timer::Ack => {
                    if let Some(pipe) = &mut self.pipe {
                        (pipe.acks.owed, pipe.acks.due) = (true, None);
                    }
                }
                Timer::Drain => self.end_drain(),
                Timer::Room => self.end_waits(now),
                Timer::Grace => {
                    let kind = CloseKind::Transport { code: SESSION_EXPIRED, frame_type: 0 };
                    let reason = Bytes::from_static(b"the session was given up before it was resumed");
                    self.end(CloseReason::Expired, Some(Close { kind, reason }));
                }
            }
        }
    }

    /// Copies what streams still hold of the bytes given to [`handle_input`](Self::handle_input), so that the
    /// buffer behind them is free.
    pub fn copy_out(&mut self) {
        self.chunks.copy_out();
    }

    // The application's verbs.

    /// Opens a stream. The peer learns of it with the first byte, or its end.
    ///
    /// # Errors
    ///
    /// [`OpenError::Blocked`] if the peer allows no more streams now, [`OpenError::Closed`] once the session is
    /// over or was asked to close, [`OpenError::Detached`] if it
    /// [fails fast](Config::fail_fast), [`OpenError::Draining`] if the peer is ending it.
    pub fn open(&mut self, dir: Dir) -> Result<StreamId, OpenError> {
        if !matches!(self.phase, Phase::Open) {
            return Err(OpenError::Closed);
        }
        if self.fails_now() {
            return Err(OpenError::Detached);
        }
        if self.peer_drains {
            return Err(OpenError::Draining);
        }
        let id = self.streams.next_local(dir).ok_or(OpenError::Blocked(dir))?;
        let peer = self.peer.as_ref().expect("the peer's limits are known");
        let (send, recv) = halves(self.side, self.config.stream_window, peer, id);
        self.streams.insert(id, send, recv);
        Ok(id)
    }

    /// Takes the next stream that the peer has opened, in the order in which their first bytes came.
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        self.streams.accept(dir)
    }

    /// The stream with this id, to read, write and end.
    ///
    /// # Errors
    ///
    /// [`UnknownStream`] if it was neither opened nor accepted, or was released.
    pub fn stream(&mut self, id: StreamId) -> Result<Stream<'_>, UnknownStream> {
        match self.streams.get(id) {
            Some(entry) if entry.surfaced == Surfaced::Known && !entry.released => Ok(Stream::new(self, id)),
            _ => Err(UnknownStream(id)),
        }
    }

    /// The application is done with the stream: what it did not finish is reset with `code`, what it did not
    /// read to the end is stopped with `code`. Once the peer knows, the stream's place in the limits is free.
    ///
    /// Every stream that was opened or accepted must be released, however it ended. Releasing one twice, or one
    /// that does not exist, has no effect.
    pub fn release(&mut self, id: StreamId, code: Code) {
        let Ok(mut stream) = self.stream(id) else { return };
        if !stream.is_finished() {
            // Too late only if the session is ending, and then nothing is to be taken back.
            let _ = stream.reset(code);
        }
        // Too late if the end is known.
        let _ = stream.stop(code);
        let entry = self.streams.get_mut(id).expect("it was just there");
        entry.released = true;
        entry.news = Default::default();
        if self.is_closed() {
            self.forget(id);
        } else {
            self.streams.retire(id);
        }
    }

    /// Ends the session once everything that was accepted before has gone out, or after the close timeout.
    ///
    /// `reason` is for the peer's eyes; it is cut at [`MAX_REASON`] bytes. Writes and opens are refused from now
    /// on; reads go on. Without effect on a session that is over or closing.
    pub fn close(&mut self, now: Instant, code: Code, reason: &[u8]) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if self.pipe.is_none() && self.resume.is_none() {
            return self.end(CloseReason::Local(code), None);
        }
        let reason = Bytes::copy_from_slice(&reason[..reason.len().min(MAX_REASON)]);
        let deadline = now + self.config.close_timeout;
        self.phase = Phase::Closing(Box::new(Closing { code, reason, deadline }));
    }

    /// There will be no other pipe: a session that waits for one ends at once, as if the grace period were over
    /// ([`CloseReason::Expired`]). Without effect on one that has a pipe.
    pub fn give_up(&mut self) {
        if self.is_detached() {
            self.end(CloseReason::Expired, None);
        }
    }

    /// Asks the peer for a sign of life, which also measures the round-trip time.
    pub fn ping(&mut self) {
        if let (Some(pipe), false) = (&mut self.pipe, matches!(self.phase, Phase::Closed(_))) {
            pipe.liveness.ask();
        }
    }

    // Out. `poll_transmit` is in transmit.rs.

    /// When to call [`handle_timeout`](Self::handle_timeout), and what for. `None`: never.
    ///
    /// Calling it early does nothing; calling it late does what was due.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let close = match &self.phase {
            Phase::Open => None,
            Phase::Closing(closing) => Some((closing.deadline, Timer::Close)),
            Phase::Closed(_) => return None,
        };
        let grace = self.resume.as_ref().and_then(|resume| Some((resume.gone_at?, Timer::Grace)));
        let drain = self.draining.as_ref().map(|draining| (draining.deadline, Timer::Drain));
        let room = self.waits_end_at().map(|at| (at, Timer::Room));
        let anyway = [close, grace, drain, room].into_iter().flatten().min();
        let Some(pipe) = &self.pipe else { return anyway };
        let idle_timeout = self.config.idle_timeout_with(pipe.peer.map(|peer| peer.max_idle_timeout));
        let idle = idle_timeout.map(|timeout| (pipe.liveness.dead_at(timeout), Timer::Idle));
        let interval = self.config.keep_alive.filter(|_| self.carries_frames());
        let ask = interval.and_then(|interval| Some((pipe.liveness.ping_at(interval)?, Timer::KeepAlive)));
        let ack = pipe.acks.due.filter(|_| !pipe.acks.owed).map(|due| (due, Timer::Ack));
        [anyway, idle, ask, ack].into_iter().flatten().min()
    }

    /// The round-trip time on the pipe, as measured by pings. `None` until one was answered.
    pub fn rtt(&self) -> Option<Rtt> {
        self.pipe.as_ref()?.liveness.rtt()
    }

    /// Whether something was handed to the pipe since something came from it, were it an acknowledgement. If nothing comes for long
    /// after that, not even the answer to a [`ping`](Self::ping), the pipe may be dead, though it is not the idle timeout yet.
    pub fn has_spoken_last(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.liveness.has_spoken_last())
    }

    /// What has passed through since the session began.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How the session's flow control stands.
    pub fn credit(&self) -> Credit {
        Credit {
            available: self.credit.available(),
            promised: self.window.promised(),
            unread: self.window.unread(),
            withheld: self.window.withheld(),
            written: self.credit.used(),
            received: self.window.received(),
        }
    }

    /// Which end of the session this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// How many streams are open, or ended and not yet released.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// The name under which the session can be resumed. `None` until both ends have declared that they want that.
    pub fn id(&self) -> Option<SessionId> {
        self.resume.as_ref().map(|resume| resume.id)
    }

    /// What to keep of a session that is over and could have been resumed, to answer a peer that comes late.
    pub fn tombstone(&self) -> Option<Tombstone> {
        match (&self.phase, &self.resume) {
            (Phase::Closed(closed), Some(resume)) => {
                Some(Tombstone::new(resume.secret.clone(), &closed.why, closed.received.clone()))
            }
            _ => None,
        }
    }

    /// Whether the session is over. There may still be a last record to send, and bytes to read.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    // For the other files.

    /// Ends the session because the peer broke a rule, and tells it so.
    fn refuse(&mut self, violation: Violation) {
        let kind = CloseKind::Transport { code: violation.code(), frame_type: 0 };
        let reason = Bytes::from_static(violation.reason().as_bytes());
        self.end(CloseReason::Violation(violation), Some(Close { kind, reason }));
    }

    /// The session is over. What was to be sent is dropped, but for `frame`; what was received stays.
    pub(crate) fn end(&mut self, why: CloseReason, frame: Option<Close>) {
        #[cfg(feature = "tracing")]
        tracing::debug!(side = ?self.side, %why, "session over");
        let received = match &self.resume {
            Some(_) => self.streams.progress().take(MAX_REMEMBERED).collect(),
            None => Vec::new(),
        };
        self.phase = Phase::Closed(Box::new(Closed { why, told: false, frame, received }));
        let ids: Vec<_> = self.streams.iter().map(|(id, _)| id).collect();
        for id in ids {
            let entry = self.streams.get_mut(id).expect("it was just there");
            let known = entry.surfaced != Surfaced::Hidden && !entry.released;
            if let Some(send) = &mut entry.send {
                send.give_up();
                self.chunks.clear(&mut send.unacked);
                self.chunks.clear(&mut send.queue);
            }
            if !known {
                self.forget(id);
            }
        }
        (self.held, self.rest, self.kept_credit) = (Held::default(), Rest::None, KeptCredit::default());
    }

    /// Gives back what is kept for the next time: there has been nothing to do for a while.
    fn shrink(&mut self) {
        self.scratch = BytesMut::new();
        self.streams.shrink();
        self.chunks.shrink();
    }

    /// Whether verbs that would wait for a pipe are to say so instead.
    pub(crate) fn fails_now(&self) -> bool {
        self.config.fail_fast && self.is_detached()
    }

    /// Drops a stream of a session that is over.
    fn forget(&mut self, id: StreamId) {
        if let Some(recv) = self.streams.get_mut(id).and_then(|entry| entry.recv.as_mut()) {
            let mut queue = core::mem::take(&mut recv.queue);
            self.chunks.clear(&mut queue);
        }
        self.streams.remove(id);
    }
}

/// The halves of a new stream, as the end on `side` has them.
pub(crate) fn halves(
    side: Side,
    window: u64,
    peer: &StreamLimits,
    id: StreamId,
) -> (Option<Send>, Option<Recv>) {
    let send = id.sends(side).then(|| Send::new(peer.of(side.peer(), id)));
    let recv = id.receives(side).then(|| Recv::new(window));
    (send, recv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;

    /// What an idle session and an idle stream cost, without the nodes of the map and the allocator's own words: see
    /// `towline-bench figures`. Whoever makes them larger should know.
    #[test]
    fn sizes() {
        let sizes = [size_of::<Session>(), size_of::<Entry>()];
        assert!(sizes[0] <= 968 && sizes[1] <= 208, "{sizes:?}");
    }
}
