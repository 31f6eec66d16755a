//! Whose pipe is this? The first records of a pipe that was accepted tell.
//!
//! In: a pipe's first bytes. Out: this end's parameters, and the answer. Keeps: the bytes, for the session that
//! they are meant for; at most one record and what was read along with its end. Spec: PROTOCOL §3.1.

use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};

use crate::config::Config;
use crate::frame::Frame;
use crate::params::{MIN_MAX_RECORD_SIZE, Parameters};
use crate::record::RecordReader;
use crate::record_writer::RecordWriter;

/// Reads the beginning of an accepted pipe, so that the owner of many sessions can find the right one.
///
/// It declares this end's parameters at once, as draft-02 §4.2 asks, and hands the rest of the pipe's life to a
/// session through [`Session::attach_accepted`](crate::Session::attach_accepted).
///
/// ```
/// use bytes::Bytes;
/// use towline_engine::{Acceptor, Arrival, Config, Epoch, Instant, Session, Side};
///
/// let now = Instant::default();
/// let mut client = Session::new(Side::Client, Config::default());
/// client.attach(now, Epoch(0)).unwrap();
/// let mut hello = Vec::new();
/// client.poll_transmit(now, 1200, &mut hello);
///
/// let config = Config::default();
/// let mut acceptor = Acceptor::new(&config);
/// assert_eq!(acceptor.handle_input(Bytes::from(hello.concat())), Some(Arrival::New));
///
/// let mut server = Session::new(Side::Server, config);
/// server.attach_accepted(now, Epoch(0), acceptor).unwrap();
/// assert!(matches!(server.poll_event(), Some(towline_engine::Event::Attached(Epoch(0)))));
/// ```
#[derive(Clone, Debug)]
pub struct Acceptor {
    ours: Parameters,
    pub(crate) parameters_sent: bool,
    records: RecordReader,
    /// What came before `last`.
    kept: BytesMut,
    /// What came last; it is not copied, as there may be much behind the record that matters.
    last: Bytes,
    arrival: Option<Arrival>,
}

/// What a pipe turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arrival {
    /// The start of a session. Also what makes no sense: the session will say so to the peer.
    New,
}

impl Acceptor {
    /// For a pipe that was just accepted, by an end that wants and allows what `config` says.
    pub fn new(config: &Config) -> Self {
        let config = config.clone().clamped();
        Self {
            ours: config.parameters(),
            parameters_sent: false,
            records: RecordReader::new(config.max_record_size),
            kept: BytesMut::new(),
            last: Bytes::new(),
            arrival: None,
        }
    }

    /// Bytes arrived from the pipe, cut anywhere. Returns what it is, once that is known.
    pub fn handle_input(&mut self, bytes: Bytes) -> Option<Arrival> {
        self.kept.extend_from_slice(&self.last);
        self.last = bytes.clone();
        if self.arrival.is_none() {
            let mut input = bytes;
            self.arrival = match self.records.next(&mut input) {
                Ok(None) => None,
                Ok(Some(_)) | Err(_) => Some(Arrival::New),
            };
        }
        self.arrival
    }

    /// Makes the record with this end's parameters, if it was not made before; as
    /// [`Session::poll_transmit`](crate::Session::poll_transmit).
    pub fn poll_transmit(&mut self, max: usize, out: &mut Vec<Bytes>) -> usize {
        let mut record = RecordWriter::new(BytesMut::new(), max, MIN_MAX_RECORD_SIZE, out);
        if !self.parameters_sent && record.space() >= crate::frame::MAX_PARAMETERS_FRAME {
            record.frame(&Frame::Parameters(self.ours));
            self.parameters_sent = true;
        }
        record.finish().0
    }

    /// Everything that came from the pipe so far.
    pub(crate) fn into_input(self) -> [Bytes; 2] {
        [self.kept.freeze(), self.last]
    }
}
