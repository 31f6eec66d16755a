//! TLS: who is let in, and what the others are told.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::{Authority, environment, pattern};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;
use towline_transports::tls::{self, ALPN_LINK, Credentials, HandshakeError, TlsPipe};
use towline_transports::{Config, Link, Side};

type Outcome = Result<TlsPipe<DuplexStream>, HandshakeError>;

/// Both ends shake hands. The client's refusal comes with its first read, which is done here.
async fn handshake(server: Credentials, client: Arc<ClientConfig>, name: &str) -> (Outcome, Outcome) {
    let server = tls::server_config(server, &[ALPN_LINK], &environment()).unwrap();
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let name = name.to_owned().try_into().unwrap();
    let connect = async {
        let mut pipe = tls::connect(ours, name, client).await?;
        pipe.read_exact(&mut [0]).await?;
        Ok(pipe)
    };
    let accept = async {
        let mut pipe = tls::accept(theirs, server).await?;
        pipe.write_all(&[0]).await?;
        pipe.flush().await?;
        Ok(pipe)
    };
    tokio::join!(connect, accept)
}

fn client(credentials: Credentials) -> Arc<ClientConfig> {
    tls::client_config(credentials, &[ALPN_LINK], &environment()).unwrap()
}

fn refusal(outcome: Outcome) -> &'static str {
    match outcome {
        Err(HandshakeError::Tls(error)) => tls::refused_certificate(&error).unwrap_or("another alert"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn a_link_over_tls_carries_streams() {
    let authority = Authority::new();
    let (ours, theirs) =
        handshake(authority.issue("hub.test"), client(authority.issue("device")), "hub.test").await;
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((ours.alpn(), theirs.alpn()), (Some(ALPN_LINK), Some(ALPN_LINK)));
    assert_eq!((ours.peer_certificates().len(), theirs.peer_certificates().len()), (1, 1));
    let device = Link::over_tls(ours, Side::Client, Config::default());
    let hub = Link::over_tls(theirs, Side::Server, Config::default());
    let (mut send, _recv) = device.open_bi().await.unwrap();
    let writer = tokio::spawn(async move {
        send.write_all(&pattern(1 << 20)).await.unwrap();
        send.finish().unwrap();
    });
    let (_answer, mut recv) = hub.accept_bi().await.unwrap();
    assert_eq!(recv.read_to_end(2 << 20).await.unwrap(), pattern(1 << 20));
    writer.await.unwrap();
    device.close(Default::default(), "");
    hub.closed().await;
    device.closed().await;
}

/// A pipe whose end comes only once it is let go, as a FIN does that is lost and sent again.
struct LateEnd {
    pipe: DuplexStream,
    let_go: oneshot::Receiver<()>,
}

impl AsyncRead for LateEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, buffer)
    }
}

impl AsyncWrite for LateEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.let_go).poll(context)).unwrap();
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

/// The goodbye of TLS is not the end of what carries it. Whoever drops a tunnel in between stops it, where both ends were
/// about to finish it.
#[tokio::test(start_paused = true)]
async fn who_has_heard_goodbye_waits_for_the_end_of_the_pipe_below() {
    let authority = Authority::new();
    let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
    let client = client(authority.issue("device"));
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let (let_go, when_let_go) = oneshot::channel();
    let theirs = LateEnd { pipe: theirs, let_go: when_let_go };
    let connect = tls::connect(ours, "hub.test".try_into().unwrap(), client);
    let (ours, theirs) = tokio::join!(connect, tls::accept(theirs, server));
    let device = Link::over_tls(ours.unwrap(), Side::Client, Config::default());
    let hub = Link::over_tls(theirs.unwrap(), Side::Server, Config::default());
    device.close(Default::default(), "");
    timeout(Duration::from_secs(1), device.closed()).await.unwrap_err();
    let_go.send(()).unwrap();
    device.closed().await;
    hub.closed().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_so() {
    let authority = Authority::new();
    let environment = environment();
    let mut config = ClientConfig::builder_with_details(environment.provider, environment.time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(authority.issue("x").roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_LINK.to_vec()];
    let (ours, theirs) = handshake(authority.issue("hub.test"), Arc::new(config), "hub.test").await;
    assert!(matches!(theirs, Err(HandshakeError::Tls(rustls::Error::NoCertificatesPresented))));
    assert_eq!(refusal(ours), "it requires a certificate and got none");
}

#[tokio::test]
async fn a_client_of_another_authority_is_told_so() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut credentials = stranger.issue("device");
    credentials.roots = authority.issue("x").roots;
    let (ours, theirs) = handshake(authority.issue("hub.test"), client(credentials), "hub.test").await;
    assert!(matches!(theirs, Err(HandshakeError::Tls(rustls::Error::InvalidCertificate(_)))));
    assert_eq!(refusal(ours), "the certificate is of an authority that it does not trust");
}

#[tokio::test]
async fn a_client_whose_certificate_has_expired_is_told_so() {
    let authority = Authority::new();
    let credentials =
        authority.issue_with("device", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let (ours, theirs) = handshake(authority.issue("hub.test"), client(credentials), "hub.test").await;
    assert!(theirs.is_err());
    assert_eq!(refusal(ours), "the certificate has expired");
}

#[tokio::test]
async fn a_hub_of_another_authority_or_name_is_not_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (ours, _) =
        handshake(stranger.issue("hub.test"), client(authority.issue("device")), "hub.test").await;
    assert!(matches!(ours, Err(HandshakeError::Tls(rustls::Error::InvalidCertificate(_)))));
    let (ours, _) =
        handshake(authority.issue("hub.test"), client(authority.issue("device")), "other.test").await;
    assert!(matches!(ours, Err(HandshakeError::Tls(rustls::Error::InvalidCertificate(_)))));
}

#[tokio::test]
async fn both_ends_must_speak_the_same_protocol() {
    let authority = Authority::new();
    let hub = "no application protocol in common: this end offers qmux-02.towline, the peer offers";
    // Another one: TLS itself refuses it. None at all: TLS lets it through, we do not.
    for (offered, theirs_offer) in [(&[&b"h2"[..], b"http/1.1"][..], "h2, http/1.1"), (&[], "nothing")] {
        let client = tls::client_config(authority.issue("device"), offered, &environment()).unwrap();
        let (ours, theirs) = handshake(authority.issue("hub.test"), client, "hub.test").await;
        assert_eq!(theirs.unwrap_err().to_string(), format!("{hub} {theirs_offer}"));
        if !offered.is_empty() {
            let error =
                "no application protocol in common: this end offers h2, http/1.1, the peer takes none of it";
            assert_eq!(ours.unwrap_err().to_string(), error);
        }
    }
}

#[tokio::test]
async fn a_peer_that_is_no_tls_peer_ends_in_an_error() {
    let authority = Authority::new();
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0; 100], b"\x16\x03\x01\xff\xff", b""] {
        let server = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
        let (mut ours, theirs) = tokio::io::duplex(16 << 10);
        ours.write_all(first).await.unwrap();
        ours.shutdown().await.unwrap();
        assert!(tls::accept(theirs, server).await.is_err(), "{first:?}");
    }
}
