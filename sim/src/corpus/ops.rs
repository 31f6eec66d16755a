//! Both ends of a session as the fuzzer with the model reads them: `sim/model/src/op.rs` and `fuzz/bodies/src/targets/pair_ops.rs`
//! are the format.

use towline_engine::Side;
use towline_model::op::kind::{
    ACCEPT, CLOSE, COPY_OUT, CUT, DELIVER, FINISH, OPEN, RARE, READ, RECONNECT, RELEASE, RESET,
    RESET_WHEN_SENT, STOP, TRANSMIT, URGENCY, WAIT, WRITE,
};
use towline_transports::qlog::{Direction, Event, Outcome};

use super::{MOST_BYTES, Session};

/// The largest windows that the first byte can choose: scenarios expect to be let through.
const LARGE: u8 = 0b11_1111 << 1;

/// The most of an amount that one operation says.
const MOST_WRITTEN: u64 = 599;
const MOST_READ: u64 = 600;
const MOST_DELIVERED: u64 = 2_000;
const LEAST_RECORD: u64 = 300;
const MOST_RECORD: u64 = 2_299;

/// How often one that says less than the call did is repeated.
const MOST_TIMES: u64 = 8;

/// What happened to a session, as operations.
pub(super) struct Ops {
    out: Vec<u8>,
    /// The streams that the applications have: the client's, the server's.
    held: [Vec<u64>; 2],
    time: u64,
    epoch: u64,
    is_cut: bool,
}

impl Ops {
    pub(super) fn new(resumable: bool) -> Self {
        let out = vec![LARGE | u8::from(resumable)];
        Self { out, held: Default::default(), time: 0, epoch: 0, is_cut: false }
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() + 5 > MOST_BYTES
    }

    /// The input.
    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// What happened next, at an end.
    pub(super) fn add(&mut self, session: &Session, time: u64, event: &Event) {
        let place = u8::from(session.side == Side::Server);
        let of = |direction: &Direction| place | u8::from(*direction == Direction::Unidirectional) << 1;
        let millis = time.saturating_sub(self.time) / 1_000_000;
        if millis > 0 {
            self.time += millis * 1_000_000;
            self.put(WAIT, 0, 0, millis.min(255));
        }
        match event {
            Event::Attach { epoch, .. } if *epoch > self.epoch => {
                (self.epoch, self.is_cut) = (*epoch, false);
                self.put(RECONNECT, 0, 0, 0);
            }
            Event::PipeClosed { .. } if !self.is_cut => {
                self.is_cut = true;
                self.put(CUT, 0, 0, 0);
            }
            Event::AttachAccepted { accepted, .. } => {
                self.repeat(DELIVER, 1 - place, 0, accepted.before + accepted.last, MOST_DELIVERED);
            }
            Event::Resume { accepted, .. } => {
                self.repeat(DELIVER, 1 - place, 0, accepted.before + accepted.last, MOST_DELIVERED);
            }
            // Whoever hears, the other one is whose bytes are delivered.
            Event::Input { length, .. } => self.repeat(DELIVER, 1 - place, 0, *length, MOST_DELIVERED),
            Event::CopyOut {} => self.put(COPY_OUT, place, 0, 0),
            Event::Transmit { max, .. } => {
                self.put(TRANSMIT, place, 0, (*max).clamp(LEAST_RECORD, MOST_RECORD) - LEAST_RECORD);
            }
            Event::Open { stream_type, result } => {
                self.put(OPEN, of(stream_type), 0, 0);
                self.hold(session, result);
            }
            Event::Accept { stream_type, result } => {
                self.put(ACCEPT, of(stream_type), 0, 0);
                self.hold(session, result);
            }
            Event::Close { .. } => self.put(RARE, place, 0, CLOSE.into()),
            other => self.put_of_stream(session, place, other),
        }
    }

    fn put_of_stream(&mut self, session: &Session, place: u8, event: &Event) {
        let held = &self.held[usize::from(session.side == Side::Server)];
        let stream = |id: &u64| {
            let index = held.iter().position(|held| held == id);
            index.and_then(|index| u8::try_from(index).ok())
        };
        let (kind, stream, amount) = match event {
            Event::Read { stream_id, max, .. } => {
                let Some(stream) = stream(stream_id) else { return };
                return self.repeat(READ, place, stream, *max, MOST_READ);
            }
            Event::Write { stream_id, length, .. } => {
                let Some(stream) = stream(stream_id) else { return };
                // This amount counts from 0.
                return self.repeat(WRITE, place, stream, *length + 1, MOST_WRITTEN + 1);
            }
            Event::Finish { stream_id, .. } => (FINISH, stream(stream_id), 0),
            Event::Reset { stream_id, error_code, when_sent, .. } => {
                (if *when_sent { RESET_WHEN_SENT } else { RESET }, stream(stream_id), error_code % 256)
            }
            Event::Stop { stream_id, error_code, .. } => (STOP, stream(stream_id), error_code % 256),
            Event::Release { stream_id, .. } => (RELEASE, stream(stream_id), 0),
            Event::Urgency { stream_id, urgency } => (
                URGENCY,
                stream(stream_id),
                u64::from(urgency != "Interactive") + u64::from(urgency == "Bulk"),
            ),
            _ => return,
        };
        let Some(stream) = stream else { return };
        self.put(kind, place, stream, amount);
        if let Event::Release { stream_id, .. } = event {
            self.held[usize::from(session.side == Side::Server)].retain(|held| held != stream_id);
        }
    }

    /// An operation on `amount` things, of which one says at most `most`, and counts from 1.
    fn repeat(&mut self, kind: u8, place: u8, stream: u8, amount: u64, most: u64) {
        let (mut left, mut times) = (amount, 0);
        while left > 0 && times < MOST_TIMES {
            let part = left.min(most);
            self.put(kind, place, stream, part - 1);
            (left, times) = (left - part, times + 1);
        }
    }

    fn put(&mut self, kind: u8, place: u8, stream: u8, amount: u64) {
        if !self.is_full() {
            let [high, low] = u16::try_from(amount).unwrap_or(u16::MAX).to_be_bytes();
            self.out.extend([kind, place, stream, high, low]);
        }
    }

    fn hold(&mut self, session: &Session, result: &Outcome) {
        if let Outcome::Number(id) = result {
            self.held[usize::from(session.side == Side::Server)].push(*id);
        }
    }
}
