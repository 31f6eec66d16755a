//! What an endpoint meets on its way that is no hub, or does not behave: proxies that agree and then say nothing, web
//! servers, peers that hang at every step. Each way ends by its deadline, and says how far it got and why it got no
//! further. The network is in memory, but for QUIC, and the clock stands still while somebody works.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use common::World;
use common::memory::{MemoryNetwork, MemorySocket};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::UdpSocket;
use towline::{Attempt, CONNECT_DEADLINE, EndpointConfig, Route, Service, Stage, Transport};
use towline_transports::Pipe;
use towline_transports::proxy::ProxySettings;
use towline_transports::tls::{Credentials, Hello};
use towline_transports::websocket::{self, SUBPROTOCOL_LINK};

const HUB: &str = "127.0.0.1:443";
const PROXY: &str = "10.0.0.1:8888";

/// What comes of a way to the hub, if whoever takes the connection does `script` with it.
async fn tried<F: Future<Output = ()> + Send + 'static>(
    world: &World,
    transport: Transport,
    proxied: bool,
    script: impl Fn(MemorySocket) -> F + Send + 'static,
) -> Attempt {
    let network = Arc::new(MemoryNetwork::new());
    let mut environment = world.environment.clone();
    environment.network = network.clone();
    let proxy =
        if proxied { ProxySettings::through(PROXY.parse().unwrap()) } else { ProxySettings::direct() };
    let route = Route { transport: Some(transport), proxy, ..Route::default() };
    let credentials = world.credentials("device/press-7");
    let config = EndpointConfig { hub: HUB.to_owned(), credentials, route };
    let peer = tokio::spawn(async move {
        loop {
            let (address, socket) = network.accept().await;
            // The direct way, where it is not the one that is looked at, leads to nobody.
            if proxied == (address == PROXY) {
                tokio::spawn(script(socket));
            }
        }
    });
    let attempts = towline::why(config, environment).await.unwrap();
    peer.abort();
    attempts.into_iter().find(|attempt| attempt.way.proxied == proxied).unwrap()
}

/// That it got as far as `stage`, and failed by the deadline with this word. Whoever hangs takes all the time.
fn assert_failed(attempt: &Attempt, what: &str, stage: Stage, hangs: bool, word: &str) {
    let error = attempt.error.as_ref().unwrap_or_else(|| panic!("{what}: {attempt:?}")).to_string();
    assert_eq!(attempt.stage, stage, "{what}: {error}");
    assert!(error.contains(word), "{what}: {error}");
    assert!(error.contains(HUB), "{what}: it names the hub: {error}");
    assert_eq!(attempt.took >= CONNECT_DEADLINE, hangs, "{what}: {:?}", attempt.took);
    assert!(attempt.took <= CONNECT_DEADLINE + std::time::Duration::from_secs(1), "{what}");
}

/// Takes what comes, and says nothing.
async fn hangs(mut socket: impl AsyncRead + Unpin) {
    let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
}

/// Says this, and then hangs or hangs up.
async fn says(mut socket: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8], stays: bool) {
    let _ = socket.write_all(bytes).await;
    let _ = socket.flush().await;
    if stays {
        hangs(socket).await;
    } else {
        let _ = socket.shutdown().await;
    }
}

/// Reads up to the end of an HTTP head.
async fn head(socket: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    head
}

/// Agrees to connect, as a proxy.
async fn agrees(mut socket: MemorySocket) -> MemorySocket {
    let request = head(&mut socket).await;
    assert!(request.starts_with(format!("CONNECT {HUB} ").as_bytes()));
    socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    socket
}

const HANDSHAKE_HEADER: &[u8] = &[0x16, 0x03, 0x03, 0x00, 0x7a, 0x02, 0x00];
const ALERT: &[u8] = &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28];
const TIMED_OUT: &str = "did not answer within 10 s";
const NOT_A_HUB: &str = "is not a hub that this end trusts: the TLS handshake failed";
const NO_HANDSHAKE: &str = "did not shake hands";

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_no_tls_server_is_told_from_one_that_hangs() {
    let world = World::new();
    let cases: [(&str, &[u8], bool, bool, &str); 7] = [
        ("silence", b"", true, true, TIMED_OUT),
        ("half a record", HANDSHAKE_HEADER, true, true, TIMED_OUT),
        ("an end", b"", false, false, NO_HANDSHAKE),
        ("half a record and an end", HANDSHAKE_HEADER, false, false, NO_HANDSHAKE),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n", true, false, NOT_A_HUB),
        ("HTTP without TLS", b"HTTP/1.1 400 Bad Request\r\n\r\n", true, false, NOT_A_HUB),
        ("an alert", ALERT, true, false, NOT_A_HUB),
    ];
    for (what, bytes, stays, hangs, word) in cases {
        for transport in [Transport::Tls, Transport::WebSocket] {
            let attempt = tried(&world, transport, false, move |socket| says(socket, bytes, stays)).await;
            assert_failed(&attempt, &format!("{what}, {transport}"), Stage::Connected, hangs, word);
        }
    }
}

