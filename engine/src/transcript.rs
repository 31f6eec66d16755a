//! What a pipe's bytes said, for a log: records and frames, without payload and without secrets.
//!
//! In: one direction of one pipe, cut anywhere. Out: each record once it is whole. Keeps: the record that has begun, as
//! what its frames said; of one frame that was cut, its start. The log of a session is made with it
//! (docs/QLOG.md), and from such a log the bytes can be made again, with other payload of the same lengths.

use alloc::vec::Vec;
use bytes::Bytes;

use crate::error::Violation;
use crate::frame::{CloseKind, Frame};
use crate::id::Dir;
use crate::params::Parameters;
use crate::record::{Item, Piece, RecordReader};
use crate::resume::{Refused, Secret, SessionId};

/// Reads a pipe's bytes for a log. A session reads them by itself, and does not need it.
#[derive(Clone, Debug)]
pub struct Transcript {
    records: RecordReader,
    /// What came of a frame, or of a record's size, that is not whole yet.
    pending: Vec<u8>,
    /// The record that has begun.
    record: Option<Record>,
    /// A STREAM frame goes on in the next piece.
    is_in_stream: bool,
}

/// A record, as a log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The bytes of its size.
    pub size: Vec<u8>,
    /// What it holds.
    pub frames: Vec<Statement>,
}

/// A frame, as a log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The frame's name, as qlog writes it where QUIC has the frame, else as docs/PROTOCOL.md does, in lower case.
    pub name: &'static str,
    /// What it says.
    pub fields: Vec<(&'static str, Field)>,
    /// Its bytes, without payload and padding. A session's name and its secret are replaced by
    /// [`STAND_IN`](Transcript::STAND_IN).
    pub head: Vec<u8>,
    /// How many bytes of payload follow, or of padding.
    pub payload: u64,
}

/// A value in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A number.
    Number(u64),
    /// A yes or a no.
    Flag(bool),
    /// A word of qlog's.
    Word(&'static str),
    /// Text from the peer.
    Text(Bytes),
}

impl Record {
    /// How long it is, with its size.
    pub fn length(&self) -> u64 {
        self.frames
            .iter()
            .fold(self.size.len() as u64, |sum, frame| sum + frame.head.len() as u64 + frame.payload)
    }
}

impl Transcript {
    /// The byte that stands for each one of a name or a secret that is not to be known.
    pub const STAND_IN: u8 = 0x2a;

    /// Of a pipe on which records have at most `max_record_size` bytes.
    pub fn new(max_record_size: u64) -> Self {
        let records = RecordReader::new(max_record_size);
        Self { records, pending: Vec::new(), record: None, is_in_stream: false }
    }

    /// Reads what came next, and appends the records that it completes to `out`.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break. Nothing may be read after that.
    pub fn read(&mut self, mut input: Bytes, out: &mut Vec<Record>) -> Result<(), Violation> {
        loop {
            let before = input.clone();
            let item = self.records.next(&mut input)?;
            let used = &before[..before.len() - input.len()];
            let Some(item) = item else {
                self.pending.extend_from_slice(used);
                return Ok(());
            };
            let payload = match &item {
                Item::Stream(piece) => piece.data.len(),
                Item::Frame(_) => 0,
            };
            self.pending.extend_from_slice(&used[..used.len() - payload]);
            self.on_item(item);
            if self.records.is_between_records()
                && let Some(record) = self.record.take()
            {
                out.push(record);
            }
        }
    }

    /// Whether there is nothing of a record that is not whole.
    pub fn is_between_records(&self) -> bool {
        self.pending.is_empty() && self.record.is_none()
    }

