//! Streams that this end has finished or reset, until the peer has acknowledged it.
//!
//! To close a QUIC connection drops what is on its way. So a link remembers what it has to wait for.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use quinn::{SendStream, StreamId, VarInt};

/// How many streams are looked at when one comes: two, so that more go than come.
const LOOKS: usize = 2;

/// The streams whose end is on its way to the peer.
#[derive(Debug, Default)]
pub(super) struct Parting {
    streams: BTreeMap<StreamId, SendStream>,
    /// Which was looked at last.
    last: Option<StreamId>,
    /// Those that were neither finished nor reset before the link began to close. quinn would finish them.
    left: Vec<SendStream>,
}

impl Parting {
    pub(super) fn add(&mut self, stream: SendStream) {
        for _ in 0..LOOKS {
            let after = self.last.map_or(Unbounded, Excluded);
            let next = self.streams.range((after, Unbounded)).next().or_else(|| self.streams.iter().next());
            let Some((&id, next)) = next else { break };
            if is_acknowledged(next) {
                self.streams.remove(&id);
            }
            self.last = Some(id);
        }
        self.streams.insert(stream.id(), stream);
    }

    /// Keeps a stream as it is until the connection is over: its end is that of the link.
    pub(super) fn leave(&mut self, stream: SendStream) {
        self.left.push(stream);
    }

    /// The stream, unless everything was acknowledged.
    pub(super) fn get(&self, id: StreamId) -> Option<&SendStream> {
        self.streams.get(&id)
    }

    /// Resets a stream whose end is not acknowledged.
    pub(super) fn reset(&mut self, id: StreamId, code: VarInt) {
        if let Some(stream) = self.streams.get_mut(&id) {
            // One that is acknowledged or was reset before needs no reset.
            let _ = stream.reset(code);
        }
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_over(&mut self) -> bool {
        self.streams.retain(|_, stream| !is_acknowledged(stream));
        self.streams.is_empty()
    }

    /// Forgets all, once the connection is over.
    pub(super) fn clear(&mut self) {
        self.left.clear();
        self.streams.clear();
    }

    /// How many streams are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}

/// quinn forgets a stream once the peer has acknowledged its end, and then does not know its priority.
fn is_acknowledged(stream: &SendStream) -> bool {
    stream.priority().is_err()
}
