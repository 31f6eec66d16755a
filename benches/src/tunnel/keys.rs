//! Keys and certificates for programs that read them from files.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};

/// The authority's certificate.
pub(crate) const ROOT: &str = "root.pem";
/// A certificate and its key, of whoever listens.
pub(crate) const LISTENS: &str = "listens.pem";
/// The same of whoever connects.
pub(crate) const CONNECTS: &str = "connects.pem";
/// The certificate of whoever listens, alone.
pub(crate) const LISTENS_CERTIFICATE: &str = "listens-certificate.pem";
/// The key of whoever listens, alone.
pub(crate) const LISTENS_KEY: &str = "listens-key.pem";

/// Writes these files into a folder. The certificates are for 127.0.0.1, and for `host`.
///
/// They are for P-256: not every OpenSSL reads an Ed25519 key as it is written here.
pub(crate) fn write(folder: &Path, host: Ipv4Addr) -> anyhow::Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "bench");
    fs::write(folder.join(ROOT), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let mut hosts = vec![Ipv4Addr::LOCALHOST.to_string(), host.to_string()];
    hosts.dedup();
    for name in [LISTENS, CONNECTS] {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(hosts.clone())?.signed_by(&key, &issuer)?;
        fs::write(folder.join(name), format!("{}{}", certificate.pem(), key.serialize_pem()))?;
        if name == LISTENS {
            fs::write(folder.join(LISTENS_CERTIFICATE), certificate.pem())?;
            fs::write(folder.join(LISTENS_KEY), key.serialize_pem())?;
        }
    }
    Ok(())
}
