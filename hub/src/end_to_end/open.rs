//! The service's side: a session with a device, and the tunnels that carry it one after the other.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use rustls::ClientConfig;
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use towline_transports::tls::{self, Begun, TlsPipe};
use towline_transports::{
    Code, Link, LinkClosed, NoWay, Occasion, Reconnect, Resumption, Secret, SessionId, StreamPipe, WeakLink,
    stream_pipe,
};

use super::trust::{self, PeerError};
use super::{HANDSHAKE, config};
use crate::core::{Backoff, Pace};
use crate::environment::Environment;
use crate::identity::{BadName, Identity, Role};
use crate::message::{self, Connect, MessageError, Profile};
use crate::opening::Opening;
use crate::refusal::{Refusal, RefusalCode};
use crate::service::{HEAD_START, Kept, OpenOptions, Saying, Service};
use crate::unopened::{OpenError, Refusals, Unopened};

/// How to have a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// How long each tunnel, and each connection, may take to open. A connection has [`grace`](Self::grace) besides, since it
    /// may begin while there is no tunnel. Default: 30 s.
    pub deadline: Duration,
    /// How long the session is kept while there is no tunnel; the shorter of both ends'. Default: 60 s.
    pub grace: Duration,
    /// How long the first tunnel waits for the device, if it is away; at most 10 min. Default: not at all.
    pub wait: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), grace: Duration::from_secs(60), wait: Duration::ZERO }
    }
}

/// A session with a service of a device, which nobody in between can read, and which outlives its tunnels. Cloning it gives
/// another handle to the same one.
///
/// Many connections share it; one more costs no round trip.
#[derive(Clone, Debug)]
pub struct EndToEnd {
    link: Link,
    deadline: Duration,
}

impl Service {
    /// Has a session with `service` of `device`, once the device has said its first word in it.
    ///
    /// # Errors
    ///
    /// Why there is no tunnel, or that the device is not at the other end of it.
    pub async fn session(
        &self,
        device: &str,
        service: &str,
        options: SessionOptions,
    ) -> Result<EndToEnd, OpenError> {
        let tunnels = Arc::new(Tunnels::new(self, device, service, options)?);
        // One that is said from now on, while the first tunnel opens, counts as well.
        let goodbyes = self.goodbyes();
        let link = tunnels.first(options).await?;
        tokio::spawn(move_in_time(link.downgrade(), goodbyes));
        Ok(EndToEnd { link, deadline: options.deadline.saturating_add(options.grace) })
    }
}

impl EndToEnd {
    /// Opens a connection to the service, without waiting for the answer: what is written to it may follow at once.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn begin(&self) -> Result<Opening, OpenError> {
        let (mut send, recv) = self.link.open_bi().await?;
        // It does not wait for the room that bulk leaves.
        send.set_urgency(Pace::FIRST);
        let connect = message::encode(&Connect {});
        send.write_all(&connect).await.map_err(MessageError::from)?;
        Ok(Opening::of_session(self.clone(), send, recv, connect.len() as u64))
    }

    /// How long a connection may take to open.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Ends it once everything has gone out.
    pub fn close(&self) {
        self.link.close(Code::default(), "");
    }

    /// Waits until it is over.
    pub async fn closed(&self) -> LinkClosed {
        self.link.closed().await
    }
}

/// Where the tunnels of a session come from.
struct Tunnels {
    service: Service,
    device: Identity,
    name: String,
    options: OpenOptions,
    tls: Arc<ClientConfig>,
}

/// A tunnel to the device, and TLS that has said its first words in it.
struct Reached {
    tunnel: StreamPipe,
    tls: Begun,
}

impl Tunnels {
    fn new(service: &Service, device: &str, name: &str, options: SessionOptions) -> Result<Self, OpenError> {
        let bad = |bad: BadName| Refusal::new(RefusalCode::BadRequest, bad.to_string());
        let trust_domain = service.identity().trust_domain.clone();
        let device = Identity { trust_domain, role: Role::Device, name: device.parse().map_err(bad)? };
        let (credentials, environment) = service.at_the_ends();
        let tls = trust::client_config(credentials.clone(), &environment.tls, device.clone());
        // These credentials did for the link already.
        let tls = tls.map_err(|error| Refusal::new(RefusalCode::BadRequest, error.to_string()))?;
        let mut open = OpenOptions::default();
        (open.profile, open.deadline) = (Profile::EndToEnd, options.deadline);
        Ok(Self { service: service.clone(), device, name: name.to_owned(), options: open, tls })
    }

