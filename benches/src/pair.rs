//! Two sessions, and a wire between them that copies as a pipe does: once in, once out.
//!
//! The sessions are driven as the driver of `towline-transports` does it, with its read buffer; only the tasks, the
//! lock and the wakes are missing.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use towline_engine::{Code, Config, Dir, Epoch, Instant, ReadError, Session, Side, StreamId, WriteError};
use towline_transports::ReadBuffer;

/// What a record has at most that every peer takes; with less room than that, the wire is full.
const RECORD: usize = 16 << 10;

/// How many bytes the wire holds: half of a read buffer.
const WIRE: usize = 64 << 10;

const EPOCH: Epoch = Epoch(0);

/// The engine does not look at the clock, so neither do we: no time passes.
pub const NOW: Instant = Instant::from_nanos(1_000_000_000);

/// One direction of a pipe.
#[derive(Debug, Default)]
pub struct Wire {
    slices: Vec<Bytes>,
    bytes: Vec<u8>,
    inbox: ReadBuffer,
}

impl Wire {
    /// Carries what `source` has to say to `sink`, at most 64 KiB. `seen` is called each time that `sink` has got
    /// something, before its read buffer is wanted back. Returns how many bytes went.
    pub fn carry(
        &mut self,
        source: &mut Session,
        sink: &mut Session,
        mut seen: impl FnMut(&mut Session),
    ) -> usize {
        self.bytes.clear();
        while self.bytes.len() + RECORD <= WIRE {
            if source.poll_transmit(NOW, WIRE - self.bytes.len(), &mut self.slices) == 0 {
                break;
            }
            self.slices.drain(..).for_each(|slice| self.bytes.extend_from_slice(&slice));
        }
        let mut left = &self.bytes[..];
        while !left.is_empty() {
            let mut context = Context::from_waker(Waker::noop());
            let read = self.inbox.poll_read(&mut context, &mut left);
            assert!(matches!(read, Poll::Ready(Ok(1..))), "a slice can always be read");
            sink.handle_input(NOW, EPOCH, self.inbox.take());
            seen(sink);
            let unread = usize::try_from(sink.credit().unread).unwrap_or(usize::MAX);
            self.inbox.make_room(unread, || sink.copy_out());
        }
        self.bytes.len()
    }
}

/// Two sessions that are acquainted.
#[derive(Debug)]
pub struct Pair {
    /// The end that opens streams.
    pub opener: Session,
    /// The end that accepts them.
    pub acceptor: Session,
    forth: Wire,
    back: Wire,
}

impl Pair {
    /// Both ends with the same configuration.
    pub fn new(config: Config) -> Self {
        let opener = Session::new(Side::Client, config.clone());
        let acceptor = Session::new(Side::Server, config);
        let mut pair = Self { opener, acceptor, forth: Wire::default(), back: Wire::default() };
        acquaint(&mut pair.opener, &mut pair.acceptor, &mut pair.forth);
        pair
    }

    /// Carries what the opener has to say, at most 64 KiB; `seen` as in [`Wire::carry`].
    pub fn carry_forth(&mut self, seen: impl FnMut(&mut Session)) -> usize {
        self.forth.carry(&mut self.opener, &mut self.acceptor, seen)
    }

    /// Carries what the acceptor has to say, at most 64 KiB; `seen` as in [`Wire::carry`].
    pub fn carry_back(&mut self, seen: impl FnMut(&mut Session)) -> usize {
        self.back.carry(&mut self.acceptor, &mut self.opener, seen)
    }

    /// Carries until both are quiet, whatever happens.
    pub fn run(&mut self) {
        while self.carry_forth(|_| ()) + self.carry_back(|_| ()) > 0 {}
        self.drop_events();
    }

    /// Hears of everything that has happened to either end, and does nothing about it.
    pub fn drop_events(&mut self) {
        drop_events(&mut self.opener);
        drop_events(&mut self.acceptor);
    }

    /// Forgets the buffers between the sessions, which are not theirs.
    pub fn drop_buffers(&mut self) {
        (self.forth, self.back) = (Wire::default(), Wire::default());
    }

    /// A stream that both ends know: one byte has gone each way.
    pub fn stream(&mut self) -> StreamId {
        let id = self.opener.open(Dir::Bi).expect("the limit on streams is high enough");
        write(&mut self.opener, id, &mut Bytes::from_static(b"?"));
        self.run();
        assert_eq!(self.acceptor.accept(Dir::Bi), Some(id));
        assert_eq!(read_all(&mut self.acceptor, id), 1);
        write(&mut self.acceptor, id, &mut Bytes::from_static(b"!"));
        self.run();
        assert_eq!(read_all(&mut self.opener, id), 1);
        id
    }
}

/// Attaches both sessions and lets them declare themselves.
pub fn acquaint(opener: &mut Session, acceptor: &mut Session, wire: &mut Wire) {
    for session in [&mut *opener, &mut *acceptor] {
        session.attach(NOW, EPOCH).expect("a new session takes a pipe");
    }
    run(wire, opener, acceptor);
}

/// Carries until both are quiet, whatever happens.
pub fn run(wire: &mut Wire, one: &mut Session, other: &mut Session) {
    while wire.carry(one, other, |_| ()) + wire.carry(other, one, |_| ()) > 0 {}
    drop_events(one);
    drop_events(other);
}

/// Hears of everything that has happened, and does nothing about it.
fn drop_events(session: &mut Session) {
    while session.poll_event().is_some() {}
}

/// Moves `bytes` bytes from one session to the other on a stream that both know; `piece` is what is written.
pub fn pass(wire: &mut Wire, ends: [&mut Session; 2], id: StreamId, bytes: usize, piece: &Bytes) {
    let [source, sink] = ends;
    let (mut written, mut got) = (0, 0);
    while got < bytes {
        let mut rest = piece.slice(..piece.len().min(bytes - written));
        written += write(source, id, &mut rest);
        wire.carry(source, sink, |sink| got += read_all(sink, id));
        wire.carry(sink, source, |_| ());
    }
    run(wire, source, sink);
}

/// Writes what is accepted of `data`, which keeps the rest. Returns how many bytes that was.
pub fn write(session: &mut Session, id: StreamId, data: &mut Bytes) -> usize {
    match session.stream(id).expect("the stream is open").write_chunk(data) {
        Ok(count) => count,
        Err(WriteError::Blocked) => 0,
        Err(error) => panic!("writing failed: {error:?}"),
    }
}

/// Reads what there is. Returns how many bytes that was.
pub fn read_all(session: &mut Session, id: StreamId) -> usize {
    let mut stream = session.stream(id).expect("the stream is open");
    let mut total = 0;
    loop {
        match stream.read(usize::MAX) {
            Ok(Some(data)) => total += data.len(),
            Ok(None) | Err(ReadError::Blocked) => return total,
            Err(error) => panic!("reading failed: {error:?}"),
        }
    }
}

/// Finishes and releases a stream at both ends.
pub fn end(wire: &mut Wire, ends: [&mut Session; 2], id: StreamId) {
    let [one, other] = ends;
    for session in [&mut *one, &mut *other] {
        session.stream(id).expect("the stream is open").finish().expect("it was not finished before");
    }
    run(wire, one, other);
    for session in [&mut *one, &mut *other] {
        assert_eq!(read_all(session, id), 0);
        session.release(id, Code::default());
    }
    run(wire, one, other);
}
