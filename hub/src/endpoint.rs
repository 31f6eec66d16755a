//! How an endpoint, a device or a service, gets to its hub.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};
use towline_transports::proxy::{ProxyError, ProxySettings};
use towline_transports::tls::{self, ConfigError, Credentials, HandshakeError};
use towline_transports::websocket::UpgradeError;
use towline_transports::{Config, Link, LinkClosed, RecvStream, SendStream, Side};

use crate::core::TUNNELS_PER_DEVICE;
use crate::dial::{Dialler, Transport};
use crate::environment::Environment;
use crate::identity::{BadIdentity, Identity, Role};
use crate::message::{self, Answer, Goodbye, Hello, MessageError, Request, VERSION};
use crate::refusal::Refusal;

/// How long it may take to get to the hub: the connection, TLS, and the hello.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What every hub takes on a link before it has declared itself, in bytes (PROTOCOL §3.1): the hello.
const HELLO_WINDOW: u64 = 4 << 10;

/// What this software calls itself.
pub const AGENT: &str = concat!("towline/", env!("CARGO_PKG_VERSION"));

/// The engine's limits on a link to a hub, at the end that is `side`.
///
/// A stream for each tunnel: as many as anybody may reasonably have, since those that are not open cost nothing.
///
/// A reader that stalls holds a stream window of the session's. So that the tunnels to one device, if all stall, hold up
/// nobody else, the session window has room for [`TUNNELS_PER_DEVICE`] of them and for one more: 64 MiB. One that stalls
/// in the middle of bulk holds what its window had grown to, which is less here than the engine would allow. Credit is a
/// promise and takes no memory before it is used; but that is the worst case of what a link's peer can make this end
/// keep of received bytes.
pub fn link_config(side: Side) -> Config {
    let mut config = Config::default();
    config.max_streams_bidi = 1 << 16;
    config.max_streams_uni = 0;
    config.session_window = room_for(TUNNELS_PER_DEVICE, &config).max(config.session_window);
    config.max_stream_window = MAX_STREAM_WINDOW;
    match side {
        Side::Client => config.early_window = HELLO_WINDOW,
        // The endpoint asks for signs of life, and its asking is one for the hub, which so need not ask as well.
        Side::Server => config.keep_alive = config.keep_alive.map(|interval| interval * 3 / 2),
    }
    config
}

/// As [`link_config`], at the end of a hub that allows this many tunnels to a device, for a peer in the role of `peer`.
///
/// More tunnels than [`TUNNELS_PER_DEVICE`] cost a stream window each, on each link. The devices do not hear of it: at
/// their ends it takes that many readers that stall, and no more, to hold up others.
pub fn hub_link_config(tunnels_per_device: u32, peer: Option<Role>) -> Config {
    let mut config = link_config(Side::Server);
    config.session_window = config.session_window.max(room_for(tunnels_per_device, &config));
    if peer != Some(Role::Service) {
        config.max_streams_bidi = DEVICE_STREAMS;
    }
    config
}

/// How large a tunnel's window may grow on a link, in bytes: 40 MB/s at a round trip of 100 ms, and a sixteenth of what a
/// link may hold.
const MAX_STREAM_WINDOW: u64 = 4 << 20;

/// How many streams a device may open at a time: the hello takes one, and whatever it asks on others is refused.
const DEVICE_STREAMS: u64 = 8;

/// The session window that leaves one stream window over when this many readers stall.
fn room_for(tunnels: u32, config: &Config) -> u64 {
    (u64::from(tunnels) + 1) * config.stream_window
}

/// Where the hub is, and who asks.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The hub's `host:port`. Its certificate must be for that host.
    pub hub: String,
    /// This end's certificate and key, and the authorities that it trusts.
    pub credentials: Credentials,
    /// How to get there.
    pub route: Route,
}

/// How an endpoint gets to its hub. Default: every way there is, and no proxy.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The only transport to try; `None` for all of them.
    pub transport: Option<Transport>,
    /// The proxies that there are.
    pub proxy: ProxySettings,
    /// Who vouches for the web servers and proxies that may end the outer TLS of a WebSocket, besides the hub's own
    /// authorities.
    pub web_roots: Vec<CertificateDer<'static>>,
}

/// Why an endpoint cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The certificate, the key or the authorities do not do.
    #[error(transparent)]
    Tls(#[from] ConfigError),
    /// The certificate does not say who this is.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
    /// The certificate is for something else.
    #[error("this is the certificate of {found}, but it takes one of a {wanted}")]
    WrongRole {
        /// Whose certificate it is.
        found: Identity,
        /// What it should be.
        wanted: Role,
    },
    /// No hub is named.
    #[error("no hub is named; name one at least")]
    NoHub,
    /// The hub's address does not do.
    #[error("\"{0}\" is no address of a hub; write HOST:PORT, such as hub.example.com:443")]
    Address(String),
}

