//! Operations drawn at random, held against the model: what the property tests of the engine do, with a clock.

use std::time::{Duration, Instant};

use towline_model::{Checked, Op, config};

use crate::explore::catch;

/// What broke, and after how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) property: &'static str,
    pub(crate) cases: u64,
    pub(crate) seconds: f64,
}

/// A case has at most so many operations.
const MAX_OPERATIONS: u64 = 300;

/// Draws cases until one breaks, for at most `limit`.
#[expect(clippy::disallowed_methods, reason = "how long it takes is measured by the real clock")]
pub(crate) fn search(limit: Duration) -> Option<Found> {
    let start = Instant::now();
    for cases in 1.. {
        if let Err(broken) = catch(|| run(cases)) {
            let seconds = start.elapsed().as_secs_f64();
            return Some(Found { property: broken.property, cases, seconds });
        }
        if start.elapsed() > limit {
            break;
        }
    }
    None
}

/// Runs the case with this number.
fn run(case: u64) {
    let mut draw = Draw(case);
    let mut checked = Checked::thorough(&config(), !case.is_multiple_of(4));
    for _ in 0..=draw.next() % MAX_OPERATIONS {
        let [kind, place, stream, high, low, ..] = draw.next().to_le_bytes();
        checked.apply(Op::decode([kind, place, stream, high, low]));
    }
    checked.settle();
}

/// SplitMix64 (Steele, Lea and Flood 2014): any seed will do.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
