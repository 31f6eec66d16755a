//! The two halves of a session's stream.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use towline_engine as engine;
use towline_engine::{Code, StreamId, Urgency};

use super::link::Owner;
use crate::error::{LinkClosed, ReadError, WriteError};
use crate::qlog::RecordedStream;
use crate::stream::DROPPED;

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

/// As [`crate::RecvStream`].
#[derive(Debug)]
pub(crate) struct RecvStream {
    held: Arc<Held>,
    /// How it ended, once the application was told.
    end: Option<Result<(), ReadError>>,
}

impl RecvStream {
    pub(crate) fn new(held: Arc<Held>) -> Self {
        Self { held, end: None }
    }

    pub(crate) fn poll_read_chunk(
        &mut self,
        context: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        if let Some(Err(error)) = &self.end {
            return Poll::Ready(Err(error.clone()));
        }
        let id = self.held.id;
        let outcome = self.held.link.shared.with(|state| {
            let mut stream = state.session.stream(id).expect("a stream that is held is not released");
            Poll::Ready(match stream.read(max) {
                Ok(chunk) => Ok(chunk),
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
            Poll::Ready(Ok(None)) => self.end = Some(Ok(())),
            Poll::Ready(Err(error)) => self.end = Some(Err(error.clone())),
            Poll::Ready(Ok(Some(_))) | Poll::Pending => {}
        }
        outcome
    }

    pub(crate) fn stop(&mut self, code: Code) {
        if self.end.is_none() {
            self.end = Some(Err(ReadError::Stopped));
            // It may have ended in a way that the application has not seen.
            self.with(|stream| _ = stream.stop(code));
        }
    }

    fn with<T>(&self, verb: impl FnOnce(&mut RecordedStream<'_>) -> T) -> T {
        let held = &self.held;
        held.link.shared.with(|state| {
            verb(&mut state.session.stream(held.id).expect("a stream that is held is not released"))
        })
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(DROPPED);
        self.held.link.shared.lock().take_reader(self.held.id);
    }
}

/// As [`crate::SendStream`].
#[derive(Debug)]
pub(crate) struct SendStream {
    held: Arc<Held>,
    /// The application has finished or reset it.
    done: bool,
}

impl SendStream {
    pub(crate) fn new(held: Arc<Held>) -> Self {
        Self { held, done: false }
    }

    pub(crate) fn poll_write_chunk(
        &mut self,
        context: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), WriteError>> {
        while !chunk.is_empty() {
            ready!(self.poll_with(context, |stream| stream.write_chunk(chunk)))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        self.poll_with(context, |stream| stream.write(bytes))
    }

    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        self.done = true;
        self.end_with(|stream| stream.finish())
    }

    pub(crate) fn reset(&mut self, code: Code) {
        self.done = true;
        // A stream that has ended needs no reset.
        let _ = self.end_with(|stream| stream.reset(code));
    }

    pub(crate) fn reset_when_sent(&mut self, code: Code) {
        self.done = true;
        // A stream that has ended needs no reset.
        let _ = self.end_with(|stream| stream.reset_when_sent(code));
    }

    pub(crate) fn set_urgency(&mut self, urgency: Urgency) {
        let held = &self.held;
        held.link.shared.with_news_if(|state| {
            let mut stream = state.session.stream(held.id).expect("a stream that is held is not released");
            let is_other = stream.urgency() != urgency;
            if is_other {
                stream.set_urgency(urgency);
            }
            is_other // then it may have room now
        });
    }

    pub(crate) fn poll_stopped(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Code>, LinkClosed>> {
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

    pub(crate) fn acknowledged(&self) -> Option<u64> {
        let mut state = self.held.link.shared.lock();
        let stream = state.session.stream(self.held.id).expect("a stream that is held is not released");
        Some(stream.acknowledged())
    }

    /// Whether the application has finished or reset it.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    fn end_with(
        &mut self,
        verb: impl FnOnce(&mut RecordedStream<'_>) -> Result<(), engine::WriteError>,
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
        write: impl FnOnce(&mut RecordedStream<'_>) -> Result<T, engine::WriteError>,
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

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.done {
            self.reset(DROPPED);
        }
        self.held.link.shared.lock().take_writer(self.held.id);
    }
}
