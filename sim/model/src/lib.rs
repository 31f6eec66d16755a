//! What two sessions must do for their applications, whatever happens to the pipes between them.
//!
//! [`World`] is two real sessions, the bytes under way between them, and a clock that moves when told. [`Model`] is
//! what their applications may expect: each direction of a stream is so many bytes that were accepted, of which so
//! many were read, and perhaps an end. [`Checked`] runs both side by side and compares them after each [`Op`].
//!
//! Written once for all who look for mistakes: property tests draw operations at random, fuzzers decode them from
//! bytes, the explorer tries them all.

mod checked;
mod digest;
mod end;
mod model;
mod observer;
pub mod op;
mod pipe;
mod race;
mod settle;
mod waiting;
pub mod wire;
mod world;

pub use checked::{Checked, config};
pub use digest::Digest;
pub use model::{Half, Model};
pub use observer::{Looks, Observer};
pub use op::Op;
pub use world::{BOTH, ID, SECRET, World, pattern};
