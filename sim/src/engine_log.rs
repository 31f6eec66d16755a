//! Runs a session again from its event log, with other payload, and compares.
//!
//! In: a log as the product writes it with `--qlog` (docs/QLOG.md). Out: whether a fresh session, given the same calls,
//! answers the same: the length and frames of each record, each result and each event, and how the session stood. Keeps: the
//! log, and the bytes that its records make up, with zeros for what it does not tell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use towline_engine::{
    Acceptor, Code, Config, Dir, Epoch, Instant, PipeClosed, Secret, StreamId, Transcript, Urgency,
};
use towline_transports::qlog::{
    Direction, Ending, Event, FORMAT, Head, Packet, Recorded, RecordedStream, Sink, Stamp, Taken, parse,
};

/// A log, read.
#[derive(Clone, Debug)]
pub struct EngineLog {
    /// What it is of.
    pub head: Head,
    /// What happened, in order.
    pub lines: Vec<(Stamp, Event)>,
    /// It ends within a line, as that of a program that was killed.
    pub is_cut: bool,
}

/// Why a file is no log that can be run again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLog {
    /// It begins as something else.
    #[error("it does not begin as the event log of a session")]
    NoHead,
    /// It is of another version of this program.
    #[error(
        "it is of version {found}, and this program runs logs of version {expected}: use the program that wrote it"
    )]
    Version {
        /// The log's.
        found: String,
        /// This program's.
        expected: String,
    },
    /// A line makes no sense.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// What came of running a session again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// How many events of the log were found again.
    pub events: usize,
    /// The last of the log's numbers for how the session stood that was found again, in hexadecimal.
    pub shape: Option<String>,
    /// Where it ended.
    pub end: End,
}

/// Where running a session again ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With the session: all is the same.
    Same,
    /// The log says no more, for this reason; all is the same up to there.
    Unknown(String),
    /// At a line, counted from 1, that is not the same.
    Differs {
        /// Which line.
        line: usize,
        /// What the log says.
        logged: String,
        /// What happened now.
        now: String,
    },
}

const SEPARATOR: char = '\u{1e}';

impl EngineLog {
    /// Whether a file of JSON text sequences that begins with `head` is such a log.
    pub fn is_one(head: &serde_json::Value) -> bool {
        head.pointer("/towline/limits").is_some()
    }

    /// Reads a log.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read(text: &str) -> Result<Self, BadLog> {
        let is_cut = !text.ends_with('\n');
        let mut records: Vec<_> =
            text.split(SEPARATOR).skip(1).map(|record| record.trim_end_matches('\n')).collect();
        if is_cut {
            records.pop();
        }
        let mut records = records.into_iter();
        let head = read_head(records.next().unwrap_or_default())?;
        let read = |(index, record): (usize, &str)| {
            parse(record).map_err(|why| BadLog::Line { line: index + 2, why })
        };
        let lines = records.enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self { head, lines, is_cut })
    }

    /// Runs the session again.
    ///
    /// # Errors
    ///
    /// The log says what no log can say.
    pub fn replay(&self) -> Result<Replayed, BadLog> {
        Replay::new(self)?.run()
    }
}

fn read_head(record: &str) -> Result<Head, BadLog> {
    let value: serde_json::Value = serde_json::from_str(record).map_err(|_| BadLog::NoHead)?;
    if !EngineLog::is_one(&value) {
        return Err(BadLog::NoHead);
    }
    let found = |name: &str| match &value["towline"][name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let version = |format: String, version: String| format!("{format} of {version}");
    let expected = version(FORMAT.to_string(), env!("CARGO_PKG_VERSION").to_owned());
    let found = version(found("format"), found("version"));
    if found != expected {
        return Err(BadLog::Version { found, expected });
    }
    serde_json::from_value(value).map_err(|error| BadLog::Line { line: 1, why: error.to_string() })
}

/// What the session says now.
#[derive(Clone, Debug, Default)]
struct Said {
    events: Arc<Mutex<VecDeque<Event>>>,
    clock: Arc<AtomicU64>,
}

impl Sink for Said {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    fn write(&mut self, _: Stamp, event: &Event) {
        self.events.lock().expect("nobody panics with it").push_back(event.clone());
    }
}

/// A session that is run again.
struct Replay<'a> {
    log: &'a EngineLog,
    config: Arc<Config>,
    session: Option<Recorded>,
    said: Said,
    /// What came from each pipe, as far as it was not used yet.
    input: BTreeMap<u64, VecDeque<u8>>,
    shape: Option<String>,
}

