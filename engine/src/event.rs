//! What the application must know.

use crate::error::CloseReason;
use crate::id::{Code, Dir, Epoch, StreamId};

/// News from a session.
///
/// `Readable`, `Writable`, `Openable` and `Incoming` come to who asked: once, after a verb of this end found
/// nothing and said `Blocked`. (Before the first [`accept`](crate::Session::accept), one is taken as asked.)
/// The others come by themselves, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer on this pipe has declared itself; streams can be opened.
    Attached(Epoch),
    /// A stream of the peer's waits in [`accept`](crate::Session::accept).
    Incoming(Dir),
    /// A stream that could not be opened can be now.
    Openable(Dir),
    /// There is something to read, or the stream has ended.
    Readable(StreamId),
    /// There is room to write.
    Writable(StreamId),
    /// The peer reads no more; what it had not received was dropped, and writes say so.
    Stopped(StreamId, Code),
    /// Everything that was written went out, and the end with it.
    Finished(StreamId),
    /// The session is over. The last event. What had been received can still be read.
    Closed(CloseReason),
}