    fn on_item(&mut self, item: Item) {
        let mut head = core::mem::take(&mut self.pending);
        let record = self.record.get_or_insert_with(|| {
            let rest = head.split_off(1 << (head.first().copied().unwrap_or(0) >> 6));
            Record { size: core::mem::replace(&mut head, rest), frames: Vec::new() }
        });
        let continued = core::mem::take(&mut self.is_in_stream);
        match item {
            Item::Stream(piece) => {
                self.is_in_stream = piece.rest > 0;
                let payload = piece.data.len() as u64;
                match record.frames.last_mut() {
                    Some(frame) if continued => frame.payload += payload,
                    _ => record.frames.push(of_stream(&piece, head)),
                }
            }
            Item::Frame(Frame::Padding) => {
                let count = head.len() as u64;
                match record.frames.last_mut() {
                    Some(frame) if frame.name == PADDING => frame.payload += count,
                    _ => record.frames.push(Statement {
                        name: PADDING,
                        fields: Vec::new(),
                        head: Vec::new(),
                        payload: count,
                    }),
                }
            }
            Item::Frame(frame) => {
                hide(&frame, &mut head);
                let (name, fields) = told(&frame);
                record.frames.push(Statement { name, fields, head, payload: 0 });
            }
        }
    }
}

const PADDING: &str = "padding";

fn of_stream(piece: &Piece, head: Vec<u8>) -> Statement {
    let fields = alloc::vec![
        ("stream_id", Field::Number(piece.id.to_wire())),
        ("offset", Field::Number(piece.offset)),
        ("length", Field::Number(piece.data.len() as u64 + piece.rest)),
        ("fin", Field::Flag(piece.fin)),
    ];
    Statement { name: "stream", fields, head, payload: piece.data.len() as u64 }
}

/// Replaces what nobody is to read in a log.
fn hide(frame: &Frame, head: &mut [u8]) {
    match frame {
        Frame::Resume { session, secret, .. } => replace(session, secret, head),
        Frame::Parameters(parameters) => {
            if let Some((session, secret)) =
                parameters.resume.as_ref().and_then(|resume| resume.ticket.as_ref())
            {
                replace(session, secret, head);
            }
        }
        _ => {}
    }
}

/// The secret follows the name, wherever they stand.
fn replace(session: &SessionId, secret: &Secret, head: &mut [u8]) {
    const LEN: usize = SessionId::LEN + Secret::LEN;
    let is_there = |place: &[u8]| {
        let (name, proof) = place.split_at(SessionId::LEN);
        name == session.0 && proof == secret.as_bytes()
    };
    let found = head.windows(LEN).position(is_there);
    let at = found.expect("what was read stands there");
    head[at..at + LEN].fill(Transcript::STAND_IN);
}

