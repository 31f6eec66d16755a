//! Somebody who stands beside both ends of a session, and sees what goes out and what arrives.
//!
//! In: records, when they are handed to a pipe and when they come out of it. Out: what of it was said before, and what was
//! answered. Keeps: how far each half of a stream has arrived, and how it ended there first.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use towline_engine::{Epoch, StreamId};
use towline_model::wire::{Said, frames};

/// What is known of a session's pipes. Sides are 0 at the service, 1 at the device.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    sides: [Seen; 2],
}

/// What one end has said.
#[derive(Clone, Debug, Default)]
struct Seen {
    epoch: Epoch,
    halves: BTreeMap<StreamId, Half>,
    limits: BTreeMap<StreamId, Limit>,
    /// The last ping on this pipe that was not answered: its number, and when it went out, by this end's clock.
    ping: Option<(u64, u64)>,
    /// How many records with payload have gone out since the peer asked for an answer that has not.
    owes_pong_for: Option<u64>,
    /// Of each stream that was reset and whose reset has not gone out on this pipe: how many records with payload have.
    owes_reset_for: BTreeMap<StreamId, u64>,
    /// The last records on this pipe, and on the one before.
    recent: [Vec<(Epoch, Bytes)>; 2],
    /// What each pipe but the first began with.
    resumes: Vec<Bytes>,
}

/// How far one direction of a stream is, at the end that it goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Half {
    /// How far it was sent, on any pipe.
    pub(super) sent: u64,
    /// How far it has arrived.
    pub(super) arrived: u64,
    /// How it ended where it arrived, as far as it has.
    pub(super) ended: Option<Ended>,
    /// How far the end that sends has heard that it has arrived; one more with its end (PROTOCOL §6.2).
    pub(super) acknowledged: u64,
}

/// How a half ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Fin,
    Reset,
}

/// How far an end takes a stream.
#[derive(Clone, Copy, Debug)]
struct Limit {
    limit: u64,
    announced: u64,
}

/// A limit of a stream that was raised by a frame of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    pub(super) id: StreamId,
    /// From where, which is nowhere for the first one on a stream.
    pub(super) from: Option<u64>,
    pub(super) to: u64,
    /// How long after the one before.
    pub(super) after: u64,
}

/// What a record that goes out says.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    /// Payload that went out before, as a part of the record: the stream, and the offset.
    pub(super) repeats: Vec<(StreamId, u64, Range<usize>)>,
    pub(super) raised: Vec<Raised>,
    /// How many records with payload went out while an answer was owed, this one included.
    pub(super) before_pong: Option<u64>,
    /// As many as went out while a reset was owed, of that of which it is most.
    pub(super) before_reset: Option<u64>,
}

/// What a record that arrives says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// It answers the last ping: how long ago that went out.
    pub(super) round_trip: Option<u64>,
}

/// How many records of a pipe are kept, for them to arrive late.
const KEPT: usize = 4;

impl Watch {
    pub(super) fn new() -> Self {
        Self { sides: Default::default() }
    }

    /// How far the half of `id` is that `side` writes.
    pub(super) fn half(&self, side: usize, id: StreamId) -> Half {
        self.sides[side].halves.get(&id).copied().unwrap_or_default()
    }

    /// What `side` has said last on pipes before `epoch`.
    pub(super) fn older(&self, side: usize, epoch: Epoch) -> Vec<(Epoch, Bytes)> {
        let recent = self.sides[side].recent.iter().flatten();
        recent.filter(|(of, _)| *of < epoch).cloned().collect()
    }

    /// What the later pipes of the service began with.
    pub(super) fn resumes(&self) -> &[Bytes] {
        &self.sides[0].resumes
    }

    /// An application at `side` has reset its half of a stream.
    pub(super) fn on_reset(&mut self, side: usize, id: StreamId) {
        self.sides[side].owes_reset_for.insert(id, 0);
    }

