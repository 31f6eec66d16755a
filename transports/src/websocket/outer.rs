//! The TLS around a WebSocket, as web servers and browsers have it.
//!
//! It gets through to the server and is not trusted with more: nobody is asked for a certificate, and who the peers are
//! is for the TLS inside the messages. So it need not be fast or new either: TLS 1.2 will do, since there are proxies
//! that speak nothing else, and rustls' own record layer.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Pipe;
use crate::tls::{ALPN_HTTP, ConfigError, Environment, HandshakeError, Hello, readable};

/// What the end that connects needs. `roots` are the authorities that vouch for web servers, or for the proxies that
/// stand in for them; they need not be those of the link.
///
/// # Errors
///
/// There is no authority, or the provider lacks what TLS needs.
pub fn outer_client_config(
    roots: Arc<RootCertStore>,
    environment: &Environment,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let Environment { provider, time } = environment.clone();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    Ok(Arc::new(config))
}

/// What the end that accepts needs.
///
/// # Errors
///
/// The key does not fit the certificate, or the provider lacks what TLS needs.
pub fn outer_server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    environment: &Environment,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let Environment { provider, time } = environment.clone();
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Connects to the web server called `name` over `pipe`. Cancelling it closes the pipe.
///
/// # Errors
///
/// The server is not who it should be, or TLS fails.
pub async fn connect_outer<P: Pipe>(
    pipe: P,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<impl Pipe + use<P>, HandshakeError> {
    Ok(TlsConnector::from(config).connect(name, pipe).await?)
}

/// Accepts a client of the web. Cancelling it closes the pipe.
///
/// # Errors
///
/// TLS fails, or the client offers other protocols only.
pub async fn accept_outer<P: Pipe>(
    hello: Hello<P>,
    config: Arc<ServerConfig>,
) -> Result<impl Pipe + use<P>, HandshakeError> {
    let ours = config.alpn_protocols.clone();
    let (pipe, theirs) = hello.into_parts();
    TlsAcceptor::from(config).accept(pipe).await.map_err(|error| match HandshakeError::from(error) {
        HandshakeError::Tls(rustls::Error::NoApplicationProtocol) => {
            HandshakeError::Protocol { ours: readable(&ours), theirs: Some(readable(&theirs)) }
        }
        error => error,
    })
}
