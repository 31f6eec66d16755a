//! A certificate authority for development and for tests: it vouches for whoever its owner names.
//!
//! In production the certificates come from the operator's own authority; what they must say is in
//! [`identity`](crate::identity).

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use std::sync::Arc;
use towline_transports::crypto;
use towline_transports::tls::Credentials;
use zeroize::Zeroizing;

use crate::identity::Identity;

/// How long the authority's own certificate holds.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Certificates are valid from a little before they are made, for clocks that differ.
const CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// The authority, with its private key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A certificate and its private key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The names or the authority's files do not do.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// The authority's files are not PEM.
    #[error("the authority's certificate is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

impl Authority {
    /// A new authority, valid for ten years from `now`.
    ///
    /// # Errors
    ///
    /// The system has no entropy.
    pub fn new(now: UnixTime) -> Result<(Self, Issued), IssueError> {
        let key = new_key()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Each authority has a name of its own. With the same name on two, what one has signed looks to the other's
        // friends like a forgery, and not like a stranger.
        let tag: String = key.der_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("Towline development CA {tag}"));
        set_validity(&mut params, now, AUTHORITY_LIFETIME);
        let certificate_pem = params.self_signed(&key)?.pem();
        let issued = Issued { certificate: certificate_pem.clone(), key: key.serialize_pem() };
        Ok((Self { issuer: Issuer::new(params, key), certificate_pem }, issued))
    }

    /// The authority whose certificate and key these are.
    ///
    /// # Errors
    ///
    /// They are malformed.
    pub fn load(issued: &Issued) -> Result<Self, IssueError> {
        let key = KeyPair::from_pem(&issued.key)?;
        let issuer = Issuer::from_ca_cert_pem(&issued.certificate, key)?;
        Ok(Self { issuer, certificate_pem: issued.certificate.clone() })
    }

    /// A certificate for `identity`, valid for `lifetime` from `now`. A hub's must also hold the host names and
    /// addresses under which it is reached.
    ///
    /// # Errors
    ///
    /// A name is not one.
    pub fn issue(
        &self,
        identity: &Identity,
        hosts: &[String],
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Issued, IssueError> {
        let key = new_key()?;
        let mut params = CertificateParams::new(hosts.to_vec())?;
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into()?));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, identity.name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match identity.role {
            crate::identity::Role::Hub => ExtendedKeyUsagePurpose::ServerAuth,
            _ => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, lifetime);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// What was issued, together with this authority as the one to trust: ready for use without files.
    ///
    /// # Errors
    ///
    /// It is not PEM.
    pub fn credentials(&self, issued: &Issued) -> Result<Credentials, IssueError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())?)
            .map_err(|_| IssueError::Certificate(rcgen::Error::CouldNotParseCertificate))?;
        Ok(Credentials {
            chain: vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes())?],
            key: PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?,
            roots: Arc::new(roots),
        })
    }
}

/// A new key, in version 1 of PKCS #8 (RFC 8410 §7): without its public half, since OpenSSL 3 reads no other.
fn new_key() -> Result<KeyPair, rcgen::Error> {
    const BEFORE_THE_SEED: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let seed = crypto::random::<32>().map_err(|_| rcgen::Error::RingUnspecified)?;
    let key = Zeroizing::new([&BEFORE_THE_SEED[..], &seed].concat());
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(&key[..]), &PKCS_ED25519)
}

fn set_validity(params: &mut CertificateParams, now: UnixTime, lifetime: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.as_secs());
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + lifetime;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use towline_transports::tls::client_config;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Authorities and keys of before, or of other programs, may be of version 2.
    #[test]
    fn keys_with_and_without_their_public_half_are_read() {
        let environment = Environment::system();
        let now = environment.tls.time.current_time().unwrap();
        let (_, mut issued) = Authority::new(now).unwrap();
        let device: Identity = "spiffe://d/device/press-7".parse().unwrap();
        for version in [1, 2] {
            if version == 2 {
                let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
                let mut params = CertificateParams::default();
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                issued =
                    Issued { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
            }
            let authority = Authority::load(&issued).unwrap();
            let credentials =
                authority.credentials(&authority.issue(&device, &[], now, HOUR).unwrap()).unwrap();
            client_config(credentials, &[], &environment.tls).unwrap();
            // The authority's own key stands for one of an endpoint.
            client_config(authority.credentials(&issued).unwrap(), &[], &environment.tls).unwrap();
            let length = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap().secret_der().len();
            assert_eq!(length, [48, 83][version - 1], "version {version}");
        }
    }
}
