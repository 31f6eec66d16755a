//! One session against arbitrary bytes, an arbitrary application, an arbitrary clock and arbitrary pipes.
//!
//! Oracles: those of [`Harness`]: `check_before_alloc`, `memory_formula`, `reply_state_bounded`, `offset_window`,
//! `gapless`, and no panic.

use arbitrary::Unstructured;

use crate::harness::Harness;
use crate::setup::Setup;
use crate::step::{self, Step};

/// An input as it was meant.
#[derive(Debug)]
pub struct Input<'a> {
    /// Where the run begins.
    pub setup: Setup,
    /// What happens.
    pub steps: Vec<Step<'a>>,
}

impl<'a> Input<'a> {
    /// Any bytes are an input.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn new(data: &'a [u8]) -> Self {
        let mut u = Unstructured::new(data);
        let setup = u.arbitrary().expect("missing bytes are zeros");
        Self { setup, steps: step::steps(&mut u).collect() }
    }
}

/// Runs an input.
///
/// # Panics
///
/// If the session breaks a promise.
pub fn run(data: &[u8]) {
    let Input { setup, steps } = Input::new(data);
    let mut harness = Harness::new(setup);
    for step in &steps {
        harness.apply(step);
    }
    harness.end();
}
