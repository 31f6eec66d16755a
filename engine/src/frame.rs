//! One frame, to bytes and back. Nothing else knows the layouts.
//!
//! Spec: draft-02 §4, RFC 9000 §19; those of the resume extension PROTOCOL §6.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};

use crate::error::{MAX_REASON, Violation};
use crate::id::{ByDir, Code, Dir, Epoch, MAX_STREAMS, StreamId};
use crate::params::Parameters;
use crate::resume::{Refused, Secret, SessionId};
use crate::varint;

/// A frame as it stands on the wire. STREAM appears without its payload, which follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Padding,
    ResetStream {
        id: StreamId,
        code: Code,
        final_size: u64,
    },
    StopSending {
        id: StreamId,
        code: Code,
    },
    Stream(StreamHeader),
    MaxData {
        limit: u64,
    },
    MaxStreamData {
        id: StreamId,
        limit: u64,
    },
    MaxStreams {
        dir: Dir,
        limit: u64,
    },
    DataBlocked {
        limit: u64,
    },
    StreamDataBlocked {
        id: StreamId,
        limit: u64,
    },
    StreamsBlocked {
        dir: Dir,
        limit: u64,
    },
    Close(Close),
    /// Boxed, as there is one on each pipe, and all other frames are short.
    Parameters(Box<Parameters>),
    Ping {
        sequence: u64,
    },
    Pong {
        sequence: u64,
    },
    StreamAck {
        id: StreamId,
        received: u64,
    },
    Resume {
        session: SessionId,
        secret: Secret,
        epoch: Epoch,
    },
    Resumed {
        epoch: Epoch,
    },
    ResumeRefused(Refusal),
    SessionState(SessionState),
    StreamState {
        id: StreamId,
        received: u64,
        limit: u64,
    },
    StateEnd,
    Drain(Drain),
}

/// Why a session is not resumed, and what had arrived of its streams; a valid proof only learns the latter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) why: Refused,
    pub(crate) received: Vec<(StreamId, u64)>,
}

/// What an end says of the session when it gets a new pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionState {
    /// How many streams of the peer's it has seen.
    pub(crate) opened: ByDir<u64>,
    /// The limits that it has announced.
    pub(crate) max_data: u64,
    pub(crate) max_streams: ByDir<u64>,
}

/// The sender wants the session to end, and takes no streams beyond those that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// How many streams of the peer's it has seen.
    pub(crate) opened: ByDir<u64>,
    /// How long those have to finish, in milliseconds.
    pub(crate) deadline: u64,
    /// After how long the peer may come back, in milliseconds.
    pub(crate) retry: u64,
}

/// What stands before a STREAM frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamHeader {
    pub(crate) id: StreamId,
    pub(crate) offset: u64,
    /// Bytes of payload; `None` if it runs to the end of the record.
    pub(crate) length: Option<u64>,
    pub(crate) fin: bool,
}

/// CONNECTION_CLOSE, by the transport (type 0x1c) or by the application (0x1d).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) kind: CloseKind,
    pub(crate) reason: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseKind {
    Transport { code: u64, frame_type: u64 },
    Application { code: Code },
}

/// Why no frame could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The bytes end before the frame does.
    Incomplete,
    Broken(Violation),
}

