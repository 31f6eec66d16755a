//! A session whose calls are written down, if anybody wants that.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use towline_engine as engine;
use towline_engine::{
    Acceptor, AttachError, Code, Config, Dir, Epoch, OpenError, PipeClosed, Refused, Secret, Sending,
    Session, Side, StreamId, UnknownStream, Urgency,
};

use super::event::{Ending, Event, Head, Outcome, Taken};
use super::log::Log;
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
        let ignored = self.session.is_closed() || self.session.is_detached() || !log.is_on(epoch);
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
