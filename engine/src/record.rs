//! Turns a pipe's bytes into frames.
//!
//! In: the pipe's bytes, cut anywhere. Out: frames, in order; the payload of a STREAM frame in as many pieces
//! as it arrived in. Keeps: the start of one frame that was cut, at most a record. Spec: draft-02 §3.2.

use alloc::vec::Vec;
use bytes::{Buf, Bytes};

use crate::error::Violation;
use crate::frame::{self, Frame, MAX_SHORT_FRAME, Malformed, StreamHeader};
use crate::id::StreamId;
use crate::varint;

/// What a pipe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Any frame but STREAM. PADDING comes once for each run of it.
    Frame(Frame),
    /// A STREAM frame, or a part of one.
    Stream(Piece),
}

/// The payload of a STREAM frame, as far as it has arrived in one go.
///
/// Pieces of one frame follow each other without a gap, so they can be treated as frames of their own; only
/// the checks of the whole frame need [`rest`](Self::rest) and [`fin`](Self::fin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: StreamId,
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    /// How many bytes of the frame's payload follow in later pieces.
    pub(crate) rest: u64,
    /// Whether the stream ends with the frame, and so with the piece that has no `rest`.
    pub(crate) fin: bool,
}

/// The reader of one pipe.
#[derive(Clone, Debug)]
pub(crate) struct RecordReader {
    /// The largest record that we announced.
    max_record_size: u64,
    state: State,
    /// The start of a size or frame that was cut.
    carry: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two records.
    Size,
    /// Within a record, before a frame; `left` bytes of the record follow, `carry` included.
    Frames { left: u64 },
    /// Within the payload of a STREAM frame of which `rest` bytes follow, and then `left` of the record.
    Payload { id: StreamId, offset: u64, rest: u64, fin: bool, left: u64 },
}

impl RecordReader {
    pub(crate) fn new(max_record_size: u64) -> Self {
        Self { max_record_size, state: State::Size, carry: Vec::new() }
    }

