//! One end of a QUIC connection: which word goes on which stream, and what has come on them.
//!
//! In: words, as the rest of the world has them, and what quinn tells. Out: bytes for quinn's streams, and the words that
//! have come as a whole. Keeps: what a stream does not take yet, and what has come of a word that is not whole. The hello,
//! the welcome and the goodbye are on the first stream; each tunnel has one of its own, which begins with what it was asked
//! for with (PROTOCOL §5.3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, Dir, Event, ReadError, StreamEvent, StreamId, VarInt,
    WriteError,
};

use super::super::network::Body;

/// What one end has said and the other has not read, by stream: how long it is, and what it means. Of a tunnel's bytes only
/// the length counts; the bytes are those that come.
pub(super) type Spoken = BTreeMap<StreamId, VecDeque<(usize, Body)>>;

/// One end of a connection.
pub(super) struct Side {
    pub(super) handle: ConnectionHandle,
    pub(super) connection: Connection,
    /// When its timer is due that was set last.
    pub(super) timer_at: u64,
    /// How many streams its peer may come to have open.
    pub(super) most_streams: u64,
    tunnels: BTreeMap<usize, StreamId>,
    /// Tunnels that were asked for, by their pairs.
    requests: BTreeMap<usize, StreamId>,
    /// Words that begin a stream, for which there is no place yet.
    unopened: VecDeque<Body>,
    outboxes: BTreeMap<StreamId, Outbox>,
    arrived: BTreeMap<StreamId, BytesMut>,
    was_in_use: bool,
    /// It closes the connection once all has arrived.
    closes: bool,
}

/// What a stream has not taken yet.
#[derive(Default)]
struct Outbox {
    bytes: VecDeque<Bytes>,
    finishes: bool,
}

/// What an end has heard.
pub(super) enum Heard {
    /// The handshake is done.
    Connected,
    Word(Body),
    /// The connection is over.
    Lost(ConnectionError),
}

/// The stream of the hello: the first that the client opens.
fn control() -> StreamId {
    StreamId::new(quinn_proto::Side::Client, Dir::Bi, 0)
}

impl Side {
    pub(super) fn new(handle: ConnectionHandle, connection: Connection, most_streams: u64) -> Self {
        Self {
            handle,
            connection,
            timer_at: u64::MAX,
            most_streams,
            tunnels: BTreeMap::new(),
            requests: BTreeMap::new(),
            unopened: VecDeque::new(),
            outboxes: BTreeMap::new(),
            arrived: BTreeMap::new(),
            was_in_use: false,
            closes: false,
        }
    }

    /// Whether there is a tunnel, or one was asked for.
    pub(super) fn is_in_use(&self) -> bool {
        !self.tunnels.is_empty() || !self.requests.is_empty()
    }

    /// Whether it has come into use since this was asked last.
    pub(super) fn comes_into_use(&mut self) -> bool {
        let is_in_use = self.is_in_use();
        let was_in_use = mem::replace(&mut self.was_in_use, is_in_use);
        is_in_use && !was_in_use
    }

    /// Whether the stream of a tunnel takes no more for the moment.
    pub(super) fn is_full(&self, tunnel: usize) -> bool {
        self.tunnels.get(&tunnel).is_some_and(|id| self.outboxes.contains_key(id))
    }

    /// Says something. `pair` is whose tunnel it is about, where that is not in the words.
    pub(super) fn say(&mut self, body: Body, pair: Option<usize>, spoken: &mut Spoken) {
        let id = match &body {
            Body::Fin => {
                self.closes = true;
                return;
            }
            Body::Hello | Body::Open(_) | Body::Offer(_) => {
                self.unopened.push_back(body);
                return self.open_streams(spoken);
            }
            Body::Welcome | Body::Goodbye(_) => Some(control()),
            Body::OpenRefused(pair, _) => self.requests.remove(pair),
            Body::Opened(tunnel) => {
                let id = pair.and_then(|pair| self.requests.remove(&pair));
                self.tunnels.extend(id.map(|id| (*tunnel, id)));
                id
            }
            Body::Answer(tunnel) | Body::Data(tunnel, _) | Body::Closed(tunnel) => {
                self.tunnels.get(tunnel).copied()
            }
            // QUIC has its own.
            Body::Syn | Body::SynAck | Body::ClientHello | Body::ServerHello | Body::Ping | Body::Pong => {
                None
            }
            Body::Datagram(_) => None,
        };
        // Whoever is gone meanwhile needs no answer.
        if let Some(id) = id {
            self.write(id, body, spoken);
        }
    }

