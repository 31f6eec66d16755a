//! What an end of a QUIC connection wants and allows.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TimeSource,
    TransportConfig, VarInt,
};
use rustls::crypto::SecureRandom;
use rustls::time_provider::TimeProvider;
use towline_engine::Config;

use super::ALPN_QUIC;
use crate::Network;
use crate::crypto::{hkdf, hmac};
use crate::tls::{self, ConfigError, Credentials, Environment};

/// What the end that connects needs. Made by [`client_config`].
#[derive(Clone)]
pub struct ClientConfig {
    quinn: quinn::ClientConfig,
    /// For a way that carries large datagrams.
    large: Arc<TransportConfig>,
    pub(super) limits: Arc<Config>,
    /// How many streams a link has at rest, if it is watched.
    pub(super) watched: Option<usize>,
}

impl ClientConfig {
    /// What quinn is told of a way that carries large datagrams, or does not.
    pub(super) fn for_way(&self, is_large: bool) -> quinn::ClientConfig {
        let mut quinn = self.quinn.clone();
        if is_large {
            quinn.transport_config(self.large.clone());
        }
        quinn
    }

    /// What quinn is told: for a simulator, which drives quinn's connections by itself.
    pub fn quinn(&self) -> &quinn::ClientConfig {
        &self.quinn
    }

    /// Watches each link: when nothing comes back, although the peer was asked, it ends as
    /// [`LinkClosed::Dark`](crate::LinkClosed::Dark). While it has more than `at_rest` streams, the peer is asked for a sign
    /// of life in each second in which nothing else comes from it, and given up within about 2 s; at rest, it is asked
    /// as often as the keepalive says, and given up about 2 s after it should have answered that.
    #[must_use]
    pub fn watched(mut self, at_rest: usize) -> Self {
        self.watched = Some(at_rest);
        self
    }
}

/// What the end that accepts needs. Made by [`server_config`].
#[derive(Clone)]
pub struct ServerConfig {
    pub(super) quinn: quinn::ServerConfig,
    /// The same, for a way that carries large datagrams.
    pub(super) large: Arc<quinn::ServerConfig>,
    pub(super) limits: Arc<Config>,
}

impl ServerConfig {
    /// What quinn is told: for a simulator, which drives quinn's connections by itself.
    pub fn quinn(&self) -> &quinn::ServerConfig {
        &self.quinn
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What the end that connects needs: who it is and whom it trusts, and the limits of its links.
///
/// # Errors
///
/// As [`tls::client_config`].
pub fn client_config(
    credentials: Credentials,
    environment: &Environment,
    limits: Config,
) -> Result<ClientConfig, ConfigError> {
    let tls = tls::client_config(credentials, &[ALPN_QUIC], environment)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| no_initial_suite())?;
    let mut quinn = quinn::ClientConfig::new(Arc::new(crypto));
    quinn.transport_config(Arc::new(transport(&limits)));
    let random = environment.provider.secure_random;
    quinn.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&entropy::<INITIAL_ID>(random))));
    let large = Arc::new(with_large_datagrams(transport(&limits)));
    Ok(ClientConfig { quinn, large, limits: Arc::new(limits), watched: None })
}

/// What the end that accepts needs. It asks for a certificate and takes no connection without one.
///
/// # Errors
///
/// As [`tls::server_config`].
pub fn server_config(
    credentials: Credentials,
    environment: &Environment,
    limits: Config,
) -> Result<ServerConfig, ConfigError> {
    let tls = tls::server_config(credentials, &[ALPN_QUIC], environment)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| no_initial_suite())?;
    let secret = entropy::<64>(environment.provider.secure_random);
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret);
    let mut quinn = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    quinn
        .transport_config(Arc::new(transport(&limits)))
        .time_source(Arc::new(Calendar(environment.time.clone())))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER * MAX_INCOMING as u64 / 8);
    let mut large = quinn.clone();
    large.transport_config(Arc::new(with_large_datagrams(transport(&limits))));
    Ok(ServerConfig { quinn, large: Arc::new(large), limits: Arc::new(limits) })
}

fn no_initial_suite() -> ConfigError {
    // QUIC's first packets are always under this one (RFC 9001 §5.2).
    ConfigError::Tls(rustls::Error::General("the provider has no TLS13_AES_128_GCM_SHA256".into()))
}

