//! Who somebody is: one URI in a certificate.
//!
//! `spiffe://factory.example/device/press-7` is the device `press-7` of the trust domain `factory.example`. A
//! certificate that names none, or two, names nobody (SPIFFE X.509-SVID, section 2).

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

/// The most characters of a name. A DNS label has as many, and so it fits wherever names are shown.
pub const MAX_NAME: usize = 63;

/// The name of a device, a service endpoint, a hub, or of a service that a device offers.
///
/// Letters, digits, `.`, `_` and `-`, at most [`MAX_NAME`] of them, beginning with a letter or a digit: what a
/// SPIFFE path segment, a file name and a shell word all take.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a name: use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or a digit", .0.escape_debug())]
pub struct BadName(String);

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins_well && text.len() <= MAX_NAME && text.chars().all(is_part) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadName(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What somebody may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It is reached.
    Device,
    /// It asks.
    Service,
    /// They meet there.
    Hub,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Device => "device",
            Self::Service => "service",
            Self::Hub => "hub",
        })
    }
}

/// Who somebody is, as the authority of a trust domain has certified.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Whose authority certified it, as in a DNS name.
    pub trust_domain: String,
    /// What it is.
    pub role: Role,
    /// Which one it is.
    pub name: Name,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.trust_domain, self.role, self.name)
    }
}

/// Why a certificate or a text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadIdentity {
    /// The certificate cannot be read.
    #[error("the certificate is malformed")]
    Malformed,
    /// There is not exactly one URI in it.
    #[error(
        "the certificate names {0} URIs as its subject; there must be exactly one, its spiffe:// identity"
    )]
    NotOneUri(usize),
    /// The URI is not one of ours.
    #[error(
        "\"{}\" is no identity; it must read spiffe://DOMAIN/device/NAME, .../service/NAME or .../hub/NAME",
        .0.escape_debug()
    )]
    BadUri(String),
    /// The name in the URI is not one.
    #[error(transparent)]
    Name(#[from] BadName),
}

impl FromStr for Identity {
    type Err = BadIdentity;

    fn from_str(uri: &str) -> Result<Self, BadIdentity> {
        let bad = || BadIdentity::BadUri(uri.chars().take(200).collect());
        let path = uri.strip_prefix("spiffe://").ok_or_else(bad)?;
        let mut parts = path.split('/');
        let (Some(trust_domain), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let role = match role {
            "device" => Role::Device,
            "service" => Role::Service,
            "hub" => Role::Hub,
            _ => return Err(bad()),
        };
        if !is_trust_domain(trust_domain) {
            return Err(bad());
        }
        Ok(Self { trust_domain: trust_domain.to_owned(), role, name: name.parse()? })
    }
}

/// Whether `text` can be a trust domain (SPIFFE-ID, section 2.1): lower-case letters, digits, `.`, `_`, `-`.
pub fn is_trust_domain(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    (1..=255).contains(&text.len()) && text.chars().all(is_part)
}

impl Identity {
    /// Whom a certificate names. That the certificate is valid, and of an authority that is trusted, was checked
    /// during the TLS handshake.
    ///
    /// # Errors
    ///
    /// The certificate names nobody in a way that we understand.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, BadIdentity> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| BadIdentity::Malformed)?;
        let names = certificate.subject_alternative_name().map_err(|_| BadIdentity::Malformed)?;
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match uris.collect::<Vec<_>>()[..] {
            [uri] => uri.parse(),
            ref uris => Err(BadIdentity::NotOneUri(uris.len())),
        }
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: ASN1Time,
    pub(crate) until: ASN1Time,
}

impl Validity {
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, BadIdentity> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| BadIdentity::Malformed)?;
        let validity = certificate.validity();
        Ok(Self { from: validity.not_before, until: validity.not_after })
    }

    pub(crate) fn includes(self, now: UnixTime) -> bool {
        let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        (seconds(self.from)..=seconds(self.until)).contains(&now.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_and_written_alike() {
        for uri in [
            "spiffe://factory.example/device/press-7",
            "spiffe://towline.local/service/ops",
            "spiffe://a/hub/h_1.x",
        ] {
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://d/device",
            "spiffe://d/device/",
            "spiffe://d/device/a/b",
            "spiffe:///device/a",
            "spiffe://D/device/a",
            "spiffe://d/admin/a",
            "spiffe://d/device/..",
            "spiffe://d/device/-a",
            "https://d/device/a",
            "spiffe://d/device/a b",
            "spiffe://d/device/a%2fb",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
    }

    #[test]
    fn names_have_limits() {
        assert!("a".repeat(MAX_NAME).parse::<Name>().is_ok());
        assert!("a".repeat(MAX_NAME + 1).parse::<Name>().is_err());
        for bad in ["", ".", "..", "-x", "a/b", "a b", "a\n", "ü", "a\0"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        let error = "a\nb".parse::<Name>().unwrap_err().to_string();
        assert!(error.starts_with("\"a\\nb\" is not a name: use 1 to 63"), "{error}");
    }
}
