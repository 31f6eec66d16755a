//! The service's side: it opens tunnels to devices, by their ID.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{Sleep, sleep, timeout};
use towline_transports::tls::Credentials;
use towline_transports::{Code, Link, LinkClosed, RecvStream, SendStream};

use crate::codes;
use crate::end_to_end::PeerError;
use crate::endpoint::{ConnectError, Connected, Endpoint, EndpointConfig, SetupError};
use crate::environment::Environment;
use crate::identity::{BadName, Identity, Name, Role};
use crate::message::{
    self, Accepted, Answer, DeviceStatus, Goodbye, List, MessageError, Open, Profile, Request,
};
use crate::refusal::{Refusal, RefusalCode};
use crate::relay::{Gone, Leg, Read, StreamLeg};
use crate::tunnel::Tunnel;

/// How long the hub may be late with its refusal when a deadline has passed, before the service gives up on it.
const DEADLINE_SLACK: Duration = Duration::from_secs(2);

/// An endpoint that opens tunnels. Cloning it gives another handle to the same link.
///
/// It connects when it is first used, and again when the link was lost, or the hub said goodbye, in between. Tunnels over
/// a link to a hub that drains go on meanwhile.
#[derive(Clone, Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    link: Mutex<Option<Kept>>,
}

/// The link, and the stream that must stay open with it, on which the hub says goodbye.
#[derive(Debug)]
struct Kept {
    link: Link,
    control: (SendStream, RecvStream),
    /// The goodbye as far as it has come.
    goodbye: message::Reader,
}

impl Kept {
    /// Whether streams may be opened on it: it is not over, and the hub has not said goodbye.
    fn is_open(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let goodbye = self.goodbye.poll_next::<Goodbye>(&mut context, &mut self.control.1);
        goodbye.is_pending() && !self.link.is_closed()
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
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { profile: Profile::Native, deadline: Duration::from_secs(30) }
    }
}

/// Why a tunnel was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The hub cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The hub or the device refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The device is not at the other end of the tunnel.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The link was lost, or made no sense, before the answer came.
    #[error("the answer did not come: {0}; try again")]
    Lost(#[from] MessageError),
}

impl From<LinkClosed> for OpenError {
    fn from(closed: LinkClosed) -> Self {
        Self::Lost(closed.into())
    }
}

impl Service {
    /// An endpoint that is not connected yet. Must be used on a tokio runtime.
    ///
    /// # Errors
    ///
    /// The configuration does not do.
    pub fn new(config: EndpointConfig, environment: Environment) -> Result<Self, SetupError> {
        let endpoint = Endpoint::new(config, Role::Service, environment)?;
        Ok(Self { inner: Arc::new(Inner { endpoint, link: Mutex::new(None) }) })
    }

    /// Who this service endpoint is.
    pub fn identity(&self) -> &Identity {
        &self.inner.endpoint.identity
    }

    /// Who this end is to the devices, and what it is made of.
    pub(crate) fn at_the_ends(&self) -> (&Credentials, &Environment) {
        (&self.inner.endpoint.credentials, &self.inner.endpoint.environment)
    }

    /// Opens a tunnel to `service` of `device`.
    ///
    /// # Errors
    ///
    /// Why there is none: one exact outcome.
    pub async fn open(&self, device: &str, service: &str) -> Result<Tunnel, OpenError> {
        self.begin(device, service, OpenOptions::default()).await?.answered().await
    }

    /// Begins to open a tunnel, without waiting for the answer: what is written to it may follow at once.
    ///
    /// # Errors
    ///
    /// The names are none, or the hub cannot be reached.
    pub async fn begin(
        &self,
        device: &str,
        service: &str,
        options: OpenOptions,
    ) -> Result<Opening, OpenError> {
        // The hub would say the same, if the names are not too long for a message.
        for name in [device, service] {
            let bad = |bad: BadName| Refusal::new(RefusalCode::BadRequest, bad.to_string());
            name.parse::<Name>().map_err(bad)?;
        }
        let deadline_ms = u32::try_from(options.deadline.as_millis()).unwrap_or(u32::MAX);
        let open = Open {
            device: device.to_owned(),
            service: service.to_owned(),
            profile: options.profile,
            deadline_ms,
        };
        let (send, recv) = self.ask(&Request::Open(open)).await?;
        Ok(Opening { profile: options.profile, deadline: options.deadline, send, recv })
    }

