//! What comes to the hub's port over UDP and should not get in: garbage, packets cut short, versions that nobody speaks,
//! handshakes that stop half way, floods, and certificates that do not do. The next honest device gets in, over QUIC.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::World;
use common::honest::{Honest, SOON};
use common::log::Log;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit};
use rustls::ClientConfig;
use rustls::version::TLS13;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use towline::core::Limits;
use towline::policy::AllowAll;
use towline::{Device, EndpointConfig, Hub, HubConfig, OpenError, Route, Service, Transport, link_config};
use towline_transports::Side;
use towline_transports::quic::{self, ALPN_QUIC, AsyncUdpSocket, Endpoint, RETRY_FROM, Runtime};
use towline_transports::tls::{self, Credentials};

/// How long a datagram of a client's first flight is (RFC 9000 §14.1).
const INITIAL: usize = 1200;

/// A way that goes by QUIC.
fn by_quic(world: &World, who: &str, honest: &Honest) -> EndpointConfig {
    let route = Route { transport: Some(Transport::Quic), ..Route::default() };
    EndpointConfig { route, ..world.endpoint(who, &honest.hub) }
}

/// A newcomer gets in by QUIC, and those who were here are served as before.
async fn honest_get_in(world: &World, honest: &Honest) {
    let config = by_quic(world, "service/newcomer", honest);
    let service = Service::new(config, world.environment.clone()).unwrap();
    honest.is_served(&service).await;
    let config = by_quic(world, "device/newcomer", honest);
    let device = Device::register(config, world.environment.clone()).unwrap();
    common::online(&device).await;
    honest.check().await;
}

/// A socket that sends to the hub.
async fn stranger(honest: &Honest) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(honest.hub.local_addr()).await.unwrap();
    socket
}

/// All that a client that wants in sends first, which has never reached anybody. It offers no key exchange that takes more
/// than one datagram.
async fn initial(world: &World) -> Vec<u8> {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    let mut provider = (*world.environment.tls.provider).clone();
    provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519);
    let environment = tls::Environment { provider: provider.into(), ..world.environment.tls.clone() };
    let endpoint = Endpoint::new(udp(), None, &environment).unwrap();
    let config = client_config(world, &environment);
    let connect =
        tokio::spawn(async move { endpoint.connect(address, "127.0.0.1", &config).await.map(|_| ()) });
    let mut datagram = vec![0; 2048];
    let length = timeout(SOON, nobody.recv(&mut datagram)).await.unwrap().unwrap();
    connect.abort();
    datagram.truncate(length);
    datagram
}

fn client_config(world: &World, environment: &tls::Environment) -> quic::ClientConfig {
    let credentials = world.credentials("device/stranger");
    quic::client_config(credentials, environment, link_config(Side::Client)).unwrap()
}

fn udp() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// The next datagram from the hub.
async fn answer(socket: &UdpSocket) -> Vec<u8> {
    let mut datagram = vec![0; 2048];
    let length = timeout(SOON, socket.recv(&mut datagram)).await.expect("the hub answers").unwrap();
    datagram.truncate(length);
    datagram
}

/// The connection ids of a packet with a long header: the receiver's, the sender's (RFC 9000 §17.2).
fn connection_ids(packet: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = packet[5..].split_first().unwrap();
    let (to, rest) = rest.split_at((*length).into());
    let (length, rest) = rest.split_first().unwrap();
    (to, &rest[..usize::from(*length)])
}

#[tokio::test]
async fn garbage_and_packets_cut_short_lead_to_nothing() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let socket = stranger(&honest).await;
    let initial = initial(&world).await;
    assert!(initial.len() >= INITIAL);
    for cut in (0..initial.len()).step_by(37) {
        socket.send(&initial[..cut]).await.unwrap();
    }
    let mut random = 0x1234_5678_9abc_def1_u64;
    for round in 0..200 {
        let mut noise = if round % 2 == 0 { initial.clone() } else { vec![0; INITIAL] };
        // Headers that look right, and what they protect does not.
        for byte in noise.iter_mut().skip(if round % 2 == 0 { 40 } else { 0 }) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *byte = random.to_le_bytes()[0];
        }
        socket.send(&noise).await.unwrap();
    }
    honest_get_in(&world, &honest).await;
    common::until(|| honest.hub.stats().unauthenticated == 0).await;
}

