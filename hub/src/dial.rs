//! How an endpoint gets to its hub: every way there is, one a little after the other, and the first that is let in wins.
//!
//! In: the hub's address, who this end is, and a [`Route`](crate::Route). Out: a link whose other end has shown that it
//! is the hub. Keeps: how the ways turned out last in each network ([`Memory`]).
//!
//! TLS over TCP comes first: it costs least for each byte, and does all that a link can do. QUIC follows, for networks
//! where TCP is slow or lossy; then WebSocket, which gets through where only HTTP does; then the same through a proxy.
//! A way that fails lets the next one begin at once. What worked last in a network is tried first there, and where nothing
//! comes back over QUIC any more, that is tried last.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, sleep_until, timeout};
use towline_transports::proxy::{self, ProxyError, ProxySettings};
use towline_transports::tls::{self, ALPN_LINK};
use towline_transports::websocket::{self, SUBPROTOCOL_LINK};
use towline_transports::{Link, Pipe, Side, Socket, WeakLink, quic};

use crate::door::PATH;
use crate::endpoint::{CONNECT_DEADLINE, ConnectError, EndpointConfig, Route, SetupError, link_config};
use crate::environment::Environment;
use crate::identity::{BadIdentity, Identity, Role};
use crate::memory::{Memory, Place, Turn, Verdict};

/// How long a way has before the next one is tried beside it: three round trips across the world. One that fails lets the
/// next begin at once.
const HEAD_START: Duration = Duration::from_secs(1);

/// How long QUIC may still take when every other way has failed: nobody says so where no UDP is answered.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long other ways may take at first when TCP is refused by a hub that has answered over it before: it is being started
/// again.
const AFTER_REFUSAL: Duration = Duration::from_millis(200);

/// After how many refusals nothing is known any more: then other ways have all of [`LAST_CHANCE`].
const UNSURE: u32 = 3;

/// How long each address of the hub's but the last has to answer over QUIC: less than [`LAST_CHANCE`], so that the next one
/// has its turn when all else has failed.
const PER_ADDRESS: Duration = Duration::from_millis(600);

/// How many streams a link has that carries no tunnel: that of the hello.
const STREAMS_AT_REST: usize = 1;

/// Above how many streams a QUIC link is watched closely, which costs bytes while nothing else is sent. Where there are other
/// ways it always is, so that one is taken soon; where there are none, only while it carries a tunnel.
fn watched_from(only: Option<Transport>) -> usize {
    if only == Some(Transport::Quic) { STREAMS_AT_REST } else { 0 }
}

/// Where a hub with a name is taken to be, to learn by which of its addresses this machine reaches the world: addresses
/// for examples (RFC 5737, RFC 3849), to which nothing is sent. To resolve the name first could take seconds.
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TLS over TCP.
    Tls,
    /// QUIC, over UDP.
    Quic,
    /// TLS inside of WebSocket, for networks that let nothing but HTTP through.
    WebSocket,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        })
    }
}

/// A way to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// What carries the link.
    pub transport: Transport,
    /// Whether it goes through the proxy.
    pub proxied: bool,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.transport.to_string() + if self.proxied { " through the proxy" } else { "" };
        f.pad(&text)
    }
}

/// How far an attempt got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not to anybody.
    Nowhere,
    /// The hub's name was resolved. (Over TCP that is seen with the connection only.)
    Resolved,
    /// There was a connection to the proxy.
    Proxy,
    /// There was a connection, through the proxy if there is one.
    Connected,
    /// The outer TLS of a WebSocket was up.
    Outer,
    /// There was a WebSocket.
    Upgraded,
    /// The other end has shown that it is the hub.
    Authenticated,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nowhere => "nowhere",
            Self::Resolved => "name resolved",
            Self::Proxy => "the proxy reached",
            Self::Connected => "connected",
            Self::Outer => "outer TLS done",
            Self::Upgraded => "WebSocket open",
            Self::Authenticated => "authenticated",
        })
    }
}

