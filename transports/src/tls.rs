//! TLS 1.3 with certificates on both sides.
//!
//! Versions below 1.3 are not spoken, the peer must show a certificate of the same authority, and both must
//! agree on the application protocol. What the certificate says about its owner is for the caller to judge.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector};

use crate::Pipe;

/// The application protocol of a link between an endpoint and a hub.
pub const ALPN_LINK: &[u8] = b"qmux-02.towline";

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
    // A resumed handshake does not look at the client's certificate again, so there are none.
    config.send_tls13_tickets = 0;
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
    #[error("the peer does not speak {wanted}: {}", .got.as_deref().map_or("it named no application protocol".into(), |got| format!("it chose {got}")))]
    Protocol {
        /// What this end offers.
        wanted: String,
        /// What the peer chose.
        got: Option<String>,
    },
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

/// A pipe inside TLS.
#[derive(Debug)]
pub struct TlsPipe<P> {
    stream: tokio_rustls::TlsStream<P>,
}

/// Connects to the server called `name` over `pipe`. Cancelling it closes the pipe.
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
    let offered = config.alpn_protocols.clone();
    let stream = TlsConnector::from(config).connect(name, pipe).await?;
    checked(TlsPipe { stream: stream.into() }, &offered)
}

/// Accepts a TLS connection over `pipe`. Cancelling it closes the pipe.
///
/// # Errors
///
/// The peer shows no acceptable certificate, takes no TLS 1.3, or does not speak what `config` offers.
pub async fn accept<P: Pipe>(pipe: P, config: Arc<ServerConfig>) -> Result<TlsPipe<P>, HandshakeError> {
    let offered = config.alpn_protocols.clone();
    let stream = TlsAcceptor::from(config).accept(pipe).await?;
    checked(TlsPipe { stream: stream.into() }, &offered)
}

/// Accepts a TLS connection over `pipe` with the first of `configs` that speaks what the client offers, so that several
/// protocols share a port, each with its own rules about certificates. The last one is for clients that offer nothing
/// known. Cancelling it closes the pipe.
///
/// # Errors
///
/// As [`accept`].
///
/// # Panics
///
/// If there are no configurations.
pub async fn accept_one_of<P: Pipe>(
    pipe: P,
    configs: &[Arc<ServerConfig>],
) -> Result<TlsPipe<P>, HandshakeError> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), pipe).await?;
    let offered: Vec<_> = start.client_hello().alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    let speaks =
        |config: &&Arc<ServerConfig>| config.alpn_protocols.iter().any(|name| offered.contains(name));
    let config = configs.iter().find(speaks).or(configs.last()).expect("the caller gives at least one");
    let stream = start.into_stream(config.clone()).await?;
    checked(TlsPipe { stream: stream.into() }, &config.alpn_protocols)
}

/// TLS lets a peer that names no protocol through; draft-02 §8.1 does not. HTTP is older than these names, and not every
/// web server or proxy uses them.
fn checked<P: Pipe>(pipe: TlsPipe<P>, offered: &[Vec<u8>]) -> Result<TlsPipe<P>, HandshakeError> {
    let got = pipe.alpn();
    let is_http = || offered.iter().all(|name| name == ALPN_HTTP);
    if got.map_or_else(is_http, |got| offered.iter().any(|name| name == got)) {
        return Ok(pipe);
    }
    let readable = |name: &[u8]| name.escape_ascii().to_string();
    let wanted = offered.iter().map(|name| readable(name)).collect::<Vec<_>>().join(" or ");
    Err(HandshakeError::Protocol { wanted, got: got.map(readable) })
}

impl<P> TlsPipe<P> {
    /// The peer's certificate, and those between it and the authority.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.stream.get_ref().1.peer_certificates().unwrap_or_default()
    }

    /// The application protocol that was agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

impl<P: Pipe> AsyncRead for TlsPipe<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<P: Pipe> AsyncWrite for TlsPipe<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
