//! Errors, sorted by whose fault they are.
//!
//! The peer's fault is a [`Violation`] and ends the session. The caller's is a small enum per verb and ends
//! only that call. The world's is [`PipeClosed`], the owner's news to us. Our own is a panic.

use bytes::Bytes;
use core::fmt;

use crate::id::{Code, Dir, Epoch, StreamId};
use crate::resume::Refused;

/// A rule that the peer broke. The session ends with [`Violation::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// A frame ends beyond its record, or its record's last frame is cut short (draft-02 §3.2).
    TruncatedFrame,
    /// A frame type that QMux prohibits, or that neither end negotiated (draft-02 §4, RFC 9000 §12.4).
    UnknownFrame,
    /// A frame type in more bytes than it needs (RFC 9000 §12.4).
    LongFrameType,
    /// A record without a frame (draft-02 §3.2, RFC 9000 §12.4).
    EmptyRecord,
    /// A record larger than our `max_record_size` (draft-02 §5.2).
    RecordTooLarge,
    /// A frame field out of its range: an offset past 2^62 - 1, a stream count past 2^60 (RFC 9000 §19).
    FieldOutOfRange,
    /// The first frame is not QX_TRANSPORT_PARAMETERS, or a later one is (draft-02 §4.2).
    ParametersOutOfPlace,
    /// The transport parameters are malformed, repeated, prohibited or out of range (RFC 9000 §7.4, §18.2), or allow
    /// less than was [agreed on](crate::Config::early_window).
    BadParameters,
    /// STREAM payload that does not follow on what came before it on the stream (draft-02 §4.1).
    NotInOrder,
    /// More bytes than we gave credit for, on a stream or on the session (RFC 9000 §4.1).
    FlowControl,
    /// A stream beyond the number that we allow (RFC 9000 §4.6).
    StreamLimit,
    /// A frame for a stream that cannot have it: a half that only we send on, or a stream that we never
    /// opened (RFC 9000 §19.4 to §19.13).
    StreamState,
    /// A stream's end moved, or data lies past it (RFC 9000 §4.5).
    FinalSize,
    /// STREAM payload that differs from what came at the same offsets before (RFC 9000 §2.2, PROTOCOL §6.5).
    ChangedData,
    /// An acknowledgement of less than was acknowledged before, or of more than was sent (PROTOCOL §6.2).
    AckOutOfRange,
    /// A frame of the exchange that begins a resumed pipe where it does not belong, or another one there
    /// (PROTOCOL §6.3).
    ResumeOutOfPlace,
    /// The state that the peer tells on a resumed pipe cannot be (PROTOCOL §6.4).
    ResumeState,
    /// More work for nothing than any honest peer makes: resets, pings, empty frames (PROTOCOL §4.10).
    ExcessiveLoad,
    /// A QX_PING whose number did not grow, or an answer to a ping that is not waiting for one (draft-02 §4.3).
    PingSequence,
}

impl Violation {
    /// Every rule.
    pub const ALL: [Self; 19] = [
        Self::TruncatedFrame,
        Self::UnknownFrame,
        Self::LongFrameType,
        Self::EmptyRecord,
        Self::RecordTooLarge,
        Self::FieldOutOfRange,
        Self::ParametersOutOfPlace,
        Self::BadParameters,
        Self::NotInOrder,
        Self::FlowControl,
        Self::StreamLimit,
        Self::StreamState,
        Self::FinalSize,
        Self::ChangedData,
        Self::AckOutOfRange,
        Self::ResumeOutOfPlace,
        Self::ResumeState,
        Self::ExcessiveLoad,
        Self::PingSequence,
    ];

