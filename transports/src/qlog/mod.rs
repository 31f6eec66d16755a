//! The event log of a session: every call of its engine, and what came of it, without payload, secrets and names of sessions.
//!
//! In: the calls of the driver and of handles, through [`Recorded`]. Out: JSON text through `tracing`, with the target
//! [`TARGET`], at TRACE; a subscriber that wants it writes each `log` to a file of its own. A session asks once, when it
//! begins, whether anybody does; if not, the log costs a branch for each call. What is written and why that is enough to run
//! the session again is in docs/QLOG.md.

mod event;
mod log;
mod recorded;
mod sink;

pub use event::{
    CommonFields, Direction, Ending, Event, FORMAT, Frame, Head, Limits, Logged, Outcome, Packet,
    PacketHeader, Raw, Stamp, Taken, Trace, Vantage, VantagePoint, Willing, line, milliseconds, nanoseconds,
    parse,
};
pub use recorded::{Recorded, RecordedStream};
pub use sink::{Sink, TARGET};
