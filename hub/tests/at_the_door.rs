//! What comes to the hub's port over TCP and should not get in, at each step of each way: garbage, handshakes that stop
//! half way or never end, WebSockets that are none, certificates that do not do. Whoever it is is hung up on, the
//! log says why, and the next honest device gets in. The network is in memory, and the clock stands still while
//! somebody works. The same over QUIC is in `quic_door.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::World;
use common::honest::{Honest, SOON, is_hung_up_on};
use common::log::Log;
use common::memory::MemoryNetwork;
use rustls::ClientConfig;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use towline::core::Limits;
use towline::{OpenError, Route, Service, Transport};
use towline_transports::tls::{self, ALPN_HTTP, ALPN_LINK, Credentials};
use towline_transports::websocket::{self, SUBPROTOCOL_LINK};
use towline_transports::{Config, Link, LinkClosed, Pipe, Side};

/// Everybody who takes part: those who are served, and where strangers come from.
struct Scene {
    world: World,
    honest: Honest,
    log: Log,
}

impl Scene {
    async fn new() -> Self {
        let log = Log::new();
        let mut world = World::new();
        world.environment.network = Arc::new(MemoryNetwork::new());
        let honest = Honest::new(&world, Limits::default()).await;
        Self { world, honest, log }
    }

    /// TLS as web servers have it.
    async fn outer(&self) -> impl Pipe + use<> {
        let roots = self.world.credentials("service/x").roots;
        let config = websocket::outer_client_config(roots, &self.world.environment.tls).unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        websocket::connect_outer(self.honest.dial().await, name, config).await.unwrap()
    }

    /// A WebSocket in it.
    async fn websocket(&self) -> impl Pipe + use<> {
        websocket::connect(self.outer().await, "hub", "/towline", SUBPROTOCOL_LINK).await.unwrap()
    }

