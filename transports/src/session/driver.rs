//! The one loop that runs a session over a pipe.
//!
//! In: the pipe's bytes, the clock, wakes from handles. Out: records to the pipe, wakes to handles. Keeps: the few
//! records that are on their way out, and while there is much to read its read buffers. It does what can be done now,
//! until the pipe neither gives nor takes, and then waits for anything; a write that is pending never stops the read, since
//! two ends that each finish writing first can wait for each other forever.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use towline_engine::{Epoch, PipeClosed, Side};

use super::carrier::{Batch, Carrier};
use super::shared::{FIRST, Shared, State};
use crate::error::LinkClosed;
use crate::read_buffer::Room;

/// What a record has at most that every peer takes: with a size of two bytes, what fills a TLS record.
const RECORD: usize = 16 << 10;

/// What a record has at most if the peer takes larger ones: it fills four TLS records, or a message of a WebSocket
/// (`MAX_SENT`).
const LARGE_RECORD: usize = 4 * RECORD;

/// How many such records go out together at most, to a pipe that takes them at once: 112 KiB, which sealed is what a buffer
/// of the pool holds. What is sealed no longer waits for what is urgent, so a pipe that does not take as much at once is given
/// less.
const BATCH: usize = 7;

/// How many times in a row the pipe may give or take something before others get their turn.
const TURNS: usize = 32;

/// How long the last words may take to get to the peer, and the peer to hang up.
const LINGER: Duration = Duration::from_secs(3);

/// What is kept between one wake and the next.
pub(crate) struct Driver<C> {
    shared: Arc<Shared>,
    pipe: C,
    /// The number of that pipe.
    epoch: Epoch,
    /// What came with one read. Kept for its allocation only, as are the next two.
    pieces: Vec<Bytes>,
    /// What goes out next.
    batch: Batch,
    /// Whom to wake once the lock is given back.
    wakes: Vec<Waker>,
    /// How many records the pipe is given at a time, of [`RECORD`] bytes: as it takes them.
    pace: usize,
    /// How many bytes were in the session and not read, when it was last looked at.
    unread: usize,
    /// What comes next must wait until what came before is read.
    lacks_room: bool,
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

impl<C: Carrier> Driver<C> {
    /// Drives the session of `shared`, which is attached to `pipe`.
    pub(crate) fn new(shared: Arc<Shared>, pipe: C) -> Self {
        let (pieces, batch, wakes) = (Vec::new(), Batch::default(), Vec::new());
        Self {
            shared,
            pipe,
            epoch: FIRST,
            pieces,
            batch,
            wakes,
            pace: 1,
            unread: 0,
            lacks_room: false,
            deadline: None,
            pipe_is_lost: false,
        }
    }

    /// Runs the session until it is over and the pipe is closed, which no peer and no pipe can put off for longer than
    /// the session's timeouts and [`LINGER`]. In a box, since an async function has room for what it takes twice.
    pub(crate) async fn run(mut self: Box<Self>) {
        {
            let mut alarm = pin!(sleep_until(Instant::now()));
            poll_fn(|context| self.poll(context, alarm.as_mut())).await;
        }
        let closed = self.shared.lock().why_closed();
        // Who has been silent for so long hears no last words; a pipe that is lost carries none.
        if !self.pipe_is_lost && !matches!(closed, LinkClosed::TimedOut) {
            let _ = timeout(LINGER, self.hang_up()).await;
        }
        // Whoever hears that it is over may count on the pipe being closed.
        let Self { shared, pipe, .. } = *self;
        drop(pipe);
        shared.end(closed);
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
                Outcome::Wait => self.pipe.rest(self.unread, || self.shared.lock().session.copy_out()),
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
        let shared = self.shared.clone();
        while let Poll::Ready(epoch) = self.pipe.poll_replaced(context) {
            self.go_on_with(epoch);
        }
        let (mut may_read, mut has_more) = (!self.pipe_is_lost, true);
        let mut is_full = false;
        if self.lacks_room {
            let room = self.pipe.make_room(self.unread, || shared.lock().session.copy_out());
            self.lacks_room = room == Room::None;
            may_read &= !self.lacks_room;
        }
        for _ in 0..TURNS {
            let read =
                if may_read { self.pipe.poll_receive(context, &mut self.pieces) } else { Poll::Pending };
            may_read = read.is_ready();
            if may_read || has_more {
                let time = Instant::now();
                let now = shared.at(time);
                let mut state = shared.lock();
                state.listen(context);
                if let Poll::Ready(read) = read {
                    is_full = self.handle_read(&mut state, now, read);
                }
                // Here and not by the alarm: a pipe that is busy for ever would never let us get there.
                if self.deadline.is_some_and(|deadline| deadline <= time) {
                    state.session.handle_timeout(now);
                }
                // Of a pipe that is another one already, nothing must go out on this one.
                if self.pipe.is_flushed() && state.epoch == self.epoch {
                    fill(&mut self.batch, &mut state, now, self.pace);
                }
                shared.forward_events(&mut state, &mut self.wakes);
                (has_more, self.unread) = (state.session.wants_transmit(), unread(&state));
                self.deadline = state.session.poll_timeout().and_then(|(at, _)| shared.time_of(at));
                let is_over = state.session.is_closed();
                // Its timers find out about a pipe that is silent.
                self.pipe_is_lost |= state.session.is_detached();
                drop(state);
                self.wakes.drain(..).for_each(Waker::wake);
                if is_over {
                    return Outcome::Over;
                }
                if self.pipe_is_lost {
                    self.let_go();
                    may_read = false;
                }
            }
            let has_some = !self.batch.ends.is_empty() || !self.pipe.is_flushed();
            self.pipe.send(&mut self.batch);
            match self.pipe.poll_flush(context) {
                Poll::Ready(Ok(())) if !has_some => has_more = false,
                Poll::Ready(Ok(())) => self.pace = (2 * self.pace).min(BATCH),
                Poll::Ready(Err(error)) => {
                    self.handle_write_error(context, error);
                    (may_read, has_more) = (false, true);
                }
                // What there is more of has to wait as well.
                Poll::Pending => (has_more, self.pace) = (false, self.pace.div_ceil(2)),
            }
            if is_full || self.lacks_room {
                break;
            }
            if !may_read && !has_more {
                return Outcome::Wait;
            }
        }
        Outcome::GoOn
    }

