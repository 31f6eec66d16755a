//! The parts: what runs on a hub, a proxy, a device and a service, each as the product runs it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::sleep;
use towline::agent::{self, Target};
use towline::core::Limits;
use towline::{Device, EndpointConfig, Hub, Route, Service, Status};
use towline_transports::Network;
use towline_transports::proxy::ProxySettings;

use super::app;
use super::network::SimNetwork;
use super::stage::{HubHandle, Stage};
use crate::event::What;
use crate::scenario::{FaultKind, Host, Span, Transport};

/// What a part comes to, for turmoil.
pub(super) type Played = Result<(), Box<dyn std::error::Error>>;

/// How long the tunnels of a hub that drains may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Where proxies listen.
const PROXY_PORT: u16 = 3128;

/// Runs a hub. When it is told to, it drains, and comes back.
pub(super) async fn hub(stage: Rc<Stage>, host: Host) -> Played {
    let start = stage.start(&host.name);
    let environment = stage.cast.environment(&host.name, &host.name, start);
    loop {
        let mut config = stage.cast.hub(&host.name);
        config.credentials = stage.cast.credentials_for(
            &format!("hub/{}", host.identity),
            &[&host.name],
            lifetime(&stage, &host),
        );
        if let Some(unauthenticated) = host.unauthenticated {
            config.limits =
                Limits::default().unauthenticated(usize::try_from(unauthenticated).unwrap_or(usize::MAX));
        }
        let hub = Rc::new(Hub::start(config, environment.clone()).await?);
        let (drain, mut drained) = mpsc::unbounded_channel();
        stage.hubs.borrow_mut().insert(host.name.clone(), HubHandle { hub: Rc::downgrade(&hub), drain });
        let Some(gone) = drained.recv().await else { return remain().await };
        stage.hubs.borrow_mut().remove(&host.name);
        let hub = Rc::into_inner(hub).expect("whoever looked at it has let go");
        hub.drain(gone, DRAIN_DEADLINE).await;
        sleep(gone).await;
    }
}

/// Runs a proxy: it connects whoever asks with CONNECT.
pub(super) async fn proxy(stage: Rc<Stage>, host: Host) -> Played {
    let network = SimNetwork::new(stage.air.clone(), &host.name, &host.name, None);
    let mut listener = network.listen(&format!("0.0.0.0:{PROXY_PORT}")).await?;
    loop {
        let (client, _) = listener.accept().await?;
        let network = network.clone();
        tokio::task::spawn_local(async move {
            // Whoever does not get through notices.
            let _ = pass_on(client, network).await;
        });
    }
}

async fn pass_on(mut client: Box<dyn towline_transports::Socket>, network: SimNetwork) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).ok_or(io::ErrorKind::InvalidData)?;
    let Ok(mut server) = network.connect(target).await else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    };
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Runs a device on turmoil's host `site`: the device, its agent, and the application behind it.
pub(super) async fn device(stage: Rc<Stage>, host: Host, site: String) -> Played {
    wait_for(&stage, host.start).await;
    let start = stage.start(&host.name);
    let environment = stage.cast.environment(&host.name, &site, start);
    let mut listener = environment.network.listen("127.0.0.1:0").await?;
    let address = format!("127.0.0.1:{}", listener.local_addr()?.port());
    let mut device = Device::register_with(configs(&stage, &host, "device"), environment.clone())?;
    let status = device.status();
    let (watching, name) = (stage.clone(), host.clone());
    tokio::task::spawn_local(watch(watching, name, status));
    let applications = stage.clone();
    let name = host.name.clone();
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (stage, name) = (applications.clone(), name.clone());
            tokio::task::spawn_local(async move { app::answer(&stage, &name, socket).await });
        }
    });
    let targets = vec![Target { name: app::APP.parse()?, address }];
    tokio::select! {
        biased;
        () = agent::serve(&mut device, targets, environment) => {}
        () = until(&stage.over) => device.close().await,
    }
    remain().await
}

