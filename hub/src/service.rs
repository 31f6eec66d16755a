//! The service's side: it opens tunnels to devices, by their ID.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use towline_transports::tls::Credentials;
use towline_transports::{Link, RecvStream, SendStream};

use crate::codes;
use crate::core::Pace;
use crate::endpoint::{Connected, Endpoint, EndpointConfig, SetupError};
use crate::environment::Environment;
use crate::identity::{BadName, Identity, Name, Role};
use crate::message::{self, Answer, DeviceStatus, List, MessageError, Open, Profile, Request};
use crate::on_demand::OnDemand;
use crate::opening::Opening;
use crate::refusal::{Refusal, RefusalCode};
use crate::tunnel::Tunnel;
use crate::unopened::{OpenError, Refusals, Unopened};

/// How long a hub may take before another one is tried as well, and a device to say its first word through one.
pub(crate) const HEAD_START: Duration = Duration::from_secs(1);

/// An endpoint that opens tunnels. Cloning it gives another handle to the same links.
///
/// It connects when it is first used, and again when the link was lost, or the hub said goodbye, in between. Tunnels over
/// a link to a hub that drains go on meanwhile. If it knows several hubs, it tries them in turn, beginning with the one
/// that did last.
#[derive(Clone, Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hubs: Vec<Arc<HubLink>>,
    /// Which of them did last.
    preferred: AtomicUsize,
    /// Tells sessions that a hub has said goodbye: time to move. Not a `watch`, which wakes who waits in no order that comes again.
    goodbyes: broadcast::Sender<()>,
}

/// A hub, and the link to it if there is one.
#[derive(Debug)]
struct HubLink {
    endpoint: Endpoint,
    link: OnDemand<Arc<Kept>, OpenError>,
}

/// A link to a hub.
#[derive(Debug)]
pub(crate) struct Kept {
    link: Link,
    /// When it was made.
    since: Instant,
    /// The hub has said goodbye.
    is_leaving: Arc<AtomicBool>,
    /// Ends the task that listens for the goodbye, and has the stream that must stay open with the link.
    _listening: DropGuard,
}

impl Kept {
    /// The round-trip time to the hub, or nothing while it was not measured.
    pub(crate) fn rtt(&self) -> Duration {
        self.link.rtt().unwrap_or_default()
    }

    /// Whether streams may be opened on it: it is not over, and the hub has not said goodbye.
    fn is_open(&self) -> bool {
        !self.is_leaving.load(Ordering::Acquire) && !self.link.is_closed()
    }
}

/// How to open a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// How it ends. Default: native, each direction by itself.
    pub profile: Profile,
    /// How long it may take, at most 60 s. Default: 30 s.
    pub deadline: Duration,
    /// How long to wait for the device before that, if it is away; at most 10 min. Default: not at all.
    pub wait: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { profile: Profile::Native, deadline: Duration::from_secs(30), wait: Duration::ZERO }
    }
}

impl Service {
    /// An endpoint that is not connected yet. Must be used on a tokio runtime.
    ///
    /// # Errors
    ///
    /// The configuration does not do.
    pub fn new(config: EndpointConfig, environment: Environment) -> Result<Self, SetupError> {
        Self::of_hubs([config], environment)
    }

    /// As [`new`](Self::new), with several hubs, of which any will do.
    ///
    /// # Errors
    ///
    /// A configuration does not do, or there is none.
    pub fn of_hubs(
        configs: impl IntoIterator<Item = EndpointConfig>,
        environment: Environment,
    ) -> Result<Self, SetupError> {
        let hub = |config| {
            let endpoint = Endpoint::new(config, Role::Service, environment.clone())?;
            Ok(Arc::new(HubLink { endpoint, link: OnDemand::default() }))
        };
        let hubs = configs.into_iter().map(hub).collect::<Result<Vec<_>, SetupError>>()?;
        if hubs.is_empty() {
            return Err(SetupError::NoHub);
        }
        let (preferred, goodbyes) = (AtomicUsize::new(0), broadcast::Sender::new(1));
        Ok(Self { inner: Arc::new(Inner { hubs, preferred, goodbyes }) })
    }

    /// Who this service endpoint is.
    pub fn identity(&self) -> &Identity {
        &self.endpoint().identity
    }

    /// Who this end is to the devices, and what it is made of.
    pub(crate) fn at_the_ends(&self) -> (&Credentials, &Environment) {
        (&self.endpoint().credentials, &self.endpoint().environment)
    }

    fn endpoint(&self) -> &Endpoint {
        &self.inner.hubs[0].endpoint
    }

