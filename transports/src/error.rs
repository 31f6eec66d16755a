//! Why a link or a stream is over, in words that fit every kind of link.

use std::io;
use std::sync::Arc;

use towline_engine::{CloseReason, Code, Refused};

/// Why a link is over.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkClosed {
    /// This end closed it.
    #[error("the link was closed by this end with code {0}")]
    Local(Code),
    /// This end closed it, and not everything that was accepted before has gone out, or been delivered if it can
    /// [resume](crate::Link::resumable), in the time that there is for that.
    #[error("the link was closed by this end with code {0}, before everything had been delivered")]
    Unflushed(Code),
    /// The peer's application closed it.
    #[error("the link was closed by the peer with code {code}{}", quoted(.reason))]
    Peer {
        /// The code that it gave.
        code: Code,
        /// What it said about it; control characters are escaped.
        reason: String,
    },
    /// One of the ends found that the other broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// Nothing came from the peer for the idle timeout.
    #[error("the link timed out: nothing came from the peer")]
    TimedOut,
    /// Nothing comes back any more from the peer, which was asked: sooner than the idle timeout would find out. Only a
    /// QUIC link that is watched ends so ([`quic::ClientConfig::watched`](crate::quic::ClientConfig::watched)).
    #[error("UDP has gone dark: the peer was asked, and nothing came back")]
    Dark,
    /// The connection under it failed or ended.
    #[error("the connection was lost: {0}")]
    Lost(Arc<io::Error>),
    /// It is a session that outlives its pipes, and there was none for longer than the grace period.
    #[error("there was no way to the peer for longer than the session is kept")]
    Expired,
    /// It is a session that outlives its pipes, and whoever [brings](crate::Reconnect) the next one knows that there will be
    /// none.
    #[error("there is no way to go on: {0}")]
    NoWay(NoWay),
    /// It is a session that outlives its pipes, and the peer does not go on with it on a later one.
    #[error("the session was not resumed: {0}")]
    NotResumed(Refused),
}

/// Why a session will have no other pipe.
pub type NoWay = Arc<dyn std::error::Error + Send + Sync>;

fn quoted(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl LinkClosed {
    /// `error` is what the pipe said, if it was the pipe that ended.
    pub(crate) fn new(reason: CloseReason, error: Option<Arc<io::Error>>) -> Self {
        match reason {
            CloseReason::Local(code) => Self::Local(code),
            CloseReason::LocalUnflushed(code) => Self::Unflushed(code),
            CloseReason::Peer { code, reason } => {
                Self::Peer { code, reason: reason.escape_ascii().to_string() }
            }
            CloseReason::IdleTimeout => Self::TimedOut,
            CloseReason::PipeLost(_) => Self::Lost(match error {
                Some(error) if error.kind() != io::ErrorKind::UnexpectedEof => error,
                _ => Arc::new(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without a goodbye")),
            }),
            CloseReason::Expired => Self::Expired,
            CloseReason::ResumeRefused(refused) => Self::NotResumed(refused),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<LinkClosed> for io::Error {
    fn from(closed: LinkClosed) -> Self {
        let kind = match &closed {
            LinkClosed::Local(_) | LinkClosed::Unflushed(_) => io::ErrorKind::NotConnected,
            LinkClosed::Peer { .. } => io::ErrorKind::ConnectionAborted,
            LinkClosed::Protocol(_) => io::ErrorKind::InvalidData,
            LinkClosed::TimedOut | LinkClosed::Dark | LinkClosed::Expired => io::ErrorKind::TimedOut,
            LinkClosed::NotResumed(_) | LinkClosed::NoWay(_) => io::ErrorKind::ConnectionAborted,
            LinkClosed::Lost(error) => error.kind(),
        };
        Self::new(kind, closed)
    }
}

/// Why there is nothing more to read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer abandoned the stream.
    #[error("the peer reset the stream with code {0}")]
    Reset(Code),
    /// This end asked the peer to stop.
    #[error("this end stopped the stream")]
    Stopped,
    /// The link ended before the stream did.
    #[error(transparent)]
    Closed(#[from] LinkClosed),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(_) => Self::new(io::ErrorKind::ConnectionReset, error),
            ReadError::Stopped => Self::new(io::ErrorKind::NotConnected, error),
            ReadError::Closed(closed) => closed.into(),
        }
    }
}

/// Why nothing more can be written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer asked us to stop; what it had not received is dropped.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(Code),
    /// The stream was finished or reset by this end.
    #[error("the stream was finished or reset by this end")]
    Finished,
    /// The link is over.
    #[error(transparent)]
    Closed(#[from] LinkClosed),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(_) => Self::new(io::ErrorKind::BrokenPipe, error),
            WriteError::Finished => Self::new(io::ErrorKind::NotConnected, error),
            WriteError::Closed(closed) => closed.into(),
        }
    }
}
