//! Turns frames into a record.
//!
//! In: frames, and payload as slices. Out: slices that make up the record, the payload as it came in. Keeps:
//! nothing; the buffer that the headers are written into is lent. Spec: draft-02 §3.2.

use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{Frame, StreamHeader};
use crate::varint;

/// A record in the making.
#[derive(Debug)]
pub(crate) struct RecordWriter<'a> {
    out: &'a mut Vec<Bytes>,
    /// Where in `out` the slice belongs that begins with the record's size.
    first: usize,
    /// That slice, once there was payload: room for the size, then all up to it.
    head: Option<BytesMut>,
    /// What was written since the last payload. It follows `head` in the same allocation.
    rest: BytesMut,
    /// The bytes of frames so far.
    size: usize,
    max_size: usize,
    prefix: usize,
}

/// What the header buffer begins with: a record with a frame or two of control and one of data fits.
const HEAD: usize = 64;

impl<'a> RecordWriter<'a> {
    /// A record of at most `max` bytes on the wire and `max_record_size` bytes of frames.
    pub(crate) fn new(scratch: BytesMut, max: usize, max_record_size: u64, out: &'a mut Vec<Bytes>) -> Self {
        let max_record_size = usize::try_from(max_record_size).unwrap_or(usize::MAX);
        let prefix = if max.min(max_record_size) < 1 << 14 { 2 } else { 4 };
        let max_size = max.saturating_sub(prefix).min(max_record_size).min((1 << 30) - 1);
        let mut rest = scratch;
        rest.reserve(HEAD);
        rest.put_bytes(0, prefix);
        Self { first: out.len(), out, head: None, rest, size: 0, max_size, prefix }
    }

    /// How many bytes of frames still fit.
    pub(crate) fn space(&self) -> usize {
        self.max_size - self.size
    }

    /// Whether no frame is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Lets no more frames in: the last one runs to the end of the record.
    pub(crate) fn seal(&mut self) {
        self.max_size = self.size;
    }

    /// Appends a frame, which must fit.
    pub(crate) fn frame(&mut self, frame: &Frame) {
        #[cfg(feature = "tracing")]
        tracing::trace!(?frame, "sent");
        self.append(|buffer| frame.encode(buffer));
    }

    /// Appends the header of a STREAM frame, which must fit.
    pub(crate) fn stream(&mut self, header: &StreamHeader) {
        #[cfg(feature = "tracing")]
        tracing::trace!(?header, "sent STREAM");
        self.append(|buffer| header.encode(buffer));
    }

    /// Appends payload to the STREAM frame that was appended last. It must fit.
    pub(crate) fn payload(&mut self, data: Bytes) {
        if self.head.is_none() {
            self.head = Some(self.rest.split());
            self.out.push(Bytes::new()); // the head's place
        } else if !self.rest.is_empty() {
            let header = self.rest.split().freeze();
            self.out.push(header);
        }
        self.grow(data.len());
        self.out.push(data);
    }

    /// Completes the record. Returns its length, 0 if it holds no frame, and the header buffer.
    pub(crate) fn finish(mut self) -> (usize, BytesMut) {
        if self.size == 0 {
            self.rest.clear();
            return (0, self.rest);
        }
        let mut head = self.head.take().unwrap_or_else(|| {
            self.out.push(Bytes::new());
            self.rest.split()
        });
        let size = self.size as u64;
        let unused = self.prefix - varint::len(size);
        varint::put(&mut &mut head[unused..self.prefix], size);
        head.advance(unused);
        self.out[self.first] = head.freeze();
        if !self.rest.is_empty() {
            let header = self.rest.split().freeze();
            self.out.push(header);
        }
        (self.prefix - unused + self.size, self.rest)
    }

    fn append(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let before = self.rest.len();
        encode(&mut self.rest);
        self.grow(self.rest.len() - before);
    }

    fn grow(&mut self, count: usize) {
        self.size += count;
        assert!(self.size <= self.max_size, "what is appended must fit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::StreamHeader;
    use crate::id::{Dir, Side, StreamId};

    fn written(max: usize, write: impl FnOnce(&mut RecordWriter<'_>)) -> Vec<u8> {
        let mut out = alloc::vec![Bytes::from_static(b"before")];
        let mut record = RecordWriter::new(BytesMut::new(), max, 1 << 20, &mut out);
        write(&mut record);
        let (length, _) = record.finish();
        let bytes = out[1..].concat();
        assert_eq!(bytes.len(), length);
        bytes
    }

    #[test]
    fn a_record_is_its_size_and_its_frames() {
        let stream = |index, length| {
            let id = StreamId::new(Side::Client, Dir::Bi, index).unwrap();
            Frame::Stream(StreamHeader { id, offset: 0, length, fin: false })
        };
        let bytes = written(1000, |record| {
            record.frame(&Frame::MaxData { limit: 1 });
            record.frame(&stream(0, Some(4)));
            record.payload(Bytes::from_static(b"ab"));
            record.payload(Bytes::from_static(b"cd"));
            record.frame(&stream(1, None));
            record.payload(Bytes::from_static(b"ef"));
        });
        assert_eq!(bytes, b"\x0d\x10\x01\x0a\x00\x04abcd\x08\x04ef");
    }

    #[test]
    fn an_empty_record_is_none() {
        assert_eq!(written(1000, |_| ()), b"");
    }

    #[test]
    fn the_size_is_in_its_shortest_form() {
        for (count, prefix) in [(63, 1), (64, 2), (16383, 2), (16384, 4)] {
            let bytes = written(1 << 20, |record| {
                for _ in 0..count {
                    record.frame(&Frame::Padding);
                }
            });
            assert_eq!(bytes.len(), prefix + count);
            let mut input = &bytes[..];
            assert_eq!(varint::get(&mut input), Some(count as u64));
        }
    }

    #[test]
    fn the_header_buffer_is_used_again() {
        let mut scratch = BytesMut::new();
        let mut places = Vec::new();
        for _ in 0..10 {
            let mut out = Vec::new();
            let mut record = RecordWriter::new(scratch, 1000, 16382, &mut out);
            record.frame(&Frame::MaxData { limit: 1 });
            (_, scratch) = record.finish();
            places.push(out[0].as_ptr() as usize);
        }
        let (least, most) = (places.iter().min().unwrap(), places.iter().max().unwrap());
        assert!(most - least < 2 * HEAD, "one allocation serves all records");
    }
}
