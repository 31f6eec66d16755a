//! Every way to a hub's one port: TLS, QUIC, WebSocket, through a proxy, and what those see who only look in.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{World, echo, online, pattern};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use towline::{ConnectError, Device, EndpointConfig, Hub, OpenError, Route, Service, Stage, Transport};
use towline_transports::proxy::ProxySettings;
use towline_transports::{tls, websocket};

const SOON: Duration = Duration::from_secs(20);

/// An endpoint that goes one way.
fn by(world: &World, who: &str, hub: &Hub, route: Route) -> EndpointConfig {
    EndpointConfig { route, ..world.endpoint(who, hub) }
}

fn only(transport: Transport) -> Route {
    Route { transport: Some(transport), ..Route::default() }
}

/// A device that is online and gives back what it gets.
async fn serving(config: EndpointConfig, world: &World) -> tokio::task::JoinHandle<()> {
    let device = Device::register(config, world.environment.clone()).unwrap();
    online(&device).await;
    echo(device)
}

/// Sends a megabyte there and back.
async fn carries(service: &Service) {
    let tunnel = service.open("press-7", "echo").await.unwrap();
    let (mut send, mut recv) = tunnel.into_split();
    let write = async {
        send.write_all(&pattern(1 << 20)).await.unwrap();
        send.finish().unwrap();
    };
    let ((), read) = tokio::join!(write, recv.read_to_end(2 << 20));
    assert!(read.unwrap() == pattern(1 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_carries_the_links_the_tunnel_is_the_same() {
    let world = World::new();
    let hub = world.hub().await;
    let transports = [Transport::Tls, Transport::Quic, Transport::WebSocket];
    for at_the_device in transports {
        let device = serving(by(&world, "device/press-7", &hub, only(at_the_device)), &world).await;
        for at_the_service in transports {
            let config = by(&world, "service/ops", &hub, only(at_the_service));
            let service = Service::new(config, world.environment.clone()).unwrap();
            carries(&service).await;
            service.close().await;
        }
        device.abort();
        let _ = device.await;
        common::until(|| hub.stats().devices == 0).await;
    }
}

/// A proxy that makes connections for whoever asks, and counts them.
async fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
                let mut hub = TcpStream::connect(target).await.unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = tokio::io::copy_bidirectional(&mut client, &mut hub).await;
            });
        }
    });
    (address, count)
}

/// What `why` finds with a proxy: each way works, and the proxy was used for the last two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_tells_of_every_way() {
    let world = World::new();
    let hub = world.hub().await;
    let (proxy, count) = proxy().await;
    let route = Route { proxy: ProxySettings::through(proxy.parse().unwrap()), ..Route::default() };
    let config = by(&world, "service/ops", &hub, route);
    let attempts = towline::why(config, world.environment.clone()).await.unwrap();
    let ways: Vec<_> = attempts.iter().map(|attempt| attempt.way.to_string()).collect();
    let all = ["tls", "quic", "websocket", "tls through the proxy", "websocket through the proxy"];
    assert_eq!(ways, all);
    for attempt in attempts {
        assert!(attempt.error.is_none() && attempt.stage == Stage::Authenticated, "{attempt:?}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

/// Nobody listens there: the error says so, and comes at once.
#[tokio::test]
async fn where_nobody_is_each_way_fails_and_says_how_far_it_got() {
    let world = World::new();
    let hub = world.hub().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let route = Route { transport: Some(Transport::Tls), ..Route::default() };
    let config = EndpointConfig { hub: nowhere, ..by(&world, "service/ops", &hub, route) };
    let attempts = towline::why(config.clone(), world.environment.clone()).await.unwrap();
    assert!(matches!(attempts[0].error, Some(ConnectError::Unreachable { .. })), "{attempts:?}");
    assert_eq!((attempts.len(), attempts[0].stage), (1, Stage::Nowhere));
    let service = Service::new(config, world.environment.clone()).unwrap();
    let outcome = tokio::time::timeout(SOON, service.open("press-7", "echo")).await.unwrap();
    assert!(matches!(outcome, Err(OpenError::Connect(ConnectError::Unreachable { .. }))), "{outcome:?}");
}

/// Nobody listens there for TCP or UDP, and who tries every way hears what TCP says, and not only that time is up.
#[tokio::test]
async fn who_tries_every_way_to_nobody_is_told_why() {
    let world = World::new();
    let hub = world.hub().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let config = EndpointConfig { hub: nowhere, ..world.endpoint("service/ops", &hub) };
    let service = Service::new(config, world.environment.clone()).unwrap();
    let outcome = tokio::time::timeout(SOON, service.open("press-7", "echo")).await.unwrap();
    assert!(matches!(outcome, Err(OpenError::Connect(ConnectError::Unreachable { .. }))), "{outcome:?}");
}

/// Everything that a peer says, after this was sent.
async fn answer(mut socket: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, said: &str) -> String {
    socket.write_all(said.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A peer that ends without a word of TLS about it has still said what it has.
    let _ = tokio::time::timeout(SOON, socket.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn http_without_tls_is_told_to_come_with_it() {
    let world = World::new();
    let hub = world.hub().await;
    let mut socket = TcpStream::connect(hub.local_addr()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n").await.unwrap();
    socket.shutdown().await.unwrap();
    let answer = answer(socket, "").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
}

/// A browser is asked for no certificate, and gets text.
#[tokio::test]
async fn a_browser_is_greeted() {
    let world = World::new();
    let hub = world.hub().await;
    let roots = world.credentials("service/ops").roots;
    let config = websocket::outer_client_config(roots, &world.environment.tls).unwrap();
    for (path, status) in [("/", "200 "), ("/towline", "426 "), ("/nothing", "404 ")] {
        let socket = TcpStream::connect(hub.local_addr()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let pipe = tls::connect(socket, name, config.clone()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n");
        let answer = answer(pipe, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}
