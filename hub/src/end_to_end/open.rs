//! The service's side: a session with a device, and the tunnels that carry it one after the other.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use towline_transports::tls::{self, TlsPipe};
use towline_transports::{
    Code, Link, LinkClosed, Resumption, Secret, SessionId, StreamPipe, WeakLink, stream_pipe,
};

use super::trust::{self, PeerError};
use super::{HANDSHAKE, config};
use crate::core::Backoff;
use crate::environment::Environment;
use crate::identity::{BadName, Identity, Role};
use crate::message::{self, Connect, MessageError, Profile};
use crate::refusal::{Refusal, RefusalCode};
use crate::service::{OpenError, OpenOptions, Opening, Service};

/// How to have a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// How long each tunnel, and each stream, may take to open. Default: 30 s.
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
    /// Has a session with `service` of `device`.
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
        let mut limits = config(options.grace);
        let environment = tunnels.environment();
        let name = SessionId(environment.random_bytes());
        limits.resumption = Resumption::Offer(name, Secret::new(environment.random_bytes()));
        // One that is said from now on, while the first tunnel opens, counts as well.
        let goodbyes = self.goodbyes();
        let first = tunnels.first(options.wait).await?;
        let link = Link::resumable(first, limits, move || tunnels.clone().keep_trying());
        tokio::spawn(move_in_time(link.downgrade(), goodbyes));
        Ok(EndToEnd { link, deadline: options.deadline })
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

    /// A tunnel to the device, and TLS with it.
    async fn next(&self, wait: Duration) -> Result<TlsPipe<StreamPipe>, OpenError> {
        let options = OpenOptions { wait, ..self.options };
        let opening = self.service.begin(self.device.name.as_str(), &self.name, options).await?;
        let (send, recv) = opening.answered().await?.into_split();
        let name = ServerName::try_from("device").expect("it is a name, and means nothing");
        let pipe = timeout(HANDSHAKE, tls::connect(stream_pipe(send, recv), name, self.tls.clone())).await;
        let whom = || self.device.clone();
        let pipe = pipe.map_err(|_| PeerError::TimedOut(whom()))?;
        Ok(pipe.map_err(|error| PeerError::Handshake { whom: whom(), error })?)
    }

    /// The first tunnel. A device that is lost while it is asked is waited for as well, as long as there is time.
    async fn first(&self, wait: Duration) -> Result<TlsPipe<StreamPipe>, OpenError> {
        let until = Instant::now() + wait;
        let mut backoff = Backoff::default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.next(left).await {
                Err(OpenError::Refused(refusal))
                    if refusal.code == RefusalCode::DeviceOffline && Instant::now() < until =>
                {
                    sleep(backoff.next(self.environment().random())).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The next tunnel, however long that takes. The session is given up meanwhile if that is too long.
    async fn keep_trying(self: Arc<Self>) -> TlsPipe<StreamPipe> {
        let mut backoff = Backoff::default();
        let (device, since, mut told) = (&self.device.name, Instant::now(), false);
        loop {
            match self.next(RETURN).await {
                Ok(pipe) => {
                    tracing::info!(%device, after = ?since.elapsed(), "another tunnel for the session");
                    return pipe;
                }
                Err(error) => {
                    let wait = backoff.next(self.environment().random()).min(MAX_WAIT);
                    tracing::debug!(%device, %error, ?wait, "no tunnel for the session");
                    if !told {
                        told = true;
                        tracing::info!(%device, %error, "no tunnel for the session; trying until it is given up");
                    }
                    sleep(wait).await;
                }
            }
        }
    }
}

/// Has a session go on over another tunnel when a hub says goodbye, before it has to.
async fn move_in_time(link: WeakLink, mut goodbyes: watch::Receiver<u64>) {
    loop {
        tokio::select! {
            biased;
            _ = link.closed() => return,
            Ok(()) = goodbyes.changed() => link.renew(),
        }
    }
}

/// How long a later tunnel of a session waits at a hub for the device, which has to come back as well.
const RETURN: Duration = Duration::from_secs(10);

/// The longest wait before a session's next tunnel is tried for: somebody is waiting.
const MAX_WAIT: Duration = Duration::from_secs(1);
