//! What networks do to endpoints: UDP goes dark under a QUIC link, so that no datagram passes any more, in either direction,
//! and nobody says so; and what works in one does not in another.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{World, echo, online};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use towline::{Device, EndpointConfig, Environment, Hub, Route, Service, Transport};
use towline_transports::{Listener, Network, Side, Socket, TcpNetwork};

/// What somebody does who looks for the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    Tcp,
    Udp,
}

/// A network whose datagrams pass through a relay that can be told to drop them, and whose TCP goes straight to the hub,
/// once it goes at all.
#[derive(Debug)]
struct Field {
    relay: SocketAddr,
    has_tcp: AtomicBool,
    is_dark: Arc<AtomicBool>,
    tries: Mutex<Vec<Try>>,
    /// The largest datagram that came from the endpoint, and from the hub.
    largest: Arc<[AtomicUsize; 2]>,
    /// The endpoint's address in it: another one is another network.
    address: Mutex<IpAddr>,
}

type Future_<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

impl Network for Field {
    fn connect<'a>(&'a self, address: &'a str) -> Future_<'a, Box<dyn Socket>> {
        self.tries.lock().unwrap().push(Try::Tcp);
        if self.has_tcp.load(Ordering::Relaxed) {
            return TcpNetwork.connect(address);
        }
        Box::pin(std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())))
    }

    fn listen<'a>(&'a self, address: &'a str) -> Future_<'a, Box<dyn Listener>> {
        TcpNetwork.listen(address)
    }

    fn resolve<'a>(&'a self, _address: &'a str) -> Future_<'a, Vec<SocketAddr>> {
        self.tries.lock().unwrap().push(Try::Udp);
        Box::pin(std::future::ready(Ok(vec![self.relay])))
    }

    fn local_address(&self, _peer: IpAddr) -> Option<IpAddr> {
        Some(*self.address.lock().unwrap())
    }

    fn max_udp_payload_size(&self, peer: SocketAddr) -> Option<u16> {
        TcpNetwork.max_udp_payload_size(peer)
    }

    fn bind_udp(&self, address: SocketAddr) -> io::Result<towline_transports::UdpSocket> {
        TcpNetwork.bind_udp(address)
    }
}

impl Field {
    /// One without TCP, in front of this hub, for one client at a time.
    async fn before(hub: &Hub) -> Arc<Self> {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        let (outside, inside) = (bind().await.unwrap(), bind().await.unwrap());
        inside.connect(hub.local_addr()).await.unwrap();
        let field = Arc::new(Self {
            relay: outside.local_addr().unwrap(),
            has_tcp: false.into(),
            is_dark: Arc::default(),
            tries: Mutex::default(),
            largest: Arc::default(),
            address: Mutex::new([10, 0, 0, 1].into()),
        });
        let (is_dark, largest) = (field.is_dark.clone(), field.largest.clone());
        tokio::spawn(async move {
            let (mut out, mut back) = ([0; 8192], [0; 8192]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((count, from)) = outside.recv_from(&mut out) => {
                        client = Some(from);
                        largest[0].fetch_max(count, Ordering::Relaxed);
                        if !is_dark.load(Ordering::Relaxed) {
                            let _ = inside.send(&out[..count]).await;
                        }
                    }
                    Ok(count) = inside.recv(&mut back), if client.is_some() => {
                        largest[1].fetch_max(count, Ordering::Relaxed);
                        if !is_dark.load(Ordering::Relaxed) {
                            let _ = outside.send_to(&back[..count], client.unwrap()).await;
                        }
                    }
                }
            }
        });
        field
    }

    fn environment(self: &Arc<Self>, world: &World) -> Environment {
        Environment { network: self.clone(), ..world.environment.clone() }
    }

    /// From now on there is TCP, and no UDP.
    fn go_dark(&self) {
        self.has_tcp.store(true, Ordering::Relaxed);
        self.tries.lock().unwrap().clear();
        self.is_dark.store(true, Ordering::Relaxed);
    }

    /// The endpoint comes to another network, or back.
    fn be_in(&self, address: [u8; 4], has_tcp: bool) {
        *self.address.lock().unwrap() = address.into();
        self.has_tcp.store(has_tcp, Ordering::Relaxed);
        self.tries.lock().unwrap().clear();
    }

    fn tries(&self) -> Vec<Try> {
        self.tries.lock().unwrap().clone()
    }
}

