//! A session whose calls are written down, if anybody wants that.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use towline_engine as engine;
use towline_engine::{
    Acceptor, AttachError, Code, Config, Dir, Epoch, OpenError, PipeClosed, Record, Refused, Secret, Sending,
    Session, Side, StreamId, Transcript, UnknownStream, Urgency,
};

use super::event::{Direction, Ending, Event, Head, Outcome, Packet, Stamp, Taken};
use super::sink::{Sink, Traced};

/// A session and its log. The verbs are those of [`Session`]; what only looks is reached through `Deref`.
#[derive(Debug)]
pub struct Recorded {
    session: Session,
    log: Option<Box<Log>>,
}

/// A stream of such a session, as [`engine::Stream`].
#[derive(Debug)]
pub struct RecordedStream<'a> {
    stream: engine::Stream<'a>,
    log: Option<&'a mut Log>,
}

/// After how many calls the log says again how the session stands.
const SHAPE_EVERY: u64 = 256;

#[derive(Debug)]
struct Log {
    sink: Box<dyn Sink>,
    /// The time of the last line.
    time: u64,
    calls: u64,
    /// The number of the present pipe, if there is one.
    epoch: Option<u64>,
    max_record_size: u64,
    /// What the present pipe gave; `None` once that made no sense.
    received: Option<Transcript>,
    /// What this end has said on it.
    sent: Option<Transcript>,
    records_received: u64,
    records_sent: u64,
    /// Kept for its allocation.
    records: Vec<Record>,
}

impl Deref for Recorded {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(log) = &mut self.log {
            log.shape(&self.session, |shape| Event::End { shape });
        }
    }
}

impl Recorded {
    /// A session that begins at `start`, and is called `name` in a log. Whether it has one depends on who listens now.
    pub fn new(side: Side, config: impl Into<Arc<Config>>, start: Instant, name: &str) -> Self {
        let config = config.into();
        let sink = Traced::begin(start, || Head::new(side, &config, name));
        match sink {
            None => Self { session: Session::new(side, config), log: None },
            Some(sink) => Self::with_sink(side, config, Box::new(sink)),
        }
    }

    /// One that has no log.
    pub fn unheard(side: Side, config: impl Into<Arc<Config>>) -> Self {
        Self { session: Session::new(side, config), log: None }
    }

    /// One whose log goes to `sink`.
    pub fn with_sink(side: Side, config: impl Into<Arc<Config>>, sink: Box<dyn Sink>) -> Self {
        let config = config.into();
        let log = Box::new(Log::new(sink, config.max_record_size));
        Self { session: Session::new(side, config), log: Some(log) }
    }