/// What came of a way.
#[derive(Debug)]
pub struct Attempt {
    /// Which.
    pub way: Way,
    /// How far it got.
    pub stage: Stage,
    /// How long it took.
    pub took: Duration,
    /// Why it got no further.
    pub error: Option<ConnectError>,
}

/// An attempt that is over: its way, how far it got, and what came of it.
type Ended = (Way, Stage, Result<Link, ConnectError>);

/// A link to the hub, and how it was come by.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) link: Link,
    way: Way,
    place: Place,
}

/// Which link the dialler found last, for what becomes of it.
#[derive(Debug)]
pub(crate) struct Trace {
    link: WeakLink,
    way: Way,
    place: Place,
}

impl Found {
    pub(crate) fn trace(&self) -> Trace {
        Trace { link: self.link.downgrade(), way: self.way, place: self.place }
    }
}

/// How far an attempt is, for whoever gives it up.
#[derive(Clone, Debug)]
struct Progress(Arc<Mutex<Stage>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Stage::Nowhere)))
    }
}

impl Progress {
    fn reach(&self, stage: Stage) {
        *self.0.lock().expect("nothing panics while it holds the lock") = stage;
    }

    fn stage(&self) -> Stage {
        *self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// Finds the way to one hub.
#[derive(Debug)]
pub(crate) struct Dialler {
    hub: String,
    name: ServerName<'static>,
    trust_domain: String,
    tls: Arc<ClientConfig>,
    outer: Arc<ClientConfig>,
    quic: quic::ClientConfig,
    only: Option<Transport>,
    proxy: ProxySettings,
    environment: Environment,
    memory: Mutex<Memory>,
    /// The link that worked last, if it is one that can go dark.
    last: Mutex<Option<Trace>>,
    /// How often in a row nobody has listened for TCP at a hub that has answered over it before; [`UNSURE`] for one that
    /// has not.
    refusals: AtomicU32,
}

/// Tries every way to the hub to its end, one after the other, and tells how far each got. Nothing is said on the links:
/// the hub does not notice that a device was there.
///
/// # Errors
///
/// The configuration does not do.
pub async fn why(config: EndpointConfig, environment: Environment) -> Result<Vec<Attempt>, SetupError> {
    let certificate = config.credentials.chain.first().ok_or(BadIdentity::Malformed)?;
    let trust_domain = Identity::of_certificate(certificate)?.trust_domain;
    let dialler = Dialler::new(config, trust_domain, environment)?;
    let mut attempts = Vec::new();
    for way in dialler.ways(dialler.place()) {
        let (start, progress) = (Instant::now(), Progress::default());
        let error = match timeout(CONNECT_DEADLINE, dialler.attempt(way, progress.clone())).await {
            Ok(outcome) => outcome.err(),
            Err(_) => Some(dialler.timed_out(way, progress.stage())),
        };
        attempts.push(Attempt { way, stage: progress.stage(), took: start.elapsed(), error });
    }
    Ok(attempts)
}

impl Dialler {
    pub(crate) fn new(
        config: EndpointConfig,
        trust_domain: String,
        environment: Environment,
    ) -> Result<Self, SetupError> {
        let EndpointConfig { hub, credentials, route: Route { transport, proxy, web_roots } } = config;
        let bad = || SetupError::Address(hub.clone());
        let (host, port) = hub.rsplit_once(':').ok_or_else(bad)?;
        port.parse::<u16>().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| bad())?;
        let mut roots = RootCertStore::clone(&credentials.roots);
        roots.add_parsable_certificates(web_roots);
        let outer = websocket::outer_client_config(Arc::new(roots), &environment.tls)?;
        let limits = link_config(Side::Client);
        let quic = quic::client_config(credentials.clone(), &environment.tls, limits)?;
        let quic = quic.watched(watched_from(transport));
        let tls = tls::client_config(credentials, &[ALPN_LINK], &environment.tls)?;
        let (only, memory, last) = (transport, Mutex::default(), Mutex::default());
        let refusals = AtomicU32::new(UNSURE);
        Ok(Self {
            hub,
            name,
            trust_domain,
            tls,
            outer,
            quic,
            only,
            proxy,
            environment,
            memory,
            last,
            refusals,
        })
    }

    pub(crate) fn hub(&self) -> &str {
        &self.hub
    }

    /// In which network this machine is.
    fn place(&self) -> Place {
        let network = &self.environment.network;
        match &self.name {
            ServerName::IpAddress(address) => network.local_address((*address).into()),
            _ => ELSEWHERE.into_iter().find_map(|address| network.local_address(address)),
        }
    }

    /// Every way there is, in the order in which they are tried in this network.
    fn ways(&self, place: Place) -> Vec<Way> {
        let direct =
            [Transport::Tls, Transport::Quic, Transport::WebSocket].map(|transport| (transport, false));
        let proxied = [(Transport::Tls, true), (Transport::WebSocket, true)];
        let proxied = proxied.into_iter().filter(|_| self.proxy.proxy_for(&self.hub).is_some());
        let all = direct.into_iter().chain(proxied).map(|(transport, proxied)| Way { transport, proxied });
        let mut ways: Vec<_> = all.filter(|way| self.only.is_none_or(|only| only == way.transport)).collect();
        let memory = self.memory();
        ways.sort_by_key(|way| memory.turn(place, *way));
        let network = place.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let order = ways.iter().map(|way| format!("{way}{}", reason(memory.turn(place, *way))));
        tracing::debug!(hub = self.hub, network, order = order.collect::<Vec<_>>().join(", "), "the ways");
        ways
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("nothing panics while it holds the lock")
    }

    fn last(&self) -> MutexGuard<'_, Option<Trace>> {
        self.last.lock().expect("nothing panics while it holds the lock")
    }

