//! Who takes part: an authority, and what each endpoint needs to take part, all from one seed.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use towline::{EndpointConfig, Environment, HubConfig, Route};
use towline_transports::tls::Credentials;

use super::air::Air;
use super::network::SimNetwork;
use crate::crypto::{self, EPOCH};
use crate::issuer::Issuer;
use crate::random::Random;

pub use crate::issuer::TRUST_DOMAIN;

/// Hands out what endpoints need.
#[derive(Debug)]
pub struct Cast {
    random: Random,
    issuer: Issuer,
    air: Air,
    chaos: bool,
}

impl Cast {
    /// A cast that draws from `random`. With `chaos`, reads and writes are cut short.
    pub fn new(random: Random, air: Air, chaos: bool) -> Self {
        Self { random, issuer: Issuer::new(random), air, chaos }
    }

    /// What lies between them.
    pub fn air(&self) -> &Air {
        &self.air
    }

    /// As [`Issuer::credentials`].
    pub fn credentials(&self, identity: &str, names: &[&str]) -> Credentials {
        self.issuer.credentials(identity, names)
    }

    /// As [`Issuer::credentials_for`].
    pub fn credentials_for(&self, identity: &str, names: &[&str], lifetime: Duration) -> Credentials {
        self.issuer.credentials_for(identity, names, lifetime)
    }

    /// The world as the endpoint `who` on turmoil's host `host` sees it, the `start`th time that it runs.
    pub fn environment(&self, who: &str, host: &str, start: u32) -> Environment {
        let stream = self.random.stream(&format!("{who}/{start}/entropy"));
        let chaos = self.chaos.then_some(self.random);
        Environment {
            network: Arc::new(SimNetwork::new(self.air.clone(), who, host, chaos)),
            tls: crypto::environment(stream, Arc::new(Calendar)),
        }
    }

    /// What the hub `name` needs, on the host of the same name.
    pub fn hub(&self, name: &str) -> HubConfig {
        HubConfig {
            listen: "0.0.0.0:443".into(),
            credentials: self.credentials(&format!("hub/{name}"), &[name]),
            limits: towline::core::Limits::default(),
            policy: Box::new(towline::policy::AllowAll),
            quic: true,
        }
    }

    /// What an endpoint of the hub `hub` needs.
    pub fn endpoint(&self, hub: &str, credentials: Credentials, route: Route) -> EndpointConfig {
        EndpointConfig { hub: format!("{hub}:443"), credentials, route }
    }
}

/// A calendar that goes with turmoil's clock.
#[derive(Debug, Default)]
struct Calendar;

impl TimeProvider for Calendar {
    fn current_time(&self) -> Option<UnixTime> {
        let since = turmoil::sim_elapsed().unwrap_or_default();
        Some(UnixTime::since_unix_epoch(EPOCH + since))
    }
}
