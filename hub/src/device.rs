//! The device's side: it registers with a hub, and decides about each tunnel that is offered to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use towline_transports::{LinkClosed, RecvStream, SendStream, WeakLink};

use crate::codes;
use crate::core::{Backoff, Pace};
use crate::end_to_end::serve::{Owned, Serving};
use crate::endpoint::{ConnectError, Connected, Endpoint, EndpointConfig, SetupError};
use crate::environment::Environment;
use crate::identity::{Identity, Name, Role};
use crate::message::{self, Accepted, Answer, MessageError, Profile};
use crate::refusal::{Refusal, RefusalCode};
use crate::tunnel::Tunnel;

/// How many offers wait for [`Device::next_offer`]; further ones wait in the link.
const OFFERS: usize = 64;

/// How long sessions have to hear that the device is being stopped.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long the message that begins an offer may take.
const OFFER_DEADLINE: Duration = Duration::from_secs(10);

/// A device that is, or tries to be, registered with its hubs.
///
/// A task of its own keeps the link to each: it connects again when the link is lost, after a wait that grows and honours
/// what the hub says. A link to a hub that drains lives on for its tunnels meanwhile. Dropping the device closes all, sessions
/// included, and waits for none; [`close`](Self::close) does so in good order.
#[derive(Debug)]
pub struct Device {
    identity: Identity,
    offers: mpsc::Receiver<Offer>,
    status: watch::Receiver<Status>,
    links: TaskTracker,
    sessions: Owned,
    /// Ends the tasks when this is dropped.
    unwanted: DropGuard,
}

/// How it stands between a device and its hubs. With several, it is as the one says with which it stands best.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// It is connecting.
    Connecting,
    /// It is registered: services can reach it.
    Online,
    /// It tries again after a wait.
    Waiting {
        /// Why it is not registered.
        why: String,
        /// How long the wait is.
        wait: Duration,
    },
}

impl Device {
    /// Registers with the hub, and stays registered. Must be called on a tokio runtime. Returns at once;
    /// [`status`](Self::status) tells how it goes.
    ///
    /// # Errors
    ///
    /// The configuration does not do. That the hub cannot be reached is no error: it may be there later.
    pub fn register(config: EndpointConfig, environment: Environment) -> Result<Self, SetupError> {
        Self::register_with([config], environment)
    }

    /// As [`register`](Self::register), with several hubs: services can reach it through each of them.
    ///
    /// # Errors
    ///
    /// A configuration does not do, or there is none.
    pub fn register_with(
        configs: impl IntoIterator<Item = EndpointConfig>,
        environment: Environment,
    ) -> Result<Self, SetupError> {
        let endpoint = |config| Endpoint::new(config, Role::Device, environment.clone());
        let endpoints = configs.into_iter().map(endpoint).collect::<Result<Vec<_>, SetupError>>()?;
        let first = endpoints.first().ok_or(SetupError::NoHub)?;
        let identity = first.identity.clone();
        let sessions = Owned(Serving::new(first.credentials.clone(), &environment.tls)?);
        let (offer, offers) = mpsc::channel(OFFERS);
        let (publish, status) = watch::channel(Status::Connecting);
        let board = Board::new(endpoints.len(), publish);
        let (links, unwanted) = (TaskTracker::new(), CancellationToken::new());
        for (number, endpoint) in endpoints.into_iter().enumerate() {
            let place = Place { number, board: board.clone() };
            links.spawn(run(endpoint, offer.clone(), place, unwanted.clone()));
        }
        links.close();
        Ok(Self { identity, offers, status, links, sessions, unwanted: unwanted.drop_guard() })
    }

    /// Keeps sessions end to end for so long without a way to the service, if that does not want less; 60 s unless this is
    /// called. Those that there are stay as they are.
    pub fn keep_sessions_for(&mut self, grace: Duration) {
        self.sessions.0.keep_for(grace);
    }

    /// Who this device is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The next tunnel that a service wants to open. Cancel-safe.
    pub async fn next_offer(&mut self) -> Offer {
        self.offers.recv().await.expect("the task holds the sender as long as this device is there")
    }

    /// The sessions that services have with this device.
    pub(crate) fn sessions(&self) -> &Serving {
        &self.sessions.0
    }

    /// Ends the sessions, unregisters, and waits until the links are closed. Tunnels over it end.
    pub async fn close(self) {
        // While there are tunnels to say so in.
        let _ = timeout(FAREWELL, self.sessions.0.close()).await;
        drop(self.unwanted);
        self.links.wait().await;
    }

