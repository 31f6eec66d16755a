//! QMux from outside the engine: enough to say anything to a session, and to hold what it says against the rules.
//!
//! In: numbers and bytes. Out: frames and records, lawful or not; or what a session's record holds. It shares no code
//! with the engine, so that one mistake cannot hide in both.

use std::collections::BTreeMap;

use towline_engine::Side;

/// The largest number that the wire can say.
pub const MAX: u64 = (1 << 62) - 1;

/// Frame types (draft-02 §4, RFC 9000 §19, PROTOCOL §6).
#[expect(missing_docs, reason = "the names are those of the specifications")]
pub mod frame {
    pub const PADDING: u64 = 0x00;
    pub const RESET_STREAM: u64 = 0x04;
    pub const STOP_SENDING: u64 = 0x05;
    pub const STREAM: u64 = 0x08;
    pub const STREAM_LAST: u64 = 0x0f;
    pub const MAX_DATA: u64 = 0x10;
    pub const MAX_STREAM_DATA: u64 = 0x11;
    pub const MAX_STREAMS_BIDI: u64 = 0x12;
    pub const MAX_STREAMS_UNI: u64 = 0x13;
    pub const DATA_BLOCKED: u64 = 0x14;
    pub const STREAM_DATA_BLOCKED: u64 = 0x15;
    pub const STREAMS_BLOCKED_BIDI: u64 = 0x16;
    pub const STREAMS_BLOCKED_UNI: u64 = 0x17;
    pub const CLOSE_TRANSPORT: u64 = 0x1c;
    pub const CLOSE_APPLICATION: u64 = 0x1d;
    pub const QX_PING: u64 = 0x348c_6752_9ef8_c7bd;
    pub const QX_PONG: u64 = 0x348c_6752_9ef8_c7be;
    pub const QX_TRANSPORT_PARAMETERS: u64 = 0x3f51_5330_0d0a_0d0a;
    pub const STREAM_ACK: u64 = 0x1d40;
    pub const RESUME: u64 = 0x1d41;
    pub const RESUMED: u64 = 0x1d42;
    pub const RESUME_REFUSED: u64 = 0x1d43;
    pub const SESSION_STATE: u64 = 0x1d44;
    pub const STREAM_STATE: u64 = 0x1d45;
    pub const STATE_END: u64 = 0x1d46;
    pub const DRAIN: u64 = 0x1d47;
}

/// Transport parameters (draft-02 §5, RFC 9000 §18.2, PROTOCOL §6.1).
#[expect(missing_docs, reason = "the names are those of the specifications")]
pub mod parameter {
    pub const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub const INITIAL_MAX_DATA: u64 = 0x04;
    pub const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
    pub const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
    pub const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
    pub const MAX_RECORD_SIZE: u64 = 0x0571_c594_29cd_0845;
    pub const RESUME: u64 = 0x0054_4c52;
}

/// Writes a variable-length integer in the fewest bytes (RFC 9000 §16). What is too large is cut to 62 bits.
pub fn put(out: &mut Vec<u8>, value: u64) {
    let value = value & MAX;
    let (length, tag) = match value {
        0..0x40 => (1, 0),
        0x40..0x4000 => (2, 0x40),
        0x4000..0x4000_0000 => (4, 0x80),
        _ => (8, 0xc0),
    };
    let bytes = value.to_be_bytes();
    out.push(bytes[8 - length] | tag);
    out.extend_from_slice(&bytes[9 - length..]);
}

/// Takes a variable-length integer, or nothing if it is cut short.
pub fn take(input: &mut &[u8]) -> Option<u64> {
    let length = 1 << (input.first()? >> 6);
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    let first = u64::from(bytes[0] & 0x3f);
    Some(bytes[1..].iter().fold(first, |value, &byte| value << 8 | u64::from(byte)))
}

/// A frame of a type and numbers.
pub fn frame(frame_type: u64, fields: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, frame_type);
    for &field in fields {
        put(&mut out, field);
    }
    out
}

/// A frame that ends in a block of bytes behind its length.
pub fn frame_with_block(frame_type: u64, fields: &[u64], block: &[u8]) -> Vec<u8> {
    let mut out = frame(frame_type, fields);
    put(&mut out, block.len() as u64);
    out.extend_from_slice(block);
    out
}

/// The record that holds `frames`.
pub fn record(frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len() + 4);
    put(&mut out, frames.len() as u64);
    out.extend_from_slice(frames);
    out
}

