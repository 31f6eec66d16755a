//! What came from a session's pipes, with the name and the secret that the fuzzers know.

use std::collections::{BTreeMap, VecDeque};

use towline_engine::{Secret, SessionId, Side, StreamId, Transcript};
use towline_model::ID;
use towline_transports::qlog::{Event, Frame, Packet};

/// The bytes of each pipe, as far as they were not used yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    pipes: BTreeMap<u64, VecDeque<u8>>,
}

/// The secret that the fuzzers know, as bytes: `towline_model::SECRET`.
const SECRET: [u8; Secret::LEN] = [0x5e; Secret::LEN];

impl Input {
    /// Of the records that a session has received.
    pub(super) fn new<'a>(events: impl Iterator<Item = &'a Event>) -> Self {
        let mut input = Self::default();
        for event in events {
            if let Event::PacketReceived(packet) = event {
                let pipe = input.pipes.entry(packet.header.epoch).or_default();
                pipe.extend(bytes_of(packet));
            }
        }
        input
    }

    /// The next bytes of a pipe, as many of them as there are.
    pub(super) fn take(&mut self, epoch: u64, length: u64) -> Vec<u8> {
        let pipe = self.pipes.entry(epoch).or_default();
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(pipe.len());
        pipe.drain(..length).collect()
    }

    /// All pipes but the first with all that came from them.
    pub(super) fn later_pipes(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.pipes.range(1..).map(|(epoch, bytes)| (*epoch, bytes.iter().copied().collect()))
    }
}

/// A record, with zeros as payload.
pub(super) fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.bytes().expect("it was just made");
    know(&mut bytes);
    bytes
}

/// What of a record makes sense to a session on this side that only listens: no answer to a ping that it never sent, and
/// nothing of streams that it would have had to open.
pub(super) fn heard_alone(side: Side, packet: &Packet) -> Vec<u8> {
    let is_of_ours = |frame: &Frame| {
        let stream = frame.fields.get("stream_id").and_then(serde_json::Value::as_u64);
        stream.and_then(StreamId::from_wire).is_some_and(|id| id.opener() == side)
    };
    let (mut frames, bytes) = (Vec::new(), bytes_of(packet));
    let mut at = packet.raw.data.len() / 2;
    for frame in &packet.frames {
        let end = at + usize::try_from(frame.raw.length).expect("it is in memory");
        let is_answer = matches!(frame.frame_type.as_str(), "qx_pong" | "stream_ack");
        if !is_answer && !is_of_ours(frame) {
            frames.extend_from_slice(&bytes[at..end]);
        }
        at = end;
    }
    if frames.is_empty() {
        return frames;
    }
    // In four bytes, as RFC 9000 §16 has it, whatever is enough.
    let size = u32::try_from(frames.len()).expect("a record is short") | 2 << 30;
    [&size.to_be_bytes(), &frames[..]].concat()
}

/// The body of a frame of parameters, if the record begins with one.
pub(super) fn parameters_of(packet: &Packet) -> Option<Vec<u8>> {
    let first = packet.frames.first().filter(|frame| frame.frame_type == "qx_transport_parameters")?;
    let record = bytes_of(packet);
    let end = usize::try_from(first.raw.length).ok()? + packet.raw.data.len() / 2;
    let frame = record.get(packet.raw.data.len() / 2..end)?;
    // The frame's type has eight bytes, and the body's length one or two.
    let length = 1 << (frame.get(8)? >> 6);
    Some(frame.get(8 + length..)?.to_vec())
}

/// Puts in the name and the secret that the fuzzers know.
fn know(bytes: &mut [u8]) {
    const LEN: usize = SessionId::LEN + Secret::LEN;
    let stand_in = [Transcript::STAND_IN; LEN];
    while let Some(at) = bytes.windows(LEN).position(|place| place == stand_in) {
        bytes[at..at + SessionId::LEN].copy_from_slice(&ID.0);
        bytes[at + SessionId::LEN..at + LEN].copy_from_slice(&SECRET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_the_one_that_the_fuzzers_know() {
        assert_eq!(Secret::new(SECRET), towline_model::SECRET);
    }
}