/// The name of a frame, and what it says.
fn told(frame: &Frame) -> (&'static str, Vec<(&'static str, Field)>) {
    use Field::Number;
    let mut fields = Vec::new();
    let name = match frame {
        Frame::Padding => PADDING,
        Frame::ResetStream { id, code, final_size } => {
            fields.push(("stream_id", Number(id.to_wire())));
            fields.push(("error_code", Number(code.value())));
            fields.push(("final_size", Number(*final_size)));
            "reset_stream"
        }
        Frame::StopSending { id, code } => {
            fields.push(("stream_id", Number(id.to_wire())));
            fields.push(("error_code", Number(code.value())));
            "stop_sending"
        }
        Frame::Stream(header) => {
            fields.push(("stream_id", Number(header.id.to_wire())));
            "stream"
        }
        Frame::MaxData { limit } => {
            fields.push(("maximum", Number(*limit)));
            "max_data"
        }
        Frame::MaxStreamData { id, limit } => {
            fields.push(("stream_id", Number(id.to_wire())));
            fields.push(("maximum", Number(*limit)));
            "max_stream_data"
        }
        Frame::MaxStreams { dir, limit } => {
            fields.push(("stream_type", direction(*dir)));
            fields.push(("maximum", Number(*limit)));
            "max_streams"
        }
        Frame::DataBlocked { limit } => {
            fields.push(("limit", Number(*limit)));
            "data_blocked"
        }
        Frame::StreamDataBlocked { id, limit } => {
            fields.push(("stream_id", Number(id.to_wire())));
            fields.push(("limit", Number(*limit)));
            "stream_data_blocked"
        }
        Frame::StreamsBlocked { dir, limit } => {
            fields.push(("stream_type", direction(*dir)));
            fields.push(("limit", Number(*limit)));
            "streams_blocked"
        }
        Frame::Close(close) => {
            let (space, code) = match close.kind {
                CloseKind::Transport { code, .. } => ("transport", code),
                CloseKind::Application { code } => ("application", code.value()),
            };
            fields.push(("error_space", Field::Word(space)));
            fields.push(("error_code", Number(code)));
            fields.push(("reason", Field::Text(close.reason.clone())));
            "connection_close"
        }
        Frame::Parameters(parameters) => {
            tell_parameters(parameters, &mut fields);
            "qx_transport_parameters"
        }
        Frame::Ping { sequence } => {
            fields.push(("sequence", Number(*sequence)));
            "qx_ping"
        }
        Frame::Pong { sequence } => {
            fields.push(("sequence", Number(*sequence)));
            "qx_pong"
        }
        Frame::StreamAck { id, received } => {
            fields.push(("stream_id", Number(id.to_wire())));
            fields.push(("received", Number(*received)));
            "stream_ack"
        }
        Frame::Resume { epoch, .. } => {
            fields.push(("epoch", Number(epoch.0)));
            "resume"
        }
        Frame::Resumed { epoch } => {
            fields.push(("epoch", Number(epoch.0)));
            "resumed"
        }
        Frame::ResumeRefused(refusal) => {
            let why = match refusal.why {
                Refused::Unknown => "unknown",
                Refused::Stale(_) => "stale",
                Refused::Expired => "expired",
                Refused::Closed(_) => "closed",
            };
            fields.push(("why", Field::Word(why)));
            fields.push(("streams", Number(refusal.received.len() as u64)));
            "resume_refused"
        }
        Frame::SessionState(state) => {
            fields.push(("opened_bidi", Number(state.opened.bi)));
            fields.push(("opened_uni", Number(state.opened.uni)));
            fields.push(("max_data", Number(state.max_data)));
            fields.push(("max_streams_bidi", Number(state.max_streams.bi)));
            fields.push(("max_streams_uni", Number(state.max_streams.uni)));
            "session_state"
        }
        Frame::StreamState { id, received, limit } => {
            fields.push(("stream_id", Number(id.to_wire())));
            fields.push(("received", Number(*received)));
            fields.push(("maximum", Number(*limit)));
            "stream_state"
        }
        Frame::StateEnd => "state_end",
        Frame::Drain(drain) => {
            fields.push(("opened_bidi", Number(drain.opened.bi)));
            fields.push(("opened_uni", Number(drain.opened.uni)));
            fields.push(("deadline", Number(drain.deadline)));
            fields.push(("retry", Number(drain.retry)));
            "drain"
        }
    };
    (name, fields)
}

