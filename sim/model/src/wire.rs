//! What records say, read by somebody who shares no code with the engine.
//!
//! In: a whole record. Out: where its frames lie, and what they say of offsets and limits. Spec: draft-02 §3.2 and §4,
//! RFC 9000 §19, PROTOCOL §6.

use towline_engine::{Dir, StreamId};

/// A frame, and where it lies in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Where it begins.
    pub start: usize,
    /// Where its payload begins; where it ends, if it has none.
    pub payload: usize,
    /// Where it ends.
    pub end: usize,
    /// What it says.
    pub what: Said,
}

/// What a frame says, as far as an observer needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the frames")]
pub enum Said {
    Stream {
        id: StreamId,
        offset: u64,
        length: u64,
        fin: bool,
    },
    Reset {
        id: StreamId,
        final_size: u64,
    },
    MaxData(u64),
    MaxStreamData(StreamId, u64),
    MaxStreams(Dir, u64),
    Parameters(Limits),
    SessionState {
        data: u64,
        bidi: u64,
        uni: u64,
    },
    StreamState {
        id: StreamId,
        received: u64,
        limit: u64,
    },
    Ack {
        id: StreamId,
        received: u64,
    },
    Resume,
    /// A QX_PING that asks, with its number.
    Ping(u64),
    /// The answer to one.
    Pong(u64),
    /// The drain of a session.
    Drain,
    /// Anything else.
    Other,
}

/// The limits that an end declares first; 0 is what it means that says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the parameters")]
pub struct Limits {
    pub data: u64,
    pub stream_bidi_local: u64,
    pub stream_bidi_remote: u64,
    pub stream_uni: u64,
    pub bidi: u64,
    pub uni: u64,
}

/// The frames of a record.
///
/// # Panics
///
/// If it is not a whole and lawful record.
pub fn frames(record: &[u8]) -> Vec<Spoken> {
    let mut reader = Reader { record, at: 0 };
    let size = reader.number();
    assert_eq!(reader.at as u64 + size, record.len() as u64, "a whole record");
    let mut frames = Vec::new();
    while reader.at < record.len() {
        frames.push(reader.frame());
    }
    frames
}

