//! Where sockets come from.
//!
//! The product asks a [`Network`] for its sockets, and the program that runs it hands one in: [`TcpNetwork`] in
//! the field, a simulated one in a simulation.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A future that a trait object returns.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connections, and waits for them.
pub trait Network: std::fmt::Debug + Send + Sync + 'static {
    /// Connects to `address`, a `host:port` whose host may be a name.
    ///
    /// # Errors
    ///
    /// What the system says, such as that the connection was refused or the name does not exist.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>>;

    /// Listens on `address`, a `host:port`.
    ///
    /// # Errors
    ///
    /// What the system says, such as that the port is in use.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// The addresses behind `address`, a `host:port` whose host may be a name. For UDP, which connects to addresses.
    ///
    /// # Errors
    ///
    /// What the system says; [`Unsupported`](io::ErrorKind::Unsupported) if this network has no UDP.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let _ = address;
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    /// This machine's own address on the way to `peer`: it tells one network from another. `None` if there is no way, or
    /// this network cannot tell.
    fn local_address(&self, peer: IpAddr) -> Option<IpAddr> {
        let _ = peer;
        None
    }

    /// The largest datagram that the way to `peer` carries as far as this machine can see, in bytes without the headers
    /// of UDP and IP: less may get through, if a part of the path carries less. `None` if there is no way, or this
    /// network cannot tell.
    fn max_udp_payload_size(&self, peer: SocketAddr) -> Option<u16> {
        let _ = peer;
        None
    }

    /// A UDP socket at `address`, and what drives it.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let _ = address;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A UDP socket, and the runtime that drives it.
pub type UdpSocket = (Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>);

/// Waits for connections.
pub trait Listener: std::fmt::Debug + Send + 'static {
    /// The next connection, and where it comes from. Cancel-safe: a connection that is not returned is not lost.
    ///
    /// # Errors
    ///
    /// What the system says, such as that there are too many open files.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>>;

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A connection. Shutting down its writing half sends a FIN.
pub trait Socket: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static {
    /// Ends the connection with a RST instead of a FIN, when it is dropped.
    fn abort(&mut self);
}

/// How many bytes may wait in the system's send buffer before a socket takes no more, where the system knows of that
/// (`TCP_NOTSENT_LOWAT`). What waits there can no longer be overtaken by what is urgent. What was sent and is not
/// acknowledged does not count, so it holds nobody back.
const MAX_UNSENT: u32 = 64 << 10;

/// How many connections may wait to be accepted: what the system allows (Linux 4,096, `net.core.somaxconn`).
///
/// With the usual 128 the system turns away whole crowds, who try again after a second or find themselves reset: all
/// devices of a hub that was restarted come at the same time.
const BACKLOG: u32 = 1 << 16;

/// How many bytes that have come the system should keep for a UDP socket. What comes while there is no room is lost,
/// and has to be sent again; what waits there holds up what comes behind it, so that more is not better.
const UDP_BUFFER: usize = 1 << 20;

/// The system's TCP and UDP. Its TCP sockets do not wait to coalesce small writes (`TCP_NODELAY`), and hold little that
/// could still be overtaken: 64 KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

impl Network for TcpNetwork {
    #[expect(clippy::disallowed_methods, reason = "this is the network that is handed in")]
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async move { prepare(TcpStream::connect(address).await?) })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut error = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
            for address in self.resolve(address).await? {
                match listen(address) {
                    Ok(listener) => return Ok(Box::new(listener) as Box<dyn Listener>),
                    Err(reason) => error = reason,
                }
            }
            Err(error)
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }

    fn local_address(&self, peer: IpAddr) -> Option<IpAddr> {
        way_to((peer, 9).into()).ok()?.local_addr().ok().map(|address| address.ip())
    }

    #[cfg(target_os = "linux")]
    fn max_udp_payload_size(&self, peer: SocketAddr) -> Option<u16> {
        use rustix::net::sockopt;
        let way = way_to(peer).ok()?;
        let (mtu, headers) = match peer {
            SocketAddr::V4(_) => (sockopt::ip_mtu(way).ok()?, 20 + 8),
            SocketAddr::V6(_) => (sockopt::ipv6_mtu(way).ok()?, 40 + 8),
        };
        Some(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX))
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        wrap_udp(std::net::UdpSocket::bind(address)?)
    }
}

/// To connect a UDP socket looks the way up, and sends nothing.
fn way_to(peer: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(unspecified(peer.ip()))?;
    socket.connect(peer)?;
    Ok(socket)
}

/// Any port of this machine's, for reaching `peer`.
pub(crate) fn unspecified(peer: IpAddr) -> SocketAddr {
    let any = match peer {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(any, 0)
}

/// For QUIC: with as much room for what comes as the system gives it, up to [`UDP_BUFFER`].
pub(crate) fn wrap_udp(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
    let options = SockRef::from(&socket);
    if options.recv_buffer_size().is_ok_and(|size| size < UDP_BUFFER) {
        // Linux gives what it allows, `net.core.rmem_max`; others may refuse, and what they have given does.
        let _ = options.set_recv_buffer_size(UDP_BUFFER);
    }
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok((runtime.wrap_udp_socket(socket)?, runtime))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // So that a hub that was killed can be replaced at once.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn prepare(stream: TcpStream) -> io::Result<Box<dyn Socket>> {
    // Before the first byte: a TLS handshake would otherwise wait for a delayed acknowledgement.
    stream.set_nodelay(true)?;
    // A system or a sandbox that does not know it does without.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT);
    Ok(Box::new(stream))
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, address) = TcpListener::accept(self).await?;
            Ok((prepare(stream)?, address))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

impl Socket for TcpStream {
    fn abort(&mut self) {
        // A socket that cannot linger for no time is one that is gone already.
        let _ = self.set_zero_linger();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_way_to_this_machine_carries_what_its_interface_does() {
        let mtu: u32 = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap().trim().parse().unwrap();
        let size = |address: &str| TcpNetwork.max_udp_payload_size(address.parse().unwrap()).map(u32::from);
        // No packet of IPv4 is longer.
        assert_eq!(size("127.0.0.1:9"), Some(mtu.min(65_535) - 28));
        // A machine may have no IPv6.
        assert!(size("[::1]:9").is_none_or(|size| size == mtu - 48));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_crowd_may_wait_to_be_accepted() {
        const CROWD: usize = 300;
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = CROWD.min(allowed.trim().parse().unwrap());
        let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut crowd = Vec::new();
        for _ in 0..count {
            let connecting = timeout(Duration::from_secs(20), TcpStream::connect(address));
            crowd.push(connecting.await.expect("there is room").unwrap());
        }
    }
}