    fn environment(&self) -> &Environment {
        self.service.at_the_ends().1
    }

    /// A tunnel to the device, over a link that is `newer_than` this, if that matters, and TLS with it; and over which link.
    async fn next(&self, wait: Duration, newer_than: Option<Instant>) -> Result<Carried, Unopened> {
        self.begin_through_any(wait, newer_than, |reached, over| self.meet(reached, over).boxed()).await
    }

    /// Opens a tunnel to the device, and has `begin` make something of it.
    ///
    /// A hub may die between its answer and the device's first word, when there is nobody yet who would doubt it. So if the
    /// device is silent for a while, or it comes to nothing, it is asked for through another hub as well.
    async fn begin_through_any<'a, T>(
        &self,
        wait: Duration,
        newer_than: Option<Instant>,
        begin: impl Fn(Reached, Arc<Kept>) -> BoxFuture<'a, Result<T, Unopened>> + Sync,
    ) -> Result<T, Unopened> {
        let until = Instant::now() + wait;
        let (reached, over) = self.open(wait, newer_than).await?;
        // Three times what the device's first word takes: a round trip between the ends, which is some two to the hub.
        let head_start = HEAD_START.max(over.rtt() * 6);
        let mut first = begin(reached, over.clone());
        if !self.service.knows_several_hubs() {
            return first.await;
        }
        let another = async {
            self.service.prefer_another_than(&over);
            let left = until.saturating_duration_since(Instant::now());
            let (reached, over) = self.open(left, newer_than).await?;
            begin(reached, over).await
        };
        let (mut attempts, mut refusals) = (FuturesUnordered::new(), Refusals::default());
        match timeout(head_start, &mut first).await {
            Ok(outcome) => {
                if let Some(settled) = refusals.settle(outcome) {
                    return settled;
                }
            }
            Err(_) => attempts.push(first),
        }
        attempts.push(another.boxed());
        while let Some(outcome) = attempts.next().await {
            if let Some(settled) = refusals.settle(outcome) {
                return settled;
            }
        }
        Err(refusals.outcome().expect("one attempt at least has ended so"))
    }

    /// A tunnel to the device, with TLS as far as it goes meanwhile: its first words follow the request, which saves a round
    /// trip between the ends.
    async fn open(
        &self,
        wait: Duration,
        newer_than: Option<Instant>,
    ) -> Result<(Reached, Arc<Kept>), Unopened> {
        let options = OpenOptions { wait, ..self.options };
        let device = self.device.name.as_str();
        let first = || {
            let mut tls = trust::begin(self.tls.clone(), &self.device)?;
            Ok((tls.take_first_words(), tls))
        };
        let saying = self.service.begin_saying(device, &self.name, options, newer_than, first).await?;
        let Saying { opening, over, speaker: tls } = saying;
        let (send, recv) = opening.answered().await?.into_split();
        Ok((Reached { tunnel: stream_pipe(send, recv), tls }, over))
    }

    /// Runs TLS with the device. If that comes to nothing, the hub of this link is tried last from then on.
    async fn meet(&self, reached: Reached, over: Arc<Kept>) -> Result<Carried, Unopened> {
        let met = self.shake_hands(reached).await;
        let pipe = met.inspect_err(|_| self.service.prefer_another_than(&over)).map_err(OpenError::from)?;
        Ok((pipe, Arc::downgrade(&over)))
    }

    async fn shake_hands(&self, Reached { tunnel, tls }: Reached) -> Result<TlsPipe<StreamPipe>, PeerError> {
        let met = timeout(HANDSHAKE, trust::connect(tunnel, tls, &self.device)).await;
        met.map_err(|_| PeerError::TimedOut(self.device.clone()))?
    }

    /// A session over its first tunnel, once the device has said its first word in it: before that there is nothing that
    /// could go on over another one. If it comes to nothing, the hub is tried last from then on.
    async fn begin(
        self: Arc<Self>,
        reached: Reached,
        over: Arc<Kept>,
        grace: Duration,
    ) -> Result<Link, Unopened> {
        let (first, weak) = self.meet(reached, over.clone()).await?;
        let mut limits = config(grace);
        let environment = self.environment();
        let name = SessionId(environment.random_bytes());
        limits.resumption = Resumption::Offer(name, Secret::new(environment.random_bytes()));
        let (tell, begun) = oneshot::channel();
        let outage = Outage::new(self.device.name.as_str(), grace);
        let returning = Returning { tunnels: self.clone(), over: weak, outage, tell: Some(tell) };
        let link = Link::resumable(first, limits, returning);
        if begun.await.is_ok() {
            return Ok(link);
        }
        self.service.prefer_another_than(&over);
        Err(match link.closed().await {
            LinkClosed::Lost(words) if let Some(error) = self.certificate_refused(&words) => {
                OpenError::from(error)
            }
            closed => closed.into(),
        }
        .into())
    }

    /// The device says that it does not take this end's certificate only once this end holds the handshake to be done: in
    /// the words with which its end of the tunnel fails.
    fn certificate_refused(&self, words: &io::Error) -> Option<PeerError> {
        let reason = tls::as_tls(words).and_then(tls::refused_certificate)?;
        Some(PeerError::CertificateRefused { by: self.device.clone(), reason })
    }

    /// The session. A device that is lost while it is asked is waited for as well, as long as there is time; and if it is the
    /// hub that is lost, it is asked for once more.
    async fn first(self: &Arc<Self>, options: SessionOptions) -> Result<Link, OpenError> {
        let until = Instant::now() + options.wait;
        let (mut backoff, mut was_lost) = (Backoff::default(), false);
        let begin = |reached, over| self.clone().begin(reached, over, options.grace).boxed();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.begin_through_any(left, None, begin).await {
                Err(Unopened { error, .. }) if !was_lost && matches!(error.root(), OpenError::Lost(_)) => {
                    was_lost = true;
                }
                Err(Unopened { error: OpenError::Refused(refusal), .. })
                    if refusal.code == RefusalCode::DeviceOffline && Instant::now() < until =>
                {
                    sleep(backoff.next(self.environment().random())).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// A tunnel with TLS in it, and the link that it is over.
type Carried = (TlsPipe<StreamPipe>, Weak<Kept>);

/// Brings a session its later tunnels.
struct Returning {
    tunnels: Arc<Tunnels>,
    /// The link of the last one.
    over: Weak<Kept>,
    outage: Outage,
    /// Who waits for the session to begin.
    tell: Option<oneshot::Sender<()>>,
}

impl Reconnect<StreamPipe> for Returning {
    /// Tries until the session is given up, or until it is known that this leads nowhere.
    async fn connect(&mut self, occasion: Occasion) -> Result<TlsPipe<StreamPipe>, NoWay> {
        let Self { tunnels, over, outage, .. } = self;
        if let Occasion::Lost(Some(words)) = &occasion
            && let Some(error) = tunnels.certificate_refused(words)
        {
            return Err(Arc::new(error));
        }
        // A goodbye says nothing about this hub: all sessions hear it.
        if matches!(occasion, Occasion::Lost(_) | Occasion::Doubt)
            && let Some(over) = over.upgrade()
        {
            tunnels.service.prefer_another_than(&over);
        }
        let newer_than = matches!(occasion, Occasion::Doubt).then(Instant::now);
        let random = || tunnels.environment().random();
        outage.begin();
        loop {
            if let Some(wait) = outage.wait(random) {
                outage.watch(sleep(wait)).await;
            }
            match outage.watch(tunnels.next(RETURN, newer_than)).await {
                Ok((pipe, link)) => {
                    *over = link;
                    return Ok(pipe);
                }
                Err(Unopened { error, is_final: true }) => {
                    outage.forget();
                    return Err(Arc::new(error));
                }
                Err(Unopened { error, .. }) => outage.fail(error),
            }
        }
    }

    fn has_gone_on(&mut self) {
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(()); // whoever waited may have left
        }
        self.outage.end();
    }

    fn is_needless(&mut self) {
        self.outage.forget();
    }
}

/// The time between two tunnels of a session: how long it is, what the user was told of it, and when to try again.
struct Outage {
    device: String,
    grace: Duration,
    backoff: Backoff,
    /// Since when there is no tunnel that the session goes on over.
    since: Option<Instant>,
    /// When the session has gone on the last time.
    gone_on: Instant,
    /// Why the last attempt has failed.
    why: Option<OpenError>,
    /// The next attempt is not made at once.
    is_to_wait: bool,
    told: bool,
}

impl Outage {
    fn new(device: &str, grace: Duration) -> Self {
        Self {
            device: device.to_owned(),
            grace,
            backoff: Backoff::default(),
            since: None,
            gone_on: Instant::now(),
            why: None,
            is_to_wait: false,
            told: false,
        }
    }

    /// Another tunnel is wanted.
    fn begin(&mut self) {
        // Otherwise the last one has come to nothing, or not to much.
        let has_lasted = self.since.is_none() && self.gone_on.elapsed() >= MAX_WAIT;
        if has_lasted {
            self.backoff = Backoff::default();
        }
        self.is_to_wait = !has_lasted;
        self.since.get_or_insert_with(Instant::now);
    }

    /// How long to wait before the next attempt.
    fn wait(&mut self, random: impl FnOnce() -> u64) -> Option<Duration> {
        self.is_to_wait.then(|| self.backoff.next(random()).min(MAX_WAIT))
    }

    /// An attempt has failed.
    fn fail(&mut self, error: OpenError) {
        tracing::debug!(device = self.device, %error, "no tunnel for the session");
        (self.why, self.is_to_wait) = (Some(error), true);
    }

    /// Waits for `trying`, and tells the user if the session stands still for longer than a moment.
    async fn watch<T>(&mut self, trying: impl Future<Output = T>) -> T {
        let mut trying = pin!(trying);
        let since = self.since.filter(|_| !self.told);
        if let Some(since) = since {
            tokio::select! {
                biased;
                outcome = &mut trying => return outcome,
                () = sleep_until(since + MOMENT) => self.tell(),
            }
        }
        trying.await
    }

    fn tell(&mut self) {
        self.told = true;
        let Self { device, grace, why, .. } = self;
        let why = why.as_ref().map_or("nobody answers".to_owned(), ToString::to_string);
        tracing::warn!(%device, ?grace, %why, "no other tunnel for the session yet; it is kept for the grace period");
    }

    /// The session goes on.
    fn end(&mut self) {
        let after = self.since.take().map(|since| since.elapsed());
        if let Some(after) = after {
            tracing::info!(device = self.device, ?after, "the session goes on over another tunnel");
        }
        self.gone_on = Instant::now();
        self.forget();
    }

    /// There is no outage, or nothing to be done about it.
    fn forget(&mut self) {
        (self.since, self.why, self.told) = (None, None, false);
    }
}

/// Has a session go on over another tunnel when a hub says goodbye, before it has to.
async fn move_in_time(link: WeakLink, mut goodbyes: broadcast::Receiver<()>) {
    loop {
        tokio::select! {
            biased;
            _ = link.closed() => return,
            goodbye = goodbyes.recv() => match goodbye {
                Ok(()) | Err(broadcast::error::RecvError::Lagged(_)) => link.renew(),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// How long a later tunnel of a session waits at a hub for the device, which has to come back as well.
const RETURN: Duration = Duration::from_secs(10);

/// The longest wait before a session's next tunnel is tried for: somebody is waiting. A tunnel that has lasted for as long
/// is replaced without a wait.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// For how long a session may stand still before the user is told.
const MOMENT: Duration = Duration::from_secs(3);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn outage() -> Outage {
        Outage::new("press-7", Duration::from_secs(60))
    }

    async fn pass(millis: u64) {
        sleep(Duration::from_millis(millis)).await;
    }

    /// A hub that lets everybody in and cuts them off at once is not asked again and again without a wait.
    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_does_not_last_makes_the_next_one_wait_longer() {
        let mut outage = outage();
        let next = |outage: &mut Outage| {
            outage.begin();
            outage.wait(|| u64::MAX).map_or(0, |wait| wait.as_millis())
        };
        pass(1000).await;
        assert_eq!(next(&mut outage), 0, "the first one has lasted");
        // It opens, and is lost before the session has gone on over it; or right after that.
        assert_eq!(next(&mut outage), 50);
        assert_eq!(next(&mut outage), 99);
        outage.end();
        pass(999).await;
        assert_eq!(next(&mut outage), 199);
        assert_eq!((0..5).map(|_| next(&mut outage)).collect::<Vec<_>>(), [399, 799, 1000, 1000, 1000]);
        outage.end();
        pass(1000).await;
        assert_eq!(next(&mut outage), 0);
        outage.fail(LinkClosed::TimedOut.into());
        assert_eq!(outage.wait(|| u64::MAX).unwrap().as_millis(), 50, "and the waits begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn the_user_is_told_once_if_it_takes_longer_than_a_moment() {
        let mut outage = outage();
        outage.begin();
        outage.watch(pass(2999)).await;
        assert!(!outage.told);
        outage.fail(LinkClosed::TimedOut.into());
        assert!(outage.watch(async { 7 }).await == 7 && !outage.told);
        outage.watch(pass(2)).await;
        assert!(outage.told);
        // Another attempt is no other outage.
        outage.begin();
        outage.watch(pass(10_000)).await;
        outage.end();
        assert!(!outage.told && outage.since.is_none());
    }
}
