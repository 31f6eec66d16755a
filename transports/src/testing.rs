//! Certificates of a throw-away authority, for the tests within this crate.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::time_provider::DefaultTimeProvider;

use crate::crypto;
use crate::tls::{Credentials, Environment};

/// Credentials for `hub.test`, good for both ends.
pub(crate) fn credentials() -> Credentials {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut roots = RootCertStore::empty();
    roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let params = CertificateParams::new(vec!["hub.test".to_owned()]).unwrap();
    let chain = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Credentials { chain, key, roots: roots.into() }
}

pub(crate) fn environment() -> Environment {
    Environment { provider: crypto::provider().into(), time: Arc::new(DefaultTimeProvider) }
}