/// What an endpoint needs besides, drawn from the entropy that was handed in. An [`Endpoint`](super::Endpoint) sees to it by
/// itself; a simulator that has none needs it.
pub fn endpoint_config(environment: &Environment) -> EndpointConfig {
    let random = environment.provider.secure_random;
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &entropy::<64>(random));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.rng_seed(Some(entropy(random))).cid_generator(move || Box::new(RandomIds(random)));
    config
}

fn entropy<const COUNT: usize>(random: &dyn SecureRandom) -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    random.fill(&mut bytes).expect("who has no entropy cannot do TLS either");
    bytes
}

/// Makes up the ids of connections.
struct RandomIds(&'static dyn SecureRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&entropy::<ID>(self.0))
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The limits of a session, in QUIC's words.
///
/// A stream's window does not grow here, so it has its full size from the start. It is a promise, and takes no memory
/// before it is used.
fn transport(limits: &Config) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(varint(limits.max_streams_bidi.min(STREAMS_AT_FIRST)))
        .max_concurrent_uni_streams(varint(limits.max_streams_uni.min(STREAMS_AT_FIRST)))
        .stream_receive_window(varint(stream_window(limits)))
        .receive_window(varint(limits.session_window))
        .send_window(limits.send_buffer.max(limits.max_stream_window))
        .keep_alive_interval(limits.keep_alive)
        .max_idle_timeout(idle_timeout(limits.idle_timeout))
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        // Nobody sends datagrams on a link.
        .datagram_receive_buffer_size(None);
    transport
}

/// Looks for datagrams of up to [`LARGE_DATAGRAM`], and not just for what an Ethernet carries.
fn with_large_datagrams(mut transport: TransportConfig) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LARGE_DATAGRAM);
    transport.mtu_discovery_config(Some(discovery));
    transport
}

/// As large as a session's may grow: a reader that stalls then holds at most a quarter of the link's.
fn stream_window(limits: &Config) -> u64 {
    limits.max_stream_window.min(limits.session_window / 4).max(limits.stream_window)
}

/// `None` is never.
fn idle_timeout(timeout: Duration) -> Option<IdleTimeout> {
    let longest = || IdleTimeout::from(VarInt::MAX);
    (!timeout.is_zero()).then(|| IdleTimeout::try_from(timeout).unwrap_or_else(|_| longest()))
}

/// The number, or the largest that the wire can say.
pub(super) fn varint(number: u64) -> VarInt {
    VarInt::from_u64(number).unwrap_or(VarInt::MAX)
}

/// The date that was handed in.
struct Calendar(Arc<dyn TimeProvider>);

impl TimeSource for Calendar {
    fn now(&self) -> SystemTime {
        let since = self.0.current_time().map_or(0, |time| time.as_secs());
        SystemTime::UNIX_EPOCH + Duration::from_secs(since)
    }
}

/// How many streams of a kind the peer may have open at first. quinn keeps an entry for each that is allowed, open or
/// not, so the limit follows the use, up to that of the [`Config`].
pub(super) const STREAMS_AT_FIRST: u64 = 16;

/// How many bytes a datagram has at most on a way that carries more than an Ethernet, without the headers of UDP and IP.
/// What each costs is nearly the same, so the larger they are, the less a byte costs.
///
/// quinn hands the system ten at a time as one (UDP GSO), and more than 64 KiB at once the system drops, of which quinn
/// does not hear.
pub const LARGE_DATAGRAM: u16 = 6_500;

/// Whether the way to `peer` carries as much, as far as this machine can see. To look for more than it carries would be in
/// vain, and a peer could say that it had got it.
pub(super) fn carries_large_datagrams(network: &dyn Network, peer: SocketAddr) -> bool {
    network.max_udp_payload_size(peer).is_some_and(|size| size >= LARGE_DATAGRAM)
}

/// How many connections may wait for [`accept`](super::Endpoint::accept).
const MAX_INCOMING: usize = 1 << 10;

/// How many bytes may come for a connection that waits so: some flights of a handshake. All together may have an eighth
/// of that each, 8 MiB.
const INCOMING_BUFFER: u64 = 64 << 10;

/// How many bytes the id of a connection has. No two of an endpoint's are the same, nor can be guessed.
const ID: usize = 8;

/// How many bytes the id of a connection has that a client makes up for the first packet (RFC 9000 §7.2: 8 at least).
const INITIAL_ID: usize = 16;
