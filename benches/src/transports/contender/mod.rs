//! Those who bring streams from one end to another over real sockets, behind one face.

mod ours;
mod quic;
pub(crate) mod tcp;
pub(crate) mod unbuffered;

use std::future::Future;
use std::net::SocketAddr;

use clap::ValueEnum;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::trust::Trust;
use crate::muxer::{Accept, Bare, H2, Open, TokioYamux, Windows, Yamux13, Yamux14};
use ours::Ours;
use quic::Quinn;
use tcp::{OverTcp, Plain, Tls};
use unbuffered::Unbuffered;

/// A way to bring bytes to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// A TCP connection, with nothing around it
    Tcp,
    /// Our link over TCP, without TLS
    TowlineTcp,
    /// rustls through its unbuffered interface: 128 KiB a read, 4 records a write, one stream
    RustlsUnbuffered,
    /// tokio-rustls, one stream
    Rustls,
    /// Our link over TLS
    TowlineTls,
    /// Our link over TLS over WebSocket over TLS
    TowlineWss,
    /// The crate yamux, 0.13, over tokio-rustls
    #[value(name = "yamux-0.13")]
    #[serde(rename = "yamux-0.13")]
    Yamux13,
    /// The crate yamux, 0.14, over tokio-rustls
    #[value(name = "yamux-0.14")]
    #[serde(rename = "yamux-0.14")]
    Yamux14,
    /// HTTP/2 over tokio-rustls
    H2,
    /// The same, with windows of 4 MiB (stream) and 16 MiB (session), and frames of 64 KiB
    H2Big,
    /// The crate tokio-yamux over tokio-rustls
    TokioYamux,
    /// quinn with its defaults, but CUBIC
    Quinn,
    /// quinn, with what idle connections do not need left out: for `idle`
    QuinnTuned,
    /// Our link over QUIC
    TowlineQuic,
}

impl Name {
    /// As it is written on the command line.
    pub fn text(self) -> String {
        self.to_possible_value().expect("no name is hidden").get_name().to_owned()
    }

    /// Whether it carries one stream only.
    pub(crate) fn is_bare(self) -> bool {
        matches!(self, Self::Tcp | Self::RustlsUnbuffered | Self::Rustls)
    }
}

/// Makes both ends.
pub(crate) trait Transport: Copy + Send + 'static {
    type Connector: Connect;
    type Listener: Listen;

    /// The end that accepts, and where it is. Within a runtime.
    fn listen(self, trust: &Trust) -> impl Future<Output = anyhow::Result<(Self::Listener, SocketAddr)>>;

    /// The end that connects to `address`. Within a runtime.
    fn connector(self, trust: &Trust, address: SocketAddr) -> anyhow::Result<Self::Connector>;
}

/// Makes connections.
pub(crate) trait Connect: Clone + Send + 'static {
    type Opener: Open;

    /// Connects, and waits until the other end has shown who it is.
    fn connect(&self) -> impl Future<Output = Self::Opener> + Send;
}

/// Accepts connections.
pub(crate) trait Listen: Send + 'static {
    type Acceptor: Accept;

    /// The next one. What is left to do of it, the handshake, is for a task of its own.
    fn accept(&mut self) -> impl Future<Output = BoxFuture<'static, Self::Acceptor>> + Send;
}

/// Something to be done with whichever transport it is.
pub(crate) trait Visit {
    type Output;

    fn visit(self, transport: impl Transport) -> Self::Output;
}

/// What a connection is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Work.
    Work,
    /// To be there, in as little memory as can be.
    Idle,
}

impl Name {
    /// Lets `visitor` do what it does with it.
    pub(crate) fn visit<V: Visit>(self, used: Use, visitor: V) -> V::Output {
        let bare = match used {
            Use::Work => Bare::default(),
            // Whoever waits for a byte needs room for one.
            Use::Idle => Bare { buffer: 1 },
        };
        match self {
            Self::Tcp => visitor.visit(OverTcp(Plain, bare)),
            Self::TowlineTcp => visitor.visit(Ours::Tcp),
            Self::RustlsUnbuffered => visitor.visit(Unbuffered),
            Self::Rustls => visitor.visit(OverTcp(Tls, bare)),
            Self::TowlineTls => visitor.visit(Ours::Tls),
            Self::TowlineWss => visitor.visit(Ours::WebSocket),
            Self::Yamux13 => visitor.visit(OverTcp(Tls, Yamux13)),
            Self::Yamux14 => visitor.visit(OverTcp(Tls, Yamux14)),
            Self::H2 => visitor.visit(OverTcp(Tls, H2(Windows::Default))),
            Self::H2Big => visitor.visit(OverTcp(Tls, H2(Windows::Big))),
            Self::TokioYamux => visitor.visit(OverTcp(Tls, TokioYamux(Windows::Default))),
            Self::Quinn => visitor.visit(Quinn { used, tuned: false }),
            Self::QuinnTuned => visitor.visit(Quinn { used, tuned: true }),
            Self::TowlineQuic => visitor.visit(Ours::Quic),
        }
    }
}
