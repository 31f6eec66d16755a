//! A hub's certificate, key and authorities change while it runs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{World, echo, online, pattern, until};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use towline::{
    ConnectError, Device, EndpointConfig, Hub, OpenError, ReloadError, Route, Service, Transport, Tunnel,
};
use towline_transports::tls::{self, ALPN_LINK, Credentials};
use towline_transports::websocket::{self, SUBPROTOCOL_LINK};
use towline_transports::{Config, quic};

const SOON: Duration = Duration::from_secs(20);

const TRANSPORTS: [Transport; 3] = [Transport::Tls, Transport::Quic, Transport::WebSocket];

/// An endpoint with these credentials that goes one way.
fn by(transport: Transport, credentials: Credentials, hub: &Hub) -> EndpointConfig {
    let route = Route { transport: Some(transport), ..Route::default() };
    EndpointConfig { hub: hub.local_addr().to_string(), credentials, route }
}

/// A device that is online and gives back what it gets.
async fn serving(config: EndpointConfig, world: &World) {
    let device = Device::register(config, world.environment.clone()).unwrap();
    online(&device).await;
    echo(device);
}

/// The certificates that the hub shows on each way: TLS, QUIC, the outer and the inner TLS of a WebSocket.
async fn shown(world: &World, hub: &Hub) -> Vec<CertificateDer<'static>> {
    let (address, tls) = (hub.local_addr(), &world.environment.tls);
    let name = || ServerName::try_from("127.0.0.1").unwrap();
    let credentials = || world.credentials("service/looks");
    let leaf = |certificates: &[CertificateDer<'static>]| certificates[0].clone();
    let config = tls::client_config(credentials(), &[ALPN_LINK], tls).unwrap();
    let socket = || async { TcpStream::connect(address).await.unwrap() };
    let direct = tls::connect(socket().await, name(), config.clone()).await.unwrap();

    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = quic::Endpoint::new(client, None, tls).unwrap();
    let limits = quic::client_config(credentials(), tls, Config::default()).unwrap();
    let over_quic = client.connect(address, "127.0.0.1", &limits).await.unwrap();

    let outer = websocket::outer_client_config(credentials().roots, tls).unwrap();
    let outer = tls::connect(socket().await, name(), outer).await.unwrap();
    let outer_leaf = leaf(outer.peer_certificates());
    let pipe = websocket::connect(outer, &address.to_string(), "/towline", SUBPROTOCOL_LINK).await.unwrap();
    let inner = tls::connect(pipe, name(), config).await.unwrap();
    vec![
        leaf(direct.peer_certificates()),
        leaf(over_quic.peer_certificates()),
        outer_leaf,
        leaf(inner.peer_certificates()),
    ]
}

