//! The hub without its sockets: who is here, who may open what, who waits for an answer and until when.
//!
//! In: hellos, opens, answers, ends, and the time. Out: what to grant and to refuse, and [`Action`]s. The same
//! shape as the engine's session: plain data, `handle_*` in, `poll_*` out, so that it is tested, and simulated,
//! without a runtime.

mod backoff;
mod limits;
mod lobby;
mod pace;
mod parking;
mod registry;
mod splice;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use towline_engine::Instant;

pub use backoff::{Backoff, MAX_HINTED_WAIT, MAX_WAIT, MIN_WAIT, SETTLED};
pub use limits::{Limits, MAX_DEADLINE, MAX_PARKED, MAX_PARKED_OF_SERVICE, MAX_PARKING, TUNNELS_PER_DEVICE};
pub use lobby::{Lobby, Visitor};
pub use pace::Pace;
pub use splice::{Ended, Fate, Flow, MAX_HELD, Splice, Way};

use crate::identity::{Identity, Name, Role};
use crate::message::{Answer, DeviceStatus, Hello, Open, Profile};
use crate::policy::Policy;
use crate::refusal::{Refusal, RefusalCode};
use limits::TokenBucket;
use parking::Parking;
use registry::{Absent, Arrival, Registry, Replaced};

/// A link's number at this hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A tunnel's number at this hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u64);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the hub's sockets have to do that nobody asked for just now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Tell the service that its tunnel will not come about.
    Refuse(TunnelId, Refusal),
    /// The device that a tunnel has waited for is here, and is to be asked.
    Offer(Offered),
    /// Say goodbye on the link, and close it.
    Dismiss(LinkId, Refusal),
}

/// A tunnel that may come about: the device is here, and is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its number.
    pub tunnel: TunnelId,
    /// The device's link.
    pub link: LinkId,
    /// Which device.
    pub device: Name,
    /// Which of its services.
    pub service: Name,
    /// How it ends.
    pub profile: Profile,
    /// How long the device has for its answer.
    pub deadline: Duration,
}

/// The hub's state.
#[derive(Debug)]
pub struct Core {
    limits: Limits,
    policy: Box<dyn Policy>,
    registry: Registry,
    links: BTreeMap<LinkId, Link>,
    /// Opens and lists per service. A bucket that is full again is forgotten.
    buckets: BTreeMap<Name, TokenBucket>,
    tunnels: BTreeMap<TunnelId, Tunnel>,
    /// Tunnels whose device has not answered, by when it must have.
    deadlines: BTreeSet<(Instant, TunnelId)>,
    /// Tunnels that wait for their device to come.
    parking: Parking<Wanted>,
    next_tunnel: u64,
    draining: Option<Duration>,
    actions: VecDeque<Action>,
}

#[derive(Clone, Debug)]
struct Link {
    identity: Identity,
}

#[derive(Clone, Debug)]
struct Tunnel {
    device: Name,
    link: LinkId,
    /// Until when the device must answer; `None` once it has.
    answer_by: Option<Instant>,
}

/// What a tunnel is to be, once its device is there.
#[derive(Clone, Debug)]
struct Wanted {
    device: Name,
    service: Name,
    profile: Profile,
    deadline: Duration,
}

impl Core {
    /// A hub where nobody is yet.
    pub fn new(limits: Limits, policy: Box<dyn Policy>) -> Self {
        Self {
            registry: Registry::new(limits.remembered),
            limits,
            policy,
            links: BTreeMap::new(),
            buckets: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            parking: Parking::default(),
            next_tunnel: 1,
            draining: None,
            actions: VecDeque::new(),
        }
    }

    // In.

