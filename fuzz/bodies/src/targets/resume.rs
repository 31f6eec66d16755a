//! A later pipe arrives: arbitrary bytes to an acceptor, and what it makes of them to a session that can resume, in any
//! state, and to what is left of it when it is over.
//!
//! Oracles: `proof_first`: nothing changes unless the proof holds, and who has none cannot tell an unknown session from
//! a wrong proof; a tombstone answers as its session would; `pre_auth_bounded`; and those of [`Harness`].

use towline_engine::Side;

use crate::harness::Harness;
use crate::setup::{Setup, Stage};
use crate::targets::session_bytes::Input;

/// An input as it was meant: that of [`session_bytes`](super::session_bytes), with a setup that suits.
pub fn input(data: &[u8]) -> Input<'_> {
    let Input { setup, steps } = Input::new(data);
    Input { setup: Setup { side: Side::Server, resumable: true, stage: Stage::Again, ..setup }, steps }
}

/// Runs an input.
///
/// # Panics
///
/// If the session or the acceptor breaks a promise.
pub fn run(data: &[u8]) {
    let Input { setup, steps } = input(data);
    let mut harness = Harness::new(setup);
    for step in &steps {
        harness.apply(step);
    }
    harness.end();
}
