//! What an end wants and allows.

use alloc::sync::Arc;
use core::time::Duration;

use crate::budget::Budget;
use crate::id::Dir;
use crate::params::{MIN_MAX_RECORD_SIZE, Parameters, ResumeParameter};
use crate::resume::{Resumption, SessionId};
use crate::varint;

/// The limits and times of one end of a session. They bind the peer, except where said otherwise.
///
/// A session holds at most [`session_window`](Self::session_window) bytes of received and
/// [`send_buffer`](Self::send_buffer) bytes of unsent payload; that, and about 250 bytes for each open stream,
/// is the memory that a peer can make it use.
///
/// Values beyond what the wire can say are taken as the largest that it can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How many bytes the peer may send on one stream ahead of the reader, at first. Default: 64 KiB.
    ///
    /// A reader that keeps up, on a stream whose window is what holds the peer up, gets a larger one: twice as large
    /// for each round trip, up to [`max_stream_window`](Self::max_stream_window). After 10 s of rest it is as it was.
    pub stream_window: u64,
    /// How large a stream's window may grow, in bytes; never beyond a quarter of the session's. Default: 16 MiB.
    pub max_stream_window: u64,
    /// How many bytes the peer may send on all streams together ahead of their readers. Default: 64 MiB.
    ///
    /// [Little](Self::initial_session_window) of it is promised at first, and more as it is needed. Readers that
    /// stall hold a stream window each; the others are not held up while that leaves one stream window over.
    pub session_window: u64,
    /// What pays for promises beyond the first, shared with other sessions. Default: none, so that each session may
    /// have its whole window.
    pub budget: Option<Budget>,
    /// How many bidirectional streams the peer may have open at a time. Default: 128.
    pub max_streams_bidi: u64,
    /// How many unidirectional streams the peer may have open at a time. Default: 128.
    pub max_streams_uni: u64,
    /// The largest record that the peer may send, in bytes; not below 16382. Default: 16382.
    ///
    /// Larger ones cost bulk less: a link of ours sends up to 64 KiB in one to a peer that takes them. A peer can make this
    /// end keep as much, also before it is known who it is: the start of a frame that was cut, unless it is one of data.
    pub max_record_size: u64,
    /// How many bytes the peer takes before it has declared itself, on one bidirectional stream that this end opens: what
    /// the two applications have agreed on, for instance with their ALPN. They go out with this end's own parameters, which
    /// saves a round trip; a peer that then declares less breaks the rules (as RFC 9000 §7.4.1 has it for 0-RTT). Not for a
    /// session that may outlive its pipe. Default: 0, so that nothing goes out before.
    ///
    /// A link over QUIC has no use for it.
    pub early_window: u64,
    /// How many bytes are accepted from this end's application before the pipe takes them, on all streams
    /// together. Default: 1 MiB.
    ///
    /// The last eighth is kept for [`Urgency::Interactive`](crate::Urgency::Interactive).
    pub send_buffer: u64,
    /// After how long without a sign of life the peer is taken for dead. The shorter of both ends' holds; 0
    /// means never (RFC 9000 §10.1). In whole milliseconds. Default: 15 s.
    pub idle_timeout: Duration,
    /// After how long without a sign of life the peer is asked for one. `None`: never. Default: 5 s.
    pub keep_alive: Option<Duration>,
    /// How long a close may take to bring out what was accepted before it. Default: 10 s.
    pub close_timeout: Duration,
    /// Whether the session may outlive its pipe. Default: it may not, and is exactly QMux.
    ///
    /// Then [`send_buffer`](Self::send_buffer) holds what the peer has not acknowledged as well, so that it bounds
    /// the throughput to one buffer for each round trip. So that what is urgent does not wait behind all of that, other
    /// streams fill no more of it than 256 MiB/s times the length of the path, at least 256 KiB; or while nothing urgent
    /// was sent beside them for ten seconds, at least a quarter of it.
    pub resumption: Resumption,
    /// How long a session that may outlive its pipe is kept without one. The shorter of both ends' holds; the end
    /// that accepts pipes keeps it for two idle timeouts longer. In whole milliseconds. Default: 60 s.
    pub grace: Duration,
    /// While there is no pipe, verbs fail with `Detached` rather than wait, and nothing is accepted. Default: no.
    pub fail_fast: bool,
    /// The end that resumes sends what was not acknowledged right behind its RESUME, and saves a round trip; what had
    /// arrived, or is refused, was sent in vain. Default: yes.
    pub optimistic_resend: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_window: 64 << 10,
            max_stream_window: 16 << 20,
            session_window: 64 << 20,
            budget: None,
            max_streams_bidi: 128,
            max_streams_uni: 128,
            max_record_size: MIN_MAX_RECORD_SIZE,
            early_window: 0,
            send_buffer: 1 << 20,
            idle_timeout: Duration::from_secs(15),
            keep_alive: Some(Duration::from_secs(5)),
            close_timeout: Duration::from_secs(10),
            resumption: Resumption::Off,
            grace: Duration::from_secs(60),
            fail_fast: false,
            optimistic_resend: true,
        }
    }
}