impl From<Violation> for Malformed {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

const PADDING: u64 = 0x00;
const RESET_STREAM: u64 = 0x04;
const STOP_SENDING: u64 = 0x05;
const STREAM: u64 = 0x08;
const STREAM_LAST: u64 = 0x0f;
const STREAM_OFF: u64 = 0x04;
const STREAM_LEN: u64 = 0x02;
const STREAM_FIN: u64 = 0x01;
const MAX_DATA: u64 = 0x10;
const MAX_STREAM_DATA: u64 = 0x11;
const MAX_STREAMS_BIDI: u64 = 0x12;
const MAX_STREAMS_UNI: u64 = 0x13;
const DATA_BLOCKED: u64 = 0x14;
const STREAM_DATA_BLOCKED: u64 = 0x15;
const STREAMS_BLOCKED_BIDI: u64 = 0x16;
const STREAMS_BLOCKED_UNI: u64 = 0x17;
const CLOSE_TRANSPORT: u64 = 0x1c;
const CLOSE_APPLICATION: u64 = 0x1d;
const QX_PING: u64 = 0x348c_6752_9ef8_c7bd;
const QX_PONG: u64 = 0x348c_6752_9ef8_c7be;
const STREAM_ACK: u64 = 0x1d40;
const RESUME: u64 = 0x1d41;
const RESUMED: u64 = 0x1d42;
const RESUME_REFUSED: u64 = 0x1d43;
const SESSION_STATE: u64 = 0x1d44;
const STREAM_STATE: u64 = 0x1d45;
const STATE_END: u64 = 0x1d46;
const DRAIN: u64 = 0x1d47;
const REFUSED_UNKNOWN: u64 = 0;
const REFUSED_STALE: u64 = 1;
const REFUSED_EXPIRED: u64 = 2;
const REFUSED_CLOSED: u64 = 3;
/// "\xffQMX\r\n\r\n" on the wire: no HTTP peer begins like this.
const QX_TRANSPORT_PARAMETERS: u64 = 0x3f51_5330_0d0a_0d0a;

/// No STREAM header is longer, nor any other frame that a session sends in its everyday life.
pub(crate) const MAX_SHORT_FRAME: usize = 8 + 3 * 8;

/// No frame of an exchange of state is longer, and neither is DRAIN.
pub(crate) const MAX_STATE_FRAME: usize = 2 + SessionId::LEN + Secret::LEN + 8;

/// The longest CONNECTION_CLOSE that we write.
pub(crate) const MAX_CLOSE_FRAME: usize = 1 + 8 + 8 + 2 + MAX_REASON;

/// The longest QX_TRANSPORT_PARAMETERS that we write.
pub(crate) const MAX_PARAMETERS_FRAME: usize = 8 + 2 + Parameters::MAX_ENCODED;

impl Frame {
    /// Takes one frame from the front of `input`, which holds what there is of the record so far.
    ///
    /// `record_left` says how many bytes the record has from here on, arrived or not; a frame that claims more
    /// is refused before anything is kept for it.
    pub(crate) fn decode(input: &mut &[u8], record_left: u64) -> Result<Self, Malformed> {
        let before = input.len();
        let frame_type = get(input)?;
        if before - input.len() != varint::len(frame_type) {
            return Err(Violation::LongFrameType.into());
        }
        Ok(match frame_type {
            PADDING => Self::Padding,
            RESET_STREAM => {
                Self::ResetStream { id: get_id(input)?, code: get_code(input)?, final_size: get(input)? }
            }
            STOP_SENDING => Self::StopSending { id: get_id(input)?, code: get_code(input)? },
            STREAM..=STREAM_LAST => Self::Stream(StreamHeader::decode(input, frame_type)?),
            MAX_DATA => Self::MaxData { limit: get(input)? },
            MAX_STREAM_DATA => Self::MaxStreamData { id: get_id(input)?, limit: get(input)? },
            MAX_STREAMS_BIDI => Self::MaxStreams { dir: Dir::Bi, limit: get_stream_count(input)? },
            MAX_STREAMS_UNI => Self::MaxStreams { dir: Dir::Uni, limit: get_stream_count(input)? },
            DATA_BLOCKED => Self::DataBlocked { limit: get(input)? },
            STREAM_DATA_BLOCKED => Self::StreamDataBlocked { id: get_id(input)?, limit: get(input)? },
            STREAMS_BLOCKED_BIDI => Self::StreamsBlocked { dir: Dir::Bi, limit: get_stream_count(input)? },
            STREAMS_BLOCKED_UNI => Self::StreamsBlocked { dir: Dir::Uni, limit: get_stream_count(input)? },
            CLOSE_TRANSPORT => {
                let kind = CloseKind::Transport { code: get(input)?, frame_type: get(input)? };
                Self::Close(Close { kind, reason: get_reason(input, before, record_left)? })
            }
            CLOSE_APPLICATION => {
                let kind = CloseKind::Application { code: get_code(input)? };
                Self::Close(Close { kind, reason: get_reason(input, before, record_left)? })
            }
            QX_PING => Self::Ping { sequence: get(input)? },
            QX_PONG => Self::Pong { sequence: get(input)? },
            QX_TRANSPORT_PARAMETERS => {
                Self::Parameters(Box::new(Parameters::decode(get_block(input, before, record_left)?)?))
            }
            STREAM_ACK => Self::StreamAck { id: get_id(input)?, received: get(input)? },
            RESUME => Self::Resume {
                session: SessionId(get_array(input)?),
                secret: Secret::new(get_array(input)?),
                epoch: Epoch(get(input)?),
            },
            RESUMED => Self::Resumed { epoch: Epoch(get(input)?) },
            RESUME_REFUSED => Self::ResumeRefused(Refusal::decode(input, before, record_left)?),
            SESSION_STATE => Self::SessionState(SessionState {
                opened: get_stream_counts(input)?,
                max_data: get(input)?,
                max_streams: get_stream_counts(input)?,
            }),
            STREAM_STATE => {
                Self::StreamState { id: get_id(input)?, received: get(input)?, limit: get(input)? }
            }
            STATE_END => Self::StateEnd,
            DRAIN => Self::Drain(Drain {
                opened: get_stream_counts(input)?,
                deadline: get(input)?,
                retry: get(input)?,
            }),
            _ => return Err(Violation::UnknownFrame.into()),
        })
    }

