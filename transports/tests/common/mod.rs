//! Two links over a pipe in memory, and certificates of a throw-away authority.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod tapped;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData,
};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::time_provider::DefaultTimeProvider;
use towline_transports::crypto;
use towline_transports::quic::{self, Endpoint};
use towline_transports::tls::{self, ALPN_LINK, Credentials, Environment, Hello};
use towline_transports::websocket::{self, SUBPROTOCOL_LINK};
use towline_transports::{
    Config, Link, Network, RecvStream, SendStream, Side, Socket, TcpNetwork, stream_pipe,
};

/// A service and a device over a pipe that holds `capacity` bytes in each direction.
pub fn pair(capacity: usize, config: Config) -> (Link, Link) {
    let (ours, theirs) = tokio::io::duplex(capacity);
    (Link::start(ours, Side::Client, config.clone()), Link::start(theirs, Side::Server, config))
}

/// Both halves of a stream, at one end.
pub type Halves = (SendStream, RecvStream);

/// A bidirectional stream with both ends in hand; the service has sent one byte, which the device has read.
pub async fn stream(service: &Link, device: &Link) -> (Halves, Halves) {
    let mut ours = service.open_bi().await.unwrap();
    ours.0.write_all(b"x").await.unwrap();
    let mut theirs = device.accept_bi().await.unwrap();
    assert_eq!(theirs.1.read_chunk(1).await.unwrap().unwrap(), "x");
    (ours, theirs)
}

/// Polls `future` once and drops it.
pub async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

/// Two ends over a pipe in memory.
pub async fn memory_pair(config: Config) -> (Link, Link, ()) {
    let (service, device) = pair(64 << 10, config);
    (service, device, ())
}

async fn sockets() -> (Box<dyn Socket>, Box<dyn Socket>) {
    let mut listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (ours, theirs) = tokio::join!(TcpNetwork.connect(&address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

/// Two ends over TCP.
pub async fn tcp_pair(config: Config) -> (Link, Link, ()) {
    let (ours, theirs) = sockets().await;
    let service = Link::start(ours, Side::Client, config.clone());
    (service, Link::start(theirs, Side::Server, config), ())
}

/// Two ends over TLS.
pub async fn tls_pair(config: Config) -> (Link, Link, ()) {
    let authority = Authority::new();
    let client = tls::client_config(authority.issue("device"), &[ALPN_LINK], &environment()).unwrap();
    let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
    let (ours, theirs) = sockets().await;
    let name = "hub.test".try_into().unwrap();
    let (ours, theirs) = tokio::join!(tls::connect(ours, name, client), tls::accept(theirs, server));
    let service = Link::over_tls(ours.unwrap(), Side::Client, config.clone());
    (service, Link::over_tls(theirs.unwrap(), Side::Server, config), ())
}

/// Two ends over WebSocket, as to a hub: TLS with certificates on both sides, inside of messages, inside of the TLS of
/// any web server.
pub async fn websocket_pair(config: Config) -> (Link, Link, ()) {
    let authority = Authority::new();
    let Credentials { chain, key, roots } = authority.issue("hub.test");
    let outer_client = websocket::outer_client_config(roots, &environment()).unwrap();
    let outer_server = websocket::outer_server_config(chain, key, &environment()).unwrap();
    let client = tls::client_config(authority.issue("device"), &[ALPN_LINK], &environment()).unwrap();
    let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
    let (ours, theirs) = sockets().await;
    let connect = async {
        let pipe =
            websocket::connect_outer(ours, "hub.test".try_into().unwrap(), outer_client).await.unwrap();
        let pipe = websocket::connect(pipe, "hub.test", "/link", SUBPROTOCOL_LINK).await.unwrap();
        tls::connect(pipe, "hub.test".try_into().unwrap(), client).await.unwrap()
    };
    let accept = async {
        let hello = Hello::read(theirs, BytesMut::new()).await.unwrap();
        let pipe = websocket::accept_outer(hello, outer_server).await.unwrap();
        let pipe = websocket::accept(pipe, "/link", &[SUBPROTOCOL_LINK]).await.unwrap();
        tls::accept(pipe, server).await.unwrap()
    };
    let (ours, theirs) = tokio::join!(connect, accept);
    let service = Link::over_tls(ours, Side::Client, config.clone());
    (service, Link::over_tls(theirs, Side::Server, config), ())
}

/// Two ends over one stream of a QUIC link, and that link.
pub async fn quic_stream_pair(config: Config) -> (Link, Link, impl Send) {
    let (service, device, endpoint) = quic_pair(Config::default()).await;
    let (ours, theirs) = stream(&service, &device).await;
    let over_stream = |(send, recv), side| Link::start(stream_pipe(send, recv), side, config.clone());
    (over_stream(ours, Side::Client), over_stream(theirs, Side::Server), (service, device, endpoint))
}

/// A UDP socket on this machine.
pub fn socket() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// An endpoint that connects.
pub fn quic_client() -> Endpoint {
    Endpoint::new(socket(), None, &environment()).unwrap()
}

/// An endpoint that accepts.
pub fn quic_server(credentials: Credentials, limits: Config) -> Endpoint {
    let server = quic::server_config(credentials, &environment(), limits).unwrap();
    Endpoint::new(socket(), Some(server), &environment()).unwrap()
}

/// Two ends over QUIC, and the endpoint of the one that connected.
pub async fn quic_pair(config: Config) -> (Link, Link, Endpoint) {
    let authority = Authority::new();
    let server = quic_server(authority.issue("hub.test"), config.clone());
    let address = server.local_addr().unwrap();
    let client = quic_client();
    let limits = quic::client_config(authority.issue("device"), &environment(), config).unwrap();
    let accept = async { server.accept().await.unwrap().handshake().await.unwrap() };
    let connect = async { client.connect(address, "hub.test", &limits).await.unwrap() };
    let (ours, theirs) = tokio::join!(connect, accept);
    (ours.start(), theirs.start(), client)
}

pub fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

/// `count` bytes that differ from their neighbours.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|offset| u8::try_from(offset * 31 % 251).unwrap()).collect()
}

pub fn environment() -> Environment {
    Environment { provider: Arc::new(crypto::provider()), time: Arc::new(DefaultTimeProvider) }
}

/// An authority that vouches for whoever asks.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own, by its key: else a stranger's signature is taken for a bad one of this authority's.
        let name = key.der_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { issuer: Issuer::new(params, key), roots: Arc::new(roots) }
    }

    /// Credentials for `name`, for both ends of a connection. `change` may spoil them.
    pub fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Credentials {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            roots: self.roots.clone(),
        }
    }

    /// A certificate for `name` and its key, as files have them. OpenSSL reads this kind of key.
    pub fn issue_pem(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub fn issue(&self, name: &str) -> Credentials {
        self.issue_with(name, |_| ())
    }
}
