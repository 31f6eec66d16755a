//! Runs a [`Splice`] between two legs.
//!
//! In the hub both legs are streams; at the ends of a tunnel one is a local socket, or a program's standard input
//! and output. What ends here is the same everywhere: FIN stays FIN, RST stays RST.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;
use towline_transports::{Code, Outbox, ReadBuffer, ReadError, RecvStream, SendStream, Socket, WriteError};

use crate::codes;
use crate::core::{Ended, Fate, Pace, Splice, Way};
use crate::message::Profile;

/// What reading a leg gave.
#[derive(Debug)]
pub enum Read {
    /// Bytes.
    Data(Bytes),
    /// The end of what the leg has to say.
    End,
    /// The leg abandoned what it had to say.
    Reset(Code),
    /// The leg is gone altogether.
    Lost(Code),
}

/// Why a leg takes no more.
#[derive(Clone, Copy, Debug)]
pub enum Gone {
    /// It does not want more.
    Stopped(Code),
    /// It is gone altogether.
    Lost(Code),
}

/// One side of a splice.
pub trait Leg: Send {
    /// Reads at most `max` bytes.
    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Read>;

    /// Takes all of `data`, off its front as it goes. It may be kept until there is nothing more to write, which
    /// [`poll_gone`](Self::poll_gone) says, or the end.
    fn poll_write(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>>;

    /// Says that no more will be written.
    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// There is nothing to write now: gets out what was kept, and waits until the leg takes no more. May wait for ever if
    /// that cannot be known.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone>;

    /// Abandons writing. What was taken before comes first, as far as it can go out at once.
    fn reset(&mut self, code: Code);

    /// Reads no more.
    fn stop(&mut self, code: Code);

    /// Reads once after [`stop`](Self::stop) and drops what came: so that a writer who cannot be told to stop is not
    /// held up for ever. The others need not implement it.
    /// Returns whether more may come.
    fn poll_discard(&mut self, _: &mut Context<'_>) -> Poll<bool> {
        Poll::Pending
    }

    /// Whether to abandon writing ends reading as well, as TCP's RST does.
    fn reset_ends_whole(&self) -> bool;

    /// Waits, once both ways are over, until to drop the leg takes nothing back. The others need not implement it.
    fn poll_linger(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// How long a socket that is done with is kept for whoever goes on writing to it: to close it earlier is to send a RST,
/// which takes back what is still on its way in the other direction.
const LINGER: Duration = Duration::from_secs(30);

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// How each way ended: from the first leg to the second, and back.
    pub ended: [Ended; 2],
    /// How many bytes were read from each leg.
    pub bytes: [u64; 2],
}

impl Relayed {
    /// Whether a leg was lost before both ways had come to their end.
    pub fn was_lost(&self) -> bool {
        let lost = [Ended::Reset(codes::LEG_LOST), Ended::Stopped(codes::LEG_LOST)];
        self.ended.iter().any(|ended| lost.contains(ended))
    }
}

/// Carries bytes and ends between `first` and `second` until both ways are over. Cancelling it abandons the
/// tunnel: dropped streams are reset.
pub async fn relay(first: &mut impl Leg, second: &mut impl Leg, profile: Profile) -> Relayed {
    relay_through(&mut Splice::new(profile), first, second).await
}

/// As [`relay`], for somebody who wants to know what `splice` has carried even if this is cancelled.
pub(crate) async fn relay_through(
    splice: &mut Splice,
    first: &mut impl Leg,
    second: &mut impl Leg,
) -> Relayed {
    let relayed = poll_fn(|context| {
        loop {
            ready!(tokio::task::coop::poll_proceed(context)).made_progress();
            let forth = turn(context, splice, Way::Forth, first, second);
            let back = turn(context, splice, Way::Back, second, first);
            splice.apply_profile();
            if let Some(ended) = splice.ended() {
                let bytes = [Way::Forth, Way::Back].map(|way| splice.flow(way).carried());
                return Poll::Ready(Relayed { ended, bytes });
            }
            if !forth && !back {
                return Poll::Pending;
            }
        }
    })
    .await;
    // What a source said was lost on the way: it is not to take the end for a good one.
    let [forth, back] = relayed.ended;
    if forth == Ended::Stopped(codes::LEG_LOST) {
        first.reset(codes::LEG_LOST);
    }
    if back == Ended::Stopped(codes::LEG_LOST) {
        second.reset(codes::LEG_LOST);
    }
    let lingering = poll_fn(|context| {
        let (first, second) = (first.poll_linger(context), second.poll_linger(context));
        if first.is_ready() && second.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    });
    // Most have nothing to wait for, and are not asked twice.
    let _ = timeout(LINGER, lingering).await;
    relayed
}

/// Does what can be done now for one way: gives the sink what it is due, and reads if that is wanted. Returns
/// whether anything happened.
fn turn(
    context: &mut Context<'_>,
    splice: &mut Splice,
    way: Way,
    source: &mut impl Leg,
    sink: &mut impl Leg,
) -> bool {
    let flow = splice.flow(way);
    let mut moved = true;
    match flow.fate() {
        Fate::Data => match sink.poll_write(context, flow.held()) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(gone)) => lose(splice, way, gone),
            Poll::Pending => moved = false,
        },
        Fate::Finish => match sink.poll_finish(context) {
            Poll::Ready(Ok(())) => flow.handle_told(),
            Poll::Ready(Err(gone)) => lose(splice, way, gone),
            Poll::Pending => moved = false,
        },
        Fate::Reset(code) => {
            sink.reset(code);
            flow.handle_told();
            if sink.reset_ends_whole() {
                splice.handle_lost(way.other(), code);
            }
        }
        Fate::Wait => match sink.poll_gone(context) {
            Poll::Ready(gone) => lose(splice, way, gone),
            Poll::Pending => moved = false,
        },
        Fate::Over(_) => moved = false,
    }
    let flow = splice.flow(way);
    if let Fate::Over(Ended::Stopped(_)) = flow.fate() {
        moved |= source.poll_discard(context) == Poll::Ready(true);
    }
    if flow.wants_read()
        && let Poll::Ready(read) = source.poll_read(context, crate::core::MAX_HELD)
    {
        moved = true;
        match read {
            Read::Data(data) => flow.handle_data(data),
            Read::End => flow.handle_end(),
            Read::Reset(code) => flow.handle_reset(code),
            Read::Lost(code) => splice.handle_lost(way, code),
        }
    }
    if let Some(code) = splice.flow(way).take_stop() {
        moved = true;
        source.stop(code);
    }
    moved
}