    /// Somebody who has proved to be `identity` says hello on a new link, from `address`.
    ///
    /// A device is online from now on. If it was online already, the newer link counts: both have proved the same
    /// identity.
    ///
    /// # Errors
    ///
    /// Why the link is not wanted.
    pub fn handle_hello(
        &mut self,
        now: Instant,
        link: LinkId,
        identity: Identity,
        address: String,
        hello: Hello,
    ) -> Result<(), Refusal> {
        if hello.version < crate::message::VERSION {
            let text = format!("this hub speaks version {} and up", crate::message::VERSION);
            return Err(Refusal::new(RefusalCode::BadRequest, text));
        }
        if let Some(retry) = self.draining {
            return Err(draining(retry));
        }
        match identity.role {
            Role::Device => {
                let arrival = Arrival { address, agent: hello.agent, instance: hello.instance };
                let replaced = self.registry.arrive(now, &identity.name, link, arrival);
                if let Some(replaced) = replaced {
                    self.replace(&identity.name, replaced);
                }
                self.offer_what_waited(now, &identity.name, link);
            }
            Role::Service => {}
            Role::Hub => {
                let text = "this is a hub's certificate; hubs do not connect to hubs";
                return Err(Refusal::new(RefusalCode::Forbidden, text));
            }
        }
        self.links.insert(link, Link { identity });
        Ok(())
    }

    /// Somebody asks for a tunnel, on `link`.
    ///
    /// # Errors
    ///
    /// Why there will be none.
    pub fn handle_open(&mut self, now: Instant, link: LinkId, open: &Open) -> Result<Offered, Refusal> {
        let refuse = |code, text: String| Err(Refusal::new(code, text));
        let asker = self.asking_service(link)?.clone();
        self.take_token(now, &asker.name)?;
        let (device, service) = match (open.device.parse::<Name>(), open.service.parse::<Name>()) {
            (Ok(device), Ok(service)) => (device, service),
            (Err(bad), _) | (_, Err(bad)) => return refuse(RefusalCode::BadRequest, bad.to_string()),
        };
        if !self.policy.may_open(&asker, &device, &service) {
            let text = format!("{} may not open {service} of {device}", asker.name);
            return refuse(RefusalCode::Forbidden, text);
        }
        let (link, tunnels) = match self.registry.find(now, &device) {
            Ok(found) => found,
            Err(Absent::Unknown) => {
                let text = format!("no device {device} has been here since this hub was started");
                return refuse(RefusalCode::DeviceUnknown, text);
            }
            Err(Absent::Offline(since)) => {
                let text = format!("{device} left {} s ago", since.as_secs());
                return refuse(RefusalCode::DeviceOffline, text);
            }
        };
        let deadline = Duration::from_millis(open.deadline_ms.into()).min(MAX_DEADLINE);
        let tunnel = self.number_tunnel();
        self.offer(now, tunnel, link, tunnels, Wanted { device, service, profile: open.profile, deadline })
    }

    /// Who asks for a tunnel on `link`, if the hub would give one at all.
    fn asking_service(&self, link: LinkId) -> Result<&Identity, Refusal> {
        let Some(asker) = self.identity(link) else {
            return Err(Refusal::new(RefusalCode::BadRequest, "the first request on a link is a hello"));
        };
        if asker.role != Role::Service {
            let text = format!("{asker} is no service; only services open tunnels");
            return Err(Refusal::new(RefusalCode::Forbidden, text));
        }
        match self.draining {
            Some(retry) => Err(draining(retry)),
            None => Ok(asker),
        }
    }

