//! Reach any device by its ID, through connections that the device and the caller both make outward.
//!
//! A [`Hub`] is where they meet. A [`Device`] registers with it and decides about each tunnel that is offered; a
//! [`Service`] opens tunnels by the device's ID and the name of a service. A [`Tunnel`] is `AsyncRead + AsyncWrite`.
//!
//! ```
//! use std::time::Duration;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use towline::authority::Authority;
//! use towline::core::Limits;
//! use towline::policy::AllowAll;
//! use towline::{Device, EndpointConfig, Environment, Hub, HubConfig, Route, Service, Status};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let environment = Environment::system();
//! // An authority of our own. In production the certificates come in files: see `CredentialFiles`.
//! let now = environment.tls.time.current_time().ok_or("what day is it?")?;
//! let (authority, _) = Authority::new(now)?;
//! let issue = |who: &str, hosts: &[String]| {
//!     let issued = authority.issue(&who.parse()?, hosts, now, Duration::from_secs(3600))?;
//!     Ok::<_, Box<dyn std::error::Error>>(authority.credentials(&issued)?)
//! };
//!
//! let credentials = issue("spiffe://example/hub/h", &["127.0.0.1".into()])?;
//! let (listen, limits) = ("127.0.0.1:0".into(), Limits::default());
//! let config = HubConfig { listen, credentials, limits, policy: Box::new(AllowAll), quic: true };
//! let hub = Hub::start(config, environment.clone()).await?;
//!
//! let endpoint = |credentials| EndpointConfig { hub: hub.local_addr().to_string(), credentials, route: Route::default() };
//! let credentials = issue("spiffe://example/device/press-7", &[])?;
//! let mut device = Device::register(endpoint(credentials), environment.clone())?;
//! device.status().wait_for(|status| matches!(status, Status::Online)).await?;
//! tokio::spawn(async move {
//!     let offer = device.next_offer().await;
//!     let mut tunnel = offer.accept().await?;
//!     tunnel.write_all(b"42 degrees").await?;
//!     tunnel.shutdown().await?;
//!     device.close().await;
//!     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! });
//!
//! let credentials = issue("spiffe://example/service/ops", &[])?;
//! let service = Service::new(endpoint(credentials), environment)?;
//! let mut tunnel = service.open("press-7", "temperature").await?;
//! let mut reading = String::new();
//! tunnel.read_to_string(&mut reading).await?;
//! assert_eq!(reading, "42 degrees");
//! # Ok(())
//! # }
//! ```
//!
//! # Where to start reading
//!
//! [`core`] is the hub without its sockets: who is here, who may open what, until when, and the splice. `hub.rs`,
//! `device.rs`, `service.rs` and `opening.rs` are the sockets and tasks around it; [`message`] is what they say to each other, and
//! [`relay`] carries the bytes. The program `towline` is in `main.rs` and `cli/`.

pub mod agent;
pub mod authority;
pub mod codes;
mod connector;
pub mod core;
mod credentials;
mod device;
mod dial;
mod door;
mod end_to_end;
mod endpoint;
mod environment;
mod forward;
mod hub;
pub mod identity;
mod memory;
pub mod message;
mod on_demand;
mod opening;
mod places;
pub mod policy;
pub mod refusal;
pub mod relay;
mod service;
mod tunnel;
mod unopened;

pub use connector::Connector;
pub use credentials::{CredentialError, CredentialFiles};
pub use device::{Device, Offer, Status};
pub use dial::{Attempt, Stage, Transport, Way, why};
pub use end_to_end::{EndToEnd, PeerError, SessionOptions};
pub use endpoint::{
    AGENT, CONNECT_DEADLINE, ConnectError, EndpointConfig, Route, SetupError, hub_link_config, link_config,
};
pub use environment::Environment;
pub use forward::forward;
pub use hub::{Hub, HubConfig, HubStats, ReloadError, StartError};
pub use opening::{Opening, OpeningLeg};
pub use service::{OpenOptions, Service};
pub use tunnel::Tunnel;
pub use unopened::OpenError;
