//! TCP as an endpoint sees it: turmoil's, with the air in between.
//!
//! In and out: bytes. What was written is there when the air says so, and no sooner; a reader gets nothing while the line
//! is cut, and goes on where it was once it is repaired, as after retransmissions. Reads and writes may be cut short and
//! may have to be repeated, by draws of the connection's own: turmoil itself never does that to anybody.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use towline_transports::Socket;
use turmoil::net::TcpStream;

use super::air::{Air, End, Readable, State, Who};
use super::chaos::Chaos;
use crate::event::What;

/// The most bytes that are written at once. turmoil makes a segment of each write.
const MAX_SEGMENT: usize = 16 << 10;

/// How many bytes may have come from turmoil before their time.
const MAX_EARLY: usize = 256 << 10;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct TcpSocket {
    air: Air,
    who: Who,
    inner: TcpStream,
    wire: u64,
    /// Which flow of the wire this end writes: 0 for the client. It reads the other.
    writes: usize,
    chaos: Option<Chaos>,
    /// What turmoil has delivered and is not there yet.
    early: BytesMut,
    /// turmoil delivers no more: with a reset goes what was under way.
    is_over: bool,
    reading: Wait,
    writing: Wait,
    aborted: bool,
    /// It has said its FIN.
    finished: bool,
}

impl TcpSocket {
    pub(super) fn new(
        air: Air,
        who: Who,
        inner: TcpStream,
        wire: u64,
        writes: usize,
        chaos: Option<Chaos>,
    ) -> Self {
        let (reading, writing) = (Wait::default(), Wait::default());
        let early = BytesMut::new();
        Self {
            air,
            who,
            inner,
            wire,
            writes,
            chaos,
            early,
            is_over: false,
            reading,
            writing,
            aborted: false,
            finished: false,
        }
    }

    fn reads(&self) -> usize {
        1 - self.writes
    }

    /// Takes from turmoil what has come.
    fn fetch(&mut self, context: &mut Context<'_>) {
        while self.early.len() < MAX_EARLY {
            let mut piece = [0; MAX_SEGMENT];
            let mut buffer = ReadBuf::new(&mut piece);
            // How it ends is said by the air, in its time.
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.early.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => {
                    self.is_over = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Whether the other end has reset the connection. A writer hears of that before a reader has read what came first.
    fn is_reset(&self, state: &State) -> bool {
        state.has_reset(self.wire, self.reads())
    }

    /// How many bytes may be written now.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.air.lock();
        state.answer_unknown(self.wire);
        if self.is_reset(&state) || self.aborted {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let ends = state.ends(self.wire, self.writes).unwrap_or_default();
        let (now, sendable) = (state.now(), state.sendable_at(ends[0].as_ref(), ends[1].as_ref()));
        let Some(flow) = state.flow(self.wire, self.writes) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        let room = flow.room();
        if room == 0 || sendable > now {
            drop(state);
            self.wait_to_write(context, sendable);
            return Poll::Pending;
        }
        Poll::Ready(Ok(room.min(MAX_SEGMENT)))
    }

    /// Has the writer woken when there is room, at the moment `sendable`, or when the other end's reset is there.
    fn wait_to_write(&mut self, context: &mut Context<'_>, sendable: u64) {
        let mut state = self.air.lock();
        let reset = state.reset_at(self.wire, self.reads());
        if let Some(flow) = state.flow(self.wire, self.writes) {
            flow.writer = Some(context.waker().clone());
        }
        let now = state.now();
        drop(state);
        if let Some(at) = reset.into_iter().chain([sendable]).filter(|at| *at > now).min() {
            self.writing.until(at - now, context);
        }
    }

    fn write(&mut self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let offered = parts.iter().map(|part| part.len()).sum::<usize>();
        if offered == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.finished {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = ready!(self.poll_room(context))?;
        let mut count = room.min(offered);
        if let Some(chaos) = &mut self.chaos {
            count = ready!(chaos.cut(count, context));
        }
        let bytes = gather(parts, count);
        let silent = self.air.lock().wires.get(&self.wire).is_none_or(|wire| wire.silent);
        if !silent {
            // The other end's RST may have come before its reset is due; what is written meanwhile is lost.
            match Pin::new(&mut self.inner).poll_write(context, &bytes) {
                Poll::Ready(_) => {}
                Poll::Pending => {
                    self.wait_to_write(context, 0);
                    return Poll::Pending;
                }
            }
        }
        let mut state = self.air.lock();
        state.send(self.wire, self.writes, count);
        let sent = What::SegmentSent { wire: self.wire, length: count as u64, digest: state.digest(&bytes) };
        state.note(&self.who, sent);
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for TcpSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.fetch(context);
        let mut state = this.air.lock();
        let readable = state.readable(this.wire, this.reads());
        let now = state.now();
        match readable {
            Readable::Bytes(count) => {
                let count = count.min(this.early.len()).min(buffer.remaining());
                if count == 0 && this.is_over && buffer.remaining() > 0 {
                    state.lose(this.wire, this.reads());
                    return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
                }
                // turmoil's waker is registered, if it has not come that far.
                if count == 0 {
                    return Poll::Pending;
                }
                drop(state);
                let count = match &mut this.chaos {
                    Some(chaos) => ready!(chaos.cut(count, context)),
                    None => count,
                };
                buffer.put_slice(&this.early[..count]);
                this.early.advance(count);
                this.air.lock().take(this.wire, this.reads(), count);
                Poll::Ready(Ok(()))
            }
            Readable::At(at) => {
                if let Some(flow) = state.flow(this.wire, this.reads()) {
                    flow.reader = Some(context.waker().clone());
                }
                drop(state);
                this.reading.until(at - now, context);
                Poll::Pending
            }
            Readable::Nothing => {
                if let Some(flow) = state.flow(this.wire, this.reads()) {
                    flow.reader = Some(context.waker().clone());
                }
                Poll::Pending
            }
            Readable::Ended(End::Fin) => Poll::Ready(Ok(())),
            Readable::Ended(End::Reset) => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for TcpSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.finished = true;
            let mut state = self.air.lock();
            state.note(&self.who, What::ConnectionEnded { wire: self.wire, how: "fin".into() });
            state.end(self.wire, self.writes, End::Fin);
        }
        Poll::Ready(Ok(()))
    }
}

impl Socket for TcpSocket {
    fn abort(&mut self) {
        self.aborted = true;
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        let mut state = self.air.lock();
        let unread =
            !self.early.is_empty() || matches!(state.readable(self.wire, self.reads()), Readable::Bytes(_));
        // As the system does: whoever leaves bytes unread, or says so, sends a RST.
        let end = if self.aborted || unread { End::Reset } else { End::Fin };
        state.part(self.wire, self.writes, &self.who, end);
    }
}

/// The first `count` bytes of `parts`.
fn gather(parts: &[IoSlice<'_>], count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    for part in parts {
        let missing = count - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(missing)]);
    }
    bytes
}

/// A wait that can be begun anew.
#[derive(Debug, Default)]
struct Wait(Option<Pin<Box<Sleep>>>);

impl Wait {
    /// Has the task woken in so many nanoseconds.
    fn until(&mut self, nanoseconds: u64, context: &mut Context<'_>) {
        let deadline = Instant::now() + Duration::from_nanos(nanoseconds.max(1));
        let sleep = match &mut self.0 {
            Some(sleep) => {
                sleep.as_mut().reset(deadline);
                sleep
            }
            None => self.0.insert(Box::pin(sleep_until(deadline))),
        };
        if sleep.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }
}
