//! What streams carry, on either backend: bytes that say where they belong.
//!
//! The byte at an offset follows from the stream's number, the direction and the offset, so that a reader knows what it must
//! find; what is written are slices of one table for all runs, so that nothing is copied or counted for it. No stream looks
//! like itself a power of two further on, nor like another one at the same offset.

use std::sync::LazyLock;

use bytes::Bytes;

/// The bytes of all streams.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    table: Bytes,
}

/// To make it takes longer than all else that a small run does.
static TABLE: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..LONGEST + PERIOD).map(|at| byte(at % PERIOD)).collect());

/// After how many bytes they repeat: a prime, so that neither records nor windows are a multiple of it.
const PERIOD: u64 = 65_521;

/// How far streams, and directions, are apart in the table.
const STREAM: u64 = 7_919;
const WAY: u64 = 31_337;

/// The most that is handed out at once.
pub(crate) const LONGEST: u64 = 64 << 10;

impl Pattern {
    pub(crate) fn new() -> Self {
        Self { table: Bytes::from_static(&TABLE) }
    }

    /// At most `len` bytes from `offset` on, of the direction `way` (0 is up) of the stream with this number.
    pub(crate) fn slice(&self, stream: usize, way: usize, offset: u64, len: u64) -> Bytes {
        let start = (offset % PERIOD + stream as u64 % PERIOD * STREAM + way as u64 * WAY) % PERIOD;
        let start = usize::try_from(start).expect("below the period");
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

/// Something that looks like chance.
fn byte(at: u64) -> u8 {
    let mixed = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes()[7]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_say_where_they_belong() {
        let pattern = Pattern::new();
        let bytes = pattern.slice(3, 0, 1000, 100);
        assert!(pattern.is(3, 0, 1000, &bytes));
        for offset in [999, 1001, 1000 + 256, 1000 + 16_384, 1000 + 65_536] {
            assert!(!pattern.is(3, 0, offset, &bytes), "not at {offset}");
        }
        assert!(!pattern.is(3, 1, 1000, &bytes), "not the other way");
        assert!((0..1000).all(|other| other == 3 || !pattern.is(other, 0, 1000, &bytes)), "no other stream");
        let joined = [pattern.slice(0, 0, 0, LONGEST), pattern.slice(0, 0, LONGEST, 500)].concat();
        assert!(pattern.is(0, 0, 0, &joined));
    }
}
