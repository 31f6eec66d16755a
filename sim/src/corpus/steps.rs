//! One end of a session as the fuzzers read it: `fuzz/bodies/src/setup.rs` and `step.rs` are the format.

use towline_engine::Side;
use towline_transports::qlog::{Direction, Ending, Event, Outcome};

use super::wire::Input;
use super::{MOST_BYTES, Session};

const GREATEST: u64 = 0xffff;

/// What an input begins with: a session on whose first pipe nothing was said (`again`: that has lost its first pipe, and has
/// another), with the limits that users have.
pub(super) fn setup(session: &Session, again: bool) -> Vec<u8> {
    const CLIENT: u8 = 1;
    const RESUMABLE: u8 = 2;
    const AGAIN: u8 = 3 << 2;
    const DEFAULT_LIMITS: u8 = 3;
    let flags = [(session.side == Side::Client, CLIENT), (session.resumable, RESUMABLE), (again, AGAIN)];
    vec![flags.iter().map(|&(is_set, bits)| if is_set { bits } else { 0 }).sum(), DEFAULT_LIMITS]
}

/// Bytes from the pipe, in pieces that a step holds.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(255) {
        out.extend([0, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
        out.extend_from_slice(piece);
    }
}

/// The pipe was lost.
pub(super) fn put_loss(failed: bool, out: &mut Vec<u8>) {
    out.extend([29 | flag(failed), 0]);
}

/// There is another one, so many epochs ahead.
pub(super) fn put_attach(ahead: u64, out: &mut Vec<u8>) {
    out.extend([30, u8::try_from(ahead).unwrap_or(u8::MAX)]);
}

/// `true` is the lack of the topmost bit.
const fn flag(is_so: bool) -> u8 {
    if is_so { 0 } else { 0x80 }
}

/// What happened to one end, as steps.
pub(super) struct Steps {
    out: Vec<u8>,
    /// The streams that the application has, as the fuzzer's application lists them.
    held: Vec<u64>,
    time: u64,
    has_heard: bool,
    is_full: bool,
}

impl Steps {
    pub(super) fn new(session: &Session) -> Self {
        let out = setup(session, false);
        Self { out, held: Vec::new(), time: 0, has_heard: false, is_full: false }
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The input.
    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// What happened next. `input` is what comes from pipes.
    pub(super) fn add(&mut self, time: u64, event: &Event, input: &mut Input) {
        let mut step = Vec::new();
        let millis = time.saturating_sub(self.time) / 1_000_000;
        if millis > 0 {
            self.time += millis * 1_000_000;
            step.push(26);
            step.extend(short(millis));
        }
        let waited = step.len();
        self.put(event, input, &mut step);
        // Time alone is no event.
        if step.len() == waited {
            return;
        }
        if self.out.len() + step.len() > MOST_BYTES {
            self.is_full = true;
            return;
        }
        self.has_heard = matches!(event, Event::News { .. });
        self.out.append(&mut step);
    }

    fn put(&mut self, event: &Event, input: &mut Input, out: &mut Vec<u8>) {
        match event {
            Event::Attach { epoch, .. } if *epoch > 0 => put_attach(1, out),
            Event::AttachAccepted { epoch, accepted, .. } => {
                put_bytes(&input.take(*epoch, accepted.before), out);
                put_bytes(&input.take(*epoch, accepted.last), out);
            }
            Event::Resume { epoch, accepted, result } if result == "ok" => {
                put_attach(1, out);
                put_bytes(&input.take(*epoch, accepted.before), out);
                put_bytes(&input.take(*epoch, accepted.last), out);
            }
            Event::Input { epoch, length, ignored: false } => put_bytes(&input.take(*epoch, *length), out),
            Event::PipeClosed { how, .. } => put_loss(*how == Ending::Failed, out),
            Event::Timeout {} => out.push(27),
            Event::CopyOut {} => out.push(21),
            Event::Transmit { max, .. } => {
                out.push(24);
                out.extend(short(*max));
            }
            Event::News { .. } if !self.has_heard => out.push(28),
            Event::Open { stream_type, result } => {
                out.push(8 | flag(*stream_type == Direction::Bidirectional));
                self.hold(result);
            }
            Event::Accept { stream_type, result } => {
                out.push(9 | flag(*stream_type == Direction::Bidirectional));
                self.hold(result);
            }
            Event::Close { error_code, reason } => {
                out.extend([22, low(*error_code)]);
                out.extend(short(reason.len() as u64));
            }
            other => self.put_of_stream(other, out),
        }
    }

    fn put_of_stream(&mut self, event: &Event, out: &mut Vec<u8>) {
        let place = |stream: u64| {
            let index = self.held.iter().position(|&held| held == stream);
            index.and_then(|index| u8::try_from(index).ok())
        };
        match event {
            Event::Read { stream_id, max, copied, .. } => {
                let Some(place) = place(*stream_id) else { return };
                out.extend([13 | flag(*copied), place]);
                out.extend(short(*max));
            }
            Event::Write { stream_id, length, copied, .. } => {
                let Some(place) = place(*stream_id) else { return };
                out.extend([11 | flag(*copied), place]);
                out.extend(short(*length));
            }
            Event::Finish { stream_id, .. } => {
                out.extend(place(*stream_id).into_iter().flat_map(|n| [15, n]));
            }
            Event::Reset { stream_id, error_code, when_sent, .. } => {
                let Some(place) = place(*stream_id) else { return };
                out.extend([16 | flag(*when_sent), place, low(*error_code)]);
            }
            Event::Stop { stream_id, error_code, .. } => {
                let Some(place) = place(*stream_id) else { return };
                out.extend([17, place, low(*error_code)]);
            }
            Event::Release { stream_id, .. } => {
                let Some(place) = place(*stream_id) else { return };
                out.extend([18, place]);
                self.held.swap_remove(place.into());
            }
            Event::Urgency { stream_id, urgency } => {
                let Some(place) = place(*stream_id) else { return };
                let urgency = ["Interactive", "Normal", "Bulk"].iter().position(|name| name == urgency);
                out.extend([19, place, u8::try_from(urgency.unwrap_or(1)).unwrap_or(1)]);
            }
            _ => {}
        }
    }

    fn hold(&mut self, result: &Outcome) {
        if let Outcome::Number(id) = result {
            self.held.push(*id);
        }
    }
}

fn short(value: u64) -> [u8; 2] {
    u16::try_from(value.min(GREATEST)).unwrap_or(u16::MAX).to_le_bytes()
}

const fn low(value: u64) -> u8 {
    value.to_le_bytes()[0]
}
