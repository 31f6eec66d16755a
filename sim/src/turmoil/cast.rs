//! Who takes part: an authority, and what each endpoint needs to take part, all from one seed.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use towline::authority::Authority;
use towline::identity::Identity;
use towline::{EndpointConfig, Environment, HubConfig, Route};
use towline_transports::tls::Credentials;

use super::air::Air;
use super::crypto::{self, Calendar, EPOCH};
use super::network::SimNetwork;
use crate::random::Random;

/// The trust domain of everybody in a simulation.
pub const TRUST_DOMAIN: &str = "sim";

/// Hands out what endpoints need.
#[derive(Debug)]
pub struct Cast {
    random: Random,
    authority: Authority,
    air: Air,
    chaos: bool,
}

/// How long a certificate holds if nobody says otherwise.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Cast {
    /// A cast that draws from `random`. With `chaos`, reads and writes are cut short.
    pub fn new(random: Random, air: Air, chaos: bool) -> Self {
        let key = crypto::key(&mut random.stream("authority/key"));
        let authority = Authority::of_key(&key, UnixTime::since_unix_epoch(EPOCH)).expect("the key is a key");
        Self { random, authority, air, chaos }
    }

    /// What lies between them.
    pub fn air(&self) -> &Air {
        &self.air
    }

    /// Credentials of `identity`, such as `device/press-7`, for a year from the beginning. `name` is the hub's name for
    /// those who look for it.
    pub fn credentials(&self, identity: &str, names: &[&str]) -> Credentials {
        self.credentials_for(identity, names, YEAR)
    }

    /// As [`credentials`](Self::credentials), for a `lifetime` from the beginning of the simulation.
    ///
    /// # Panics
    ///
    /// `identity` is none.
    pub fn credentials_for(&self, identity: &str, names: &[&str], lifetime: Duration) -> Credentials {
        let key = crypto::key(&mut self.random.stream(&format!("{identity}/key")));
        let identity: Identity =
            format!("spiffe://{TRUST_DOMAIN}/{identity}").parse().expect("it is an identity");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let now = UnixTime::since_unix_epoch(EPOCH);
        let issued = self.authority.issue_for(&key, &identity, &names, now, lifetime);
        let credentials = issued.and_then(|issued| self.authority.credentials(&issued));
        credentials.expect("what was issued can be read")
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