    /// The transport error code that the peer is told (RFC 9000 §20.1).
    pub const fn code(self) -> u64 {
        match self {
            Self::FlowControl => 0x03,
            Self::StreamLimit => 0x04,
            Self::StreamState => 0x05,
            Self::FinalSize => 0x06,
            Self::TruncatedFrame | Self::UnknownFrame | Self::RecordTooLarge | Self::FieldOutOfRange => 0x07,
            Self::BadParameters => 0x08,
            Self::ExcessiveLoad => 0x544c_0003,
            Self::LongFrameType
            | Self::EmptyRecord
            | Self::ParametersOutOfPlace
            | Self::NotInOrder
            | Self::ChangedData
            | Self::AckOutOfRange
            | Self::ResumeOutOfPlace
            | Self::ResumeState
            | Self::PingSequence => 0x0a,
        }
    }

    /// One line that says what was wrong.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TruncatedFrame => "a frame does not end within its record",
            Self::UnknownFrame => "a frame of a type that is prohibited or was not negotiated",
            Self::LongFrameType => "a frame type is not in its shortest form",
            Self::EmptyRecord => "a record holds no frame",
            Self::RecordTooLarge => "a record is larger than max_record_size",
            Self::FieldOutOfRange => "a frame field is out of range",
            Self::ParametersOutOfPlace => "QX_TRANSPORT_PARAMETERS must be the first frame and only that",
            Self::BadParameters => {
                "the transport parameters are malformed, repeated, prohibited or out of range, or allow less than was agreed on"
            }
            Self::NotInOrder => "STREAM data overlaps or leaves a gap",
            Self::ChangedData => "STREAM data that was sent again is not the same",
            Self::AckOutOfRange => "an acknowledgement of what was never sent, or less than before",
            Self::ResumeOutOfPlace => "a resumed pipe does not begin as it must",
            Self::ResumeState => "the state of a resumed session cannot be",
            Self::FlowControl => "more data than there was credit for",
            Self::StreamLimit => "more streams than allowed",
            Self::StreamState => "a frame for a stream that cannot have it",
            Self::FinalSize => "the final size of a stream changed",
            Self::ExcessiveLoad => "too many frames that carry nothing, resets or pings",
            Self::PingSequence => "a QX_PING out of sequence",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for Violation {}

/// How a pipe ended, as far as the engine cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PipeClosed {
    /// The other end stopped writing: an end of file.
    Finished,
    /// Reading or writing failed.
    Failed,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it, and everything that was accepted before went out.
    Local(Code),
    /// We closed it, and the pipe did not take all that had been accepted within the close timeout.
    LocalUnflushed(Code),
    /// The peer's application closed it.
    Peer {
        /// The peer application's code.
        code: Code,
        /// What it said about it, as it came: at most [`MAX_REASON`] bytes, UTF-8 not guaranteed.
        reason: Bytes,
    },
    /// The peer found that we broke a rule, or had trouble of its own (RFC 9000 §20.1).
    PeerTransport {
        /// The transport error code.
        code: u64,
        /// What it said about it, as it came: at most [`MAX_REASON`] bytes, UTF-8 not guaranteed.
        reason: Bytes,
    },
    /// The peer broke a rule.
    Violation(Violation),
    /// Nothing came from the peer for the idle timeout.
    IdleTimeout,
    /// The pipe ended before either side had closed the session.
    PipeLost(PipeClosed),
    /// The session was without a pipe for longer than the grace period.
    Expired,
    /// The peer did not let the session resume.
    ResumeRefused(Refused),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(code) => write!(f, "closed by this end with code {code}"),
            Self::LocalUnflushed(code) => {
                write!(f, "closed by this end with code {code} before everything had gone out")
            }
            Self::Peer { code, reason } => {
                write!(f, "closed by the peer with code {code}{}", Quoted(reason))
            }
            Self::PeerTransport { code, reason } => {
                write!(f, "closed by the peer with transport error {code:#x}{}", Quoted(reason))
            }
            Self::Violation(violation) => write!(f, "the peer broke the protocol: {violation}"),
            Self::IdleTimeout => f.write_str("nothing came from the peer for the idle timeout"),
            Self::Expired => f.write_str("the connection was not restored within the grace period"),
            Self::ResumeRefused(why) => write!(f, "the session cannot be resumed: {why}"),
            Self::PipeLost(PipeClosed::Finished) => f.write_str("the connection ended"),
            Self::PipeLost(PipeClosed::Failed) => f.write_str("the connection failed"),
        }
    }
}

