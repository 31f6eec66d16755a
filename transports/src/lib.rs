//! Links over tokio: streams to a peer, whatever carries them.
//!
//! A [`Link`] is a connection on which streams open: a session of the engine, run over a pipe (TCP, TLS, anything
//! that is `AsyncRead + AsyncWrite`) by one task, or a connection of [`quic`], which has streams of its own. Its
//! handles do not say which, so that both look the same to whoever uses them.
//!
//! ```
//! use towline_transports::{Config, Link, Side};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (ours, theirs) = tokio::io::duplex(1024);
//! let service = Link::start(ours, Side::Client, Config::default());
//! let device = Link::start(theirs, Side::Server, Config::default());
//!
//! let (mut request, mut response) = service.open_bi().await?;
//! request.write_all(b"status?").await?;
//! request.finish()?;
//!
//! let (mut answer, mut question) = device.accept_bi().await?;
//! assert_eq!(question.read_to_end(1024).await?, b"status?");
//! answer.write_all(b"fine").await?;
//! answer.finish()?;
//! assert_eq!(response.read_to_end(1024).await?, b"fine");
//! # Ok(())
//! # }
//! ```
//!
//! Sockets, the clock (tokio's), entropy and the crypto provider are handed in from outside; see [`Network`] and
//! [`tls`].

pub mod crypto;
mod error;
mod link;
mod network;
mod outbox;
pub mod proxy;
pub mod qlog;
pub mod quic;
mod read_buffer;
mod session;
mod silence;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod testing;
pub mod tls;
mod unread;
pub mod websocket;

pub use error::{LinkClosed, NoWay, ReadError, WriteError};
pub use link::{Link, LinkStats, Occasion, Reconnect, WeakLink};
pub use network::{Listener, Network, Socket, TcpNetwork, UdpSocket};
pub use outbox::Outbox;
pub use read_buffer::{ReadBuffer, Room};
pub use session::{AcceptError, Accepted, Sessions};
pub use stream::{RecvStream, SendStream, StreamPipe, stream_pipe};
pub use towline_engine::{Code, Config, Refused, Resumption, Secret, SessionId, Side, Urgency};
pub use unread::Unread;

use tokio::io::{AsyncRead, AsyncWrite};

/// Reliable, ordered bytes both ways: what a session can run over.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pipe for T {}