/// Far longer than it takes, and than the idle timeout of a link.
const HANG: Duration = Duration::from_secs(60);

/// Over this tunnel, a word comes back.
async fn carries(tunnel: &mut towline::Tunnel) -> io::Result<()> {
    tunnel.write_all(b"word").await?;
    let mut word = [0; 4];
    tunnel.read_exact(&mut word).await?;
    assert_eq!(&word, b"word");
    Ok(())
}

/// The hub hears nothing of it either: its old link gives way to the new one, and the tunnels over it end at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_back_on_tls() {
    let world = World::new();
    let hub = world.hub().await;
    let field = Field::before(&hub).await;
    let config = world.endpoint("device/press-7", &hub);
    let device = Device::register(config, field.environment(&world)).unwrap();
    online(&device).await;
    let mut status = device.status();
    echo(device);
    let service = world.service("ops", &hub);
    let mut old = service.open("press-7", "echo").await.unwrap();
    carries(&mut old).await.unwrap();
    status.borrow_and_update();

    field.go_dark();
    let start = Instant::now();
    let back = async {
        // The link is given up, and there is another one.
        status.changed().await.unwrap();
        status.wait_for(|status| matches!(status, towline::Status::Online)).await.unwrap();
        start.elapsed()
    };
    let took = timeout(HANG, back).await.expect("it should be back long before");
    eprintln!("back on TLS {took:?} after UDP went dark");
    assert_eq!(field.tries()[0], Try::Tcp, "QUIC has no head start any more");
    // For that long, the hub waits until the old link has acknowledged its end.
    let close_timeout = towline::link_config(Side::Server).close_timeout;
    let lost = timeout(close_timeout - Duration::from_secs(1), old.read_to_end(&mut Vec::new())).await;
    lost.expect("it does not wait for the old link").expect_err("the old tunnel is lost");
    let mut new = timeout(HANG, service.open("press-7", "echo")).await.unwrap().unwrap();
    timeout(HANG, carries(&mut new)).await.unwrap().unwrap();
    let devices = service.devices().await.unwrap();
    assert_eq!((devices.len(), devices[0].takeovers), (1, 0), "the same holder, and not another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_back_on_tls() {
    let world = World::new();
    let hub = world.hub().await;
    let field = Field::before(&hub).await;
    echo(world.device("press-7", &hub).await);
    let config = world.endpoint("service/ops", &hub);
    let service = Service::new(config, field.environment(&world)).unwrap();
    let mut old = service.open("press-7", "echo").await.unwrap();
    carries(&mut old).await.unwrap();

    field.go_dark();
    let start = Instant::now();
    timeout(HANG, old.read_to_end(&mut Vec::new())).await.unwrap().expect_err("the tunnel is lost");
    let mut new = timeout(HANG, service.open("press-7", "echo")).await.unwrap().unwrap();
    timeout(HANG, carries(&mut new)).await.unwrap().unwrap();
    eprintln!("a new tunnel over TLS {:?} after UDP went dark", start.elapsed());
    assert_eq!(field.tries()[0], Try::Tcp, "QUIC has no head start any more");
}

/// A device that may use nothing but QUIC, and is online.
async fn with_only_quic(world: &World, hub: &Hub, field: &Arc<Field>) -> Device {
    let route = Route { transport: Some(Transport::Quic), ..Route::default() };
    let config = EndpointConfig { route, ..world.endpoint("device/press-7", hub) };
    let device = Device::register(config, field.environment(world)).unwrap();
    online(&device).await;
    device
}

