//! The one loop that runs a session over a pipe.
//!
//! In: the pipe's bytes, the clock, wakes from handles. Out: records to the pipe, wakes to handles. Keeps: one
//! record that is on its way out, and two read buffers. It does what can be done now, until the pipe neither gives nor
//! takes, and then waits for anything; a write that is pending never stops the read, since two ends that each finish
//! writing first can wait for each other forever.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use towline_engine::PipeClosed;

use super::shared::{EPOCH, Shared, State};
use crate::Pipe;
use crate::error::LinkClosed;
use crate::read_buffer::ReadBuffer;

/// The most bytes of a record: with a size of two bytes, what fills a TLS record.
const RECORD: usize = 16 << 10;

/// How many slices are written at a time.
const SLICES: usize = 32;

/// How many times in a row the pipe may give or take something before others get their turn.
const TURNS: usize = 32;

/// How long the last words may take to get to the peer, and the peer to hang up.
const LINGER: Duration = Duration::from_secs(3);

/// Runs the session of `shared`, which is attached to `pipe`, until it is over and the pipe is closed, which no peer
/// and no pipe can put off for longer than the session's timeouts and [`LINGER`].
pub(crate) async fn run(shared: Arc<Shared>, pipe: impl Pipe) {
    let mut driver = Driver::new(&shared, pipe);
    let mut alarm = pin!(sleep_until(Instant::now()));
    poll_fn(|context| driver.poll(context, alarm.as_mut())).await;

    let Driver { mut pipe, mut outbox, pipe_is_lost, .. } = driver;
    let closed = shared.lock().why_closed();
    // Who has been silent for so long hears no last words; a pipe that is lost carries none.
    if !pipe_is_lost && !matches!(closed, LinkClosed::TimedOut) {
        let _ = timeout(LINGER, hang_up(&shared, &mut pipe, &mut outbox)).await;
    }
    drop(pipe);
    shared.ended.send_replace(Some(closed));
}

/// What is kept between one wake and the next.
struct Driver<'a, P> {
    shared: &'a Shared,
    pipe: P,
    inbox: ReadBuffer,
    outbox: Outbox,
    /// Whom to wake once the lock is given back. Kept for its allocation only.
    wakes: Vec<Waker>,
    /// When the session's next timer is due.
    deadline: Option<Instant>,
    pipe_is_lost: bool,
}

/// How a look at the pipe and the session left things.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// There may be more to do at once.
    GoOn,
    /// Nothing happens before the pipe, a handle or the alarm says so.
    Wait,
    /// The session is over. It may still have last words to say.
    Over,
}

impl<'a, P: Pipe> Driver<'a, P> {
    fn new(shared: &'a Shared, pipe: P) -> Self {
        let (inbox, outbox) = (ReadBuffer::default(), Outbox::default());
        Self { shared, pipe, inbox, outbox, wakes: Vec::new(), deadline: None, pipe_is_lost: false }
    }

    /// Runs the session for as long as something can be done. Ready once it is over.
    fn poll(&mut self, context: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<()> {
        loop {
            match self.exchange(context) {
                Outcome::Over => return Poll::Ready(()),
                Outcome::GoOn => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Outcome::Wait => {}
            }
            let Some(deadline) = self.deadline else { return Poll::Pending };
            // An alarm that is too early costs a look at the clock; to set it anew for each byte would cost more.
            if deadline < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(deadline);
            }
            // If it is due, what is due is done with the next exchange.
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Reads and writes until the pipe gives and takes no more, or it is others' turn.
    fn exchange(&mut self, context: &mut Context<'_>) -> Outcome {
        // A pipe that has given nothing wakes us; until then, and after a write alone, it is not asked again.
        let (mut may_read, mut has_more) = (!self.pipe_is_lost, true);
        let mut is_full = false;
        for _ in 0..TURNS {
            let read = if may_read { self.inbox.poll_read(context, &mut self.pipe) } else { Poll::Pending };
            may_read = read.is_ready();
            if may_read || has_more {
                let time = Instant::now();
                let now = self.shared.at(time);
                let mut state = self.shared.lock();
                state.listen(context);
                if let Poll::Ready(read) = read {
                    is_full = self.handle_read(&mut state, now, read);
                }
                // Here and not by the alarm: a pipe that is busy for ever would never let us get there.
                if self.deadline.is_some_and(|deadline| deadline <= time) {
                    state.session.handle_timeout(now);
                }
                self.outbox.fill(&mut state, now);
                self.shared.forward_events(&mut state, &mut self.wakes);
                has_more = state.session.wants_transmit();
                self.deadline = state.session.poll_timeout().and_then(|(at, _)| self.shared.time_of(at));
                let is_over = state.session.is_closed();
                drop(state);
                self.wakes.drain(..).for_each(Waker::wake);
                if is_over {
                    return Outcome::Over;
                }
            }
            match self.outbox.poll_write(context, &mut self.pipe) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.handle_write_error(context, error);
                    (may_read, has_more) = (false, true);
                }
                // What there is more of has to wait as well.
                Poll::Pending => has_more = false,
            }
            if !may_read && !has_more {
                return Outcome::Wait;
            }
            if is_full {
                break;
            }
        }
        Outcome::GoOn
    }

