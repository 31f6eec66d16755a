//! The way out through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6).
//!
//! In: a target's `host:port`. Out: a connection to it, which the proxy makes and whose name the proxy resolves. Keeps:
//! the head of the proxy's answer, [`MAX_HEAD`] bytes at most, and what came right behind it.
//!
//! Which proxy a target is reached through is in [`ProxySettings`], made of flags or of environment variables that are
//! handed in. [`ProxyNetwork`] puts it between the product and its [`Network`].

mod settings;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use http::uri::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::network::{BoxFuture, UdpSocket};
use crate::{Listener, Network, Socket, Unread};
pub use settings::{Proxy, ProxySettings, ProxyUrlError};

/// The most bytes of the head of a proxy's answer.
pub const MAX_HEAD: usize = 16 << 10;

/// The most headers of a proxy's answer.
const MAX_HEADERS: usize = 100;

/// Why a target cannot be reached through a proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// There is no connection to the proxy.
    #[error("the proxy {proxy} cannot be reached: {error}")]
    Unreachable {
        /// The proxy's address.
        proxy: String,
        /// What the system says.
        error: io::Error,
    },
    /// The proxy said nothing for as long as somebody waited.
    #[error("the proxy {proxy} does not answer")]
    Silent {
        /// The proxy's address.
        proxy: String,
    },
    /// The connection ended or failed before the proxy had answered.
    #[error("the connection to the proxy {proxy} ended before it answered: {error}")]
    Lost {
        /// The proxy's address.
        proxy: String,
        /// What the system says.
        error: io::Error,
    },
    /// The proxy wants to know who asks.
    #[error("{}", authentication(.proxy, *.status, *.tried, .schemes))]
    Authentication {
        /// The proxy's address.
        proxy: String,
        /// The status of its answer.
        status: u16,
        /// Whether it got a user and a password.
        tried: bool,
        /// The ways that it takes, such as `Basic`; control characters are escaped.
        schemes: Vec<String>,
    },
    /// The proxy does not make the connection.
    #[error("the proxy {proxy} does not connect to {target}: it answered {status} {reason}")]
    Refused {
        /// The proxy's address.
        proxy: String,
        /// What was asked for.
        target: String,
        /// The status of its answer.
        status: u16,
        /// The reason in its answer; control characters are escaped.
        reason: String,
    },
    /// What came is no answer to an HTTP request.
    #[error("the proxy {proxy} does not answer as an HTTP proxy")]
    NotHttp {
        /// The proxy's address.
        proxy: String,
    },
    /// The answer has no end.
    #[error("the head of the proxy {proxy}'s answer is longer than {MAX_HEAD} bytes")]
    HeadTooLarge {
        /// The proxy's address.
        proxy: String,
    },
    /// The target is none.
    #[error("{0:?} is not HOST:PORT")]
    Target(String),
}

