//! Cryptography that draws from a seed, and a calendar that stands still: for both backends.
//!
//! In: a seed for each endpoint. Out: what TLS and QUIC need, real in everything but where the numbers come from. The
//! ciphers are those of the field; what they compute depends on the seed alone: keys are drawn from it, one cipher suite
//! is offered so that no feature of the processor chooses, and Ed25519 signs without drawing anything.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::{PrivatePkcs8KeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, Error, NamedGroup, PeerMisbehaved};
use towline_transports::tls::Environment;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::random::Stream;

/// The day on which every simulation begins: 2026-01-01.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// The environment of an endpoint whose entropy is `stream`, and whose calendar is at `time`.
///
/// The entropy lives as long as the program, since rustls wants it so: some hundred bytes for each endpoint.
pub fn environment(stream: Stream, time: Arc<dyn TimeProvider>) -> Environment {
    let entropy: &'static Entropy = Box::leak(Box::new(Entropy(Mutex::new(stream))));
    let group: &'static X25519 = Box::leak(Box::new(X25519(entropy)));
    let mut provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random = entropy;
    provider.kx_groups = vec![group];
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    Environment { provider: Arc::new(provider), time }
}

/// An Ed25519 key that is drawn from `stream`, as PKCS #8.
pub fn key(stream: &mut Stream) -> PrivatePkcs8KeyDer<'static> {
    let mut der = PKCS8_ED25519.to_vec();
    der.resize(PKCS8_ED25519.len() + 32, 0);
    stream.fill(&mut der[PKCS8_ED25519.len()..]);
    der.into()
}

/// What stands before the 32 bytes of an Ed25519 key in version 1 of PKCS #8 (RFC 8410 §7).
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A calendar on which it is always the first day.
#[derive(Debug, Default)]
pub struct FirstDay;

impl TimeProvider for FirstDay {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(EPOCH))
    }
}

struct Entropy(Mutex<Stream>);

impl Entropy {
    fn draw(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

impl SecureRandom for Entropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.draw(bytes);
        Ok(())
    }
}

/// X25519 with keys that are drawn from the seed: aws-lc-rs draws its own from the system.
#[derive(Debug)]
struct X25519(&'static Entropy);

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        self.0.draw(&mut secret);
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret).to_bytes();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
