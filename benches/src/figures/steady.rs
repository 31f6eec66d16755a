//! What 16 KiB of payload cost on the wire and on the heap, once everything has grown to its size.

use bytes::Bytes;
use towline_engine::{Session, StreamId};

use super::{Figure, UNIT, config};
use crate::alloc::{self, Heap};
use crate::pair::{self, Pair};

/// How much is moved.
const BULK: usize = 64 << 20;

/// How much is written at a time.
const PIECE: usize = 64 << 10;

/// When the application reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Before the driver wants its read buffer back.
    AtOnce,
    /// After that, as a task does that the driver wakes.
    Woken,
}

pub(crate) fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (streams, name) in [(1, "1 stream"), (64, "64 streams")] {
        let (at_once, woken) = (bulk(streams, Reads::AtOnce), bulk(streams, Reads::Woken));
        figures.extend(wire(name, &at_once));
        figures.extend(heap(&format!("{name}, read at once"), &at_once));
        figures.extend(heap(&format!("{name}, read when woken, as from a driver"), &woken));
    }
    // The wire first: it is the same however one reads.
    figures.sort_by_key(|figure| figure.what.starts_with("heap"));
    figures
}

fn wire(name: &str, moved: &Moved) -> [Figure; 2] {
    let payload = moved.payload as f64;
    let unit = "B / 16 KiB";
    let per_unit = |bytes: f64| bytes / payload * UNIT as f64;
    let figure = |when, value| Figure { what: "wire overhead", when, value, unit, made_of: String::new() };
    [
        figure(format!("{name}, with the payload"), per_unit(moved.forth as f64 - payload)),
        figure(format!("{name}, the way back"), per_unit(moved.back as f64)),
    ]
}

fn heap(when: &str, moved: &Moved) -> [Figure; 2] {
    let units = moved.payload as f64 / UNIT as f64;
    let figure = |unit, count: u64| Figure {
        what: "heap in steady state",
        when: when.to_owned(),
        value: count as f64 / units,
        unit,
        made_of: String::new(),
    };
    let Heap { allocations, allocated_bytes, .. } = moved.heap;
    [figure("allocations / 16 KiB", allocations), figure("B allocated / 16 KiB", allocated_bytes)]
}

/// What it took.
struct Moved {
    payload: u64,
    /// Bytes on the wire, with the payload and against it.
    forth: u64,
    back: u64,
    heap: Heap,
}

/// Moves [`BULK`] bytes on `streams` streams that take turns, after a warm-up.
fn bulk(streams: usize, reads: Reads) -> Moved {
    let mut pair = Pair::new(config(streams));
    let ids: Vec<_> = (0..streams).map(|_| pair.stream()).collect();
    let piece = Bytes::from(vec![7; PIECE]);
    move_all(&mut pair, &ids, &piece, BULK / 4, reads);
    let (heap, forth) = (alloc::heap(), pair.opener.stats().bytes_sent);
    let back = pair.acceptor.stats().bytes_sent;
    let payload = move_all(&mut pair, &ids, &piece, BULK, reads);
    Moved {
        payload: payload as u64,
        forth: pair.opener.stats().bytes_sent - forth,
        back: pair.acceptor.stats().bytes_sent - back,
        heap: alloc::heap() - heap,
    }
}

/// Moves at least `bytes`; returns how many.
fn move_all(pair: &mut Pair, ids: &[StreamId], piece: &Bytes, bytes: usize, reads: Reads) -> usize {
    let (mut written, mut got) = (0, 0);
    let read = |session: &mut Session| ids.iter().map(|&id| pair::read_all(session, id)).sum::<usize>();
    while got < written || written < bytes {
        if written < bytes {
            let writes = ids.iter().map(|&id| pair::write(&mut pair.opener, id, &mut piece.clone()));
            written += writes.sum::<usize>();
        }
        match reads {
            Reads::AtOnce => _ = pair.carry_forth(|acceptor| got += read(acceptor)),
            Reads::Woken => {
                pair.carry_forth(|_| ());
                got += read(&mut pair.acceptor);
            }
        }
        pair.carry_back(|_| ());
        pair.drop_events();
    }
    got
}
