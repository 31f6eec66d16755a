//! What each frame does to the session: one `on_<frame>` for each.
//!
//! In: items from the record reader. Out: changed state, news for the application, flags and numbers for
//! `transmit.rs`; never a frame. Spec: RFC 9000 §19, PROTOCOL §3 and §4.

use alloc::boxed::Box;
use core::time::Duration;

use bytes::Buf;

use crate::entry::Surfaced;
use crate::error::{CloseReason, Violation};
use crate::exchange::Step;
use crate::frame::{Close, CloseKind, Frame};
use crate::id::{Code, Dir, Epoch, Side, StreamId};
use crate::params::{Parameters, ResumeParameter};
use crate::pipe::PipeLimits;
use crate::record::{Item, Piece};
use crate::resume::{Resume, Resumption};
use crate::session::{Session, halves};
use crate::stream::RecvInput;
use crate::streams::Place;
use crate::time::Instant;
use crate::work::{self, Work};

impl Session {
    pub(crate) fn on_item(&mut self, now: Instant, item: Item) -> Result<(), Violation> {
        #[cfg(feature = "tracing")]
        match &item {
            Item::Frame(frame) => tracing::trace!(side = ?self.side, ?frame, "received"),
            Item::Stream(Piece { id, offset, data, rest, fin }) => {
                tracing::trace!(side = ?self.side, %id, offset, length = data.len(), rest, fin, "received STREAM");
            }
        }
        let pipe = self.pipe.as_ref().expect("input comes from a pipe");
        if pipe.peer.is_none() {
            return match item {
                Item::Frame(Frame::Parameters(parameters)) => self.on_parameters(now, *parameters),
                Item::Frame(_) | Item::Stream(_) => Err(Violation::ParametersOutOfPlace),
            };
        }
        if pipe.exchange.as_ref().is_some_and(|exchange| exchange.theirs != Step::Done) {
            return self.on_exchange(now, item);
        }
        match item {
            Item::Stream(piece) => self.on_stream(now, piece),
            Item::Frame(frame) => match frame {
                Frame::Padding => Ok(()),
                Frame::ResetStream { id, code, final_size } => {
                    self.on_reset_stream(now, id, code, final_size)
                }
                Frame::StopSending { id, code } => self.on_stop_sending(now, id, code),
                Frame::Stream(_) => unreachable!("the record reader takes STREAM apart"),
                Frame::MaxData { limit } => {
                    let is_news = self.on_max_data(now, limit);
                    self.charge_unless(is_news, now)
                }
                Frame::MaxStreamData { id, limit } => {
                    let is_news = self.on_max_stream_data(id, limit)?;
                    self.charge_unless(is_news, now)
                }
                Frame::MaxStreams { dir, limit } => {
                    let is_news = self.on_max_streams(dir, limit);
                    self.charge_unless(is_news, now)
                }
                // Our limits follow from what is read, whether or not somebody waits for them.
                Frame::DataBlocked { .. } | Frame::StreamsBlocked { .. } => self.charge_unless(false, now),
                Frame::StreamDataBlocked { id, .. } => {
                    self.receiving(id)?;
                    self.charge_unless(false, now)
                }
                Frame::Close(close) => {
                    self.on_close(close);
                    Ok(())
                }
                Frame::Parameters(_) => Err(Violation::ParametersOutOfPlace),
                Frame::Ping { sequence } => {
                    self.work.charge(now, work::PING)?;
                    self.liveness().on_ping(sequence)
                }
                Frame::Pong { sequence } => {
                    if let Some(round_trip) = self.liveness().on_pong(now, sequence)? {
                        self.on_round_trip(round_trip);
                    }
                    Ok(())
                }
                Frame::StreamAck { id, received } => {
                    let is_news = self.on_stream_ack(id, received)?;
                    self.charge_unless(is_news, now)
                }
                Frame::Drain(drain) => self.on_drain(drain),
                Frame::Resume { .. }
                | Frame::Resumed { .. }
                | Frame::ResumeRefused(_)
                | Frame::SessionState(_)
                | Frame::StreamState { .. }
                | Frame::StateEnd => Err(self.out_of_place()),
            },
        }
    }