fn tell_parameters(parameters: &Parameters, fields: &mut Vec<(&'static str, Field)>) {
    let of_each = [
        ("max_idle_timeout", parameters.max_idle_timeout),
        ("initial_max_data", parameters.initial_max_data),
        ("initial_max_stream_data_bidi_local", parameters.initial_max_stream_data_bidi_local),
        ("initial_max_stream_data_bidi_remote", parameters.initial_max_stream_data_bidi_remote),
        ("initial_max_stream_data_uni", parameters.initial_max_stream_data_uni),
        ("initial_max_streams_bidi", parameters.initial_max_streams_bidi),
        ("initial_max_streams_uni", parameters.initial_max_streams_uni),
        ("max_record_size", parameters.max_record_size),
    ];
    fields.extend(of_each.map(|(name, value)| (name, Field::Number(value))));
    if let Some(resume) = &parameters.resume {
        fields.push(("grace", Field::Number(resume.grace)));
    }
}

const fn direction(dir: Dir) -> Field {
    Field::Word(match dir {
        Dir::Bi => "bidirectional",
        Dir::Uni => "unidirectional",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::id::{Epoch, Side};
    use crate::resume::Resumption;
    use crate::session::Session;
    use crate::time::Instant;

    const NOW: Instant = Instant::from_nanos(0);

    /// What a client says first, with a name and a secret of its own and some payload.
    fn bytes_of_a_client() -> Vec<u8> {
        let willing = |resumption| Config { resumption, ..Config::default() };
        let offer = Resumption::Offer(SessionId([7; 16]), Secret::new([9; 32]));
        let mut client = Session::new(Side::Client, willing(offer));
        let mut server = Session::new(Side::Server, willing(Resumption::Accept));
        client.attach(NOW, Epoch(0)).unwrap();
        server.attach(NOW, Epoch(0)).unwrap();
        let (mut said, mut out) = (Vec::new(), Vec::new());
        server.poll_transmit(NOW, 16 << 10, &mut out);
        out.drain(..).for_each(|bytes| client.handle_input(NOW, Epoch(0), bytes));
        let id = client.open(Dir::Bi).unwrap();
        client.stream(id).unwrap().write(&[0xee; 100]).unwrap();
        client.stream(id).unwrap().finish().unwrap();
        while client.poll_transmit(NOW, 16 << 10, &mut out) > 0 {
            said.extend(out.drain(..).flatten());
        }
        said
    }

    fn rebuilt(records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&record.size);
            for frame in &record.frames {
                bytes.extend_from_slice(&frame.head);
                bytes.resize(bytes.len() + usize::try_from(frame.payload).unwrap(), 0);
            }
        }
        bytes
    }

    #[test]
    fn what_is_read_is_all_but_payload_and_secrets_wherever_it_is_cut() {
        let bytes = bytes_of_a_client();
        let expected: Vec<u8> = bytes
            .iter()
            .map(|byte| match byte {
                7 | 9 => Transcript::STAND_IN,
                0xee => 0,
                other => *other,
            })
            .collect();
        let read = |cut: usize| {
            let (mut transcript, mut records) = (Transcript::new(16 << 10), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                transcript.read(Bytes::copy_from_slice(part), &mut records).unwrap();
            }
            assert!(transcript.is_between_records());
            records
        };
        let whole = read(0);
        let names: Vec<_> = whole.iter().flat_map(|record| &record.frames).map(|frame| frame.name).collect();
        assert!(names.starts_with(&["qx_transport_parameters"]) && names.ends_with(&["stream"]), "{names:?}");
        // The numbers 7 and 9 happen to be frame fields as well; what matters is that both secrets are gone.
        let made = rebuilt(&whole);
        assert_eq!(made.len(), bytes.len());
        assert!(!made.windows(3).any(|three| three == [7; 3] || three == [9; 3] || three == [0xee; 3]));
        let differs = made.iter().zip(&expected).filter(|(one, other)| one != other).count();
        assert!(differs < 4, "{made:02x?} and {expected:02x?}");
        assert_eq!(whole.iter().map(Record::length).sum::<u64>(), bytes.len() as u64);
        for cut in 0..bytes.len() {
            assert_eq!(read(cut), whole, "cut at {cut}");
        }
    }

    #[test]
    fn padding_is_counted_and_not_kept() {
        let mut bytes = alloc::vec![0x44, 0x00]; // a record of 1024 bytes
        bytes.resize(2 + 1022, 0);
        bytes.extend([0x10, 0x05]); // MAX_DATA 5
        let (mut transcript, mut records) = (Transcript::new(16 << 10), Vec::new());
        for part in bytes.chunks(100) {
            transcript.read(Bytes::copy_from_slice(part), &mut records).unwrap();
        }
        let [record] = &records[..] else { panic!("{records:?}") };
        let [padding, limit] = &record.frames[..] else { panic!("{record:?}") };
        assert_eq!((padding.name, padding.head.len(), padding.payload), ("padding", 0, 1022));
        assert_eq!((limit.name, &limit.head[..]), ("max_data", &[0x10, 0x05][..]));
    }

    #[test]
    fn who_breaks_a_rule_is_told_which() {
        let (mut transcript, mut records) = (Transcript::new(16 << 10), Vec::new());
        let outcome = transcript.read(Bytes::from_static(&[1, 1]), &mut records);
        assert_eq!(outcome, Err(Violation::UnknownFrame));
    }
}
