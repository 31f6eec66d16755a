//! The product, in this process: a hub, a device that serves the target, and a service with local ports that lead to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinHandle;
use towline::authority::Authority;
use towline::core::Limits;
use towline::policy::AllowAll;
use towline::{
    Connector, Device, EndpointConfig, Environment, Hub, HubConfig, OpenOptions, Route, Service,
    SessionOptions, Status, Transport, Tunnel, agent, forward,
};
use towline_transports::RecvStream;
use towline_transports::tls::Credentials;

use super::part::Parts;
use super::target::{self, PIECE, REQUEST, Wants};

const DEVICE: &str = "press-7";
const SERVICE: &str = "target";

/// How long certificates are valid, and how long the device may take to come online.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(10);

/// What the hub at `host`, the device and the service need to trust each other.
fn credentials(host: IpAddr, environment: &Environment) -> anyhow::Result<[Credentials; 3]> {
    let now = environment.tls.time.current_time().context("the system does not know what day it is")?;
    let (authority, _) = Authority::new(now)?;
    let issue = |role: &str, name: &str, hosts: &[String]| -> anyhow::Result<Credentials> {
        let identity = format!("spiffe://bench/{role}/{name}").parse()?;
        Ok(authority.credentials(&authority.issue(&identity, hosts, now, LIFETIME)?)?)
    };
    let hub = issue("hub", "h", &[host.to_string()])?;
    Ok([hub, issue("device", DEVICE, &[])?, issue("service", "s", &[])?])
}

/// A hub at `host`.
async fn start_hub(host: IpAddr, credentials: Credentials, environment: Environment) -> anyhow::Result<Hub> {
    // Whoever measures how fast tunnels open must not be held up by the limit on that.
    let limits = Limits::default().opens(1_000_000, 1_000_000).tunnels_per_device(1_000_000);
    let config = HubConfig {
        listen: SocketAddr::from((host, 0)).to_string(),
        credentials,
        limits,
        policy: Box::new(AllowAll),
        quic: true,
    };
    Ok(Hub::start(config, environment).await?)
}

/// A device that is online, and serves the target. Dropping it ends it.
struct Serving(JoinHandle<()>);