/// The same through a proxy that says 200, and then is not the hub's voice.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_agrees_and_then_sends_garbage_or_hangs() {
    let world = World::new();
    let cases: [(&str, &[u8], bool, bool, &str); 5] = [
        ("silence", b"", true, true, TIMED_OUT),
        ("half a record", HANDSHAKE_HEADER, true, true, TIMED_OUT),
        ("an end", b"", false, false, NO_HANDSHAKE),
        ("a page", b"<html><body>Welcome to our wireless network</body></html>", true, false, NOT_A_HUB),
        ("an alert", ALERT, true, false, NOT_A_HUB),
    ];
    for (what, bytes, stays, hangs, word) in cases {
        for transport in [Transport::Tls, Transport::WebSocket] {
            let script = move |socket| async move { says(agrees(socket).await, bytes, stays).await };
            let attempt = tried(&world, transport, true, script).await;
            assert_failed(&attempt, &format!("{what}, {transport}"), Stage::Connected, hangs, word);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_takes_the_connection_and_says_nothing_is_named() {
    let world = World::new();
    for transport in [Transport::Tls, Transport::WebSocket] {
        let attempt = tried(&world, transport, true, hangs).await;
        let word = format!("the proxy {PROXY} does not answer");
        assert_failed(&attempt, &transport.to_string(), Stage::Proxy, true, &word);
    }
}

/// Direct ways fail at once, and through the proxy there is a WebSocket in which nobody says anything: that is what is told.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_it_counts_how_far_those_are_that_have_not_failed() {
    let world = World::new();
    let network = Arc::new(MemoryNetwork::new());
    let mut environment = world.environment.clone();
    environment.network = network.clone();
    let route = Route { proxy: ProxySettings::through(PROXY.parse().unwrap()), ..Route::default() };
    let config = EndpointConfig { hub: HUB.to_owned(), credentials: world.credentials("service/ops"), route };
    let outer = outer(&world);
    tokio::spawn(async move {
        loop {
            let (address, socket) = network.accept().await;
            let outer = outer.clone();
            if address == PROXY {
                tokio::spawn(async move {
                    let hello = Hello::read(agrees(socket).await, BytesMut::new()).await.unwrap();
                    // Who wants a link is left alone.
                    if let Ok(pipe) = websocket::accept_outer(hello, outer).await {
                        upgrades(pipe, SUBPROTOCOL_LINK, b"", true).await;
                    }
                });
            }
        }
    });
    let service = Service::new(config, environment).unwrap();
    let error = service.open("press-7", "echo").await.unwrap_err().to_string();
    assert!(error.contains(TIMED_OUT), "{error}");
}

fn outer(world: &World) -> Arc<ServerConfig> {
    let Credentials { chain, key, .. } = world.credentials("hub/h");
    websocket::outer_server_config(chain, key, &world.environment.tls).unwrap()
}

async fn accept_outer(socket: MemorySocket, outer: Arc<ServerConfig>) -> impl Pipe + use<> {
    let hello = Hello::read(socket, BytesMut::new()).await.unwrap();
    websocket::accept_outer(hello, outer).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_web_server_that_gives_no_websocket_says_why_or_hangs() {
    let world = World::new();
    let outer = outer(&world);
    let cases: [(&str, &[u8], bool, &str); 6] = [
        ("silence", b"", true, TIMED_OUT),
        ("half a head", b"HTTP/1.1 101 Switching Proto", true, TIMED_OUT),
        ("garbage", b"\x00\x01\x02\x03 no HTTP at all\r\n\r\n", false, "does not speak WebSocket"),
        (
            "a refusal",
            b"HTTP/1.1 403 Forbidden\r\nServer: gate\r\nContent-Length: 0\r\n\r\n",
            false,
            "gate answered the request for a WebSocket with 403 Forbidden",
        ),
        (
            "an upgrade that is not ours",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            false,
            "does not speak WebSocket",
        ),
        ("a page", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, "with 200 OK"),
    ];
    for (what, bytes, hangs, word) in cases {
        let outer = outer.clone();
        let script = move |socket| {
            let outer = outer.clone();
            async move {
                let mut pipe = accept_outer(socket, outer).await;
                head(&mut pipe).await;
                says(pipe, bytes, true).await;
            }
        };
        let attempt = tried(&world, Transport::WebSocket, false, script).await;
        assert_failed(&attempt, what, Stage::Outer, hangs, word);
    }
}

/// Gives the peer at the other end of `pipe` the WebSocket that it asks for, and then says these frames.
async fn upgrades(
    mut pipe: impl AsyncRead + AsyncWrite + Unpin,
    subprotocol: &'static str,
    frames: &[u8],
    stays: bool,
) {
    let request = head(&mut pipe).await;
    // The library's end of it, for the answer.
    let (mut ours, theirs) = duplex(4096);
    ours.write_all(&request).await.unwrap();
    let upgraded = websocket::accept(theirs, "/towline", &[subprotocol]).await;
    let mut answer = head(&mut ours).await;
    if upgraded.is_err() {
        ours.read_to_end(&mut answer).await.unwrap();
    }
    pipe.write_all(&answer).await.unwrap();
    says(pipe, frames, stays).await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_peer_that_hangs_or_talks_nonsense_after_the_upgrade() {
    let world = World::new();
    let outer = outer(&world);
    let cases: [(&str, &[u8], bool, bool, &str); 9] = [
        ("silence", b"", true, true, TIMED_OUT),
        ("half a frame", &[0x82, 0x10, 0x16], true, true, TIMED_OUT),
        ("half a record in a frame", &[0x82, 0x03, 0x16, 0x03, 0x03], true, true, TIMED_OUT),
        ("text", b"\x81\x05hello", true, false, "WebSocket message of text"),
        ("an opcode without a meaning", &[0x83, 0x00], true, false, NO_HANDSHAKE),
        ("a message that is too large", &[0x82, 0x7f, 0, 0, 0, 1, 0, 0, 0, 0], true, false, NO_HANDSHAKE),
        ("garbage in a message", b"\x82\x05hello", true, false, NOT_A_HUB),
        ("a Close", &[0x88, 0x02, 0x03, 0xe8], true, false, NO_HANDSHAKE),
        ("an end", b"", false, false, NO_HANDSHAKE),
    ];
    for (what, frames, stays, hangs, word) in cases {
        let outer = outer.clone();
        let script = move |socket| {
            let outer = outer.clone();
            async move { upgrades(accept_outer(socket, outer).await, SUBPROTOCOL_LINK, frames, stays).await }
        };
        let attempt = tried(&world, Transport::WebSocket, false, script).await;
        assert_failed(&attempt, what, Stage::Upgraded, hangs, word);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_another_subprotocol_is_told_what_is_spoken_here() {
    let world = World::new();
    let outer = outer(&world);
    let script = move |socket| {
        let outer = outer.clone();
        async move { upgrades(accept_outer(socket, outer).await, "chat", b"", true).await }
    };
    let attempt = tried(&world, Transport::WebSocket, false, script).await;
    assert_failed(&attempt, "chat", Stage::Outer, false, "the subprotocol here is chat");
}

// QUIC.

async fn tried_by_quic(world: &World, hub: SocketAddr) -> Attempt {
    let route = Route { transport: Some(Transport::Quic), ..Route::default() };
    let config =
        EndpointConfig { hub: hub.to_string(), credentials: world.credentials("device/press-7"), route };
    towline::why(config, world.environment.clone()).await.unwrap().remove(0)
}

/// Firewalls say nothing about what they drop.
#[tokio::test(start_paused = true)]
async fn a_port_of_udp_that_does_not_answer_is_given_up_at_the_deadline() {
    let world = World::new();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let attempt = tried_by_quic(&world, silent.local_addr().unwrap()).await;
    let error = attempt.error.unwrap().to_string();
    assert_eq!((attempt.stage, error.contains(TIMED_OUT)), (Stage::Resolved, true), "{error}");
    assert!(attempt.took >= CONNECT_DEADLINE, "{:?}", attempt.took);
}

#[tokio::test]
async fn a_peer_that_speaks_other_versions_of_quic_only_is_told_from_one_that_is_silent() {
    let world = World::new();
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let answers = tokio::spawn(async move {
        let mut initial = [0; 2048];
        let (_, client) = server.recv_from(&mut initial).await.unwrap();
        // The client's connection ids, the other way round (RFC 9000 §17.2.1).
        let to = &initial[5..][..usize::from(initial[5]) + 1];
        let from = &initial[5 + to.len()..];
        let from = &from[..usize::from(from[0]) + 1];
        let negotiation = [&[0x80, 0, 0, 0, 0][..], from, to, &[0x1a, 0x2a, 0x3a, 0x4a]].concat();
        server.send_to(&negotiation, client).await.unwrap();
    });
    let attempt = tried_by_quic(&world, address).await;
    answers.await.unwrap();
    let error = attempt.error.unwrap().to_string();
    assert!(attempt.took < CONNECT_DEADLINE && error.contains("version"), "{:?}: {error}", attempt.took);
}
