//! What a message holds.
//!
//! In: slices to be written. Out: the payloads of messages. Keeps: the part of a record that has been written so far.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::{MAX_SENT, WebSocketError};

/// How bytes and messages belong together.
#[derive(Debug)]
pub(super) enum Framing {
    /// A message is some of the bytes.
    Bytes,
    /// A message is a record without its size (PROTOCOL §3.2). Here is the part of one that was written, size and all.
    Records(BytesMut),
}

impl Framing {
    pub(super) fn records() -> Self {
        Self::Records(BytesMut::new())
    }

    /// What is read before a message of `length` bytes.
    pub(super) fn prefix(&self, length: usize) -> Bytes {
        match self {
            Self::Bytes => Bytes::new(),
            Self::Records(_) => {
                let length = u64::try_from(length).expect("a length fits 64 bits");
                // Eight bytes, as the first two bits say. A size need not be in its shortest form.
                Bytes::copy_from_slice(&(length | 0b11 << 62).to_be_bytes())
            }
        }
    }

    /// Takes bytes from the front of `parts`: how many, and the message that they complete.
    pub(super) fn take(&mut self, parts: &[IoSlice<'_>]) -> Result<(usize, Option<Bytes>), WebSocketError> {
        let offered = parts.iter().map(|part| part.len()).sum::<usize>();
        match self {
            Self::Bytes => {
                let length = offered.min(MAX_SENT);
                let mut message = BytesMut::with_capacity(length);
                copy(parts, 0, length, &mut message);
                Ok((length, (length > 0).then(|| message.freeze())))
            }
            Self::Records(record) => {
                let mut taken = 0;
                loop {
                    // Until its size is known, a record needs at least one byte more.
                    let lacks = match size(record) {
                        None => 1,
                        Some((_, size)) if size > MAX_SENT => return Err(WebSocketError::Record),
                        Some((header, size)) if record.len() == header + size => {
                            let mut message = std::mem::take(record);
                            message.advance(header);
                            return Ok((taken, Some(message.freeze())));
                        }
                        Some((header, size)) => header + size - record.len(),
                    };
                    let count = lacks.min(offered - taken);
                    if count == 0 {
                        return Ok((taken, None));
                    }
                    copy(parts, taken, count, record);
                    taken += count;
                }
            }
        }
    }
}

/// Copies `count` bytes of `parts`, from the one at `start`.
fn copy(parts: &[IoSlice<'_>], mut start: usize, mut count: usize, into: &mut BytesMut) {
    for part in parts {
        let piece = part.get(start..).unwrap_or_default();
        let piece = &piece[..piece.len().min(count)];
        into.extend_from_slice(piece);
        count -= piece.len();
        start = start.saturating_sub(part.len());
    }
}

/// The length of a record's size, and the size, once its bytes are there.
fn size(record: &[u8]) -> Option<(usize, usize)> {
    let header = 1 << (record.first()? >> 6);
    let bytes = record.get(..header)?;
    let value = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let value = value & (u64::MAX >> (66 - 8 * header));
    Some((header, usize::try_from(value).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_what_is_offered_up_to_its_limit() {
        let (first, second) = ([1; 10], [2; MAX_SENT]);
        let parts = [IoSlice::new(&first), IoSlice::new(&[]), IoSlice::new(&second)];
        let (taken, message) = Framing::Bytes.take(&parts).unwrap();
        let message = message.unwrap();
        assert_eq!((taken, message.len()), (MAX_SENT, MAX_SENT));
        assert_eq!((&message[..10], &message[10..]), (&first[..], &second[10..]));
        assert_eq!(Framing::Bytes.take(&[IoSlice::new(&[])]).unwrap(), (0, None));
    }

    /// However the bytes are cut, the messages are the records.
    #[test]
    fn records_are_found_at_every_cut() {
        let sizes: [&[u8]; 4] = [&[3], &[0x40, 3], &[0x80, 0, 0, 3], &[0xc0, 0, 0, 0, 0, 0, 0, 3]];
        let written = sizes.iter().flat_map(|size| [*size, b"abc"].concat()).collect::<Vec<_>>();
        for cut in 1..written.len() {
            let mut framing = Framing::records();
            let mut messages = Vec::new();
            for piece in written.chunks(cut) {
                let mut piece = piece;
                while !piece.is_empty() {
                    let (half, rest) = piece.split_at(piece.len() / 2);
                    let (taken, message) = framing.take(&[IoSlice::new(half), IoSlice::new(rest)]).unwrap();
                    piece = &piece[taken..];
                    messages.extend(message);
                }
            }
            assert_eq!(messages, ["abc"; 4], "in pieces of {cut}");
        }
    }

    #[test]
    fn a_record_too_large_for_a_message_is_refused() {
        let mut framing = Framing::records();
        assert_eq!(framing.take(&[IoSlice::new(&[0x80, 1, 0, 1])]), Err(WebSocketError::Record));
        let mut framing = Framing::records();
        assert_eq!(framing.take(&[IoSlice::new(&[0xff; 8])]), Err(WebSocketError::Record));
    }

    #[test]
    fn the_prefix_of_a_message_is_its_size() {
        for length in [0, 1, 63, 64, 16_382, MAX_SENT] {
            let prefix = Framing::records().prefix(length);
            assert_eq!(size(&prefix), Some((8, length)));
        }
    }
}
