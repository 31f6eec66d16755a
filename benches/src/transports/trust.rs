//! What both ends need to trust each other, the same for everybody: one authority, a certificate for each end, and one
//! provider of cryptography.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CipherSuite, ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};
use towline::authority::{Authority, Issued};
use towline_transports::tls::{self, Credentials, Environment};

/// Where the far end is, as its certificate says.
pub(crate) const HOST: &str = "127.0.0.1";

/// The name of the end that connects, which is a device.
pub(crate) const NEAR: &str = "near";

/// How long certificates are valid.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The application protocol of those who have none of their own.
const ALPN: &[u8] = b"bench";

/// Certificates and keys, in a form that can be handed to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trust {
    root: Pem,
    near: Pem,
    far: Pem,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pem {
    certificate: String,
    key: String,
}

impl From<Issued> for Pem {
    fn from(Issued { certificate, key }: Issued) -> Self {
        Self { certificate, key }
    }
}

impl From<Pem> for Issued {
    fn from(Pem { certificate, key }: Pem) -> Self {
        Self { certificate, key }
    }
}

impl Trust {
    /// A new authority, and who trusts it.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let now = DefaultTimeProvider.current_time().context("the system does not know what day it is")?;
        let (authority, root) = Authority::new(now)?;
        let issue = |identity: &str, hosts: &[String]| -> anyhow::Result<Pem> {
            Ok(authority.issue(&identity.parse()?, hosts, now, LIFETIME)?.into())
        };
        let near = issue(&format!("spiffe://bench/device/{NEAR}"), &[])?;
        let far = issue("spiffe://bench/hub/far", &[HOST.into()])?;
        Ok(Self { root: root.into(), near, far })
    }

    /// Of the end that connects.
    pub(crate) fn near(&self) -> anyhow::Result<Credentials> {
        Ok(self.authority()?.credentials(&self.near.clone().into())?)
    }

    /// Of the end that accepts.
    pub(crate) fn far(&self) -> anyhow::Result<Credentials> {
        Ok(self.authority()?.credentials(&self.far.clone().into())?)
    }

    /// Of so many devices, each with a name of its own.
    pub(crate) fn devices(&self, count: usize) -> anyhow::Result<Vec<Credentials>> {
        self.many("device/d", count)
    }

    /// Of so many services.
    pub(crate) fn services(&self, count: usize) -> anyhow::Result<Vec<Credentials>> {
        self.many("service/s", count)
    }

    fn many(&self, path: &str, count: usize) -> anyhow::Result<Vec<Credentials>> {
        let now = DefaultTimeProvider.current_time().context("the system does not know what day it is")?;
        let authority = self.authority()?;
        let each = |n| {
            let identity = format!("spiffe://bench/{path}{n}").parse()?;
            Ok(authority.credentials(&authority.issue(&identity, &[], now, LIFETIME)?)?)
        };
        (0..count).map(each).collect()
    }

    fn authority(&self) -> anyhow::Result<Authority> {
        Ok(Authority::load(&self.root.clone().into())?)
    }

    /// What a TLS library of others is given, at the end that connects: what ours is given.
    pub(crate) fn client_config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        Ok(tls::client_config(self.near()?, &[ALPN], &environment())?)
    }

    /// The same, at the end that accepts.
    pub(crate) fn server_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        Ok(tls::server_config(self.far()?, &[ALPN], &environment())?)
    }
}

/// The far end's name.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from(HOST).expect("an address is a name")
}

/// The cryptography of everybody: aws-lc-rs, with AES-128-GCM before the other ciphers, as most servers on the web
/// choose it, and its own order of key exchanges.
pub(crate) fn environment() -> Environment {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider: Arc<CryptoProvider> = Arc::new(provider);
    Environment { provider, time: Arc::new(DefaultTimeProvider) }
}
