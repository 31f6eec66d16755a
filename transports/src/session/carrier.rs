//! What carries a session: a pipe as the driver needs it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use towline_engine::Epoch;

use crate::Pipe;
use crate::outbox::Outbox;
use crate::read_buffer::{ReadBuffer, Room};

/// Records of the session that go out together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The pieces of all records, in their order.
    pub(crate) slices: Vec<Bytes>,
    /// Where each record ends among them.
    pub(crate) ends: Vec<usize>,
}

/// A pipe that gives the bytes that it received, and takes records whole.
pub(crate) trait Carrier: Send + 'static {
    /// Appends what has come to `pieces`; nothing at the end of it all.
    fn poll_receive(&mut self, context: &mut Context<'_>, pieces: &mut Vec<Bytes>) -> Poll<io::Result<()>>;

    /// As [`ReadBuffer::make_room`], to be called after each time that pieces came.
    fn make_room(&mut self, unread: usize, let_go: impl FnOnce()) -> Room;

    /// As [`ReadBuffer::rest`].
    fn rest(&mut self, unread: usize, let_go: impl FnOnce());

    /// Takes all records of a batch, which is empty afterwards. For when it [is flushed](Self::is_flushed).
    fn send(&mut self, batch: &mut Batch);

    /// Whether nothing is on its way out.
    fn is_flushed(&self) -> bool;

    /// Gets out what was sent.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that no more comes, once what was sent is out.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// To be asked after the peer's goodbye, which is the end of the session's bytes: whether what is below has come to its
    /// end as well. If not, what came there was discarded, and it may be asked again.
    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Ready(Ok(true))
    }

    /// Ready if another pipe, of this number, has taken the place of the one before. Pending if there is none, for now or
    /// for ever.
    fn poll_replaced(&mut self, _: &mut Context<'_>) -> Poll<Epoch> {
        Poll::Pending
    }

    /// The pipe is of no use any more, and the session goes on without it. Returns whether there was one to let go of.
    fn give_up(&mut self) -> bool {
        false
    }
}

/// A pipe that carries the session as it is.
#[derive(Debug)]
pub(crate) struct Plain<P> {
    pipe: P,
    inbox: ReadBuffer,
    outbox: Outbox,
}

impl<P> Plain<P> {
    pub(crate) fn new(pipe: P) -> Self {
        Self { pipe, inbox: ReadBuffer::default(), outbox: Outbox::default() }
    }
}

impl<P: Pipe> Carrier for Plain<P> {
    fn poll_receive(&mut self, context: &mut Context<'_>, pieces: &mut Vec<Bytes>) -> Poll<io::Result<()>> {
        if ready!(self.inbox.poll_read(context, &mut self.pipe))? > 0 {
            pieces.push(self.inbox.take());
        }
        Poll::Ready(Ok(()))
    }

    fn make_room(&mut self, unread: usize, let_go: impl FnOnce()) -> Room {
        self.inbox.make_room(unread, let_go)
    }

    fn rest(&mut self, unread: usize, let_go: impl FnOnce()) {
        self.inbox.rest(unread, let_go);
    }

    fn send(&mut self, batch: &mut Batch) {
        batch.slices.drain(..).for_each(|slice| self.outbox.push(slice));
        batch.ends.clear();
    }

    fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(context, &mut self.pipe)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}
