//! Whose pipe is this? The first records of a pipe that was accepted tell.
//!
//! In: a pipe's first bytes. Out: this end's parameters, and the answer. Keeps: the bytes, for the session that
//! they are meant for; at most two records and what was read along with their end. Spec: PROTOCOL §3.1.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};

use crate::config::Config;
use crate::frame::{Frame, Refusal};
use crate::id::{Epoch, StreamId};
use crate::params::{MIN_MAX_RECORD_SIZE, Parameters};
use crate::record::{Item, RecordReader};
use crate::record_writer::RecordWriter;
use crate::resume::{Refused, Secret, SessionId};
use crate::transmit::MIN_TRANSMIT;

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
/// assert_eq!(acceptor.handle_input(Bytes::from(hello.concat())), Some(Arrival::New(None)));
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
    /// How many bytes may have come when padding is all that comes.
    patience: u64,
    /// What came before `last`.
    kept: BytesMut,
    /// What came last; it is not copied, as there may be much behind the record that matters.
    last: Bytes,
    progress: Progress,
    answer: Option<Refusal>,
}

/// What a pipe turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arrival {
    /// The start of a session, which its client may later want to resume under this name, if it says one. Also what
    /// makes no sense: the session will say so to the peer.
    New(Option<SessionId>),
    /// It wants to carry a session that is there: see [`Session::resume`](crate::Session::resume).
    Resume {
        /// The session's name, to be looked up among those of the same peer. If there is none,
        /// [`Acceptor::refuse`] answers.
        session: SessionId,
        /// The number of the pipe.
        epoch: Epoch,
        /// What shows that the peer may.
        proof: Secret,
    },
}

/// How much is known of the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing yet.
    Start,
    /// A session will be named.
    Resuming,
    /// What it is, or that it is refused.
    Known,
}

/// The least room that an answer is written into: without it, it waits. What does not fit of what had arrived is left
/// out.
const MIN_ANSWER: usize = 256;

const _: () = assert!(crate::frame::MAX_PARAMETERS_FRAME + MIN_ANSWER < MIN_TRANSMIT);

impl Acceptor {
    /// For a pipe that was just accepted, by an end that wants and allows what `config` says.
    pub fn new(config: &Config) -> Self {
        let config = Config::clamped(config.clone().into());
        Self {
            ours: config.parameters(None),
            parameters_sent: false,
            records: RecordReader::new(config.max_record_size),
            patience: config.max_record_size,
            kept: BytesMut::new(),
            last: Bytes::new(),
            progress: Progress::Start,
            answer: None,
        }
    }

    /// Bytes arrived from the pipe, cut anywhere. Returns what it is, once that is known. Keeps everything for the
    /// session, so the owner goes on with that as soon as it can.
    pub fn handle_input(&mut self, bytes: Bytes) -> Option<Arrival> {
        if self.answer.is_some() {
            return None; // who was refused is not listened to
        }
        self.kept.extend_from_slice(&self.last);
        self.last = bytes.clone();
        let mut input = bytes;
        while self.progress != Progress::Known {
            let arrival = match self.records.next(&mut input) {
                Ok(None) => return None,
                Ok(Some(item)) => {
                    let is_padding = matches!(item, Item::Frame(Frame::Padding));
                    let read = self.kept.len() + self.last.len() - input.len();
                    // Else padding that goes on and on would be kept: it makes no sense.
                    let is_too_much = is_padding && read as u64 > self.patience;
                    if is_too_much { Some(Arrival::New(None)) } else { self.on_item(item) }
                }
                Err(_) => Some(Arrival::New(None)),
            };
            if arrival.is_some() {
                self.progress = Progress::Known;
                return arrival;
            }
        }
        None
    }

    fn on_item(&mut self, item: Item) -> Option<Arrival> {
        match (self.progress, item) {
            (Progress::Start, Item::Frame(Frame::Parameters(theirs))) if self.ours.resume.is_some() => {
                match theirs.resume.map(|resume| resume.ticket) {
                    Some(Some((session, _))) => Some(Arrival::New(Some(session))),
                    Some(None) => {
                        self.progress = Progress::Resuming;
                        None
                    }
                    None => Some(Arrival::New(None)),
                }
            }
            (Progress::Resuming, Item::Frame(Frame::Resume { session, secret, epoch })) => {
                Some(Arrival::Resume { session, epoch, proof: secret })
            }
            (Progress::Resuming, Item::Frame(Frame::Padding)) => None,
            _ => Some(Arrival::New(None)),
        }
    }

    /// Answers that there is no such session: the same for one that never was, for a proof that does not hold, and
    /// for somebody else's. The owner sends what [`poll_transmit`](Self::poll_transmit) makes and closes the pipe;
    /// what still comes from it is discarded. Returns that answer.
    pub fn refuse(&mut self) -> Refused {
        self.answer(Refused::Unknown, Vec::new())
    }

    pub(crate) fn answer(&mut self, why: Refused, received: Vec<(StreamId, u64)>) -> Refused {
        self.progress = Progress::Known;
        self.answer = Some(Refusal { why, received });
        (self.kept, self.last) = (BytesMut::new(), Bytes::new());
        why
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something to say.
    pub fn wants_transmit(&self) -> bool {
        !self.parameters_sent || self.answer.is_some()
    }

    /// Makes the record with this end's parameters, if it was not made before, and with the answer to a pipe that
    /// was refused; as [`Session::poll_transmit`](crate::Session::poll_transmit).
    pub fn poll_transmit(&mut self, max: usize, out: &mut Vec<Bytes>) -> usize {
        let mut record = RecordWriter::new(BytesMut::new(), max, MIN_MAX_RECORD_SIZE, out);
        if !self.parameters_sent && record.space() >= crate::frame::MAX_PARAMETERS_FRAME {
            record.frame(&Frame::Parameters(Box::new(self.ours.clone())));
            self.parameters_sent = true;
        }
        if self.parameters_sent
            && record.space() >= MIN_ANSWER
            && let Some(answer) = self.answer.take().and_then(|answer| answer.fit(record.space()))
        {
            record.frame(&Frame::ResumeRefused(answer));
        }
        record.finish().0
    }

    /// A number for its state: equal for those that will behave alike. See
    /// [`Session::fingerprint`](crate::Session::fingerprint).
    pub fn fingerprint(&self) -> u128 {
        let mut digest = crate::fingerprint::Digest::new();
        digest.numbers(&[u64::from(self.parameters_sent), self.progress as u64]);
        self.records.digest(&mut digest);
        digest.pieces([&self.kept[..], &self.last].into_iter());
        digest.number(u64::from(self.answer.is_some()));
        for (id, received) in self.answer.iter().flat_map(|answer| &answer.received) {
            digest.numbers(&[id.to_wire(), *received]);
        }
        digest.finish()
    }

    /// What came from the pipe so far, for a log: all but the last bytes that were handed over, and those.
    pub fn input(&self) -> [Bytes; 2] {
        [Bytes::copy_from_slice(&self.kept), self.last.clone()]
    }

    /// Everything that came from the pipe so far.
    pub(crate) fn take_input(&mut self) -> [Bytes; 2] {
        [core::mem::take(&mut self.kept).freeze(), core::mem::take(&mut self.last)]
    }
}