/// Who may use nothing but QUIC stays with it, and is back when UDP is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_only_quic_is_back_with_udp() {
    let world = World::new();
    let hub = world.hub().await;
    let field = Field::before(&hub).await;
    let device = with_only_quic(&world, &hub, &field).await;
    let mut status = device.status();
    echo(device);
    let service = world.service("ops", &hub);
    let mut old = service.open("press-7", "echo").await.unwrap();
    carries(&mut old).await.unwrap();
    status.borrow_and_update();
    field.go_dark();
    timeout(HANG, status.changed()).await.expect("it should notice long before").unwrap();
    field.is_dark.store(false, Ordering::Relaxed);
    timeout(HANG, status.wait_for(|status| matches!(status, towline::Status::Online)))
        .await
        .unwrap()
        .unwrap();
    let mut new = timeout(HANG, service.open("press-7", "echo")).await.unwrap().unwrap();
    timeout(HANG, carries(&mut new)).await.unwrap().unwrap();
    assert!(!field.tries().contains(&Try::Tcp));
}

/// Both look at their own way to the other, which here carries more than an Ethernet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_quic_both_ends_send_large_datagrams_where_their_ways_carry_them() {
    let world = World::new();
    let hub = world.hub().await;
    let field = Field::before(&hub).await;
    echo(with_only_quic(&world, &hub, &field).await);
    let service = world.service("ops", &hub);
    let mut tunnel = service.open("press-7", "echo").await.unwrap();
    let all_large = async {
        while field.largest.iter().any(|largest| largest.load(Ordering::Relaxed) < 6_000) {
            carries(&mut tunnel).await.unwrap();
        }
    };
    timeout(HANG, all_large).await.expect("a probe in a round trip is enough");
}

/// Who may use nothing but QUIC notices at rest as well, where it waits for an answer to its keepalive, and asks no more
/// often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_only_quic_notices_at_rest_as_well() {
    let world = World::new();
    let hub = world.hub().await;
    let field = Field::before(&hub).await;
    let device = with_only_quic(&world, &hub, &field).await;
    let mut status = device.status();
    status.borrow_and_update();
    field.go_dark();
    timeout(HANG, status.changed()).await.expect("it should notice long before").unwrap();
    field.is_dark.store(false, Ordering::Relaxed);
    online(&device).await;
    assert!(!field.tries().contains(&Try::Tcp));
}

/// A link that carries nothing is watched as closely, since there is another way to take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_tunnels_is_back_on_tls() {
    let world = World::new();
    let hub = world.hub().await;
    let field = Field::before(&hub).await;
    let config = world.endpoint("device/press-7", &hub);
    let device = Device::register(config, field.environment(&world)).unwrap();
    online(&device).await;
    let mut status = device.status();
    status.borrow_and_update();
    echo(device);
    field.go_dark();
    let start = Instant::now();
    timeout(HANG, status.changed()).await.expect("it should notice long before").unwrap();
    timeout(HANG, status.wait_for(|status| matches!(status, towline::Status::Online)))
        .await
        .unwrap()
        .unwrap();
    eprintln!("back on TLS {:?} after UDP went dark, at rest", start.elapsed());
    assert_eq!(field.tries()[0], Try::Tcp, "QUIC has no head start any more");
    let service = world.service("ops", &hub);
    let mut new = timeout(HANG, service.open("press-7", "echo")).await.unwrap().unwrap();
    timeout(HANG, carries(&mut new)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_worked_in_a_network_is_tried_first_there() {
    let world = World::new();
    let hub = world.hub().await;
    let field = Field::before(&hub).await;
    let config = world.endpoint("service/ops", &hub);
    let service = Service::new(config, field.environment(&world)).unwrap();
    let (home, road) = ([10, 0, 0, 1], [192, 168, 7, 1]);
    for (network, has_tcp, first, why) in [
        (home, false, Try::Tcp, "nothing is known"),
        (home, false, Try::Udp, "only QUIC worked there"),
        (road, true, Try::Tcp, "nothing is known of this one"),
        (home, false, Try::Udp, "it is still known"),
        (road, true, Try::Tcp, "TLS worked there"),
        // It would work now; but there is no reason to look.
        (home, true, Try::Udp, "QUIC worked there"),
    ] {
        field.be_in(network, has_tcp);
        timeout(HANG, service.devices()).await.unwrap().unwrap();
        assert_eq!(field.tries()[0], first, "{network:?}: {why}");
        service.close().await;
    }
}