    /// Opens streams for what begins one, as far as the peer allows.
    fn open_streams(&mut self, spoken: &mut Spoken) {
        while !self.unopened.is_empty()
            && let Some(id) = self.connection.streams().open(Dir::Bi)
            && let Some(body) = self.unopened.pop_front()
        {
            self.note(id, &body);
            self.write(id, body, spoken);
        }
    }

    /// A stream is for what its first word says.
    fn note(&mut self, id: StreamId, body: &Body) {
        match body {
            Body::Open(pair) => _ = self.requests.insert(*pair, id),
            Body::Offer(tunnel) | Body::Opened(tunnel) => {
                self.requests.retain(|_, request| *request != id);
                self.tunnels.insert(*tunnel, id);
            }
            Body::OpenRefused(pair, _) => _ = self.requests.remove(pair),
            _ => {}
        }
    }

    fn write(&mut self, id: StreamId, body: Body, spoken: &mut Spoken) {
        let outbox = self.outboxes.entry(id).or_default();
        outbox.finishes |= matches!(body, Body::Closed(_) | Body::OpenRefused(..));
        let (bytes, body) = match body {
            // The end of the stream says it.
            Body::Closed(_) => return,
            Body::Data(tunnel, bytes) => (bytes, Body::Data(tunnel, Bytes::new())),
            body => (Bytes::from(vec![0; body.message_len()]), body),
        };
        spoken.entry(id).or_default().push_back((bytes.len(), body));
        outbox.bytes.push_back(bytes);
    }

    /// Hands to quinn what it takes. Returns the tunnels that have room again.
    pub(super) fn flush(&mut self, now: Instant, spoken: &mut Spoken) -> Vec<usize> {
        self.open_streams(spoken);
        let mut free = Vec::new();
        for (id, mut outbox) in mem::take(&mut self.outboxes) {
            if self.flush_stream(id, &mut outbox) {
                free.extend(self.tunnels.iter().find(|(_, it)| **it == id).map(|(tunnel, _)| *tunnel));
            } else {
                self.outboxes.insert(id, outbox);
            }
        }
        if self.closes && !self.connection.is_closed() && self.is_flushed() {
            self.connection.close(now, VarInt::from_u32(0), Bytes::new());
        }
        free
    }

    /// Returns whether all is out.
    fn flush_stream(&mut self, id: StreamId, outbox: &mut Outbox) -> bool {
        let mut stream = self.connection.send_stream(id);
        while !outbox.bytes.is_empty() {
            match stream.write_chunks(outbox.bytes.make_contiguous()) {
                Ok(written) => _ = outbox.bytes.drain(..written.chunks),
                Err(WriteError::Blocked) => return false,
                // The connection or the stream is over, and nobody reads.
                Err(_) => return true,
            }
        }
        if outbox.finishes {
            // It may have ended before.
            let _ = stream.finish();
        }
        true
    }

    /// Whether the peer has everything: as the product finds it out, by a window of one byte.
    fn is_flushed(&mut self) -> bool {
        if self.connection.is_handshaking() {
            return true;
        }
        if !self.outboxes.is_empty() || !self.unopened.is_empty() {
            return false;
        }
        self.connection.set_send_window(1);
        !matches!(self.connection.send_stream(control()).write(&[]), Err(WriteError::Blocked))
    }

    /// Gives the connection up at once, unless it is about to close in order.
    pub(super) fn give_up(&mut self, now: Instant) {
        if !self.closes {
            self.connection.close(now, VarInt::from_u32(0), Bytes::new());
        }
    }

