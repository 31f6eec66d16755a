//! TLS 1.3 with certificates on both sides.
//!
//! Versions below 1.3 are not spoken, the peer must show a certificate of the same authority, and both must
//! agree on the application protocol. What the certificate says about its owner is for the caller to judge.
//!
//! There are no session tickets: a resumed handshake would not look at the client's certificate again. So every
//! connection is judged by the authorities that are trusted when it begins.

mod hello;
mod pipe;
mod records;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, RootCertStore, ServerConfig};

use crate::Pipe;
pub use hello::Hello;
pub use pipe::TlsPipe;
use records::Handshake;

/// The application protocol of a link between an endpoint and a hub.
pub const ALPN_LINK: &[u8] = b"qmux-02.towline";

/// The application protocol of a session between a service endpoint and a device, inside of a tunnel.
pub const ALPN_END_TO_END: &[u8] = b"qmux-02.towline-e2e";

/// The application protocol of the TLS around HTTP, and so around a WebSocket.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// Who this end is, and whom it trusts.
#[derive(Debug)]
pub struct Credentials {
    /// This end's certificate, and those between it and the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificate's private key.
    pub key: PrivateKeyDer<'static>,
    /// The authorities whose certificates this end takes.
    pub roots: Arc<RootCertStore>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}

/// The cryptography and the calendar that TLS needs, handed in from outside.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Ciphers, signatures and entropy.
    pub provider: Arc<CryptoProvider>,
    /// What day it is, for the validity of certificates.
    pub time: Arc<dyn TimeProvider>,
}

/// What the end that connects needs.
///
/// # Errors
///
/// The key does not fit the certificate, there is no authority, or the provider lacks what TLS 1.3 needs.
pub fn client_config(
    credentials: Credentials,
    alpn: &[&[u8]],
    environment: &Environment,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let Environment { provider, time } = environment.clone();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(credentials.roots, provider.clone()).build()?;
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    // For the record layer, which is ours.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// What the end that accepts needs. It asks for a certificate and takes no connection without one.
///
/// # Errors
///
/// As [`client_config`].
pub fn server_config(
    credentials: Credentials,
    alpn: &[&[u8]],
    environment: &Environment,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let Environment { provider, time } = environment.clone();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(credentials.roots, provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    // For the record layer, which is ours.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The certificate, the key or the provider does not do.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The authorities do not do.
    #[error("the trusted authorities are not usable: {0}")]
    Roots(#[from] rustls::client::VerifierBuilderError),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer ended the connection, or it failed.
    #[error("the connection ended during the TLS handshake: {0}")]
    Io(io::Error),
    /// TLS says why.
    #[error("the TLS handshake failed: {0}")]
    Tls(rustls::Error),
    /// The two ends have no application protocol in common.
    #[error("no application protocol in common: this end offers {}, the peer {}", list(.ours), .theirs.as_ref().map_or("takes none of it".into(), |theirs| format!("offers {}", list(theirs))))]
    Protocol {
        /// What this end offers.
        ours: Vec<String>,
        /// What the peer offers, or has chosen. `None` if it does not say.
        theirs: Option<Vec<String>>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

pub(crate) fn readable(names: &[impl AsRef<[u8]>]) -> Vec<String> {
    names.iter().map(|name| name.as_ref().escape_ascii().to_string()).collect()
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match as_tls(&error) {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Io(error),
        }
    }
}

/// The TLS error within an I/O error, if there is one.
pub fn as_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What the peer has against this end's certificate, if that is why `error` came: it is told after this end's
/// handshake is done, with the first read.
pub fn refused_certificate(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::AlertReceived(alert) = error else { return None };
    Some(match alert {
        AlertDescription::CertificateRequired => "it requires a certificate and got none",
        AlertDescription::CertificateExpired => "the certificate has expired",
        AlertDescription::UnknownCA => "the certificate is of an authority that it does not trust",
        AlertDescription::DecryptError => {
            "the certificate is of an authority that only bears the name of one that it trusts"
        }
        AlertDescription::CertificateRevoked => "the certificate was revoked",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "the certificate is not acceptable to it",
        _ => return None,
    })
}

/// Connects to the server called `name` over `pipe`, with what [`client_config`] has made. Cancelling it closes the pipe.
///
/// # Errors
///
/// The peer is not who it should be, takes no TLS 1.3, or does not speak what `config` offers. That it refuses
/// this end's certificate comes later, as an error of the first read: see [`refused_certificate`].
pub async fn connect<P: Pipe>(
    pipe: P,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<TlsPipe<P>, HandshakeError> {
    begin(name, config)?.connect(pipe).await
}

/// Begins to connect to the server called `name`, with what [`client_config`] has made, before there is a pipe.
///
/// # Errors
///
/// `config` does not do.
pub fn begin(name: ServerName<'static>, config: Arc<ClientConfig>) -> Result<Begun, HandshakeError> {
    let offered = config.alpn_protocols.clone();
    let mut handshake = Handshake::client(config, name).map_err(HandshakeError::Tls)?;
    let mut words = Vec::new();
    handshake.advance(&mut BytesMut::new(), &mut words).map_err(HandshakeError::Tls)?;
    Ok(Begun { handshake, offered, words })
}

/// A handshake that the end that connects has begun.
pub struct Begun {
    handshake: Handshake,
    offered: Vec<Vec<u8>>,
    /// What this end says first, and has not said yet.
    words: Vec<u8>,
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

impl Begun {
    /// Takes what this end says first, for whoever can send it earlier than there is a pipe. Of that it must be the first bytes.
    pub fn take_first_words(&mut self) -> Vec<u8> {
        mem::take(&mut self.words)
    }

    /// Goes on over `pipe`. Cancelling it closes the pipe.
    ///
    /// # Errors
    ///
    /// As [`connect`].
    pub async fn connect<P: Pipe>(self, pipe: P) -> Result<TlsPipe<P>, HandshakeError> {
        let Self { handshake, offered, words } = self;
        let pipe = pipe::shake_hands(pipe, handshake, BytesMut::with_capacity(hello::SIZE), words).await;
        let pipe = pipe.map_err(|error| match error {
            HandshakeError::Tls(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                HandshakeError::Protocol { ours: readable(&offered), theirs: None }
            }
            error => error,
        })?;
        check_protocol(&offered, pipe.alpn())?;
        Ok(pipe)
    }
}

/// Accepts a TLS connection over `pipe`, with what [`server_config`] has made. Cancelling it closes the pipe.
///
/// # Errors
///
/// The peer shows no acceptable certificate, takes no TLS 1.3, or does not speak what `config` offers.
pub async fn accept<P: Pipe>(pipe: P, config: Arc<ServerConfig>) -> Result<TlsPipe<P>, HandshakeError> {
    Hello::read(pipe, BytesMut::new()).await?.accept(config).await
}

/// TLS lets a peer that names no protocol through; draft-02 §8.1 does not.
fn check_protocol(ours: &[Vec<u8>], agreed: Option<&[u8]>) -> Result<(), HandshakeError> {
    if agreed.is_some_and(|agreed| ours.iter().any(|name| name == agreed)) {
        return Ok(());
    }
    Err(HandshakeError::Protocol { ours: readable(ours), theirs: Some(readable(agreed.as_slice())) })
}
