//! What lets a session outlive its pipes: its name, its secret, how long it is kept, and what is said to those who
//! ask for it in vain. Spec: PROTOCOL §6.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::accept::Acceptor;
use crate::error::CloseReason;
use crate::id::{Code, Epoch, StreamId};
use crate::time::Instant;

/// The name of a session that can resume, unique among those of the same peer. Not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; Self::LEN]);

impl SessionId {
    /// Its length in bytes: random ones never meet.
    pub const LEN: usize = 16;
}

/// What proves that who resumes a session is who started it: random bytes, sent only inside TLS between the two.
///
/// Two are compared in constant time; it is wiped from memory when dropped, and not shown by `Debug`.
#[derive(Clone)]
pub struct Secret([u8; Self::LEN]);

impl Secret {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// A secret of these bytes, which should come from a source of entropy fit for keys.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether a session may outlive its pipe. It does if both ends want it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resumption {
    /// Exactly QMux: the session ends with its pipe.
    #[default]
    Off,
    /// The end that accepts pipes: what the client offers is accepted.
    Accept,
    /// The end that opens pipes: under this name, and with this proof, later pipes will be attached.
    Offer(SessionId, Secret),
}

/// What a session that can resume knows about that.
#[derive(Clone, Debug)]
pub(crate) struct Resume {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    /// How long the session is kept without a pipe.
    pub(crate) grace: Duration,
    /// When it is given up, while there is no pipe that works.
    pub(crate) gone_at: Option<Instant>,
}

/// Why a session went without a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detached {
    /// The pipe ended.
    Pipe(crate::error::PipeClosed),
    /// Nothing came from the peer for the idle timeout. The owner should close that pipe.
    IdleTimeout,
    /// The peer has seen a pipe with this epoch; the next one must be newer.
    Stale(Epoch),
}

/// Why a session was not resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such session, or the proof does not hold, or it is not this peer's: which of them is not said.
    Unknown,
    /// The session has, or had, a pipe that is as new. It goes on there.
    Stale(Epoch),
    /// Nobody came in time.
    Expired,
    /// It was closed, with this code.
    Closed(Code),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str(
                "the peer does not know the session: it has restarted, or it waited for its grace period and has \
                 forgotten it",
            ),
            Self::Stale(epoch) => write!(f, "the session has a newer pipe, of epoch {}", epoch.0),
            Self::Expired => f.write_str("the peer gave the session up before it was resumed"),
            Self::Closed(code) => write!(f, "the peer closed the session with code {code}"),
        }
    }
}

impl core::error::Error for Refused {}

/// What is left of a session that can resume, after its end: enough to answer who comes late.
///
/// The end that accepts pipes keeps it as long as it would have kept the session.
#[derive(Clone, Debug)]
pub struct Tombstone {
    secret: Secret,
    why: Refused,
    received: Vec<(StreamId, u64)>,
}

/// Of how many streams a tombstone remembers what had arrived. That fits the smallest record.
pub(crate) const MAX_REMEMBERED: usize = 1000;

impl Tombstone {
    pub(crate) fn new(secret: Secret, why: &CloseReason, received: Vec<(StreamId, u64)>) -> Self {
        let why = match why {
            CloseReason::Expired => Refused::Expired,
            CloseReason::Local(code) | CloseReason::LocalUnflushed(code) => Refused::Closed(*code),
            CloseReason::Peer { code, .. } => Refused::Closed(*code),
            // What the transport found is told with the transport's code.
            CloseReason::Violation(violation) => {
                Refused::Closed(Code::new(violation.code()).expect("transport codes are small"))
            }
            CloseReason::PeerTransport { .. }
            | CloseReason::IdleTimeout
            | CloseReason::PipeLost(_)
            | CloseReason::ResumeRefused(_) => Refused::Closed(Code::default()),
        };
        Self { secret, why, received }
    }

    /// Answers a pipe that asks for the session: with how it ended and what had arrived if the proof holds, else as
    /// if there had never been one. Returns the answer.
    pub fn refuse(&self, proof: &Secret, acceptor: &mut Acceptor) -> Refused {
        if self.secret == *proof {
            acceptor.answer(self.why, self.received.clone())
        } else {
            acceptor.refuse()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let (one, two) = (Secret::new([1; 32]), Secret::new([2; 32]));
        assert_eq!(one, one.clone());
        assert_ne!(one, two);
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }
}