/// Writes one half of a pattern and reads it back.
async fn half(tunnel: &mut Tunnel, half: &[u8]) {
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let mut read = vec![0; half.len()];
    let (written, came) = tokio::join!(writer.write_all(half), reader.read_exact(&mut read));
    written.unwrap();
    came.unwrap();
    assert!(read == half);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_stay_and_newcomers_see_the_new_certificate() {
    let world = World::new();
    let (before, after) = (world.credentials("hub/h"), world.credentials("hub/h"));
    let hub = world.hub_of(before.clone()).await;
    let bytes = pattern(2 << 20);
    let (first, second) = bytes.split_at(1 << 20);
    let mut tunnels = Vec::new();
    for (n, transport) in TRANSPORTS.into_iter().enumerate() {
        let device = world.credentials(&format!("device/press-{n}"));
        serving(by(transport, device, &hub), &world).await;
        let config = by(transport, world.credentials("service/ops"), &hub);
        let service = Service::new(config, world.environment.clone()).unwrap();
        let mut tunnel = service.open(&format!("press-{n}"), "echo").await.unwrap();
        half(&mut tunnel, first).await;
        tunnels.push((tunnel, service));
    }
    assert_eq!(shown(&world, &hub).await, vec![before.chain[0].clone(); 4]);

    hub.reload(after.clone()).unwrap();
    assert_eq!(shown(&world, &hub).await, vec![after.chain[0].clone(); 4]);
    for (tunnel, _service) in &mut tunnels {
        half(tunnel, second).await;
        tunnel.shutdown().await.unwrap();
        assert_eq!(tunnel.read_to_end(&mut Vec::new()).await.unwrap(), 0, "an end, and nothing before it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_do_changes_nothing() {
    let world = World::new();
    let before = world.credentials("hub/h");
    let hub = world.hub_of(before.clone()).await;
    let good = || world.credentials("hub/h");
    let key_of_another = Credentials { key: good().key, ..good() };
    let nobody_trusted = Credentials { roots: Arc::new(RootCertStore::empty()), ..good() };
    let none = Credentials { chain: Vec::new(), ..good() };
    let garbage = Credentials { chain: vec![CertificateDer::from(vec![1, 2, 3])], ..good() };
    for bad in [key_of_another, nobody_trusted, none, garbage] {
        let error = hub.reload(bad).unwrap_err();
        assert!(matches!(error, ReloadError::Setup(_)), "{error}");
    }
    for other in [
        world.credentials("hub/other"),
        world.credentials("device/h"),
        world.credentials_in("elsewhere", "hub/h"),
    ] {
        let error = hub.reload(other).unwrap_err();
        assert!(matches!(error, ReloadError::OtherIdentity { .. }), "{error}");
    }
    let error = hub.reload(world.expired_credentials("hub/h")).unwrap_err();
    assert!(matches!(error, ReloadError::NotValidNow { .. }), "{error}");
    assert_eq!(shown(&world, &hub).await, vec![before.chain[0].clone(); 4]);
}

/// The hub keeps its certificate, which the endpoints of the old authority trust: so it is the hub that refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_of_an_authority_that_is_not_trusted_any_more_does_not_come_in() {
    let (old, new) = (World::new(), World::new());
    let hub = old.hub_of(old.credentials("hub/h")).await;
    serving(by(Transport::Tls, old.credentials("device/press-7"), &hub), &old).await;
    let service = |transport, credentials| {
        Service::new(by(transport, credentials, &hub), old.environment.clone()).unwrap()
    };
    let inside = service(Transport::Quic, old.credentials("service/inside"));
    let mut tunnel = inside.open("press-7", "echo").await.unwrap();

    let roots = new.credentials("hub/h").roots;
    hub.reload(Credentials { roots, ..old.credentials("hub/h") }).unwrap();
    for transport in TRANSPORTS {
        let outside = service(transport, old.credentials("service/ops"));
        let error = timeout(SOON, outside.open("press-7", "echo")).await.unwrap().unwrap_err();
        let is_refused = matches!(error, OpenError::Connect(ConnectError::CertificateRefused { .. }));
        assert!(is_refused, "{transport}: {error}");
        let newcomer =
            Credentials { roots: old.credentials("hub/h").roots, ..new.credentials("service/ops") };
        let newcomer = service(transport, newcomer);
        let mut tunnel = timeout(SOON, newcomer.open("press-7", "echo")).await.unwrap().unwrap();
        half(&mut tunnel, b"in").await;
    }
    // Whoever is inside stays.
    half(&mut tunnel, b"still here").await;
}

/// The port of UDP is taken when the hub starts, and freed later; what was loaded in between counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_whose_udp_port_was_taken_has_it_as_soon_as_it_is_free() {
    let world = World::new();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let hub =
        world.hub_with(&listen, towline::core::Limits::default(), Box::new(towline::policy::AllowAll)).await;
    assert!(!hub.has_quic());
    serving(by(Transport::Tls, world.credentials("device/press-7"), &hub), &world).await;
    let after = world.credentials("hub/h");
    hub.reload(after.clone()).unwrap();
    drop(taken);
    until(|| hub.has_quic()).await;
    let config = by(Transport::Quic, world.credentials("service/ops"), &hub);
    let service = Service::new(config, world.environment.clone()).unwrap();
    half(&mut service.open("press-7", "echo").await.unwrap(), b"over QUIC").await;
    assert_eq!(shown(&world, &hub).await, vec![after.chain[0].clone(); 4]);
}
