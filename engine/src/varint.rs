//! Variable-length integers (RFC 9000 §16): the two top bits of the first byte give the length.

use bytes::{Buf, BufMut};

/// The largest value that can be written, 2^62 - 1.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// How many bytes [`put`] writes for `value`: 1, 2, 4 or 8.
pub(crate) const fn len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Writes `value` in the fewest bytes.
#[expect(clippy::cast_possible_truncation, reason = "each arm holds only values that fit")]
pub(crate) fn put(out: &mut impl BufMut, value: u64) {
    assert!(value <= MAX, "no varint holds {value}");
    match len(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(value as u16 | 1 << 14),
        4 => out.put_u32(value as u32 | 2 << 30),
        _ => out.put_u64(value | 3 << 62),
    }
}

/// Takes a value from the front of `input`, or leaves `input` alone and returns `None` if it is cut short.
pub(crate) fn get(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    let length = 1 << (first >> 6);
    if input.len() < length {
        return None;
    }
    Some(match length {
        1 => u64::from(input.get_u8()),
        2 => u64::from(input.get_u16() & 0x3fff),
        4 => u64::from(input.get_u32() & 0x3fff_ffff),
        _ => input.get_u64() & MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a_1() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37), // longer than needed, and lawful
        ] {
            assert_eq!(get(&mut &bytes[..]), Some(value));
        }
    }

    #[test]
    fn roundtrip_at_every_boundary_in_the_fewest_bytes() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
            let mut written = alloc::vec::Vec::new();
            put(&mut written, value);
            assert_eq!(written.len(), len(value));
            let mut input = &written[..];
            assert_eq!((get(&mut input), input), (Some(value), &[][..]));
        }
    }

    #[test]
    fn a_cut_value_is_left_where_it_is() {
        let mut input = &[0xc2, 0x19, 0x7c][..];
        assert_eq!(get(&mut input), None);
        assert_eq!(input.len(), 3);
        assert_eq!(get(&mut &[][..]), None);
    }
}
