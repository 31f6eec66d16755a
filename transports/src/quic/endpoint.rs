//! A UDP socket, and the connections on it until they are links.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::crypto::rustls::HandshakeData;
use quinn::{AsyncUdpSocket, Runtime};
use rustls::pki_types::CertificateDer;
use towline_engine::{Code, Config};

use super::config::{ClientConfig, LARGE_DATAGRAM, ServerConfig, carries_large_datagrams, endpoint_config};
use super::error::{handshake_error, other_protocol, varint_of};
use super::socket::Frugal;
use super::{ALPN_QUIC, link};
use crate::network::{self, unspecified, wrap_udp};
use crate::tls::{Environment, HandshakeError};
use crate::{Link, Network};

/// From how many handshakes under way on, a newcomer must first show that its address is its own (a Retry, RFC 9000
/// §8.1.2), which costs it a round trip, and this end nothing that it would have to remember.
pub const RETRY_FROM: usize = 100;

/// One UDP socket, on which connections are made and accepted. Cloning it gives another handle to the same endpoint.
///
/// Its connections live on when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    limits: Arc<Config>,
    /// How many handshakes of others are under way.
    under_way: Arc<AtomicUsize>,
    retry_from: usize,
    /// Knows how large a datagram the way to a peer carries.
    network: Option<Arc<dyn Network>>,
    /// What those are accepted with whose way carries large ones.
    large: Arc<Mutex<Option<Arc<quinn::ServerConfig>>>>,
}

impl Endpoint {
    /// An endpoint on a socket of the system's; with a `server` it accepts connections. It runs in tasks of its own,
    /// on the runtime that this is called in. Under load, what the socket's buffers do not hold is lost, and sent again.
    ///
    /// # Errors
    ///
    /// The socket does not do.
    pub fn new(
        socket: UdpSocket,
        server: Option<ServerConfig>,
        environment: &Environment,
    ) -> io::Result<Self> {
        let (socket, runtime) = wrap_udp(socket)?;
        Self::with_socket(socket, runtime, server, environment)
    }

    /// As [`new`](Self::new), on any socket, with any runtime: for simulators.
    ///
    /// With a `server`, datagrams of up to [`LARGE_DATAGRAM`](super::LARGE_DATAGRAM) may come; without, those that an Ethernet
    /// carries.
    ///
    /// # Errors
    ///
    /// The socket does not know its address.
    pub fn with_socket(
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
        server: Option<ServerConfig>,
        environment: &Environment,
    ) -> io::Result<Self> {
        let takes_large_datagrams = server.is_some();
        Self::build((socket, runtime), server, takes_large_datagrams, environment)
    }

    /// An endpoint that only connects, on a socket of `network` for reaching `peer`, and is [`over`](Self::over) that network.
    ///
    /// # Errors
    ///
    /// As [`Network::bind_udp`].
    pub fn towards(
        network: Arc<dyn Network>,
        peer: SocketAddr,
        environment: &Environment,
    ) -> io::Result<Self> {
        let socket = network.bind_udp(unspecified(peer.ip()))?;
        let takes_large_datagrams = carries_large_datagrams(&*network, peer);
        Ok(Self::build(socket, None, takes_large_datagrams, environment)?.over(network))
    }

