//! Who vouches for everybody in a simulation: an authority, all of whose keys come from one seed. For both backends.

use std::time::Duration;

use rustls::pki_types::UnixTime;
use towline::authority::Authority;
use towline::identity::Identity;
use towline_transports::tls::Credentials;

use crate::crypto::{self, EPOCH};
use crate::random::Random;

/// The trust domain of everybody in a simulation.
pub const TRUST_DOMAIN: &str = "sim";

/// How long a certificate holds if nobody says otherwise.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Hands out credentials.
#[derive(Debug)]
pub struct Issuer {
    random: Random,
    authority: Authority,
}

impl Issuer {
    /// One whose keys come from `random`.
    ///
    /// # Panics
    ///
    /// Never: what is drawn is a key.
    pub fn new(random: Random) -> Self {
        let key = crypto::key(&mut random.stream("authority/key"));
        let authority = Authority::of_key(&key, UnixTime::since_unix_epoch(EPOCH)).expect("the key is a key");
        Self { random, authority }
    }

    /// Credentials of `identity`, such as `device/press-7`, for a year from the beginning. `names` are those of a hub, for
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
}
