//! Connections to one service of one device, as many as one likes: streams of a session that they share, or each a tunnel
//! of its own.

use tokio::sync::Mutex;
use towline_transports::LinkClosed;

use crate::end_to_end::{EndToEnd, SessionOptions};
use crate::message::Profile;
use crate::service::{OpenError, OpenOptions, Opening, OpeningLeg, Service};

/// Opens connections to a service of a device.
///
/// The first one begins the session, and the first one after its end begins another.
#[derive(Debug)]
pub struct Connector {
    service: Service,
    device: String,
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tunnels(OpenOptions),
    Session { options: SessionOptions, session: Mutex<Option<EndToEnd>> },
}

impl Connector {
    /// Connections that share a session, which nobody in between can read, and which outlives the links to the hub.
    pub fn new(service: Service, device: &str, name: &str, options: SessionOptions) -> Self {
        let kind = Kind::Session { options, session: Mutex::default() };
        Self { service, device: device.to_owned(), name: name.to_owned(), kind }
    }

    /// Connections that are a tunnel each, which the hub can read, and which is lost with a link to the hub.
    pub fn tunnels(service: Service, device: &str, name: &str, options: OpenOptions) -> Self {
        let kind = Kind::Tunnels(options);
        Self { service, device: device.to_owned(), name: name.to_owned(), kind }
    }

    /// The device's ID.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Which of its services.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the connections end.
    pub fn profile(&self) -> Profile {
        match self.kind {
            Kind::Tunnels(options) => options.profile,
            Kind::Session { .. } => Profile::Native,
        }
    }

    /// Begins to open a connection, without waiting for the device's answer to that. If there is no session yet, it is
    /// begun first.
    ///
    /// # Errors
    ///
    /// Why there is no session, or no way to the hub.
    pub async fn begin(&self) -> Result<Opening, OpenError> {
        match &self.kind {
            Kind::Tunnels(options) => self.service.begin(&self.device, &self.name, *options).await,
            Kind::Session { options, session } => {
                match self.session(*options, session).await?.begin().await {
                    // It was over before anything was said: another one may do.
                    Err(OpenError::Lost(_)) => self.session(*options, session).await?.begin().await,
                    opening => opening,
                }
            }
        }
    }

    /// The session, or another one if it is over. Those who come while it is begun wait for that.
    async fn session(
        &self,
        options: SessionOptions,
        kept: &Mutex<Option<EndToEnd>>,
    ) -> Result<EndToEnd, OpenError> {
        let mut kept = kept.lock().await;
        let session = match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => self.service.session(&self.device, &self.name, options).await?,
        };
        *kept = Some(session.clone());
        Ok(session)
    }

    /// Says why `connection` was lost, and how much of what it was given had been delivered, if that is known.
    pub async fn why_lost(&self, connection: &OpeningLeg) -> String {
        match (connection.session_over().await, connection.delivered()) {
            (Some(over), Some(delivered)) => format!(
                "the session with {} is over: {over}; of what was sent, {delivered} bytes at least had been delivered",
                self.device
            ),
            _ => "the connection to the hub or the device was lost; what had not arrived is gone".to_owned(),
        }
    }

    /// Ends the session once everything was delivered, for which it is kept no longer than without a tunnel; and then the
    /// links to the hubs. Returns whether everything was.
    pub async fn close(&self) -> bool {
        let mut all = true;
        if let Kind::Session { session, .. } = &self.kind {
            let last = session.lock().await.take();
            if let Some(last) = last {
                last.close();
                // A device that closes at the same moment may not have had all of it.
                all = matches!(last.closed().await, LinkClosed::Local(_));
            }
        }
        self.service.close().await;
        all
    }
}
