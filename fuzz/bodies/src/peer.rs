//! A peer that mostly behaves: it knows what it has said and heard, so that a fuzzer can be lawful as easily as not.
//!
//! In: [`PeerFrame`]s, five bytes each. Out: frames on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use towline_engine::{SessionId, Side};
use towline_model::{ID, pattern};

use crate::wire::{self, Heard, frame, parameter};

/// The bytes of a stream repeat after so many.
const PERIOD: u64 = 251;

/// Writes the bytes that belong there. A table, as fuzzers pay for each step of a loop.
fn put_pattern(out: &mut Vec<u8>, offset: u64, length: u64) {
    static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..PERIOD).map(pattern).collect());
    let small = |value: u64| usize::try_from(value).expect("a record holds it");
    let (mut at, mut left) = (small(offset % PERIOD), small(length));
    while left > 0 {
        let piece = &TABLE[at..];
        let piece = &piece[..left.min(piece.len())];
        out.extend_from_slice(piece);
        left -= piece.len();
        at = 0;
    }
}

/// The bytes of the secret that both ends of a session that can resume have, as `towline_model::SECRET`.
pub const SECRET_BYTES: [u8; 32] = [0x5e; 32];

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the frames")]
pub enum Kind {
    /// A STREAM frame that follows on.
    Stream,
    /// A STREAM frame at any offset.
    StreamAt,
    Reset,
    Stop,
    MaxData,
    MaxStreamData,
    MaxStreamsBidi,
    MaxStreamsUni,
    DataBlocked,
    StreamDataBlocked,
    StreamsBlockedBidi,
    StreamsBlockedUni,
    CloseTransport,
    CloseApplication,
    Parameters,
    Ping,
    Pong,
    Ack,
    Resume,
    Resumed,
    Refused,
    SessionState,
    StreamState,
    StateEnd,
    Drain,
    Padding,
    /// A frame of a type that does not exist, or is prohibited.
    Other,
}

/// Common kinds twice: the first byte picks one.
const KINDS: [Kind; 32] = {
    use Kind as K;
    [
        K::Stream,
        K::StreamAt,
        K::Reset,
        K::Stop,
        K::MaxData,
        K::MaxStreamData,
        K::MaxStreamsBidi,
        K::MaxStreamsUni,
        K::DataBlocked,
        K::StreamDataBlocked,
        K::StreamsBlockedBidi,
        K::StreamsBlockedUni,
        K::CloseTransport,
        K::CloseApplication,
        K::Parameters,
        K::Ping,
        K::Pong,
        K::Ack,
        K::Resume,
        K::Resumed,
        K::Refused,
        K::SessionState,
        K::StreamState,
        K::StateEnd,
        K::Drain,
        K::Padding,
        K::Other,
        K::Stream,
        K::Stream,
        K::Ack,
        K::Stop,
        K::MaxStreamData,
    ]
};

/// A frame that a peer may say: what it is about, and numbers that mean what that makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see the methods of `Peer`")]
pub struct PeerFrame {
    pub kind: Kind,
    /// A stream, see [`stream_id`].
    pub stream: u8,
    /// A number, see [`number`].
    pub number: u16,
    /// 0: as it should be.
    pub twist: u8,
}

impl<'a> Arbitrary<'a> for PeerFrame {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let [kind, stream, high, low, twist] = u.arbitrary()?;
        let number = u16::from_be_bytes([high, low]);
        Ok(Self { kind: KINDS[usize::from(kind) % KINDS.len()], stream, number, twist })
    }
}

impl PeerFrame {
    /// The bytes that `arbitrary` makes this frame of.
    ///
    /// # Panics
    ///
    /// Never: each kind has its place.
    pub fn put(self, out: &mut Vec<u8>) {
        let kind = KINDS.iter().position(|&kind| kind == self.kind).expect("each kind is there");
        let [high, low] = self.number.to_be_bytes();
        out.extend([u8::try_from(kind).expect("there are 32"), self.stream, high, low, self.twist]);
    }
}

/// Small ids as they are, and those at the end of the scale.
pub fn stream_id(value: u8) -> u64 {
    if value < 0xe0 { u64::from(value) } else { wire::MAX - u64::from(value - 0xe0) }
}

/// Numbers near 0, and near where something ends.
pub fn number(value: u16) -> u64 {
    let low = u64::from(value & 0x0fff);
    match value >> 12 {
        0..8 => low,
        8 => low << 4,
        9 => low << 12,
        10 => (1 << 14) - 2048 + low,
        11 => (1 << 30) - 2048 + low,
        12 => (1 << 60) - 2048 + low,
        13 => low << 50,
        _ => wire::MAX - low,
    }
}

/// The peer of a session.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the session has said.
    pub heard: Heard,
    /// The number of the pipe.
    pub epoch: u64,
    session: Side,
    resumable: bool,
    /// By stream: the first offset that was not said.
    next: BTreeMap<u64, u64>,
    next_ping: u64,
}

