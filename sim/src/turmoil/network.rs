//! The network that is handed to the product: turmoil's, with the air in between.
//!
//! In: addresses with turmoil's names. Out: sockets as [`towline_transports::Network`] wants them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use towline_transports::{Listener, Network, Socket, UdpSocket};
use turmoil::net::{TcpListener, TcpStream};

use super::air::{Air, Who};
use super::chaos::Chaos;
use super::firewall::Firewalled;
use super::line::{Line, Presence, Way};
use super::tcp::TcpSocket;
use super::udp::SimUdp;
use crate::event::What;
use crate::random::Random;

/// An endpoint's network.
#[derive(Clone, Debug)]
pub struct SimNetwork {
    air: Air,
    who: Who,
    /// turmoil's name of the machine that it is on.
    host: Arc<str>,
    /// Where the short reads and writes come from, if there are to be any.
    chaos: Option<Random>,
}

impl SimNetwork {
    /// The network of the endpoint `who` on turmoil's host `host`.
    pub fn new(air: Air, who: &str, host: &str, chaos: Option<Random>) -> Self {
        Self { air, who: who.into(), host: host.into(), chaos }
    }

    fn socket(&self, stream: TcpStream, wire: u64, writes: usize) -> Box<dyn Socket> {
        let chaos = self.chaos.map(|random| Chaos::new(random.stream(&format!("chaos/{}/{wire}", self.who))));
        Box::new(TcpSocket::new(self.air.clone(), self.who.clone(), stream, wire, writes, chaos))
    }

    /// Which connection it is: one on a machine's loopback is known by the machine as well.
    fn key(&self, client: SocketAddr, server: SocketAddr) -> (IpAddr, SocketAddr, SocketAddr) {
        let machine = if client.ip().is_loopback() {
            turmoil::lookup(&*self.host)
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        (machine, client, server)
    }

    /// Waits until the first packet of a connection gets to `server`, and its answer back: it is sent again until then.
    ///
    /// # Errors
    ///
    /// This end has no line, or nobody is at the other end.
    async fn reach(&self, server: &Who) -> io::Result<()> {
        std::future::poll_fn(|context| {
            let mut state = self.air.lock();
            if state.lines.get(&self.who).is_some_and(|line| line.is_cut(Way::Up)) {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::NetworkUnreachable)));
            }
            let gone = state.lines.get(server).is_some_and(|line| line.presence() == Presence::Gone);
            let stopped =
                state.is_cut(Some(&self.who), Some(server)) || state.is_cut(Some(server), Some(&self.who));
            if stopped || gone {
                state.wait(context.waker());
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        self.round_trip(server).await;
        let presence = self.air.lock().lines.get(server).map_or(Presence::Here, Line::presence);
        match presence {
            Presence::Here => Ok(()),
            Presence::Dead => Err(io::ErrorKind::ConnectionRefused.into()),
            // Nobody says so, and nobody will.
            Presence::Gone => std::future::pending().await,
        }
    }

    /// Connects to a server that is there and can be reached.
    async fn finish_connecting(&self, address: &str, is_local: bool) -> io::Result<Box<dyn Socket>> {
        let stream = TcpStream::connect(address).await?;
        let key = self.key(stream.local_addr()?, stream.peer_addr()?);
        let mut state = self.air.lock();
        let wire = state.accepted.remove(&key).ok_or(io::ErrorKind::ConnectionRefused)?;
        if let Some(open) = state.wires.get_mut(&wire) {
            open.ends[0] = Some(self.who.clone());
        }
        state.note(&self.who, What::Connected { wire });
        drop(state);
        let socket = self.socket(stream, wire, 0);
        if is_local {
            return Ok(socket);
        }
        Ok(Box::new(Firewalled::new(socket, self.air.clone(), self.who.clone())))
    }

    /// Lets the time pass that a packet without a byte in it takes there and back.
    async fn round_trip(&self, server: &Who) {
        let nanos = {
            let mut state = self.air.lock();
            let there = state.arrival(Some(&self.who), Some(server), 0);
            let back = state.arrival(Some(server), Some(&self.who), 0);
            (there + back).saturating_sub(2 * state.now())
        };
        sleep(Duration::from_nanos(nanos)).await;
    }
}

impl Network for SimNetwork {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            let (server, _) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            if !is_loopback(server) {
                // A server has the name of its machine.
                self.reach(&server.into()).await?;
            }
            let (network, address, local) = (self.clone(), address.to_owned(), is_loopback(server));
            // In a task of its own: turmoil forgets a connection that nobody waits for any more, and its server would not
            // hear of that. As it is, the socket is there, and is closed.
            let connected = tokio::spawn(async move { network.finish_connecting(&address, local).await });
            connected.await.map_err(io::Error::other)?
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = TcpListener::bind(address).await?;
            Ok(Box::new(SimListener { network: self.clone(), inner }) as Box<dyn Listener>)
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
        })
    }

    /// One for each network that the endpoint has been in.
    fn local_address(&self, _: IpAddr) -> Option<IpAddr> {
        let moves = self.air.lock().lines.get(&self.who).map_or(0, Line::moves);
        let moves = u32::try_from(moves).unwrap_or(u32::MAX);
        Some(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits().wrapping_add(moves << 8)).into())
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = SimUdp::bind(self.air.clone(), self.who.clone(), &self.host, address)?;
        // Its timers are tokio's, whose clock turmoil has stopped.
        Ok((socket, Arc::new(quinn::TokioRuntime)))
    }
}

fn is_loopback(host: &str) -> bool {
    host.starts_with("127.") || host == "localhost"
}

struct SimListener {
    network: SimNetwork,
    inner: TcpListener,
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimListener").field("who", &self.network.who).finish_non_exhaustive()
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.inner.accept().await?;
            let network = &self.network;
            let key = network.key(stream.peer_addr()?, stream.local_addr()?);
            let mut state = network.air.lock();
            let wire = state.open_wire(&network.who);
            state.accepted.insert(key, wire);
            state.note(&network.who, What::Accepted { wire });
            drop(state);
            Ok((network.socket(stream, wire, 1), from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}
