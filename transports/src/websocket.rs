//! WebSocket as a pipe (RFC 6455).
//!
//! In: binary messages, of which only the payload counts. Out: binary messages of at most [`MAX_SENT`] bytes. Where
//! a message begins and ends means nothing, so a middlebox may cut and join them. Keeps: one message that is being
//! read, of [`MAX_RECEIVED`] bytes at most, and one that goes out. Spec: PROTOCOL §2.4.
//!
//! WebSocket carries a link through what lets nothing but HTTP through. Whoever ends the TLS around it, such as a
//! reverse proxy, could read what is in the messages; so a link runs its own TLS in them ([`crate::tls`]), with
//! certificates on both sides as everywhere else.

mod framing;
mod handshake;
mod outer;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};

use crate::Pipe;
use framing::Framing;
pub use handshake::{Answer, UpgradeError, accept, answer, connect, from_upgraded};
pub use outer::{accept_outer, connect_outer, outer_client_config, outer_server_config};

/// The subprotocol of a link between an endpoint and a hub. Inside its messages is TLS with certificates on both
/// sides, of the application protocol of the same name.
pub const SUBPROTOCOL_LINK: &str = "qmux-02.towline";

/// The subprotocol of a session with nothing around it but WebSocket; see [`WebSocketPipe::with_records`].
pub const SUBPROTOCOL_BARE: &str = "qmux-02";

/// The most bytes of a message that is sent: four full TLS records.
pub const MAX_SENT: usize = 64 << 10;

/// The most bytes of a message that is accepted, in one frame or in many: four times what is sent, so that there is
/// room for middleboxes that join messages. It is kept whole before any of it is read, and by peers that have not shown
/// who they are; so it is not more. One that comes in fragments keeps up to three times as much, as the last of them is
/// read beside the others, in a buffer that doubles.
pub const MAX_RECEIVED: usize = 256 << 10;

/// How much is read at a time: a full TLS record. An idle pipe keeps about as much.
const READ_BUFFER: usize = 16 << 10;

/// How much may wait to go out: one message, its header, and some pongs. Later pongs replace each other.
const WRITE_BUFFER: usize = MAX_SENT + 1024;

/// How many messages without payload are skipped before others get their turn.
const TURNS: usize = 32;

/// What a WebSocket is set up with.
fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Each message goes out at once; what does not is what the next one waits for.
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_RECEIVED))
        .max_frame_size(Some(MAX_RECEIVED))
}

/// A pipe inside WebSocket messages.
///
/// Reads through [`AsyncBufRead`] lend a message's payload without a copy. Pings are answered while somebody reads.
/// Shutting it down sends a Close, which ends both directions: the peer may finish what it was saying, no more. A
/// Close from the peer is the end of file.
#[derive(Debug)]
pub struct WebSocketPipe<P> {
    stream: WebSocketStream<P>,
    subprotocol: String,
    framing: Framing,
    /// What of the last message has not been read.
    inbox: Bytes,
    /// What is read before that.
    prefix: Bytes,
    reading: Reading,
}

/// Whether more can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// A Close has come.
    Finished,
    /// The pipe is lost, or the peer broke a rule.
    Failed,
}

/// What is wrong with a WebSocket; found inside an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The peer sent text.
    #[error("the peer sent a WebSocket message of text, where only binary ones are taken")]
    Text,
    /// The peer sent a message that is too large.
    #[error("the peer sent a WebSocket message of more than {MAX_RECEIVED} bytes")]
    TooLarge,
    /// The peer broke another rule of RFC 6455.
    #[error("the peer broke WebSocket's rules: {0}")]
    Violation(String),
    /// The connection ended, and no Close had come.
    #[error("the connection ended without a WebSocket Close")]
    Truncated,
    /// The WebSocket was closed, by either end.
    #[error("the WebSocket is closed")]
    Closed,
    /// The WebSocket failed before.
    #[error("the WebSocket has failed")]
    Failed,
    /// This end wrote what is no record, or one that is too large for a message.
    #[error("what was written is no record that a WebSocket message can carry")]
    Record,
}

