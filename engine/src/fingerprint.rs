//! How a session stands: a number for its logical state, the same on every machine, and whether it is consistent.
//!
//! A model checker that walks interleavings asks "was I here before?"; the standard library's hashes answer
//! differently from build to build, so this one is spelled out.

use crate::chunks::{Chunks, Queue};
use crate::exchange::{Exchange, Step};
use crate::liveness::in_nanos;
use crate::offers::Rest;
use crate::room::Held;
use crate::session::{Phase, Session};
use crate::stream::{Recv, RecvState, Send};
use crate::time::Instant;

impl Session {
    /// A number for the logical state: equal for sessions that will behave alike from `now` on.
    ///
    /// It covers every stream in the order of ids, what waits to be sent and read, and deadlines relative to
    /// `now`; no statistics, and nothing of how memory is laid out. The same on every machine.
    pub fn fingerprint(&self, now: Instant) -> u128 {
        of_session(self, now, Digest::new())
    }

    /// As [`fingerprint`](Self::fingerprint), but of payload and other strings only the lengths count: equal for a session
    /// and for one that went through the same with other bytes. It can be told to who must not know the bytes.
    pub fn shape(&self, now: Instant) -> u128 {
        of_session(self, now, Digest::blind())
    }

    /// Panics if the state is inconsistent, which is a bug of the engine's. For tests and fuzzers: it looks at
    /// every stream.
    pub fn check_invariants(&self) {
        self.window.invariants();
        self.credit.invariants();
        self.streams.invariants();
        let (mut held, mut unread) = (Held::default(), 0);
        for (_, entry) in self.streams.iter() {
            if let Some(send) = &entry.send {
                let kept = self.chunks.len(&send.unacked) + self.chunks.len(&send.queue);
                held.add(entry.urgency, kept as u64);
                held.send(entry.urgency, self.chunks.len(&send.unacked) as u64);
                if !self.is_closed() {
                    assert_eq!(send.queued(), self.chunks.len(&send.queue) as u64);
                    assert_eq!(send.held(), kept as u64);
                }
                assert!(self.resume.is_some() || send.acked == send.high, "what has gone out is delivered");
            }
            if let Some(recv) = &entry.recv {
                if !recv.state.is_terminal() {
                    assert_eq!(recv.window.unread(), self.chunks.len(&recv.queue) as u64);
                }
                unread += recv.window.unread();
            }
        }
        assert_eq!(held, self.held);
        assert!(held.all() <= self.config.send_buffer);
        if !self.is_closed() {
            assert_eq!(unread, self.window.unread(), "every unread byte is a stream's");
        }
        assert!(self.kept_credit.bytes() <= self.credit.available(), "only what there is can be kept");
        if let Some(pipe) = &self.pipe {
            pipe.liveness.invariants();
        }
        assert!(self.peer.is_some() || self.streams.len() == 0, "no stream before the limits are known");
    }
}

/// See [`Session::fingerprint`], and [`Session::shape`] if `digest` is blind.
pub(crate) fn of_session(session: &Session, now: Instant, mut digest: Digest) -> u128 {
    match &session.phase {
        Phase::Open => digest.number(0),
        Phase::Closing(closing) => {
            digest.numbers(&[1, closing.code.value(), left(closing.deadline, now)]);
            digest.bytes(&closing.reason);
        }
        Phase::Closed(closed) => {
            digest.numbers(&[2, u64::from(closed.told), u64::from(closed.frame.is_some())]);
        }
    }
    digest.number(u64::from(session.peer.is_some()));
    if let Some(pipe) = &session.pipe {
        digest.numbers(&[u64::from(pipe.parameters_sent), u64::from(pipe.data_blocked_owed)]);
        // What is over reads no more, wherever in a frame that was.
        if !session.is_closed() {
            pipe.records.digest(&mut digest);
        }
        pipe.liveness.digest(now, &mut digest);
        of_exchange(pipe.exchange.as_deref(), &mut digest);
        if session.resume.is_some() {
            digest.number(u64::from(pipe.is_at_rest));
            pipe.liveness.digest_path(now, &mut digest);
            // A round-trip time is a number like any other where it limits who writes.
            digest.option(pipe.liveness.path().filter(|_| session.path_may_limit()).map(in_nanos));
            digest.number(u64::from(pipe.standing_queue.is_some()));
            if let Some(queue) = &pipe.standing_queue {
                queue.digest(now, &mut digest);
            }
        }
        digest.option(pipe.peer.map(|peer| peer.max_record_size));
        digest.option(pipe.peer.map(|peer| peer.max_idle_timeout));
        digest.numbers(&[pipe.acks.bytes, u64::from(pipe.acks.owed)]);
        // When they would have become due decides nothing once they are owed.
        let due = pipe.acks.due.filter(|_| !pipe.acks.owed);
        digest.option(due.map(|due| left(due, now)));
    }
    digest.option(session.epoch.map(|epoch| epoch.0));
    digest.number(u64::from(session.resume.is_some()));
    let gone_at = session.resume.as_ref().and_then(|resume| resume.gone_at);
    digest.option(gone_at.map(|gone_at| left(gone_at, now)));
    digest.option(session.draining.as_ref().map(|draining| left(draining.deadline, now)));
    if let Some(draining) = &session.draining {
        digest.numbers(&[draining.opened.bi, draining.opened.uni]);
    }
    let owed = session.draining.as_ref().is_some_and(|draining| draining.owed);
    digest.numbers(&[u64::from(owed), u64::from(session.peer_drains)]);
    let news = &session.news;
    digest.numbers(&[
        u64::from(news.attached),
        u64::from(news.detached.is_some()),
        u64::from(news.draining.is_some()),
    ]);
    for flags in [news.incoming, news.openable] {
        digest.numbers(&[u64::from(flags.bi), u64::from(flags.uni)]);
    }
    session.window.digest(now, &mut digest);
    session.credit.digest(&mut digest);
    let kept = &session.kept_credit;
    digest.numbers(&[u64::from(kept.is_wanted()), kept.bytes()]);
    digest.option(kept.lapses_at().map(|at| left(at, now)));
    digest.number(u64::from(session.rest == Rest::AllTold));
    digest.option(session.rest.is_over_at().map(|at| left(at, now)));
    session.streams.digest(&mut digest);
    for (id, entry) in session.streams.iter() {
        let news = entry.news;
        digest.numbers(&[id.to_wire(), entry.urgency.index() as u64, entry.surfaced as u64]);
        let flags = [entry.released, news.readable, news.writable, news.stopped, news.finished];
        digest.numbers(&flags.map(u64::from));
        if let Some(send) = &entry.send {
            of_send(send, &session.chunks, &mut digest);
        }
        if let Some(recv) = &entry.recv {
            of_recv(recv, now, &session.chunks, session.is_closed(), &mut digest);
        }
    }
    digest.finish()
}

