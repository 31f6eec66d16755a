//! Our record layer beside rustls' own: each at either end, over a pipe that cuts records anywhere.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io;

use common::{Authority, environment, pattern};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use towline_transports::tls::{self, ALPN_LINK, TlsPipe};

/// How many bytes the pipe holds: less than a record.
const CAPACITY: usize = 1000;

fn name() -> ServerName<'static> {
    "hub.test".try_into().unwrap()
}

/// Ours and rustls', once with ours at the client's end and once at the server's. `change` sets rustls up.
async fn pairs(suite: Option<rustls::CipherSuite>) -> [(TlsPipe<DuplexStream>, TlsStream<DuplexStream>); 2] {
    let authority = Authority::new();
    let mut environment = environment();
    if let Some(suite) = suite {
        let mut provider = (*environment.provider).clone();
        provider.cipher_suites.retain(|supported| supported.suite() == suite);
        environment.provider = provider.into();
    }
    let client = tls::client_config(authority.issue("device"), &[ALPN_LINK], &environment).unwrap();
    let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment).unwrap();
    let (ours, theirs) = duplex(CAPACITY);
    let (ours, theirs) = tokio::join!(
        tls::connect(ours, name(), client.clone()),
        TlsAcceptor::from(server.clone()).accept(theirs)
    );
    let first = (ours.unwrap(), theirs.unwrap().into());
    let (ours, theirs) = duplex(CAPACITY);
    let (ours, theirs) =
        tokio::join!(tls::accept(ours, server), TlsConnector::from(client).connect(name(), theirs));
    [first, (ours.unwrap(), theirs.unwrap().into())]
}

/// Sends a pattern each way at the same time, in writes of all sizes.
async fn exchange<A, B>(ours: &mut A, theirs: &mut B, count: usize)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    async fn say(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) {
        let mut rest = bytes;
        for size in [1, 10, 1000, 16384, 16385, 100_000].iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*size));
            to.write_all(now).await.unwrap();
            to.flush().await.unwrap();
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }
    async fn hear(mut from: impl AsyncRead + Unpin, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).await.unwrap();
        bytes
    }
    let (our_read, our_write) = tokio::io::split(ours);
    let (their_read, their_write) = tokio::io::split(theirs);
    let bytes = pattern(count);
    let ((), (), there, back) = tokio::join!(
        say(our_write, &bytes),
        say(their_write, &bytes),
        hear(their_read, count),
        hear(our_read, count)
    );
    assert!(there == bytes && back == bytes);
}

#[tokio::test]
async fn bytes_go_both_ways_with_every_cipher() {
    use rustls::CipherSuite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    for suite in [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256] {
        for (mut ours, mut theirs) in pairs(Some(suite)).await {
            let agreed = theirs.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite());
            assert_eq!(agreed, Some(suite));
            exchange(&mut ours, &mut theirs, 1 << 20).await;
        }
    }
}

fn refresh(theirs: &mut TlsStream<DuplexStream>) {
    match theirs {
        TlsStream::Client(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
        TlsStream::Server(stream) => stream.get_mut().1.refresh_traffic_keys().unwrap(),
    }
}

/// rustls asks for our next key whenever it changes its own.
#[tokio::test]
async fn keys_may_change() {
    for (mut ours, mut theirs) in pairs(None).await {
        for _ in 0..3 {
            refresh(&mut theirs);
            exchange(&mut ours, &mut theirs, 100_000).await;
        }
    }
}

#[tokio::test]
async fn an_end_is_an_end_at_both_ends() {
    for (mut ours, mut theirs) in pairs(None).await {
        ours.write_all(b"last").await.unwrap();
        let ((), heard) = tokio::join!(async { ours.shutdown().await.unwrap() }, async {
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).await.unwrap();
            heard
        });
        assert_eq!(heard, b"last");
        // The other direction is still open.
        theirs.write_all(b"last word").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last word");
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(ours.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_a_goodbye_is_an_error() {
    for (mut ours, theirs) in pairs(None).await {
        drop(theirs);
        assert_eq!(ours.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
    for (ours, mut theirs) in pairs(None).await {
        drop(ours);
        assert_eq!(theirs.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

/// What came before is read, then there is the error, and the peer is told.
#[tokio::test]
async fn a_record_that_is_no_record_ends_it_and_the_peer_is_told() {
    for (mut ours, mut theirs) in pairs(None).await {
        theirs.write_all(b"good").await.unwrap();
        theirs.flush().await.unwrap();
        theirs.get_mut().0.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut heard = [0; 4];
        ours.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"good");
        let error = ours.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(tls::as_tls(&error).is_some());
        let told = theirs.read(&mut [0]).await.unwrap_err().to_string();
        assert_eq!(told, "received fatal alert: DecodeError");
        assert!(ours.read(&mut [0]).await.is_err(), "and it stays over");
    }
}

/// A client may offer so many protocols that its first words do not fit into what a parser reads at a time.
#[tokio::test]
async fn first_words_may_have_any_length() {
    let authority = Authority::new();
    let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
    let credentials = authority.issue("device");
    // One name of each length from 1 to 255, and then some, makes every length around 4 KiB and beyond.
    for more in (0..40).chain([200, 1000, 5000]) {
        let mut offered = vec![ALPN_LINK.to_vec()];
        let mut left = 3600 + more;
        while left > 0 {
            let length = left.min(200);
            offered.push(vec![b'x'; length]);
            left -= length;
        }
        let offered: Vec<_> = offered.iter().map(Vec::as_slice).collect();
        let client = tls::client_config(credentials.clone(), &offered, &environment()).unwrap();
        let (ours, theirs) = duplex(64 << 10);
        let (ours, theirs) =
            tokio::join!(tls::connect(ours, name(), client), tls::accept(theirs, server.clone()));
        assert_eq!((ours.unwrap().alpn(), theirs.unwrap().alpn()), (Some(ALPN_LINK), Some(ALPN_LINK)));
    }
}