/// Why there is no link to the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is nobody at the address, or no way to it.
    #[error("cannot reach the hub at {hub}: {error}; {}", remedy_of_unreachable(.error))]
    Unreachable {
        /// The hub's address.
        hub: String,
        /// What the system said.
        error: io::Error,
    },
    /// A proxy does not let this end through.
    #[error("cannot reach the hub at {hub}: {error}; {}", remedy_of_proxy(.error))]
    Proxy {
        /// The hub's address.
        hub: String,
        /// What the proxy said.
        error: ProxyError,
    },
    /// There is no WebSocket to the hub.
    #[error("no WebSocket to {hub}: {error}; check that a hub is there, and what is in between")]
    WebSocket {
        /// The hub's address.
        hub: String,
        /// What was answered.
        error: UpgradeError,
    },
    /// It took too long.
    #[error("the hub at {hub} did not answer within {} s; check that a hub listens there", CONNECT_DEADLINE.as_secs())]
    TimedOut {
        /// The hub's address.
        hub: String,
    },
    /// Who is there is not the hub, or speaks something else.
    #[error("{hub} {}: {error}; {}", verdict_of_handshake(.error), remedy_of_handshake(.error))]
    NotTrusted {
        /// The hub's address.
        hub: String,
        /// What was wrong.
        error: HandshakeError,
    },
    /// Who is there has a certificate of something else.
    #[error("{hub} shows the certificate of {found}, which is no hub; check --hub")]
    NotAHub {
        /// The hub's address.
        hub: String,
        /// Whose certificate it is.
        found: Identity,
    },
    /// Who is there is the hub of another trust domain.
    #[error(
        "{hub} shows the certificate of {found}, and this end is of the trust domain {wanted}; check --hub"
    )]
    OtherTrustDomain {
        /// The hub's address.
        hub: String,
        /// Whose certificate it is.
        found: Identity,
        /// This end's trust domain.
        wanted: String,
    },
    /// The hub does not take this end's certificate.
    #[error("the hub at {hub} refuses this end: {reason}; make a new certificate with `towline identity`")]
    CertificateRefused {
        /// The hub's address.
        hub: String,
        /// What it has against it.
        reason: &'static str,
    },
    /// The hub does not want this end.
    #[error("the hub refuses: {0}")]
    Refused(Refusal),
    /// The link ended during the hello.
    #[error("the link to the hub at {hub} ended: {error}; try again")]
    Lost {
        /// The hub's address.
        hub: String,
        /// What was said last.
        error: MessageError,
    },
}

impl ConnectError {
    /// Whether the hub's machine has said that nobody listens there.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Unreachable { error, .. } if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

fn remedy_of_unreachable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "start `towline hub` there, or name another with --hub",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => {
            "check this machine's network, and the address in --hub"
        }
        // The system's own errors have numbers; those of the resolver have none.
        _ if error.raw_os_error().is_none() => "check the host's name in --hub, and this machine's DNS",
        _ => "check this machine's network, or name another hub with --hub",
    }
}

fn remedy_of_proxy(error: &ProxyError) -> &'static str {
    match error {
        ProxyError::Unreachable { .. } | ProxyError::Silent { .. } => {
            "check the proxy in --proxy or HTTPS_PROXY, or do without: --proxy none"
        }
        ProxyError::Authentication { .. } => "its URL is in --proxy or HTTPS_PROXY",
        ProxyError::Refused { .. } => "check --hub, and ask whoever runs the proxy to let it through",
        ProxyError::NotHttp { .. } | ProxyError::HeadTooLarge { .. } => {
            "check that --proxy or HTTPS_PROXY names an HTTP proxy"
        }
        _ => "try again, or ask whoever runs the proxy",
    }
}

fn verdict_of_handshake(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::Io(_) => "did not shake hands",
        _ => "is not a hub that this end trusts",
    }
}

fn remedy_of_handshake(error: &HandshakeError) -> &'static str {
    use rustls::{CertificateError, Error};
    match error {
        HandshakeError::Io(_) => "check that a hub listens there, and try again",
        HandshakeError::Tls(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            "use such a name with --hub, or make the hub a certificate with `towline identity init --hub-name`"
        }
        _ => "check --hub and the authority's certificate",
    }
}