impl From<WebSocketError> for io::Error {
    fn from(error: WebSocketError) -> Self {
        let kind = match error {
            WebSocketError::Text | WebSocketError::TooLarge | WebSocketError::Violation(_) => {
                io::ErrorKind::InvalidData
            }
            WebSocketError::Truncated => io::ErrorKind::UnexpectedEof,
            WebSocketError::Closed => io::ErrorKind::BrokenPipe,
            WebSocketError::Failed => io::ErrorKind::NotConnected,
            WebSocketError::Record => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

fn as_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Utf8(_) => WebSocketError::Text.into(),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => WebSocketError::TooLarge.into(),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => WebSocketError::Truncated.into(),
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(ProtocolError::SendAfterClosing) => {
            WebSocketError::Closed.into()
        }
        other => WebSocketError::Violation(other.to_string()).into(),
    }
}

impl<P: Pipe> WebSocketPipe<P> {
    fn new(stream: WebSocketStream<P>, subprotocol: String) -> Self {
        let (framing, reading) = (Framing::Bytes, Reading::Open);
        Self { stream, subprotocol, framing, inbox: Bytes::new(), prefix: Bytes::new(), reading }
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> &str {
        &self.subprotocol
    }

    /// Carries one record of a session in each message, without its size, as implementations of bare QMux do
    /// ([`SUBPROTOCOL_BARE`]). Here, the ends of messages mean something.
    pub fn with_records(self) -> Self {
        Self { framing: Framing::records(), ..self }
    }

    /// Reads until there is payload (true), or the end (false).
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        for _ in 0..TURNS {
            if self.prefix.has_remaining() || self.inbox.has_remaining() {
                return Poll::Ready(Ok(true));
            }
            match self.reading {
                Reading::Open => {}
                Reading::Finished => return Poll::Ready(Ok(false)),
                Reading::Failed => return Poll::Ready(Err(WebSocketError::Failed.into())),
            }
            match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                Some(Ok(Message::Binary(payload))) => {
                    self.prefix = self.framing.prefix(payload.len());
                    self.inbox = payload;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    tracing::debug!(
                        code = frame.map(|frame| u16::from(frame.code)),
                        "WebSocket closed by the peer"
                    );
                    self.reading = Reading::Finished;
                    // The answer to it. What does not go out now goes with the shutdown.
                    let _ = Pin::new(&mut self.stream).poll_flush(context);
                }
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(self.fail(context, WebSocketError::Text.into())));
                }
                Some(Err(error)) => return Poll::Ready(Err(self.fail(context, as_io(error)))),
                None => return Poll::Ready(Err(self.fail(context, WebSocketError::Truncated.into()))),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends the reading. A peer that broke a rule is told which one, if that can be said at once.
    fn fail(&mut self, context: &mut Context<'_>, error: io::Error) -> io::Error {
        self.reading = Reading::Failed;
        let code = match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(WebSocketError::Text) => CloseCode::Unsupported,
            Some(WebSocketError::TooLarge) => CloseCode::Size,
            Some(WebSocketError::Violation(_)) => CloseCode::Protocol,
            _ => return error,
        };
        let mut stream = Pin::new(&mut self.stream);
        if let Poll::Ready(Ok(())) = stream.as_mut().poll_flush(context) {
            let frame = CloseFrame { code, reason: Default::default() };
            let _ = stream.as_mut().start_send(Message::Close(Some(frame)));
            let _ = stream.poll_flush(context);
        }
        error
    }
}

impl<P: Pipe> AsyncBufRead for WebSocketPipe<P> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_message(context))?;
        Poll::Ready(Ok(if this.prefix.has_remaining() { &this.prefix } else { &this.inbox }))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        if self.prefix.has_remaining() {
            self.prefix.advance(count);
        } else {
            self.inbox.advance(count);
        }
        if self.inbox.is_empty() {
            // Not even an empty piece of it: the buffer that it was cut from is to be used again.
            self.inbox = Bytes::new();
        }
    }
}

impl<P: Pipe> AsyncRead for WebSocketPipe<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let payload = ready!(self.as_mut().poll_fill_buf(context))?;
        let count = payload.len().min(buffer.remaining());
        buffer.put_slice(&payload[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<P: Pipe> AsyncWrite for WebSocketPipe<P> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    /// Takes at most one message, once the last one has gone out.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Pongs may be on their way too, so it is not enough that the last message was accepted.
        ready!(self.as_mut().poll_flush(context))?;
        let (taken, message) = self.framing.take(parts)?;
        if let Some(message) = message {
            Pin::new(&mut self.stream).start_send(Message::Binary(message)).map_err(as_io)?;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context).map_err(as_io)
    }

    /// Sends a Close. The connection beneath is shut down only if the peer's Close has come too: some proxies take
    /// the end of one direction for the end of both.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // First what waits: the Close must find room.
        ready!(self.as_mut().poll_flush(context))?;
        ready!(Pin::new(&mut self.stream).poll_close(context)).map_err(as_io)?;
        let is_finished = self.reading == Reading::Finished;
        let pipe = Pin::new(self.stream.get_mut());
        if is_finished { pipe.poll_shutdown(context) } else { pipe.poll_flush(context) }
    }
}