#[tokio::test]
async fn a_version_that_nobody_speaks_is_answered_with_those_that_are_spoken() {
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    let socket = stranger(&honest).await;
    // RFC 9000 §15: a version of this form is spoken by nobody.
    let header = [0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 4, 1, 2, 3, 4, 4, 5, 6, 7, 8];
    let mut datagram = header.to_vec();
    datagram.resize(INITIAL, 0);
    socket.send(&datagram).await.unwrap();
    let answer = answer(&socket).await;
    assert!(answer[0] & 0x80 != 0 && answer[1..5] == [0; 4], "a Version Negotiation packet: {answer:02x?}");
    assert_eq!(connection_ids(&answer), (&[5, 6, 7, 8][..], &[1, 2, 3, 4][..]), "for this client");
    let versions: Vec<_> = answer[15..].chunks(4).collect();
    assert!(versions.contains(&&[0, 0, 0, 1][..]), "QUIC version 1 is among {versions:02x?}");
    honest_get_in(&world, &honest).await;
}

/// Whoever sends in another's name makes the hub send that one three times as much, and what a datagram that was begun
/// before that point takes (RFC 9000 §8.1; quinn does not cut it short), however much the hub has to say.
#[tokio::test]
async fn an_address_that_proves_nothing_gets_little_more_than_it_sent() {
    let world = World::new();
    let mut credentials = world.credentials("hub/h");
    // Nobody needs the rest of this chain, and all of it is sent.
    credentials.chain = vec![credentials.chain[0].clone(); 20];
    let chain: usize = credentials.chain.iter().map(|certificate| certificate.len()).sum();
    let config = HubConfig {
        listen: "127.0.0.1:0".to_owned(),
        credentials,
        limits: Limits::default().handshake(Duration::from_millis(500)),
        policy: Box::new(AllowAll),
        quic: true,
    };
    let hub = Hub::start(config, world.environment.clone()).await.unwrap();
    let honest = Honest::at(&world, hub).await;
    let socket = stranger(&honest).await;
    let initial = initial(&world).await;
    socket.send(&initial).await.unwrap();
    let mut received = answer(&socket).await.len();
    let listen = async {
        loop {
            received += answer(&socket).await.len();
        }
    };
    tokio::select! {
        biased;
        () = listen => {}
        () = common::until(|| honest.hub.stats().unauthenticated == 0) => {}
    }
    while let Ok(length) = socket.try_recv(&mut [0; 2048]) {
        received += length;
    }
    let bound = 3 * initial.len() + INITIAL;
    assert!(chain > bound, "there is more to say: {chain} bytes");
    assert!((initial.len()..bound).contains(&received), "{received} bytes for {}", initial.len());
    honest_get_in(&world, &honest).await;
}

/// A client that says hello to QUIC and no more has the handshake's time, and not the much longer one that an idle
/// connection has.
#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up_at_the_deadline() {
    let log = Log::new();
    let world = World::new();
    let limits = Limits::default().handshake(Duration::from_millis(300));
    let honest = Honest::new(&world, limits).await;
    log.take();
    let socket = stranger(&honest).await;
    socket.send(&initial(&world).await).await.unwrap();
    // It was taken in.
    answer(&socket).await;
    let given_up = common::until(|| honest.hub.stats().unauthenticated == 0);
    let idle = link_config(Side::Client).idle_timeout;
    timeout(idle * 2 / 3, given_up).await.expect("long before the idle timeout");
    let said = log.take();
    assert!(said.contains("no handshake in time"), "{said}");
    honest_get_in(&world, &honest).await;
}

