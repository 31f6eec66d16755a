//! What is handed in from outside: sockets, cryptography, entropy and the calendar. The clock is tokio's.

use std::sync::Arc;

use rustls::time_provider::DefaultTimeProvider;
use towline_transports::{Network, TcpNetwork, crypto, tls};

/// What the world is made of, for a hub, a device or a service. A simulator hands in its own.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Where sockets come from.
    pub network: Arc<dyn Network>,
    /// What TLS needs. Entropy for everything else is its provider's too.
    pub tls: tls::Environment,
}

impl Environment {
    /// The real world: the system's TCP and UDP, the cryptography that was chosen when it was built, and the system's
    /// calendar.
    pub fn system() -> Self {
        let provider = Arc::new(crypto::provider());
        Self {
            network: Arc::new(TcpNetwork),
            tls: tls::Environment { provider, time: Arc::new(DefaultTimeProvider) },
        }
    }

    /// A random number.
    ///
    /// # Panics
    ///
    /// If the provider has no entropy, without which nothing here is safe.
    pub fn random(&self) -> u64 {
        u64::from_ne_bytes(self.random_bytes())
    }

    /// Bytes that nobody can guess.
    ///
    /// # Panics
    ///
    /// As [`random`](Self::random).
    pub fn random_bytes<const COUNT: usize>(&self) -> [u8; COUNT] {
        let mut bytes = [0; COUNT];
        self.tls.provider.secure_random.fill(&mut bytes).expect("the provider has entropy");
        bytes
    }
}