/// Why a call cannot be made again.
enum Stop {
    /// The log does not tell what it takes.
    Unknown(String),
    /// The log says what no log can.
    Bad(String),
}

impl<'a> Replay<'a> {
    fn new(log: &'a EngineLog) -> Result<Self, BadLog> {
        let mut input: BTreeMap<u64, VecDeque<u8>> = BTreeMap::new();
        for (index, (_, event)) in log.lines.iter().enumerate() {
            if let Event::PacketReceived(packet) = event {
                let bytes = bytes_of(packet).ok_or_else(|| bad(index, "a record that cannot be"))?;
                input.entry(packet.header.epoch).or_default().extend(bytes);
            }
        }
        let (said, config) = (Said::default(), Arc::new(log.head.towline.limits.config()));
        let sink = Box::new(said.clone());
        let session = Recorded::with_sink(log.head.towline.side(), config.clone(), sink);
        Ok(Self { log, config, session: Some(session), said, input, shape: None })
    }

    fn run(mut self) -> Result<Replayed, BadLog> {
        for index in 0..self.log.lines.len() {
            let (stamp, event) = &self.log.lines[index];
            if let Event::Truncated { limit } = event {
                let why = format!("the log had become longer than {limit} bytes");
                return Ok(self.replayed(index, End::Unknown(why)));
            }
            let is_call = is_call(event);
            if is_call {
                if let Some(more) = self.next_said() {
                    return Ok(self.differs(index, "nothing of it", &more));
                }
                let at = if matches!(event, Event::End { .. }) { stamp.time } else { self.clock(index) };
                self.said.clock.store(at, Ordering::Relaxed);
                match self.call(Instant::from_nanos(stamp.now), event) {
                    Ok(()) => {}
                    Err(Stop::Unknown(why)) => return Ok(self.replayed(index, End::Unknown(why))),
                    Err(Stop::Bad(why)) => return Err(bad(index, &why)),
                }
            }
            match self.next_said() {
                Some(now) if now == *event => {}
                Some(now) => return Ok(self.differs(index, &shown(event), &now)),
                None => return Ok(self.silent(index, event)),
            }
            if let Event::Shape { shape } | Event::End { shape } = event {
                self.shape = Some(shape.clone());
            }
        }
        let end = match self.log.lines.last() {
            Some((_, Event::End { .. })) => End::Same,
            _ if self.log.is_cut => End::Unknown("the log ends within a line".into()),
            _ => End::Unknown("the log ends before the session did".into()),
        };
        let all = self.log.lines.len();
        Ok(self.replayed(all, end))
    }

    /// What the session's clock shows during the call of a line. If the log says right after it how the session stood, that
    /// was the time: what else happened in the call was told the time, or is the last news.
    fn clock(&self, index: usize) -> u64 {
        let follows = self.log.lines[index + 1..].iter().take_while(|(_, event)| !is_call(event));
        let mut shapes = follows.filter(|(_, event)| matches!(event, Event::Shape { .. }));
        shapes.next().map_or(self.log.lines[index].0.now, |(stamp, _)| stamp.time)
    }

    fn next_said(&self) -> Option<Event> {
        self.said.events.lock().expect("nobody panics with it").pop_front()
    }

    fn replayed(self, events: usize, end: End) -> Replayed {
        Replayed { events, shape: self.shape, end }
    }

    fn differs(self, index: usize, logged: &str, now: &Event) -> Replayed {
        let end = End::Differs { line: index + 2, logged: logged.to_owned(), now: shown(now) };
        self.replayed(index, end)
    }