impl Peer {
    /// The peer of a session on side `session`.
    pub fn new(session: Side, resumable: bool) -> Self {
        let heard = Heard::new(session);
        Self { heard, epoch: 0, session, resumable, next: BTreeMap::new(), next_ping: 0 }
    }

    /// There is a new pipe.
    pub fn on_new_pipe(&mut self, epoch: u64) {
        self.heard.on_new_pipe();
        self.epoch = epoch;
        self.next_ping = 0;
    }

    /// Says a frame.
    pub fn say(&mut self, said: PeerFrame) -> Vec<u8> {
        let PeerFrame { kind, stream, number: raw, twist } = said;
        let (id, value) = (stream_id(stream), number(raw));
        let with_id = |frame_type, value| wire::frame(frame_type, &[id, value]);
        match kind {
            Kind::Stream => {
                let offset = self.next.get(&id).copied().unwrap_or(0);
                let length = value % 5000;
                self.next.insert(id, (offset + length).min(wire::MAX));
                stream_frame(id, offset, length, twist)
            }
            // Behind an exchange, what was said before may be said again.
            Kind::StreamAt => stream_frame(id, value, u64::from(twist >> 3), twist),
            Kind::Reset => {
                let next = self.next.get(&id).copied().unwrap_or(0);
                let size = if twist == 0 { next } else { value };
                wire::frame(frame::RESET_STREAM, &[id, u64::from(twist), size])
            }
            Kind::Stop => with_id(frame::STOP_SENDING, value),
            Kind::MaxData => wire::frame(frame::MAX_DATA, &[value]),
            Kind::MaxStreamData => with_id(frame::MAX_STREAM_DATA, value),
            Kind::MaxStreamsBidi => wire::frame(frame::MAX_STREAMS_BIDI, &[value]),
            Kind::MaxStreamsUni => wire::frame(frame::MAX_STREAMS_UNI, &[value]),
            Kind::DataBlocked => wire::frame(frame::DATA_BLOCKED, &[value]),
            Kind::StreamDataBlocked => with_id(frame::STREAM_DATA_BLOCKED, value),
            Kind::StreamsBlockedBidi => wire::frame(frame::STREAMS_BLOCKED_BIDI, &[value]),
            Kind::StreamsBlockedUni => wire::frame(frame::STREAMS_BLOCKED_UNI, &[value]),
            Kind::CloseTransport => {
                let reason = vec![stream; usize::from(twist)];
                wire::frame_with_block(frame::CLOSE_TRANSPORT, &[value, u64::from(stream)], &reason)
            }
            Kind::CloseApplication => {
                wire::frame_with_block(frame::CLOSE_APPLICATION, &[value], &vec![stream; usize::from(twist)])
            }
            Kind::Parameters => self.parameters(twist, value),
            Kind::Ping => {
                let sequence = if twist == 0 { self.next_ping + value % 4 } else { value };
                self.next_ping = sequence.saturating_add(1);
                wire::frame(frame::QX_PING, &[sequence])
            }
            Kind::Pong => {
                let asked = self.heard.ping.unwrap_or(0);
                wire::frame(frame::QX_PONG, &[if twist == 0 { asked } else { value }])
            }
            Kind::Ack => with_id(frame::STREAM_ACK, self.progress(id, value, twist)),
            Kind::Resume => self.resume(twist, value),
            Kind::Resumed => wire::frame(frame::RESUMED, &[if twist == 0 { self.epoch } else { value }]),
            Kind::Refused => self.refused(twist, value),
            Kind::SessionState => self.session_state(twist, value),
            Kind::StreamState => {
                wire::frame(frame::STREAM_STATE, &[id, self.progress(id, value, twist), value])
            }
            Kind::StateEnd => wire::frame(frame::STATE_END, &[]),
            Kind::Drain => {
                let stream = u64::from(stream);
                wire::frame(frame::DRAIN, &[stream, u64::from(twist), value, stream])
            }
            Kind::Padding => vec![0; usize::from(raw % 1024)],
            Kind::Other => wire::frame(u64::from(stream), &[value, u64::from(twist)]),
        }
    }

    /// Says, as records, everything that a fair peer begins this pipe with.
    pub fn greet(&mut self) -> Vec<u8> {
        let mut out = wire::record(&self.parameters(0, 0));
        if self.epoch == 0 || !self.resumable {
            return out;
        }
        let mut frames = match self.session {
            Side::Client => wire::frame(frame::RESUMED, &[self.epoch]),
            Side::Server => self.resume(0, 0),
        };
        frames.extend(self.session_state(0, 0));
        let known: BTreeSet<u64> = self.heard.streams.keys().chain(self.next.keys()).copied().collect();
        for id in known {
            let received = self.progress(id, 0, 0);
            frames.extend(wire::frame(frame::STREAM_STATE, &[id, received, 1 << 20]));
            // What was not heard of is said again, from the start: the session trims it.
            self.next.insert(id, 0);
        }
        frames.extend(wire::frame(frame::STATE_END, &[]));
        // All of it is far shorter than a record, as few streams as there are.
        out.extend(wire::record(&frames));
        out
    }

