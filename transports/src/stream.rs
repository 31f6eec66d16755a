//! The two halves of a stream, whichever kind of link it is on.
//!
//! Reads and writes are cancel-safe: what a dropped future had not returned or accepted is still there. A
//! [`RecvStream`] that is dropped before the end stops the peer; a [`SendStream`] that is dropped before
//! [`finish`](SendStream::finish) resets the stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use towline_engine::{Code, Urgency};

use crate::error::{LinkClosed, ReadError, WriteError};
use crate::link::{Kind, each};
use crate::{quic, session};

/// The code that a dropped handle gives the peer.
pub(crate) const DROPPED: Code = Code::new(0).unwrap();

/// The receiving half of a stream.
#[derive(Debug)]
pub struct RecvStream {
    kind: Kind<session::RecvStream, quic::RecvStream>,
}

impl From<session::RecvStream> for RecvStream {
    fn from(stream: session::RecvStream) -> Self {
        Self { kind: Kind::Session(stream) }
    }
}

impl From<quic::RecvStream> for RecvStream {
    fn from(stream: quic::RecvStream) -> Self {
        Self { kind: Kind::Quic(stream) }
    }
}

impl RecvStream {
    /// Takes received bytes as they came, without a copy: at least one, at most `max`. `None` at the end of the
    /// stream, which is only ever the peer's. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ReadError::Reset`] if the peer abandoned the stream, [`ReadError::Closed`] if the link ended first. On a
    /// QUIC link, what came before a reset and was not read is gone with it; on others it comes first.
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
        each!(&mut self.kind, stream => stream.poll_read_chunk(context, max))
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
        each!(&mut self.kind, stream => stream.stop(code));
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Chunks, and not all at once: for that the buffer would have to be cleared first.
        let before = buffer.filled().len();
        while buffer.remaining() > 0 {
            match self.poll_read_chunk(context, buffer.remaining()) {
                Poll::Ready(Ok(Some(chunk))) => buffer.put_slice(&chunk),
                // What came before is good, and an end or an error is still there for the next who asks.
                _ if buffer.filled().len() > before => break,
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct SendStream {
    kind: Kind<session::SendStream, quic::SendStream>,
}

impl From<session::SendStream> for SendStream {
    fn from(stream: session::SendStream) -> Self {
        Self { kind: Kind::Session(stream) }
    }
}

impl From<quic::SendStream> for SendStream {
    fn from(stream: quic::SendStream) -> Self {
        Self { kind: Kind::Quic(stream) }
    }
}

impl SendStream {
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
        each!(&mut self.kind, stream => stream.poll_write_chunk(context, chunk))
    }

    /// Copies and sends all of `bytes`. Not cancel-safe: one cannot tell how much a dropped future had written.
    ///
    /// # Errors
    ///
    /// As [`write_chunk`](Self::write_chunk).
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let write = |context: &mut Context<'_>| each!(&mut self.kind, stream => stream.poll_write(context, bytes));
            let count = poll_fn(write).await?;
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
        each!(&mut self.kind, stream => stream.finish())
    }

    /// Abandons the stream: what has not gone out is dropped, and the peer learns `code`. Without effect on a
    /// stream that has ended.
    pub fn reset(&mut self, code: Code) {
        each!(&mut self.kind, stream => stream.reset(code));
    }

    /// Abandons the stream after what was accepted has gone out, as a TCP connection that is reset after its last
    /// words. Without effect on a stream that has ended.
    ///
    /// QUIC has no such thing. On a QUIC link the reset is held back for three round trips, at least 50 ms, in which
    /// what was accepted should arrive and be read; what is not, is lost.
    pub fn reset_when_sent(&mut self, code: Code) {
        each!(&mut self.kind, stream => stream.reset_when_sent(code));
    }

    /// Says how urgent the stream's data is, from now on. On a QUIC link, the less urgent then waits for the more
    /// urgent altogether; on others it keeps a share.
    pub fn set_urgency(&mut self, urgency: Urgency) {
        each!(&mut self.kind, stream => stream.set_urgency(urgency));
    }

    /// How many bytes of what was written the peer has for certain: what its end of the session has acknowledged, or, if
    /// that cannot [resume](crate::Link::resumable), what the pipe has taken. `None` on a QUIC link, which does not say.
    pub fn acknowledged(&self) -> Option<u64> {
        each!(&self.kind, stream => stream.acknowledged())
    }

    /// Waits until the peer reads no more (the code that it gave), or everything has gone out to the pipe and the
    /// end with it (`None`); on a QUIC link, until the peer has acknowledged everything. Cancel-safe.
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
        each!(&mut self.kind, stream => stream.poll_stopped(context))
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
        Poll::Ready(Ok(ready!(each!(&mut self.kind, stream => stream.poll_write(context, bytes)))?))
    }

    /// Ready at once: what was accepted goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// [`finish`](SendStream::finish), as often as one likes.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if each!(&self.kind, stream => stream.is_done()) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.finish().map_err(Into::into))
    }
}

/// A stream as a pipe: both halves as one, so that a session can run over it.
///
/// That is what end-to-end sessions ride. It accepts what its stream does, so that on a QUIC link up to
/// [`Config::max_stream_window`](crate::Config::max_stream_window) may be on its way.
pub type StreamPipe = Join<RecvStream, SendStream>;

/// Joins the halves of a stream into a pipe.
///
/// ```
/// # use towline_transports::{Config, Link, Side, stream_pipe};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (ours, theirs) = tokio::io::duplex(1024);
/// # let service = Link::start(ours, Side::Client, Config::default());
/// # let device = Link::start(theirs, Side::Server, Config::default());
/// let (send, recv) = service.open_bi().await?;
/// let inner = Link::start(stream_pipe(send, recv), Side::Client, Config::default());
///
/// let (send, recv) = device.accept_bi().await?;
/// let theirs = Link::start(stream_pipe(send, recv), Side::Server, Config::default());
///
/// let mut stream = inner.open_uni().await?;
/// stream.write_all(b"within").await?;
/// assert_eq!(theirs.accept_uni().await?.read_chunk(10).await?.unwrap(), "within");
/// # Ok(())
/// # }
/// ```
pub fn stream_pipe(send: SendStream, recv: RecvStream) -> StreamPipe {
    tokio::io::join(recv, send)
}
