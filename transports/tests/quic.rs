//! QUIC: who is let in, how a link ends, and what only QUIC does. What all kinds of link do is in `conformance.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Authority, config, environment, pattern, quic_client, quic_pair, quic_server, socket};
use towline_transports::quic::{self, ALPN_QUIC, Connection};
use towline_transports::tls::{self, Credentials, HandshakeError};
use towline_transports::{Code, Config, Link, LinkClosed, Side, stream_pipe};

#[tokio::test]
async fn a_link_over_quic_carries_streams() {
    let (device, hub, _) = quic_pair(Config::default()).await;
    let (mut send, _recv) = device.open_bi().await.unwrap();
    let writer = tokio::spawn(async move {
        send.write_all(&pattern(1 << 20)).await.unwrap();
        send.finish().unwrap();
    });
    let (_answer, mut recv) = hub.accept_bi().await.unwrap();
    assert_eq!(recv.read_to_end(2 << 20).await.unwrap(), pattern(1 << 20));
    writer.await.unwrap();
    device.close(Code::from(7), "bye");
    assert!(
        matches!(hub.closed().await, LinkClosed::Peer { code, reason } if code == Code::from(7) && reason == "bye")
    );
    assert!(matches!(device.closed().await, LinkClosed::Local(code) if code == Code::from(7)));
}