    /// Writes the frame.
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Padding => varint::put(out, PADDING),
            Self::ResetStream { id, code, final_size } => {
                put(out, RESET_STREAM, &[id.to_wire(), code.value(), *final_size]);
            }
            Self::StopSending { id, code } => put(out, STOP_SENDING, &[id.to_wire(), code.value()]),
            Self::Stream(header) => header.encode(out),
            Self::MaxData { limit } => put(out, MAX_DATA, &[*limit]),
            Self::MaxStreamData { id, limit } => put(out, MAX_STREAM_DATA, &[id.to_wire(), *limit]),
            Self::MaxStreams { dir: Dir::Bi, limit } => put(out, MAX_STREAMS_BIDI, &[*limit]),
            Self::MaxStreams { dir: Dir::Uni, limit } => put(out, MAX_STREAMS_UNI, &[*limit]),
            Self::DataBlocked { limit } => put(out, DATA_BLOCKED, &[*limit]),
            Self::StreamDataBlocked { id, limit } => put(out, STREAM_DATA_BLOCKED, &[id.to_wire(), *limit]),
            Self::StreamsBlocked { dir: Dir::Bi, limit } => put(out, STREAMS_BLOCKED_BIDI, &[*limit]),
            Self::StreamsBlocked { dir: Dir::Uni, limit } => put(out, STREAMS_BLOCKED_UNI, &[*limit]),
            Self::Close(Close { kind, reason }) => {
                match *kind {
                    CloseKind::Transport { code, frame_type } => {
                        put(out, CLOSE_TRANSPORT, &[code, frame_type]);
                    }
                    CloseKind::Application { code } => put(out, CLOSE_APPLICATION, &[code.value()]),
                }
                let reason = &reason[..reason.len().min(MAX_REASON)];
                varint::put(out, reason.len() as u64);
                out.put_slice(reason);
            }
            Self::Parameters(parameters) => {
                let mut body = alloc::vec::Vec::with_capacity(Parameters::MAX_ENCODED);
                parameters.encode(&mut body);
                put(out, QX_TRANSPORT_PARAMETERS, &[body.len() as u64]);
                out.put_slice(&body);
            }
            Self::Ping { sequence } => put(out, QX_PING, &[*sequence]),
            Self::Pong { sequence } => put(out, QX_PONG, &[*sequence]),
            Self::StreamAck { id, received } => put(out, STREAM_ACK, &[id.to_wire(), *received]),
            Self::Resume { session, secret, epoch } => {
                varint::put(out, RESUME);
                out.put_slice(&session.0);
                out.put_slice(secret.as_bytes());
                varint::put(out, epoch.0);
            }
            Self::Resumed { epoch } => put(out, RESUMED, &[epoch.0]),
            Self::ResumeRefused(refusal) => refusal.encode(out),
            Self::SessionState(SessionState { opened, max_data, max_streams }) => {
                let fields = [opened.bi, opened.uni, *max_data, max_streams.bi, max_streams.uni];
                put(out, SESSION_STATE, &fields);
            }
            Self::StreamState { id, received, limit } => {
                put(out, STREAM_STATE, &[id.to_wire(), *received, *limit]);
            }
            Self::StateEnd => varint::put(out, STATE_END),
            Self::Drain(Drain { opened, deadline, retry }) => {
                put(out, DRAIN, &[opened.bi, opened.uni, *deadline, *retry]);
            }
        }
    }
}

impl Refusal {
    /// The bytes of a refusal without streams, and of one stream.
    const MAX_HEAD: usize = 2 + 1 + 8 + 4;
    const MAX_STREAM: usize = 8 + 8;

    /// The same, cut to what `space` bytes hold.
    pub(crate) fn fit(mut self, space: usize) -> Option<Self> {
        self.received.truncate(space.checked_sub(Self::MAX_HEAD)? / Self::MAX_STREAM);
        Some(self)
    }