    /// Somebody whose `open` on `link` was refused since the device is away would rather wait: for as long as it says, until
    /// the device comes ([`Action::Offer`]), or until [`handle_tunnel_closed`](Self::handle_tunnel_closed). Returns the tunnel's
    /// number.
    ///
    /// # Errors
    ///
    /// Too many wait already, of everybody's or of this service's; or it may not ask.
    pub fn handle_wait(&mut self, now: Instant, link: LinkId, open: &Open) -> Result<TunnelId, Refusal> {
        let asker = self.asking_service(link)?.name.clone();
        if self.parking.len_of(&asker) >= MAX_PARKED_OF_SERVICE {
            let text = format!("{MAX_PARKED_OF_SERVICE} tunnels of {asker} wait for devices already");
            return Err(Refusal::new(RefusalCode::TooManyTunnels, text));
        }
        if self.parking.len() >= MAX_PARKED {
            let text = format!("{MAX_PARKED} tunnels wait for devices already");
            return Err(Refusal::new(RefusalCode::TooManyTunnels, text));
        }
        let bad = |bad: crate::identity::BadName| Refusal::new(RefusalCode::BadRequest, bad.to_string());
        let (device, service) =
            (open.device.parse::<Name>().map_err(bad)?, open.service.parse().map_err(bad)?);
        let millis = |millis: u32| Duration::from_millis(millis.into());
        let deadline = millis(open.deadline_ms).min(MAX_DEADLINE);
        let until = now + millis(open.wait_ms.unwrap_or(0)).min(MAX_PARKING);
        let tunnel = self.number_tunnel();
        let wanted = Wanted { device: device.clone(), service, profile: open.profile, deadline };
        self.parking.park(tunnel, asker, device, until, wanted);
        Ok(tunnel)
    }

    fn number_tunnel(&mut self) -> TunnelId {
        let tunnel = TunnelId(self.next_tunnel);
        self.next_tunnel += 1;
        tunnel
    }

    /// A device is here, on `link`: what has waited for it comes about now.
    fn offer_what_waited(&mut self, now: Instant, device: &Name, link: LinkId) {
        let mut tunnels = 0;
        while let Some((tunnel, wanted)) = self.parking.take_for(device) {
            let offer = self.offer(now, tunnel, link, tunnels, wanted);
            self.actions.push_back(match offer {
                Ok(offered) => Action::Offer(offered),
                Err(refusal) => Action::Refuse(tunnel, refusal),
            });
            tunnels += 1;
        }
    }

    /// Counts a tunnel to a device that has `tunnels` of them, and sets its deadline.
    fn offer(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        link: LinkId,
        tunnels: u32,
        wanted: Wanted,
    ) -> Result<Offered, Refusal> {
        let Wanted { device, service, profile, deadline } = wanted;
        if tunnels >= self.limits.tunnels_per_device {
            let text = format!("{device} has {tunnels} tunnels");
            return Err(Refusal::new(RefusalCode::TooManyTunnels, text));
        }
        self.registry.count_tunnel(&device, link, true);
        let answer_by = now + deadline;
        self.deadlines.insert((answer_by, tunnel));
        self.tunnels.insert(tunnel, Tunnel { device: device.clone(), link, answer_by: Some(answer_by) });
        Ok(Offered { tunnel, link, device, service, profile, deadline })
    }

    /// Somebody asks, on `link`, which devices are or were here.
    ///
    /// # Errors
    ///
    /// Why they are not told.
    pub fn handle_list(&mut self, now: Instant, link: LinkId) -> Result<Vec<DeviceStatus>, Refusal> {
        let asker = self.links.get(&link).filter(|asker| asker.identity.role == Role::Service);
        let Some(asker) = asker else {
            return Err(Refusal::new(RefusalCode::Forbidden, "only services may list the devices"));
        };
        if let Some(retry) = self.draining {
            return Err(draining(retry));
        }
        let asker = asker.identity.name.clone();
        self.take_token(now, &asker)?;
        Ok(self.registry.list(now).collect())
    }

    /// The device answers an offer. Returns the answer for the service, or `None` if the tunnel is over: its
    /// deadline has passed, or the service is gone.
    pub fn handle_answer(&mut self, tunnel: TunnelId, answer: Answer) -> Option<Answer> {
        let answer_by = self.tunnels.get_mut(&tunnel)?.answer_by.take()?;
        self.deadlines.remove(&(answer_by, tunnel));
        if let Answer::Refused(_) = answer {
            self.handle_tunnel_closed(tunnel);
        }
        Some(answer)
    }

    /// The tunnel is over, however. Without effect if that was said before.
    pub fn handle_tunnel_closed(&mut self, tunnel: TunnelId) {
        self.parking.leave(tunnel);
        let Some(Tunnel { device, link, answer_by }) = self.tunnels.remove(&tunnel) else { return };
        if let Some(answer_by) = answer_by {
            self.deadlines.remove(&(answer_by, tunnel));
        }
        self.registry.count_tunnel(&device, link, false);
    }

