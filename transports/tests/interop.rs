//! The same streams with another implementation of QMux at the other end, in both roles, over TCP, TLS and WebSocket.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Authority, environment, pattern};
use qmux::{Session as Peer, Version};
use tokio::task::JoinSet;
use towline_transports::{
    Code, Config, Link, LinkClosed, Listener, Network, ReadError, RecvStream, SendStream, Side, Socket,
    TcpNetwork, WriteError, tls, websocket,
};
use web_transport_trait::{Error as _, RecvStream as _, SendStream as _, Session as _};

/// What both ends take as the name of the protocol when there is none above QMux.
const BARE: &[u8] = b"qmux-02";

async fn listen() -> (Box<dyn Listener>, std::net::SocketAddr) {
    let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn dial(address: std::net::SocketAddr) -> Box<dyn Socket> {
    TcpNetwork.connect(&address.to_string()).await.unwrap()
}

/// The peer takes a socket of tokio's own.
async fn accept_for_peer(listener: tokio::net::TcpListener) -> tokio::net::TcpStream {
    listener.accept().await.unwrap().0
}

#[expect(clippy::disallowed_methods, reason = "the peer wants a socket of tokio's own")]
async fn listen_for_peer() -> (tokio::net::TcpListener, std::net::SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn over_tcp_as_client() -> (Link, Peer) {
    over_tcp_as_client_of(qmux::Config::new(Version::QMux02)).await
}

async fn over_tcp_as_client_of(config: qmux::Config) -> (Link, Peer) {
    let (listener, address) = listen_for_peer().await;
    let peer = tokio::spawn(async move {
        let config = qmux::tcp::Config::new(Version::QMux02).session_config(config);
        config.accept(accept_for_peer(listener).await).await.unwrap()
    });
    let link = Link::start(dial(address).await, Side::Client, Config::default());
    (link, peer.await.unwrap())
}

async fn over_tcp_as_server() -> (Link, Peer) {
    let (mut listener, address) = listen().await;
    let peer = tokio::spawn(qmux::tcp::Config::new(Version::QMux02).connect(address));
    let (socket, _) = listener.accept().await.unwrap();
    let link = Link::start(socket, Side::Server, Config::default());
    (link, peer.await.unwrap().unwrap())
}

async fn over_tls_as_client() -> (Link, Peer) {
    let authority = Authority::new();
    let server = tls::server_config(authority.issue("localhost"), &[BARE], &environment()).unwrap();
    let client = tls::client_config(authority.issue("service"), &[BARE], &environment()).unwrap();
    let (listener, address) = listen_for_peer().await;
    let peer = tokio::spawn(async move {
        qmux::tls::Server::new(server).accept(accept_for_peer(listener).await).await.unwrap()
    });
    let name = "localhost".try_into().unwrap();
    let pipe = tls::connect(dial(address).await, name, client).await.unwrap();
    let link = Link::start(pipe, Side::Client, Config::default());
    (link, peer.await.unwrap())
}

async fn over_tls_as_server() -> (Link, Peer) {
    let authority = Authority::new();
    let server = tls::server_config(authority.issue("localhost"), &[BARE], &environment()).unwrap();
    let client = tls::client_config(authority.issue("service"), &[BARE], &environment()).unwrap();
    let (mut listener, address) = listen().await;
    let peer =
        tokio::spawn(
            async move { qmux::tls::Client::new(client).connect(address, "localhost").await.unwrap() },
        );
    let (socket, _) = listener.accept().await.unwrap();
    let pipe = tls::accept(socket, server).await.unwrap();
    let link = Link::start(pipe, Side::Server, Config::default());
    (link, peer.await.unwrap())
}

const BARE_WEBSOCKET: &str = websocket::SUBPROTOCOL_BARE;

async fn over_websocket_as_client() -> (Link, Peer) {
    let (listener, address) = listen_for_peer().await;
    let peer = tokio::spawn(async move {
        qmux::ws::Server::new().accept(accept_for_peer(listener).await).await.unwrap()
    });
    let pipe = dial(address).await;
    let pipe = websocket::connect(pipe, &address.to_string(), "/", BARE_WEBSOCKET).await.unwrap();
    let link = Link::start(pipe.with_records(), Side::Client, Config::default());
    (link, peer.await.unwrap())
}

async fn over_websocket_as_server() -> (Link, Peer) {
    let (mut listener, address) = listen().await;
    let peer =
        tokio::spawn(
            async move { qmux::ws::Client::new().connect(&format!("ws://{address}/")).await.unwrap() },
        );
    let (socket, _) = listener.accept().await.unwrap();
    let pipe = websocket::accept(socket, "/", &[BARE_WEBSOCKET]).await.unwrap();
    let link = Link::start(pipe.with_records(), Side::Server, Config::default());
    (link, peer.await.unwrap())
}

/// A stream whose end, once it has come, is answered with what it carried.
async fn echo_here(link: Link, count: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (mut send, mut recv) = link.accept_bi().await.unwrap();
        tasks.spawn(async move {
            let request = recv.read_to_end(1 << 20).await.unwrap();
            send.write_all(&request).await.unwrap();
            send.finish().unwrap();
        });
    }
    tasks.join_all().await;
}

async fn echo_there(peer: Peer, count: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (mut send, mut recv) = peer.accept_bi().await.unwrap();
        tasks.spawn(async move {
            let request = recv.read_all().await.unwrap();
            send.write_all(&request).await.unwrap();
            send.finish().unwrap();
        });
    }
    tasks.join_all().await;
}