    /// What has come. `spoken` is what the other end has said.
    pub(super) fn listen(&mut self, spoken: &mut Spoken) -> Vec<Heard> {
        let (mut heard, mut readable) = (Vec::new(), BTreeSet::new());
        let mut lost = None;
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => heard.push(Heard::Connected),
                Event::ConnectionLost { reason } => lost = Some(reason),
                Event::Stream(StreamEvent::Opened { .. }) => readable.extend(self.accept()),
                Event::Stream(StreamEvent::Readable { id }) => _ = readable.insert(id),
                Event::Stream(
                    StreamEvent::Writable { .. }
                    | StreamEvent::Finished { .. }
                    | StreamEvent::Stopped { .. }
                    | StreamEvent::Available { .. },
                )
                | Event::HandshakeDataReady
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
        for id in readable {
            self.read(id, spoken, &mut heard);
        }
        heard.extend(lost.map(Heard::Lost));
        heard
    }

    /// The peer may have so many streams open.
    pub(super) fn allow(&mut self, streams: u64) {
        if streams > self.connection.max_concurrent_streams(Dir::Bi) {
            let streams = VarInt::from_u64(streams).unwrap_or(VarInt::MAX);
            self.connection.set_max_concurrent_streams(Dir::Bi, streams);
        }
    }

    /// Makes the peer say something, as the product does: by a window of `window` bytes that is narrowed and widened.
    pub(super) fn ask_for_a_sign_of_life(&mut self, window: u64) {
        for window in [window - 1, window] {
            self.connection.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
    }

    fn accept(&mut self) -> Vec<StreamId> {
        let mut accepted = Vec::new();
        while let Some(id) = self.connection.streams().accept(Dir::Bi) {
            accepted.push(id);
            self.make_room();
        }
        accepted
    }

    /// Twice as many streams are allowed whenever half of them are in use: as the product's links do.
    fn make_room(&mut self) {
        let allowed = self.connection.max_concurrent_streams(Dir::Bi);
        let taken = self.connection.streams().remote_open_streams(Dir::Bi);
        if taken >= allowed / 2 {
            self.allow((allowed * 2).min(self.most_streams));
        }
    }

    fn read(&mut self, id: StreamId, spoken: &mut Spoken, heard: &mut Vec<Heard>) {
        let ended = self.take_bytes(id);
        self.take_words(id, spoken, heard);
        if ended {
            spoken.remove(&id);
            self.end(id, heard);
        }
    }

    /// What has come of a stream, as far as it is whole.
    fn take_words(&mut self, id: StreamId, spoken: &mut Spoken, heard: &mut Vec<Heard>) {
        let (Some(arrived), Some(words)) = (self.arrived.get_mut(&id), spoken.get_mut(&id)) else {
            return;
        };
        let mut whole = Vec::new();
        while words.front().is_some_and(|(length, _)| *length <= arrived.len())
            && let Some((length, body)) = words.pop_front()
        {
            let bytes = arrived.split_to(length).freeze();
            whole.push(if let Body::Data(tunnel, _) = body { Body::Data(tunnel, bytes) } else { body });
        }
        for body in whole {
            self.note(id, &body);
            heard.push(Heard::Word(body));
        }
    }

    /// Takes what quinn has of a stream. Returns whether that was its end.
    fn take_bytes(&mut self, id: StreamId) -> bool {
        let mut stream = self.connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return false };
        let ended = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => self.arrived.entry(id).or_default().extend_from_slice(&chunk.bytes),
                Ok(None) | Err(ReadError::Reset(_)) => break true,
                Err(ReadError::Blocked) => break false,
            }
        };
        // Whoever calls this lets the connection send what is owed.
        let _ = chunks.finalize();
        ended
    }

    /// A stream has ended: so does this end's half, and the tunnel.
    fn end(&mut self, id: StreamId, heard: &mut Vec<Heard>) {
        self.arrived.remove(&id);
        self.outboxes.entry(id).or_default().finishes = true;
        let tunnel = self.tunnels.iter().find(|(_, it)| **it == id).map(|(tunnel, _)| *tunnel);
        if let Some(tunnel) = tunnel {
            self.tunnels.remove(&tunnel);
            heard.push(Heard::Word(Body::Closed(tunnel)));
        }
    }
}