    /// Learns from the end of the link that worked last. If it went dark, that counts for the network in which this
    /// machine is now: it may be that it has moved there with the link.
    fn look_back(&self, place: Place) {
        if let Some(Trace { way, .. }) = self.last().take_if(|last| last.link.went_dark()) {
            self.memory().note(place, Verdict::WentDark(way));
        }
    }

    /// Tries the ways, each a head start after the one before or when that has failed, until the hub has answered on
    /// one of them. The others are given up then, and all at the deadline. Cancel-safe.
    ///
    /// # Errors
    ///
    /// What stopped the one that got furthest.
    pub(crate) async fn dial(self: &Arc<Self>, deadline: Instant) -> Result<Found, ConnectError> {
        let place = self.place();
        self.look_back(place);
        let mut ways = self.ways(place).into_iter();
        let mut attempts: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
        let mut under_way: Vec<(Way, Progress, Instant)> = Vec::new();
        let mut patience = LAST_CHANCE;
        let mut waits_for_quic = false;
        let mut furthest: Option<(Stage, ConnectError)> = None;
        let mut next_start = Instant::now();
        let mut last_chance = None;
        while ways.len() > 0 || !attempts.is_empty() {
            if furthest.is_some() && waits_for_quic && ways.len() == 0 && attempts.len() == 1 {
                last_chance.get_or_insert_with(|| Instant::now() + patience);
            }
            tokio::select! {
                biased;
                Some((way, stage, outcome)) = attempts.next() => match outcome {
                    Ok(link) => {
                        tracing::debug!(hub = self.hub, %way, "the hub has answered");
                        return Ok(Found { link, way, place });
                    }
                    Err(error) => {
                        tracing::debug!(hub = self.hub, %way, %stage, %error, "no way");
                        let was_refused = error.is_refused();
                        // To know an address is not yet to have got anywhere.
                        let stage = stage.max(Stage::Resolved);
                        if furthest.as_ref().is_none_or(|(far, _)| stage > *far) {
                            furthest = Some((stage, error));
                        }
                        next_start = Instant::now();
                        if let Some((.., start)) = under_way.extract_if(.., |(other, ..)| *other == way).next()
                            && was_refused
                        {
                            patience = self.patience_after_refusal(start.elapsed());
                        }
                        waits_for_quic &= way.transport != Transport::Quic;
                    }
                },
                () = sleep_until(last_chance.unwrap_or(next_start)), if last_chance.is_some() => {
                    tracing::debug!(hub = self.hub, "nobody answers over UDP");
                    break;
                }
                () = sleep_until(next_start), if ways.len() > 0 => {
                    let way = ways.next().expect("there is one more");
                    next_start = Instant::now() + HEAD_START.min(patience);
                    waits_for_quic |= way.transport == Transport::Quic;
                    tracing::debug!(hub = self.hub, %way, "trying");
                    let progress = Progress::default();
                    under_way.push((way, progress.clone(), Instant::now()));
                    attempts.push(self.clone().attempt_to_the_end(way, progress).boxed());
                }
                () = sleep_until(deadline) => break,
            }
        }
        self.memory().forget(place);
        // Those that are given up may have got further than those that have failed.
        for (way, progress, _) in under_way {
            let stage = progress.stage();
            if furthest.as_ref().is_none_or(|(far, _)| stage > *far) {
                furthest = Some((stage, self.timed_out(way, stage)));
            }
        }
        Err(furthest.map_or_else(|| ConnectError::TimedOut { hub: self.hub.clone() }, |(_, error)| error))
    }