    fn decode(input: &mut &[u8], before: usize, record_left: u64) -> Result<Self, Malformed> {
        let (why, detail) = (get(input)?, get(input)?);
        let mut block = get_block(input, before, record_left)?;
        let why = match why {
            REFUSED_UNKNOWN => Refused::Unknown,
            REFUSED_STALE => Refused::Stale(Epoch(detail)),
            REFUSED_EXPIRED => Refused::Expired,
            REFUSED_CLOSED => Refused::Closed(Code::new(detail).expect("a varint is below 2^62")),
            _ => return Err(Violation::FieldOutOfRange.into()),
        };
        let mut received = Vec::new();
        while !block.is_empty() {
            // All of the block is here: what is cut short in it stays so.
            let cut = |_| Malformed::Broken(Violation::TruncatedFrame);
            received.push((get_id(&mut block).map_err(cut)?, get(&mut block).map_err(cut)?));
        }
        Ok(Self { why, received })
    }

    fn encode(&self, out: &mut impl BufMut) {
        let (why, detail) = match self.why {
            Refused::Unknown => (REFUSED_UNKNOWN, 0),
            Refused::Stale(epoch) => (REFUSED_STALE, epoch.0),
            Refused::Expired => (REFUSED_EXPIRED, 0),
            Refused::Closed(code) => (REFUSED_CLOSED, code.value()),
        };
        let lengths =
            self.received.iter().map(|(id, received)| varint::len(id.to_wire()) + varint::len(*received));
        put(out, RESUME_REFUSED, &[why, detail, lengths.sum::<usize>() as u64]);
        for (id, received) in &self.received {
            varint::put(out, id.to_wire());
            varint::put(out, *received);
        }
    }
}

impl StreamHeader {
    /// Reads a STREAM frame up to its payload. `None` if it is another frame, or not all of it is here.
    pub(crate) fn decode_whole(input: &mut &[u8]) -> Option<Self> {
        let (&first, mut rest) = input.split_first()?;
        if !(STREAM..=STREAM_LAST).contains(&u64::from(first)) {
            return None;
        }
        let header = Self::decode(&mut rest, u64::from(first)).ok()?;
        *input = rest;
        Some(header)
    }

    fn decode(input: &mut &[u8], frame_type: u64) -> Result<Self, Malformed> {
        let id = get_id(input)?;
        let offset = if frame_type & STREAM_OFF == 0 { 0 } else { get(input)? };
        let length = if frame_type & STREAM_LEN == 0 { None } else { Some(get(input)?) };
        Ok(Self { id, offset, length, fin: frame_type & STREAM_FIN != 0 })
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        let mut frame_type = STREAM;
        if self.offset > 0 {
            frame_type |= STREAM_OFF;
        }
        if self.length.is_some() {
            frame_type |= STREAM_LEN;
        }
        if self.fin {
            frame_type |= STREAM_FIN;
        }
        put(out, frame_type, &[self.id.to_wire()]);
        if self.offset > 0 {
            varint::put(out, self.offset);
        }
        if let Some(length) = self.length {
            varint::put(out, length);
        }
    }

    /// The bytes that the header takes if the payload runs to the end of the record.
    pub(crate) fn encoded_len(id: StreamId, offset: u64) -> usize {
        1 + varint::len(id.to_wire()) + if offset > 0 { varint::len(offset) } else { 0 }
    }
}

fn put(out: &mut impl BufMut, frame_type: u64, fields: &[u64]) {
    varint::put(out, frame_type);
    for &field in fields {
        varint::put(out, field);
    }
}

fn get(input: &mut &[u8]) -> Result<u64, Malformed> {
    varint::get(input).ok_or(Malformed::Incomplete)
}

fn get_id(input: &mut &[u8]) -> Result<StreamId, Malformed> {
    Ok(StreamId::from_wire(get(input)?).expect("a varint is below 2^62"))
}

fn get_code(input: &mut &[u8]) -> Result<Code, Malformed> {
    Ok(Code::new(get(input)?).expect("a varint is below 2^62"))
}

fn get_stream_count(input: &mut &[u8]) -> Result<u64, Malformed> {
    match get(input)? {
        count if count > MAX_STREAMS => Err(Violation::FieldOutOfRange.into()),
        count => Ok(count),
    }
}

fn get_stream_counts(input: &mut &[u8]) -> Result<ByDir<u64>, Malformed> {
    Ok(ByDir { bi: get_stream_count(input)?, uni: get_stream_count(input)? })
}

