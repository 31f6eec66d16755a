//! The two halves of a QUIC stream.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Dir, StoppedError, StreamId, VarInt};
use towline_engine::{Code, Urgency};

use super::error::{code_of, varint_of};
use super::link::{Owner, Shared, poll_once};
use crate::error::{LinkClosed, ReadError, WriteError};
use crate::stream::DROPPED;

/// A stream that the application holds, in one half or two.
#[derive(Debug)]
pub(super) struct Held {
    owner: Arc<Owner>,
    /// The direction, if it is the peer's.
    accepted: Option<Dir>,
}

impl Held {
    pub(super) fn new(owner: Arc<Owner>, accepted: Option<Dir>) -> Arc<Self> {
        owner.shared.hold(accepted);
        Arc::new(Self { owner, accepted })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.owner.shared.release(self.accepted);
    }
}

/// As [`crate::RecvStream`].
#[derive(Debug)]
pub(crate) struct RecvStream {
    stream: quinn::RecvStream,
    /// How it ended, once the application was told.
    end: Option<Result<(), ReadError>>,
    held: Arc<Held>,
}

impl RecvStream {
    pub(super) fn new(stream: quinn::RecvStream, held: Arc<Held>) -> Self {
        Self { stream, end: None, held }
    }

    pub(crate) fn poll_read_chunk(
        &mut self,
        context: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        if let Some(Err(error)) = &self.end {
            return Poll::Ready(Err(error.clone()));
        }
        let outcome = {
            // The future keeps nothing: what waits is the stream.
            let read = pin!(self.stream.read_chunk(max.max(1), true));
            ready!(read.poll(context))
        };
        Poll::Ready(match outcome {
            Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
            Ok(None) => {
                self.end = Some(Ok(()));
                Ok(None)
            }
            Err(error) => Err(self.fail(error)),
        })
    }

    pub(crate) fn stop(&mut self, code: Code) {
        if self.end.is_none() {
            self.end = Some(Err(ReadError::Stopped));
            // It may have ended in a way that the application has not seen.
            let _ = self.stream.stop(varint_of(code));
        }
    }

    fn fail(&mut self, error: quinn::ReadError) -> ReadError {
        let error = match error {
            quinn::ReadError::Reset(code) => ReadError::Reset(code_of(code)),
            quinn::ReadError::ConnectionLost(_) => ReadError::Closed(self.held.shared().why_closed()),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => ReadError::Stopped,
        };
        self.end = Some(Err(error.clone()));
        error
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(DROPPED);
    }
}

/// As [`crate::SendStream`].
#[derive(Debug)]
pub(crate) struct SendStream {
    id: StreamId,
    half: Half,
    /// The wait for the peer's STOP_SENDING, once somebody has begun it.
    wait: Option<Wait>,
    held: Arc<Held>,
}

/// How a sending half stands. quinn's handle of one that has ended is in the link's
/// [`Parting`](super::parting::Parting).
#[derive(Debug)]
enum Half {
    Open { stream: quinn::SendStream, has_written: bool },
    Finished,
    Reset,
    Stopped(Code),
}

/// A wait that quinn gives a type without a name.
struct Wait(Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>);

impl Wait {
    fn new(stream: &quinn::SendStream) -> Self {
        Self(Box::pin(stream.stopped()))
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}

impl SendStream {
    pub(super) fn new(stream: quinn::SendStream, held: Arc<Held>) -> Self {
        Self { id: stream.id(), half: Half::Open { stream, has_written: false }, wait: None, held }
    }

    pub(crate) fn poll_write_chunk(
        &mut self,
        context: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), WriteError>> {
        while !chunk.is_empty() {
            let stream = self.writable()?;
            let written = {
                let write = pin!(stream.write_chunks(std::slice::from_mut(chunk)));
                ready!(write.poll(context))
            };
            self.written(written.map(|written| written.bytes))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        let stream = self.writable()?;
        let written = ready!(pin!(stream.write(bytes)).poll(context));
        Poll::Ready(self.written(written))
    }

    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        self.leave_if_closing(Half::Finished)?;
        let stopped = match &mut self.half {
            Half::Open { stream, .. } => {
                // quinn does not say so if the peer has stopped it.
                let _ = stream.finish();
                poll_once(stream.stopped())
            }
            Half::Finished | Half::Reset => return Err(WriteError::Finished),
            Half::Stopped(code) => return Err(WriteError::Stopped(*code)),
        };
        match stopped {
            Poll::Ready(Ok(Some(code))) => Err(WriteError::Stopped(self.stop(code))),
            Poll::Ready(Err(_)) => {
                self.half = Half::Finished;
                Err(self.held.shared().why_closed().into())
            }
            Poll::Pending | Poll::Ready(Ok(None)) => {
                self.part(Half::Finished);
                Ok(())
            }
        }
    }

    pub(crate) fn reset(&mut self, code: Code) {
        if self.leave_if_closing(Half::Reset).is_err() {
            return;
        }
        match &mut self.half {
            Half::Open { stream, .. } => {
                // One that is over needs no reset.
                let _ = stream.reset(varint_of(code));
                self.part(Half::Reset);
            }
            Half::Finished => {
                self.held.shared().parting().reset(self.id, varint_of(code));
                self.half = Half::Reset;
            }
            Half::Reset | Half::Stopped(_) => {}
        }
    }