    /// As [`Session::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach(&mut self, now: engine::Instant, epoch: Epoch) -> Result<(), AttachError> {
        let result = self.session.attach(now, epoch);
        if let Some(log) = &mut self.log {
            log.call(now, &Event::Attach { epoch: epoch.0, result: word(&result) });
            if result.is_ok() {
                log.take_pipe(epoch);
            }
        }
        result
    }

    /// As [`Session::attach_accepted`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_accepted(
        &mut self,
        now: engine::Instant,
        epoch: Epoch,
        acceptor: Acceptor,
    ) -> Result<(), AttachError> {
        let Some(log) = &mut self.log else { return self.session.attach_accepted(now, epoch, acceptor) };
        let (accepted, input) = taken(&acceptor);
        let result = self.session.attach_accepted(now, epoch, acceptor);
        log.call(now, &Event::AttachAccepted { epoch: epoch.0, accepted, result: word(&result) });
        if result.is_ok() {
            log.take_pipe(epoch);
            log.receive(now, input);
        }
        result
    }

    /// As [`Session::resume`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resume(
        &mut self,
        now: engine::Instant,
        epoch: Epoch,
        proof: &Secret,
        acceptor: &mut Acceptor,
    ) -> Result<(), Refused> {
        let Some(log) = &mut self.log else { return self.session.resume(now, epoch, proof, acceptor) };
        let (accepted, input) = taken(acceptor);
        let result = self.session.resume(now, epoch, proof, acceptor);
        log.call(now, &Event::Resume { epoch: epoch.0, accepted, result: word(&result) });
        if result.is_ok() {
            log.take_pipe(epoch);
            log.receive(now, input);
        }
        result
    }

    /// As [`Session::handle_input`].
    pub fn handle_input(&mut self, now: engine::Instant, epoch: Epoch, bytes: Bytes) {
        let Some(log) = &mut self.log else { return self.session.handle_input(now, epoch, bytes) };
        let ignored = self.session.is_closed() || self.session.is_detached() || log.epoch != Some(epoch.0);
        let length = bytes.len() as u64;
        log.call(now, &Event::Input { epoch: epoch.0, length, ignored });
        if !ignored {
            log.receive(now, [bytes.clone()]);
        }
        self.session.handle_input(now, epoch, bytes);
        log.pause(&self.session);
    }

    /// As [`Session::handle_pipe_closed`].
    pub fn handle_pipe_closed(&mut self, now: engine::Instant, epoch: Epoch, how: PipeClosed) {
        if let Some(log) = &mut self.log {
            let how = match how {
                PipeClosed::Finished => Ending::Finished,
                PipeClosed::Failed => Ending::Failed,
            };
            log.call(now, &Event::PipeClosed { epoch: epoch.0, how });
        }
        self.session.handle_pipe_closed(now, epoch, how);
    }

    /// As [`Session::handle_timeout`].
    pub fn handle_timeout(&mut self, now: engine::Instant) {
        if let Some(log) = &mut self.log {
            log.call(now, &Event::Timeout {});
        }
        self.session.handle_timeout(now);
    }

    /// As [`Session::give_up`].
    pub fn give_up(&mut self) {
        if let Some(log) = &mut self.log {
            log.verb(&Event::GiveUp {});
        }
        self.session.give_up();
    }

    /// As [`Session::ping`].
    pub fn ping(&mut self) {
        if let Some(log) = &mut self.log {
            log.verb(&Event::Ping {});
        }
        self.session.ping();
    }

    /// As [`Session::copy_out`].
    pub fn copy_out(&mut self) {
        if let Some(log) = &mut self.log {
            log.verb(&Event::CopyOut {});
        }
        self.session.copy_out();
    }

    /// As [`Session::open`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open(&mut self, dir: Dir) -> Result<StreamId, OpenError> {
        let result = self.session.open(dir);
        if let Some(log) = &mut self.log {
            let outcome = outcome(&result, |id| Outcome::Number(id.to_wire()));
            log.verb(&Event::Open { stream_type: dir.into(), result: outcome });
            if let Ok(id) = result {
                log.stream_is(id, "open");
            }
        }
        result
    }

    /// As [`Session::accept`].
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let accepted = self.session.accept(dir);
        if let Some(log) = &mut self.log {
            let result = match accepted {
                Some(id) => Outcome::Number(id.to_wire()),
                None => Outcome::Word("none".into()),
            };
            log.verb(&Event::Accept { stream_type: dir.into(), result });
            if let Some(id) = accepted {
                log.stream_is(id, "open");
            }
        }
        accepted
    }

    /// As [`Session::stream`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn stream(&mut self, id: StreamId) -> Result<RecordedStream<'_>, UnknownStream> {
        Ok(RecordedStream { stream: self.session.stream(id)?, log: self.log.as_deref_mut() })
    }

    /// As [`Session::release`].
    pub fn release(&mut self, id: StreamId, code: Code) {
        if let Some(log) = &mut self.log {
            log.verb(&Event::Release { stream_id: id.to_wire(), error_code: code.value() });
            log.stream_is(id, "closed");
        }
        self.session.release(id, code);
    }

    /// As [`Session::close`].
    pub fn close(&mut self, now: engine::Instant, code: Code, reason: &[u8]) {
        if let Some(log) = &mut self.log {
            let text = String::from_utf8_lossy(reason).into_owned();
            log.call(now, &Event::Close { error_code: code.value(), reason: text });
        }
        self.session.close(now, code, reason);
    }

    /// As [`Session::drain`].
    pub fn drain(&mut self, now: engine::Instant, deadline: Duration, back: Duration) {
        if let Some(log) = &mut self.log {
            let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            log.call(now, &Event::Drain { deadline: nanos(deadline), retry_after: nanos(back) });
        }
        self.session.drain(now, deadline, back);
    }

    /// As [`Session::poll_transmit`].
    pub fn poll_transmit(&mut self, now: engine::Instant, max: usize, out: &mut Vec<Bytes>) -> usize {
        let Some(log) = &mut self.log else { return self.session.poll_transmit(now, max, out) };
        if !self.session.wants_transmit() {
            return self.session.poll_transmit(now, max, out);
        }
        let before = out.len();
        let length = self.session.poll_transmit(now, max, out);
        log.call(now, &Event::Transmit { max: max as u64, length: length as u64 });
        log.send(now, &out[before..]);
        log.pause(&self.session);
        length
    }

    /// As [`Session::poll_event`].
    pub fn poll_event(&mut self) -> Option<engine::Event> {
        let event = self.session.poll_event()?;
        if let Some(log) = &mut self.log {
            log.news(&event);
            // A program that ends at once may never drop the session.
            if matches!(event, engine::Event::Closed(_)) {
                log.shape(&self.session, |shape| Event::Shape { shape });
            }
        }
        Some(event)
    }
}