    /// Asks `network` how large a datagram the way to a peer carries. Where that is more than an Ethernet, datagrams may have
    /// up to [`LARGE_DATAGRAM`](super::LARGE_DATAGRAM) bytes; whether they do, the rest of the path and the peer decide.
    #[must_use]
    pub fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network: Some(network), ..self }
    }

    fn build(
        (socket, runtime): network::UdpSocket,
        server: Option<ServerConfig>,
        takes_large_datagrams: bool,
        environment: &Environment,
    ) -> io::Result<Self> {
        let limits = server.as_ref().map(|server| server.limits.clone()).unwrap_or_default();
        let large = server.as_ref().map(|server| server.large.clone());
        let mut config = endpoint_config(environment);
        if takes_large_datagrams {
            config.max_udp_payload_size(LARGE_DATAGRAM).expect("QUIC allows between 1,200 and 65,527");
        }
        let socket = Arc::new(Frugal::new(socket, config.get_max_udp_payload_size()));
        let inner = quinn::Endpoint::new_with_abstract_socket(
            config,
            server.map(|server| server.quinn),
            socket,
            runtime,
        )?;
        Ok(Self {
            inner,
            limits,
            under_way: Arc::default(),
            retry_from: RETRY_FROM,
            network: None,
            large: Arc::new(Mutex::new(large)),
        })
    }

    /// Asks newcomers for a proof of their address from this many handshakes under way on, rather than from
    /// [`RETRY_FROM`].
    #[must_use]
    pub fn retry_from(mut self, handshakes: usize) -> Self {
        self.retry_from = handshakes;
        self
    }

    /// Connects to the server called `name` at `address`. It takes as long as it takes, up to the idle timeout;
    /// cancelling it ends the attempt.
    ///
    /// # Errors
    ///
    /// The peer is not there, not who it should be, or does not speak [`ALPN_QUIC`]. That it refuses this end's
    /// certificate comes later, as the end of the link: [`LinkClosed::Lost`](crate::LinkClosed::Lost) with an error
    /// that [`tls::refused_certificate`](crate::tls::refused_certificate) reads.
    pub fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        config: &ClientConfig,
    ) -> impl Future<Output = Result<Connection, HandshakeError>> + Send + use<> {
        let is_large = self.has_large_datagrams(address);
        let connecting = self.inner.connect_with(config.for_way(is_large), address, name);
        let (limits, watched) = (config.limits.clone(), config.watched);
        async move {
            let impossible = |error| HandshakeError::Io(io::Error::new(io::ErrorKind::InvalidInput, error));
            let connection = connecting.map_err(impossible)?.await.map_err(handshake_error)?;
            Connection::checked(connection, limits, watched)
        }
    }

    /// The next connection that somebody wants. `None` once the endpoint is closed. Cancel-safe.
    ///
    /// It has not shaken hands; [`Incoming::handshake`] does, in a task of its own, so that a slow peer keeps nobody
    /// else waiting.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let inner = self.inner.accept().await?;
            if self.under_way.load(Ordering::Relaxed) < self.retry_from || inner.remote_address_validated() {
                let under_way = UnderWay::new(self.under_way.clone());
                let is_large = self.has_large_datagrams(inner.remote_address());
                let large = if is_large { self.large().clone() } else { None };
                return Some(Incoming { inner, limits: self.limits.clone(), large, under_way });
            }
            tracing::debug!(address = %inner.remote_address(), "asked for a proof of its address");
            // Whoever showed no proof may be asked for one.
            let _ = inner.retry();
        }
    }

    /// Accepts connections as `server` says from now on. Those that are up stay as they are; and so do the limits.
    pub fn set_server(&self, server: &ServerConfig) {
        self.inner.set_server_config(Some(server.quinn.clone()));
        *self.large() = Some(server.large.clone());
    }

    fn large(&self) -> MutexGuard<'_, Option<Arc<quinn::ServerConfig>>> {
        self.large.lock().expect("nothing panics while it holds the lock")
    }

    fn has_large_datagrams(&self, peer: SocketAddr) -> bool {
        self.network.as_deref().is_some_and(|network| carries_large_datagrams(network, peer))
    }

    /// Goes on with another socket, for instance after this machine's address has changed; connections that this end
    /// made move along, and lose nothing but the time.
    ///
    /// # Errors
    ///
    /// The socket does not do. The old one stays.
    pub fn rebind(&self, socket: UdpSocket) -> io::Result<()> {
        self.inner.rebind_abstract(wrap_udp(socket)?.0)
    }

    /// As [`rebind`](Self::rebind), with any socket.
    ///
    /// # Errors
    ///
    /// The socket does not know its address. The old one stays.
    pub fn rebind_with_socket(&self, socket: Arc<dyn AsyncUdpSocket>) -> io::Result<()> {
        self.inner.rebind_abstract(socket)
    }

    /// Where its socket is.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Ends all of its connections at once, without waiting for what is on its way, and accepts no more.
    pub fn close(&self, code: Code, reason: &str) {
        self.inner.close(varint_of(code), reason.as_bytes());
    }

    /// Waits until all of its connections are over and their peers can be taken to know. Cancel-safe.
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}

/// One handshake under way.
#[derive(Debug)]
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that somebody wants. Dropping it refuses.
#[derive(Debug)]
pub struct Incoming {
    inner: quinn::Incoming,
    limits: Arc<Config>,
    /// What it is accepted with, if its way carries large datagrams.
    large: Option<Arc<quinn::ServerConfig>>,
    under_way: UnderWay,
}

impl Incoming {
    /// Where it comes from, or says that it does: see [`is_address_proven`](Self::is_address_proven).
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Whether whoever asks has shown that it gets what is sent to its address.
    pub fn is_address_proven(&self) -> bool {
        self.inner.remote_address_validated()
    }

    /// Shakes hands. It takes as long as the peer lets it, up to the idle timeout: the deadline is the caller's.
    /// Cancelling it ends the attempt.
    ///
    /// # Errors
    ///
    /// The peer shows no acceptable certificate, or does not speak [`ALPN_QUIC`].
    pub async fn handshake(self) -> Result<Connection, HandshakeError> {
        let Self { inner, limits, large, under_way } = self;
        let connecting = match large {
            Some(large) => inner.accept_with(large),
            None => inner.accept(),
        };
        let connection = connecting.map_err(handshake_error)?.await.map_err(handshake_error)?;
        drop(under_way);
        Connection::checked(connection, limits, None)
    }

    /// Says no, without a reason.
    pub fn refuse(self) {
        self.inner.refuse();
    }
}

/// A connection that has shaken hands: both ends have shown who they are.
///
/// Dropping it closes it with code 0.
#[derive(Debug)]
pub struct Connection {
    inner: quinn::Connection,
    limits: Arc<Config>,
    watched: Option<usize>,
    peer_certificates: Vec<CertificateDer<'static>>,
}

impl Connection {
    fn checked(
        inner: quinn::Connection,
        limits: Arc<Config>,
        watched: Option<usize>,
    ) -> Result<Self, HandshakeError> {
        let data = inner.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let alpn = data.and_then(|data| data.protocol);
        if alpn.as_deref() != Some(ALPN_QUIC) {
            return Err(other_protocol(alpn.as_deref()));
        }
        let identity = inner.peer_identity().and_then(|identity| identity.downcast().ok());
        let peer_certificates = identity.map(|certificates| *certificates).unwrap_or_default();
        Ok(Self { inner, limits, watched, peer_certificates })
    }

    /// The peer's certificate, and those between it and the authority.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// Where the peer is now.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Makes it a link, with the limits of its [`ClientConfig`] or [`ServerConfig`]. It has a task of its own, on the
    /// runtime that this is called in.
    pub fn start(self) -> Link {
        let limits = self.limits.clone();
        self.start_with(&limits)
    }

    /// Makes it a link whose peer may open as many streams as `limits` say, and send as much ahead of the readers of
    /// all: for an end that learns only now who the peer is, and has promised little before. What was promised before
    /// holds if it is more, and the window of a stream stays what it was.
    pub fn start_with(self, limits: &Config) -> Link {
        Link::over_quic(link::Link::start(self.inner, &self.limits, limits, self.watched))
    }
}
