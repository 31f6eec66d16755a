//! Who the other end of a session is: exactly the one whom the tunnel was opened to, or by.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, ServerConfig, SignatureScheme,
};
use towline_transports::Pipe;
use towline_transports::tls::{
    self, ALPN_END_TO_END, Begun, ConfigError, Credentials, HandshakeError, TlsPipe,
};

use crate::identity::Identity;

/// Why the other end of a tunnel is not who it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// It cannot show who it is, or TLS fails otherwise.
    #[error(
        "the other end of the tunnel does not show that it is {whom}: {error}; see whether its software is new enough for sessions, and its certificate of an authority that this end trusts"
    )]
    Handshake {
        /// Who it should be.
        whom: Identity,
        /// What TLS says.
        error: HandshakeError,
    },
    /// It shows somebody else's certificate; the service's end does not wait for the proof that it is that one.
    #[error(
        "the other end of the tunnel should be {whom}, and shows the certificate of {found}; the hub may be lying, so ask its operator"
    )]
    SomebodyElse {
        /// Who it should be.
        whom: Identity,
        /// Whose certificate it shows.
        found: Identity,
    },
    /// It does not take this end's certificate.
    #[error("{by} refuses this end: {reason}; make a new certificate with `towline identity`")]
    CertificateRefused {
        /// Who refuses.
        by: Identity,
        /// What it has against it.
        reason: &'static str,
    },
    /// It took too long.
    #[error(
        "the other end of the tunnel does not show in time that it is {0}; try again, and see what the device logs"
    )]
    TimedOut(Identity),
}

impl PeerError {
    /// Whether it will be so again: who the other end is, and who this one is, does not change while a session goes on.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Handshake { error, .. } => {
                matches!(error, HandshakeError::Tls(Error::InvalidCertificate(_)))
            }
            Self::SomebodyElse { .. } | Self::CertificateRefused { .. } => true,
            Self::TimedOut(_) => false,
        }
    }
}

/// What the device's end needs.
pub(crate) fn server_config(
    credentials: Credentials,
    environment: &tls::Environment,
) -> Result<Arc<ServerConfig>, ConfigError> {
    tls::server_config(credentials, &[ALPN_END_TO_END], environment)
}

/// Runs TLS at the device's end, with the one who has opened the tunnel.
pub(crate) async fn accept<P: Pipe>(
    pipe: P,
    config: Arc<ServerConfig>,
    whom: &Identity,
) -> Result<TlsPipe<P>, PeerError> {
    let pipe = tls::accept(pipe, config).await;
    let pipe = pipe.map_err(|error| PeerError::Handshake { whom: whom.clone(), error })?;
    match pipe.peer_certificates().first().map(Identity::of_certificate) {
        Some(Ok(found)) if found == *whom => Ok(pipe),
        Some(Ok(found)) => Err(PeerError::SomebodyElse { whom: whom.clone(), found }),
        Some(Err(_)) | None => {
            let error = HandshakeError::Tls(CertificateError::ApplicationVerificationFailure.into());
            Err(PeerError::Handshake { whom: whom.clone(), error })
        }
    }
}

/// Begins TLS at the service's end, with `whom` the tunnel is for, for whom `config` [must be](client_config).
pub(crate) fn begin(config: Arc<ClientConfig>, whom: &Identity) -> Result<Begun, PeerError> {
    let name = ServerName::try_from("device").expect("it is a name, and means nothing");
    tls::begin(name, config).map_err(|error| PeerError::Handshake { whom: whom.clone(), error })
}

/// Goes on with it once there is the tunnel.
pub(crate) async fn connect<P: Pipe>(
    pipe: P,
    begun: Begun,
    whom: &Identity,
) -> Result<TlsPipe<P>, PeerError> {
    begun.connect(pipe).await.map_err(|error| not_the_one(error, whom.clone()))
}

/// Why TLS with `whom` came to nothing.
fn not_the_one(error: HandshakeError, whom: Identity) -> PeerError {
    let found = match &error {
        HandshakeError::Tls(Error::InvalidCertificate(CertificateError::Other(other))) => {
            other.0.downcast_ref::<Found>()
        }
        _ => None,
    };
    match found {
        Some(Found(found)) => PeerError::SomebodyElse { whom, found: found.clone() },
        None => PeerError::Handshake { whom, error },
    }
}

