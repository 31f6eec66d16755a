//! The one loop that runs a session over a pipe.
//!
//! In: the pipe's bytes, the clock, wakes from handles. Out: records to the pipe, wakes to handles. Keeps: one
//! record that is on its way out, and a read buffer. It waits for one thing, applies it, and sends what is
//! owed; a write that is pending never stops the read, since two ends that each finish writing first can wait
//! for each other forever.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use towline_engine::PipeClosed;

use crate::Pipe;
use crate::error::LinkClosed;
use crate::read_buffer::ReadBuffer;
use crate::shared::{EPOCH, Shared, State};

/// The most bytes of a record: with a size of two bytes, what fills a TLS record.
const RECORD: usize = 16 << 10;

/// How many slices are written at a time.
const SLICES: usize = 32;

/// How long the last words may take to get to the peer, and the peer to hang up.
const LINGER: Duration = Duration::from_secs(3);

/// Runs the session of `shared` over `pipe` until it is over and the pipe is closed, which no peer and no pipe can put
/// off for longer than the session's timeouts and [`LINGER`].
pub(crate) async fn run(shared: Arc<Shared>, mut pipe: impl Pipe) {
    let now = shared.now();
    shared.lock().session.attach(now, EPOCH).expect("a new session takes a pipe");
    let mut inbox = ReadBuffer::default();
    let mut outbox = Outbox::default();
    let mut wakes = Vec::new();
    let mut alarm = pin!(sleep_until(Instant::now()));
    let mut pipe_is_lost = false;

    loop {
        let step = take_step(&shared, &mut outbox, &mut wakes);
        wakes.drain(..).for_each(Waker::wake);
        if step.is_over {
            break;
        }
        // An alarm that is too early costs a look at the clock; to set it anew for each byte would cost more.
        let is_armed = match step.deadline {
            Some(deadline) => {
                if deadline < alarm.deadline() || alarm.is_elapsed() {
                    alarm.as_mut().reset(deadline);
                }
                true
            }
            None => false,
        };
        tokio::select! {
            biased;
            progress = poll_fn(|context| poll_pipe(context, &mut pipe, &mut inbox, &mut outbox)) => {
                let mut state = shared.lock();
                pipe_is_lost |= apply(&shared, &mut state, progress, &mut inbox);
            }
            () = shared.touched.notified() => {}
            () = &mut alarm, if is_armed => {
                let now = shared.now();
                shared.lock().session.handle_timeout(now);
            }
        }
    }

    let closed = shared.lock().why_closed();
    // Who has been silent for so long hears no last words; a pipe that is lost carries none.
    if !pipe_is_lost && !matches!(closed, LinkClosed::TimedOut) {
        let _ = timeout(LINGER, hang_up(&shared, &mut pipe, &mut outbox)).await;
    }
    drop(pipe);
    shared.ended.send_replace(Some(closed));
}

/// What the loop needs to know before it waits.
struct Step {
    deadline: Option<Instant>,
    /// The session is over. It may still have last words to say.
    is_over: bool,
}

/// Takes the next record if the last one has gone out, and the news.
fn take_step(shared: &Shared, outbox: &mut Outbox, wakes: &mut Vec<Waker>) -> Step {
    let mut state = shared.lock();
    outbox.fill(shared, &mut state);
    shared.forward_events(&mut state, wakes);
    Step {
        deadline: state.session.poll_timeout().and_then(|(deadline, _)| shared.time_of(deadline)),
        is_over: state.session.is_closed(),
    }
}

/// What a look at the pipe gave.
#[derive(Default)]
struct Progress {
    read: Option<io::Result<usize>>,
    written: Option<io::Result<()>>,
}

/// Reads and writes what can be read and written now; pending if that is nothing.
fn poll_pipe(
    context: &mut Context<'_>,
    pipe: &mut impl Pipe,
    inbox: &mut ReadBuffer,
    outbox: &mut Outbox,
) -> Poll<Progress> {
    let mut progress = Progress::default();
    if let Poll::Ready(read) = inbox.poll_read(context, pipe) {
        progress.read = Some(read);
    }
    if let Poll::Ready(written) = outbox.poll_write(context, pipe) {
        progress.written = Some(written);
    }
    if progress.read.is_none() && progress.written.is_none() { Poll::Pending } else { Poll::Ready(progress) }
}

/// Tells the session what the pipe gave. Returns whether the pipe is gone.
fn apply(shared: &Shared, state: &mut State, progress: Progress, inbox: &mut ReadBuffer) -> bool {
    match progress.read {
        None => {}
        Some(Ok(0)) => {
            shared.handle_pipe_closed(state, PipeClosed::Finished, None);
            return true;
        }
        Some(Ok(_)) => {
            let bytes = inbox.take();
            shared.handle_input(state, bytes);
            inbox.make_room(|| state.session.copy_out());
        }
        Some(Err(error)) => {
            shared.handle_pipe_closed(state, PipeClosed::Failed, Some(error));
            return true;
        }
    }
    if let Some(Err(error)) = progress.written {
        shared.handle_pipe_closed(state, PipeClosed::Failed, Some(error));
        return true;
    }
    false
}

/// Gets the last words out, says goodbye, and listens until the peer has too.
///
/// It listens all the while: closing a socket with unread input would reset it, and the reset could overtake our last
/// words; and a peer that writes before it reads takes them only once we have read.
async fn hang_up(shared: &Shared, pipe: &mut impl Pipe, outbox: &mut Outbox) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let say = async {
        loop {
            outbox.fill(shared, &mut shared.lock());
            if outbox.is_empty() {
                return writer.shutdown().await;
            }
            poll_fn(|context| outbox.poll_write(context, &mut writer)).await?;
        }
    };
    let listen = async {
        let mut scrap = [0; 1024];
        while reader.read(&mut scrap).await? > 0 {}
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
    fn fill(&mut self, shared: &Shared, state: &mut State) {
        if self.is_empty() {
            state.session.poll_transmit(shared.now(), RECORD, &mut self.slices);
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
