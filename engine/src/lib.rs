//! stub
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod accept;
mod chunks;
mod config;
mod error;
mod event;
mod fingerprint;
mod flow;
mod frame;
mod id;
mod liveness;
mod params;
mod receive;
mod record;
mod record_writer;
mod room;
mod session;
mod stream;
mod streams;
mod time;
mod transmit;
mod varint;

pub use accept::{Acceptor, Arrival};
pub use config::Config;
pub use error::{
    AttachError, CloseReason, MAX_REASON, OpenError, PipeClosed, ReadError, UnknownStream, Violation, WriteError,
};
pub use event::Event;
pub use id::{Code, Dir, Epoch, Side, StreamId};
pub use liveness::Rtt;
pub use params::MIN_MAX_RECORD_SIZE;
pub use session::{Credit, Session, Stats, Timer};
pub use stream::Stream;
pub use streams::Urgency;
pub use time::Instant;
pub use transmit::MIN_TRANSMIT;
