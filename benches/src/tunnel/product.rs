//! The product, whole and in this process: a hub, a device that serves the target, a service, and a local port that
//! leads to it.

use std::net::SocketAddr;
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
    SessionOptions, Status, Tunnel, agent, forward,
};
use towline_transports::RecvStream;
use towline_transports::tls::Credentials;

use super::target::{self, PIECE, REQUEST, Wants};

const DEVICE: &str = "press-7";
const SERVICE: &str = "target";

/// How long certificates are valid, and how long the device may take to come online.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(10);

/// What the hub, the device and the service need to trust each other.
fn credentials(environment: &Environment) -> anyhow::Result<[Credentials; 3]> {
    let now = environment.tls.time.current_time().context("the system does not know what day it is")?;
    let (authority, _) = Authority::new(now)?;
    let issue = |role: &str, name: &str, hosts: &[String]| -> anyhow::Result<Credentials> {
        let identity = format!("spiffe://bench/{role}/{name}").parse()?;
        Ok(authority.credentials(&authority.issue(&identity, hosts, now, LIFETIME)?)?)
    };
    let hub = issue("hub", "h", &["127.0.0.1".into()])?;
    Ok([hub, issue("device", DEVICE, &[])?, issue("service", "s", &[])?])
}

/// The product. Dropping it ends it.
pub(crate) struct Product {
    /// Opens tunnels by itself, without a local port.
    pub(crate) service: Service,
    /// A local port, each connection to which is a tunnel.
    pub(crate) forward: SocketAddr,
    /// A local port, whose connections share a session end to end.
    pub(crate) session: SocketAddr,
    tasks: [JoinHandle<()>; 3],
    _hub: Hub,
}

impl Product {
    pub(crate) async fn start(target: SocketAddr, environment: Environment) -> anyhow::Result<Self> {
        let [credentials, of_device, of_service] = credentials(&environment)?;
        // Whoever measures how fast tunnels open must not be held up by the limit on that.
        let limits = Limits::default().opens(1_000_000, 1_000_000).tunnels_per_device(1_000_000);
        let config = HubConfig {
            listen: "127.0.0.1:0".into(),
            credentials,
            limits,
            policy: Box::new(AllowAll),
            quic: true,
        };
        let hub = Hub::start(config, environment.clone()).await?;
        let endpoint = |credentials| EndpointConfig {
            hub: hub.local_addr().to_string(),
            credentials,
            route: Route::default(),
        };
        let mut device = Device::register(endpoint(of_device), environment.clone())?;
        let mut status = device.status();
        let online = status.wait_for(|status| matches!(status, Status::Online));
        tokio::time::timeout(PATIENCE, online).await.context("the device does not come online")??;
        let service = Service::new(endpoint(of_service), environment.clone())?;

        let targets = vec![format!("{SERVICE}={target}").parse()?];
        let tunnels = environment.network.listen("127.0.0.1:0").await?;
        let sessions = environment.network.listen("127.0.0.1:0").await?;
        let (address, session) = (tunnels.local_addr()?, sessions.local_addr()?);
        let by_tunnels = Connector::tunnels(service.clone(), DEVICE, SERVICE, OpenOptions::default());
        let by_session = Connector::new(service.clone(), DEVICE, SERVICE, SessionOptions::default());
        let tasks = [
            tokio::spawn(async move { agent::serve(&mut device, targets, environment).await }),
            tokio::spawn(forward(Arc::new(by_tunnels), tunnels)),
            tokio::spawn(forward(Arc::new(by_session), sessions)),
        ];
        Ok(Self { service, forward: address, session, tasks, _hub: hub })
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Opens a tunnel to the target. Returns it, and how long it took until the device had accepted it.
pub(crate) async fn open(service: &Service) -> anyhow::Result<(Tunnel, Duration)> {
    let start = Instant::now();
    let tunnel = service.open(DEVICE, SERVICE).await?;
    Ok((tunnel, start.elapsed()))
}

/// As [`target::upload`], through a tunnel without a local port.
pub(crate) async fn upload(service: &Service, bytes: u64) -> anyhow::Result<Duration> {
    let (mut send, mut recv) = open(service).await?.0.into_split();
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
pub(crate) async fn download(service: &Service, bytes: u64) -> anyhow::Result<Duration> {
    let (mut send, mut recv) = open(service).await?.0.into_split();
    let start = Instant::now();
    send.write_all(&target::head(Wants::Down, bytes)).await?;
    receive(&mut recv, bytes).await?;
    Ok(start.elapsed())
}

/// As [`target::request`], through a tunnel without a local port. Returns how long it took to open the tunnel, and
/// how long all of it.
pub(crate) async fn request(service: &Service) -> anyhow::Result<(Duration, Duration)> {
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