    fn silent(self, index: usize, event: &Event) -> Replayed {
        let end = End::Differs { line: index + 2, logged: shown(event), now: "nothing".into() };
        self.replayed(index, end)
    }

    /// Calls the session as it was called then.
    fn call(&mut self, now: Instant, event: &Event) -> Result<(), Stop> {
        let over = || Stop::Bad("a call of a session that was dropped".into());
        if matches!(event, Event::End { .. }) {
            return self.session.take().map(drop).ok_or_else(over);
        }
        let mut session = self.session.take().ok_or_else(over)?;
        let outcome = self.call_session(&mut session, now, event);
        // Whatever is wrong with the log, the session is none the worse.
        self.session = Some(session);
        outcome
    }

    fn call_session(&mut self, session: &mut Recorded, now: Instant, event: &Event) -> Result<(), Stop> {
        match event {
            Event::Attach { epoch, .. } => _ = session.attach(now, Epoch(*epoch)),
            Event::AttachAccepted { epoch, accepted, result } => {
                let acceptor = self.acceptor(*epoch, *accepted, result)?;
                _ = session.attach_accepted(now, Epoch(*epoch), acceptor);
            }
            Event::Resume { epoch, accepted, result } => {
                let mut acceptor = self.acceptor(*epoch, *accepted, result)?;
                let proof = if result == "Unknown" { !Transcript::STAND_IN } else { Transcript::STAND_IN };
                let proof = Secret::new([proof; Secret::LEN]);
                _ = session.resume(now, Epoch(*epoch), &proof, &mut acceptor);
            }
            Event::Input { epoch, length, ignored } => {
                let bytes = self.take_input(*epoch, *length, *ignored)?;
                session.handle_input(now, Epoch(*epoch), bytes);
            }
            Event::PipeClosed { epoch, how } => {
                let how = match how {
                    Ending::Finished => PipeClosed::Finished,
                    Ending::Failed => PipeClosed::Failed,
                };
                session.handle_pipe_closed(now, Epoch(*epoch), how);
            }
            Event::Timeout {} => session.handle_timeout(now),
            Event::GiveUp {} => session.give_up(),
            Event::Ping {} => session.ping(),
            Event::CopyOut {} => session.copy_out(),
            Event::Transmit { max, .. } => {
                let max = usize::try_from(*max).unwrap_or(usize::MAX);
                _ = session.poll_transmit(now, max, &mut Vec::new());
            }
            Event::Open { stream_type, .. } => _ = session.open(dir(*stream_type)),
            Event::Accept { stream_type, .. } => _ = session.accept(dir(*stream_type)),
            Event::News { .. } => _ = session.poll_event(),
            Event::Release { stream_id, error_code } => session.release(id(*stream_id)?, code(*error_code)?),
            Event::Drain { deadline, retry_after } => {
                let [deadline, back] = [*deadline, *retry_after].map(Duration::from_nanos);
                session.drain(now, deadline, back);
            }
            Event::Close { error_code, reason } => session.close(now, code(*error_code)?, reason.as_bytes()),
            other => call_stream(session, other)?,
        }
        Ok(())
    }

    /// An acceptor that has read what that one had.
    fn acceptor(&mut self, epoch: u64, accepted: Taken, result: &str) -> Result<Acceptor, Stop> {
        let mut acceptor = Acceptor::new(&self.config);
        if accepted.declared {
            acceptor.poll_transmit(16 << 10, &mut Vec::new());
        }
        // Of a pipe that was refused, the log does not say what it gave.
        let ignored = result != "ok";
        for length in [accepted.before, accepted.last] {
            acceptor.handle_input(self.take_input(epoch, length, ignored)?);
        }
        Ok(acceptor)
    }

    fn take_input(&mut self, epoch: u64, length: u64, ignored: bool) -> Result<Bytes, Stop> {
        let length = size(length)?;
        if ignored {
            return Ok(vec![0; length].into());
        }
        let input = self.input.entry(epoch).or_default();
        if input.len() < length {
            let why = "the log does not tell what came next: bytes that are no frames, or only the beginning of a record";
            return Err(Stop::Unknown(why.into()));
        }
        Ok(input.drain(..length).collect::<Vec<_>>().into())
    }
}

