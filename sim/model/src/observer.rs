//! Somebody on the wire, who knows the rules and neither end.
//!
//! In: the records of one end, as they are handed to the pipe. Out: how often each rule was looked at, or a panic with its
//! name. Keeps: what that end has promised and what it has sent, over all pipes.

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
    looks: Looks,
}

/// How often an observer has looked at each of its rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the rules")]
pub struct Looks {
    pub gapless: u64,
    pub never_over_limit: u64,
    pub limits_monotone: u64,
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
        Self {
            side,
            first: None,
            data: 0,
            counts: [0; 2],
            sent: 0,
            epoch: Epoch(0),
            streams: Vec::new(),
            looks: Looks::default(),
        }
    }

    /// How often it has looked at each rule so far.
    pub fn looks(&self) -> Looks {
        self.looks
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
                    self.on_max_stream_data(id, limit);
                }
                Said::Stream { id, offset, length, .. } => self.on_stream(epoch, id, offset, length, peer),
                Said::Reset { id, final_size } => {
                    let high = self.stream(id).high;
                    assert_eq!(final_size, high, "the final size of {id:?} is what was sent");
                    self.on_sent(id, final_size, peer);
                }
                Said::Ack { .. }
                | Said::Resume
                | Said::Ping(_)
                | Said::Pong(_)
                | Said::Drain
                | Said::Other => {}
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
        self.looks.limits_monotone += 1;
        assert!(limit >= self.data, "limits_monotone: MAX_DATA {limit} after {}", self.data);
        self.data = limit;
    }

    fn on_max_streams(&mut self, dir: Dir, limit: u64) {
        self.looks.limits_monotone += 1;
        let count = &mut self.counts[usize::from(dir == Dir::Uni)];
        assert!(limit >= *count, "limits_monotone: MAX_STREAMS {limit} after {count}");
        *count = limit;
    }

    fn on_max_stream_data(&mut self, id: StreamId, limit: u64) {
        self.looks.limits_monotone += 1;
        let stream = self.stream(id);
        assert!(limit >= stream.limit, "limits_monotone: {id:?}, {limit} after {}", stream.limit);
        stream.limit = limit;
    }

    fn on_stream(&mut self, epoch: Epoch, id: StreamId, offset: u64, length: u64, peer: &Self) {
        // What an older pipe still takes binds nobody.
        if epoch == self.epoch {
            self.looks.gapless += 1;
            let stream = self.stream(id);
            // On a later pipe the peer's state may let the end leave out what the peer has.
            let follows = (stream.next..=stream.high).contains(&offset);
            assert!(follows, "gapless: {id:?} at {offset}, {stream:?}");
            stream.next = offset + length;
        }
        self.on_sent(id, offset + length, peer);
    }

    fn on_sent(&mut self, id: StreamId, end: u64, peer: &Self) {
        self.looks.never_over_limit += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that may send five bytes on its first stream, and twelve in all; and the server that lets it.
    fn pair() -> [Observer; 2] {
        let [mut client, mut server] = [Side::Client, Side::Server].map(Observer::new);
        server.on_parameters(Limits { data: 12, stream_bidi_remote: 5, bidi: 2, ..Limits::default() });
        client.on_parameters(Limits::default());
        [client, server]
    }

    /// Says these records, each with its epoch, as the client, and returns what was looked at.
    fn client_says(records: &[(u64, &[u8])]) -> Looks {
        let [mut client, server] = pair();
        records.iter().for_each(|(epoch, record)| client.on_record(Epoch(*epoch), record, &server));
        client.looks()
    }

    /// STREAM frames of the first stream: at 0 and at 3, with a length.
    const FIRST: &[u8] = &[6, 0x0a, 0x00, 0x03, b'a', b'b', b'c'];
    const NEXT: &[u8] = &[6, 0x0e, 0x00, 0x03, 0x02, b'd', b'e'];

    #[test]
    fn what_is_lawful_is_looked_at_rule_by_rule() {
        let looks = client_says(&[(0, FIRST), (0, NEXT), (1, NEXT), (1, &[2, 0x10, 0x00])]);
        assert_eq!(looks, Looks { gapless: 3, never_over_limit: 3, limits_monotone: 1 });
    }

    #[test]
    #[should_panic(expected = "gapless: ")]
    fn a_gap_is_seen() {
        client_says(&[(0, NEXT)]);
    }

    #[test]
    #[should_panic(expected = "gapless: ")]
    fn what_is_said_again_on_the_same_pipe_is_seen() {
        client_says(&[(0, FIRST), (0, FIRST)]);
    }

    #[test]
    #[should_panic(expected = "never_over_limit: ")]
    fn a_byte_too_many_is_seen() {
        client_says(&[(0, FIRST), (0, &[7, 0x0e, 0x00, 0x03, 0x03, b'd', b'e', b'f'])]);
    }

    #[test]
    #[should_panic(expected = "never_over_limit: ")]
    fn a_stream_too_many_is_seen() {
        client_says(&[(0, &[4, 0x0a, 0x08, 0x01, b'a'])]);
    }

    #[test]
    #[should_panic(expected = "limits_monotone: MAX_DATA")]
    fn a_limit_that_shrinks_is_seen() {
        client_says(&[(0, &[2, 0x10, 0x09]), (0, &[2, 0x10, 0x08])]);
    }

    #[test]
    #[should_panic(expected = "limits_monotone: Client Bi stream 0")]
    fn a_limit_of_a_stream_that_shrinks_is_seen() {
        client_says(&[(0, &[3, 0x11, 0x00, 0x09]), (1, &[3, 0x11, 0x00, 0x08])]);
    }
}
