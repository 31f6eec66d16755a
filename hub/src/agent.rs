//! What a device does with offers: it connects each to the local address that the service's name stands for.
//!
//! Only the names that were given can be reached; the asker never says an address.

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use towline_transports::Socket;

use crate::device::{Device, Offer};
use crate::environment::Environment;
use crate::identity::Name;
use crate::message::Profile;
use crate::refusal::{Refusal, RefusalCode};
use crate::relay::{SocketLeg, relay};

/// How long a target may take to answer, if the service waits for so long.
pub const TARGET_DEADLINE: Duration = Duration::from_secs(10);

/// A service that a device offers: a name, and the address that it stands for. Written `NAME=HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What services ask for.
    pub name: Name,
    /// Where it leads, as seen from the device.
    pub address: String,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write NAME=HOST:PORT, such as ssh=127.0.0.1:22: {0}")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = |why: &str| BadTarget(why.to_owned());
        let (name, address) = text.split_once('=').ok_or_else(|| bad("there is no '='"))?;
        let name = name.parse::<Name>().map_err(|error| BadTarget(error.to_string()))?;
        let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("there is no port"))?;
        if host.is_empty() {
            return Err(bad("there is no host"));
        }
        if port.parse::<u16>().is_err() {
            return Err(bad("the port is no number from 0 to 65535"));
        }
        Ok(Self { name, address: address.to_owned() })
    }
}

/// The services that a device offers, and how to get to them.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    addresses: Arc<BTreeMap<Name, String>>,
    environment: Environment,
}

impl Targets {
    fn new(targets: Vec<Target>, environment: Environment) -> Self {
        let addresses = targets.into_iter().map(|Target { name, address }| (name, address)).collect();
        Self { addresses: Arc::new(addresses), environment }
    }

    /// Whether there is this service.
    pub(crate) fn check(&self, service: &Name) -> Result<&str, Refusal> {
        self.addresses.get(service).map(String::as_str).ok_or_else(|| {
            let text = format!("the device offers no service {service}");
            Refusal::new(RefusalCode::ServiceUnknown, text)
        })
    }

    /// Connects to a service.
    pub(crate) async fn connect(
        &self,
        service: &Name,
        answer_by: Instant,
    ) -> Result<Box<dyn Socket>, Refusal> {
        let address = self.check(service)?;
        let patience = answer_by.saturating_duration_since(Instant::now()).min(TARGET_DEADLINE);
        match timeout(patience, self.environment.network.connect(address)).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => {
                Err(Refusal::new(refusal_code(&error), format!("{service} is {address} there: {error}")))
            }
            Err(_) => {
                let seconds = patience.as_secs_f32();
                let text = format!("{service} is {address} there: no answer in {seconds:.1} s");
                Err(Refusal::new(RefusalCode::TargetTimedOut, text))
            }
        }
    }
}

/// Serves the device's offers for as long as it is polled, each in a task of its own.
pub async fn serve(device: &mut Device, targets: Vec<Target>, environment: Environment) {
    let targets = Targets::new(targets, environment);
    loop {
        let offer = device.next_offer().await;
        let (targets, sessions) = (targets.clone(), device.sessions().clone());
        tokio::spawn(async move {
            match offer.profile {
                Profile::EndToEnd => sessions.answer(offer, targets).await,
                Profile::Native | Profile::Strict => answer(offer, &targets).await,
            }
        });
    }
}

/// Connects the offer to its target, or says why not.
async fn answer(offer: Offer, targets: &Targets) {
    let (tunnel, from, service) = (offer.tunnel, offer.from.clone(), offer.service.clone());
    let socket = match targets.connect(&service, offer.answer_by).await {
        Ok(socket) => socket,
        Err(refusal) => {
            tracing::info!(tunnel, %from, %service, %refusal, "refused");
            return offer.refuse(refusal).await;
        }
    };
    let profile = offer.profile;
    let accepted = match offer.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::info!(tunnel, %from, %service, %error, "nobody waits for the answer any more");
            return;
        }
    };
    tracing::info!(tunnel, %from, %service, "tunnel open");
    let relayed = relay(&mut SocketLeg::new(socket), &mut accepted.into_leg(), profile).await;
    let [up, down] = relayed.bytes;
    tracing::info!(tunnel, %service, up, down, ended = ?relayed.ended, "tunnel closed");
}

fn refusal_code(error: &io::Error) -> RefusalCode {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => RefusalCode::TargetRefused,
        io::ErrorKind::TimedOut => RefusalCode::TargetTimedOut,
        _ => RefusalCode::TargetUnreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use towline_transports::{Listener, Network};

    type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

    /// A network in which nobody answers.
    #[derive(Debug)]
    struct Silence;

    impl Network for Silence {
        fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
            Box::pin(std::future::pending())
        }

        fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_has_no_longer_than_the_service_waits() {
        let environment = Environment { network: Arc::new(Silence), ..Environment::system() };
        let service: Name = "hangs".parse().unwrap();
        let target = Target { name: service.clone(), address: "192.0.2.1:22".to_owned() };
        let targets = Targets::new(vec![target], environment);
        for (waits, text) in [(3, "3.0"), (60, "10.0")] {
            let answer_by = Instant::now() + Duration::from_secs(waits);
            let refusal = targets.connect(&service, answer_by).await.unwrap_err();
            assert_eq!(refusal.code, RefusalCode::TargetTimedOut);
            assert_eq!(refusal.text, format!("hangs is 192.0.2.1:22 there: no answer in {text} s"));
        }
    }

    #[test]
    fn a_target_is_a_name_and_an_address() {
        let target: Target = "ssh=127.0.0.1:22".parse().unwrap();
        assert_eq!((target.name.as_str(), &target.address[..]), ("ssh", "127.0.0.1:22"));
        assert_eq!("x=[::1]:80".parse::<Target>().unwrap().address, "[::1]:80");
        for (text, why) in [
            ("ssh", "there is no '='"),
            ("ssh=localhost", "there is no port"),
            ("ssh=:22", "there is no host"),
            ("ssh=h:ssh", "the port is no number from 0 to 65535"),
            ("ssh=h:70000", "the port is no number from 0 to 65535"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert_eq!(error, BadTarget(why.into()), "{text}");
        }
        assert!("s h=h:22".parse::<Target>().is_err());
    }
}
