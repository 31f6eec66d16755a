//! Reach any device by its ID.
pub mod agent;
pub mod authority;
pub mod codes;
pub mod core;
mod credentials;
mod device;
mod endpoint;
mod environment;
mod forward;
mod hub;
pub mod identity;
pub mod message;
pub mod policy;
pub mod refusal;
pub mod relay;
mod service;
mod tunnel;

pub use credentials::{CredentialError, CredentialFiles};
pub use device::{Device, Offer, Status};
pub use endpoint::{AGENT, CONNECT_DEADLINE, ConnectError, EndpointConfig, SetupError, link_config};
pub use environment::Environment;
pub use forward::Forward;
pub use hub::{Hub, HubConfig, HubStats, StartError};
pub use service::{OpenError, OpenOptions, Opening, OpeningLeg, Service};
pub use tunnel::Tunnel;