impl RecordedStream<'_> {
    /// As [`engine::Stream::read`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read(&mut self, max: usize) -> Result<Option<Bytes>, engine::ReadError> {
        let result = self.stream.read(max);
        self.log(|stream_id| {
            let result = outcome(&result, |bytes| match bytes {
                Some(bytes) => Outcome::Number(bytes.len() as u64),
                None => Outcome::Word("end".into()),
            });
            Event::Read { stream_id, max: max as u64, copied: false, result }
        });
        result
    }

    /// As [`engine::Stream::read_to`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_to(&mut self, out: &mut [u8]) -> Result<usize, engine::ReadError> {
        let max = out.len() as u64;
        let result = self.stream.read_to(out);
        self.log(|stream_id| Event::Read { stream_id, max, copied: true, result: count(&result) });
        result
    }

    /// As [`engine::Stream::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, engine::WriteError> {
        let result = self.stream.write(data);
        let length = data.len() as u64;
        self.log(|stream_id| Event::Write { stream_id, length, copied: true, result: count(&result) });
        result
    }

    /// As [`engine::Stream::write_chunk`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_chunk(&mut self, data: &mut Bytes) -> Result<usize, engine::WriteError> {
        let length = data.len() as u64;
        let result = self.stream.write_chunk(data);
        self.log(|stream_id| Event::Write { stream_id, length, copied: false, result: count(&result) });
        result
    }

    /// As [`engine::Stream::finish`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn finish(&mut self) -> Result<(), engine::WriteError> {
        let result = self.stream.finish();
        self.log(|stream_id| Event::Finish { stream_id, result: word(&result) });
        result
    }

    /// As [`engine::Stream::reset`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reset(&mut self, code: Code) -> Result<(), engine::WriteError> {
        let result = self.stream.reset(code);
        self.log_reset(code, false, &result);
        result
    }

    /// As [`engine::Stream::reset_when_sent`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reset_when_sent(&mut self, code: Code) -> Result<(), engine::WriteError> {
        let result = self.stream.reset_when_sent(code);
        self.log_reset(code, true, &result);
        result
    }

    /// As [`engine::Stream::stop`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn stop(&mut self, code: Code) -> Result<(), engine::ReadError> {
        let result = self.stream.stop(code);
        self.log(|stream_id| Event::Stop { stream_id, error_code: code.value(), result: word(&result) });
        result
    }

    /// As [`engine::Stream::urgency`].
    pub fn urgency(&self) -> Urgency {
        self.stream.urgency()
    }

    /// As [`engine::Stream::set_urgency`].
    pub fn set_urgency(&mut self, urgency: Urgency) {
        self.stream.set_urgency(urgency);
        self.log(|stream_id| Event::Urgency { stream_id, urgency: format!("{urgency:?}") });
    }

    /// As [`engine::Stream::sending`].
    pub fn sending(&self) -> Sending {
        self.stream.sending()
    }

    /// As [`engine::Stream::acknowledged`].
    pub fn acknowledged(&self) -> u64 {
        self.stream.acknowledged()
    }

    fn log_reset(&mut self, code: Code, when_sent: bool, result: &Result<(), engine::WriteError>) {
        self.log(|stream_id| Event::Reset {
            stream_id,
            error_code: code.value(),
            when_sent,
            result: word(result),
        });
    }

    fn log(&mut self, event: impl FnOnce(u64) -> Event) {
        if let Some(log) = &mut self.log {
            log.verb(&event(self.stream.id().to_wire()));
        }
    }
}

impl Log {
    fn new(sink: Box<dyn Sink>, max_record_size: u64) -> Self {
        let max_record_size = max_record_size.max(engine::MIN_MAX_RECORD_SIZE);
        Self {
            sink,
            time: 0,
            calls: 0,
            epoch: None,
            max_record_size,
            received: None,
            sent: None,
            records_received: 0,
            records_sent: 0,
            records: Vec::new(),
        }
    }

    /// A call that is told the time.
    fn call(&mut self, now: engine::Instant, event: &Event) {
        self.calls += 1;
        self.write(now, event);
    }

    /// One that is not.
    fn verb(&mut self, event: &Event) {
        self.call(self.sink.now(), event);
    }

    fn write(&mut self, now: engine::Instant, event: &Event) {
        self.time = self.time.max(now.as_nanos());
        self.sink.write(Stamp { time: self.time, now: now.as_nanos() }, event);
    }