    /// `side` hands a record to the pipe with number `epoch`, at `clock`.
    pub(super) fn on_sent(&mut self, side: usize, epoch: Epoch, record: &Bytes, clock: u64) -> Sent {
        let seen = &mut self.sides[side];
        seen.begin(epoch, record);
        let mut sent = Sent::default();
        let (mut has_payload, mut has_pong) = (false, false);
        let mut resets = Vec::new();
        for frame in frames(record) {
            match frame.what {
                Said::Stream { id, offset, length, .. } => {
                    let half = seen.halves.entry(id).or_default();
                    let again = half.sent.saturating_sub(offset).min(length);
                    if again > 0 {
                        let end = frame.payload + usize::try_from(again).expect("it is in memory");
                        sent.repeats.push((id, offset, frame.payload..end));
                    }
                    half.sent = half.sent.max(offset + length);
                    has_payload |= length > 0;
                }
                Said::MaxStreamData(id, to) => {
                    let before = seen.limits.insert(id, Limit { limit: to, announced: clock });
                    let after = before.map_or(u64::MAX, |before| clock.saturating_sub(before.announced));
                    sent.raised.push(Raised { id, from: before.map(|before| before.limit), to, after });
                }
                Said::Ping(number) => seen.ping = Some((number, clock)),
                Said::Pong(_) => has_pong = true,
                Said::Reset { id, .. } => resets.push(id),
                _ => {}
            }
        }
        for (id, count) in &mut seen.owes_reset_for {
            *count += u64::from(has_payload && !resets.contains(id));
            sent.before_reset = sent.before_reset.max(Some(*count));
        }
        resets.iter().for_each(|id| _ = seen.owes_reset_for.remove(id));
        if let Some(count) = &mut seen.owes_pong_for {
            *count += u64::from(has_payload && !has_pong);
            sent.before_pong = Some(*count);
        }
        if has_pong {
            seen.owes_pong_for = None;
        }
        sent
    }

    /// A record that the other end has sent comes to `side`, on the pipe that this end is on, at `clock`.
    pub(super) fn on_arrived(&mut self, side: usize, record: &[u8], clock: u64) -> Arrived {
        let mut arrived = Arrived::default();
        for frame in frames(record) {
            match frame.what {
                Said::Stream { id, offset, length, fin } => {
                    let half = self.sides[1 - side].halves.entry(id).or_default();
                    half.arrived = half.arrived.max(offset + length);
                    if fin {
                        half.ended.get_or_insert(Ended::Fin);
                    }
                }
                Said::Reset { id, .. } => {
                    let half = self.sides[1 - side].halves.entry(id).or_default();
                    half.ended.get_or_insert(Ended::Reset);
                }
                Said::Ack { id, received } | Said::StreamState { id, received, .. } => {
                    let half = self.sides[side].halves.entry(id).or_default();
                    half.acknowledged = half.acknowledged.max(received);
                }
                Said::Ping(_) => _ = self.sides[side].owes_pong_for.get_or_insert(0),
                Said::Pong(number) => {
                    let last = self.sides[side].ping.take_if(|(last, _)| *last == number);
                    arrived.round_trip = last.map(|(_, at)| clock.saturating_sub(at)).or(arrived.round_trip);
                }
                _ => {}
            }
        }
        arrived
    }
}

