//! What an end wants and allows.

use core::time::Duration;

use crate::id::Dir;
use crate::params::{MIN_MAX_RECORD_SIZE, Parameters};
use crate::varint;

/// The limits and times of one end of a session. They bind the peer, except where said otherwise.
///
/// A session promises at most [`session_window`](Self::session_window) bytes of received and
/// [`send_buffer`](Self::send_buffer) bytes of unsent payload; that, and about 200 bytes for each open stream,
/// is the memory that a peer can make it use.
///
/// Values beyond what the wire can say are taken as the largest that it can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How many bytes the peer may send on one stream ahead of the reader. Default: 256 KiB.
    pub stream_window: u64,
    /// How many bytes the peer may send on all streams together ahead of their readers. Default: 16 MiB.
    ///
    /// Readers that stall hold a stream window each; the others are not held up while that leaves one stream
    /// window over.
    pub session_window: u64,
    /// How many bidirectional streams the peer may have open at a time. Default: 128.
    pub max_streams_bidi: u64,
    /// How many unidirectional streams the peer may have open at a time. Default: 128.
    pub max_streams_uni: u64,
    /// The largest record that the peer may send, in bytes; not below 16382. Default: 16382.
    pub max_record_size: u64,
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_window: 256 << 10,
            session_window: 16 << 20,
            max_streams_bidi: 128,
            max_streams_uni: 128,
            max_record_size: MIN_MAX_RECORD_SIZE,
            send_buffer: 1 << 20,
            idle_timeout: Duration::from_secs(15),
            keep_alive: Some(Duration::from_secs(5)),
            close_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The same, within what the wire can say.
    pub(crate) fn clamped(mut self) -> Self {
        self.stream_window = self.stream_window.min(varint::MAX);
        self.session_window = self.session_window.min(varint::MAX);
        self.max_streams_bidi = self.max_streams_bidi.min(crate::id::MAX_STREAMS);
        self.max_streams_uni = self.max_streams_uni.min(crate::id::MAX_STREAMS);
        self.max_record_size = self.max_record_size.clamp(MIN_MAX_RECORD_SIZE, varint::MAX);
        self
    }

    pub(crate) fn max_streams(&self, dir: Dir) -> u64 {
        match dir {
            Dir::Bi => self.max_streams_bidi,
            Dir::Uni => self.max_streams_uni,
        }
    }

    /// What this end declares to its peer.
    pub(crate) fn parameters(&self) -> Parameters {
        let idle = u64::try_from(self.idle_timeout.as_millis()).unwrap_or(varint::MAX);
        Parameters {
            max_idle_timeout: idle.min(varint::MAX),
            initial_max_data: self.session_window,
            initial_max_stream_data_bidi_local: self.stream_window,
            initial_max_stream_data_bidi_remote: self.stream_window,
            initial_max_stream_data_uni: self.stream_window,
            initial_max_streams_bidi: self.max_streams_bidi,
            initial_max_streams_uni: self.max_streams_uni,
            max_record_size: self.max_record_size,
        }
    }
}
