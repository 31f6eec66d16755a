//! Writes a session's log: the calls, and what follows from the bytes that pass.
//!
//! In: calls with their times, and what the pipe gave and was given. Out: events to a [`Sink`], in the order of time. Keeps:
//! how far the bytes of the present pipe were read, each way.

use bytes::Bytes;
use towline_engine as engine;
use towline_engine::{Epoch, Record, Session, StreamId, Transcript};

use super::event::{Event, Packet, Stamp};
use super::sink::Sink;

/// After how many calls the log says again how the session stands.
const SHAPE_EVERY: u64 = 256;

/// The log of one session.
#[derive(Debug)]
pub(super) struct Log {
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

impl Log {
    pub(super) fn new(sink: Box<dyn Sink>, max_record_size: u64) -> Self {
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
    pub(super) fn call(&mut self, now: engine::Instant, event: &Event) {
        self.calls += 1;
        self.write(now, event);
    }

    /// One that is not.
    pub(super) fn verb(&mut self, event: &Event) {
        self.call(self.sink.now(), event);
    }

    fn write(&mut self, now: engine::Instant, event: &Event) {
        self.time = self.time.max(now.as_nanos());
        self.sink.write(Stamp { time: self.time, now: now.as_nanos() }, event);
    }

    /// Says something that follows from what was said before.
    pub(super) fn add(&mut self, event: &Event) {
        self.sink.write(Stamp { time: self.time, now: self.time }, event);
    }

    pub(super) fn take_pipe(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch.0);
        self.received = Some(Transcript::new(self.max_record_size));
        self.sent = Some(Transcript::new(u64::MAX));
    }

    /// Whether that is the present pipe.
    pub(super) fn is_on(&self, epoch: Epoch) -> bool {
        self.epoch == Some(epoch.0)
    }

    pub(super) fn receive(&mut self, now: engine::Instant, input: impl IntoIterator<Item = Bytes>) {
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

    pub(super) fn send(&mut self, now: engine::Instant, slices: &[Bytes]) {
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

    pub(super) fn stream_is(&mut self, id: StreamId, state: &str) {
        let new = state.to_owned();
        self.add(&Event::StreamState { stream_id: id.to_wire(), stream_type: id.dir().into(), new });
    }

    pub(super) fn news(&mut self, event: &engine::Event) {
        self.verb(&Event::News { event: format!("{event:?}") });
        match event {
            engine::Event::Attached(_) => self.add(&Event::ConnectionState { new: "active".into() }),
            engine::Event::Closed(why) => self.add(&Event::ConnectionClosed { trigger: why.to_string() }),
            _ => {}
        }
    }

    /// Says now and then how the session stands.
    pub(super) fn pause(&mut self, session: &Session) {
        if self.calls >= SHAPE_EVERY {
            self.calls = 0;
            self.shape(session, |shape| Event::Shape { shape });
        }
    }

    pub(super) fn shape(&mut self, session: &Session, event: impl FnOnce(String) -> Event) {
        self.time = self.time.max(self.sink.now().as_nanos());
        let shape = session.shape(engine::Instant::from_nanos(self.time));
        self.add(&event(format!("{shape:032x}")));
    }
}