    /// How long other ways may take when TCP was refused in `took`. That may be the hub's machine, where its program is not
    /// there for the moment, or a firewall that has nothing against UDP: so it is short only where the hub has answered over
    /// TCP before, and twice as long each time that it does not any more.
    fn patience_after_refusal(&self, took: Duration) -> Duration {
        let times = self.refusals.fetch_add(1, Ordering::Relaxed).min(UNSURE);
        LAST_CHANCE.min((AFTER_REFUSAL * (1 << times)).max(4 * took))
    }

    /// This link has worked, to the last word: its way is tried first the next time.
    pub(crate) fn remember(&self, found: Trace) {
        self.memory().note(found.place, Verdict::Worked(found.way));
        let over_udp = found.way.transport == Transport::Quic;
        self.refusals.store(if over_udp { UNSURE } else { 0 }, Ordering::Relaxed);
        *self.last() = (found.way.transport == Transport::Quic).then_some(found);
    }

    /// This link has not worked, and what did before may not any more.
    pub(crate) fn forget(&self, found: &Trace) {
        self.memory().forget(found.place);
    }

    async fn attempt_to_the_end(self: Arc<Self>, way: Way, progress: Progress) -> Ended {
        let outcome = self.attempt(way, progress.clone()).await;
        (way, progress.stage(), outcome)
    }

    /// Goes one way. `progress` tells how far it is.
    async fn attempt(&self, way: Way, progress: Progress) -> Result<Link, ConnectError> {
        let link = match way.transport {
            Transport::Quic => self.over_quic(progress.clone()).await?,
            Transport::Tls => self.over_tls(way.proxied, progress.clone()).await?,
            Transport::WebSocket => self.over_websocket(way.proxied, progress.clone()).await?,
        };
        progress.reach(Stage::Authenticated);
        Ok(link)
    }

    async fn over_tls(&self, proxied: bool, progress: Progress) -> Result<Link, ConnectError> {
        let socket = self.socket(proxied, progress.clone()).await?;
        progress.reach(Stage::Connected);
        self.meet(socket).await
    }

    async fn over_websocket(&self, proxied: bool, progress: Progress) -> Result<Link, ConnectError> {
        let socket = self.socket(proxied, progress.clone()).await?;
        progress.reach(Stage::Connected);
        let outer = websocket::connect_outer(socket, self.name.clone(), self.outer.clone()).await;
        let outer = outer.map_err(|error| self.not_trusted(error))?;
        progress.reach(Stage::Outer);
        let pipe = websocket::connect(outer, &self.hub, PATH, SUBPROTOCOL_LINK).await;
        let pipe = pipe.map_err(|error| ConnectError::WebSocket { hub: self.hub.clone(), error })?;
        progress.reach(Stage::Upgraded);
        self.meet(pipe).await
    }

