//! What streams carry: bytes that say where they belong.
//!
//! The byte at an offset follows from the stream's number and the offset, so that a reader knows what it must find; what is
//! written are slices of one table, so that nothing is copied for it.

use bytes::Bytes;

/// The bytes of all streams.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    table: Bytes,
}

/// A prime, so that neither records nor windows are a multiple of it.
const PERIOD: u64 = 251;

/// The most that is handed out at once.
pub(crate) const LONGEST: u64 = 64 << 10;

impl Pattern {
    pub(crate) fn new() -> Self {
        let bytes = (0..LONGEST + PERIOD).map(|at| u8::try_from(at * 31 % PERIOD).expect("below 251"));
        Self { table: bytes.collect() }
    }

    /// At most `len` bytes from `offset` on, of the direction `way` (0 is up) of the stream with this number.
    pub(crate) fn slice(&self, stream: usize, way: usize, offset: u64, len: u64) -> Bytes {
        let start = (offset % PERIOD + stream as u64 * 74 % PERIOD + way as u64 * 37) % PERIOD;
        let start = usize::try_from(start).expect("below 251");
        self.table.slice(start..start + usize::try_from(len.min(LONGEST)).expect("at most the longest"))
    }

    /// Whether `bytes` are those from `offset` on.
    pub(crate) fn is(&self, stream: usize, way: usize, mut offset: u64, bytes: &[u8]) -> bool {
        bytes.chunks(usize::try_from(LONGEST).expect("64 KiB")).all(|chunk| {
            let is_it = self.slice(stream, way, offset, chunk.len() as u64) == chunk;
            offset += chunk.len() as u64;
            is_it
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_say_where_they_belong() {
        let pattern = Pattern::new();
        let bytes = pattern.slice(3, 0, 1000, 100);
        assert!(pattern.is(3, 0, 1000, &bytes));
        assert!(!pattern.is(3, 0, 1001, &bytes), "not one byte further on");
        assert!(!pattern.is(3, 1, 1000, &bytes), "not the other way");
        assert!(!pattern.is(4, 0, 1000, &bytes), "not another stream");
        let joined = [pattern.slice(0, 0, 0, LONGEST), pattern.slice(0, 0, LONGEST, 500)].concat();
        assert!(pattern.is(0, 0, 0, &joined));
    }
}
