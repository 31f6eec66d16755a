//! A hub on loopback, and everybody who may come to it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod honest;
pub mod log;
pub mod memory;

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::io::AsyncWriteExt;
use towline::authority::Authority;
use towline::core::Limits;
use towline::identity::Identity;
use towline::message::{self, Hello, Request};
use towline::policy::{AllowAll, Policy};
use towline::{Device, EndpointConfig, Environment, Hub, HubConfig, Route, Service, StartError, Status};
use towline_transports::tls::{self, ALPN_LINK, Credentials};
use towline_transports::{Config, Link, Side};

/// An authority, and how to get certificates from it.
pub struct World {
    pub environment: Environment,
    authority: Authority,
}

impl World {
    pub fn new() -> Self {
        let environment = Environment::system();
        let now = environment.tls.time.current_time().unwrap();
        Self { authority: Authority::new(now).unwrap().0, environment }
    }

    /// Credentials of `who`, such as `device/press-7`.
    pub fn credentials(&self, who: &str) -> Credentials {
        self.credentials_in("test", who)
    }

    /// The same, in another trust domain than everybody else.
    pub fn credentials_in(&self, trust_domain: &str, who: &str) -> Credentials {
        let identity: Identity = format!("spiffe://{trust_domain}/{who}").parse().unwrap();
        let now = self.environment.tls.time.current_time().unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let hosts = if who.starts_with("hub/") { &hosts[..] } else { &[] };
        let issued = self.authority.issue(&identity, hosts, now, Duration::from_secs(3600)).unwrap();
        self.authority.credentials(&issued).unwrap()
    }

    /// Credentials whose time was yesterday.
    pub fn expired_credentials(&self, who: &str) -> Credentials {
        let now = self.environment.tls.time.current_time().unwrap();
        let yesterday = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() - 24 * 3600));
        let identity: Identity = format!("spiffe://test/{who}").parse().unwrap();
        let issued = self.authority.issue(&identity, &[], yesterday, Duration::from_secs(3600)).unwrap();
        self.authority.credentials(&issued).unwrap()
    }

    pub async fn hub(&self) -> Hub {
        self.hub_with("127.0.0.1:0", Limits::default(), Box::new(AllowAll)).await
    }

    pub async fn hub_with(&self, listen: &str, limits: Limits, policy: Box<dyn Policy>) -> Hub {
        self.try_hub(listen, limits, policy).await.unwrap()
    }

    /// A hub that has this certificate.
    pub async fn hub_of(&self, credentials: Credentials) -> Hub {
        let (listen, limits) = ("127.0.0.1:0".to_owned(), Limits::default());
        let config = HubConfig { listen, credentials, limits, policy: Box::new(AllowAll), quic: true };
        Hub::start(config, self.environment.clone()).await.unwrap()
    }

    async fn try_hub(
        &self,
        listen: &str,
        limits: Limits,
        policy: Box<dyn Policy>,
    ) -> Result<Hub, StartError> {
        let config = HubConfig {
            listen: listen.to_owned(),
            credentials: self.credentials("hub/h"),
            limits,
            policy,
            quic: true,
        };
        Hub::start(config, self.environment.clone()).await
    }

    /// A hub where another one has listened, as soon as that does not any more.
    pub async fn successor(&self, listen: &str) -> Hub {
        self.successor_with(listen, || Box::new(AllowAll)).await
    }

    /// As [`successor`](Self::successor), with rules.
    pub async fn successor_with(&self, listen: &str, rules: impl Fn() -> Box<dyn Policy>) -> Hub {
        loop {
            match self.try_hub(listen, Limits::default(), rules()).await {
                Ok(hub) => return hub,
                Err(StartError::Listen { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn endpoint(&self, who: &str, hub: &Hub) -> EndpointConfig {
        EndpointConfig {
            hub: hub.local_addr().to_string(),
            credentials: self.credentials(who),
            route: Route::default(),
        }
    }

    /// A link with valid TLS and these limits on which nothing was said yet.
    pub async fn raw_link(
        &self,
        hub: SocketAddr,
        credentials: Credentials,
        limits: Config,
    ) -> Result<Link, tls::HandshakeError> {
        let config = tls::client_config(credentials, &[ALPN_LINK], &self.environment.tls).unwrap();
        let socket = self.environment.network.connect(&hub.to_string()).await.unwrap();
        let pipe = tls::connect(socket, "127.0.0.1".try_into().unwrap(), config).await?;
        Ok(Link::over_tls(pipe, Side::Client, limits))
    }

    /// A device that is online.
    pub async fn device(&self, name: &str, hub: &Hub) -> Device {
        let config = self.endpoint(&format!("device/{name}"), hub);
        let device = Device::register(config, self.environment.clone()).unwrap();
        online(&device).await;
        device
    }

    pub fn service(&self, name: &str, hub: &Hub) -> Service {
        let config = self.endpoint(&format!("service/{name}"), hub);
        Service::new(config, self.environment.clone()).unwrap()
    }
}

/// The first request on a link.
pub fn hello() -> Request {
    Request::Hello(Hello { version: message::VERSION, instance: 1, agent: "test".into() })
}

/// Serves the device's tunnels: each gives back what comes through it. Ends the device when it is aborted.
pub fn echo(mut device: Device) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let tunnel = device.next_offer().await.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(tunnel);
                // Some of these tunnels are lost, and of some the rest is left.
                if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                    let _ = writer.shutdown().await;
                }
            });
        }
    })
}

/// Waits until the device is registered.
pub async fn online(device: &Device) {
    let mut status = device.status();
    let wait = status.wait_for(|status| matches!(status, Status::Online));
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("online within 20 s").unwrap();
}

/// Waits until something is so, which other tasks are about to bring about.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it should be so within 20 s");
}

/// Bytes that differ from their neighbours.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|offset| u8::try_from(offset * 31 % 251).unwrap()).collect()
}
