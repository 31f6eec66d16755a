//! Sessions end to end that have lost their tunnel, at the device: its process has the hub as well, and stops it.
//!
//! Nobody's sessions are measured with their tunnels: those would be the hub's too.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;
use towline::core::Limits;
use towline::policy::AllowAll;
use towline::{
    Device, EndToEnd, EndpointConfig, Environment, Hub, HubConfig, Route, Service, SessionOptions, Transport,
    agent,
};

use super::Held;
use super::holder::{Asked, Holder, LOOK};
use super::load::patiently;
use crate::alloc;
use crate::clock;
use crate::transports::trust::{self, HOST, Trust};

const SERVICE: &str = "x";

/// Longer than all of it takes.
const GRACE: Duration = Duration::from_secs(10 * 60);

/// How many sessions each service has. A device lets it have no more than 256.
const EACH: usize = 128;

/// How many looks in turn the heap is the same when it is at rest. The device tries more seldom than that to reach the hub.
const ALIKE: usize = 5;

/// Until the device is back at the hub.
const WAIT: Duration = Duration::from_secs(60);

fn environment() -> Environment {
    Environment { tls: trust::environment(), ..Environment::system() }
}

fn endpoint(hub: &str, credentials: towline_transports::tls::Credentials) -> EndpointConfig {
    let route = Route { transport: Some(Transport::Tls), ..Route::default() };
    EndpointConfig { hub: hub.to_owned(), credentials, route }
}

/// Is the device and the hub. Each time it is asked, it stops the hub once all sessions are there, and starts it again after
/// that.
pub(super) async fn hold(trust: Trust, settle: Duration, mut asked: Asked) -> anyhow::Result<()> {
    let environment = environment();
    let start = async |listen: String| -> anyhow::Result<Hub> {
        let config = HubConfig {
            listen,
            credentials: trust.far()?,
            limits: Limits::default().opens(1_000_000, 1_000_000).tunnels_per_device(1_000_000),
            policy: Box::new(AllowAll),
            quic: false,
        };
        Ok(Hub::start(config, environment.clone()).await?)
    };
    let mut hub = start(format!("{HOST}:0")).await?;
    let address = hub.local_addr().to_string();
    let mut device = Device::register(endpoint(&address, trust.near()?), environment.clone())?;
    device.keep_sessions_for(GRACE);
    // Whoever connects to it says nothing.
    let targets = vec![format!("{SERVICE}={address}").parse()?];
    let there = environment.clone();
    tokio::spawn(async move { agent::serve(&mut device, targets, there).await });
    asked.answer(&hub.local_addr())?;
    while let Some(wanted) = asked.next().await {
        while hub.stats().tunnels < wanted {
            sleep(LOOK).await;
        }
        until_at_rest().await;
        drop(hub);
        until_at_rest().await;
        let before = clock::process_cpu();
        sleep(settle).await;
        asked.answer_with_memory(clock::process_cpu() - before)?;
        hub = start(address.clone()).await?;
    }
    Ok(())
}

/// Waits until all that is over is gone, tasks with their buffers and streams that the peer still had to hear of: until the
/// heap stays as it is.
async fn until_at_rest() {
    let mut live = alloc::heap().live_bytes;
    let mut alike = 0;
    while alike < ALIKE {
        sleep(LOOK).await;
        let before = std::mem::replace(&mut live, alloc::heap().live_bytes);
        alike = if live == before { alike + 1 } else { 0 };
    }
}

/// Has the sessions.
pub(super) async fn load(holder: &mut Holder, trust: &Trust, counts: &[usize]) -> anyhow::Result<Vec<Held>> {
    let last = counts.last().copied().unwrap_or(0);
    let hub = holder.address().await?.to_string();
    let service = |credentials| Service::new(endpoint(&hub, credentials), environment());
    let services =
        trust.services(last.div_ceil(EACH))?.into_iter().map(service).collect::<Result<Vec<_>, _>>()?;
    let (mut sessions, mut held) = (Vec::new(), Vec::new());
    for &count in counts {
        sessions.extend(patiently(open(&services, sessions.len()..count)).await??);
        held.push(holder.measure(count).await?);
    }
    holder.stop();
    Ok(held)
}

async fn open(services: &[Service], numbers: std::ops::Range<usize>) -> anyhow::Result<Vec<EndToEnd>> {
    let mut options = SessionOptions::default();
    (options.grace, options.wait) = (GRACE, WAIT);
    let (mut sessions, mut tasks) = (Vec::new(), JoinSet::new());
    for number in numbers {
        if tasks.len() == AT_ONCE {
            sessions.push(tasks.join_next().await.context("there are some")???);
        }
        let service = services[number / EACH].clone();
        tasks.spawn(async move {
            let session = service.session(trust::NEAR, SERVICE, options).await?;
            // Once it has been used, both ends know that it can be resumed. To its end, so that nothing of that is held.
            let mut used = session.begin().await?.answered().await?;
            used.shutdown().await?;
            used.read_to_end(&mut Vec::new()).await?;
            anyhow::Ok(session)
        });
    }
    while let Some(session) = tasks.join_next().await {
        sessions.push(session??);
    }
    Ok(sessions)
}

/// How many are opened at a time.
const AT_ONCE: usize = 8;
