//! The same shape made of socat: a local port, TLS to a meeting point, TLS to the far end, the target.
//!
//! Three processes, each in the part that the service, the hub and the device have; certificates on both sides, as
//! there.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::chain::{Chain, free_ports};
use super::target::PIECE;

/// Three socats in a row.
pub(crate) fn start(target: SocketAddr) -> anyhow::Result<Chain> {
    let [near, middle, far] = free_ports()?;
    let mut chain = Chain::new(near, true)?;
    let [listens, connects] = write_keys(chain.folder())?;
    let listen = |port| format!("OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,{listens}");
    let connect = |port| format!("OPENSSL:127.0.0.1:{port},{connects}");
    let tcp = "bind=127.0.0.1,reuseaddr,fork,nodelay";
    for (from, to) in [
        (listen(far), format!("TCP:{target},nodelay")),
        (listen(middle), connect(far)),
        (format!("TCP-LISTEN:{near},{tcp}"), connect(middle)),
    ] {
        chain.start(Command::new("socat").arg("-b").arg(PIECE.to_string()).args([from, to]))?;
    }
    chain.wait_until_ready()
}

/// Writes an authority's certificate, and one for those who listen and those who connect. Returns the options with
/// which socat uses the latter two.
///
/// They are for P-256: not every OpenSSL reads an Ed25519 key as it is written here.
fn write_keys(folder: &Path) -> anyhow::Result<[String; 2]> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "bench");
    let root = folder.join("root.pem");
    fs::write(&root, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let write = |name: &str| -> anyhow::Result<String> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
        let path = folder.join(name);
        fs::write(&path, format!("{}{}", certificate.pem(), key.serialize_pem()))?;
        let (keys, root) = (path.display(), root.display());
        Ok(format!("cert={keys},cafile={root},verify=1,openssl-min-proto-version=TLS1.3,nodelay"))
    };
    Ok([write("listens.pem")?, write("connects.pem")?])
}