fn get_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (array, rest) = input.split_first_chunk().ok_or(Malformed::Incomplete)?;
    *input = rest;
    Ok(*array)
}

/// Takes a length and that many bytes. `before` is how long the input was at the frame's start.
fn get_block<'a>(input: &mut &'a [u8], before: usize, record_left: u64) -> Result<&'a [u8], Malformed> {
    let length = get(input)?;
    let used = (before - input.len()) as u64;
    if length > record_left.saturating_sub(used) {
        return Err(Violation::TruncatedFrame.into());
    }
    let length = usize::try_from(length).map_err(|_| Malformed::Incomplete)?;
    input.split_off(..length).ok_or(Malformed::Incomplete)
}

fn get_reason(input: &mut &[u8], before: usize, record_left: u64) -> Result<Bytes, Malformed> {
    let reason = get_block(input, before, record_left)?;
    Ok(Bytes::copy_from_slice(&reason[..reason.len().min(MAX_REASON)]))
}

/// Skips padding at the front of `input` and returns how many bytes that were.
pub(crate) fn skip_padding(input: &mut Bytes, most: usize) -> usize {
    let count = input.iter().take(most).take_while(|&&byte| byte == 0).count();
    input.advance(count);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::ResumeParameter;
    use alloc::vec;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = StreamId> {
        number().prop_map(|value| StreamId::from_wire(value).unwrap())
    }

    fn code() -> impl Strategy<Value = Code> {
        number().prop_map(|value| Code::new(value).unwrap())
    }

    /// Numbers of every encoded length.
    fn number() -> impl Strategy<Value = u64> {
        (0..62u32, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
    }

    fn dir() -> impl Strategy<Value = Dir> {
        prop_oneof![Just(Dir::Bi), Just(Dir::Uni)]
    }

    fn reason() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..MAX_REASON).prop_map(Bytes::from)
    }

    fn parameters() -> impl Strategy<Value = Parameters> {
        (proptest::array::uniform5(number()), 0..=MAX_STREAMS, 0..=MAX_STREAMS, number()).prop_map(
            |([idle, data, local, remote, uni], bidi, uni_streams, record)| Parameters {
                max_idle_timeout: idle,
                initial_max_data: data,
                initial_max_stream_data_bidi_local: local,
                initial_max_stream_data_bidi_remote: remote,
                initial_max_stream_data_uni: uni,
                initial_max_streams_bidi: bidi,
                initial_max_streams_uni: uni_streams,
                max_record_size: record.max(crate::params::MIN_MAX_RECORD_SIZE),
                resume: (record % 2 == 0).then_some(ResumeParameter {
                    grace: data,
                    ticket: (idle % 2 == 0).then_some((SessionId([1; 16]), Secret::new([2; 32]))),
                }),
            },
        )
    }

    fn counts() -> impl Strategy<Value = ByDir<u64>> {
        (0..=MAX_STREAMS, 0..=MAX_STREAMS).prop_map(|(bi, uni)| ByDir { bi, uni })
    }

    fn refusal() -> impl Strategy<Value = Refusal> {
        let why = prop_oneof![
            Just(Refused::Unknown),
            Just(Refused::Expired),
            number().prop_map(|epoch| Refused::Stale(Epoch(epoch))),
            code().prop_map(Refused::Closed),
        ];
        let received = proptest::collection::vec((id(), number()), 0..9);
        (why, received).prop_map(|(why, received)| Refusal { why, received })
    }

    fn extension() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (id(), number()).prop_map(|(id, received)| Frame::StreamAck { id, received }),
            (any::<[u8; 16]>(), any::<[u8; 32]>(), number()).prop_map(|(session, secret, epoch)| {
                let (session, secret) = (SessionId(session), Secret::new(secret));
                Frame::Resume { session, secret, epoch: Epoch(epoch) }
            }),
            number().prop_map(|epoch| Frame::Resumed { epoch: Epoch(epoch) }),
            refusal().prop_map(Frame::ResumeRefused),
            (counts(), number(), counts()).prop_map(|(opened, max_data, max_streams)| {
                Frame::SessionState(SessionState { opened, max_data, max_streams })
            }),
            (id(), number(), number()).prop_map(|(id, received, limit)| Frame::StreamState {
                id,
                received,
                limit
            }),
            Just(Frame::StateEnd),
            (counts(), number(), number()).prop_map(|(opened, deadline, retry)| Frame::Drain(Drain {
                opened,
                deadline,
                retry
            })),
        ]
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            8 => extension(),
            14 => standard(),
        ]
    }

    fn standard() -> impl Strategy<Value = Frame> {
        prop_oneof![
            Just(Frame::Padding),
            (id(), code(), number()).prop_map(|(id, code, final_size)| Frame::ResetStream {
                id,
                code,
                final_size
            }),
            (id(), code()).prop_map(|(id, code)| Frame::StopSending { id, code }),
            (id(), number(), proptest::option::of(number()), any::<bool>()).prop_map(
                |(id, offset, length, fin)| Frame::Stream(StreamHeader { id, offset, length, fin })
            ),
            number().prop_map(|limit| Frame::MaxData { limit }),
            (id(), number()).prop_map(|(id, limit)| Frame::MaxStreamData { id, limit }),
            (dir(), 0..=MAX_STREAMS).prop_map(|(dir, limit)| Frame::MaxStreams { dir, limit }),
            number().prop_map(|limit| Frame::DataBlocked { limit }),
            (id(), number()).prop_map(|(id, limit)| Frame::StreamDataBlocked { id, limit }),
            (dir(), 0..=MAX_STREAMS).prop_map(|(dir, limit)| Frame::StreamsBlocked { dir, limit }),
            (number(), number(), reason()).prop_map(|(code, frame_type, reason)| {
                Frame::Close(Close { kind: CloseKind::Transport { code, frame_type }, reason })
            }),
            (code(), reason()).prop_map(|(code, reason)| Frame::Close(Close {
                kind: CloseKind::Application { code },
                reason
            })),
            parameters().prop_map(|parameters| Frame::Parameters(Box::new(parameters))),
            number().prop_map(|sequence| Frame::Ping { sequence }),
            number().prop_map(|sequence| Frame::Pong { sequence }),
        ]
    }

    fn encoded(frame: &Frame) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn roundtrip(frame in frame()) {
            let bytes = encoded(&frame);
            let mut input = &bytes[..];
            prop_assert_eq!(Frame::decode(&mut input, bytes.len() as u64), Ok(frame));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn a_frame_that_is_cut_is_incomplete(frame in frame(), cut in any::<prop::sample::Index>()) {
            let bytes = encoded(&frame);
            let cut = cut.index(bytes.len());
            prop_assert_eq!(Frame::decode(&mut &bytes[..cut], bytes.len() as u64), Err(Malformed::Incomplete));
        }

        #[test]
        fn frames_stay_within_their_bounds(frame in frame()) {
            let most = match frame {
                Frame::Close(_) => MAX_CLOSE_FRAME,
                Frame::Parameters(_) => MAX_PARAMETERS_FRAME,
                Frame::ResumeRefused(Refusal { ref received, .. }) => {
                    Refusal::MAX_HEAD + Refusal::MAX_STREAM * received.len()
                }
                Frame::Resume { .. } | Frame::SessionState(_) | Frame::Drain(_) => MAX_STATE_FRAME,
                _ => MAX_SHORT_FRAME,
            };
            prop_assert!(encoded(&frame).len() <= most);
        }

        #[test]
        fn what_is_read_is_written_again_alike(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(frame) = Frame::decode(&mut &bytes[..], 64) {
                let again = encoded(&frame);
                prop_assert_eq!(Frame::decode(&mut &again[..], 400), Ok(frame));
            }
        }
    }

    #[test]
    fn check_before_alloc() {
        // CONNECTION_CLOSE, QX_TRANSPORT_PARAMETERS and RESUME_REFUSED that claim 2^30 - 1 bytes in a record of 100.
        for start in
            [&[0x1d, 0x00][..], &[0xff, 0x51, 0x53, 0x30, 0x0d, 0x0a, 0x0d, 0x0a], &[0x5d, 0x43, 0x00, 0x00]]
        {
            let bytes = [start, &[0xbf, 0xff, 0xff, 0xff]].concat();
            assert_eq!(Frame::decode(&mut &bytes[..], 100), Err(Violation::TruncatedFrame.into()));
        }
    }

    #[test]
    fn prohibited_and_unknown_frames() {
        for frame_type in [0x01, 0x02, 0x03, 0x06, 0x07, 0x18, 0x19, 0x1a, 0x1b, 0x1e, 0x1f, 0x24, 0x30] {
            assert_eq!(Frame::decode(&mut &[frame_type][..], 1), Err(Violation::UnknownFrame.into()));
        }
        assert_eq!(Frame::decode(&mut &[0x40, 0x10, 0x00][..], 3), Err(Violation::LongFrameType.into()));
    }
}
