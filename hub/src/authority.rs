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
        Self::with_key(new_key()?, now)
    }

    /// An authority, valid for ten years from `now`, that has this key: PKCS #8, Ed25519. The same key and the same day
    /// make the same certificate, which a simulation needs.
    ///
    /// # Errors
    ///
    /// It is no such key.
    pub fn of_key(key: &PrivatePkcs8KeyDer<'_>, now: UnixTime) -> Result<Self, IssueError> {
        Ok(Self::with_key(read_key(key)?, now)?.0)
    }

    fn with_key(key: KeyPair, now: UnixTime) -> Result<(Self, Issued), IssueError> {
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
        self.certify(identity, new_key()?, hosts, now, lifetime)
    }

    /// As [`issue`](Self::issue), for an endpoint that has a key already: PKCS #8, Ed25519.
    ///
    /// # Errors
    ///
    /// A name is not one, or it is no such key.
    pub fn issue_for(
        &self,
        key: &PrivatePkcs8KeyDer<'_>,
        identity: &Identity,
        hosts: &[String],
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Issued, IssueError> {
        self.certify(identity, read_key(key)?, hosts, now, lifetime)
    }

    fn certify(
        &self,
        identity: &Identity,
        key: KeyPair,
        hosts: &[String],
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Issued, IssueError> {
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
    read_key(&PrivatePkcs8KeyDer::from(&key[..]))
}

fn read_key(key: &PrivatePkcs8KeyDer<'_>) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ED25519)
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

    /// A simulation needs this: what was drawn once is the same each time.
    #[test]
    fn the_same_keys_and_day_make_the_same_certificates() {
        let pkcs8 = |byte: u8| {
            let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
            PrivatePkcs8KeyDer::from([head.to_vec(), vec![byte; 32]].concat())
        };
        let device = "spiffe://d/device/press-7".parse().unwrap();
        let certificate = |authority, key, day: u64| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(day * 24 * 3600));
            let authority = Authority::of_key(&pkcs8(authority), now).unwrap();
            let issued = authority.issue_for(&pkcs8(key), &device, &[], now, HOUR).unwrap();
            authority.credentials(&issued).unwrap();
            (authority.certificate_pem, issued.certificate)
        };
        let first = certificate(1, 2, 20_000);
        assert_eq!(first, certificate(1, 2, 20_000));
        for (authority, key, day) in [(3, 2, 20_000), (1, 3, 20_000), (1, 2, 20_001)] {
            assert_ne!(first, certificate(authority, key, day), "{authority} {key} {day}");
        }
        assert!(
            Authority::of_key(&PrivatePkcs8KeyDer::from(vec![0x30, 0]), UnixTime::since_unix_epoch(HOUR))
                .is_err()
        );
    }
}