impl Serving {
    async fn start(
        endpoint: EndpointConfig,
        target: SocketAddr,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        let mut device = Device::register(endpoint, environment.clone())?;
        let mut status = device.status();
        let online = status.wait_for(|status| matches!(status, Status::Online));
        tokio::time::timeout(PATIENCE, online).await.context("the device does not come online")??;
        let targets = vec![format!("{SERVICE}={target}").parse()?];
        Ok(Self(tokio::spawn(async move { agent::serve(&mut device, targets, environment).await })))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How an endpoint gets to this hub.
fn endpoint(hub: &Hub, credentials: Credentials, transport: Option<Transport>) -> EndpointConfig {
    EndpointConfig {
        hub: hub.local_addr().to_string(),
        credentials,
        route: Route { transport, ..Route::default() },
    }
}

/// The far end of the product: a hub, and a device that serves the target. Dropping it ends it.
pub(crate) struct FarEnd {
    hub: Hub,
    of_service: Credentials,
    _device: Serving,
}

impl FarEnd {
    /// One whose hub listens at `host`.
    pub(crate) async fn start(
        host: IpAddr,
        target: SocketAddr,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        let [of_hub, of_device, of_service] = credentials(host, &environment)?;
        let hub = start_hub(host, of_hub, environment.clone()).await?;
        let device = Serving::start(endpoint(&hub, of_device, None), target, environment).await?;
        Ok(Self { hub, of_service, _device: device })
    }

    /// How the near end gets to the hub.
    pub(crate) fn endpoint(&self, transport: Option<Transport>) -> EndpointConfig {
        endpoint(&self.hub, self.of_service.clone(), transport)
    }
}

/// The near end of the product. Dropping it ends it.
pub(crate) struct NearEnd {
    /// Opens tunnels by itself, without a local port.
    pub(crate) service: Service,
    /// A local port, each connection to which is a tunnel.
    pub(crate) forward: SocketAddr,
    /// A local port, whose connections share a session end to end.
    pub(crate) session: SocketAddr,
    forwards: [JoinHandle<()>; 2],
}

impl NearEnd {
    pub(crate) async fn start(endpoint: EndpointConfig, environment: Environment) -> anyhow::Result<Self> {
        let service = Service::new(endpoint, environment.clone())?;
        let tunnels = environment.network.listen("127.0.0.1:0").await?;
        let sessions = environment.network.listen("127.0.0.1:0").await?;
        let (forward_at, session) = (tunnels.local_addr()?, sessions.local_addr()?);
        let by_tunnels = Connector::tunnels(service.clone(), DEVICE, SERVICE, OpenOptions::default());
        let by_session = Connector::new(service.clone(), DEVICE, SERVICE, SessionOptions::default());
        let forwards = [
            tokio::spawn(forward(Arc::new(by_tunnels), tunnels)),
            tokio::spawn(forward(Arc::new(by_session), sessions)),
        ];
        Ok(Self { service, forward: forward_at, session, forwards })
    }
}

impl Drop for NearEnd {
    fn drop(&mut self) {
        self.forwards.iter().for_each(JoinHandle::abort);
    }
}

/// The product, on loopback, each part of it with threads of its own. Dropping it ends it.
pub(crate) struct Apart {
    pub(crate) near: NearEnd,
    _device: Serving,
    _hub: Hub,
    /// Last, so that those end first.
    pub(crate) parts: Parts,
}

impl Apart {
    pub(crate) async fn start(target: SocketAddr, environment: &Environment) -> anyhow::Result<Self> {
        let (parts, host) = (Parts::start()?, Ipv4Addr::LOCALHOST.into());
        let [of_hub, of_device, of_service] = credentials(host, environment)?;
        let hub = parts.middle.run(start_hub(host, of_hub, environment.clone())).await?;
        let (device, service) = (endpoint(&hub, of_device, None), endpoint(&hub, of_service, None));
        let device = parts.far.run(Serving::start(device, target, environment.clone())).await?;
        let near = parts.near.run(NearEnd::start(service, environment.clone())).await?;
        Ok(Self { near, _device: device, _hub: hub, parts })
    }
}

/// The product, both ends of it. Dropping it ends it.
pub(crate) struct Product {
    pub(crate) near: NearEnd,
    _far: FarEnd,
}

impl Product {
    pub(crate) async fn start(target: SocketAddr, environment: Environment) -> anyhow::Result<Self> {
        let far = FarEnd::start(Ipv4Addr::LOCALHOST.into(), target, environment.clone()).await?;
        Ok(Self { near: NearEnd::start(far.endpoint(None), environment).await?, _far: far })
    }
}

/// Opens a tunnel to the target. Returns it, and how long it took until the device had accepted it.
async fn open(service: &Service) -> anyhow::Result<(Tunnel, Duration)> {
    let start = Instant::now();
    let tunnel = service.open(DEVICE, SERVICE).await?;
    Ok((tunnel, start.elapsed()))
}

/// As [`target::upload`], through a tunnel without a local port.
pub(crate) async fn upload(service: Service, bytes: u64) -> anyhow::Result<Duration> {
    let (mut send, mut recv) = open(&service).await?.0.into_split();
    let piece = Bytes::from(vec![7; PIECE]);
    let start = Instant::now();
    send.write_all(&target::head(Wants::Up, bytes)).await?;
    let mut left = bytes;
    while left > 0 {
        let count = left.min(PIECE as u64);
        let mut piece = piece.slice(..usize::try_from(count).expect("it is at most a piece"));
        send.write_chunk(&mut piece).await?;
        left -= count;
    }
    receive(&mut recv, 1).await?;
    Ok(start.elapsed())
}

/// As [`target::download`], through a tunnel without a local port.
pub(crate) async fn download(service: Service, bytes: u64) -> anyhow::Result<Duration> {
    let (mut send, mut recv) = open(&service).await?.0.into_split();
    let start = Instant::now();
    send.write_all(&target::head(Wants::Down, bytes)).await?;
    receive(&mut recv, bytes).await?;
    Ok(start.elapsed())
}

/// As many [`request`]s, one after the other. Returns how long each took to open the tunnel, and how long all of it.
pub(crate) async fn requests(service: Service, count: usize) -> anyhow::Result<[Vec<Duration>; 2]> {
    let mut latencies = [Vec::with_capacity(count), Vec::with_capacity(count)];
    for _ in 0..count {
        let (opened, done) = request(&service).await?;
        latencies[0].push(opened);
        latencies[1].push(done);
    }
    Ok(latencies)
}

/// As [`target::request`], through a tunnel without a local port.
async fn request(service: &Service) -> anyhow::Result<(Duration, Duration)> {
    let start = Instant::now();
    let (tunnel, opened) = open(service).await?;
    let (mut send, mut recv) = tunnel.into_split();
    let mut message = [7; 9 + REQUEST];
    message[..9].copy_from_slice(&target::head(Wants::Echo, 0));
    send.write_all(&message).await?;
    receive(&mut recv, REQUEST as u64).await?;
    drop((send, recv));
    Ok((opened, start.elapsed()))
}

async fn receive(recv: &mut RecvStream, bytes: u64) -> anyhow::Result<()> {
    let mut got = 0;
    while got < bytes {
        let chunk = recv.read_chunk(usize::MAX).await?.context("the target has left early")?;
        got += chunk.len() as u64;
    }
    Ok(())
}
