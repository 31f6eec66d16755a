//! A multiplexed session over one reliable, ordered pipe: QUIC's streams (RFC 9000, sections 2 to 4) in QMux
//! records (draft-ietf-quic-qmux-02).
//!
//! The engine has no sockets, clock, threads, randomness, async or `unsafe`. Bytes and time go in, records and
//! events come out; who owns the pipe drives it. Here the pipe is a `Vec`:
//!
//! ```
//! use bytes::Bytes;
//! use towline_engine::{Config, Dir, Epoch, Event, Instant, ReadError, Session, Side};
//!
//! let (now, epoch) = (Instant::default(), Epoch(0));
//! let mut service = Session::new(Side::Client, Config::default());
//! let mut device = Session::new(Side::Server, Config::default());
//! service.attach(now, epoch)?;
//! device.attach(now, epoch)?;
//!
//! // Carries what each has to say to the other, until both are quiet.
//! let carry = |service: &mut Session, device: &mut Session| {
//!     let mut pipe = Vec::new();
//!     while service.wants_transmit() || device.wants_transmit() {
//!         service.poll_transmit(now, 16384, &mut pipe);
//!         pipe.drain(..).for_each(|bytes: Bytes| device.handle_input(now, epoch, bytes));
//!         device.poll_transmit(now, 16384, &mut pipe);
//!         pipe.drain(..).for_each(|bytes: Bytes| service.handle_input(now, epoch, bytes));
//!     }
//! };
//! carry(&mut service, &mut device);
//! assert_eq!(service.poll_event(), Some(Event::Attached(epoch)));
//!
//! let id = service.open(Dir::Bi)?;
//! service.stream(id)?.write(b"hello")?;
//! service.stream(id)?.finish()?;
//! carry(&mut service, &mut device);
//!
//! assert_eq!(device.accept(Dir::Bi), Some(id));
//! assert_eq!(device.stream(id)?.read(1024)?.as_deref(), Some(&b"hello"[..]));
//! assert_eq!(device.stream(id)?.read(1024)?, None, "the end: a FIN, never anything else");
//! assert_eq!(service.stream(id)?.read(1024), Err(ReadError::Blocked), "the other half is still open");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How to drive a session
//!
//! There is one shape everywhere: `handle_*` goes in, `poll_*` comes out. Every call is legal at any time, and
//! the answers are those of the present state, so there is no order to remember:
//!
//! - [`Session::poll_transmit`] when the pipe can take more; not before, so that what is most urgent is
//!   decided late.
//! - [`Session::handle_input`] with whatever the pipe gives. Reading never waits for writing: an owner who
//!   writes everything before it reads can wait for its peer forever.
//! - [`Session::handle_timeout`] when [`Session::poll_timeout`] says.
//! - [`Session::poll_event`] to wake who waits.
//!
//! # Sessions that outlive their pipes
//!
//! If both ends want it, a lost pipe is a pause. The client attaches another one with a greater epoch; where it is
//! accepted an [`Acceptor`] reads whose it is.
//!
//! ```
//! # use bytes::Bytes;
//! # use towline_engine::*;
//! # let (now, mut pipe) = (Instant::default(), Vec::new());
//! let willing = |resumption| {
//!     let mut config = Config::default();
//!     config.resumption = resumption;
//!     config
//! };
//! // Both are random in earnest; the secret travels inside TLS.
//! let offer = Resumption::Offer(SessionId([7; 16]), Secret::new([9; 32]));
//! let mut service = Session::new(Side::Client, willing(offer));
//! let mut device = Session::new(Side::Server, willing(Resumption::Accept));
//! service.attach(now, Epoch(0))?;
//! device.attach(now, Epoch(0))?;
//! # let carry = |service: &mut Session, device: &mut Session, epoch| {
//! #     let mut pipe = Vec::new();
//! #     while service.wants_transmit() || device.wants_transmit() {
//! #         service.poll_transmit(now, 16384, &mut pipe);
//! #         pipe.drain(..).for_each(|bytes: Bytes| device.handle_input(now, epoch, bytes));
//! #         device.poll_transmit(now, 16384, &mut pipe);
//! #         pipe.drain(..).for_each(|bytes: Bytes| service.handle_input(now, epoch, bytes));
//! #     }
//! # };
//! // They talk, and then their pipe is lost, and with it what was under way.
//! carry(&mut service, &mut device, Epoch(0));
//! let id = service.open(Dir::Bi)?;
//! service.stream(id)?.write(b"hello")?;
//! service.poll_transmit(now, 16384, &mut pipe);
//! pipe.clear();
//! service.handle_pipe_closed(now, Epoch(0), PipeClosed::Failed);
//!
//! // Another pipe. The device may not even have noticed that the first one is gone.
//! service.attach(now, Epoch(1))?;
//! service.poll_transmit(now, 16384, &mut pipe);
//! let mut acceptor = Acceptor::new(&willing(Resumption::Accept));
//! let Some(Arrival::Resume { session, epoch, proof }) = acceptor.handle_input(pipe.concat().into()) else {
//!     panic!("it asks for a session");
//! };
//! assert_eq!(device.id(), Some(session), "the owner of many looks for it among those of the same peer");
//! device.resume(now, epoch, &proof, &mut acceptor)?;
//! carry(&mut service, &mut device, Epoch(1));
//! assert_eq!(device.accept(Dir::Bi), Some(id));
//! assert_eq!(device.stream(id)?.read(1024)?.as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to start reading
//!
//! `session.rs` is the frame; a byte's way in is `record.rs`, `receive.rs`, `stream/recv.rs`, and its way out
//! `stream/send.rs`, `transmit.rs`, `record_writer.rs`. `flow.rs` holds every sum of credit, `streams.rs` who
//! exists, `turns.rs` whose turn it is, `liveness.rs` the clockwork. A change of pipe is `pipe.rs`, `exchange.rs`,
//! `ack.rs` and `resume.rs`. `docs/PROTOCOL.md` is the normative text.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(towline_sabotage)]
#[macro_use]
pub mod sabotage;

/// There is nothing to arm: see sabotage.rs.
#[cfg(not(towline_sabotage))]
macro_rules! sabotaged {
    ($bug:ident) => {
        false
    };
}

mod accept;
mod ack;
mod budget;
mod chunks;
mod config;
mod drain;
mod entry;
mod error;
mod event;
mod exchange;
mod fingerprint;
mod flow;
mod frame;
mod id;
mod kept_credit;
mod line;
mod liveness;
mod offers;
mod params;
mod pipe;
mod rate;
mod receive;
mod record;
mod record_writer;
mod resume;
mod room;
mod session;
#[cfg(test)]
mod spec;
mod standing_queue;
mod stream;
mod streams;
mod time;
mod transcript;
mod transmit;
mod turns;
mod varint;
mod work;

pub use accept::{Acceptor, Arrival};
pub use budget::Budget;
pub use config::Config;
pub use error::{
    AttachError, CloseReason, MAX_REASON, OpenError, PipeClosed, ReadError, UnknownStream, Violation,
    WriteError,
};
pub use event::Event;
pub use id::{Code, Dir, Epoch, Side, StreamId};
pub use liveness::Rtt;
pub use params::MIN_MAX_RECORD_SIZE;
pub use resume::{Detached, Refused, Resumption, Secret, SessionId, Tombstone};
pub use session::{Credit, Session, Stats, Timer};
pub use stream::{Sending, Stream};
pub use time::Instant;
pub use transcript::{Field, Record, Statement, Transcript};
pub use transmit::MIN_TRANSMIT;
pub use turns::Urgency;
