//! The hub: it listens, lets in who can prove who they are, and joins services to devices.
//!
//! This file is the sockets and tasks around [`Core`], which decides. A task accepts connections, one looks at the
//! clock, each connection has one, and each tunnel; what is asked on a link is in `hub/requests.rs`. QUIC's port is in
//! `hub/udp.rs`, and what changes while the hub runs in `hub/reload.rs`.

mod early;
mod record;
mod reload;
mod requests;
mod udp;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use towline_transports::tls::{ConfigError, Credentials};
use towline_transports::{Link, Listener, RecvStream, SendStream, Socket, quic};

use crate::codes;
use crate::core::{Action, Core, Limits, LinkId};
use crate::door::{self, Arrival, Door, Keys};
use crate::endpoint::{SetupError, hub_link_config};
use crate::environment::Environment;
use crate::identity::{BadIdentity, Identity, Role};
use crate::message::{self, Accepted, Answer, Goodbye, MessageError, Request};
use crate::places::{Place, Places};
use crate::policy::Policy;
use crate::refusal::{Refusal, RefusalCode};

pub use reload::ReloadError;
use udp::UdpPort;
use waiting::Waiting;

/// How long an endpoint that is dismissed may take to make room for the goodbye.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(3);

/// How long the links that are left at the end of a drain may take to close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// How long to wait before accepting again, when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a hub needs.
#[derive(Debug)]
pub struct HubConfig {
    /// Where it listens: `host:port`.
    pub listen: String,
    /// Its certificate and key, and the authorities whose endpoints it lets in.
    pub credentials: Credentials,
    /// What it allows.
    pub limits: Limits,
    /// Who may open what.
    pub policy: Box<dyn Policy>,
    /// Whether it listens on the same port of UDP as well, for QUIC. If it cannot, it does without until it can.
    pub quic: bool,
}

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The certificate does not do.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It cannot listen there.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where it should have listened.
        address: String,
        /// What the system said.
        error: io::Error,
    },
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Setup(error.into())
    }
}

/// A hub that runs. Dropping it ends it and every link; [`drain`](Self::drain) does so in good order.
#[derive(Debug)]
pub struct Hub {
    inner: Arc<Inner>,
    address: SocketAddr,
    _running: DropGuard,
}

/// How much a hub has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubStats {
    /// Devices that are online.
    pub devices: usize,
    /// Links, of devices and services.
    pub links: usize,
    /// Tunnels that are live, or wait for an answer.
    pub tunnels: usize,
    /// Connections that have not shown who they are.
    pub unauthenticated: usize,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    limits: Limits,
    door: Door,
    /// The port of UDP, if it is wanted.
    udp: Option<Mutex<UdpPort>>,
    environment: Environment,
    state: Mutex<State>,
    /// When the core's time began.
    start: Instant,
    /// For those who have not shown who they are. Who had to go gives back a descriptor before the next one is let in.
    lobby: Places,
    /// The core has a new deadline.
    rescheduled: Notify,
    tasks: TaskTracker,
    running: CancellationToken,
    accepting: CancellationToken,
}

#[derive(Debug)]
struct State {
    core: Core,
    links: BTreeMap<LinkId, Peer>,
    next_link: u64,
    /// Services that wait for an answer.
    waiting: Waiting,
}

/// The other end of a link.
#[derive(Debug)]
struct Peer {
    link: Link,
    /// Dismisses it. `None` once that was done.
    dismiss: Option<oneshot::Sender<Refusal>>,
    /// A newer link of the same device has taken its place.
    replaced: CancellationToken,
}