/// A socket that hears nothing.
#[derive(Debug)]
struct Deaf(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [io::IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// From a hundred handshakes under way on, a newcomer first gets a Retry: the hub remembers nothing for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_the_hub_asks_newcomers_for_a_proof_of_their_address() {
    let world = World::new();
    // Nobody is given up while this runs.
    let honest = Honest::new(&world, Limits::default().handshake(Duration::from_secs(600))).await;
    let before = initial(&world).await;
    let socket = stranger(&honest).await;
    socket.send(&before).await.unwrap();
    assert_eq!(kind(&answer(&socket).await), "initial", "there is no load yet");

    let runtime = Arc::new(quinn::TokioRuntime);
    let deaf = Arc::new(Deaf(runtime.wrap_udp_socket(udp()).unwrap()));
    let endpoint = Endpoint::with_socket(deaf, runtime, None, &world.environment.tls).unwrap();
    let config = client_config(&world, &world.environment.tls);
    let address = honest.hub.local_addr();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..RETRY_FROM {
        waiting.spawn(endpoint.connect(address, "127.0.0.1", &config));
    }
    common::until(|| honest.hub.stats().unauthenticated >= RETRY_FROM).await;

    let socket = stranger(&honest).await;
    socket.send(&initial(&world).await).await.unwrap();
    assert_eq!(kind(&answer(&socket).await), "retry");
    // Whoever hears, answers, and is in.
    honest_get_in(&world, &honest).await;
}

/// What a packet with a long header is (RFC 9000 §17.2).
fn kind(packet: &[u8]) -> &'static str {
    // The second bit is not fixed any more (RFC 9287).
    assert!(packet[0] & 0x80 != 0 && packet[1..5] == [0, 0, 0, 1], "{packet:02x?}");
    ["initial", "0-RTT", "handshake", "retry"][usize::from(packet[0] >> 4 & 3)]
}

#[tokio::test]
async fn a_hub_that_stops_does_not_take_its_port_for_failed() {
    let log = Log::new();
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    honest.hub.drain(Duration::ZERO, Duration::ZERO).await;
    // What it has left behind hears of it.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let said = log.take();
    assert!(!said.contains("has failed"), "{said}");
}

#[tokio::test]
async fn who_has_no_certificate_hears_so() {
    let log = Log::new();
    let world = World::new();
    let honest = Honest::new(&world, Limits::default()).await;
    log.take();
    let tls::Environment { provider, time } = world.environment.tls.clone();
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(world.credentials("service/x").roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_QUIC.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, honest.hub.local_addr(), "127.0.0.1").unwrap();
    let closed = timeout(SOON, async { connecting.await.unwrap().closed().await }).await.unwrap();
    let quinn::ConnectionError::ConnectionClosed(close) = closed else { panic!("{closed}") };
    assert_eq!(u64::from(close.error_code), 0x100 + 116, "certificate_required (RFC 9001 §4.8)");
    common::until(|| honest.hub.stats().unauthenticated == 0).await;
    let said = log.take();
    assert!(said.contains("peer sent no certificates"), "{said}");
    honest_get_in(&world, &honest).await;
}

#[tokio::test]
async fn who_is_of_another_authority_hears_so() {
    let log = Log::new();
    let (world, elsewhere) = (World::new(), World::new());
    let honest = Honest::new(&world, Limits::default()).await;
    log.take();
    let mut config = by_quic(&world, "service/ops", &honest);
    let roots = config.credentials.roots;
    config.credentials = Credentials { roots, ..elsewhere.credentials("service/stranger") };
    let service = Service::new(config, world.environment.clone()).unwrap();
    let outcome = timeout(SOON, service.open("press-7", "echo")).await.unwrap();
    let Err(OpenError::Connect(error)) = outcome else { panic!("{outcome:?}") };
    let text = error.to_string();
    assert!(text.contains("refuses this end: the certificate is of an authority"), "{text}");
    common::until(|| honest.hub.stats().unauthenticated == 0).await;
    let said = log.take();
    assert!(said.contains("invalid peer certificate"), "{said}");
    honest_get_in(&world, &honest).await;
}