/// Where a record may be cut so that it matters, short of its ends: after each frame, within each payload, and once
/// within a frame.
///
/// A frame that is not whole has no effect, but for payload. So all cuts within one are alike, and one of them, in
/// the middle of the longest frame, stands for them.
pub fn cuts(record: &[u8]) -> Vec<usize> {
    let frames = frames(record);
    let longest =
        frames.iter().max_by_key(|frame| frame.payload - frame.start).expect("a record has a frame");
    let mut cuts = vec![usize::midpoint(longest.start, longest.payload)];
    for frame in &frames {
        cuts.extend(frame.payload + 1..frame.end);
        cuts.push(frame.end);
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts.retain(|&cut| 0 < cut && cut < record.len());
    cuts
}

struct Reader<'a> {
    record: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> u64 {
        let length = 1 << (self.record[self.at] >> 6);
        let bytes = &self.record[self.at..self.at + length];
        self.at += length;
        let first = u64::from(bytes[0] & 0x3f);
        bytes[1..].iter().fold(first, |number, &byte| number << 8 | u64::from(byte))
    }

    fn id(&mut self) -> StreamId {
        StreamId::from_wire(self.number()).expect("a varint is below 2^62")
    }

    fn skip(&mut self, numbers: usize) -> Said {
        for _ in 0..numbers {
            self.number();
        }
        Said::Other
    }

    fn skip_block(&mut self) -> Said {
        let length = self.number();
        self.at += usize::try_from(length).expect("it is in memory");
        Said::Other
    }

    fn frame(&mut self) -> Spoken {
        let start = self.at;
        let frame_type = self.number();
        let what = match frame_type {
            0x00 => Said::Other,
            0x04 => {
                let id = self.id();
                self.skip(1);
                Said::Reset { id, final_size: self.number() }
            }
            0x05 => self.skip(2),
            0x08..=0x0f => return self.stream(start, frame_type),
            0x10 => Said::MaxData(self.number()),
            0x11 => Said::MaxStreamData(self.id(), self.number()),
            0x12 => Said::MaxStreams(Dir::Bi, self.number()),
            0x13 => Said::MaxStreams(Dir::Uni, self.number()),
            0x14 | 0x16 | 0x17 => self.skip(1),
            0x15 => self.skip(2),
            0x1c => {
                self.skip(2);
                self.skip_block()
            }
            0x1d => {
                self.skip(1);
                self.skip_block()
            }
            0x3f51_5330_0d0a_0d0a => Said::Parameters(self.parameters()),
            0x348c_6752_9ef8_c7bd => Said::Ping(self.number()),
            0x348c_6752_9ef8_c7be => Said::Pong(self.number()),
            0x1d40 => Said::Ack { id: self.id(), received: self.number() },
            0x1d41 => {
                self.at += 16 + 32;
                self.skip(1);
                Said::Resume
            }
            0x1d42 => self.skip(1),
            0x1d43 => {
                self.skip(2);
                self.skip_block()
            }
            0x1d44 => {
                self.skip(2);
                Said::SessionState { data: self.number(), bidi: self.number(), uni: self.number() }
            }
            0x1d45 => Said::StreamState { id: self.id(), received: self.number(), limit: self.number() },
            0x1d46 => Said::Other,
            0x1d47 => {
                self.skip(4);
                Said::Drain
            }
            unknown => panic!("a frame of type {unknown:#x}"),
        };
        Spoken { start, payload: self.at, end: self.at, what }
    }

    fn parameters(&mut self) -> Limits {
        let mut limits = Limits::default();
        let length = self.number();
        let end = self.at + usize::try_from(length).expect("it is in memory");
        while self.at < end {
            match self.number() {
                id @ 0x04..=0x09 => {
                    self.number();
                    let value = self.number();
                    match id {
                        0x04 => limits.data = value,
                        0x05 => limits.stream_bidi_local = value,
                        0x06 => limits.stream_bidi_remote = value,
                        0x07 => limits.stream_uni = value,
                        0x08 => limits.bidi = value,
                        _ => limits.uni = value,
                    }
                }
                _ => _ = self.skip_block(),
            }
        }
        limits
    }

    fn stream(&mut self, start: usize, frame_type: u64) -> Spoken {
        let id = self.id();
        let offset = if frame_type & 4 == 0 { 0 } else { self.number() };
        let length = if frame_type & 2 == 0 { None } else { Some(self.number()) };
        let payload = self.at;
        let length = length.unwrap_or((self.record.len() - payload) as u64);
        self.at += usize::try_from(length).expect("it is in memory");
        let what = Said::Stream { id, offset, length, fin: frame_type & 1 != 0 };
        Spoken { start, payload, end: self.at, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RESET_STREAM, MAX_DATA, a STREAM frame of three bytes with a length, and one of two that ends the record.
    const RECORD: [u8; 19] = [
        18, // size
        0x04, 0x00, 0x02, 0x05, // to 5
        0x10, 0x20, // to 7
        0x0e, 0x04, 0x01, 0x03, b'a', b'b', b'c', // payload from 11, to 14
        0x09, 0x08, b'd', b'e', 0x00, // payload from 16
    ];

    #[test]
    fn a_record_is_its_frames() {
        let stream = |index: u64| StreamId::from_wire(index * 4).unwrap();
        let said: Vec<_> = frames(&RECORD).iter().map(|frame| frame.what).collect();
        let expected = [
            Said::Reset { id: stream(0), final_size: 5 },
            Said::MaxData(32),
            Said::Stream { id: stream(1), offset: 1, length: 3, fin: false },
            Said::Stream { id: stream(2), offset: 0, length: 3, fin: true },
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn cuts_lie_between_frames_within_payloads_and_once_within_a_frame() {
        assert_eq!(cuts(&RECORD), [5, 7, 9, 12, 13, 14, 17, 18]);
    }
}