impl Hub {
    /// Starts a hub. Must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// The certificate does not do, or the address cannot be listened on.
    pub async fn start(config: HubConfig, environment: Environment) -> Result<Self, StartError> {
        let HubConfig { listen, credentials, limits, policy, quic } = config;
        let certificate = credentials.chain.first().ok_or(BadIdentity::Malformed);
        let identity = certificate.and_then(Identity::of_certificate).map_err(SetupError::from)?;
        if identity.role != Role::Hub {
            return Err(SetupError::WrongRole { found: identity, wanted: Role::Hub }.into());
        }
        let door = Door::new(Keys::new(credentials.clone(), &environment.tls)?);
        let quic = quic.then(|| udp::server_config(credentials, &environment.tls, &limits)).transpose()?;
        let listener = environment.network.listen(&listen).await;
        let failed = |error| StartError::Listen { address: listen.clone(), error };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let running = CancellationToken::new();
        let lobby = Places::new(limits.unauthenticated);
        let state = State {
            core: Core::new(limits.clone(), policy),
            links: BTreeMap::new(),
            next_link: 1,
            waiting: Waiting::default(),
        };
        let inner = Arc::new(Inner {
            identity,
            limits,
            door,
            udp: quic.map(|config| Mutex::new(UdpPort::new(address, config))),
            environment,
            state: Mutex::new(state),
            start: Instant::now(),
            lobby,
            rescheduled: Notify::new(),
            tasks: TaskTracker::new(),
            accepting: running.child_token(),
            running: running.clone(),
        });
        inner.spawn(accept_connections(inner.clone(), listener));
        udp::start(&inner);
        // Not among the tasks that a drain waits for.
        tokio::spawn(running.clone().run_until_cancelled_owned(watch_the_clock(inner.clone())));
        Ok(Self { inner, address, _running: running.drop_guard() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Whether it has its port of UDP, and so takes QUIC links.
    pub fn has_quic(&self) -> bool {
        udp::is_open(&self.inner)
    }

    /// How much it has to do now.
    pub fn stats(&self) -> HubStats {
        let state = self.inner.lock();
        HubStats {
            devices: state.core.online(),
            links: state.links.len(),
            tunnels: state.core.tunnels(),
            unauthenticated: self.inner.lobby.taken(),
        }
    }

    /// Ends the hub in good order: it accepts nothing more, asks everybody to come back after `retry`, gives live
    /// tunnels until `deadline` to end by themselves, and closes what is left.
    pub async fn drain(self, retry: Duration, deadline: Duration) {
        let inner = &self.inner;
        inner.accepting.cancel();
        {
            let mut state = inner.lock();
            state.core.handle_drain(retry);
            inner.perform(&mut state);
        }
        inner.tasks.close();
        let _ = timeout(deadline, inner.tasks.wait()).await;
        for peer in inner.lock().links.values() {
            peer.link.close(codes::NONE, "");
        }
        let _ = timeout(CLOSE_DEADLINE, inner.tasks.wait()).await;
        inner.running.cancel();
        inner.tasks.wait().await;
        udp::part(inner).await;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// The core's time.
    fn now(&self) -> towline_engine::Instant {
        towline_engine::Instant::default() + self.start.elapsed()
    }

    /// Runs `task` until it is done or the hub ends.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // In a box, since an async function has room for what it takes twice.
        self.tasks.spawn(self.running.clone().run_until_cancelled_owned(Box::pin(task)));
    }

    /// Does what the core wants done, and lets the clock know of new deadlines.
    fn perform(&self, state: &mut State) {
        while let Some(action) = state.core.poll_action() {
            match action {
                Action::Refuse(tunnel, refusal) => state.waiting.refuse(tunnel, refusal),
                Action::Offer(offered) => state.waiting.offer(offered),
                Action::Dismiss(link, refusal) => {
                    let Some(peer) = state.links.get_mut(&link) else { continue };
                    if refusal.code == RefusalCode::Superseded {
                        peer.replaced.cancel();
                    }
                    peer.dismiss.take().map(|dismiss| dismiss.send(refusal));
                }
            }
        }
        self.rescheduled.notify_one();
    }
}

/// Lets the core know when its deadlines pass.
async fn watch_the_clock(inner: Arc<Inner>) {
    loop {
        let deadline = inner.lock().core.poll_timeout();
        let rescheduled = inner.rescheduled.notified();
        match deadline {
            None => rescheduled.await,
            Some(deadline) => {
                let since = deadline.saturating_duration_since(towline_engine::Instant::default());
                tokio::select! {
                    biased;
                    () = rescheduled => {}
                    () = sleep_until(inner.start + since) => {
                        let mut state = inner.lock();
                        state.core.handle_timeout(inner.now());
                        inner.perform(&mut state);
                    }
                }
            }
        }
    }
}

/// Accepts connections until the hub drains. Each is a visitor until it has shown who it is.
async fn accept_connections(inner: Arc<Inner>, mut listener: Box<dyn Listener>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = inner.accepting.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => welcome(&inner, Newcomer::Tcp(socket), address).await,
            Err(error) => {
                // Most likely there is no descriptor left: let go of the visitor who has waited longest.
                tracing::warn!(%error, "cannot accept a connection");
                inner.lobby.evict();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Gives a connection a place in the lobby, and a task. While there is no place, those behind it are in the queue of the
/// system, or of QUIC.
async fn welcome(inner: &Arc<Inner>, newcomer: Newcomer, address: SocketAddr) {
    if let Some(place) = inner.accepting.run_until_cancelled(inner.lobby.take()).await {
        inner.spawn(receive(inner.clone(), newcomer, address, place));
    }
}

/// Somebody who has shown who they are and said hello.
struct Admitted {
    registered: Registered,
    link: Link,
    control: (SendStream, RecvStream),
    dismissed: oneshot::Receiver<Refusal>,
}

/// A link that is registered until this is dropped.
struct Registered {
    inner: Arc<Inner>,
    id: LinkId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.links.remove(&self.id);
        state.core.handle_link_closed(self.inner.now(), self.id);
        self.inner.perform(&mut state);
    }
}

/// What comes to the hub's port.
enum Newcomer {
    Tcp(Box<dyn Socket>),
    Quic(Box<quic::Incoming>),
}

/// A connection, from its first byte to its last.
async fn receive(inner: Arc<Inner>, newcomer: Newcomer, address: SocketAddr, place: Place) {
    let admitted = place.visit(admit(&inner, newcomer, address)).await;
    match admitted {
        // In a task of its own: what a handshake needs is not kept for as long as the link lives.
        Some(Some(admitted)) => {
            place.pass();
            inner.spawn(serve(inner.clone(), admitted));
        }
        Some(None) => {}
        None => tracing::debug!(%address, "dropped for a newer connection"),
    }
}

/// Shakes hands: TLS, then the hello, both under one deadline. `None` if that came to nothing; why is in the log.
async fn admit(inner: &Arc<Inner>, newcomer: Newcomer, address: SocketAddr) -> Option<Admitted> {
    let deadline = Instant::now() + inner.limits.handshake;
    let limits = |peer: Option<&Identity>| {
        hub_link_config(inner.limits.tunnels_per_device, peer.map(|identity| identity.role))
    };
    let entry = async {
        match newcomer {
            Newcomer::Tcp(socket) => inner.door.enter(socket, limits).await,
            Newcomer::Quic(incoming) => door::enter_quic(*incoming, limits).await,
        }
    };
    let Arrival { link, identity, way } = match timeout_at(deadline, entry).await {
        Ok(Ok(arrival)) => arrival,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "no handshake");
            return None;
        }
        Err(_) => {
            tracing::debug!(%address, "no handshake in time");
            return None;
        }
    };
    tracing::debug!(%address, ?way, "shook hands");
    let Ok(admitted) = timeout_at(deadline, hear_hello(inner, &link, identity, address)).await else {
        tracing::debug!(%address, "no hello in time");
        link.close(codes::NO_HELLO, "");
        return None;
    };
    admitted
}

/// Hears the hello, and answers it.
async fn hear_hello(
    inner: &Arc<Inner>,
    link: &Link,
    identity: Option<Result<Identity, BadIdentity>>,
    address: SocketAddr,
) -> Option<Admitted> {
    let (mut send, mut recv) = link.accept_bi().await.ok()?;
    let outcome = match (identity, message::read(&mut recv).await) {
        (Some(Ok(identity)), Ok(Request::Hello(hello))) => {
            tracing::debug!(%address, %identity, agent = %hello.agent.escape_debug(), "hello");
            register(inner, link, identity, address, hello)
        }
        (Some(Err(bad)), Ok(_)) => Err(Refusal::new(RefusalCode::Forbidden, bad.to_string())),
        (_, Ok(_)) => Err(Refusal::new(RefusalCode::BadRequest, "the first request on a link is a hello")),
        (_, Err(MessageError::Closed(closed))) => {
            tracing::debug!(%address, %closed, "no hello");
            return None;
        }
        (_, Err(error)) => Err(Refusal::new(RefusalCode::BadRequest, error.to_string())),
    };
    match outcome {
        Ok((registered, dismissed)) => {
            message::write(&mut send, &Answer::Accepted(Accepted::default())).await.ok()?;
            Some(Admitted { registered, link: link.clone(), control: (send, recv), dismissed })
        }
        Err(refusal) => {
            tracing::info!(%address, %refusal, "refused");
            let _ = message::write(&mut send, &Answer::Refused(refusal)).await;
            let _ = send.finish();
            link.close(codes::REFUSED, "");
            link.closed().await;
            None
        }
    }
}

/// Registers a link that said hello.
fn register(
    inner: &Arc<Inner>,
    link: &Link,
    identity: Identity,
    address: SocketAddr,
    hello: message::Hello,
) -> Result<(Registered, oneshot::Receiver<Refusal>), Refusal> {
    if identity.trust_domain != inner.identity.trust_domain {
        let text =
            format!("{identity} is of another trust domain; this hub is of {}", inner.identity.trust_domain);
        return Err(Refusal::new(RefusalCode::Forbidden, text));
    }
    let mut state = inner.lock();
    let id = LinkId(state.next_link);
    state.next_link += 1;
    let (role, name) = (identity.role, identity.name.clone());
    state.core.handle_hello(inner.now(), id, identity, address.to_string(), hello)?;
    let (dismiss, dismissed) = oneshot::channel();
    let replaced = CancellationToken::new();
    state.links.insert(id, Peer { link: link.clone(), dismiss: Some(dismiss), replaced });
    inner.perform(&mut state);
    tracing::info!(link = id.0, %role, %name, %address, "online");
    Ok((Registered { inner: inner.clone(), id }, dismissed))
}

/// Serves a link until it is over. One that was dismissed is served on: who asks too late is told so.
async fn serve(inner: Arc<Inner>, admitted: Admitted) {
    let Admitted { registered, link, control: (send, _recv), dismissed } = admitted;
    let id = registered.id;
    let dismissal = async {
        if let Ok(refusal) = dismissed.await {
            tracing::info!(link = id.0, %refusal, "dismissed");
            Box::pin(dismiss(&link, send, refusal)).await;
        }
        std::future::pending::<()>().await;
    };
    let requests = async {
        while let Ok((send, recv)) = link.accept_bi().await {
            inner.spawn(requests::serve_request(inner.clone(), id, send, recv));
        }
    };
    tokio::select! {
        biased;
        () = dismissal => {}
        () = requests => {}
    }
    let closed = Box::pin(link.closed()).await;
    tracing::info!(link = id.0, %closed, "offline");
}

/// Says goodbye on a link, and closes it unless it may live on for its tunnels.
async fn dismiss(link: &Link, mut control: SendStream, refusal: Refusal) {
    // Live tunnels go on while the hub drains; a device that was replaced has lost them anyway.
    let stays = refusal.code == RefusalCode::HubDraining;
    // Who takes no goodbye goes without one.
    let _ = timeout(GOODBYE_DEADLINE, message::write(&mut control, &Goodbye { refusal })).await;
    let _ = control.finish();
    if !stays {
        link.close(codes::DISMISSED, "");
    }
}