    /// Says something that follows from what was said before.
    fn add(&mut self, event: &Event) {
        self.sink.write(Stamp { time: self.time, now: self.time }, event);
    }

    fn take_pipe(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch.0);
        self.received = Some(Transcript::new(self.max_record_size));
        self.sent = Some(Transcript::new(u64::MAX));
    }

    fn receive(&mut self, now: engine::Instant, input: impl IntoIterator<Item = Bytes>) {
        for bytes in input {
            let Some(transcript) = &mut self.received else { return };
            let outcome = transcript.read(bytes, &mut self.records);
            self.tell_records(|epoch, log, record| {
                let packet = Packet::new(record, epoch, log.records_received);
                log.records_received += 1;
                log.tell_parameters("remote", &packet);
                log.add(&Event::PacketReceived(packet));
            });
            if let Err(violation) = outcome {
                self.received = None;
                let epoch = self.epoch.unwrap_or_default();
                self.write(now, &Event::Undecodable { epoch, why: violation.to_string() });
            }
        }
    }

    fn send(&mut self, now: engine::Instant, slices: &[Bytes]) {
        self.time = self.time.max(now.as_nanos());
        for bytes in slices {
            // A log must not be what ends a session, so what cannot be read here is left out from then on.
            if let Some(Err(_)) = self.sent.as_mut().map(|sent| sent.read(bytes.clone(), &mut self.records)) {
                self.sent = None;
            }
        }
        self.tell_records(|epoch, log, record| {
            let packet = Packet::new(record, epoch, log.records_sent);
            log.records_sent += 1;
            log.tell_parameters("local", &packet);
            log.add(&Event::PacketSent(packet));
        });
    }

    fn tell_records(&mut self, mut tell: impl FnMut(u64, &mut Self, &Record)) {
        let (epoch, mut records) = (self.epoch.unwrap_or_default(), std::mem::take(&mut self.records));
        for record in records.drain(..) {
            tell(epoch, self, &record);
        }
        self.records = records;
    }

    /// qlog has an event for what an end declares.
    fn tell_parameters(&mut self, owner: &str, packet: &Packet) {
        let declared = packet.frames.iter().find(|frame| frame.frame_type == "qx_transport_parameters");
        if let Some(frame) = declared {
            let mut fields = frame.fields.clone();
            fields.insert("owner".into(), owner.into());
            self.add(&Event::ParametersSet(fields));
        }
    }

    fn stream_is(&mut self, id: StreamId, state: &str) {
        let new = state.to_owned();
        self.add(&Event::StreamState { stream_id: id.to_wire(), stream_type: id.dir().into(), new });
    }

    fn news(&mut self, event: &engine::Event) {
        self.verb(&Event::News { event: format!("{event:?}") });
        match event {
            engine::Event::Attached(_) => self.add(&Event::ConnectionState { new: "active".into() }),
            engine::Event::Closed(why) => self.add(&Event::ConnectionClosed { trigger: why.to_string() }),
            _ => {}
        }
    }

    /// Says now and then how the session stands.
    fn pause(&mut self, session: &Session) {
        if self.calls >= SHAPE_EVERY {
            self.calls = 0;
            self.shape(session, |shape| Event::Shape { shape });
        }
    }

    fn shape(&mut self, session: &Session, event: impl FnOnce(String) -> Event) {
        self.time = self.time.max(self.sink.now().as_nanos());
        let shape = session.shape(engine::Instant::from_nanos(self.time));
        self.add(&event(format!("{shape:032x}")));
    }
}

impl From<Dir> for Direction {
    fn from(dir: Dir) -> Self {
        match dir {
            Dir::Bi => Self::Bidirectional,
            Dir::Uni => Self::Unidirectional,
        }
    }
}

/// What `acceptor` has read, and its bytes.
fn taken(acceptor: &Acceptor) -> (Taken, [Bytes; 2]) {
    let input = acceptor.input();
    let [before, last] = input.each_ref().map(|bytes| bytes.len() as u64);
    (Taken { before, last, declared: !acceptor.wants_transmit() }, input)
}

fn word<T, E: Debug>(result: &Result<T, E>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(why) => format!("{why:?}"),
    }
}

fn outcome<T, E: Debug>(result: &Result<T, E>, of: impl FnOnce(&T) -> Outcome) -> Outcome {
    match result {
        Ok(value) => of(value),
        Err(why) => Outcome::Word(format!("{why:?}")),
    }
}

fn count<E: Debug>(result: &Result<usize, E>) -> Outcome {
    outcome(result, |count| Outcome::Number(*count as u64))
}
