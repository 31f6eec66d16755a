//! How large QUIC's datagrams are: as large as both ends, and the ways between them, have it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::tapped::Tapped;
use common::{Authority, environment, pattern};
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use towline_transports::quic::{self, Endpoint, LARGE_DATAGRAM};
use towline_transports::{Config, Link, Listener, Network, Socket, UdpSocket};

const LARGE: usize = LARGE_DATAGRAM as usize;

/// The least that is found on an Ethernet, and the most.
const SMALL: usize = 1_420;
const LARGEST_SMALL: usize = 1_472;

/// The most that the system takes at once. What is more it drops.
const MOST_AT_ONCE: usize = 65_507;

/// A network that says how large a datagram it carries, and knows what it was given.
#[derive(Debug)]
struct Way {
    max_udp_payload_size: u16,
    sent: Arc<Sent>,
}

/// The largest datagram, and the most that was sent at once.
#[derive(Debug, Default)]
struct Sent {
    datagram: AtomicUsize,
    at_once: AtomicUsize,
}

impl Way {
    fn new(is_large: bool) -> Arc<Self> {
        let max_udp_payload_size = if is_large { 65_507 } else { 1_472 };
        Arc::new(Self { max_udp_payload_size, sent: Arc::default() })
    }

    fn largest(&self) -> usize {
        self.sent.datagram.load(Ordering::SeqCst)
    }

    fn most_at_once(&self) -> usize {
        self.sent.at_once.load(Ordering::SeqCst)
    }
}

impl Network for Way {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        unreachable!("there is no TCP here")
    }

    fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        unreachable!("there is no TCP here")
    }

    fn max_udp_payload_size(&self, _: SocketAddr) -> Option<u16> {
        Some(self.max_udp_payload_size)
    }

    fn bind_udp(&self, _: SocketAddr) -> io::Result<UdpSocket> {
        let sent = self.sent.clone();
        let socket = Tapped::new(move |transmit| {
            let datagram = transmit.segment_size.unwrap_or(transmit.contents.len());
            sent.datagram.fetch_max(datagram, Ordering::SeqCst);
            sent.at_once.fetch_max(transmit.contents.len(), Ordering::SeqCst);
            true
        });
        Ok((socket, Arc::new(quinn::TokioRuntime)))
    }
}

/// A device and its hub.
struct Ends {
    device: Link,
    hub: Link,
    /// The device's.
    endpoint: Endpoint,
    /// The device's to the hub, and the hub's to the device.
    ways: [Arc<Way>; 2],
}

impl Ends {
    async fn over(ways: [Arc<Way>; 2]) -> Self {
        let authority = Authority::new();
        let (socket, runtime) = ways[1].bind_udp(([127, 0, 0, 1], 0).into()).unwrap();
        let hub = authority.issue("hub.test");
        let server = quic::server_config(hub, &environment(), Config::default()).unwrap();
        let server = Endpoint::with_socket(socket, runtime, Some(server), &environment()).unwrap();
        let server = server.over(ways[1].clone());
        let address = server.local_addr().unwrap();
        let endpoint = Endpoint::towards(ways[0].clone(), address, &environment()).unwrap();
        let device = authority.issue("device");
        let config = quic::client_config(device, &environment(), Config::default()).unwrap();
        let accept = async { server.accept().await.unwrap().handshake().await.unwrap() };
        let (device, hub) = tokio::join!(endpoint.connect(address, "hub.test", &config), accept);
        Self { device: device.unwrap().start(), hub: hub.start(), endpoint, ways }
    }

    /// Sends so many bytes there and back.
    async fn echo(&self, length: usize) {
        let content = pattern(length);
        let (mut send, mut recv) = self.device.open_bi().await.unwrap();
        let ask = async {
            send.write_all(&content).await.unwrap();
            send.finish().unwrap();
        };
        let answer = async {
            let (mut send, mut recv) = self.hub.accept_bi().await.unwrap();
            send.write_all(&recv.read_to_end(length).await.unwrap()).await.unwrap();
            send.finish().unwrap();
        };
        let ((), (), arrived) = tokio::join!(ask, answer, recv.read_to_end(length));
        assert!(arrived.unwrap() == content);
    }

    /// Goes on until the datagrams of each end have been so large. There is a probe in a round trip at most, and only while
    /// nothing else is to be sent.
    async fn echo_until(&self, sizes: [usize; 2]) {
        let reached = async {
            while self.ways.iter().zip(sizes).any(|(way, size)| way.largest() < size) {
                self.echo(100).await;
            }
        };
        let reached = timeout(Duration::from_secs(60), reached).await;
        assert!(reached.is_ok(), "{:?} instead of {sizes:?}", self.ways);
    }
}

/// Each end sends large ones if its own way carries them and the other end takes them; and no more at once than the system
/// does.
#[tokio::test]
async fn datagrams_are_as_large_as_both_ends_have_it_and_the_system_takes() {
    for (is_large, sends_large) in [
        ([true, true], [true, true]),
        // A hub takes them whatever its own way is.
        ([true, false], [true, false]),
        ([false, true], [false, false]),
        ([false, false], [false, false]),
    ] {
        let ends = Ends::over(is_large.map(Way::new)).await;
        ends.echo_until(sends_large.map(|is_large| if is_large { LARGE - 20 } else { SMALL })).await;
        ends.echo(4 << 20).await;
        for (way, sends_large) in ends.ways.iter().zip(sends_large) {
            let most = if sends_large { LARGE } else { LARGEST_SMALL };
            assert!(way.largest() <= most, "{is_large:?}: {way:?}");
            assert!(way.most_at_once() <= MOST_AT_ONCE, "{is_large:?}: {way:?}");
        }
    }
}

/// quinn sees by its losses that the new way does not carry what the old one did.
#[tokio::test]
async fn a_client_that_moves_to_a_way_for_smaller_datagrams_loses_nothing() {
    let ends = Ends::over([true, true].map(Way::new)).await;
    ends.echo_until([LARGE - 20; 2]).await;
    let narrow =
        Tapped::new(|transmit| transmit.segment_size.unwrap_or(transmit.contents.len()) <= LARGEST_SMALL);
    ends.endpoint.rebind_with_socket(narrow).unwrap();
    ends.echo(1 << 20).await;
    ends.echo(1 << 20).await;
}