/// 1,000 streams, half of them opened by each end, each finished on one half before the other answers.
async fn a_thousand_streams_with_half_closes(link: &Link, peer: &Peer) {
    const HALF: usize = 500;
    let echoes = [tokio::spawn(echo_here(link.clone(), HALF)), tokio::spawn(echo_there(peer.clone(), HALF))];
    let mut tasks = JoinSet::new();
    for n in 0..HALF {
        let (link, peer) = (link.clone(), peer.clone());
        tasks.spawn(async move {
            let request = pattern(1 + n * 7);
            let (mut send, mut recv) = link.open_bi().await.unwrap();
            send.write_all(&request).await.unwrap();
            send.finish().unwrap();
            assert_eq!(recv.read_to_end(1 << 20).await.unwrap(), request);
        });
        tasks.spawn(async move {
            let request = pattern(1 + n * 5);
            let (mut send, mut recv) = peer.open_bi().await.unwrap();
            send.write_all(&request).await.unwrap();
            send.finish().unwrap();
            assert_eq!(recv.read_all().await.unwrap(), request);
        });
    }
    tasks.join_all().await;
    for echo in echoes {
        echo.await.unwrap();
    }
}

/// A stream that the peer has accepted, with one byte gone each way.
async fn stream(link: &Link, peer: &Peer) -> (SendStream, RecvStream, qmux::SendStream, qmux::RecvStream) {
    let (mut send, mut recv) = link.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let (mut peer_send, mut peer_recv) = peer.accept_bi().await.unwrap();
    assert_eq!(peer_recv.read_chunk(1).await.unwrap().unwrap(), "x");
    peer_send.write_all(b"y").await.unwrap();
    assert_eq!(recv.read_chunk(1).await.unwrap().unwrap(), "y");
    (send, recv, peer_send, peer_recv)
}

async fn resets_and_stops_both_ways(link: &Link, peer: &Peer) {
    let (mut send, mut recv, mut peer_send, mut peer_recv) = stream(link, peer).await;
    send.reset(Code::from(7));
    assert_eq!(peer_recv.read_chunk(1).await.unwrap_err().stream_error(), Some(7));
    peer_send.reset(8);
    assert!(matches!(recv.read_chunk(1).await, Err(ReadError::Reset(code)) if code == Code::from(8)));

    let (mut send, mut recv, mut peer_send, mut peer_recv) = stream(link, peer).await;
    peer_recv.stop(9);
    assert_eq!(send.stopped().await.unwrap(), Some(Code::from(9)));
    assert!(matches!(send.write_all(b"z").await, Err(WriteError::Stopped(_))));
    recv.stop(Code::from(10));
    assert_eq!(peer_send.closed().await.unwrap_err().stream_error(), Some(10));
}