/// Writes down how it stands between a device and its hubs.
async fn watch(stage: Rc<Stage>, host: Host, mut status: tokio::sync::watch::Receiver<Status>) {
    let hub = host.known_hubs();
    loop {
        let now = status.borrow_and_update().clone();
        match now {
            Status::Online => {
                stage.online.borrow_mut().insert(host.name.clone());
                let transport = format!("{:?}", host.transport).to_lowercase();
                stage.emit(&host.name, What::LinkUp { hub: hub.clone(), transport });
            }
            Status::Waiting { why, .. } => {
                stage.online.borrow_mut().remove(&host.name);
                stage.emit(&host.name, What::LinkDown { hub: hub.clone(), why });
            }
            _ => {
                stage.online.borrow_mut().remove(&host.name);
                stage.emit(&host.name, What::LinkStarted { hub: hub.clone() });
            }
        }
        if status.changed().await.is_err() {
            stage.online.borrow_mut().remove(&host.name);
            return;
        }
    }
}

/// Runs a service on turmoil's host `site`: it opens the streams of the plan, each at its time.
pub(super) async fn service(stage: Rc<Stage>, host: Host, site: String) -> Played {
    wait_for(&stage, host.start).await;
    let start = stage.start(&host.name);
    stage.forget_sessions(&host.name);
    let environment = stage.cast.environment(&host.name, &site, start);
    let service = Service::of_hubs(configs(&stage, &host, "service"), environment)?;
    for (index, stream) in stage.plan.streams.iter().enumerate() {
        let wanted = stage.streams.borrow()[index].wanted;
        if stream.service != host.name || wanted {
            continue;
        }
        let (stage, service) = (stage.clone(), service.clone());
        tokio::task::spawn_local(async move {
            wait_for(&stage, stage.plan.streams[index].start).await;
            app::serve(&stage, &service, index).await;
        });
    }
    until(&stage.idle).await;
    for place in stage.sessions_of(&host.name) {
        let mut place = place.lock().await;
        if let Some(session) = &*place {
            session.close();
            session.closed().await;
            *place = None;
        }
    }
    until(&stage.over).await;
    service.close().await;
    remain().await
}

/// Where an endpoint's hubs are, and how it gets there.
fn configs(stage: &Stage, host: &Host, role: &str) -> Vec<EndpointConfig> {
    let transport = match host.transport {
        Transport::Auto => None,
        Transport::Tls => Some(towline::Transport::Tls),
        Transport::Quic => Some(towline::Transport::Quic),
        Transport::WebSocket => Some(towline::Transport::WebSocket),
    };
    let proxy = host.proxy.as_ref().map_or_else(ProxySettings::direct, |proxy| {
        let url = format!("http://{proxy}:{PROXY_PORT}");
        ProxySettings::through(url.parse().expect("it is a URL"))
    });
    let route = Route { transport, proxy, ..Route::default() };
    let identity = format!("{role}/{}", host.identity);
    let credentials = stage.cast.credentials_for(&identity, &[], lifetime(stage, host));
    let config = |hub: &String| stage.cast.endpoint(hub, credentials.clone(), route.clone());
    host.hubs.iter().map(config).collect()
}

/// How long a host's credentials hold, from the beginning: until they are to expire, if they are. Whoever starts anew
/// after that has new ones.
fn lifetime(stage: &Stage, host: &Host) -> Duration {
    let now = stage.now();
    let mut expiries = stage
        .plan
        .faults
        .iter()
        .filter(|fault| fault.kind == FaultKind::Expire && fault.host == host.name && fault.at.0 >= now);
    expiries.next().map_or(FOREVER, |fault| Duration::from_nanos(fault.at.0))
}

const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

async fn wait_for(stage: &Stage, time: Span) {
    sleep(Duration::from_nanos(time.0.saturating_sub(stage.now()))).await;
}

/// turmoil stops a host whose program has ended, and with it the tasks that say goodbye.
async fn remain() -> Played {
    std::future::pending().await
}

async fn until(is_so: &Cell<bool>) {
    while !is_so.get() {
        sleep(Duration::from_millis(10)).await;
    }
}