    /// Holds the reset back, as QUIC has none that leaves what went before alone.
    pub(crate) fn reset_when_sent(&mut self, code: Code) {
        if self.leave_if_closing(Half::Reset).is_err() {
            return;
        }
        match &self.half {
            Half::Open { has_written: true, .. } => {}
            Half::Open { has_written: false, .. } => return self.reset(code),
            Half::Finished | Half::Reset | Half::Stopped(_) => return,
        }
        self.part(Half::Reset);
        let (shared, id) = (self.held.shared().clone(), self.id);
        let hold = (shared.rtt() * 3).max(SHORTEST_HOLD);
        shared.runtime.clone().spawn(async move {
            tokio::time::sleep(hold).await;
            shared.parting().reset(id, varint_of(code));
        });
    }

    pub(crate) fn set_urgency(&mut self, urgency: Urgency) {
        if let Half::Open { stream, .. } = &self.half {
            let priority = match urgency {
                Urgency::Interactive => 1,
                Urgency::Normal => 0,
                Urgency::Bulk => -1,
            };
            // One that is over is not in a hurry.
            let _ = stream.set_priority(priority);
        }
    }

    /// quinn forgets whom to wake for a stop when a stream is finished or stopped, but not when this end resets it. A
    /// stream that was waited on and reset so leaves some 100 bytes behind until its connection ends.
    pub(crate) fn poll_stopped(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Code>, LinkClosed>> {
        let wait = match (&self.half, &mut self.wait) {
            (Half::Stopped(code), _) => return Poll::Ready(Ok(Some(*code))),
            (Half::Reset, _) => return Poll::Ready(Ok(None)),
            (_, Some(wait)) => wait,
            (Half::Open { stream, .. }, none) => none.insert(Wait::new(stream)),
            (Half::Finished, none) => match self.held.shared().parting().get(self.id) {
                Some(stream) => none.insert(Wait::new(stream)),
                None => return Poll::Ready(Ok(None)),
            },
        };
        let outcome = ready!(wait.0.as_mut().poll(context));
        self.wait = None;
        Poll::Ready(match outcome {
            Ok(Some(code)) => Ok(Some(self.stop(code))),
            Ok(None) => Ok(None),
            Err(_) => Err(self.held.shared().why_closed()),
        })
    }

    /// Not known.
    #[expect(clippy::unused_self, reason = "the other kind of stream knows")]
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        None
    }

    /// Whether the application has finished or reset it.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.half, Half::Finished | Half::Reset)
    }

    /// The stream, if it may be written to.
    fn writable(&mut self) -> Result<&mut quinn::SendStream, WriteError> {
        match &mut self.half {
            Half::Open { stream, .. } => {
                self.held.shared().check_open()?;
                Ok(stream)
            }
            Half::Finished | Half::Reset => Err(WriteError::Finished),
            Half::Stopped(code) => Err(WriteError::Stopped(*code)),
        }
    }

    fn written(&mut self, outcome: Result<usize, quinn::WriteError>) -> Result<usize, WriteError> {
        match outcome {
            Ok(count) => {
                if let Half::Open { has_written, .. } = &mut self.half {
                    *has_written = true;
                }
                Ok(count)
            }
            Err(quinn::WriteError::Stopped(code)) => Err(WriteError::Stopped(self.stop(code))),
            Err(quinn::WriteError::ConnectionLost(_)) => Err(self.held.shared().why_closed().into()),
            Err(quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected) => {
                Err(WriteError::Finished)
            }
        }
    }

    /// The peer reads no more: the stream is reset with its code, as RFC 9000 §3.5 asks.
    fn stop(&mut self, code: VarInt) -> Code {
        match &mut self.half {
            Half::Open { stream, .. } => {
                let _ = stream.reset(code);
            }
            Half::Finished => self.held.shared().parting().reset(self.id, code),
            Half::Reset | Half::Stopped(_) => {}
        }
        self.part(Half::Stopped(code_of(code)));
        code_of(code)
    }

    /// Once the link is closing, a stream ends with it, neither before nor in another way: what was accepted still goes
    /// out, and to the peer it is no end of file.
    fn leave_if_closing(&mut self, half: Half) -> Result<(), LinkClosed> {
        if !matches!(self.half, Half::Open { .. }) {
            return Ok(());
        }
        let shared = self.held.shared().clone();
        shared.check_open().inspect_err(|_| {
            if let Half::Open { stream, .. } = std::mem::replace(&mut self.half, half) {
                shared.leave(stream);
            }
        })
    }

    /// Gives quinn's handle, of a stream that this end has ended, to the link.
    fn part(&mut self, half: Half) {
        if let Half::Open { stream, .. } = std::mem::replace(&mut self.half, half) {
            self.held.shared().part(stream);
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // quinn would finish it.
        if matches!(self.half, Half::Open { .. }) {
            self.reset(DROPPED);
        }
    }
}

/// How long a reset is held back at least.
const SHORTEST_HOLD: Duration = Duration::from_millis(50);