/// The sink of `way` takes no more.
fn lose(splice: &mut Splice, way: Way, gone: Gone) {
    match gone {
        Gone::Stopped(code) => splice.flow(way).handle_stop(code),
        Gone::Lost(code) => splice.handle_lost(way.other(), code),
    }
}

/// A stream of a link as a leg.
///
/// If its link is lost, each half says so by itself: what had arrived before, the end of the stream for one, is still
/// there to be read. While little is written to it at a time, what is written is urgent.
#[derive(Debug)]
pub struct StreamLeg {
    /// Its sending half.
    pub send: SendStream,
    /// Its receiving half.
    pub recv: RecvStream,
    pace: Pace,
    /// How much is left of the piece that is being written.
    left: usize,
}

impl StreamLeg {
    /// Takes the halves of a stream over.
    pub fn new(mut send: SendStream, recv: RecvStream) -> Self {
        send.set_urgency(Pace::FIRST);
        Self { send, recv, pace: Pace::default(), left: 0 }
    }
}

impl Leg for StreamLeg {
    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Read> {
        Poll::Ready(match ready!(self.recv.poll_read_chunk(context, max)) {
            Ok(Some(data)) => Read::Data(data),
            Ok(None) => Read::End,
            Err(ReadError::Reset(code)) => Read::Reset(code),
            Err(_) => Read::Reset(codes::LEG_LOST),
        })
    }

