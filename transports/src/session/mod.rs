//! The kind of link that is a session of the engine, over a pipe.
//!
//! In: what the handles ask for, and the pipe's bytes. Out: records. The [`driver`] is the one task, a [`carrier`] is
//! what it moves bytes through, and [`shared`] is what it and the handles have in common.

pub(crate) mod carrier;
mod doubt;
mod driver;
mod link;
mod registry;
mod shared;
mod stream;
mod successive;

pub(crate) use link::{Link, WeakLink};
pub use registry::{AcceptError, Accepted, Sessions};
pub(crate) use stream::{RecvStream, SendStream};