    /// How it stands, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

/// A tunnel that a service wants to open. Dropping it rejects it.
#[derive(Debug)]
pub struct Offer {
    /// The tunnel's number at the hub.
    pub tunnel: u64,
    /// Which service is asked for.
    pub service: Name,
    /// Who asks, as the hub says.
    pub from: Identity,
    /// How the tunnel ends.
    pub profile: Profile,
    /// When the service gives up waiting for an answer.
    pub answer_by: Instant,
    send: SendStream,
    recv: RecvStream,
}

impl Offer {
    /// Accepts the tunnel.
    ///
    /// # Errors
    ///
    /// The service or the hub does not want it any more, or the link is lost.
    pub async fn accept(self) -> Result<Tunnel, MessageError> {
        let Self { tunnel, profile, mut send, recv, .. } = self;
        send.set_urgency(Pace::FIRST);
        let accepted = Accepted { tunnel: Some(tunnel) };
        message::write(&mut send, &Answer::Accepted(accepted)).await?;
        Ok(Tunnel::new(Some(tunnel), profile, send, recv))
    }

    /// Rejects the tunnel; the service reads `reason`.
    pub async fn reject(self, reason: &str) {
        self.refuse(Refusal::new(RefusalCode::Rejected, reason)).await;
    }

    /// Refuses the tunnel for a reason that has a code of its own, such as a target that refuses.
    pub async fn refuse(mut self, refusal: Refusal) {
        // If it cannot be said, the hub learns it from the stream that is dropped.
        if message::write(&mut self.send, &Answer::Refused(refusal)).await.is_ok() {
            let _ = self.send.finish();
        }
        self.recv.stop(codes::REFUSED);
    }
}

/// How it stands with each hub, and with the best of them for those who look on.
#[derive(Debug)]
struct Board {
    each: Mutex<Vec<Status>>,
    publish: watch::Sender<Status>,
}

/// A hub's place on the board.
#[derive(Debug)]
struct Place {
    number: usize,
    board: Arc<Board>,
}

impl Board {
    fn new(hubs: usize, publish: watch::Sender<Status>) -> Arc<Self> {
        Arc::new(Self { each: Mutex::new(vec![Status::Connecting; hubs]), publish })
    }
}

impl Place {
    fn write(&self, status: Status) {
        let mut each = self.board.each.lock().expect("nothing panics while it holds the lock");
        each[self.number] = status;
        let rank = |status: &&Status| match status {
            Status::Online => 0,
            Status::Connecting => 1,
            Status::Waiting { .. } => 2,
        };
        let Some(best) = each.iter().min_by_key(rank) else { return };
        // Who looks on is woken only if there is news: with another hub it may stand badly, again and again.
        self.board.publish.send_if_modified(|shown| {
            let is_news = !matches!((&*shown, best), (Status::Online, Status::Online));
            shown.clone_from(best);
            is_news
        });
    }
}

/// Stays registered with a hub until the device is not wanted, and all links to it are closed.
async fn run(endpoint: Endpoint, offers: mpsc::Sender<Offer>, place: Place, unwanted: CancellationToken) {
    let links = TaskTracker::new();
    stay_registered(endpoint, offers, place, &unwanted, &links).await;
    links.close();
    links.wait().await;
}

/// Connects to the hub for as long as the device is wanted. `links` are those that live on for their tunnels only.
async fn stay_registered(
    endpoint: Endpoint,
    offers: mpsc::Sender<Offer>,
    place: Place,
    unwanted: &CancellationToken,
    links: &TaskTracker,
) {
    let mut backoff = Backoff::default();
    loop {
        place.write(Status::Connecting);
        let Some(connection) = unwanted.run_until_cancelled(endpoint.connect()).await else { return };
        let (why, wait) = match connection {
            Ok(connected) => {
                place.write(Status::Online);
                tracing::info!(hub = endpoint.hub(), "online");
                let since = Instant::now();
                let goodbye = serve(connected, &offers, unwanted, links).await;
                if unwanted.is_cancelled() {
                    return;
                }
                backoff.connected_for(since.elapsed());
                let random = endpoint.environment.random();
                match goodbye {
                    Ok(refusal) => (refusal.to_string(), wait_after(&refusal, &mut backoff, random)),
                    // The hub has done nothing to be spared for, and there are other ways.
                    Err(closed @ LinkClosed::Dark) => (closed.to_string(), Duration::ZERO),
                    Err(closed) => (closed.to_string(), backoff.next(random)),
                }
            }
            Err(ConnectError::Refused(refusal)) => {
                let wait = wait_after(&refusal, &mut backoff, endpoint.environment.random());
                (refusal.to_string(), wait)
            }
            Err(error) => (error.to_string(), backoff.next(endpoint.environment.random())),
        };
        tracing::info!(hub = endpoint.hub(), %why, ?wait, "not registered; trying again after a wait");
        place.write(Status::Waiting { why, wait });
        if unwanted.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// How long to stay away after the hub said why.
fn wait_after(refusal: &Refusal, backoff: &mut Backoff, random: u64) -> Duration {
    let hint = refusal.retry_after_ms.map(Duration::from_millis);
    match (refusal.code, hint) {
        (RefusalCode::Superseded, Some(hint)) if !hint.is_zero() => backoff.next_superseded(hint, random),
        (_, Some(hint)) => backoff.next_with_hint(hint, random),
        (_, None) => backoff.next(random),
    }
}

/// Receives offers until the hub says goodbye or the device is not wanted any more. Returns what the hub said. Then the
/// link is closed; but if the hub drains, it lives on for its tunnels.
///
/// # Errors
///
/// The link ended without a goodbye.
async fn serve(
    mut connected: Connected,
    offers: &mpsc::Sender<Offer>,
    unwanted: &CancellationToken,
    links: &TaskTracker,
) -> Result<Refusal, LinkClosed> {
    let link = connected.link.clone();
    let receive = async {
        while let Ok((send, recv)) = link.accept_bi().await {
            let offers = offers.clone();
            // In a task of its own: one that trickles in must not hold up the others.
            tokio::spawn(async move {
                match timeout(OFFER_DEADLINE, receive_offer(send, recv)).await {
                    Ok(Some(offer)) => _ = offers.send(offer).await,
                    Ok(None) | Err(_) => tracing::warn!("the hub sent an offer that makes no sense"),
                }
            });
        }
        std::future::pending::<()>().await;
    };
    let goodbye = tokio::select! {
        biased;
        goodbye = connected.goodbye() => Some(goodbye?),
        () = unwanted.cancelled() => None,
        () = receive => None,
    };
    match goodbye {
        Some(refusal) if refusal.code == RefusalCode::HubDraining => {
            links.spawn(live_on(link.downgrade(), unwanted.clone()));
            Ok(refusal)
        }
        goodbye => {
            // Whoever still holds a tunnel over it.
            link.close(codes::NONE, "");
            let closed = link.closed().await;
            goodbye.ok_or(closed)
        }
    }
}

/// A link that nothing holds but its tunnels: it ends with the last of them, or with the device.
async fn live_on(link: WeakLink, unwanted: CancellationToken) {
    tokio::select! {
        biased;
        _ = link.closed() => return,
        () = unwanted.cancelled() => link.close(codes::NONE, ""),
    }
    link.closed().await;
}

async fn receive_offer(mut send: SendStream, mut recv: RecvStream) -> Option<Offer> {
    let offer: Result<message::Offer, _> = message::read(&mut recv).await;
    let parsed = offer.ok().and_then(|message::Offer { tunnel, service, from, profile, deadline_ms }| {
        let answer_by = Instant::now() + Duration::from_millis(deadline_ms.into());
        Some((tunnel, service.parse().ok()?, from.parse().ok()?, profile, answer_by))
    });
    let Some((tunnel, service, from, profile, answer_by)) = parsed else {
        send.reset(codes::BAD_MESSAGE);
        recv.stop(codes::BAD_MESSAGE);
        return None;
    };
    Some(Offer { tunnel, service, from, profile, answer_by, send, recv })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn waiting(why: &str) -> Status {
        Status::Waiting { why: why.to_owned(), wait: Duration::from_secs(1) }
    }

    /// What is shown, if it is news.
    fn news(status: &mut watch::Receiver<Status>) -> Option<String> {
        let has_changed = status.has_changed().unwrap();
        let shown = status.borrow_and_update().clone();
        has_changed.then(|| match shown {
            Status::Waiting { why, .. } => why,
            other => format!("{other:?}"),
        })
    }

    /// A device can be reached as soon as one of its hubs has it.
    #[test]
    fn the_board_shows_the_hub_with_which_it_stands_best() {
        let (publish, mut status) = watch::channel(Status::Connecting);
        let board = Board::new(2, publish);
        let [first, second] = [0, 1].map(|number| Place { number, board: board.clone() });
        first.write(waiting("the first is down"));
        assert_eq!(news(&mut status).as_deref(), Some("Connecting"), "the second may do yet");
        second.write(waiting("the second is down"));
        assert_eq!(news(&mut status).as_deref(), Some("the first is down"));
        second.write(Status::Online);
        assert_eq!(news(&mut status).as_deref(), Some("Online"));
        for status in [Status::Connecting, waiting("the first is down")] {
            first.write(status);
        }
        assert_eq!(news(&mut status), None, "that is no news");
        second.write(waiting("the second has gone"));
        first.write(Status::Connecting);
        assert_eq!(news(&mut status).as_deref(), Some("Connecting"));
    }
}