/// One transport parameter: its id, its length, its number.
pub fn put_parameter(out: &mut Vec<u8>, id: u64, value: u64) {
    let mut number = Vec::new();
    put(&mut number, value);
    put_parameter_bytes(out, id, &number);
}

/// One transport parameter: its id, its length, its bytes.
pub fn put_parameter_bytes(out: &mut Vec<u8>, id: u64, value: &[u8]) {
    put(out, id);
    put(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// What a session has said on one pipe, as its peer has to know it.
#[derive(Clone, Debug)]
pub struct Heard {
    side: Side,
    /// The largest record that the peer takes.
    pub max_record_size: u64,
    /// By stream: the first offset that has not come, and whether the end has.
    pub streams: BTreeMap<u64, (u64, bool)>,
    /// The streams of which something came on this pipe.
    on_this_pipe: BTreeMap<u64, u64>,
    /// The sequence number of the last ping.
    pub ping: Option<u64>,
    /// Whether the session has said that it is over.
    pub closed: bool,
    begun: bool,
}

/// What one record held, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of payload in STREAM frames.
    pub payload: usize,
    /// Bytes of all other frames, and of the record's size.
    pub control: usize,
    /// STREAM frames.
    pub stream_frames: usize,
    /// STREAM frames that carry no payload: a FIN alone.
    pub empty_stream_frames: usize,
}

impl std::ops::AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.payload += other.payload;
        self.control += other.control;
        self.stream_frames += other.stream_frames;
        self.empty_stream_frames += other.empty_stream_frames;
    }
}

