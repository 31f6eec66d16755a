//! The TLS around a WebSocket, as web servers and browsers have it.
//!
//! It gets through to the server and is not trusted with more: nobody is asked for a certificate, and who the peers are
//! is for the TLS inside the messages. [`tls::connect`](crate::tls::connect) and its likes take these configurations;
//! [`tls::accept_one_of`](crate::tls::accept_one_of) lets links with and without WebSocket share a port.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::tls::{ALPN_HTTP, ConfigError, Environment};

/// What the end that connects needs. `roots` are the authorities that vouch for web servers, or for the proxies that
/// stand in for them; they need not be those of the link.
///
/// # Errors
///
/// There is no authority, or the provider lacks what TLS 1.3 needs.
pub fn outer_client_config(
    roots: Arc<RootCertStore>,
    environment: &Environment,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let Environment { provider, time } = environment.clone();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    Ok(Arc::new(config))
}

/// What the end that accepts needs.
///
/// # Errors
///
/// The key does not fit the certificate, or the provider lacks what TLS 1.3 needs.
pub fn outer_server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    environment: &Environment,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let Environment { provider, time } = environment.clone();
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
