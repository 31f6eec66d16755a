//! The two halves of a stream.
//!
//! Reads and writes are cancel-safe: what a dropped future had not returned or accepted is still there. A
//! [`RecvStream`] that is dropped before the end stops the peer; a [`SendStream`] that is dropped before
//! [`finish`](SendStream::finish) resets the stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towline_engine as engine;
use towline_engine::{Code, StreamId, Urgency};

use crate::error::{LinkClosed, ReadError, WriteError};
use crate::link::Owner;

/// The code that a dropped handle gives the peer.
const DROPPED: Code = Code::new(0).unwrap();

/// A stream that the application holds, in one half or two. The session forgets it after the last.
#[derive(Debug)]
pub(crate) struct Held {
    id: StreamId,
    link: Arc<Owner>,
}

impl Held {
    pub(crate) fn new(id: StreamId, link: Arc<Owner>) -> Self {
        Self { id, link }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.link.shared.with(|state| state.session.release(self.id, DROPPED));
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct RecvStream {
    held: Arc<Held>,
    /// How it ended, once the application was told.
    end: Option<Result<(), ReadError>>,
}

impl RecvStream {
    pub(crate) fn new(held: Arc<Held>) -> Self {
        Self { held, end: None }
    }

    /// Takes received bytes as they came, without a copy: at least one, at most `max`. `None` at the end of the
    /// stream, which is only ever the peer's. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ReadError::Reset`] if the peer abandoned the stream, [`ReadError::Closed`] if the link ended first.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|context| self.poll_read_chunk(context, max)).await
    }

    /// As [`read_chunk`](Self::read_chunk), as a poll.
    ///
    /// # Errors
    ///
    /// As [`read_chunk`](Self::read_chunk).
    pub fn poll_read_chunk(
        &mut self,
        context: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        self.poll_with(context, |stream| stream.read(max), Option::is_none)
    }

    /// Reads to the end of the stream. Not cancel-safe: what was read by a dropped future is gone.
    ///
    /// # Errors
    ///
    /// As [`read_chunk`](Self::read_chunk); and after `limit` bytes, the stream is stopped and the error is
    /// [`ReadError::Stopped`].
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.read_chunk(usize::MAX).await? {
            if all.len() + chunk.len() > limit {
                self.stop(DROPPED);
                return Err(ReadError::Stopped);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Reads no more: what was received is dropped, and the peer is asked to stop. Without effect at the end.
    pub fn stop(&mut self, code: Code) {
        if self.end.is_none() {
            self.end = Some(Err(ReadError::Stopped));
            // It may have ended in a way that the application has not seen.
            self.with(|stream| _ = stream.stop(code));
        }
    }

    fn with<T>(&self, verb: impl FnOnce(&mut engine::Stream<'_>) -> T) -> T {
        let held = &self.held;
        held.link.shared.with(|state| {
            verb(&mut state.session.stream(held.id).expect("a stream that is held is not released"))
        })
    }

    /// Reads with `read`, or waits for something to read. `is_end` tells the end of the stream from bytes.
    fn poll_with<T>(
        &mut self,
        context: &mut Context<'_>,
        read: impl FnOnce(&mut engine::Stream<'_>) -> Result<T, engine::ReadError>,
        is_end: impl FnOnce(&T) -> bool,
    ) -> Poll<Result<T, ReadError>> {
        if let Some(Err(error)) = &self.end {
            return Poll::Ready(Err(error.clone()));
        }
        let id = self.held.id;
        let outcome = self.held.link.shared.with(|state| {
            let mut stream = state.session.stream(id).expect("a stream that is held is not released");
            Poll::Ready(match read(&mut stream) {
                Ok(value) => Ok(value),
                Err(engine::ReadError::Blocked) => {
                    state.wait_to_read(id, context);
                    return Poll::Pending;
                }
                Err(engine::ReadError::Reset(code)) => Err(ReadError::Reset(code)),
                Err(engine::ReadError::Closed) => Err(ReadError::Closed(state.why_closed())),
                Err(_) => Err(ReadError::Stopped),
            })
        });
        match &outcome {
            Poll::Ready(Ok(value)) if is_end(value) => self.end = Some(Ok(())),
            Poll::Ready(Err(error)) => self.end = Some(Err(error.clone())),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        outcome
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let out = buffer.initialize_unfilled();
        if out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let count = ready!(self.poll_with(context, |stream| stream.read_to(out), |&count| count == 0))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(DROPPED);
        self.held.link.shared.lock().take_reader(self.held.id);
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct SendStream {
    held: Arc<Held>,
    /// The application has finished or reset it.
    done: bool,
}

impl SendStream {
    pub(crate) fn new(held: Arc<Held>) -> Self {
        Self { held, done: false }
    }

    /// Gives bytes to send, without a copy, and waits until all are accepted. They are taken off the front of
    /// `chunk`, so that after a cancelled call it holds what was not accepted.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopped`] if the peer reads no more, [`WriteError::Closed`] if the link is over.
    pub async fn write_chunk(&mut self, chunk: &mut Bytes) -> Result<(), WriteError> {
        poll_fn(|context| self.poll_write_chunk(context, chunk)).await
    }

    /// As [`write_chunk`](Self::write_chunk), as a poll.
    ///
    /// # Errors
    ///
    /// As [`write_chunk`](Self::write_chunk).
    pub fn poll_write_chunk(
        &mut self,
        context: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), WriteError>> {
        while !chunk.is_empty() {
            ready!(self.poll_with(context, |stream| stream.write_chunk(chunk)))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Copies and sends all of `bytes`. Not cancel-safe: one cannot tell how much a dropped future had written.
    ///
    /// # Errors
    ///
    /// As [`write_chunk`](Self::write_chunk).
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let count = poll_fn(|context| self.poll_with(context, |stream| stream.write(bytes))).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Says that no more will be written. What was accepted goes out, and then the end.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopped`], [`WriteError::Finished`] or [`WriteError::Closed`] if it is over already.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.done = true;
        self.end_with(|stream| stream.finish())
    }

    /// Abandons the stream: what has not gone out is dropped, and the peer learns `code`. Without effect on a
    /// stream that has ended.
    pub fn reset(&mut self, code: Code) {
        self.done = true;
        // A stream that has ended needs no reset.
        let _ = self.end_with(|stream| stream.reset(code));
    }

    /// Abandons the stream after what was accepted has gone out, as a TCP connection that is reset after its last
    /// words. Without effect on a stream that has ended.
    pub fn reset_when_sent(&mut self, code: Code) {
        self.done = true;
        // A stream that has ended needs no reset.
        let _ = self.end_with(|stream| stream.reset_when_sent(code));
    }

    /// Says how urgent the stream's data is, from now on.
    pub fn set_urgency(&mut self, urgency: Urgency) {
        let held = &self.held;
        // The stream may have room now.
        held.link.shared.with_news(|state| {
            state
                .session
                .stream(held.id)
                .expect("a stream that is held is not released")
                .set_urgency(urgency);
        });
    }

    /// Waits until the peer reads no more (the code that it gave), or everything has gone out to the pipe and the
    /// end with it (`None`). Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link ended first.
    pub async fn stopped(&mut self) -> Result<Option<Code>, LinkClosed> {
        poll_fn(|context| self.poll_stopped(context)).await
    }

    /// As [`stopped`](Self::stopped), as a poll. It and a pending write share one waker: the last poll's.
    ///
    /// # Errors
    ///
    /// As [`stopped`](Self::stopped).
    pub fn poll_stopped(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Code>, LinkClosed>> {
        let id = self.held.id;
        self.held.link.shared.with(|state| {
            let stream = state.session.stream(id).expect("a stream that is held is not released");
            match stream.sending() {
                engine::Sending::Stopped(code) => Poll::Ready(Ok(Some(code))),
                engine::Sending::Finished | engine::Sending::Reset => Poll::Ready(Ok(None)),
                engine::Sending::Open if state.closed.is_some() => Poll::Ready(Err(state.why_closed())),
                engine::Sending::Open => {
                    state.wait_to_write(id, context);
                    Poll::Pending
                }
            }
        })
    }

    fn end_with(
        &mut self,
        verb: impl FnOnce(&mut engine::Stream<'_>) -> Result<(), engine::WriteError>,
    ) -> Result<(), WriteError> {
        let id = self.held.id;
        self.held.link.shared.with(|state| {
            let mut stream = state.session.stream(id).expect("a stream that is held is not released");
            match verb(&mut stream) {
                Ok(()) => Ok(()),
                Err(engine::WriteError::Stopped(code)) => Err(WriteError::Stopped(code)),
                Err(engine::WriteError::Closed) => Err(WriteError::Closed(state.why_closed())),
                Err(_) => Err(WriteError::Finished),
            }
        })
    }

    /// Writes with `write`, or waits for room.
    fn poll_with<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(&mut engine::Stream<'_>) -> Result<T, engine::WriteError>,
    ) -> Poll<Result<T, WriteError>> {
        let id = self.held.id;
        self.held.link.shared.with(|state| {
            let mut stream = state.session.stream(id).expect("a stream that is held is not released");
            Poll::Ready(match write(&mut stream) {
                Ok(value) => Ok(value),
                Err(engine::WriteError::Blocked) => {
                    state.wait_to_write(id, context);
                    return Poll::Pending;
                }
                Err(engine::WriteError::Stopped(code)) => Err(WriteError::Stopped(code)),
                Err(engine::WriteError::Closed) => Err(WriteError::Closed(state.why_closed())),
                Err(_) => Err(WriteError::Finished),
            })
        })
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Poll::Ready(Ok(ready!(self.poll_with(context, |stream| stream.write(bytes)))?))
    }

    /// Ready at once: what was accepted goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// [`finish`](SendStream::finish), as often as one likes.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.finish().map_err(Into::into))
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.done {
            self.reset(DROPPED);
        }
        self.held.link.shared.lock().take_writer(self.held.id);
    }
}