impl core::error::Error for CloseReason {}

/// A peer's words, fit for a terminal: nothing if empty, else quoted with control characters escaped.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (\"{}\")", self.0.escape_ascii()) }
    }
}

/// The most bytes of a reason phrase that are kept or sent.
///
/// The peer may send a record full of them; a terminal line holds fewer.
pub const MAX_REASON: usize = 256;

/// Why a pipe could not be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachError {
    /// The session has a pipe, or had one: without resumption it lives on one pipe only. Or it is for the peer to
    /// open another.
    NotResumable,
    /// The session has, or had, a pipe with this epoch; the next one must be newer.
    Stale(Epoch),
    /// The session is over.
    Closed,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotResumable => f.write_str("the session lives on the pipe it was first attached to"),
            Self::Stale(epoch) => write!(f, "the session has had a pipe of epoch {}", epoch.0),
            Self::Closed => f.write_str("the session is over"),
        }
    }
}

impl core::error::Error for AttachError {}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer allows no more streams now. [`Event::Openable`](crate::Event::Openable) ends the wait.
    Blocked(Dir),
    /// The peer is ending the session gently: open the stream on another one.
    Draining,
    /// The session is over, or was asked to close.
    Closed,
    /// There is no pipe now, and this end fails fast.
    Detached,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocked(_) => "the peer allows no more streams now",
            Self::Draining => "the peer takes no more streams: it is ending the session",
            Self::Closed => "the session is over",
            Self::Detached => DETACHED,
        })
    }
}

impl core::error::Error for OpenError {}

/// There is no such stream: never opened, or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnknownStream(pub StreamId);

impl fmt::Display for UnknownStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} was never opened, or was released", self.0)
    }
}

impl core::error::Error for UnknownStream {}

/// Why a read gave no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing has arrived yet. [`Event::Readable`](crate::Event::Readable) ends the wait.
    Blocked,
    /// The peer abandoned the stream; what came before that was read.
    Reset(Code),
    /// This end asked the peer to stop, and reads no more.
    Stopped,
    /// This end only sends on the stream.
    SendOnly,
    /// The session ended before the stream did; what had arrived was read.
    Closed,
    /// Nothing has arrived, there is no pipe now, and this end fails fast.
    Detached,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("nothing has arrived yet"),
            Self::Reset(code) => write!(f, "the peer reset the stream with code {code}"),
            Self::Stopped => f.write_str("this end stopped the stream"),
            Self::SendOnly => f.write_str("this end only sends on the stream"),
            Self::Closed => f.write_str("the session ended before the stream did"),
            Self::Detached => f.write_str(DETACHED),
        }
    }
}

impl core::error::Error for ReadError {}

/// Why a write, a finish or a reset was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no credit or no buffer left. [`Event::Writable`](crate::Event::Writable) ends the wait.
    Blocked,
    /// The peer asked us to stop; what it had not received is dropped.
    Stopped(Code),
    /// The stream was finished or reset by this end.
    Finished,
    /// This end only receives on the stream.
    ReceiveOnly,
    /// The session is over, or was asked to close.
    Closed,
    /// There is no pipe now, and this end fails fast.
    Detached,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked => f.write_str("there is no credit left"),
            Self::Stopped(code) => write!(f, "the peer stopped the stream with code {code}"),
            Self::Finished => f.write_str("the stream was finished or reset by this end"),
            Self::ReceiveOnly => f.write_str("this end only receives on the stream"),
            Self::Closed => f.write_str("the session is over"),
            Self::Detached => f.write_str(DETACHED),
        }
    }
}

impl core::error::Error for WriteError {}

const DETACHED: &str = "there is no connection to the peer now";
