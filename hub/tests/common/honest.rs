//! Those who must not be disturbed by whatever else comes to a hub.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use towline::core::Limits;
use towline::policy::AllowAll;
use towline::{Hub, Service};
use towline_transports::{Network, Socket};

use super::World;

/// After this long something hangs.
pub const SOON: Duration = Duration::from_secs(20);

/// A hub with a device that echoes, and a service that uses it.
pub struct Honest {
    pub hub: Hub,
    pub service: Service,
    network: Arc<dyn Network>,
}

impl Honest {
    pub async fn new(world: &World, limits: Limits) -> Self {
        Self::at(world, world.hub_with("127.0.0.1:0", limits, Box::new(AllowAll)).await).await
    }

    /// The same, at this hub.
    pub async fn at(world: &World, hub: Hub) -> Self {
        let mut device = world.device("press-7", &hub).await;
        tokio::spawn(async move {
            loop {
                let tunnel = device.next_offer().await.accept().await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(tunnel);
                tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
            }
        });
        let service = world.service("ops", &hub);
        let honest = Self { hub, service, network: world.environment.network.clone() };
        honest.check().await;
        honest
    }

    /// They are served as if nothing were.
    pub async fn check(&self) {
        self.is_served(&self.service).await;
    }

    /// Whether a service gets through to the device.
    pub async fn is_served(&self, service: &Service) {
        let mut tunnel = timeout(SOON, service.open("press-7", "echo")).await.unwrap().unwrap();
        tunnel.write_all(b"still here").await.unwrap();
        let mut read = [0; 10];
        timeout(SOON, tunnel.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read, b"still here");
    }

    pub async fn dial(&self) -> Box<dyn Socket> {
        self.network.connect(&self.hub.local_addr().to_string()).await.unwrap()
    }
}

/// Reads until the other end closes; it must, and soon. Returns what it said.
pub async fn is_hung_up_on(mut socket: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut said = Vec::new();
    // An end or a reset: both will do.
    let _ = timeout(SOON, socket.read_to_end(&mut said)).await.expect("the hub hangs up");
    said
}
