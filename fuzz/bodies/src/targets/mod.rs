//! What each target does with the bytes that a fuzzer makes.

pub mod messages;
pub mod pair_ops;
pub mod parameters;
pub mod record_frame;
pub mod resume;
pub mod session_bytes;
