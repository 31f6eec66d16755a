//! Random numbers with names.
//!
//! In: a seed and the name of what needs numbers. Out: numbers that depend on those two only. So one more device does not
//! shift what the others draw, and a fault that is left out changes nothing but what it did. The arithmetic is here, and
//! not in a crate, since a golden hash must outlive the versions of crates: xoshiro256** (Blackman and Vigna 2018),
//! started by SplitMix64 as its authors advise, from the seed and an FNV-1a hash of the name.

/// Where all numbers of a run come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    seed: u64,
}

/// The numbers of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    state: [u64; 4],
}

impl Random {
    /// The numbers of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The numbers with this name, from their beginning.
    pub fn stream(&self, name: &str) -> Stream {
        let mut mixed = self.seed;
        let mut start = split_mix(&mut mixed) ^ fnv(name.as_bytes());
        Stream { state: [(); 4].map(|()| split_mix(&mut start)) }
    }
}

impl Stream {
    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `end`, or 0 if that is 0. The upper bits decide (Lemire 2019), with a bias below `end` / 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next_u64()) * u128::from(end);
        u64::try_from(product >> 64).expect("the upper half of 128 bits")
    }

    /// A number from `least` to `most`, both included. No number is drawn if there is no choice.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        if most <= least { least } else { least + self.below((most - least).saturating_add(1)) }
    }

    /// Whether something happens that happens `millionths` times in a million. No number is drawn if it never does.
    pub fn happens(&mut self, millionths: u32) -> bool {
        millionths > 0 && self.below(1_000_000) < u64::from(millionths)
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the authors' C code, <https://prng.di.unimi.it/xoshiro256starstar.c>, with the state 1, 2, 3, 4.
    #[test]
    fn the_numbers_are_those_of_xoshiro() {
        let mut stream = Stream { state: [1, 2, 3, 4] };
        let numbers = [(); 4].map(|()| stream.next_u64());
        assert_eq!(numbers, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    /// If these change, every seed that anybody has written down means something else.
    #[test]
    fn a_name_always_has_the_same_numbers() {
        let mut stream = Random::new(42).stream("device/7/think");
        let numbers = [(); 3].map(|()| stream.next_u64());
        assert_eq!(numbers, GOLDEN);
    }

    /// Computed by a second program, in another language.
    const GOLDEN: [u64; 3] =
        [17_625_328_331_605_880_602, 15_471_041_252_240_601_328, 11_206_113_296_734_561_548];

    #[test]
    fn names_and_seeds_tell_streams_apart() {
        let first = |seed, name| Random::new(seed).stream(name).next_u64();
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }

    #[test]
    fn draws_stay_within_and_reach_both_ends() {
        let mut stream = Random::new(7).stream("dice");
        let mut seen = [0; 7];
        for _ in 0..600 {
            seen[usize::try_from(stream.between(1, 6)).unwrap()] += 1;
        }
        assert_eq!(seen[0], 0);
        assert!(seen[1..].iter().all(|&count| count > 60), "{seen:?}");
        assert_eq!((stream.between(5, 5), stream.below(0)), (5, 0));
    }

    #[test]
    fn one_in_ten_happens_one_in_ten_times() {
        let mut stream = Random::new(7).stream("loss");
        let count = (0..100_000).filter(|_| stream.happens(100_000)).count();
        assert!((9_700..10_300).contains(&count), "{count}");
        assert!(!stream.happens(0) && stream.happens(1_000_000));
    }
}