    /// The goodbyes of hubs from now on.
    pub(crate) fn goodbyes(&self) -> broadcast::Receiver<()> {
        self.inner.goodbyes.subscribe()
    }

    /// Opens a tunnel to `service` of `device`.
    ///
    /// # Errors
    ///
    /// Why there is none: one exact outcome.
    pub async fn open(&self, device: &str, service: &str) -> Result<Tunnel, OpenError> {
        self.begin(device, service, OpenOptions::default()).await?.answered().await
    }

    /// Begins to open a tunnel, without waiting for the answer: what is written to it may follow at once. Of several hubs,
    /// it waits for the answer of one that does.
    ///
    /// # Errors
    ///
    /// The names are none, or the hub cannot be reached. Of several hubs, what the one says that got furthest.
    pub async fn begin(
        &self,
        device: &str,
        service: &str,
        options: OpenOptions,
    ) -> Result<Opening, OpenError> {
        let begun = self.begin_saying(device, service, options, None, || Ok((Vec::new(), ()))).await?;
        Ok(begun.opening)
    }

    /// As [`begin`](Self::begin), for a session, which would try again, and may be in doubt about the link that it has: the others
    /// may be as dead as that one, so only those do that are `newer_than` the doubt. Of each tunnel that is asked for `first`
    /// makes the first words, which follow the request at once, and the speaker who goes on with them.
    pub(crate) async fn begin_saying<T>(
        &self,
        device: &str,
        service: &str,
        options: OpenOptions,
        newer_than: Option<Instant>,
        first: impl Fn() -> Result<(Vec<u8>, T), OpenError>,
    ) -> Result<Saying<T>, Unopened> {
        // The hub would say the same, if the names are not too long for a message.
        for name in [device, service] {
            let bad = |bad: BadName| Refusal::new(RefusalCode::BadRequest, bad.to_string());
            name.parse::<Name>().map_err(bad).map_err(OpenError::from)?;
        }
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let open = Open {
            device: device.to_owned(),
            service: service.to_owned(),
            profile: options.profile,
            deadline_ms: millis(options.deadline),
            wait_ms: Some(millis(options.wait)).filter(|wait| *wait > 0),
        };
        let request = Request::Open(open);
        let begin_at = async |hub| {
            let Asked { over, send, recv } = self.ask(hub, &request, newer_than).await?;
            let mut opening = Opening::new(options, send, recv);
            let (words, speaker) = first()?;
            // If nobody wants to hear them, the answer says why.
            let _ = timeout(options.deadline, opening.send.write_all(&words)).await;
            Ok::<_, OpenError>(Saying { opening, over, speaker })
        };
        if let [hub] = &self.inner.hubs[..] {
            return Ok(begin_at(hub).await?);
        }
        self.try_hubs(|hub| async {
            let Saying { opening, over, speaker } = begin_at(hub).await?;
            Ok(Saying { opening: opening.with_answer().await?, over, speaker })
        })
        .await
    }

    /// The devices that a hub knows, in the order of their IDs.
    ///
    /// # Errors
    ///
    /// The hub cannot be reached, or refuses.
    pub async fn devices(&self) -> Result<Vec<DeviceStatus>, OpenError> {
        Ok(self.try_hubs(|hub| self.devices_of(hub)).await?)
    }

    async fn devices_of(&self, hub: &Arc<HubLink>) -> Result<Vec<DeviceStatus>, OpenError> {
        let Asked { send: _send, mut recv, .. } = self.ask(hub, &Request::List(List {}), None).await?;
        match message::read(&mut recv).await? {
            Answer::Refused(refusal) => return Err(refusal.into()),
            Answer::Accepted(_) => {}
        }
        let mut devices = Vec::new();
        while let Some(device) = message::next(&mut recv).await? {
            devices.push(device);
        }
        Ok(devices)
    }

    /// Closes the links, once everything has gone out. An older one, to a hub that drains, lives on for its tunnels.
    pub async fn close(&self) {
        join_all(self.inner.hubs.iter().map(async |hub| {
            if let Some(kept) = hub.link.take() {
                kept.link.close(codes::NONE, "");
                kept.link.closed().await;
            }
        }))
        .await;
    }