    /// Takes the next item from `input`, or all of `input` and `None` if it holds no whole item.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break. Nothing may be read after that.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Item>, Violation> {
        loop {
            match self.state {
                State::Size => {
                    let Some((size, _)) = self.decode(input, 8, get_size)? else { return Ok(None) };
                    if size > self.max_record_size {
                        return Err(Violation::RecordTooLarge);
                    }
                    if size == 0 {
                        return Err(Violation::EmptyRecord);
                    }
                    self.state = State::Frames { left: size };
                }
                State::Frames { left: 0 } => self.state = State::Size,
                State::Frames { left } => {
                    if self.carry.is_empty() {
                        let padding = frame::skip_padding(input, usize::try_from(left).unwrap_or(usize::MAX));
                        if padding > 0 {
                            self.state = State::Frames { left: left - padding as u64 };
                            return Ok(Some(Item::Frame(Frame::Padding)));
                        }
                    }
                    // What there is most of, without the detour.
                    if let Some((header, used)) = self.stream_header(input, left) {
                        self.state = payload(header, left - used)?;
                        continue;
                    }
                    let decode = |bytes: &mut &[u8]| Frame::decode(bytes, left);
                    let Some((frame, used)) = self.decode(input, left, decode)? else { return Ok(None) };
                    let left = left - used;
                    match frame {
                        Frame::Stream(header) => self.state = payload(header, left)?,
                        frame => {
                            self.state = State::Frames { left };
                            return Ok(Some(Item::Frame(frame)));
                        }
                    }
                }
                State::Payload { id, offset, rest, fin, left } => {
                    if input.is_empty() && rest > 0 {
                        return Ok(None);
                    }
                    let count = input.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                    let data = input.split_to(count);
                    let rest = rest - count as u64;
                    self.state = if rest == 0 {
                        State::Frames { left }
                    } else {
                        State::Payload { id, offset: offset + count as u64, rest, fin, left }
                    };
                    return Ok(Some(Item::Stream(Piece { id, offset, data, rest, fin })));
                }
            }
        }
    }

    /// Whether what came so far ends with a record.
    pub(crate) fn is_between_records(&self) -> bool {
        self.carry.is_empty() && matches!(self.state, State::Size | State::Frames { left: 0 })
    }

    /// Takes the header of a STREAM frame, and tells its length, if that is what comes next, uncut.
    fn stream_header(&self, input: &mut Bytes, left: u64) -> Option<(StreamHeader, u64)> {
        if !self.carry.is_empty() {
            return None;
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let mut rest = &input[..most];
        let header = StreamHeader::decode_whole(&mut rest)?;
        let used = most - rest.len();
        input.advance(used);
        Some((header, used as u64))
    }

    /// Feeds the reader's logical state to `digest`.
    pub(crate) fn digest(&self, digest: &mut crate::fingerprint::Digest) {
        match self.state {
            State::Size | State::Frames { left: 0 } => digest.number(0),
            State::Frames { left } => digest.numbers(&[1, left]),
            State::Payload { id, offset, rest, fin, left } => {
                digest.numbers(&[2, id.to_wire(), offset, rest, u64::from(fin), left]);
            }
        }
        digest.bytes(&self.carry);
    }

    /// Applies `parse` to what was carried and `input`, of which at most `most` bytes belong to the item.
    ///
    /// Returns the item and its length, or `None` after moving all of `input` to the carry.
    fn decode<T>(
        &mut self,
        input: &mut Bytes,
        most: u64,
        parse: impl Fn(&mut &[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<(T, u64)>, Violation> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let carried = self.carry.len();
        if carried == 0 {
            // Nearly every frame is short, and whole.
            let bytes = &input[..input.len().min(most).min(MAX_SHORT_FRAME)];
            let mut rest = bytes;
            if let Ok(item) = parse(&mut rest) {
                let used = bytes.len() - rest.len();
                input.advance(used);
                return Ok(Some((item, used as u64)));
            }
        }
        let available = input.len().min(most - carried);
        // Nearly every frame is short: try with that much before the rest is copied as well.
        for take in [available.min(MAX_SHORT_FRAME), available] {
            self.carry.truncate(carried);
            let bytes = if carried == 0 {
                &input[..take]
            } else {
                self.carry.extend_from_slice(&input[..take]);
                &self.carry[..]
            };
            let mut rest = bytes;
            match parse(&mut rest) {
                Ok(item) => {
                    let used = bytes.len() - rest.len();
                    input.advance(used - carried);
                    self.carry.clear();
                    self.carry.shrink_to(MAX_SHORT_FRAME);
                    return Ok(Some((item, used as u64)));
                }
                Err(Malformed::Incomplete) if bytes.len() == most => return Err(Violation::TruncatedFrame),
                Err(Malformed::Incomplete) => {}
                Err(Malformed::Broken(violation)) => return Err(violation),
            }
        }
        if carried == 0 {
            self.carry.extend_from_slice(&input[..available]);
        }
        input.clear();
        Ok(None)
    }
}

fn get_size(input: &mut &[u8]) -> Result<u64, Malformed> {
    varint::get(input).ok_or(Malformed::Incomplete)
}

/// The state after a STREAM header, when `left` bytes of the record follow it.
fn payload(header: StreamHeader, left: u64) -> Result<State, Violation> {
    let StreamHeader { id, offset, length, fin } = header;
    let length = length.unwrap_or(left);
    if length > left {
        return Err(Violation::TruncatedFrame);
    }
    if offset.saturating_add(length) > varint::MAX {
        return Err(Violation::FieldOutOfRange);
    }
    Ok(State::Payload { id, offset, rest: length, fin, left: left - length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Code, Dir, Side};

    const RECORDS: &str = "0a 0401024005 00 00 1020 00 \
                           08 0b00056865 6c6c6f \
                           05 0f04 05 00 00 \
                           06 0c 04 05 616263";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }

    fn read(chunks: &[&[u8]]) -> Result<Vec<Item>, Violation> {
        let mut reader = RecordReader::new(100);
        let mut items = Vec::new();
        for chunk in chunks {
            let mut input = Bytes::copy_from_slice(chunk);
            while let Some(item) = reader.next(&mut input)? {
                items.push(item);
            }
            assert!(input.is_empty(), "what is no item yet is kept by the reader");
        }
        assert!(reader.carry.is_empty() && matches!(reader.state, State::Size | State::Frames { left: 0 }));
        Ok(items)
    }

    /// Joins the pieces that belong together, so that differently cut input can be compared.
    fn joined(items: Vec<Item>) -> Vec<Item> {
        let mut out: Vec<Item> = Vec::new();
        for item in items {
            match (out.last_mut(), item) {
                (Some(Item::Stream(last)), Item::Stream(piece)) if last.rest > 0 => {
                    assert_eq!((piece.id, piece.offset), (last.id, last.offset + last.data.len() as u64));
                    last.data = [&last.data[..], &piece.data].concat().into();
                    (last.rest, last.fin) = (piece.rest, piece.fin);
                }
                (Some(Item::Frame(Frame::Padding)), Item::Frame(Frame::Padding)) => {}
                (_, item) => out.push(item),
            }
        }
        out
    }

    #[test]
    fn records_are_frames_one_after_the_other() {
        let stream = |index| StreamId::new(Side::Client, Dir::Bi, index).unwrap();
        let piece = |index, offset, data, fin| {
            Item::Stream(Piece { id: stream(index), offset, data: Bytes::from_static(data), rest: 0, fin })
        };
        let expected = [
            Item::Frame(Frame::ResetStream {
                id: StreamId::new(Side::Server, Dir::Bi, 0).unwrap(),
                code: Code::from(2),
                final_size: 5,
            }),
            Item::Frame(Frame::Padding),
            Item::Frame(Frame::MaxData { limit: 32 }),
            Item::Frame(Frame::Padding),
            piece(0, 0, b"hello", true),
            piece(1, 5, b"", true),
            Item::Frame(Frame::Padding),
            piece(1, 5, b"abc", false),
        ];
        assert_eq!(read(&[&hex(RECORDS)]).unwrap(), expected);
    }

    #[test]
    fn split_invariance_of_records() {
        let bytes = hex(RECORDS);
        let whole = read(&[&bytes]).unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(joined(read(&[&bytes[..cut], &bytes[cut..]]).unwrap()), whole, "cut at {cut}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(joined(read(&single).unwrap()), whole);
    }

    #[test]
    fn bad_records_break_a_rule_wherever_they_are_cut() {
        for (bytes, violation) in [
            ("00", Violation::EmptyRecord),
            ("4065", Violation::RecordTooLarge),
            ("01 10", Violation::TruncatedFrame),
            ("05 0a 00 05 0000", Violation::TruncatedFrame),
            ("04 0a 00 4005", Violation::TruncatedFrame),
            ("0b 0c 00 ffffffffffffffff 00", Violation::FieldOutOfRange),
            ("02 4010", Violation::LongFrameType),
            ("09 13 d000000000000001", Violation::FieldOutOfRange),
            ("01 01", Violation::UnknownFrame),
        ] {
            let bytes = hex(bytes);
            for cut in 0..bytes.len() {
                assert_eq!(
                    read(&[&bytes[..cut], &bytes[cut..]]),
                    Err(violation),
                    "{bytes:02x?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn a_cut_record_costs_what_arrived_of_a_frame_and_not_its_payload() {
        let mut reader = RecordReader::new(1 << 20);
        // A record of 2^20 bytes with one STREAM frame: none of its payload is kept here.
        let mut input = Bytes::from(hex("80100000 08 00"));
        assert_eq!(reader.next(&mut input), Ok(None));
        for _ in 0..100 {
            let mut input = Bytes::from_static(&[1; 5000]);
            assert!(matches!(reader.next(&mut input), Ok(Some(Item::Stream(_)))));
        }
        assert!(reader.carry.capacity() <= 2 * MAX_SHORT_FRAME);
    }
}
