//! Reach any device by its ID.
pub mod codes;
pub mod core;
pub mod identity;
pub mod message;
pub mod policy;
pub mod refusal;
