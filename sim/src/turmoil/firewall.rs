//! A firewall before an endpoint, which looks at the first bytes of each of its connections.
//!
//! In: what an endpoint writes first, which is TLS. Out: what kind of link the connection carries, and a reset if that is
//! blocked. Keeps: how many bytes came to each endpoint over each kind.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towline_transports::Socket;
use towline_transports::tls::ALPN_LINK;

use super::air::{Air, Who};

/// What a link is made of, as the network sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// TLS whose hello asks for Towline's protocol.
    Tls,
    /// TLS as a web browser speaks it.
    Web,
    /// Datagrams.
    Quic,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Tls, Self::Web, Self::Quic];

    /// What begins with these bytes.
    fn of_hello(bytes: &[u8]) -> Self {
        let asks = bytes.windows(ALPN_LINK.len()).any(|window| window == ALPN_LINK);
        if asks { Self::Tls } else { Self::Web }
    }
}

/// A connection of an endpoint, behind its firewall.
#[derive(Debug)]
pub(super) struct Firewalled {
    inner: Box<dyn Socket>,
    air: Air,
    who: Who,
    /// Once it has said its first words.
    kind: Option<Kind>,
}

impl Firewalled {
    pub(super) fn new(inner: Box<dyn Socket>, air: Air, who: Who) -> Self {
        Self { inner, air, who, kind: None }
    }
}

impl AsyncRead for Firewalled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Some(kind) = this.kind {
            this.air.lock().carry(&this.who, kind, buf.filled().len() - before);
        }
        outcome
    }
}

impl AsyncWrite for Firewalled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let kind = *this.kind.get_or_insert_with(|| Kind::of_hello(bytes));
        let blocks = this.air.lock().lines.get(&this.who).is_some_and(|line| line.is_tls_blocked());
        if blocks && kind == Kind::Tls {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut this.inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl Socket for Firewalled {
    fn abort(&mut self) {
        self.inner.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_told_from_a_browser_by_its_protocol() {
        let hello = [&b"\x16\x03\x01 and so on "[..], ALPN_LINK, b" and on"].concat();
        assert_eq!(Kind::of_hello(&hello), Kind::Tls);
        assert_eq!(Kind::of_hello(b"\x16\x03\x01 http/1.1"), Kind::Web);
    }
}
