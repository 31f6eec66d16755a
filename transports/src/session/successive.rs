//! The pipes of a session that outlives them: one after the other, with nothing in between.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use towline_engine::Epoch;

use super::carrier::{Batch, Carrier};
use crate::read_buffer::Room;

/// The pipe that there is, and where the next one comes from. While there is none, nothing comes and nothing goes.
#[derive(Debug)]
pub(crate) struct Successive<C> {
    pipe: Option<C>,
    next: mpsc::UnboundedReceiver<Box<(Epoch, C)>>,
}

/// Where the next pipes go. Boxed, since a channel has room for 32 of what it carries from the beginning, and a pipe takes a
/// kibibyte.
pub(crate) type Pipes<C> = mpsc::UnboundedSender<Box<(Epoch, C)>>;

impl<C> Successive<C> {
    pub(crate) fn new(first: C) -> (Self, Pipes<C>) {
        let (pipes, next) = mpsc::unbounded_channel();
        (Self { pipe: Some(first), next }, pipes)
    }
}

impl<C: Carrier> Carrier for Successive<C> {
    fn poll_receive(&mut self, context: &mut Context<'_>, pieces: &mut Vec<Bytes>) -> Poll<io::Result<()>> {
        self.pipe.as_mut().map_or(Poll::Pending, |pipe| pipe.poll_receive(context, pieces))
    }

    fn make_room(&mut self, unread: usize, let_go: impl FnOnce()) -> Room {
        self.pipe.as_mut().map_or(Room::Same, |pipe| pipe.make_room(unread, let_go))
    }

    fn rest(&mut self, unread: usize, let_go: impl FnOnce()) {
        if let Some(pipe) = &mut self.pipe {
            pipe.rest(unread, let_go);
        }
    }

    fn send(&mut self, batch: &mut Batch) {
        if let Some(pipe) = &mut self.pipe {
            pipe.send(batch);
        }
    }

    fn is_flushed(&self) -> bool {
        self.pipe.as_ref().is_some_and(Carrier::is_flushed)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.as_mut().map_or(Poll::Pending, |pipe| pipe.poll_flush(context))
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.as_mut().map_or(Poll::Ready(Ok(())), |pipe| pipe.poll_close(context))
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.pipe.as_mut().map_or(Poll::Ready(Ok(true)), |pipe| pipe.poll_end(context))
    }

    fn poll_replaced(&mut self, context: &mut Context<'_>) -> Poll<Epoch> {
        match self.next.poll_recv(context) {
            Poll::Ready(Some(next)) => {
                let (epoch, pipe) = *next;
                self.pipe = Some(pipe);
                Poll::Ready(epoch)
            }
            // Nobody brings another one any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn give_up(&mut self) -> bool {
        self.pipe.take().is_some()
    }
}