    fn on_parameters(&mut self, now: Instant, mut parameters: Parameters) -> Result<(), Violation> {
        let pipe = self.pipe.as_mut().expect("input comes from a pipe");
        let Parameters { max_record_size, max_idle_timeout, .. } = parameters;
        pipe.peer = Some(PipeLimits { max_record_size, max_idle_timeout });
        // On a later pipe the session's limits are those that its ends know (PROTOCOL §6.3).
        if pipe.exchange.is_some() {
            return Ok(());
        }
        if self.config.early_parameters().is_some_and(|agreed| !parameters.allow_all_of(&agreed)) {
            return Err(Violation::BadParameters);
        }
        pipe.liveness.ask();
        self.news.attached = true;
        let offer = parameters.resume.take();
        self.resume = offer.and_then(|theirs| self.agree(theirs)).map(Box::new);
        self.streams.acknowledges = self.resume.is_some();
        self.raise_limits(now, &parameters);
        Ok(())
    }

    /// Learns what the peer allows at first, or is held to. What has begun before has the new limits as well.
    pub(crate) fn raise_limits(&mut self, now: Instant, parameters: &Parameters) {
        self.on_max_data(now, parameters.initial_max_data);
        for dir in [Dir::Bi, Dir::Uni] {
            self.on_max_streams(dir, parameters.initial_max_streams(dir));
        }
        let limits = parameters.stream_limits();
        let mut begun = self.streams.after(None);
        while let Some(id) = begun {
            if id.sends(self.side) {
                self.raise_stream_credit(id, limits.of(self.side.peer(), id));
            }
            begun = self.streams.after(Some(id));
        }
        self.peer = Some(limits);
    }

    /// Both ends want the session to outlive its pipe, if this one does.
    fn agree(&self, theirs: ResumeParameter) -> Option<Resume> {
        let (id, secret) = match (&self.config.resumption, theirs.ticket) {
            (Resumption::Offer(id, secret), _) if self.side == Side::Client => (*id, secret.clone()),
            (Resumption::Accept, Some(ticket)) if self.side == Side::Server => ticket,
            _ => return None,
        };
        let grace = self.config.grace.min(Duration::from_millis(theirs.grace));
        // The end that is asked never forgets first: the other may take as long to notice that a pipe is dead.
        let notice = match self.side {
            Side::Server => self.config.idle_timeout.saturating_mul(2),
            Side::Client => Duration::ZERO,
        };
        Some(Resume { id, secret, grace: grace.saturating_add(notice), gone_at: None })
    }

    fn out_of_place(&self) -> Violation {
        if self.resume.is_some() { Violation::ResumeOutOfPlace } else { Violation::UnknownFrame }
    }