/// An endpoint that can connect to its hub, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    dialler: Arc<Dialler>,
    pub(crate) environment: Environment,
    /// Distinguishes this process from other holders of its identity.
    instance: u64,
    pub(crate) identity: Identity,
    /// Who this end is, to those at the other end of its tunnels as well.
    pub(crate) credentials: Credentials,
}

/// A link to the hub that has said hello.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) link: Link,
    /// The stream of the hello. It stays open as long as the link; the hub says goodbye on it.
    pub(crate) control: (SendStream, RecvStream),
}

impl Endpoint {
    pub(crate) fn new(
        config: EndpointConfig,
        role: Role,
        environment: Environment,
    ) -> Result<Self, SetupError> {
        let certificate = config.credentials.chain.first().ok_or(BadIdentity::Malformed)?;
        let identity = Identity::of_certificate(certificate)?;
        if identity.role != role {
            return Err(SetupError::WrongRole { found: identity, wanted: role });
        }
        let credentials = config.credentials.clone();
        let dialler = Arc::new(Dialler::new(config, identity.trust_domain.clone(), environment.clone())?);
        let instance = environment.random();
        Ok(Self { dialler, environment, instance, identity, credentials })
    }

    /// The hub's address.
    pub(crate) fn hub(&self) -> &str {
        self.dialler.hub()
    }

    /// Connects and says hello. Cancelling it closes the connection.
    pub(crate) async fn connect(&self) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + CONNECT_DEADLINE;
        // One link says hello, since a second one would take the first one's place.
        let found = self.dialler.dial(deadline).await?;
        let trace = found.trace();
        let outcome = match timeout_at(deadline, self.greet(found.link)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::TimedOut { hub: self.dialler.hub().to_owned() }),
        };
        match &outcome {
            Ok(_) | Err(ConnectError::Refused(_)) => self.dialler.remember(trace),
            // It may be that only handshakes get through there.
            Err(_) => self.dialler.forget(&trace),
        }
        outcome
    }

    async fn greet(&self, link: Link) -> Result<Connected, ConnectError> {
        let hub = || self.dialler.hub().to_owned();
        match self.say_hello(&link).await {
            Ok((control, Answer::Accepted(_))) => Ok(Connected { link, control }),
            Ok((_, Answer::Refused(refusal))) => Err(ConnectError::Refused(refusal)),
            Err(MessageError::Closed(LinkClosed::Lost(error))) => {
                let reason = tls::as_tls(&error).and_then(tls::refused_certificate);
                Err(match reason {
                    Some(reason) => ConnectError::CertificateRefused { hub: hub(), reason },
                    None => ConnectError::Lost { hub: hub(), error: LinkClosed::Lost(error).into() },
                })
            }
            Err(error) => Err(ConnectError::Lost { hub: hub(), error }),
        }
    }

    async fn say_hello(&self, link: &Link) -> Result<((SendStream, RecvStream), Answer), MessageError> {
        let (mut send, mut recv) = link.open_bi().await?;
        let hello = Hello { version: VERSION, instance: self.instance, agent: AGENT.to_owned() };
        message::write(&mut send, &Request::Hello(hello)).await?;
        let answer = message::read(&mut recv).await?;
        Ok(((send, recv), answer))
    }
}

impl Connected {
    /// Waits until the hub says goodbye. Returns what it says. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// The link ended first.
    pub(crate) async fn goodbye(&mut self) -> Result<Refusal, LinkClosed> {
        match message::read::<Goodbye>(&mut self.control.1).await {
            Ok(Goodbye { refusal }) => Ok(refusal),
            // The link may go on without the stream of the hello.
            Err(_) => Err(self.link.closed().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hub that declared less would be refused by everybody.
    #[test]
    fn every_hub_takes_a_hello_before_it_has_declared_itself() {
        for role in [None, Some(Role::Device), Some(Role::Service)] {
            let config = hub_link_config(1, role);
            assert!(config.stream_window.min(config.initial_session_window()) >= HELLO_WINDOW);
            assert!(config.max_streams_bidi >= 1);
        }
        assert_eq!(link_config(Side::Client).early_window, HELLO_WINDOW);
    }

    #[test]
    fn a_hubs_window_follows_the_tunnels_that_it_allows() {
        let window = |tunnels| hub_link_config(tunnels, Some(Role::Device)).session_window;
        assert_eq!(link_config(Side::Client).session_window, 64 << 20);
        assert_eq!([window(1), window(TUNNELS_PER_DEVICE)], [64 << 20; 2]);
        assert_eq!(window(4095), 256 << 20);
        assert_eq!(window(u32::MAX), 1 << 48);
    }
}