    /// The link is over, however. Its tunnels end by themselves.
    pub fn handle_link_closed(&mut self, now: Instant, link: LinkId) {
        if let Some(Link { identity, .. }) = self.links.remove(&link)
            && identity.role == Role::Device
        {
            self.registry.leave(now, &identity.name, link);
        }
    }

    /// The hub is about to go: nothing new is granted, what waits for a device's answer included, and everybody is
    /// asked to come back after `retry`.
    pub fn handle_drain(&mut self, retry: Duration) {
        self.draining = Some(retry);
        while let Some(&(_, tunnel)) = self.deadlines.first() {
            self.actions.push_back(Action::Refuse(tunnel, draining(retry)));
            self.handle_tunnel_closed(tunnel);
        }
        while let Some(tunnel) = self.parking.take_any() {
            self.actions.push_back(Action::Refuse(tunnel, draining(retry)));
        }
        self.actions.extend(self.links.keys().map(|&link| Action::Dismiss(link, draining(retry))));
    }

    /// The time is `now`: offers whose deadline has passed are refused.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, tunnel)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let text = "the device has not answered in time";
            self.actions.push_back(Action::Refuse(tunnel, Refusal::new(RefusalCode::DeadlinePassed, text)));
            self.handle_tunnel_closed(tunnel);
        }
        while let Some((tunnel, device)) = self.parking.take_late(now) {
            let text = format!("{device} has not come in the time that the service would wait");
            self.actions.push_back(Action::Refuse(tunnel, Refusal::new(RefusalCode::DeviceOffline, text)));
        }
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    // Out.

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let answers = self.deadlines.first().map(|&(deadline, _)| deadline);
        answers.into_iter().chain(self.parking.next_time()).min()
    }

    /// Who is on a link.
    pub fn identity(&self, link: LinkId) -> Option<&Identity> {
        self.links.get(&link).map(|link| &link.identity)
    }

    /// How many tunnels wait for their device to come.
    pub fn parked(&self) -> usize {
        self.parking.len()
    }

    /// How many tunnels are live or waiting for an answer.
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// How many devices are online.
    pub fn online(&self) -> usize {
        self.registry.online()
    }

    /// Panics if the state is inconsistent, which is a bug. For tests.
    pub fn check_invariants(&self) {
        self.registry.invariants();
        self.parking.check_invariants();
        for (tunnel, Tunnel { answer_by, .. }) in &self.tunnels {
            if let Some(answer_by) = answer_by {
                assert!(self.deadlines.contains(&(*answer_by, *tunnel)));
            }
        }
        assert!(self.deadlines.iter().all(|(_, tunnel)| self.tunnels.contains_key(tunnel)));
    }

    fn take_token(&mut self, now: Instant, service: &Name) -> Result<(), Refusal> {
        let Limits { opens_per_second, open_burst, .. } = self.limits;
        let bucket = self
            .buckets
            .entry(service.clone())
            .or_insert_with(|| TokenBucket::new(now, opens_per_second, open_burst));
        bucket.take(now).map_err(|wait| {
            let text = format!("{service} asks for more than {opens_per_second} tunnels and lists a second");
            Refusal::new(RefusalCode::RateLimited, text).retry_after(wait)
        })
    }

    /// A newer link has taken a device's place.
    fn replace(&mut self, device: &Name, replaced: Replaced) {
        let (text, wait) = if replaced.by_another_holder {
            (format!("another holder of the identity of {device} has connected"), self.limits.superseded_wait)
        } else {
            (format!("{device} has connected anew"), Duration::ZERO)
        };
        let refusal = Refusal::new(RefusalCode::Superseded, text).retry_after(wait);
        self.actions.push_back(Action::Dismiss(replaced.link, refusal));
    }
}

fn draining(retry: Duration) -> Refusal {
    Refusal::new(RefusalCode::HubDraining, "this hub is being stopped").retry_after(retry)
}

#[cfg(test)]
mod tests;