    fn on_stream(&mut self, now: Instant, piece: Piece) -> Result<(), Violation> {
        let id = piece.id;
        if self.receiving(id)? == Place::Gone {
            // It ended long ago, so what is new lies past its end; unless it is sent again (PROTOCOL §6.5).
            let is_repeat = self.side == Side::Server && self.epoch > Some(Epoch(0)) && self.resume.is_some();
            let is_lawful = piece.data.is_empty() || is_repeat;
            return if is_lawful { self.charge_unless(false, now) } else { Err(Violation::FinalSize) };
        }
        let entry = self.streams.get_mut(id).expect("it is here");
        let (is_hidden, is_released) = (entry.surfaced == Surfaced::Hidden, entry.released);
        let recv = entry.recv.as_mut().expect("the peer sends on it");
        let charged = recv.check(&piece)?;
        self.window.check(charged)?;
        let before = if sabotaged!(OverlapNotTrimmed) { 0 } else { recv.overlap(&piece) };
        if before > 0
            && !self.chunks.ends_alike(&recv.queue, recv.window.received() - piece.offset, &piece.data)
        {
            return Err(Violation::ChangedData);
        }

        recv.next = piece.offset + piece.data.len() as u64;
        let mut data = piece.data;
        data.advance(before);
        let length = data.len() as u64;
        if length > 0 {
            recv.window.handle_arrival(now, self.config.stream_window);
            self.window.handle_arrival(now, self.config.initial_session_window());
        }
        recv.window.receive(length);
        self.window.receive(length);
        if recv.stop.is_some() {
            recv.window.consume(length);
            self.window.consume(length);
        } else {
            self.chunks.push_borrowed(&mut recv.queue, data);
        }
        let ended = piece.fin && piece.rest == 0 && recv.end(RecvInput::Fin);
        if (length > 0 || ended && !sabotaged!(ReaderNotWoken)) && core::mem::take(&mut recv.waiting) {
            self.streams.tell(id, |news| news.readable = true);
        }
        if !ended && !is_hidden {
            self.work.charge(now, Work::of_payload(length))?;
        }
        self.owe_ack(now, id, length, ended);
        if is_hidden && !is_released && self.streams.surface(id) {
            *self.news.incoming.get_mut(id.dir()) = true;
        }
        if is_released {
            self.streams.retire(id);
        }
        Ok(())
    }

    fn on_reset_stream(
        &mut self,
        now: Instant,
        id: StreamId,
        code: Code,
        final_size: u64,
    ) -> Result<(), Violation> {
        if self.receiving(id)? == Place::Gone {
            return Ok(());
        }
        let entry = self.streams.get_mut(id).expect("it is here");
        let is_hidden = entry.surfaced == Surfaced::Hidden;
        let recv = entry.recv.as_mut().expect("the peer sends on it");
        let charged = recv.check_reset(final_size)?;
        self.window.check(charged)?;
        if !recv.end(RecvInput::Reset(code)) {
            return self.charge_unless(false, now);
        }
        self.work.charge(now, work::RESET)?;
        // The gap up to the final size can never be read: it is charged and given back at once. What came before the
        // reset stays, as it does when a TCP connection is reset; who does not want it stops (RFC 9000 §3.2 leaves
        // this to us).
        recv.window.receive(charged);
        recv.window.consume(charged);
        self.window.receive(charged);
        self.window.consume(charged);
        if core::mem::take(&mut recv.waiting) {
            self.streams.tell(id, |news| news.readable = true);
        }
        self.owe_ack(now, id, 0, true);
        if is_hidden && !self.is_too_late(id) {
            self.refuse_unseen(id, code);
        }
        self.streams.retire(id);
        Ok(())
    }

    /// Ends a stream that the peer abandoned before the application could see it (PROTOCOL §4.4).
    fn refuse_unseen(&mut self, id: StreamId, code: Code) {
        self.abandon(id, code);
        let entry = self.streams.get_mut(id).expect("it is here");
        entry.released = true;
        if let Some(recv) = &mut entry.recv {
            recv.apply(RecvInput::Read);
        }
    }

    /// A frame that told nothing new is work for nothing.
    fn charge_unless(&mut self, is_news: bool, now: Instant) -> Result<(), Violation> {
        if is_news { Ok(()) } else { self.work.charge(now, work::IDLE_FRAME) }
    }

