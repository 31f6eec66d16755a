//! QUIC: who is let in, how a link ends, and what only QUIC does. What all kinds of link do is in `conformance.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::tapped::Tapped;
use common::{Authority, config, environment, pattern, quic_client, quic_pair, quic_server, socket};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{CertificateError, Error};
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;
use towline_transports::quic::{self, ALPN_QUIC, Connection, Endpoint};
use towline_transports::tls::{self, Credentials, HandshakeError};
use towline_transports::{Code, Config, LinkClosed, ReadError};

/// Both ends of a handshake. Why the client is refused it learns only afterwards.
async fn handshake(
    server: Credentials,
    client: Credentials,
    name: &str,
) -> (Result<Connection, HandshakeError>, Result<Connection, HandshakeError>) {
    let server = quic_server(server, Config::default());
    let limits = quic::client_config(client, &environment(), Config::default()).unwrap();
    let endpoint = quic_client();
    let connect = endpoint.connect(server.local_addr().unwrap(), name, &limits);
    let accept = async { server.accept().await.unwrap().handshake().await };
    tokio::join!(connect, accept)
}

/// What the server has against the client's certificate: that is how the client's link ends.
async fn refusal(connection: Result<Connection, HandshakeError>) -> &'static str {
    let link = connection.unwrap().start();
    let closed = link.closed().await;
    let LinkClosed::Lost(error) = closed else { panic!("{closed}") };
    tls::refused_certificate(tls::as_tls(&error).unwrap()).unwrap()
}