    /// Tries the hubs in turn, beginning with the one that did last: the next one as soon as one does not do, or has taken
    /// [`HEAD_START`]. The first one that does is the one to begin with from then on.
    async fn try_hubs<'a, T, F>(&'a self, attempt: impl Fn(&'a Arc<HubLink>) -> F) -> Result<T, Unopened>
    where
        F: Future<Output = Result<T, OpenError>>,
    {
        let Inner { hubs, preferred, .. } = &*self.inner;
        let first = preferred.load(Ordering::Relaxed);
        let mut untried = (first..hubs.len()).chain(0..first);
        let mut attempts = FuturesUnordered::new();
        let mut refusals = Refusals::default();
        loop {
            let next = untried.next();
            if let Some(hub) = next {
                attempts.push(attempt(&hubs[hub]).map(move |outcome| (hub, outcome)));
            }
            let outcome = tokio::select! {
                biased;
                outcome = attempts.next() => outcome,
                () = sleep(HEAD_START), if next.is_some() => continue,
            };
            let Some((hub, outcome)) = outcome else {
                return Err(refusals.outcome().expect("there is a hub, and it was tried"));
            };
            if outcome.is_ok() {
                preferred.store(hub, Ordering::Relaxed);
            }
            if let Some(settled) = refusals.settle(outcome) {
                return settled;
            }
        }
    }

    pub(crate) fn knows_several_hubs(&self) -> bool {
        self.inner.hubs.len() > 1
    }

    /// Has the hub of this link tried last from now on.
    pub(crate) fn prefer_another_than(&self, over: &Arc<Kept>) {
        let Inner { hubs, preferred, .. } = &*self.inner;
        let first = preferred.load(Ordering::Relaxed);
        if hubs[first].link.is(|kept| Arc::ptr_eq(kept, over)) {
            preferred.store((first + 1) % hubs.len(), Ordering::Relaxed);
        }
    }

    /// Opens a stream to a hub and writes `request` on it, over a link that is `newer_than` this, if that matters.
    async fn ask(
        &self,
        hub: &Arc<HubLink>,
        request: &Request,
        newer_than: Option<Instant>,
    ) -> Result<Asked, OpenError> {
        let over = self.link(hub, None, newer_than).await?;
        if let Ok(asked) = ask_on(&over, request).await {
            return Ok(asked);
        }
        // One that was kept may turn out to be lost; a new one that is lost at once is bad news.
        let over = self.link(hub, Some(&over), newer_than).await?;
        Ok(ask_on(&over, request).await?)
    }

    /// The link to a hub that is kept, unless that is `lost` or not `newer_than` it has to be, or a new one. Those who come while
    /// it is made share it.
    async fn link(
        &self,
        hub: &Arc<HubLink>,
        lost: Option<&Arc<Kept>>,
        newer_than: Option<Instant>,
    ) -> Result<Arc<Kept>, OpenError> {
        let is_lost = |kept: &Arc<Kept>| lost.is_some_and(|lost| Arc::ptr_eq(kept, lost));
        let is_too_old = |kept: &Arc<Kept>| newer_than.is_some_and(|then| kept.since <= then);
        let does = |kept: &Arc<Kept>| kept.is_open() && !is_lost(kept) && !is_too_old(kept);
        let (to, goodbyes) = (hub.clone(), self.inner.goodbyes.clone());
        hub.link.get(does, || connect(to, goodbyes)).await.map_err(OpenError::shared)
    }
}

/// Makes a link to a hub, and listens for its goodbye. The link lives on while there are tunnels over it.
async fn connect(hub: Arc<HubLink>, goodbyes: broadcast::Sender<()>) -> Result<Arc<Kept>, OpenError> {
    let connected = hub.endpoint.connect().await?;
    let link = connected.link.clone();
    let (is_leaving, unwanted) = (Arc::<AtomicBool>::default(), CancellationToken::new());
    let listening = listen_for_goodbye(Arc::downgrade(&hub), connected, is_leaving.clone(), goodbyes);
    tokio::spawn(unwanted.clone().run_until_cancelled_owned(listening));
    Ok(Arc::new(Kept { link, since: Instant::now(), is_leaving, _listening: unwanted.drop_guard() }))
}

/// A tunnel that was asked for, in which the first words are said, and over which link.
pub(crate) struct Saying<T> {
    pub(crate) opening: Opening,
    pub(crate) over: Arc<Kept>,
    /// Who goes on with what was said.
    pub(crate) speaker: T,
}

/// A stream with a request on it.
struct Asked {
    over: Arc<Kept>,
    send: SendStream,
    recv: RecvStream,
}

/// Opens a stream and writes `request` on it.
async fn ask_on(over: &Arc<Kept>, request: &Request) -> Result<Asked, MessageError> {
    let (mut send, recv) = over.link.open_bi().await?;
    send.set_urgency(Pace::FIRST);
    message::write(&mut send, request).await?;
    Ok(Asked { over: over.clone(), send, recv })
}

/// Waits until the hub says goodbye, and lets go of the link then: it lives on for its tunnels only, which the hub waits for.
async fn listen_for_goodbye(
    hub: Weak<HubLink>,
    mut connected: Connected,
    is_leaving: Arc<AtomicBool>,
    goodbyes: broadcast::Sender<()>,
) {
    if connected.goodbye().await.is_ok() {
        is_leaving.store(true, Ordering::Release);
        // There may be nobody who has to move.
        let _ = goodbyes.send(());
        if let Some(hub) = hub.upgrade() {
            hub.link.take_if(|kept| Arc::ptr_eq(&kept.is_leaving, &is_leaving));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;
    use crate::authority::Authority;
    use crate::dial::Transport;
    use crate::endpoint::Route;

    /// A service endpoint called `ops`, and where its hub is. It tries TLS only.
    pub(crate) fn endpoint(hub: &str, environment: &Environment) -> EndpointConfig {
        let now = environment.tls.time.current_time().unwrap();
        let authority = Authority::new(now).unwrap().0;
        let identity = "spiffe://test/service/ops".parse().unwrap();
        let issued = authority.issue(&identity, &[], now, Duration::from_secs(3600)).unwrap();
        let credentials = authority.credentials(&issued).unwrap();
        let route = Route { transport: Some(Transport::Tls), ..Route::default() };
        EndpointConfig { hub: hub.to_owned(), credentials, route }
    }

    /// What a hub of a test does: after how many milliseconds it says what.
    type Says = (u64, Result<u8, RefusalCode>);

    /// A service with as many hubs, and what became of it when each was asked.
    struct Hubs {
        service: Service,
        asked: Mutex<Vec<usize>>,
    }

    impl Hubs {
        fn new(count: usize) -> Self {
            let environment = Environment::system();
            let configs = (0..count).map(|number| endpoint(&format!("192.0.2.{number}:443"), &environment));
            let service = Service::of_hubs(configs, environment.clone()).unwrap();
            Self { service, asked: Mutex::default() }
        }

        /// The outcome, after how many milliseconds, and who was asked.
        async fn ask(&self, says: &[Says]) -> (Result<u8, RefusalCode>, u128, Vec<usize>) {
            let start = Instant::now();
            let outcome = self.service.try_hubs(|hub| async {
                let (number, _) = hub.endpoint.hub()["192.0.2.".len()..].split_once(':').unwrap();
                let number: usize = number.parse().unwrap();
                self.asked.lock().unwrap().push(number);
                let (after, what) = says[number];
                sleep(Duration::from_millis(after)).await;
                what.map_err(|code| Refusal::new(code, "").into())
            });
            let outcome = outcome.await.map_err(|unopened| match unopened.error {
                OpenError::Refused(refusal) => refusal.code,
                other => panic!("{other}"),
            });
            (outcome, start.elapsed().as_millis(), std::mem::take(&mut self.asked.lock().unwrap()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hub_is_asked_when_one_fails_or_has_had_its_head_start() {
        use RefusalCode::{DeviceOffline, DeviceUnknown, TargetRefused};
        let hubs = Hubs::new(3);
        // The clock stands still while anybody works.
        let slow = [(5000, Ok(0)), (300, Ok(1)), (0, Ok(2))];
        assert_eq!(hubs.ask(&slow).await, (Ok(1), 1300, vec![0, 1]));
        // The one that did is asked first from now on, and alone if it does.
        assert_eq!(hubs.ask(&slow).await, (Ok(1), 300, vec![1]));
        let fails = [(0, Ok(0)), (10, Err(DeviceOffline)), (20, Err(DeviceUnknown))];
        assert_eq!(hubs.ask(&fails).await, (Ok(0), 30, vec![1, 2, 0]), "at once when one fails");
        // One that was slow may still be the one that does.
        let late = [(2500, Ok(0)), (5000, Ok(1)), (5000, Ok(2))];
        assert_eq!(hubs.ask(&late).await, (Ok(0), 2500, vec![0, 1, 2]));
        let none = [(0, Err(DeviceUnknown)), (0, Err(DeviceOffline)), (0, Err(DeviceUnknown))];
        assert_eq!(hubs.ask(&none).await, (Err(DeviceOffline), 0, vec![0, 1, 2]), "the one that knows most");
        let device = [(5000, Ok(0)), (100, Err(TargetRefused)), (0, Ok(2))];
        assert_eq!(hubs.ask(&device).await, (Err(TargetRefused), 1100, vec![0, 1]), "no other knows better");
    }
}