/// The verbs of streams.
fn call_stream(session: &mut Recorded, event: &Event) -> Result<(), Stop> {
    let with = |session: &mut Recorded, stream: u64, verb: &dyn Fn(&mut RecordedStream<'_>)| {
        // If there is none, nothing is said, and that is what differs.
        if let Ok(mut stream) = session.stream(id(stream)?) {
            verb(&mut stream);
        }
        Ok(())
    };
    match event {
        Event::Read { stream_id, max, copied, .. } => {
            let max = if *copied { size(*max)? } else { usize::try_from(*max).unwrap_or(usize::MAX) };
            with(session, *stream_id, &|stream| {
                if *copied {
                    _ = stream.read_to(&mut vec![0; max]);
                } else {
                    _ = stream.read(max);
                }
            })
        }
        Event::Write { stream_id, length, copied, .. } => {
            let data = Bytes::from(vec![0; size(*length)?]);
            with(session, *stream_id, &|stream| {
                if *copied {
                    _ = stream.write(&data);
                } else {
                    _ = stream.write_chunk(&mut data.clone());
                }
            })
        }
        Event::Finish { stream_id, .. } => with(session, *stream_id, &|stream| _ = stream.finish()),
        Event::Reset { stream_id, error_code, when_sent, .. } => {
            let code = code(*error_code)?;
            with(session, *stream_id, &|stream| {
                _ = if *when_sent { stream.reset_when_sent(code) } else { stream.reset(code) };
            })
        }
        Event::Stop { stream_id, error_code, .. } => {
            let code = code(*error_code)?;
            with(session, *stream_id, &|stream| _ = stream.stop(code))
        }
        Event::Urgency { stream_id, urgency } => {
            let urgency = urgency_of(urgency)?;
            with(session, *stream_id, &|stream| stream.set_urgency(urgency))
        }
        other => Err(Stop::Bad(format!("{} is no call", shown(other)))),
    }
}

/// Whether an event is a call, or follows from one.
fn is_call(event: &Event) -> bool {
    !matches!(
        event,
        Event::Undecodable { .. }
            | Event::Shape { .. }
            | Event::Truncated { .. }
            | Event::PacketSent(_)
            | Event::PacketReceived(_)
            | Event::ParametersSet(_)
            | Event::StreamState { .. }
            | Event::ConnectionState { .. }
            | Event::ConnectionClosed { .. }
    )
}

/// No log is longer, so no call took or gave more.
const MOST: u64 = 1 << 30;

fn size(length: u64) -> Result<usize, Stop> {
    let size = usize::try_from(length).ok().filter(|_| length <= MOST);
    size.ok_or_else(|| Stop::Bad(format!("{length} bytes in one call")))
}

fn bytes_of(packet: &Packet) -> Option<Vec<u8>> {
    if packet.raw.length > MOST {
        return None;
    }
    packet.bytes()
}

fn id(stream: u64) -> Result<StreamId, Stop> {
    StreamId::from_wire(stream).ok_or_else(|| Stop::Bad(format!("no stream has the id {stream}")))
}

fn code(code: u64) -> Result<Code, Stop> {
    Code::new(code).ok_or_else(|| Stop::Bad(format!("{code} is no error code")))
}

fn dir(direction: Direction) -> Dir {
    match direction {
        Direction::Bidirectional => Dir::Bi,
        Direction::Unidirectional => Dir::Uni,
    }
}

fn urgency_of(word: &str) -> Result<Urgency, Stop> {
    let all = [Urgency::Interactive, Urgency::Normal, Urgency::Bulk];
    let found = all.into_iter().find(|urgency| format!("{urgency:?}") == word);
    found.ok_or_else(|| Stop::Bad(format!("no urgency is called {word}")))
}

fn shown(event: &Event) -> String {
    serde_json::to_string(event).expect("an event can be written")
}

fn bad(index: usize, why: &str) -> BadLog {
    BadLog::Line { line: index + 2, why: why.to_owned() }
}