/// What the service's end needs, to reach nobody but `whom`.
pub(crate) fn client_config(
    credentials: Credentials,
    environment: &tls::Environment,
    whom: Identity,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let tls::Environment { provider, time } = environment.clone();
    // A device's certificate is for its identity, not for a name in the DNS, and for connections that it opens itself.
    let chains = WebPkiClientVerifier::builder_with_provider(credentials.roots, provider.clone()).build()?;
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Exactly { chains, whom }))
        .with_client_auth_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = vec![ALPN_END_TO_END.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Whose certificate was shown instead of the one that should be.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is that of {0}")]
struct Found(Identity);

/// Trusts the certificate of one identity, if one of the authorities vouches for it.
#[derive(Debug)]
struct Exactly {
    chains: Arc<dyn ClientCertVerifier>,
    whom: Identity,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.chains.verify_client_cert(certificate, intermediates, now)?;
        match Identity::of_certificate(certificate) {
            Ok(found) if found == self.whom => Ok(ServerCertVerified::assertion()),
            Ok(found) => Err(CertificateError::Other(OtherError(Arc::new(Found(found)))).into()),
            Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::Authority;
    use crate::environment::Environment;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Whoever it is: the hub may have joined the tunnel to somebody else, and both ends see that.
    #[tokio::test]
    async fn each_end_takes_nobody_but_the_other() {
        let environment = Environment::system();
        let now = environment.tls.time.current_time().unwrap();
        let (ours, theirs) = (Authority::new(now).unwrap().0, Authority::new(now).unwrap().0);
        let identity = |text: &str| format!("spiffe://test/{text}").parse::<Identity>().unwrap();
        let credentials = |authority: &Authority, who: &str| {
            authority.credentials(&authority.issue(&identity(who), &[], now, HOUR).unwrap()).unwrap()
        };
        let meet = async |service: Credentials, device: Credentials| {
            let client = client_config(service, &environment.tls, identity("device/press-7")).unwrap();
            let server = server_config(device, &environment.tls).unwrap();
            let (near, far) = tokio::io::duplex(64 << 10);
            let (ops, press) = (identity("service/ops"), identity("device/press-7"));
            let begun = begin(client, &press).unwrap();
            let (at_service, at_device) =
                tokio::join!(connect(near, begun, &press), accept(far, server, &ops));
            (at_service.map(|_| ()), at_device.map(|_| ()))
        };
        let (service, device) = (credentials(&ours, "service/ops"), credentials(&ours, "device/press-7"));
        let met = meet(service.clone(), device.clone()).await;
        assert!(matches!(met, (Ok(()), Ok(()))), "{met:?}");
        let (at_service, _) = meet(service.clone(), credentials(&ours, "device/press-8")).await;
        let Err(PeerError::SomebodyElse { found, .. }) = at_service else { panic!("{at_service:?}") };
        assert_eq!(found, identity("device/press-8"));
        // One whose certificate is for listening, and one that only claims to be the right one.
        let mut forged = credentials(&theirs, "device/press-7");
        forged.roots.clone_from(&service.roots);
        for other in [credentials(&ours, "hub/press-7"), forged] {
            let (at_service, _) = meet(service.clone(), other).await;
            assert!(matches!(at_service, Err(PeerError::Handshake { .. })), "{at_service:?}");
        }
        let (_, at_device) = meet(credentials(&ours, "service/evil"), device.clone()).await;
        let error = at_device.unwrap_err().to_string();
        assert_eq!(
            error,
            "the other end of the tunnel should be spiffe://test/service/ops, and shows the certificate of \
             spiffe://test/service/evil; the hub may be lying, so ask its operator"
        );
        let mut forged = credentials(&theirs, "service/ops");
        forged.roots.clone_from(&service.roots);
        let (_, at_device) = meet(forged, device).await;
        assert!(matches!(at_device, Err(PeerError::Handshake { .. })));
    }
}
