//! QUIC (RFC 9000), with certificates on both sides: links that have streams of their own.
//!
//! An [`Endpoint`] is one UDP socket, on which connections are made and accepted. A [`Connection`] has shaken hands
//! and says who its peer is; [`Connection::start`] makes it a [`Link`](crate::Link). What a QUIC link does in another
//! way than a session is told where it shows, and in docs/ARCHITECTURE.md, "Kinds of link".
//!
//! There are no tickets and no 0-RTT, at either end: a resumed handshake does not look at the client's certificate
//! again, and 0-RTT data can be played twice.

mod config;
mod endpoint;
mod error;
mod link;
mod parting;
mod silence;
mod socket;
mod stream;

/// For a simulator: by what a path that has gone dark is known.
pub use crate::silence::{Pace, Silence, Verdict};
pub use config::{ClientConfig, LARGE_DATAGRAM, ServerConfig, client_config, endpoint_config, server_config};
pub use endpoint::{Connection, Endpoint, Incoming, RETRY_FROM};
/// For a simulator: what a socket and a runtime are to QUIC.
pub use quinn::{AsyncUdpSocket, Runtime};
pub use silence::patience;

pub(crate) use link::{Link, WeakLink};
pub(crate) use stream::{RecvStream, SendStream};

/// The application protocol of a QUIC link between an endpoint and a hub.
pub const ALPN_QUIC: &[u8] = b"towline";