    fn on_stop_sending(&mut self, now: Instant, id: StreamId, code: Code) -> Result<(), Violation> {
        if self.sending(id)? == Place::Gone {
            return Ok(());
        }
        if self.abandon(id, code) {
            self.work.charge(now, work::RESET)?;
            let send = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut());
            send.expect("it was just abandoned").stopped = true;
            self.streams.tell(id, |news| {
                news.writable = false;
                news.stopped = true;
            });
        }
        Ok(())
    }

    /// Resets the sending half with `code`, if it is not too late, and gives back what it had not sent.
    pub(crate) fn abandon(&mut self, id: StreamId, code: Code) -> bool {
        if self.is_closed() {
            return false; // nobody will hear of it, and what was kept is gone
        }
        let Some(entry) = self.streams.get_mut(id) else { return false };
        let (urgency, Some(send)) = (entry.urgency, &mut entry.send) else { return false };
        let Some(dropped) = send.reset(code) else { return false };
        self.chunks.clear(&mut send.unacked);
        self.chunks.clear(&mut send.queue);
        if !sabotaged!(CreditKeptOnReset) {
            self.credit.give_back(dropped.unsent);
        }
        self.held.remove(urgency, dropped.held, dropped.on_its_way);
        self.streams.schedule(id);
        self.withdraw_offer(id);
        true
    }

    /// Returns whether that is news.
    pub(crate) fn on_max_data(&mut self, now: Instant, limit: u64) -> bool {
        let is_news = self.credit.raise(limit);
        if is_news {
            self.kept_credit.handle_credit(now, self.credit.available());
            if let Some(pipe) = &mut self.pipe {
                pipe.data_blocked_owed = false;
            }
            self.offer_room();
        }
        is_news
    }

    fn on_max_stream_data(&mut self, id: StreamId, limit: u64) -> Result<bool, Violation> {
        match self.sending(id)? {
            Place::Here => Ok(self.raise_stream_credit(id, limit)),
            Place::Gone => Ok(false),
        }
    }

    /// Learns how far the peer takes the stream, which is here. Returns whether that is news.
    pub(crate) fn raise_stream_credit(&mut self, id: StreamId, limit: u64) -> bool {
        let send = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut()).expect("it is here");
        let is_news = send.credit.raise(limit);
        if is_news {
            send.blocked_owed = false;
            if !sabotaged!(WriterNotWoken) {
                self.offer_room_to(id);
            }
        }
        is_news
    }

    /// Returns whether that is news.
    pub(crate) fn on_max_streams(&mut self, dir: Dir, limit: u64) -> bool {
        let is_news = limit > self.streams.local_limit(dir);
        if self.streams.raise_local_limit(dir, limit) {
            *self.news.openable.get_mut(dir) = true;
        }
        is_news
    }

    pub(crate) fn on_close(&mut self, close: Close) {
        let Close { kind, reason } = close;
        let why = match kind {
            CloseKind::Application { code } => CloseReason::Peer { code, reason },
            CloseKind::Transport { code, .. } => CloseReason::PeerTransport { code, reason },
        };
        self.end(why, None);
    }

    /// Finds a stream that the peer sends on.
    fn receiving(&mut self, id: StreamId) -> Result<Place, Violation> {
        if id.receives(self.side) { self.find(id) } else { Err(Violation::StreamState) }
    }

    /// Finds a stream that we send on.
    pub(crate) fn sending(&mut self, id: StreamId) -> Result<Place, Violation> {
        if id.sends(self.side) { self.find(id) } else { Err(Violation::StreamState) }
    }

    fn find(&mut self, id: StreamId) -> Result<Place, Violation> {
        let Self { side, config, peer, streams, .. } = self;
        let peer = peer.as_ref().expect("the parameters came first");
        let first = streams.remote_opened();
        let place = streams.find(id, |id| halves(*side, config.stream_window, peer, id))?;
        if self.draining.is_some() {
            for index in *first.get(id.dir())..*self.streams.remote_opened().get(id.dir()) {
                let id = StreamId::new(id.opener(), id.dir(), index).expect("it was just opened");
                if self.is_too_late(id) {
                    self.refuse_late(id);
                }
            }
        }
        Ok(place)
    }

    fn liveness(&mut self) -> &mut crate::liveness::Liveness {
        &mut self.pipe.as_mut().expect("input comes from a pipe").liveness
    }
}