fn authentication(proxy: &str, status: u16, tried: bool, schemes: &[String]) -> String {
    let takes_basic = schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
    if !takes_basic {
        let schemes = schemes.join(", ");
        format!(
            "the proxy {proxy} asks for authentication by {schemes} ({status}), and only Basic is supported"
        )
    } else if tried {
        format!("the proxy {proxy} does not take the user and password in its URL ({status})")
    } else {
        format!(
            "the proxy {proxy} asks for authentication ({status}): give a user and password in its URL, http://USER:PASSWORD@{proxy}"
        )
    }
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        let kind = match &error {
            ProxyError::Unreachable { error, .. } | ProxyError::Lost { error, .. } => error.kind(),
            ProxyError::Silent { .. } => io::ErrorKind::TimedOut,
            ProxyError::Authentication { .. } => io::ErrorKind::PermissionDenied,
            ProxyError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            ProxyError::NotHttp { .. } | ProxyError::HeadTooLarge { .. } => io::ErrorKind::InvalidData,
            ProxyError::Target(_) => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// Connects to `target`, a `host:port`, through `proxy`, which resolves the name. The deadline is the caller's;
/// cancelling it closes the connection.
///
/// # Errors
///
/// The proxy is not there, refuses, or answers with what is no answer. Whatever comes after an answer that agrees is
/// the target's, and read from what is returned.
pub async fn connect(
    network: &dyn Network,
    proxy: &Proxy,
    target: &str,
) -> Result<Box<dyn Socket>, ProxyError> {
    authority(target)?;
    ask(reach(network, proxy).await?, proxy, target).await
}

/// The first step of [`connect`]: a connection to the proxy itself.
///
/// # Errors
///
/// The proxy is not there.
pub async fn reach(network: &dyn Network, proxy: &Proxy) -> Result<Box<dyn Socket>, ProxyError> {
    let socket = network.connect(&proxy.address).await;
    socket.map_err(|error| ProxyError::Unreachable { proxy: proxy.to_string(), error })
}

/// Nothing but an authority, so that no target can add lines to the request.
fn authority(target: &str) -> Result<Authority, ProxyError> {
    let authority = target.parse::<Authority>().ok().filter(|authority| {
        authority.port_u16().is_some() && !authority.host().is_empty() && !target.contains('@')
    });
    authority.ok_or_else(|| ProxyError::Target(target.to_owned()))
}

/// The second step of [`connect`]: asks the proxy at the other end of `socket` for a connection to `target`.
///
/// # Errors
///
/// As [`connect`].
pub async fn ask(
    mut socket: Box<dyn Socket>,
    proxy: &Proxy,
    target: &str,
) -> Result<Box<dyn Socket>, ProxyError> {
    let authority = authority(target)?;
    let lost = |error| ProxyError::Lost { proxy: proxy.to_string(), error };
    socket.write_all(&request(proxy, &authority)).await.map_err(lost)?;
    socket.flush().await.map_err(lost)?;

    let mut head = BytesMut::new();
    loop {
        if head.len() >= MAX_HEAD {
            return Err(ProxyError::HeadTooLarge { proxy: proxy.to_string() });
        }
        if (&mut socket).take((MAX_HEAD - head.len()) as u64).read_buf(&mut head).await.map_err(lost)? == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(length) = judge(proxy, target, &head)? {
            head.advance(length);
            return Ok(Box::new(Unread::new(head.freeze(), socket)));
        }
    }
}

fn request(proxy: &Proxy, target: &Authority) -> Vec<u8> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// The length of the answer's head, if it is there and agrees.
fn judge(proxy: &Proxy, target: &str, head: &[u8]) -> Result<Option<usize>, ProxyError> {
    let not_http = || ProxyError::NotHttp { proxy: proxy.to_string() };
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(head).map_err(|_| not_http())? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    match response.code.ok_or_else(not_http)? {
        // Any of these agrees (RFC 9110 §9.3.6), and none has a body.
        200..=299 => Ok(Some(length)),
        // tinyproxy answers 407 to those who say nothing and 401 to a wrong password.
        status @ (407 | 401) if status == 407 || proxy.authorization.is_some() => {
            Err(ProxyError::Authentication {
                proxy: proxy.to_string(),
                status,
                tried: proxy.authorization.is_some(),
                schemes: schemes(response.headers),
            })
        }
        status => Err(ProxyError::Refused {
            proxy: proxy.to_string(),
            target: target.to_owned(),
            status,
            reason: response.reason.unwrap_or_default().escape_default().to_string(),
        }),
    }
}

/// The first word of each challenge.
fn schemes(headers: &[httparse::Header<'_>]) -> Vec<String> {
    let challenges = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"));
    let words = challenges.filter_map(|header| header.value.split(|byte| *byte == b' ').next());
    words.map(|word| word.escape_ascii().to_string()).collect()
}

/// A network whose connections go through a proxy where the settings say so. It listens without one.
#[derive(Clone, Debug)]
pub struct ProxyNetwork {
    network: Arc<dyn Network>,
    settings: ProxySettings,
}

impl ProxyNetwork {
    /// `network` makes the connections, those to the proxy too.
    pub fn new(network: Arc<dyn Network>, settings: ProxySettings) -> Self {
        Self { network, settings }
    }
}

impl Network for ProxyNetwork {
    /// The errors of a proxy are [`ProxyError`]s inside of what this returns.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        match self.settings.proxy_for(address) {
            None => self.network.connect(address),
            Some(proxy) => Box::pin(async move { Ok(connect(&*self.network, proxy, address).await?) }),
        }
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.network.listen(address)
    }

    /// No UDP goes through a proxy of this kind, so these are the network's own.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.network.resolve(address)
    }

    fn local_address(&self, peer: IpAddr) -> Option<IpAddr> {
        self.network.local_address(peer)
    }

    fn max_udp_payload_size(&self, peer: SocketAddr) -> Option<u16> {
        self.network.max_udp_payload_size(peer)
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        self.network.bind_udp(address)
    }
}
