//! Walks every interleaving of two sessions: what applications do, records that arrive whole and in part, timers,
//! pipes that are lost or left, and the next ones.
//!
//! A state is two real sessions, the bytes between them, the model of what their applications may expect, and the
//! applications themselves. [`stateright`] keeps the states that were seen and goes on from each new one; all that
//! must hold is checked after each step, and when nothing can happen any more. A property that does not hold comes with
//! the shortest way there, as a test to be run.
//!
//! In this order: `scope.rs` says what is walked, `program.rs` what the applications do, `state.rs` what can happen,
//! `reductions.rs` what is left out and why nothing is lost by that, `broken.rs` what is checked, `walk.rs` drives it,
//! and `trace.rs` prints the test.

mod broken;
mod program;
mod reductions;
mod report;
mod scope;
mod state;
mod trace;
mod walk;

pub(crate) use broken::{catch, has_panicked};
pub use report::{Finding, Report, print_json, print_table};
pub use scope::{Case, Scope};
pub use walk::{Bounds, Progress, walk};
