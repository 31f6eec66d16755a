//! Where cryptography comes from: aws-lc-rs, or ring for targets where that does not build. A feature says which; with both it is
//! ring, as in quinn.

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("one of the features \"aws-lc-rs\" (which is the default) and \"ring\" is needed");

#[cfg(not(feature = "ring"))]
use aws_lc_rs as library;
#[cfg(feature = "ring")]
use ring as library;

use library::rand::{SecureRandom, SystemRandom};
use rustls::crypto::CryptoProvider;

pub use library::digest;
pub(crate) use library::{aead, hkdf, hmac};

/// What TLS needs of it.
pub fn provider() -> CryptoProvider {
    #[cfg(not(feature = "ring"))]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(feature = "ring")]
    return rustls::crypto::ring::default_provider();
}

/// Bytes that nobody can guess, from the system.
///
/// # Errors
///
/// The system has none.
pub fn random<const COUNT: usize>() -> std::io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    SystemRandom::new().fill(&mut bytes).map_err(|_| std::io::Error::other("the system has no entropy"))?;
    Ok(bytes)
}