/// How long it is until `deadline`, in nanoseconds.
fn left(deadline: Instant, now: Instant) -> u64 {
    u64::try_from(deadline.saturating_duration_since(now).as_nanos()).expect("made from 64 bits")
}

fn of_exchange(exchange: Option<&Exchange>, digest: &mut Digest) {
    let Some(exchange) = exchange else { return digest.number(0) };
    for step in [exchange.ours, exchange.theirs] {
        match step {
            Step::Opening => digest.number(1),
            Step::Session => digest.number(2),
            Step::Streams(last) => {
                digest.number(3);
                digest.option(last.map(crate::id::StreamId::to_wire));
            }
            Step::Done => digest.number(4),
        }
    }
    digest.numbers(&[exchange.seen.bi, exchange.seen.uni]);
}

fn of_send(send: &Send, chunks: &Chunks, digest: &mut Digest) {
    digest.numbers(&[
        send.state as u64,
        send.acked,
        send.sent,
        send.high,
        send.end as u64,
        send.code.value(),
        send.offer.digest(),
    ]);
    let flags = [send.stopped, send.resets_when_sent, send.waiting, send.in_room_queue, send.blocked_owed];
    digest.numbers(&flags.map(u64::from));
    send.credit.digest(digest);
    of_queue(&send.unacked, chunks, digest);
    of_queue(&send.queue, chunks, digest);
}

fn of_recv(recv: &Recv, now: Instant, chunks: &Chunks, is_over: bool, digest: &mut Digest) {
    let (state, code) = match recv.state {
        RecvState::Recv => (0, 0),
        RecvState::DataRecvd => (1, 0),
        RecvState::ResetRecvd(code) => (2, code.value()),
        RecvState::DataRead => (3, 0),
        RecvState::ResetRead(code) => (4, code.value()),
    };
    let next = if is_over { 0 } else { recv.next };
    digest.numbers(&[state, code, u64::from(recv.stop_owed), u64::from(recv.waiting), next, recv.acked]);
    digest.option(recv.stop.map(crate::id::Code::value));
    recv.window.digest(now, digest);
    of_queue(&recv.queue, chunks, digest);
}

fn of_queue(queue: &Queue, chunks: &Chunks, digest: &mut Digest) {
    digest.pieces(chunks.slices(queue));
}

/// Collects values; equal sequences give equal results.
#[derive(Clone, Debug)]
pub(crate) struct Digest {
    value: u128,
    /// Of strings, only the lengths count.
    is_blind: bool,
}

/// FNV-1a's offset basis and prime for 128 bits, applied to whole words.
const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl Digest {
    pub(crate) fn new() -> Self {
        Self { value: BASIS, is_blind: false }
    }

    /// One that is the same for all strings of the same length.
    pub(crate) fn blind() -> Self {
        Self { value: BASIS, is_blind: true }
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.value = (self.value ^ u128::from(value)).wrapping_mul(PRIME);
        self.value ^= self.value >> 59; // words are wider than FNV's bytes: bring the high half down
    }

    pub(crate) fn numbers(&mut self, values: &[u64]) {
        for &value in values {
            self.number(value);
        }
    }

    /// As `Some(value)` or `None`, which differ from each other and from every other `Some`.
    pub(crate) fn option(&mut self, value: Option<u64>) {
        self.number(u64::from(value.is_some()));
        self.number(value.unwrap_or(0));
    }

    /// A string of bytes and its length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.pieces(core::iter::once(bytes));
    }

    /// The string that `pieces` make up, wherever it is cut, and its length.
    pub(crate) fn pieces<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) {
        let mut length = 0;
        for piece in pieces {
            if !self.is_blind {
                piece.iter().for_each(|byte| self.number(u64::from(*byte)));
            }
            length += piece.len() as u64;
        }
        self.number(length);
    }

    pub(crate) fn finish(self) -> u128 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_count_as_one_string() {
        let of = |pieces: &[&[u8]]| {
            let mut digest = Digest::new();
            digest.pieces(pieces.iter().copied());
            digest.finish()
        };
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"abc"]));
        assert_ne!(of(&[b"abc"]), of(&[b"abd"]));
        assert_ne!(of(&[b""]), of(&[b"\0"]));
    }

    #[test]
    fn a_blind_one_sees_lengths() {
        let of = |bytes: &[u8]| {
            let mut digest = Digest::blind();
            digest.bytes(bytes);
            digest.finish()
        };
        assert_eq!(of(b"abc"), of(b"xyz"));
        assert_ne!(of(b"abc"), of(b"ab"));
    }
}