    /// The devices that the hub knows, in the order of their IDs.
    ///
    /// # Errors
    ///
    /// The hub cannot be reached, or refuses.
    pub async fn devices(&self) -> Result<Vec<DeviceStatus>, OpenError> {
        let (_send, mut recv) = self.ask(&Request::List(List {})).await?;
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

    /// Closes the link, once everything has gone out. An older one, to a hub that drains, lives on for its tunnels.
    pub async fn close(&self) {
        if let Some(Kept { link, .. }) = self.inner.link.lock().await.take() {
            link.close(codes::NONE, "");
            link.closed().await;
        }
    }

    /// Opens a stream and writes `request` on it.
    async fn ask(&self, request: &Request) -> Result<(SendStream, RecvStream), OpenError> {
        let mut last = None;
        // A link that was kept may turn out to be lost; a new one that is lost at once is bad news.
        for _ in 0..2 {
            let link = self.link(last.is_some()).await?;
            let attempt = async {
                let (mut send, recv) = link.open_bi().await?;
                message::write(&mut send, request).await?;
                Ok((send, recv))
            };
            match attempt.await {
                Ok(streams) => return Ok(streams),
                Err(error) => last = Some(error),
            }
        }
        let error: MessageError = last.expect("the loop ran");
        Err(error.into())
    }

    /// The link that is kept, or a new one.
    async fn link(&self, renew: bool) -> Result<Link, ConnectError> {
        let mut kept = self.inner.link.lock().await;
        if let Some(kept) = &mut *kept
            && !renew
            && kept.is_open()
        {
            return Ok(kept.link.clone());
        }
        // It lives on while there are tunnels over it.
        *kept = None;
        let Connected { link, control } = self.inner.endpoint.connect().await?;
        *kept = Some(Kept { link: link.clone(), control, goodbye: message::Reader::default() });
        Ok(link)
    }
}

/// A tunnel that was asked for and not answered yet.
#[derive(Debug)]
pub struct Opening {
    profile: Profile,
    deadline: Duration,
    /// What is written here follows the request; if that is refused, it is dropped.
    pub send: SendStream,
    recv: RecvStream,
}

impl Opening {
    pub(crate) fn new(profile: Profile, deadline: Duration, send: SendStream, recv: RecvStream) -> Self {
        Self { profile, deadline, send, recv }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// Why there is no tunnel.
    pub async fn answered(self) -> Result<Tunnel, OpenError> {
        let Self { profile, deadline, send, mut recv } = self;
        let Accepted { tunnel } = read_answer(&mut recv, deadline).await?;
        Ok(Tunnel::new(tunnel, profile, send, recv))
    }

    /// It as one side of a relay, which carries what is written before the answer comes.
    pub fn into_leg(self) -> OpeningLeg {
        let Self { deadline, send, recv, .. } = self;
        let patience = Box::pin(sleep(deadline + DEADLINE_SLACK));
        let answer = Some((message::Reader::default(), patience));
        OpeningLeg { leg: StreamLeg { send, recv }, answer, refused: None }
    }
}

async fn read_answer(recv: &mut RecvStream, deadline: Duration) -> Result<Accepted, OpenError> {
    match timeout(deadline + DEADLINE_SLACK, message::read(recv)).await {
        Ok(Ok(Answer::Accepted(accepted))) => Ok(accepted),
        Ok(Ok(Answer::Refused(refusal))) => Err(refusal.into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(too_late().into()),
    }
}

fn too_late() -> Refusal {
    Refusal::new(RefusalCode::DeadlinePassed, "the hub has not answered in time")
}

/// A tunnel that may still be refused, as a leg: what the answer is, the first read learns.
#[derive(Debug)]
pub struct OpeningLeg {
    leg: StreamLeg,
    /// The answer as far as it has come, and when to give up on it. `None` once it is here.
    answer: Option<(message::Reader, Pin<Box<Sleep>>)>,
    refused: Option<OpenError>,
}

impl OpeningLeg {
    /// Why there was no tunnel, if that is how the relay ended.
    pub fn refusal(self) -> Option<OpenError> {
        self.refused
    }

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), OpenError>> {
        let Some((reader, patience)) = &mut self.answer else { return Poll::Ready(Ok(())) };
        let answer = match reader.poll_next(context, &mut self.leg.recv) {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                ready!(patience.as_mut().poll(context));
                return Poll::Ready(Err(too_late().into()));
            }
        };
        self.answer = None;
        Poll::Ready(match answer {
            Ok(Some(Answer::Accepted(_))) => Ok(()),
            Ok(Some(Answer::Refused(refusal))) => Err(refusal.into()),
            Ok(None) => Err(MessageError::Truncated.into()),
            Err(error) => Err(error.into()),
        })
    }
}

impl Leg for OpeningLeg {
    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Read> {
        match ready!(self.poll_answer(context)) {
            Ok(()) => self.leg.poll_read(context, max),
            Err(error) => {
                self.refused = Some(error);
                Poll::Ready(Read::Lost(codes::REFUSED))
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.leg.poll_write(context, data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.leg.poll_finish(context)
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        self.leg.poll_gone(context)
    }

    fn reset(&mut self, code: Code) {
        self.leg.reset(code);
    }

    fn stop(&mut self, code: Code) {
        self.leg.stop(code);
    }

    fn reset_ends_whole(&self) -> bool {
        self.leg.reset_ends_whole()
    }
}