    /// Tells the session what the pipe gave. Returns whether it is time to let it be read.
    fn handle_read(
        &mut self,
        state: &mut State,
        now: towline_engine::Instant,
        read: io::Result<usize>,
    ) -> bool {
        match read {
            Ok(0) => self.lose_pipe(state, now, PipeClosed::Finished, None),
            Ok(_) => {
                state.session.handle_input(now, EPOCH, self.inbox.take());
                return self.inbox.make_room(|| state.session.copy_out());
            }
            Err(error) => self.lose_pipe(state, now, PipeClosed::Failed, Some(error)),
        }
        false
    }

    /// The pipe takes no more. What it still has to give may be the peer's reason.
    fn handle_write_error(&mut self, context: &mut Context<'_>, error: io::Error) {
        let now = self.shared.now();
        for _ in 0..TURNS {
            let Poll::Ready(Ok(1..)) = self.inbox.poll_read(context, &mut self.pipe) else { break };
            self.handle_read(&mut self.shared.lock(), now, Ok(1));
        }
        self.lose_pipe(&mut self.shared.lock(), now, PipeClosed::Failed, Some(error));
    }

    fn lose_pipe(
        &mut self,
        state: &mut State,
        now: towline_engine::Instant,
        how: PipeClosed,
        error: Option<io::Error>,
    ) {
        self.pipe_is_lost = true;
        state.pipe_error = state.pipe_error.take().or(error.map(Arc::new));
        state.session.handle_pipe_closed(now, EPOCH, how);
    }
}

/// Gets the last words out, says goodbye, and listens until the peer has too.
///
/// It listens all the while: closing a socket with unread input would reset it, and the reset could overtake our last
/// words; and a peer that writes before it reads takes them only once we have read.
async fn hang_up(shared: &Shared, pipe: &mut impl Pipe, outbox: &mut Outbox) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let say = async {
        loop {
            let now = shared.now();
            outbox.fill(&mut shared.lock(), now);
            if outbox.is_empty() {
                return writer.shutdown().await;
            }
            poll_fn(|context| outbox.poll_write(context, &mut writer)).await?;
        }
    };
    let listen = async {
        let mut scrap = [0; 1024];
        while reader.read(&mut scrap).await? > 0 {
            // A pipe that always has something must not keep the deadline from being seen.
            tokio::task::consume_budget().await;
        }
        Ok(())
    };
    tokio::try_join!(say, listen)?;
    Ok(())
}

/// A record that is on its way out.
#[derive(Default)]
struct Outbox {
    slices: Vec<Bytes>,
    /// How many slices, from the front, have gone out.
    written: usize,
    must_flush: bool,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.slices.is_empty() && !self.must_flush
    }

    /// Takes the session's next record, if the last one has gone out.
    fn fill(&mut self, state: &mut State, now: towline_engine::Instant) {
        if self.is_empty() {
            state.session.poll_transmit(now, RECORD, &mut self.slices);
            self.must_flush = !self.slices.is_empty();
        }
    }

    /// Writes until all is out and flushed (ready), or the pipe takes no more (pending). Pending if there is
    /// nothing to write.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.is_empty() {
            return Poll::Pending;
        }
        let mut pipe = Pin::new(pipe);
        while self.written < self.slices.len() {
            let mut parts = [IoSlice::new(&[]); SLICES];
            let left = &self.slices[self.written..];
            let count = left.len().min(SLICES);
            for (part, slice) in parts.iter_mut().zip(left) {
                *part = IoSlice::new(slice);
            }
            match pipe.as_mut().poll_write_vectored(context, &parts[..count]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.advance(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.slices.clear();
        self.written = 0;
        let flushed = pipe.poll_flush(context);
        self.must_flush = flushed.is_pending();
        flushed
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let slice = &mut self.slices[self.written];
            if count < slice.len() {
                slice.advance(count);
                return;
            }
            count -= slice.len();
            *slice = Bytes::new();
            self.written += 1;
        }
    }
}