    /// QX_TRANSPORT_PARAMETERS: generous ones, or with one that is `value`.
    pub fn parameters(&self, twist: u8, value: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let amounts = [
            parameter::INITIAL_MAX_DATA,
            parameter::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL,
            parameter::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE,
            parameter::INITIAL_MAX_STREAM_DATA_UNI,
        ];
        for (n, id) in (1..).zip(amounts) {
            wire::put_parameter(&mut body, id, if twist & 15 == n { value } else { 1 << 20 });
        }
        for (n, id) in (5..).zip([parameter::INITIAL_MAX_STREAMS_BIDI, parameter::INITIAL_MAX_STREAMS_UNI]) {
            wire::put_parameter(&mut body, id, if twist & 15 == n { value } else { 100 });
        }
        match twist & 15 {
            7 => wire::put_parameter(&mut body, parameter::MAX_IDLE_TIMEOUT, value),
            8 => wire::put_parameter(&mut body, parameter::MAX_RECORD_SIZE, value),
            9 => wire::put_parameter(&mut body, value, value),
            _ => {}
        }
        if self.resumable && twist & 16 == 0 {
            let mut resume = Vec::new();
            wire::put(&mut resume, if twist & 32 == 0 { 60_000 } else { value });
            let is_first = self.session == Side::Server && self.epoch == 0;
            if is_first != (twist & 64 != 0) {
                resume.extend(ID.0);
                resume.extend(SECRET_BYTES);
            }
            wire::put_parameter_bytes(&mut body, parameter::RESUME, &resume);
        }
        wire::frame_with_block(frame::QX_TRANSPORT_PARAMETERS, &[], &body)
    }

    /// RESUME: with the right name, proof and epoch, or one of them wrong.
    pub fn resume(&self, twist: u8, value: u64) -> Vec<u8> {
        let mut out = wire::frame(frame::RESUME, &[]);
        let mut id: [u8; SessionId::LEN] = ID.0;
        let mut secret = SECRET_BYTES;
        match twist >> 6 {
            1 => id[usize::from(twist) % id.len()] ^= 1 << (twist & 7),
            2 => secret[usize::from(twist) % secret.len()] ^= 1 << (twist & 7),
            _ => {}
        }
        out.extend(id);
        out.extend(secret);
        wire::put(&mut out, if twist & 32 == 0 { self.epoch } else { value });
        out
    }

    fn refused(&self, twist: u8, value: u64) -> Vec<u8> {
        let mut block = Vec::new();
        for &id in self.heard.streams.keys().take(usize::from(twist >> 4)) {
            wire::put(&mut block, id);
            wire::put(&mut block, self.progress(id, value, twist & 3));
        }
        wire::frame_with_block(frame::RESUME_REFUSED, &[u64::from(twist & 7), value], &block)
    }

    fn session_state(&self, twist: u8, value: u64) -> Vec<u8> {
        let seen = |uni: u64| {
            let side = u64::from(self.session == Side::Server);
            let kind = |&&id: &&u64| id & 3 == uni << 1 | side;
            self.heard.streams.keys().filter(kind).map(|id| (id >> 2) + 1).max().unwrap_or(0)
        };
        let mut fields = [seen(0), seen(1), 1 << 20, 100, 100];
        if let Some(field) = twist.checked_sub(1).and_then(|n| fields.get_mut(usize::from(n))) {
            *field = value;
        }
        wire::frame(frame::SESSION_STATE, &fields)
    }

    /// How far stream `id` has come: the truth, or not.
    fn progress(&self, id: u64, value: u64, twist: u8) -> u64 {
        let (received, ended) = self.heard.streams.get(&id).copied().unwrap_or((0, false));
        match twist & 3 {
            0 => received + u64::from(ended),
            1 => received.saturating_sub(1),
            2 => received / 2,
            _ => value,
        }
    }
}

/// A STREAM frame with the bytes that belong there. The lowest bit of `twist` is the FIN, the next leaves the length
/// out, the third changes a byte.
fn stream_frame(id: u64, offset: u64, length: u64, twist: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let fin = u64::from(twist & 1);
    let has_length = u64::from(twist & 2 == 0);
    wire::put(&mut out, frame::STREAM | 4 | has_length << 1 | fin);
    wire::put(&mut out, id);
    wire::put(&mut out, offset);
    if has_length == 1 {
        wire::put(&mut out, length);
    }
    put_pattern(&mut out, offset, length);
    if let (4, Some(last)) = (twist & 4, out.last_mut()) {
        *last ^= 1;
    }
    out
}
