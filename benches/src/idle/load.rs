//! The other ends: makes the connections, and keeps them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::timeout;
use towline::{Device, EndpointConfig, Environment, Route, Status, Transport as Way};

use super::{Held, Holder, Name, Who, sessions};
use crate::transports::contender::{Connect, Transport, Use, Visit};
use crate::transports::trust::{self, Trust};

/// How many connections are made at a time.
const AT_ONCE: usize = 16;

/// How long it may take to make all of them before they are taken to stand still.
const PATIENCE: Duration = Duration::from_secs(300);

/// Makes so many connections to `holder`, and asks what they cost; then up to so many, and so on.
pub(crate) fn load(
    name: Name,
    holder: &mut Holder,
    trust: &Trust,
    counts: &[usize],
) -> anyhow::Result<Vec<Held>> {
    match name.who() {
        Who::Contender(contender) => contender.visit(Use::Idle, Load { holder, trust, counts }),
        Who::Hub(way) => run(load_hub(way, holder, trust, counts)),
        Who::DetachedSessions => run(sessions::load(holder, trust, counts)),
    }
}

fn run(load: impl Future<Output = anyhow::Result<Vec<Held>>>) -> anyhow::Result<Vec<Held>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(load)
}

/// Waits for connections to be made.
pub(crate) async fn patiently<T>(connections: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(PATIENCE, connections).await.context("not all connections were there after five minutes")
}

struct Load<'a> {
    holder: &'a mut Holder,
    trust: &'a Trust,
    counts: &'a [usize],
}

impl Visit for Load<'_> {
    type Output = anyhow::Result<Vec<Held>>;

    fn visit(self, transport: impl Transport) -> Self::Output {
        let Self { holder, trust, counts } = self;
        run(async {
            let connector = transport.connector(trust, holder.address().await?)?;
            let (mut openers, mut held) = (Vec::new(), Vec::new());
            for &count in counts {
                openers.extend(patiently(connect(&connector, count - openers.len())).await?);
                held.push(holder.measure(count).await?);
            }
            holder.stop();
            drop(openers);
            Ok(held)
        })
    }
}

async fn connect<C: Connect>(connector: &C, count: usize) -> Vec<C::Opener> {
    let mut tasks = JoinSet::new();
    for worker in 0..AT_ONCE {
        let connector = connector.clone();
        tasks.spawn(async move {
            let mut openers = Vec::new();
            for _ in (worker..count).step_by(AT_ONCE) {
                openers.push(connector.connect().await);
            }
            openers
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn load_hub(
    way: Way,
    holder: &mut Holder,
    trust: &Trust,
    counts: &[usize],
) -> anyhow::Result<Vec<Held>> {
    let last = counts.last().copied().unwrap_or(0);
    let mut fleet = Fleet::new(holder.address().await?, way, trust, last)?;
    let mut held = Vec::new();
    for &count in counts {
        fleet.grow(count).await?;
        held.push(holder.measure(count).await?);
    }
    holder.stop();
    drop(fleet);
    Ok(held)
}

/// Devices of a hub, of which there are more and more.
pub(crate) struct Fleet {
    /// Those that are still to come.
    endpoints: std::vec::IntoIter<EndpointConfig>,
    /// Those that are there.
    pub(crate) devices: Vec<Device>,
}

impl Fleet {
    /// Nobody yet, and at most so many, of the hub that is there.
    pub(crate) fn new(hub: SocketAddr, way: Way, trust: &Trust, most: usize) -> anyhow::Result<Self> {
        let endpoint = |credentials| EndpointConfig {
            hub: hub.to_string(),
            credentials,
            route: Route { transport: Some(way), ..Route::default() },
        };
        let endpoints: Vec<_> = trust.devices(most)?.into_iter().map(endpoint).collect();
        Ok(Self { endpoints: endpoints.into_iter(), devices: Vec::new() })
    }

    /// Returns once `count` of them are online.
    pub(crate) async fn grow(&mut self, count: usize) -> anyhow::Result<()> {
        let more = self.endpoints.by_ref().take(count - self.devices.len());
        self.devices.extend(patiently(register(more)).await??);
        Ok(())
    }
}

async fn register(endpoints: impl Iterator<Item = EndpointConfig>) -> anyhow::Result<Vec<Device>> {
    let environment = Environment { tls: trust::environment(), ..Environment::system() };
    let (mut devices, mut tasks) = (Vec::new(), JoinSet::new());
    for endpoint in endpoints {
        if tasks.len() == AT_ONCE {
            devices.push(tasks.join_next().await.context("there are some")???);
        }
        let environment = environment.clone();
        tasks.spawn(async move {
            let device = Device::register(endpoint, environment)?;
            let mut status = device.status();
            let status = status.wait_for(|status| !matches!(status, Status::Connecting)).await?.clone();
            match status {
                Status::Online => Ok(device),
                other => bail!("a device does not come online: {other:?}"),
            }
        });
    }
    while let Some(device) = tasks.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}