    /// Runs the TLS of a link over `pipe`, and the link over that.
    async fn meet(&self, pipe: impl Pipe) -> Result<Link, ConnectError> {
        let pipe = tls::connect(pipe, self.name.clone(), self.tls.clone()).await;
        let pipe = pipe.map_err(|error| self.not_trusted(error))?;
        self.check(pipe.peer_certificates())?;
        Ok(Link::over_tls(pipe, Side::Client, link_config(Side::Client)))
    }

    async fn socket(&self, proxied: bool, progress: Progress) -> Result<Box<dyn Socket>, ConnectError> {
        let network = &*self.environment.network;
        let proxy = if proxied { self.proxy.proxy_for(&self.hub) } else { None };
        match proxy {
            Some(proxy) => {
                let failed = |error| ConnectError::Proxy { hub: self.hub.clone(), error };
                let socket = proxy::reach(network, proxy).await.map_err(failed)?;
                progress.reach(Stage::Proxy);
                proxy::ask(socket, proxy, &self.hub).await.map_err(failed)
            }
            None => {
                let socket = network.connect(&self.hub).await;
                socket.map_err(|error| self.unreachable(error))
            }
        }
    }

    async fn over_quic(&self, progress: Progress) -> Result<Link, ConnectError> {
        let Environment { network, tls } = &self.environment;
        let addresses = network.resolve(&self.hub).await.map_err(|error| self.unreachable(error))?;
        progress.reach(Stage::Resolved);
        let name = self.name.to_str().into_owned();
        let mut failed = None;
        let count = addresses.len();
        for (n, address) in addresses.into_iter().enumerate() {
            let endpoint = match quic::Endpoint::towards(network.clone(), address, tls) {
                Ok(endpoint) => endpoint,
                Err(error) => {
                    failed = Some(self.unreachable(error));
                    continue;
                }
            };
            // Nobody says that nobody is there.
            let patience = if n + 1 < count { PER_ADDRESS } else { CONNECT_DEADLINE };
            match timeout(patience, endpoint.connect(address, &name, &self.quic)).await {
                Ok(Ok(connection)) => {
                    self.check(connection.peer_certificates())?;
                    return Ok(connection.start());
                }
                Ok(Err(error)) => failed = Some(self.not_trusted(error)),
                Err(_) => failed = Some(ConnectError::TimedOut { hub: self.hub.clone() }),
            }
        }
        Err(failed.unwrap_or_else(|| self.unreachable(io::ErrorKind::NotFound.into())))
    }

    /// What is to be said of a way that is given up when time is up.
    fn timed_out(&self, way: Way, stage: Stage) -> ConnectError {
        let hub = self.hub.clone();
        match self.proxy.proxy_for(&self.hub) {
            Some(proxy) if way.proxied && stage < Stage::Connected => {
                ConnectError::Proxy { hub, error: ProxyError::Silent { proxy: proxy.to_string() } }
            }
            _ => ConnectError::TimedOut { hub },
        }
    }

    fn unreachable(&self, error: io::Error) -> ConnectError {
        ConnectError::Unreachable { hub: self.hub.clone(), error }
    }

    fn not_trusted(&self, error: tls::HandshakeError) -> ConnectError {
        ConnectError::NotTrusted { hub: self.hub.clone(), error }
    }

    /// Whether these are the certificates of a hub of this end's trust domain. One for a web server names no identity,
    /// and does as well.
    fn check(&self, certificates: &[CertificateDer<'static>]) -> Result<(), ConnectError> {
        let hub = || self.hub.clone();
        let Some(Ok(found)) = certificates.first().map(Identity::of_certificate) else { return Ok(()) };
        if found.role != Role::Hub {
            return Err(ConnectError::NotAHub { hub: hub(), found });
        }
        if found.trust_domain != self.trust_domain {
            let wanted = self.trust_domain.clone();
            return Err(ConnectError::OtherTrustDomain { hub: hub(), found, wanted });
        }
        Ok(())
    }
}

/// Why a way is tried when it is, in brackets.
fn reason(turn: Turn) -> &'static str {
    match turn {
        Turn::First => " (worked last in this network)",
        Turn::InOrder => "",
        Turn::Last => " (went dark in this network)",
    }
}
