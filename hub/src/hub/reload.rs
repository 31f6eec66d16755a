//! What changes while the hub runs: its certificate and key, and the authorities that it trusts.
//!
//! In: credentials. Out: whether they do; then whoever comes from now on meets them. Keeps: nothing. Links that are up
//! stay, whatever their ends once showed.

use towline_transports::tls::{ConfigError, Credentials};

use super::{Hub, udp};
use crate::door::Keys;
use crate::endpoint::SetupError;
use crate::identity::{BadIdentity, Identity, Validity};

/// Why other credentials do not do. The hub goes on with those that it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The certificate, the key or the authorities do not do.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The certificate is somebody else's. Rules, and who may come in, follow the identity.
    #[error("this is the certificate of {found}, and this hub is {wanted}; to be another, start it again")]
    OtherIdentity {
        /// Whose certificate it is.
        found: Identity,
        /// Who the hub is.
        wanted: Identity,
    },
    /// Nobody would trust it now.
    #[error(
        "the certificate is valid from {from} until {until}, and not now; make another one, or check the clock"
    )]
    NotValidNow {
        /// The first moment at which it is valid.
        from: String,
        /// The last one.
        until: String,
    },
}

impl From<ConfigError> for ReloadError {
    fn from(error: ConfigError) -> Self {
        Self::Setup(error.into())
    }
}

impl From<BadIdentity> for ReloadError {
    fn from(error: BadIdentity) -> Self {
        Self::Setup(error.into())
    }
}

impl Hub {
    /// Has another certificate and key, and other authorities, for whoever connects from now on, over TLS, WebSocket and
    /// QUIC. Links that are up stay, those too whose authority is not trusted any more. There are no session tickets, so
    /// nobody comes in on what was checked before.
    ///
    /// # Errors
    ///
    /// Why these do not do; nothing has changed then.
    pub fn reload(&self, credentials: Credentials) -> Result<(), ReloadError> {
        let inner = &self.inner;
        let environment = &inner.environment.tls;
        let certificate = credentials.chain.first().ok_or(BadIdentity::Malformed)?;
        let found = Identity::of_certificate(certificate)?;
        if found != inner.identity {
            return Err(ReloadError::OtherIdentity { found, wanted: inner.identity.clone() });
        }
        let validity = Validity::of_certificate(certificate)?;
        if environment.time.current_time().is_some_and(|now| !validity.includes(now)) {
            let (from, until) = (validity.from.to_string(), validity.until.to_string());
            return Err(ReloadError::NotValidNow { from, until });
        }
        let authorities = credentials.roots.len();
        let keys = Keys::new(credentials.clone(), environment)?;
        let port = inner.udp.as_ref();
        let quic = port.map(|_| udp::server_config(credentials, environment, &inner.limits)).transpose()?;
        // From here on, nothing can fail.
        inner.door.set_keys(keys);
        if let (Some(port), Some(quic)) = (port, quic) {
            udp::lock(port).set_config(quic);
        }
        let valid_until = validity.until;
        tracing::info!(identity = %found, %valid_until, authorities, "new certificate and key for whoever connects");
        Ok(())
    }
}
