//! Connections to one service of one device, as many as one likes: streams of a session that they share, or each a tunnel
//! of its own.

use towline_transports::LinkClosed;

use crate::end_to_end::{EndToEnd, SessionOptions};
use crate::message::Profile;
use crate::on_demand::OnDemand;
use crate::opening::{Opening, OpeningLeg};
use crate::service::{OpenOptions, Service};
use crate::unopened::OpenError;

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
    Session { options: SessionOptions, session: OnDemand<EndToEnd, OpenError> },
}

impl Connector {
    /// Connections that share a session, which nobody in between can read, and which outlives the links to the hub.
    pub fn new(service: Service, device: &str, name: &str, options: SessionOptions) -> Self {
        let kind = Kind::Session { options, session: OnDemand::default() };
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

    /// The session, or another one if it is over. Those who come while it is begun share what comes of that.
    async fn session(
        &self,
        options: SessionOptions,
        kept: &OnDemand<EndToEnd, OpenError>,
    ) -> Result<EndToEnd, OpenError> {
        let begin = || {
            let (service, device, name) = (self.service.clone(), self.device.clone(), self.name.clone());
            async move { service.session(&device, &name, options).await }
        };
        kept.get(|session| !session.is_closed(), begin).await.map_err(OpenError::shared)
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
        if let Kind::Session { session, .. } = &self.kind
            && let Some(last) = session.take()
        {
            last.close();
            // A device that closes at the same moment may not have had all of it.
            all = matches!(last.closed().await, LinkClosed::Local(_));
        }
        self.service.close().await;
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::Instant;
    use towline_transports::{Listener, Network, Socket};

    use super::*;
    use crate::endpoint::CONNECT_DEADLINE;
    use crate::environment::Environment;
    use crate::service::tests::endpoint;

    type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

    /// A network in which nobody answers. Counts how often somebody is called.
    #[derive(Debug, Default)]
    struct Silence {
        calls: AtomicUsize,
    }

    impl Network for Silence {
        fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        }

        fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
            Box::pin(std::future::pending())
        }
    }

    fn service(network: &Arc<Silence>) -> Service {
        let environment = Environment { network: network.clone(), ..Environment::system() };
        Service::new(endpoint("192.0.2.1:443", &environment), environment).unwrap()
    }

    fn connectors(network: &Arc<Silence>) -> [Connector; 2] {
        let (session, tunnels) = (SessionOptions::default(), OpenOptions::default());
        [
            Connector::new(service(network), "press-7", "ssh", session),
            Connector::tunnels(service(network), "press-7", "ssh", tunnels),
        ]
    }

    /// Or the n-th of them waits n times as long, before a hub that is not there.
    #[tokio::test(start_paused = true)]
    async fn connections_that_come_at_the_same_time_share_what_comes_of_it() {
        let network = Arc::<Silence>::default();
        for (number, connector) in connectors(&network).iter().enumerate() {
            let start = Instant::now();
            for outcome in join_all((0..5).map(|_| connector.begin())).await {
                let error = outcome.unwrap_err();
                assert!(matches!(error.root(), OpenError::Connect(_)), "{error}");
            }
            assert_eq!(network.calls.load(Ordering::Relaxed), number + 1);
            // The clock stands still while anybody works.
            assert_eq!(start.elapsed(), CONNECT_DEADLINE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_closes_does_not_wait_for_a_session_that_is_begun() {
        let network = Arc::<Silence>::default();
        for connector in connectors(&network) {
            let start = Instant::now();
            tokio::select! {
                biased;
                opening = connector.begin() => panic!("{opening:?}"),
                all = connector.close() => assert!(all),
            }
            assert_eq!(start.elapsed(), Duration::ZERO);
        }
    }
}
