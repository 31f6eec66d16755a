//! Somebody on the wire, who knows the rules and neither end.
//!
//! In: the records of one end, as they are handed to the pipe. Keeps: what that end has promised and what it has sent,
//! over all pipes.

use towline_engine::{Dir, Epoch, Side, StreamId};

use crate::wire::{Limits, Said, frames};

/// What one end has said.
#[derive(Clone, Debug)]
pub struct Observer {
    side: Side,
    /// What it has declared first.
    first: Option<Limits>,
    /// How many bytes it takes in all.
    data: u64,
    /// How many streams it takes, by direction.
    counts: [u64; 2],
    /// How many bytes it has sent in all.
    sent: u64,
    epoch: Epoch,
    streams: Vec<Stream>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    id: StreamId,
    /// How far the end takes it.
    limit: u64,
    /// How far the end has sent it, on any pipe.
    high: u64,
    /// The least that may come next on this pipe.
    next: u64,
}

impl Observer {
    /// Watches the end on `side`.
    pub fn new(side: Side) -> Self {
        Self { side, first: None, data: 0, counts: [0; 2], sent: 0, epoch: Epoch(0), streams: Vec::new() }
    }

    /// The end has said this to the pipe with number `epoch`; what `peer` has promised binds it.
    ///
    /// # Panics
    ///
    /// If it breaks a rule.
    pub fn on_record(&mut self, epoch: Epoch, record: &[u8], peer: &Self) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.streams.iter_mut().for_each(|stream| stream.next = 0);
        }
        for frame in frames(record) {
            match frame.what {
                Said::Parameters(limits) => self.on_parameters(limits),
                Said::MaxData(limit) => self.on_max_data(limit),
                Said::MaxStreams(dir, limit) => self.on_max_streams(dir, limit),
                Said::SessionState { data, bidi, uni } => {
                    self.on_max_data(data);
                    self.on_max_streams(Dir::Bi, bidi);
                    self.on_max_streams(Dir::Uni, uni);
                }
                Said::MaxStreamData(id, limit) | Said::StreamState { id, limit, .. } => {
                    let stream = self.stream(id);
                    assert!(limit >= stream.limit, "limits_monotone: {id:?}, {limit} after {}", stream.limit);
                    stream.limit = limit;
                }
                Said::Stream { id, offset, length, .. } => {
                    let is_present = epoch == self.epoch;
                    let stream = self.stream(id);
                    // On a later pipe the peer's state may let the end leave out what the peer has.
                    let follows = (stream.next..=stream.high).contains(&offset);
                    assert!(follows || !is_present, "gapless: {id:?} at {offset}, {stream:?}");
                    if is_present {
                        stream.next = offset + length;
                    }
                    self.on_sent(id, offset + length, peer);
                }
                Said::Reset { id, final_size } => {
                    let high = self.stream(id).high;
                    assert_eq!(final_size, high, "the final size of {id:?} is what was sent");
                    self.on_sent(id, final_size, peer);
                }
                Said::Ack { .. } | Said::Resume | Said::Other => {}
            }
        }
    }

    fn on_parameters(&mut self, limits: Limits) {
        if self.first.is_none() {
            (self.data, self.counts) = (limits.data, [limits.bidi, limits.uni]);
            self.first = Some(limits);
        }
    }

    fn on_max_data(&mut self, limit: u64) {
        assert!(limit >= self.data, "limits_monotone: MAX_DATA {limit} after {}", self.data);
        self.data = limit;
    }

    fn on_max_streams(&mut self, dir: Dir, limit: u64) {
        let count = &mut self.counts[usize::from(dir == Dir::Uni)];
        assert!(limit >= *count, "limits_monotone: MAX_STREAMS {limit} after {count}");
        *count = limit;
    }

    fn on_sent(&mut self, id: StreamId, end: u64, peer: &Self) {
        let limit = peer.limit_of(id);
        assert!(end <= limit, "never_over_limit: {id:?} up to {end} of {limit}");
        let stream = self.stream(id);
        let new = end.saturating_sub(stream.high);
        stream.high += new;
        self.sent += new;
        assert!(self.sent <= peer.data, "never_over_limit: {} of {} bytes", self.sent, peer.data);
        let count = peer.counts[usize::from(id.dir() == Dir::Uni)];
        assert!(id.opener() != self.side || id.index() < count, "never_over_limit: {id:?} of {count}");
    }

    /// How far the end takes `id`.
    fn limit_of(&self, id: StreamId) -> u64 {
        let Some(first) = self.first else { return 0 };
        let initially = match (id.dir(), id.opener() == self.side) {
            (Dir::Uni, _) => first.stream_uni,
            (Dir::Bi, true) => first.stream_bidi_local,
            (Dir::Bi, false) => first.stream_bidi_remote,
        };
        let said = self.streams.iter().find(|stream| stream.id == id).map_or(0, |stream| stream.limit);
        initially.max(said)
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        let place = self.streams.iter().position(|stream| stream.id == id).unwrap_or_else(|| {
            self.streams.push(Stream { id, limit: 0, high: 0, next: 0 });
            self.streams.len() - 1
        });
        &mut self.streams[place]
    }
}