impl Seen {
    fn begin(&mut self, epoch: Epoch, record: &Bytes) {
        if epoch > self.epoch {
            self.epoch = epoch;
            (self.ping, self.owes_pong_for) = (None, None);
            // What was owed when the pipe was lost comes with the state of all streams.
            self.owes_reset_for.clear();
            self.recent.rotate_left(1);
            self.recent[1].clear();
            self.resumes.push(record.clone());
        }
        let recent = &mut self.recent[1];
        if recent.len() == KEPT {
            recent.remove(0);
        }
        recent.push((epoch, record.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> StreamId {
        StreamId::from_wire(index * 4).expect("it is small")
    }

    /// STREAM frames of the first stream: three bytes at 0; the last of them again and two more, with the end.
    const FIRST: &[u8] = &[6, 0x0a, 0x00, 0x03, b'a', b'b', b'c'];
    const AGAIN: &[u8] = &[7, 0x0f, 0x00, 0x02, 0x03, b'c', b'd', b'e'];
    const RESET: &[u8] = &[4, 0x04, 0x00, 0x07, 0x05];

    #[test]
    fn what_is_said_again_is_told_apart_from_what_is_new() {
        let mut watch = Watch::new();
        assert!(watch.on_sent(0, Epoch(0), &Bytes::from_static(FIRST), 0).repeats.is_empty());
        let sent = watch.on_sent(0, Epoch(1), &Bytes::from_static(AGAIN), 0);
        assert_eq!(sent.repeats, [(id(0), 2, 5..6)]);
        assert_eq!(&AGAIN[5..6], b"c");
        assert_eq!(watch.older(0, Epoch(1)), [(Epoch(0), Bytes::from_static(FIRST))]);
        assert_eq!(watch.resumes(), [Bytes::from_static(AGAIN)]);
    }

    #[test]
    fn the_end_that_arrives_first_counts() {
        let mut watch = Watch::new();
        for record in [FIRST, AGAIN, RESET] {
            watch.on_arrived(1, record, 0);
        }
        let half = watch.half(0, id(0));
        assert_eq!((half.arrived, half.ended), (5, Some(Ended::Fin)));
        assert_eq!(watch.half(1, id(0)), Half::default(), "the other direction has not begun");
    }

    /// QX_PING and QX_PONG with the number 3.
    const PING: &[u8] = &[9, 0xf4, 0x8c, 0x67, 0x52, 0x9e, 0xf8, 0xc7, 0xbd, 0x03];
    const PONG: &[u8] = &[9, 0xf4, 0x8c, 0x67, 0x52, 0x9e, 0xf8, 0xc7, 0xbe, 0x03];

    #[test]
    fn a_round_trip_begins_when_the_ping_goes_out() {
        let mut watch = Watch::new();
        watch.on_sent(0, Epoch(0), &Bytes::from_static(PING), 10);
        assert_eq!(watch.on_arrived(0, PONG, 35).round_trip, Some(25));
        assert_eq!(watch.on_arrived(0, PONG, 36).round_trip, None, "it was answered");
        watch.on_sent(0, Epoch(0), &Bytes::from_static(PING), 40);
        watch.on_sent(0, Epoch(1), &Bytes::from_static(FIRST), 50);
        assert_eq!(watch.on_arrived(0, PONG, 60).round_trip, None, "that was another pipe");
    }

    #[test]
    fn payload_that_goes_out_before_an_answer_is_counted() {
        let mut watch = Watch::new();
        watch.on_arrived(1, PING, 0);
        let counts = [FIRST, AGAIN, PONG, FIRST]
            .map(|record| watch.on_sent(1, Epoch(0), &Bytes::from_static(record), 0).before_pong);
        assert_eq!(counts, [Some(1), Some(2), Some(2), None]);
    }

    #[test]
    fn payload_that_goes_out_before_a_reset_is_counted() {
        let mut watch = Watch::new();
        watch.on_reset(1, id(0));
        let counts = [FIRST, AGAIN, RESET, FIRST]
            .map(|record| watch.on_sent(1, Epoch(0), &Bytes::from_static(record), 0).before_reset);
        assert_eq!(counts, [Some(1), Some(2), Some(2), None]);
    }

    #[test]
    fn limits_are_told_with_what_they_were_before() {
        let mut watch = Watch::new();
        let mut raise = |limit, clock| {
            let record = Bytes::copy_from_slice(&[3, 0x11, 0x00, limit]);
            watch.on_sent(1, Epoch(0), &record, clock).raised[0]
        };
        assert_eq!(raise(9, 5), Raised { id: id(0), from: None, to: 9, after: u64::MAX });
        assert_eq!(raise(20, 7), Raised { id: id(0), from: Some(9), to: 20, after: 2 });
    }
}