    /// Lets go of a pipe that is lost, and of what was for it or came with it: the session may be without one for long, and
    /// there may be many.
    fn let_go(&mut self) {
        if self.pipe.give_up() {
            (self.pieces, self.batch) = Default::default();
            self.shared.lock().session.copy_out();
        }
    }

    /// There is another pipe. The end that opens pipes tells its session; the other's knows already.
    fn go_on_with(&mut self, epoch: Epoch) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        if state.session.side() == Side::Client && state.session.attach(now, epoch).is_ok() {
            state.epoch = epoch;
        }
        state.pipe_error = None;
        drop(state);
        self.batch = Batch::default();
        (self.epoch, self.pipe_is_lost, self.lacks_room, self.pace) = (epoch, false, false, 1);
    }

    /// Tells the session what the pipe gave. Returns whether it is time to let it be read.
    fn handle_read(&mut self, state: &mut State, now: towline_engine::Instant, read: io::Result<()>) -> bool {
        match read {
            // The peer has closed the session and hung up, both before our first look: so do we, in good order.
            Ok(()) if self.pieces.is_empty() && state.session.is_closed() => {}
            Ok(()) if self.pieces.is_empty() => self.lose_pipe(state, now, PipeClosed::Finished, None),
            Ok(()) => {
                for piece in self.pieces.drain(..) {
                    state.session.handle_input(now, self.epoch, piece);
                }
                let room = self.pipe.make_room(unread(state), || state.session.copy_out());
                self.lacks_room = room == Room::None;
                return room != Room::Same;
            }
            Err(error) => self.lose_pipe(state, now, PipeClosed::Failed, Some(error)),
        }
        false
    }

    /// The pipe takes no more. What it still has to give may be the peer's reason.
    fn handle_write_error(&mut self, context: &mut Context<'_>, error: io::Error) {
        let shared = self.shared.clone();
        let now = shared.now();
        for _ in 0..TURNS {
            let read = self.pipe.poll_receive(context, &mut self.pieces);
            if self.pieces.is_empty() || read.is_pending() {
                break;
            }
            self.handle_read(&mut shared.lock(), now, Ok(()));
        }
        self.lose_pipe(&mut shared.lock(), now, PipeClosed::Failed, Some(error));
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
        state.session.handle_pipe_closed(now, self.epoch, how);
    }

    /// Gets the last words out, says goodbye, hangs up, and listens until the peer has too.
    ///
    /// It listens all the while: closing a socket with unread input would reset it, and the reset could overtake our last
    /// words; and a peer that writes before it reads takes them only once we have read.
    async fn hang_up(&mut self) -> io::Result<()> {
        let (mut has_said, mut has_heard) = (false, false);
        poll_fn(|context| {
            if !has_said {
                has_said = self.poll_say(context)?.is_ready();
            }
            if !has_heard {
                has_heard = self.poll_hear(context)?.is_ready();
            }
            if has_said && has_heard { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Ready once all that was left to say is out.
    fn poll_say(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.pipe.poll_flush(context))?;
            let now = self.shared.now();
            fill(&mut self.batch, &mut self.shared.lock(), now, 1);
            if self.batch.ends.is_empty() {
                return self.pipe.poll_close(context);
            }
            self.pipe.send(&mut self.batch);
        }
    }

    /// Ready once the peer has said goodbye and hung up. What it says before that comes too late.
    ///
    /// Both, since a tunnel is a pipe as well, and one that is dropped before its end has come is stopped, not finished.
    fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            self.pieces.clear();
            ready!(self.pipe.poll_receive(context, &mut self.pieces))?;
            // After the goodbye all is heard; a pipe that fails then has ended, and may still take our last words.
            if self.pieces.is_empty() && ready!(self.pipe.poll_end(context)).unwrap_or(true) {
                return Poll::Ready(Ok(()));
            }
            self.pieces.clear();
            self.pipe.make_room(0, || ());
        }
        // A pipe that always has something must not keep the deadline from being seen.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// How many bytes have come to the session and are not read.
fn unread(state: &State) -> usize {
    usize::try_from(state.session.credit().unread).unwrap_or(usize::MAX)
}

/// Takes the session's next records: so many, or fewer that are larger.
fn fill(batch: &mut Batch, state: &mut State, now: towline_engine::Instant, count: usize) {
    let mut room = count * RECORD;
    while room >= RECORD {
        let length = state.session.poll_transmit(now, room.min(LARGE_RECORD), &mut batch.slices);
        if length == 0 {
            return;
        }
        batch.ends.push(batch.slices.len());
        room -= length.max(RECORD);
    }
}
