//! Many numbers into one, the same on every machine.

use std::hash::Hasher;

/// Collects numbers; equal sequences give equal results.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u128);

/// FNV-1a's offset basis and prime for 128 bits, applied to whole words.
const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl Default for Digest {
    fn default() -> Self {
        Self(BASIS)
    }
}

impl Digest {
    /// Adds a number.
    pub fn add(&mut self, value: u128) {
        self.0 = (self.0 ^ value).wrapping_mul(PRIME);
        self.0 ^= self.0 >> 59; // words are wider than FNV's bytes: bring the high half down
    }

    /// Adds a string of bytes and its length.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            let mut word = [0; 16];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u128::from_le_bytes(word));
        }
        self.add(bytes.len() as u128);
    }

    /// What has come of it.
    pub fn result(self) -> u128 {
        self.0
    }
}

/// So that whatever can be hashed can be added.
impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.add_bytes(bytes);
    }

    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u128);
    }

    /// The lower half.
    fn finish(&self) -> u64 {
        u64::try_from(self.0 & u128::from(u64::MAX)).expect("64 bits")
    }
}