#[tokio::test]
async fn each_end_sees_the_certificate_of_the_other() {
    let authority = Authority::new();
    let (server, client) = (authority.issue("hub.test"), authority.issue("device"));
    let (ours, theirs) = handshake(server.clone(), client.clone(), "hub.test").await;
    assert_eq!(ours.unwrap().peer_certificates(), server.chain);
    assert_eq!(theirs.unwrap().peer_certificates(), client.chain);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (ours, theirs) = handshake(stranger.issue("hub.test"), authority.issue("device"), "hub.test").await;
    assert!(matches!(
        ours,
        Err(HandshakeError::Tls(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
    ));
    assert!(matches!(theirs, Err(HandshakeError::Tls(Error::AlertReceived(_)))));
}

#[tokio::test]
async fn a_server_of_another_name_is_not_trusted() {
    let authority = Authority::new();
    let (ours, _) = handshake(authority.issue("hub.test"), authority.issue("device"), "other.test").await;
    assert!(matches!(ours, Err(HandshakeError::Tls(_))), "{ours:?}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_told_so() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut credentials = stranger.issue("device");
    credentials.roots = authority.issue("x").roots;
    let (ours, theirs) = handshake(authority.issue("hub.test"), credentials, "hub.test").await;
    assert!(matches!(theirs, Err(HandshakeError::Tls(Error::InvalidCertificate(_)))));
    assert_eq!(refusal(ours).await, "the certificate is of an authority that it does not trust");
}

#[tokio::test]
async fn a_client_whose_certificate_has_expired_is_told_so() {
    let authority = Authority::new();
    let expired =
        authority.issue_with("device", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let (ours, theirs) = handshake(authority.issue("hub.test"), expired, "hub.test").await;
    assert!(matches!(theirs, Err(HandshakeError::Tls(Error::InvalidCertificate(CertificateError::Expired)))));
    assert_eq!(refusal(ours).await, "the certificate has expired");
}

/// A client that is not ours.
fn stranger(authority: &Authority, alpn: &[u8], credentials: Option<Credentials>) -> quinn::ClientConfig {
    let environment = environment();
    let builder = rustls::ClientConfig::builder_with_details(environment.provider, environment.time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(authority.issue("x").roots);
    let mut tls = match credentials {
        Some(Credentials { chain, key, .. }) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_early_data = true;
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

fn strange_endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_so() {
    let authority = Authority::new();
    let server = quic_server(authority.issue("hub.test"), Config::default());
    let endpoint = strange_endpoint();
    let client = stranger(&authority, ALPN_QUIC, None);
    let connect = endpoint.connect_with(client, server.local_addr().unwrap(), "hub.test").unwrap();
    let (ours, theirs) = tokio::join!(connect, async { server.accept().await.unwrap().handshake().await });
    assert!(matches!(theirs, Err(HandshakeError::Tls(Error::NoCertificatesPresented))));
    let closed = ours.unwrap().closed().await;
    let quinn::ConnectionError::ConnectionClosed(close) = closed else { panic!("{closed}") };
    assert_eq!(u64::from(close.error_code), 0x100 + 116, "certificate_required (RFC 9001 §4.8)");
}

#[tokio::test]
async fn a_client_with_another_protocol_is_not_taken() {
    let authority = Authority::new();
    let server = quic_server(authority.issue("hub.test"), Config::default());
    let endpoint = strange_endpoint();
    let client = stranger(&authority, b"h3", Some(authority.issue("device")));
    let connect = endpoint.connect_with(client, server.local_addr().unwrap(), "hub.test").unwrap();
    let (ours, theirs) = tokio::join!(connect, async { server.accept().await.unwrap().handshake().await });
    assert!(matches!(theirs, Err(HandshakeError::Protocol { ours, .. }) if ours == ["towline"]));
    let error = ours.unwrap_err();
    let quinn::ConnectionError::ConnectionClosed(close) = error else { panic!("{error}") };
    assert_eq!(u64::from(close.error_code), 0x100 + 120, "no_application_protocol (RFC 9001 §8.1)");
}

#[tokio::test]
async fn a_server_with_another_protocol_is_told_from_one_that_is_not_trusted() {
    let authority = Authority::new();
    let credentials = authority.issue("hub.test");
    let mut tls = Arc::unwrap_or_clone(tls::server_config(credentials, &[b"h3"], &environment()).unwrap());
    tls.max_early_data_size = 0;
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let server = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let limits = quic::client_config(authority.issue("device"), &environment(), Config::default()).unwrap();
    let endpoint = quic_client();
    let connect = endpoint.connect(server.local_addr().unwrap(), "hub.test", &limits);
    let (ours, _) = tokio::join!(connect, async { server.accept().await.unwrap().await });
    assert!(matches!(ours, Err(HandshakeError::Protocol { .. })), "{ours:?}");
}

/// A resumed handshake would not look at the client's certificate.
#[tokio::test]
async fn there_are_no_tickets_and_no_early_data() {
    let authority = Authority::new();
    let server = quic_server(authority.issue("hub.test"), Config::default());
    let address = server.local_addr().unwrap();
    let endpoint = strange_endpoint();
    let client = stranger(&authority, ALPN_QUIC, Some(authority.issue("device")));
    for _ in 0..2 {
        let connecting = endpoint.connect_with(client.clone(), address, "hub.test").unwrap();
        let connecting = connecting.into_0rtt().err().expect("there is nothing to resume");
        let accept = async { server.accept().await.unwrap().handshake().await.unwrap().start() };
        let (ours, theirs) = tokio::join!(connecting, accept);
        let (mut send, mut recv) = ours.unwrap().open_bi().await.unwrap();
        send.write_all(b"?").await.unwrap();
        let (mut answer, _question) = theirs.accept_bi().await.unwrap();
        answer.write_all(b"!").await.unwrap();
        assert_eq!(recv.read_chunk(1, true).await.unwrap().unwrap().bytes, "!");
    }
}

#[tokio::test]
async fn a_slow_peer_keeps_nobody_waiting() {
    let authority = Authority::new();
    let server = quic_server(authority.issue("hub.test"), Config::default());
    let address = server.local_addr().unwrap();
    let limits = quic::client_config(authority.issue("device"), &environment(), Config::default()).unwrap();
    let slow = tokio::spawn({
        let (endpoint, limits) = (quic_client(), limits.clone());
        async move { endpoint.connect(address, "hub.test", &limits).await.map(|_| ()) }
    });
    let kept_waiting = server.accept().await.unwrap();
    let endpoint = quic_client();
    let connect = endpoint.connect(address, "hub.test", &limits);
    let (ours, theirs) = tokio::join!(connect, async { server.accept().await.unwrap().handshake().await });
    assert!(ours.is_ok() && theirs.is_ok());
    kept_waiting.refuse();
    assert!(matches!(slow.await.unwrap(), Err(HandshakeError::Io(_))));
}

#[tokio::test]
async fn under_load_a_newcomer_shows_that_its_address_is_its_own() {
    let authority = Authority::new();
    let server = quic_server(authority.issue("hub.test"), Config::default()).retry_from(1);
    let address = server.local_addr().unwrap();
    let limits = quic::client_config(authority.issue("device"), &environment(), Config::default()).unwrap();
    let stranger = quic::client_config(authority.issue("device"), &environment(), Config::default()).unwrap();
    let connect = |endpoint: Endpoint, limits: &quic::ClientConfig| {
        let limits = limits.clone();
        tokio::spawn(async move { endpoint.connect(address, "hub.test", &limits).await })
    };
    let first = connect(quic_client(), &limits);
    let under_way = server.accept().await.unwrap();
    assert!(!under_way.is_address_proven());
    let second = connect(quic_client(), &limits);
    let incoming = server.accept().await.unwrap();
    assert!(incoming.is_address_proven());
    assert!(incoming.handshake().await.is_ok() && second.await.unwrap().is_ok());
    assert!(under_way.handshake().await.is_ok() && first.await.unwrap().is_ok());
    // Nobody else is under way. Who has been here before was given a proof for the next time.
    for (limits, is_proven) in [(&limits, true), (&stranger, false)] {
        let third = connect(quic_client(), limits);
        let incoming = server.accept().await.unwrap();
        assert_eq!(incoming.is_address_proven(), is_proven);
        drop(incoming);
        assert!(third.await.unwrap().is_err(), "it is refused");
    }
}

#[tokio::test]
async fn a_peer_that_is_silent_for_the_idle_timeout_is_given_up() {
    let (device, hub, _rest) = quic_pair(config(|c| {
        c.idle_timeout = Duration::from_millis(500);
        c.keep_alive = None;
    }))
    .await;
    assert!(matches!(device.closed().await, LinkClosed::TimedOut));
    assert!(matches!(hub.closed().await, LinkClosed::TimedOut));
    assert!(matches!(device.open_bi().await, Err(LinkClosed::TimedOut)));
}

#[tokio::test]
async fn an_idle_link_is_kept_alive() {
    let (device, hub, _rest) = quic_pair(config(|c| c.keep_alive = Some(Duration::from_millis(2)))).await;
    let heard = hub.stats().bytes_received;
    // What the handshake still has to say is less than this.
    while hub.stats().bytes_received < heard + 20_000 {
        assert!(!device.is_closed() && !hub.is_closed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_moves_loses_nothing() {
    const COUNT: usize = 16 << 20;
    let (device, hub, endpoint) = quic_pair(Config::default()).await;
    let before = endpoint.local_addr().unwrap();
    let (mut send, mut recv) = device.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let (mut answer, mut question) = hub.accept_bi().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        send.write_all(&pattern(COUNT)).await.unwrap();
        send.finish().unwrap();
    });
    tasks.spawn(async move {
        answer.write_all(&pattern(COUNT)).await.unwrap();
        answer.finish().unwrap();
    });
    assert_eq!(question.read_chunk(1).await.unwrap().unwrap(), "x");
    let expected = pattern(COUNT);
    let mut read = 0;
    let mut moved = 0;
    while let Some(chunk) = question.read_chunk(usize::MAX).await.unwrap() {
        assert!(chunk == expected[read..read + chunk.len()], "at {read}");
        read += chunk.len();
        if read > (moved + 1) * COUNT / 4 {
            endpoint.rebind(socket()).unwrap();
            moved += 1;
        }
    }
    assert_eq!((read, moved), (COUNT, 3));
    assert_ne!(endpoint.local_addr().unwrap(), before);
    assert!(recv.read_to_end(2 * COUNT).await.unwrap() == expected);
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
}

/// The hub follows with the first datagrams, gets no proof of the new address, and goes back to the old one, on which
/// nothing of its is under way. What it has sent to the new one must not end the link.
#[tokio::test]
async fn a_client_that_moves_where_nothing_gets_through_and_on_loses_nothing() {
    const COUNT: usize = 1 << 20;
    // By then the client's last probe is 31 probe timeouts (RFC 9002 §6.2) after its first, and the hub gives up after three.
    const PROBES: usize = 12;
    let (device, hub, endpoint) = quic_pair(Config::default()).await;
    // So often that the hub has no question left of how large its datagrams may be.
    for _ in 0..30 {
        let (mut send, mut recv) = device.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        send.finish().unwrap();
        let (mut answer, mut question) = hub.accept_bi().await.unwrap();
        assert_eq!(question.read_to_end(1).await.unwrap(), b"x");
        answer.finish().unwrap();
        // It has been acknowledged then.
        assert_eq!(answer.stopped().await.unwrap(), None);
        assert_eq!(recv.read_to_end(1).await.unwrap(), b"");
    }
    let (mut send, _recv) = device.open_bi().await.unwrap();
    let (tried, mut tries) = tokio::sync::watch::channel(0);
    let nearly_dark = Tapped::new(move |_| {
        tried.send_modify(|tried| *tried += 1);
        *tried.borrow() == 1
    });
    let content = pattern(COUNT);
    // Enough that the hub may send all that it has to say (RFC 9000 §8.1), and no more than goes at once.
    let (first, rest) = content.split_at(8 << 10);
    send.write_all(first).await.unwrap();
    endpoint.rebind_with_socket(nearly_dark).unwrap();
    let (_answer, mut question) = hub.accept_bi().await.unwrap();
    tries.wait_for(|tried| *tried > PROBES).await.unwrap();
    endpoint.rebind(socket()).unwrap();
    let ask = async {
        send.write_all(rest).await.unwrap();
        send.finish().unwrap();
    };
    let ((), arrived) = tokio::join!(ask, question.read_to_end(COUNT));
    assert!(arrived.unwrap() == content);
}

/// A watched link asks for signs of life while somebody uses it, and ends when there is no answer.
#[tokio::test]
async fn a_watched_link_that_goes_dark_ends_and_says_so() {
    let authority = Authority::new();
    let is_dark = Arc::new(AtomicBool::new(false));
    let is_lost = is_dark.clone();
    let socket = Tapped::new(move |_| !is_lost.load(Ordering::Relaxed));
    let limits = config(|c| c.keep_alive = None);
    let server = quic::server_config(authority.issue("hub.test"), &environment(), limits).unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    let server = Endpoint::with_socket(socket, runtime, Some(server), &environment()).unwrap();
    let limits = config(|c| {
        c.keep_alive = None;
        c.idle_timeout = Duration::from_secs(600);
    });
    let limits = quic::client_config(authority.issue("device"), &environment(), limits).unwrap().watched(1);
    let client = quic_client();
    let connect = client.connect(server.local_addr().unwrap(), "hub.test", &limits);
    let accept = async { server.accept().await.unwrap().handshake().await.unwrap() };
    let (ours, theirs) = tokio::join!(connect, accept);
    let (device, hub) = (ours.unwrap().start(), theirs.start());
    let mut first = device.open_bi().await.unwrap();
    first.0.write_all(b"hello").await.unwrap();
    let _heard = hub.accept_bi().await.unwrap();
    let mut second = device.open_bi().await.unwrap();
    second.0.write_all(b"tunnel").await.unwrap();
    let (_answer, mut question) = hub.accept_bi().await.unwrap();
    assert_eq!(question.read_chunk(10).await.unwrap().unwrap(), "tunnel");
    // Nobody says anything, and the link asks, again and again, and stays.
    let heard = hub.stats().bytes_received;
    while hub.stats().bytes_received < heard + 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!device.is_closed());
    assert!(!device.downgrade().went_dark());
    is_dark.store(true, Ordering::Relaxed);
    let closed = tokio::time::timeout(Duration::from_secs(60), device.closed()).await;
    let closed = closed.expect("long before the idle timeout");
    assert!(matches!(closed, LinkClosed::Dark), "{closed}");
    assert!(device.downgrade().went_dark());
    assert!(matches!(second.1.read_chunk(1).await, Err(ReadError::Closed(LinkClosed::Dark))));
    assert!(matches!(device.open_bi().await, Err(LinkClosed::Dark)));
    // What this end sends still gets there.
    let closed = hub.closed().await;
    assert!(matches!(&closed, LinkClosed::Peer { reason, .. } if reason.contains("UDP")), "{closed}");
}

/// More than the places of the first moment, and none is given before there is use for it.
#[tokio::test]
async fn places_for_streams_follow_the_use() {
    let (device, hub, _rest) = quic_pair(config(|c| c.max_streams_bidi = 300)).await;
    let mut opened = Vec::new();
    let mut accepted = Vec::new();
    for _ in 0..300 {
        let mut ours = device.open_bi().await.unwrap();
        ours.0.write_all(b"x").await.unwrap();
        opened.push(ours);
        accepted.push(hub.accept_bi().await.unwrap());
    }
    let one_more = tokio::spawn(async move { device.open_bi().await.is_ok() });
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(!one_more.is_finished());
    // quinn tells of places that are free again when they are an eighth of all.
    drop((opened.split_off(200), accepted.split_off(200)));
    assert!(one_more.await.unwrap());
}

/// An end that promised little may promise more once it knows who the peer is.
#[tokio::test]
async fn limits_may_rise_when_the_peer_is_known() {
    let authority = Authority::new();
    let server = quic_server(authority.issue("hub.test"), config(|c| c.max_streams_bidi = 1));
    let limits = quic::client_config(authority.issue("device"), &environment(), Config::default()).unwrap();
    let endpoint = quic_client();
    let connect = endpoint.connect(server.local_addr().unwrap(), "hub.test", &limits);
    let accept = async { server.accept().await.unwrap().handshake().await.unwrap() };
    let (ours, theirs) = tokio::join!(connect, accept);
    let (device, hub) = (ours.unwrap().start(), theirs.start_with(&config(|c| c.max_streams_bidi = 100)));
    // More are allowed as those that are there are taken.
    let takes = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok(stream) = hub.accept_bi().await {
            taken.push(stream);
        }
        taken.len()
    });
    let mut opened = Vec::new();
    for _ in 0..100 {
        let (mut send, recv) = device.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        opened.push((send, recv));
    }
    device.close(Code::default(), "");
    assert_eq!(takes.await.unwrap(), 100);
}

/// QUIC surfaces what was opened before it, too: here a stream that its opener has abandoned unused.
#[tokio::test]
async fn a_stream_that_was_never_used_is_seen_as_reset() {
    let (device, hub, _rest) = quic_pair(Config::default()).await;
    drop(device.open_bi().await.unwrap());
    let (_answer, mut question) = hub.accept_bi().await.unwrap();
    assert!(matches!(question.read_chunk(1).await, Err(ReadError::Reset(code)) if code == Code::default()));
}

#[tokio::test]
async fn an_endpoint_that_closes_ends_its_links() {
    let (device, hub, endpoint) = quic_pair(Config::default()).await;
    endpoint.close(Code::from(3), "gone");
    assert!(matches!(device.closed().await, LinkClosed::Local(_)));
    assert!(
        matches!(hub.closed().await, LinkClosed::Peer { code, reason } if code == Code::from(3) && reason == "gone")
    );
    endpoint.wait_idle().await;
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_of_the_world() {
    let authority = Authority::new();
    let nobody = socket().local_addr().unwrap();
    let limits = config(|c| c.idle_timeout = Duration::from_millis(200));
    let limits = quic::client_config(authority.issue("device"), &environment(), limits).unwrap();
    let outcome = quic_client().connect(nobody, "hub.test", &limits).await;
    assert!(matches!(outcome, Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
    let outcome = quic_client().connect(nobody, "", &limits).await;
    assert!(matches!(outcome, Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::InvalidInput));
}

/// On sockets that were handed in, as a simulator does. Each seventh time that datagrams are sent, these are lost.
#[tokio::test]
async fn with_losses_everything_arrives_before_the_close() {
    let authority = Authority::new();
    let lossy = || {
        let sent = AtomicUsize::default();
        Tapped::new(move |_| sent.fetch_add(1, Ordering::SeqCst) % 7 != 6)
    };
    let runtime = Arc::new(quinn::TokioRuntime);
    let server = quic::server_config(authority.issue("hub.test"), &environment(), Config::default()).unwrap();
    let server = Endpoint::with_socket(lossy(), runtime.clone(), Some(server), &environment()).unwrap();
    let client = Endpoint::with_socket(lossy(), runtime, None, &environment()).unwrap();
    let limits = quic::client_config(authority.issue("device"), &environment(), Config::default()).unwrap();
    let connect = client.connect(server.local_addr().unwrap(), "hub.test", &limits);
    let accept = async { server.accept().await.unwrap().handshake().await.unwrap() };
    let (ours, theirs) = tokio::join!(connect, accept);
    let (device, hub) = (ours.unwrap().start(), theirs.start());
    let mut left = Vec::new();
    for number in 0..15 {
        let (mut send, recv) = device.open_bi().await.unwrap();
        send.write_all(&pattern(1 + number * 400)).await.unwrap();
        match number % 3 {
            0 => send.finish().unwrap(),
            1 => left.push((send, recv)),
            _ => send.reset(Code::from(5)),
        }
    }
    device.close(Code::from(3), "bye");
    assert!(matches!(device.closed().await, LinkClosed::Local(_)));
    // The last packet may be lost; then another one, or the idle timeout, says the same.
    hub.closed().await;
    for number in 0..15 {
        let (_answer, mut question) = hub.accept_bi().await.unwrap();
        match number % 3 {
            0 => assert!(question.read_to_end(1 << 20).await.unwrap() == pattern(1 + number * 400)),
            1 => {
                let mut all = vec![0; 1 + number * 400];
                question.read_exact(&mut all).await.unwrap();
                assert!(all == pattern(all.len()));
                assert!(matches!(question.read_chunk(1).await, Err(ReadError::Closed(_))));
            }
            _ => assert!(
                matches!(question.read_chunk(1).await, Err(ReadError::Reset(code)) if code == Code::from(5))
            ),
        }
    }
    assert!(hub.accept_bi().await.is_err(), "there were no others");
}