impl Config {
    /// How many bytes a session promises at first: four streams' windows, or all that it may.
    pub fn initial_session_window(&self) -> u64 {
        self.stream_window.saturating_mul(4).min(self.session_window)
    }

    /// How large a stream's window may grow. A reader that stalls then holds at most a quarter of the session's.
    pub(crate) fn most_stream_window(&self) -> u64 {
        self.max_stream_window.min(self.session_window / 4).max(self.stream_window)
    }

    /// The same, within what the wire can say.
    pub(crate) fn clamped(config: Arc<Self>) -> Arc<Self> {
        let clamped = Self {
            stream_window: config.stream_window.min(varint::MAX),
            session_window: config.session_window.min(varint::MAX),
            early_window: config.early_window.min(varint::MAX),
            max_streams_bidi: config.max_streams_bidi.min(crate::id::MAX_STREAMS),
            max_streams_uni: config.max_streams_uni.min(crate::id::MAX_STREAMS),
            max_record_size: config.max_record_size.clamp(MIN_MAX_RECORD_SIZE, varint::MAX),
            ..Self::clone(&config)
        };
        if clamped == *config { config } else { clamped.into() }
    }

    /// What the peer is held to allow before it has declared itself, if anything.
    pub(crate) fn early_parameters(&self) -> Option<Parameters> {
        let window = self.early_window;
        (window > 0 && self.resumption == Resumption::Off).then(|| Parameters {
            initial_max_data: window,
            initial_max_stream_data_bidi_remote: window,
            initial_max_streams_bidi: 1,
            ..Parameters::default()
        })
    }

    pub(crate) fn max_streams(&self, dir: Dir) -> u64 {
        match dir {
            Dir::Bi => self.max_streams_bidi,
            Dir::Uni => self.max_streams_uni,
        }
    }

    /// What this end declares to its peer on a session's first pipe, or, with a `session`, on a later one.
    pub(crate) fn parameters(&self, session: Option<SessionId>) -> Parameters {
        let ticket = match (&self.resumption, session) {
            (Resumption::Offer(id, secret), None) => Some((*id, secret.clone())),
            _ => None,
        };
        let resume = ResumeParameter { grace: millis(self.grace), ticket };
        Parameters {
            max_idle_timeout: millis(self.idle_timeout),
            initial_max_data: self.initial_session_window(),
            initial_max_stream_data_bidi_local: self.stream_window,
            initial_max_stream_data_bidi_remote: self.stream_window,
            initial_max_stream_data_uni: self.stream_window,
            initial_max_streams_bidi: self.max_streams_bidi,
            initial_max_streams_uni: self.max_streams_uni,
            max_record_size: self.max_record_size,
            resume: (self.resumption != Resumption::Off).then_some(resume),
        }
    }

    /// How long the peer may be silent if it declared `theirs`, in milliseconds, or nothing yet (RFC 9000 §10.1).
    pub(crate) fn idle_timeout_with(&self, theirs: Option<u64>) -> Option<Duration> {
        let ours = millis(self.idle_timeout);
        let shorter = match (ours, theirs.unwrap_or(ours)) {
            (0, 0) => return None,
            (0, millis) | (millis, 0) => millis,
            (ours, theirs) => ours.min(theirs),
        };
        Some(Duration::from_millis(shorter))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(varint::MAX).min(varint::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_idle_timeout_holds() {
        let with = |millis, theirs| {
            let idle_timeout = Duration::from_millis(millis);
            Config { idle_timeout, ..Config::default() }.idle_timeout_with(theirs).map(|d| d.as_millis())
        };
        assert_eq!(with(0, Some(0)), None);
        assert_eq!(with(0, Some(7)), Some(7));
        assert_eq!(with(9, Some(7)), Some(7));
        assert_eq!(with(9, Some(0)), Some(9));
        assert_eq!(with(9, None), Some(9), "until the peer has declared itself");
    }
}
