//! The hub's port of UDP, for QUIC.
//!
//! In: the keys, and how they change. Out: connections, which are welcomed as those of TCP are. Keeps: the endpoint, while
//! it has the port. Whoever else has it may leave; until then, the hub does without and asks again.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use towline_transports::quic;
use towline_transports::tls::{self, ConfigError, Credentials};

use super::{Inner, Newcomer, welcome};
use crate::codes;
use crate::core::Limits;
use crate::endpoint::hub_link_config;

/// How long to wait before asking for the port again, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest wait, to which it doubles.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long QUIC's last words may take to get out.
const PARTING: Duration = Duration::from_millis(200);

/// The port.
#[derive(Debug)]
pub(super) struct UdpPort {
    address: SocketAddr,
    /// For whoever comes.
    config: quic::ServerConfig,
    /// `None` while somebody else has the port.
    endpoint: Option<quic::Endpoint>,
}

impl UdpPort {
    pub(super) fn new(address: SocketAddr, config: quic::ServerConfig) -> Self {
        Self { address, config, endpoint: None }
    }

    /// Has other keys for whoever comes from now on.
    pub(super) fn set_config(&mut self, config: quic::ServerConfig) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.set_server(&config);
        }
        self.config = config;
    }

    fn open(&mut self, inner: &Inner) -> io::Result<quic::Endpoint> {
        let environment = &inner.environment;
        let (socket, runtime) = environment.network.bind_udp(self.address)?;
        let config = Some(self.config.clone());
        let endpoint = quic::Endpoint::with_socket(socket, runtime, config, &environment.tls)?;
        let endpoint = endpoint
            .retry_from(quic::RETRY_FROM.min(inner.limits.unauthenticated / 8))
            .over(environment.network.clone());
        Ok(self.endpoint.insert(endpoint).clone())
    }
}

/// What QUIC needs to know of the hub.
pub(super) fn server_config(
    credentials: Credentials,
    environment: &tls::Environment,
    limits: &Limits,
) -> Result<quic::ServerConfig, ConfigError> {
    quic::server_config(credentials, environment, hub_link_config(limits.tunnels_per_device, None))
}

/// Opens the port, if it is wanted, and accepts connections on it. If somebody else has it, that is in the log, and it is
/// tried again.
pub(super) fn start(inner: &Arc<Inner>) {
    let Some(port) = &inner.udp else { return };
    let endpoint = open(inner, port);
    // Not among the tasks that a drain waits for: it refuses until the end.
    tokio::spawn(inner.running.clone().run_until_cancelled_owned(serve(inner.clone(), endpoint)));
}

/// Whether the hub has the port.
pub(super) fn is_open(inner: &Inner) -> bool {
    inner.udp.as_ref().is_some_and(|port| lock(port).endpoint.is_some())
}

/// Says goodbye to those who are left. The system says nothing to the peers of a UDP socket that is gone.
pub(super) async fn part(inner: &Inner) {
    let endpoint = inner.udp.as_ref().and_then(|port| lock(port).endpoint.take());
    if let Some(endpoint) = endpoint {
        endpoint.close(codes::NONE, "");
        let _ = timeout(PARTING, endpoint.wait_idle()).await;
    }
}

pub(super) fn lock(port: &Mutex<UdpPort>) -> MutexGuard<'_, UdpPort> {
    port.lock().expect("nothing panics while it holds the lock")
}

fn open(inner: &Inner, port: &Mutex<UdpPort>) -> Option<quic::Endpoint> {
    let mut port = lock(port);
    let address = port.address;
    let opened = port.open(inner);
    if let Err(error) = &opened {
        tracing::warn!(%address, %error, "no QUIC: cannot listen on this port of UDP; trying again until it is free");
    }
    opened.ok()
}

/// Accepts connections whenever the hub has the port.
async fn serve(inner: Arc<Inner>, mut opened: Option<quic::Endpoint>) {
    loop {
        let endpoint = match opened.take() {
            Some(endpoint) => endpoint,
            None => open_later(&inner).await,
        };
        accept(&inner, &endpoint).await;
        drop(endpoint);
        // While anybody holds it, it has the port.
        let has_failed = inner.udp.as_ref().and_then(|port| lock(port).endpoint.take()).is_some();
        if !has_failed {
            return; // the hub parts
        }
        tracing::warn!("no more QUIC: the UDP socket has failed; opening another one");
    }
}

/// Waits until the port is free, and opens it.
async fn open_later(inner: &Inner) -> quic::Endpoint {
    let port = inner.udp.as_ref().expect("whoever waits for it wants it");
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let mut port = lock(port);
        let address = port.address;
        match port.open(inner) {
            Ok(endpoint) => {
                tracing::info!(%address, "QUIC: now listening on this port of UDP");
                return endpoint;
            }
            Err(error) => tracing::debug!(%address, %error, ?pause, "still no QUIC"),
        }
    }
}

/// Accepts connections until the socket fails. Whoever comes while the hub drains is refused, since UDP itself would say
/// nothing.
async fn accept(inner: &Arc<Inner>, endpoint: &quic::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        if inner.accepting.is_cancelled() {
            incoming.refuse();
            continue;
        }
        let address = incoming.remote_address();
        welcome(inner, Newcomer::Quic(Box::new(incoming)), address).await;
    }
}
