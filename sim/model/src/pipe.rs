//! A pipe: records under way, both ways.
//!
//! In: records as they are written. Out: bytes as they arrive, cut anywhere. Keeps: the rest; and who reads the beginning
//! of a pipe that is not a session's first.

use std::collections::VecDeque;

use bytes::Bytes;
use towline_engine::{Acceptor, Arrival, Epoch, Instant, Session, Side, StreamId};

use crate::digest::Digest;
use crate::wire::{Said, Spoken, frames};
use crate::world::index;

/// A pipe.
#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    pub(crate) epoch: Epoch,
    /// Reads its beginning, if it is a later one, until it is known whose it is.
    pub(crate) acceptor: Option<Acceptor>,
    /// Records under way, by who wrote them.
    pub(crate) wires: [VecDeque<Record>; 2],
}

/// A record under way.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    whole: Bytes,
    /// What of it has not arrived.
    pub(crate) left: Bytes,
}

/// What arrives at once.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) bytes: Bytes,
    /// The streams that end with it, and whether with a FIN.
    pub(crate) ends: Vec<(StreamId, bool)>,
}

impl Pipe {
    pub(crate) fn send(&mut self, side: Side, record: Bytes) {
        self.wires[index(side)].push_back(Record { left: record.clone(), whole: record });
    }

    pub(crate) fn is_empty(&self, side: Side) -> bool {
        self.wires[index(side)].is_empty()
    }

    /// Bytes that the client wrote arrive at the server.
    pub(crate) fn arrive(&mut self, server: &mut Session, now: Instant, bytes: Bytes) {
        let Some(acceptor) = &mut self.acceptor else { return server.handle_input(now, self.epoch, bytes) };
        if let Some(Arrival::Resume { epoch, proof, .. }) = acceptor.handle_input(bytes)
            && server.resume(now, epoch, &proof, acceptor).is_ok()
        {
            self.acceptor = None;
        }
    }

    /// Takes at most `count` of the bytes that `side` wrote.
    pub(crate) fn take(&mut self, side: Side, count: usize) -> Option<Arrived> {
        let wire = &mut self.wires[index(side)];
        let record = wire.front_mut()?;
        let from = record.whole.len() - record.left.len();
        let bytes = record.left.split_to(count.min(record.left.len()));
        let ends = ends_within(&record.whole, from, from + bytes.len());
        if record.left.is_empty() {
            wire.pop_front();
        }
        Some(Arrived { bytes, ends })
    }

    /// See [`World::cuts`].
    pub(crate) fn cuts(&self, side: Side) -> Vec<usize> {
        let Some(record) = self.wires[index(side)].front() else { return Vec::new() };
        let done = record.whole.len() - record.left.len();
        let ahead = crate::wire::cuts(&record.whole).into_iter().filter(|&cut| cut > done);
        ahead.map(|cut| cut - done).collect()
    }

    pub(crate) fn digest(&self, digest: &mut Digest) {
        digest.add(u128::from(self.epoch.0));
        digest.add(self.acceptor.as_ref().map_or(0, Acceptor::fingerprint));
        for wire in &self.wires {
            digest.add(wire.len() as u128);
            for record in wire {
                digest.add(record.left.len() as u128);
                digest.add_bytes(&record.whole);
            }
        }
    }
}

/// The streams whose end lies between the bytes `from` and `to` of a record.
fn ends_within(record: &[u8], from: usize, to: usize) -> Vec<(StreamId, bool)> {
    let has_arrived = |frame: &&Spoken| from < frame.end && frame.end <= to;
    let end = |frame: &Spoken| match frame.what {
        Said::Stream { id, fin: true, .. } => Some((id, true)),
        Said::Reset { id, .. } => Some((id, false)),
        _ => None,
    };
    frames(record).iter().filter(has_arrived).filter_map(end).collect()
}
