//! What each frame does to the session: one `on_<frame>` for each.
//!
//! In: items from the record reader. Out: changed state, news for the application, flags and numbers for
//! `transmit.rs`; never a frame. Spec: RFC 9000 §19, PROTOCOL §3 and §4.

use crate::error::{CloseReason, Violation};
use crate::frame::{Close, CloseKind, Frame};
use crate::id::{Code, Dir, StreamId};
use crate::params::Parameters;
use crate::record::{Item, Piece};
use crate::session::{Session, halves};
use crate::stream::RecvInput;
use crate::streams::{Place, Surfaced};
use crate::time::Instant;

impl Session {
    pub(crate) fn on_item(&mut self, now: Instant, item: Item) -> Result<(), Violation> {
        #[cfg(feature = "tracing")]
        match &item {
            Item::Frame(frame) => tracing::trace!(side = ?self.side, ?frame, "received"),
            Item::Stream(Piece { id, offset, data, rest, fin }) => {
                tracing::trace!(side = ?self.side, %id, offset, length = data.len(), rest, fin, "received STREAM");
            }
        }
        if self.peer.is_none() {
            return match item {
                Item::Frame(Frame::Parameters(parameters)) => {
                    self.on_parameters(parameters);
                    Ok(())
                }
                Item::Frame(_) | Item::Stream(_) => Err(Violation::ParametersOutOfPlace),
            };
        }
        match item {
            Item::Stream(piece) => self.on_stream(piece),
            Item::Frame(frame) => match frame {
                Frame::Padding => Ok(()),
                Frame::ResetStream { id, code, final_size } => self.on_reset_stream(id, code, final_size),
                Frame::StopSending { id, code } => self.on_stop_sending(id, code),
                Frame::Stream(_) => unreachable!("the record reader takes STREAM apart"),
                Frame::MaxData { limit } => {
                    self.on_max_data(limit);
                    Ok(())
                }
                Frame::MaxStreamData { id, limit } => self.on_max_stream_data(id, limit),
                Frame::MaxStreams { dir, limit } => {
                    self.on_max_streams(dir, limit);
                    Ok(())
                }
                // Our limits follow from what is read, whether or not somebody waits for them.
                Frame::DataBlocked { .. } | Frame::StreamsBlocked { .. } => Ok(()),
                Frame::StreamDataBlocked { id, .. } => self.receiving(id).map(|_| ()),
                Frame::Close(close) => {
                    self.on_close(close);
                    Ok(())
                }
                Frame::Parameters(_) => Err(Violation::ParametersOutOfPlace),
                Frame::Ping { sequence } => self.liveness().on_ping(sequence),
                Frame::Pong { sequence } => self.liveness().on_pong(now, sequence),
            },
        }
    }

    fn on_parameters(&mut self, parameters: Parameters) {
        self.peer = Some(parameters);
        self.credit.raise(parameters.initial_max_data);
        for dir in [Dir::Bi, Dir::Uni] {
            self.on_max_streams(dir, parameters.initial_max_streams(dir));
        }
        self.liveness().ask();
        self.news.attached = self.pipe.as_ref().map(|pipe| pipe.epoch);
    }

    fn on_stream(&mut self, piece: Piece) -> Result<(), Violation> {
        let id = piece.id;
        if self.receiving(id)? == Place::Gone {
            // It ended long ago, so what is new lies past its end.
            return if piece.data.is_empty() { Ok(()) } else { Err(Violation::FinalSize) };
        }
        let entry = self.streams.get_mut(id).expect("it is here");
        let (is_hidden, is_released) = (entry.surfaced == Surfaced::Hidden, entry.released);
        let recv = entry.recv.as_mut().expect("the peer sends on it");
        let charged = recv.check(&piece)?;
        self.window.check(self.window.received() + charged)?;

        let length = piece.data.len() as u64;
        recv.window.receive(length);
        self.window.receive(length);
        if recv.stop.is_some() {
            recv.window.consume(length);
            self.window.consume(length);
        } else {
            self.chunks.push_borrowed(&mut recv.queue, piece.data);
        }
        let ended = piece.fin && recv.end(RecvInput::Fin);
        if (length > 0 || ended) && core::mem::take(&mut recv.waiting) {
            self.streams.tell(id, |news| news.readable = true);
        }
        if is_hidden && self.streams.surface(id) {
            *self.news.incoming.get_mut(id.dir()) = true;
        }
        if is_released {
            self.streams.retire(id);
        }
        Ok(())
    }

    fn on_reset_stream(&mut self, id: StreamId, code: Code, final_size: u64) -> Result<(), Violation> {
        if self.receiving(id)? == Place::Gone {
            return Ok(());
        }
        let entry = self.streams.get_mut(id).expect("it is here");
        let is_hidden = entry.surfaced == Surfaced::Hidden;
        let recv = entry.recv.as_mut().expect("the peer sends on it");
        let charged = recv.check_reset(final_size)?;
        self.window.check(self.window.received() + charged)?;
        if !recv.end(RecvInput::Reset(code)) {
            return Ok(());
        }
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
        if is_hidden {
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

    fn on_stop_sending(&mut self, id: StreamId, code: Code) -> Result<(), Violation> {
        if self.sending(id)? == Place::Gone {
            return Ok(());
        }
        if self.abandon(id, code) {
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
        let Some(send) = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut()) else { return false };
        let Some(unsent) = send.reset(code) else { return false };
        self.chunks.clear(&mut send.queue);
        self.credit.give_back(unsent);
        self.unsent -= unsent;
        self.streams.schedule(id);
        self.offer_room();
        true
    }

    fn on_max_data(&mut self, limit: u64) {
        if self.credit.raise(limit) {
            if let Some(pipe) = &mut self.pipe {
                pipe.data_blocked_owed = false;
            }
            self.offer_room();
        }
    }

    fn on_max_stream_data(&mut self, id: StreamId, limit: u64) -> Result<(), Violation> {
        if self.sending(id)? == Place::Gone {
            return Ok(());
        }
        let send = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut()).expect("it is here");
        if send.credit.raise(limit) {
            send.blocked_owed = false;
            self.offer_room_to(id);
        }
        Ok(())
    }

    fn on_max_streams(&mut self, dir: Dir, limit: u64) {
        if self.streams.raise_local_limit(dir, limit) {
            *self.news.openable.get_mut(dir) = true;
        }
    }

    fn on_close(&mut self, close: Close) {
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
    fn sending(&mut self, id: StreamId) -> Result<Place, Violation> {
        if id.sends(self.side) { self.find(id) } else { Err(Violation::StreamState) }
    }

    fn find(&mut self, id: StreamId) -> Result<Place, Violation> {
        let Self { side, config, peer, streams, .. } = self;
        let peer = peer.as_ref().expect("the parameters came first");
        streams.find(id, |id| halves(*side, config.stream_window, peer, id))
    }

    fn liveness(&mut self) -> &mut crate::liveness::Liveness {
        &mut self.pipe.as_mut().expect("input comes from a pipe").liveness
    }
}