impl Heard {
    /// Nothing yet, of a session on `side`.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            max_record_size: 16382,
            streams: BTreeMap::new(),
            on_this_pipe: BTreeMap::new(),
            ping: None,
            closed: false,
            begun: false,
        }
    }

    /// There is a new pipe: the session begins anew, and may repeat itself.
    pub fn on_new_pipe(&mut self) {
        self.on_this_pipe.clear();
        (self.ping, self.closed, self.begun) = (None, false, false);
    }

    /// Hears one record.
    ///
    /// # Panics
    ///
    /// If a lawful peer would not say that: a bug of the session's.
    pub fn on_record(&mut self, record: &[u8]) -> Held {
        let mut input = record;
        let size = take(&mut input).expect("a record begins with its size");
        assert_eq!(size, input.len() as u64, "one record at a time, as long as it says");
        assert!(size > 0, "a record holds at least one frame (draft-02 §3.2)");
        assert!(size <= self.max_record_size, "no larger than the peer takes (draft-02 §5.2)");
        let mut held = Held { control: record.len() - input.len(), ..Held::default() };
        while !input.is_empty() {
            let before = input.len();
            let payload = self.on_frame(&mut input).expect("a frame ends within its record");
            match payload {
                Some(0) => held.empty_stream_frames += 1,
                Some(_) => {}
                None => held.control += before - input.len(),
            }
            held.payload += payload.unwrap_or(0);
            held.stream_frames += usize::from(payload.is_some());
        }
        held
    }

    /// Hears a frame. Returns how long its payload is if it is a STREAM frame; the outer `None`: it is cut short.
    fn on_frame(&mut self, input: &mut &[u8]) -> Option<Option<usize>> {
        let frame_type = take(input)?;
        assert!(!self.closed, "nothing follows a CONNECTION_CLOSE");
        let is_first = !std::mem::replace(&mut self.begun, true);
        assert_eq!(is_first, frame_type == frame::QX_TRANSPORT_PARAMETERS, "first, and only then (§4.2)");
        match frame_type {
            frame::STREAM..=frame::STREAM_LAST => {
                let id = take(input)?;
                let offset = if frame_type & 4 != 0 { take(input)? } else { 0 };
                let length = if frame_type & 2 != 0 { take(input)? } else { input.len() as u64 };
                let length = usize::try_from(length).ok()?;
                input.split_off(..length)?;
                self.on_stream(id, offset, length as u64, frame_type & 1 != 0);
                return Some(Some(length));
            }
            frame::RESET_STREAM => {
                let (id, _, size) = (take(input)?, take(input)?, take(input)?);
                self.check_sends(id);
                let &(received, ended) = self.streams.get(&id).unwrap_or(&(0, false));
                assert!(size >= received, "the final size is not less than what was sent (RFC 9000 §4.5)");
                assert!(!ended || size == received, "the end does not move (RFC 9000 §4.5): {id}");
                self.streams.insert(id, (size, true));
                self.on_this_pipe.insert(id, u64::MAX); // no offset follows on that
            }
            frame::PADDING | frame::STATE_END => {}
            frame::MAX_DATA
            | frame::MAX_STREAMS_BIDI
            | frame::MAX_STREAMS_UNI
            | frame::DATA_BLOCKED
            | frame::STREAMS_BLOCKED_BIDI
            | frame::STREAMS_BLOCKED_UNI
            | frame::QX_PONG
            | frame::RESUMED => _ = take(input)?,
            frame::QX_PING => {
                let sequence = take(input)?;
                assert!(self.ping < Some(sequence), "pings grow (draft-02 §4.3)");
                self.ping = Some(sequence);
            }
            frame::STREAM_DATA_BLOCKED => {
                let id = take(input)?;
                take(input)?;
                self.check_sends(id);
            }
            frame::STOP_SENDING | frame::MAX_STREAM_DATA | frame::STREAM_ACK => {
                let id = take(input)?;
                take(input)?;
                assert!(receives(self.side, id), "about a half that this end receives");
            }
            frame::STREAM_STATE => _ = (take(input)?, take(input)?, take(input)?),
            frame::SESSION_STATE => {
                for _ in 0..5 {
                    take(input)?;
                }
            }
            frame::DRAIN => _ = (take(input)?, take(input)?, take(input)?, take(input)?),
            frame::RESUME => {
                input.split_off(..16 + 32)?;
                take(input)?;
            }
            frame::QX_TRANSPORT_PARAMETERS => take_block(input)?,
            frame::RESUME_REFUSED => {
                let _ = (take(input)?, take(input)?);
                take_block(input)?;
            }
            frame::CLOSE_TRANSPORT => {
                let _ = (take(input)?, take(input)?);
                take_block(input)?;
                self.closed = true;
            }
            frame::CLOSE_APPLICATION => {
                take(input)?;
                take_block(input)?;
                self.closed = true;
            }
            other => panic!("a session never sends a frame of type {other:#x}"),
        }
        Some(None)
    }

    fn on_stream(&mut self, id: u64, offset: u64, length: u64, fin: bool) {
        self.check_sends(id);
        let end = offset + length;
        let &(received, ended) = self.streams.get(&id).unwrap_or(&(0, false));
        match self.on_this_pipe.get(&id) {
            Some(&next) => assert_eq!(offset, next, "no gap and no overlap on a pipe (draft-02 §4.1): {id}"),
            None => assert!(offset <= received, "what was not received is sent again first: {id}"),
        }
        assert!(!ended || end <= received, "nothing lies past the end (RFC 9000 §4.5): {id}");
        assert!(!(ended && fin) || end == received, "the end does not move (RFC 9000 §4.5): {id}");
        self.on_this_pipe.insert(id, end);
        self.streams.insert(id, (received.max(end), ended || fin));
    }

    fn check_sends(&self, id: u64) {
        assert!(sends(self.side, id), "about a half that this end sends on: {id}");
    }
}

fn take_block(input: &mut &[u8]) -> Option<()> {
    let length = usize::try_from(take(input)?).ok()?;
    input.split_off(..length).map(|_| ())
}

/// Whether `side` sends on stream `id` (RFC 9000 §2.1).
pub fn sends(side: Side, id: u64) -> bool {
    id & 2 == 0 || opened_by(side, id)
}

/// Whether `side` receives on stream `id`.
pub fn receives(side: Side, id: u64) -> bool {
    id & 2 == 0 || !opened_by(side, id)
}

/// Whether `side` opens streams such as `id`.
pub fn opened_by(side: Side, id: u64) -> bool {
    (id & 1 == 0) == (side == Side::Client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length() {
        // RFC 9000, appendix A.1.
        for (value, bytes) in [
            (37, &[0x25][..]),
            (15_293, &[0x7b, 0xbd]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
        ] {
            assert_eq!(frame(value, &[]), bytes);
            assert_eq!(take(&mut &bytes[..]), Some(value));
            assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    #[should_panic(expected = "no gap")]
    fn a_gap_is_heard() {
        let mut heard = Heard::new(Side::Client);
        let hello = frame_with_block(frame::QX_TRANSPORT_PARAMETERS, &[], &[]);
        heard.on_record(&record(&hello));
        heard.on_record(&record(&[0x08, 0x00, b'a']));
        heard.on_record(&record(&[0x0c, 0x00, 0x02, b'a']));
    }
}
