//! The device's side: who has opened a tunnel has a session in it, new or not, and each of its streams is a connection to
//! the target.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::{Instant, timeout};
use towline_transports::tls::{self, ConfigError, Credentials};
use towline_transports::{Accepted, Link, RecvStream, SendStream, Sessions, StreamPipe, stream_pipe};

use super::trust::{self, PeerError};
use super::{HANDSHAKE, config};
use crate::agent::Targets;
use crate::codes;
use crate::core::Pace;
use crate::device::Offer;
use crate::identity::{Identity, Name};
use crate::message::{self, Answer, Connect, Profile};
use crate::relay::{SocketLeg, StreamLeg, relay};

/// How long a session is kept without a tunnel, unless the service wants less.
const GRACE: Duration = Duration::from_secs(60);

/// Why sessions end with the device.
const STOPPED: &str = "the device is being stopped";

/// How long the message that begins a stream may take, and its target.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The sessions of a device.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    tls: Arc<ServerConfig>,
    sessions: Sessions<StreamPipe>,
}

impl Serving {
    pub(crate) fn new(credentials: Credentials, environment: &tls::Environment) -> Result<Self, ConfigError> {
        let tls = trust::server_config(credentials, environment)?;
        Ok(Self { tls, sessions: Sessions::new(config(GRACE)) })
    }

    /// Keeps the sessions that begin from now on for so long without a tunnel.
    pub(crate) fn keep_for(&mut self, grace: Duration) {
        self.sessions = self.sessions.with(config(grace));
    }

    /// Ends all sessions, and waits until they are over. None begins from now on.
    pub(crate) async fn close(&self) {
        self.sessions.close(codes::NONE, STOPPED).await;
    }

    /// Accepts a tunnel, and has a session in it with whoever has opened it.
    pub(crate) async fn answer(&self, offer: Offer, targets: Targets) {
        let (tunnel, from, service) = (offer.tunnel, offer.from.clone(), offer.service.clone());
        if let Err(refusal) = targets.check(&service) {
            tracing::info!(tunnel, %from, %service, %refusal, "refused");
            return offer.refuse(refusal).await;
        }
        let accepted = match offer.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::info!(tunnel, %from, %service, %error, "nobody waits for the answer any more");
                return;
            }
        };
        let (send, recv) = accepted.into_split();
        match timeout(HANDSHAKE, self.meet(stream_pipe(send, recv), &from, &service)).await {
            Ok(Ok(Accepted::New(link))) => {
                tracing::info!(tunnel, %from, %service, "session begun");
                tokio::spawn(serve(link, from, service, targets));
            }
            Ok(Ok(Accepted::Resumed)) => tracing::info!(tunnel, %from, %service, "session resumed"),
            Ok(Err(error)) => tracing::warn!(tunnel, %from, %service, "no session: {error}"),
            Err(_) => {
                tracing::warn!(tunnel, %from, %service, "no session: {}", PeerError::TimedOut(from.clone()));
            }
        }
    }

    async fn meet(
        &self,
        pipe: StreamPipe,
        from: &Identity,
        service: &Name,
    ) -> Result<Accepted, Box<dyn std::error::Error + Send + Sync>> {
        let pipe = trust::accept(pipe, self.tls.clone(), from).await?;
        // A session is for one service: the hub was asked for that one.
        Ok(self.sessions.accept(&format!("{from} {service}"), pipe).await?)
    }
}

/// The sessions of a device, which end with it.
#[derive(Debug)]
pub(crate) struct Owned(pub(crate) Serving);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.sessions.abandon(codes::NONE, STOPPED);
    }
}

/// Serves a session until it is over.
async fn serve(link: Link, from: Identity, service: Name, targets: Targets) {
    while let Ok((send, recv)) = link.accept_bi().await {
        let (service, targets) = (service.clone(), targets.clone());
        tokio::spawn(async move { connect(send, recv, &service, &targets).await });
    }
    let closed = link.closed().await;
    tracing::info!(%from, %service, %closed, "session over");
}

/// Connects a stream to the target, or says why not.
async fn connect(mut send: SendStream, mut recv: RecvStream, service: &Name, targets: &Targets) {
    send.set_urgency(Pace::FIRST);
    if !matches!(timeout(CONNECT_DEADLINE, message::read::<Connect>(&mut recv)).await, Ok(Ok(_))) {
        send.reset(codes::BAD_MESSAGE);
        return recv.stop(codes::BAD_MESSAGE);
    }
    match targets.connect(service, Instant::now() + CONNECT_DEADLINE).await {
        Ok(socket) => {
            if message::write(&mut send, &Answer::Accepted(message::Accepted::default())).await.is_err() {
                return;
            }
            let mut stream = StreamLeg::new(send, recv);
            let relayed = relay(&mut SocketLeg::new(socket), &mut stream, Profile::Native).await;
            tracing::debug!(%service, bytes = ?relayed.bytes, ended = ?relayed.ended, "connection closed");
        }
        Err(refusal) => {
            tracing::info!(%service, %refusal, "refused");
            if message::write(&mut send, &Answer::Refused(refusal)).await.is_ok() {
                let _ = send.finish();
            }
            recv.stop(codes::REFUSED);
        }
    }
}