async fn unidirectional_streams(link: &Link, peer: &Peer) {
    for n in 0..20 {
        let mut send = link.open_uni().await.unwrap();
        send.write_all(&pattern(n * 1000)).await.unwrap();
        send.finish().unwrap();
        let mut recv = peer.accept_uni().await.unwrap();
        assert_eq!(recv.read_all().await.unwrap(), pattern(n * 1000));
        let mut send = peer.open_uni().await.unwrap();
        send.write_all(&pattern(n * 999 + 1)).await.unwrap();
        send.finish().unwrap();
        let mut recv = link.accept_uni().await.unwrap();
        assert_eq!(recv.read_to_end(1 << 20).await.unwrap(), pattern(n * 999 + 1));
    }
}

/// 64 MiB each way at the same time, on one stream.
async fn bulk_both_ways(link: &Link, peer: &Peer) {
    const ROUNDS: usize = 64;
    let (mut send, mut recv, mut peer_send, mut peer_recv) = stream(link, peer).await;
    let block = Bytes::from(pattern(1 << 20));
    let ours = {
        let block = block.clone();
        async move {
            for _ in 0..ROUNDS {
                send.write_chunk(&mut block.clone()).await.unwrap();
            }
            send.finish().unwrap();
        }
    };
    let theirs = {
        let block = block.clone();
        async move {
            for _ in 0..ROUNDS {
                peer_send.write_chunk(block.clone()).await.unwrap();
            }
            peer_send.finish().unwrap();
        }
    };
    let here = {
        let block = block.clone();
        async move {
            let mut read = 0;
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
                check(&block, &mut read, &chunk);
            }
            assert_eq!(read, ROUNDS << 20);
        }
    };
    let there = async move {
        let mut read = 0;
        while let Some(chunk) = peer_recv.read_chunk(1 << 16).await.unwrap() {
            check(&block, &mut read, &chunk);
        }
        assert_eq!(read, ROUNDS << 20);
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(ours);
    tasks.spawn(theirs);
    tasks.spawn(here);
    tasks.spawn(there);
    tasks.join_all().await;
}

fn check(block: &[u8], read: &mut usize, mut chunk: &[u8]) {
    while !chunk.is_empty() {
        let at = *read % block.len();
        let count = chunk.len().min(block.len() - at);
        assert!(chunk[..count] == block[at..at + count], "the bytes differ after {read}");
        chunk = &chunk[count..];
        *read += count;
    }
}

async fn everything(link: Link, peer: Peer) {
    a_thousand_streams_with_half_closes(&link, &peer).await;
    unidirectional_streams(&link, &peer).await;
    resets_and_stops_both_ways(&link, &peer).await;
    bulk_both_ways(&link, &peer).await;
    link.close(Code::from(42), "that was all");
    match peer.closed().await {
        qmux::Error::ConnectionClosed { code, reason } => {
            assert_eq!((code.into_inner(), &reason[..]), (42, "that was all"));
        }
        error => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_qmux_over_tcp_as_client() {
    let (link, peer) = over_tcp_as_client().await;
    everything(link, peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_qmux_over_tcp_as_server() {
    let (link, peer) = over_tcp_as_server().await;
    everything(link, peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_qmux_over_tcp_in_large_records() {
    let mut config = qmux::Config::new(Version::QMux02);
    config.max_record_size = 1 << 20;
    let (link, peer) = over_tcp_as_client_of(config).await;
    everything(link, peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_qmux_over_tls_as_client() {
    let (link, peer) = over_tls_as_client().await;
    everything(link, peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_qmux_over_tls_as_server() {
    let (link, peer) = over_tls_as_server().await;
    everything(link, peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_qmux_over_websocket_as_client() {
    let (link, peer) = over_websocket_as_client().await;
    everything(link, peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_qmux_over_websocket_as_server() {
    let (link, peer) = over_websocket_as_server().await;
    everything(link, peer).await;
}

#[tokio::test]
async fn the_peers_close_is_understood() {
    let (link, peer) = over_tcp_as_client().await;
    let link = Arc::new(link);
    peer.close(43, "enough");
    match link.closed().await {
        LinkClosed::Peer { code, reason } => assert_eq!((code.value(), &reason[..]), (43, "enough")),
        closed => panic!("{closed}"),
    }
}