    /// The same, before anybody has put what goes in into frames.
    async fn upgraded(&self) -> impl Pipe + use<> {
        let mut pipe = self.outer().await;
        pipe.write_all(upgrade(SUBPROTOCOL_LINK).as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(pipe.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
        pipe
    }

    /// The first message of a handshake, as somebody without a certificate sends it.
    fn client_hello(&self, alpn: &[u8]) -> Vec<u8> {
        let config = Arc::new(self.without_certificate(alpn));
        let mut client = rustls::ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    fn without_certificate(&self, alpn: &[u8]) -> ClientConfig {
        let tls::Environment { provider, time } = self.world.environment.tls.clone();
        let mut config = ClientConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(self.world.credentials("service/x").roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    /// The hub has hung up, and its log says why; and nobody was disturbed.
    async fn is_over(&self, what: &str, why: &str) {
        common::until(|| self.honest.hub.stats().unauthenticated == 0).await;
        let log = self.log.take();
        assert!(log.contains(why), "{what}: {log}");
        self.honest.check().await;
        self.log.take();
    }
}

/// A request for a WebSocket.
fn upgrade(subprotocol: &str) -> String {
    format!(
        "GET /towline HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

/// A frame from a client, whose mask changes nothing. `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[first, 0x80 | 126][..], &length, &[0; 4], payload].concat()
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

/// Says this and hears the hub out.
async fn says(mut socket: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    socket.write_all(bytes).await.unwrap();
    socket.flush().await.unwrap();
    is_hung_up_on(socket).await
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_each_step_and_the_log_says_which() {
    let scene = Scene::new().await;
    says(scene.honest.dial().await, b"SSH-2.0-OpenSSH_9.2\r\n").await;
    scene.is_over("another protocol", "what came is neither TLS nor HTTP").await;
    says(scene.honest.dial().await, &[0x16, 3, 1, 0, 4, 9, 9, 9, 9]).await;
    scene.is_over("no ClientHello", "the TLS handshake failed").await;

    let answer = says(scene.outer().await, b"\x01\x02\x03 no HTTP\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    scene.is_over("no request", "bad HTTP").await;
    let endless = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(20_000));
    let answer = says(scene.outer().await, endless.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
    scene.is_over("a head without an end", "bad HTTP").await;

    says(scene.upgraded().await, &frame(BINARY, b"GET / HTTP/1.1\r\n\r\n")).await;
    scene.is_over("no TLS inside", "the TLS handshake failed").await;
}

#[tokio::test(start_paused = true)]
async fn http_without_tls_is_answered_however_it_arrives() {
    let scene = Scene::new().await;
    for first in 1..5 {
        let mut socket = scene.honest.dial().await;
        let (begin, rest) = b"GET / HTTP/1.1\r\n\r\n".split_at(first);
        socket.write_all(begin).await.unwrap();
        socket.flush().await.unwrap();
        sleep(Duration::from_millis(100)).await;
        let answer = says(socket, rest).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{first}: {}", answer.escape_ascii());
        scene.is_over("a request in two pieces", "HTTP without TLS, which was answered").await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_speaks_neither_hears_so_and_the_log_names_both_offers() {
    let scene = Scene::new().await;
    let config = Arc::new(scene.without_certificate(b"h2"));
    let error = tls::connect(scene.honest.dial().await, "127.0.0.1".try_into().unwrap(), config).await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "no application protocol in common: this end offers h2, the peer takes none of it");
    let why =
        "no application protocol in common: this end offers qmux-02.towline, http/1.1, the peer offers h2";
    scene.is_over("another protocol", why).await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_does_not_keep_the_rules_is_closed_with_the_code_for_it() {
    let scene = Scene::new().await;
    let too_large = [&[BINARY, 0xff][..], &(1_u64 << 32).to_be_bytes(), &[0; 4]].concat();
    for (what, frames, code, why) in [
        ("text", frame(TEXT, b"hello"), 1003_u16, "a WebSocket message of text"),
        ("text in fragments", [frame(0x01, b"hel"), frame(0x80, b"lo")].concat(), 1003, "of text"),
        ("a message that is too large", too_large, 1009, "handshake: "),
        ("an end of nothing", frame(0x80, b"x"), 1002, "handshake: "),
        ("no mask", vec![BINARY, 1, b'x'], 1002, "handshake: "),
    ] {
        let said = says(scene.upgraded().await, &frames).await;
        assert_eq!(said, [&[0x88, 2][..], &code.to_be_bytes()].concat(), "{what}");
        scene.is_over(what, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_subprotocol_is_told_which_one_is_spoken_here() {
    let scene = Scene::new().await;
    let request = upgrade("chat").replace("Connection: ", "Connection: close, ");
    let answer = String::from_utf8(says(scene.outer().await, request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("the subprotocol here is qmux-02.towline\n"), "{answer}");
    scene.is_over("another subprotocol", "HTTP, and no link in it").await;
}

/// Boundaries of messages mean nothing: a ClientHello in fragments of a byte each is answered.
#[tokio::test(start_paused = true)]
async fn a_handshake_in_fragments_is_a_handshake() {
    let scene = Scene::new().await;
    let hello = scene.client_hello(ALPN_LINK);
    let (first, rest) = hello.split_first().unwrap();
    let mut frames = frame(0x02, &[*first]);
    frames.extend(rest.iter().flat_map(|byte| frame(0x00, &[*byte])));
    frames.extend(frame(0x80, b""));
    let mut pipe = scene.upgraded().await;
    pipe.write_all(&frames).await.unwrap();
    let mut head = [0; 4];
    pipe.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..2], [BINARY, 126], "a message of the hub's");
    assert_eq!(pipe.read_u8().await.unwrap(), 0x16, "a record of the handshake");
    drop(pipe);
    scene.is_over("it went away", "handshake").await;
}

/// Cut anywhere and then ended, a handshake is an end and nothing else.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_cut_off_is_the_end_of_it() {
    let scene = Scene::new().await;
    for alpn in [ALPN_LINK, ALPN_HTTP] {
        let hello = scene.client_hello(alpn);
        for cut in (0..hello.len()).step_by(9) {
            ends_after(scene.honest.dial().await, &hello[..cut]).await;
        }
        scene.is_over("a ClientHello", "the connection ended").await;
    }
    let request = upgrade(SUBPROTOCOL_LINK);
    for cut in (0..request.len()).step_by(29) {
        ends_after(scene.outer().await, &request.as_bytes()[..cut]).await;
    }
    scene.is_over("a request", "no handshake").await;
    let hello = scene.client_hello(ALPN_LINK);
    for cut in (0..hello.len()).step_by(29) {
        ends_after(scene.upgraded().await, &frame(BINARY, &hello)[..cut]).await;
    }
    scene.is_over("a ClientHello inside", "the connection ended").await;
}

/// Says this and ends.
async fn ends_after(mut socket: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    socket.write_all(bytes).await.unwrap();
    socket.shutdown().await.unwrap();
    is_hung_up_on(socket).await;
}

/// Whatever a peer has done, it is hung up on ten seconds after it came, and not before.
#[tokio::test(start_paused = true)]
async fn who_stops_at_any_step_is_hung_up_on_at_the_deadline() {
    let scene = Scene::new().await;
    let late = "no handshake in time";
    let hello = scene.client_hello(ALPN_LINK);
    let half = &hello[..hello.len() / 2];
    for (what, bytes) in [("nothing", &b""[..]), ("half a ClientHello", half)] {
        let begin = Instant::now();
        says(scene.honest.dial().await, bytes).await;
        in_ten_seconds(what, begin);
        scene.is_over(what, late).await;
    }
    for (what, bytes) in [("no request", &b""[..]), ("half a request", b"GET /towline HTTP/1.1\r\nHo")] {
        let begin = Instant::now();
        says(scene.outer().await, bytes).await;
        in_ten_seconds(what, begin);
        scene.is_over(what, late).await;
    }
    let half_inside = frame(BINARY, half);
    for (what, bytes) in [("nothing inside", &b""[..]), ("half a ClientHello inside", &half_inside)] {
        let begin = Instant::now();
        says(scene.upgraded().await, bytes).await;
        in_ten_seconds(what, begin);
        scene.is_over(what, late).await;
    }
    // Who is told that this is no place for HTTP may read it at leisure, and not for ever.
    let begin = Instant::now();
    let answer = says(scene.honest.dial().await, b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    scene.is_over("HTTP without TLS", "HTTP").await;
    assert!(begin.elapsed() <= Duration::from_secs(11));
}

fn in_ten_seconds(what: &str, begin: Instant) {
    let took = begin.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&took), "{what}: {took:?}");
}

/// A byte a second keeps nobody in the door: the deadline is for all of it.
#[tokio::test(start_paused = true)]
async fn who_is_slow_all_the_time_is_hung_up_on_at_the_deadline() {
    let scene = Scene::new().await;
    let hello = scene.client_hello(ALPN_LINK);
    let begin = Instant::now();
    drips(scene.honest.dial().await, hello.iter().map(|byte| vec![*byte])).await;
    in_ten_seconds("TLS", begin);
    scene.is_over("TLS", "no handshake in time").await;
    let begin = Instant::now();
    drips(scene.outer().await, upgrade(SUBPROTOCOL_LINK).bytes().map(|byte| vec![byte])).await;
    in_ten_seconds("a request", begin);
    scene.is_over("a request", "no handshake in time").await;
    let begin = Instant::now();
    drips(scene.upgraded().await, hello.iter().map(|byte| frame(BINARY, &[*byte]))).await;
    in_ten_seconds("TLS inside", begin);
    scene.is_over("TLS inside", "no handshake in time").await;
}

/// Writes a piece a second, until the hub hangs up.
async fn drips(socket: impl AsyncRead + AsyncWrite + Unpin, pieces: impl Iterator<Item = Vec<u8>>) {
    let (mut reader, mut writer) = tokio::io::split(socket);
    let write = async {
        for piece in pieces {
            if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("all of it was taken");
    };
    tokio::select! {
        biased;
        _ = is_hung_up_on(&mut reader) => {}
        () = write => {}
    }
}

/// Who has no certificate hears so, with or without a WebSocket around the link, and the log says it too.
#[tokio::test(start_paused = true)]
async fn who_has_no_certificate_hears_so() {
    let scene = Scene::new().await;
    is_told_to_bring_one(&scene, scene.honest.dial().await).await;
    is_told_to_bring_one(&scene, scene.websocket().await).await;
}

async fn is_told_to_bring_one(scene: &Scene, pipe: impl Pipe) {
    let config = Arc::new(scene.without_certificate(ALPN_LINK));
    let pipe = tls::connect(pipe, "127.0.0.1".try_into().unwrap(), config).await.unwrap();
    let link = Link::over_tls(pipe, Side::Client, Config::default());
    let closed = timeout(SOON, link.closed()).await.unwrap();
    let LinkClosed::Lost(error) = closed else { panic!("{closed}") };
    let reason = tls::refused_certificate(tls::as_tls(&error).unwrap());
    assert_eq!(reason, Some("it requires a certificate and got none"));
    scene.is_over("no certificate", "peer sent no certificates").await;
}

#[tokio::test(start_paused = true)]
async fn who_is_of_another_authority_hears_so() {
    let scene = Scene::new().await;
    let elsewhere = World::new();
    let credentials = Credentials {
        roots: scene.world.credentials("service/x").roots,
        ..elsewhere.credentials("service/stranger")
    };
    for transport in [Transport::Tls, Transport::WebSocket] {
        let mut config = scene.world.endpoint("service/ops", &scene.honest.hub);
        config.credentials = credentials.clone();
        config.route = Route { transport: Some(transport), ..Route::default() };
        let service = Service::new(config, scene.world.environment.clone()).unwrap();
        let outcome = timeout(SOON, service.open("press-7", "echo")).await.unwrap();
        let Err(OpenError::Connect(error)) = outcome else { panic!("{transport}: {outcome:?}") };
        let text = error.to_string();
        assert!(text.contains("refuses this end: the certificate is of an authority"), "{transport}: {text}");
        scene.is_over("another authority", "invalid peer certificate").await;
    }
}

/// However many strangers hold a WebSocket and say nothing, whoever has a certificate gets in beside them, and at once.
#[tokio::test(start_paused = true)]
async fn strangers_with_websockets_that_say_nothing_keep_nobody_out() {
    let scene = Scene::new().await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(scene.upgraded().await);
    }
    let mut config = scene.world.endpoint("service/newcomer", &scene.honest.hub);
    config.route = Route { transport: Some(Transport::WebSocket), ..Route::default() };
    let newcomer = Service::new(config, scene.world.environment.clone()).unwrap();
    let begin = Instant::now();
    scene.honest.is_served(&newcomer).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    drop(strangers);
    scene.is_over("they went away", "too many WebSockets").await;
}
