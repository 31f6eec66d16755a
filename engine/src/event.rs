//! What the application must know.

use core::time::Duration;

use crate::error::CloseReason;
use crate::id::{Code, Dir, Epoch, StreamId};
use crate::resume::Detached;

/// News from a session.
///
/// `Readable`, `Writable`, `Openable` and `Incoming` come to who asked: once, after a verb of this end found
/// nothing and said `Blocked`. (Before the first [`accept`](crate::Session::accept), one is taken as asked.)
/// The others come by themselves, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer on this pipe has declared itself, and streams can be opened; or a session that was resumed goes on.
    Attached(Epoch),
    /// The session is without a pipe, and waits for one. Streams pause.
    Detached(Detached),
    /// The peer is ending the session gently. New streams belong on another one.
    Draining {
        /// How long the streams that are open have to finish.
        deadline: Duration,
        /// After how long to come back.
        retry_after: Duration,
    },
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
    /// Everything that was written went out, and the end with it; if the session can resume, the peer has it.
    Finished(StreamId),
    /// The session is over. The last event. What had been received can still be read.
    Closed(CloseReason),
}