    fn poll_write(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>> {
        // A piece that does not fit comes again.
        if self.left == 0
            && let Some(urgency) = self.pace.handle_piece(data.len())
        {
            self.send.set_urgency(urgency);
        }
        let written = self.send.poll_write_chunk(context, data);
        self.left = data.len();
        written.map_err(gone)
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(self.send.finish().map_err(gone))
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        match ready!(self.send.poll_stopped(context)) {
            Ok(Some(code)) => Poll::Ready(Gone::Stopped(code)),
            Ok(None) => Poll::Pending,
            Err(_) => Poll::Ready(Gone::Stopped(codes::LEG_LOST)),
        }
    }

    fn reset(&mut self, code: Code) {
        self.send.reset_when_sent(code);
    }

    fn stop(&mut self, code: Code) {
        self.recv.stop(code);
    }

    fn reset_ends_whole(&self) -> bool {
        false
    }
}

fn gone(error: WriteError) -> Gone {
    match error {
        WriteError::Stopped(code) => Gone::Stopped(code),
        _ => Gone::Stopped(codes::LEG_LOST),
    }
}

/// A local socket as a leg.
///
/// A write that fails does not end reading: what the other side said before its RST is still in the system's buffer.
#[derive(Debug)]
pub struct SocketLeg {
    /// `None` once it was aborted.
    socket: Option<Box<dyn Socket>>,
    buffer: ReadBuffer,
    /// What goes out with the next write: what is there at once is written at once.
    outbox: Outbox,
    /// How many bytes were put there since it was empty.
    gathered: usize,
    /// The socket has not taken all of that.
    is_stuck: bool,
    /// A write has failed. The system reports a RST once; the end of what can be read then looks like a FIN.
    was_reset: bool,
    /// Somebody may still write what nobody wants.
    discards: bool,
}

impl SocketLeg {
    /// Takes the socket over.
    pub fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket: Some(socket),
            buffer: ReadBuffer::default(),
            outbox: Outbox::default(),
            gathered: 0,
            is_stuck: false,
            was_reset: false,
            discards: false,
        }
    }

    /// Ready once all that was gathered is out.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(Gone::Stopped(codes::RESET))) };
        let flushed = self.outbox.poll_flush(context, socket);
        let was_stuck = mem::replace(&mut self.is_stuck, flushed.is_pending());
        if self.is_stuck && !was_stuck {
            // It may be for long.
            self.outbox.copy_small();
        }
        let flushed = ready!(flushed);
        self.gathered = 0;
        Poll::Ready(flushed.map_err(|error| self.note_reset(error)))
    }

    fn note_reset(&mut self, _: io::Error) -> Gone {
        self.was_reset = true;
        self.outbox = Outbox::default();
        Gone::Stopped(codes::RESET)
    }
}

impl Leg for SocketLeg {
    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Read> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Read::Lost(codes::RESET)) };
        Poll::Ready(match ready!(read_from(&mut self.buffer, socket, context, max)) {
            Read::End if self.was_reset => Read::Lost(codes::RESET),
            read => read,
        })
    }

    fn poll_write(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>> {
        if self.socket.is_none() || self.is_stuck || self.gathered >= crate::core::MAX_HELD {
            ready!(self.poll_flush(context))?;
        }
        self.gathered += data.len();
        self.outbox.push(mem::take(data));
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        ready!(self.poll_flush(context))?;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(Gone::Stopped(codes::RESET))) };
        let finished = ready!(Pin::new(socket).poll_shutdown(context));
        Poll::Ready(finished.map_err(|error| self.note_reset(error)))
    }

    /// There is nothing more to write now, so what was gathered goes out. A socket tells that nobody reads any more only when
    /// it is written to, or read.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        match ready!(self.poll_flush(context)) {
            Ok(()) => Poll::Pending,
            Err(gone) => Poll::Ready(gone),
        }
    }

    fn reset(&mut self, _: Code) {
        if let Some(mut socket) = self.socket.take() {
            // Who does not read is not waited for, and others are: what is left of a turn does not count.
            let flush = unconstrained(poll_fn(|context| self.outbox.poll_flush(context, &mut socket)));
            let _ = pin!(flush).poll(&mut Context::from_waker(Waker::noop()));
            socket.abort();
        }
    }

    /// TCP cannot say it, and a RST would take back what is still on its way in the other direction. What comes is
    /// dropped, until that direction has ended too.
    fn stop(&mut self, _: Code) {
        self.discards = true;
    }

    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(false) };
        discard_from(&mut self.buffer, socket, context)
    }

    fn reset_ends_whole(&self) -> bool {
        true
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.discards {
            ready!(tokio::task::coop::poll_proceed(context)).made_progress();
            self.discards = ready!(self.poll_discard(context));
        }
        Poll::Ready(())
    }
}

/// A program's standard input and output, or any other pair, as a leg. When nobody reads the output any more, the
/// program has no reason to go on.
#[derive(Debug)]
pub struct PairLeg<R, W> {
    input: R,
    output: W,
    buffer: ReadBuffer,
    /// Something was written and may not have gone out.
    must_flush: bool,
}

impl<R, W> PairLeg<R, W> {
    /// Takes both over.
    pub fn new(input: R, output: W) -> Self {
        Self { input, output, buffer: ReadBuffer::default(), must_flush: false }
    }
}

impl<R: AsyncRead + Send + Unpin, W: AsyncWrite + Send + Unpin> Leg for PairLeg<R, W> {
    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Read> {
        read_from(&mut self.buffer, &mut self.input, context, max)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.must_flush = true;
        write_to(&mut self.output, context, data).map_err(|_| Gone::Lost(codes::RESET))
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.output).poll_shutdown(context).map_err(|_| Gone::Lost(codes::RESET))
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        // There is nothing to write now, but somebody may wait for what was written last.
        if self.must_flush {
            match ready!(Pin::new(&mut self.output).poll_flush(context)) {
                Ok(()) => self.must_flush = false,
                Err(_) => return Poll::Ready(Gone::Lost(codes::RESET)),
            }
        }
        Poll::Pending
    }

    /// A pipe has no way to say that what it carried is abandoned: the exit status does.
    fn reset(&mut self, _: Code) {}

    fn stop(&mut self, _: Code) {}

    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        discard_from(&mut self.buffer, &mut self.input, context)
    }

    fn reset_ends_whole(&self) -> bool {
        false
    }
}

/// Drops what comes, and returns whether more may.
fn discard_from(
    buffer: &mut ReadBuffer,
    source: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
) -> Poll<bool> {
    let read = ready!(read_from(buffer, source, context, crate::core::MAX_HELD));
    Poll::Ready(matches!(read, Read::Data(_)))
}

fn read_from(
    buffer: &mut ReadBuffer,
    source: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    max: usize,
) -> Poll<Read> {
    let read = buffer.poll_read(context, &mut source.take(max as u64));
    if read.is_pending() {
        buffer.rest(0, || ());
    }
    Poll::Ready(match ready!(read) {
        Ok(0) => Read::End,
        Ok(_) => {
            let data = buffer.take();
            // Whoever reads it is asked in the same breath.
            let _ = buffer.make_room(0, || ());
            Read::Data(data)
        }
        Err(_) => Read::Lost(codes::RESET),
    })
}

fn write_to(
    sink: &mut (impl AsyncWrite + Unpin),
    context: &mut Context<'_>,
    data: &mut Bytes,
) -> Poll<io::Result<()>> {
    while !data.is_empty() {
        match ready!(Pin::new(&mut *sink).poll_write(context, data))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => data.advance(count),
        }
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests;
