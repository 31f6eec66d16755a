//! Whether a scenario makes sense: names that exist, topologies that can be, expectations that do not contradict each
//! other, and a backend that has what it asks for.

use std::collections::BTreeSet;
use std::fmt;

use super::lines::Line;
use super::{Backend, Count, EndpointSpec, FaultKind, Rate, Scenario, Size, is_supported};
use crate::expect::unheard_of;
use crate::link::{Burst, LinkSpec, Reorder};
use crate::profile;

/// What is wrong, and where: the keys that lead there, such as `fault`, `2`, `host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The keys; those of lists are numbers from 0.
    pub path: Vec<String>,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.join("."), self.text)
    }
}

impl std::error::Error for Problem {}

fn problem(path: &[&str], text: impl Into<String>) -> Result<(), Problem> {
    Err(Problem { path: self::path(path), text: text.into() })
}

/// A key of a link, and whether that has it.
type LinkKey = (&'static str, fn(&LinkSpec) -> bool);

/// How many hosts there may be: what a run of some gigabytes can hold.
const MAX_HOSTS: u64 = 100_000;

/// The most streams of all works together: each needs some hundred bytes before it says anything.
const MAX_STREAMS: u64 = 1_000_000;

/// The most faults of all kinds together.
const MAX_FAULTS: u64 = 1_000_000;

impl Scenario {
    /// Whether it makes sense, on the backend that it will run on.
    ///
    /// # Errors
    ///
    /// The first thing that does not.
    pub fn check(&self, backend: Option<Backend>) -> Result<Backend, Problem> {
        self.check_names()?;
        self.check_topology()?;
        self.check_links()?;
        self.check_session()?;
        self.check_work()?;
        self.check_faults()?;
        self.check_expectations()?;
        self.check_backend(backend)
    }

    fn check_names(&self) -> Result<(), Problem> {
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            return problem(&["name"], "a name is made of small letters, digits and hyphens");
        }
        if self.story.trim().is_empty() {
            return problem(&["story"], "say what happens and why it is worth a look");
        }
        for (key, span) in [("simulated", self.limits.simulated), ("wall", self.limits.wall)] {
            if span.0 == 0 {
                return problem(&["limits", key], "in no time nothing happens");
            }
        }
        let mut names = BTreeSet::new();
        for (list, name, index) in self.all_names() {
            let index = index.to_string();
            let path = [list, index.as_str(), "name"];
            if name.is_empty() || !name.chars().all(is_plain) {
                return problem(&path, format!("`{name}` is no name: small letters, digits and hyphens"));
            }
            if !names.insert(name) {
                return problem(&path, format!("there are two hosts with the name `{name}`: rename one"));
            }
        }
        Ok(())
    }

    /// The name of each host or group, with its list and its place there.
    fn all_names(&self) -> impl Iterator<Item = (&'static str, &str, usize)> {
        let hubs = self.hubs.iter().enumerate().map(|(index, it)| ("hub", it.name.as_str(), index));
        let proxies = self.proxies.iter().enumerate().map(|(index, it)| ("proxy", it.name.as_str(), index));
        let devices = self.devices.iter().enumerate().map(|(index, it)| ("device", it.name.as_str(), index));
        let services =
            self.services.iter().enumerate().map(|(index, it)| ("service", it.name.as_str(), index));
        hubs.chain(proxies).chain(devices).chain(services)
    }

    fn check_topology(&self) -> Result<(), Problem> {
        if self.hubs.is_empty() {
            return problem(&["hub"], "there is no hub, so nobody can meet: add a [[hub]]");
        }
        let count = |it: &EndpointSpec| it.count.map_or(1, |count| count.0);
        let hosts = self.endpoints().fold(0, |sum: u64, (.., it)| sum.saturating_add(count(it)));
        if hosts > MAX_HOSTS {
            return problem(&["device"], format!("{hosts} devices and services; there can be {MAX_HOSTS}"));
        }
        let fixed = self.all_names().filter(|(list, ..)| matches!(*list, "hub" | "proxy"));
        let mut all: BTreeSet<String> = fixed.map(|(_, name, _)| name.to_owned()).collect();
        for (list, index, endpoint) in self.endpoints() {
            if let Some(name) = names(endpoint).into_iter().find(|name| !all.insert(name.clone())) {
                let text = format!(
                    "there are two hosts with the name `{name}`, one of them out of a group: rename one"
                );
                return problem(&[list, &index.to_string(), "name"], text);
            }
        }
        for (list, index, name) in self.line_names() {
            if self.line(name).is_none() {
                let own: Vec<_> = self.links.keys().map(String::as_str).collect();
                let profiles: Vec<_> = profile::names().collect();
                let own = if own.is_empty() { String::new() } else { format!("{}, and ", own.join(", ")) };
                let text = format!(
                    "there is no [link.{name}], and no profile `{name}`; there are: {own}the profiles {}",
                    profiles.join(", ")
                );
                return problem(&[list, &index.to_string(), "link"], text);
            }
        }
        for (list, index, endpoint) in self.endpoints() {
            let index = index.to_string();
            let at = |key| [list, index.as_str(), key];
            if endpoint.count.is_some_and(|count| count.0 == 0) {
                return problem(&at("count"), "none of them: leave the whole entry out");
            }
            if endpoint.start.least >= self.limits.simulated {
                return problem(&at("start"), self.ends_before());
            }
            if let Some(hub) =
                endpoint.hubs.iter().find(|name| !self.hubs.iter().any(|hub| hub.name == **name))
            {
                return problem(&at("hubs"), format!("there is no hub `{hub}`"));
            }
            if let Some(proxy) = &endpoint.proxy
                && !self.proxies.iter().any(|it| it.name == *proxy)
            {
                return problem(&at("proxy"), format!("there is no proxy `{proxy}`: add a [[proxy]]"));
            }
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), Problem> {
        for (name, link) in &self.links {
            let at = |key| ["link", name.as_str(), key];
            if link.rate.is_some_and(|rate| rate.0 == 0) {
                return problem(&at("rate"), "nothing gets through at no rate: use the fault `hold`");
            }
            if link.queue.is_some() && link.rate.is_none() {
                return problem(
                    &at("queue"),
                    "without a rate nothing ever waits in a queue: say a rate as well",
                );
            }
            let mut shares =
                vec![(at("loss").to_vec(), link.loss), (at("duplicate").to_vec(), link.duplicate)];
            if let Some(Reorder { share, .. }) = link.reorder {
                shares.push((vec!["link", name, "reorder", "share"], share));
            }
            if let Some(Burst { enter, leave, loss }) = link.burst {
                let of_burst = [("enter", enter), ("leave", leave), ("loss", loss)];
                shares.extend(of_burst.map(|(key, share)| (vec!["link", name, "burst", key], share)));
            }
            if let Some((path, _)) = shares.into_iter().find(|(_, share)| share.0 > 1_000_000) {
                return problem(&path, "more than all of them");
            }
        }
        Ok(())
    }

    fn check_session(&self) -> Result<(), Problem> {
        let it = &self.session;
        let none = [
            ("stream_window", it.stream_window == Some(Size(0))),
            ("session_window", it.session_window == Some(Size(0))),
            ("send_buffer", it.send_buffer == Some(Size(0))),
            ("max_streams", it.max_streams == Some(Count(0))),
        ];
        match none.into_iter().find(|(_, is_none)| *is_none) {
            Some((key, _)) => problem(&["session", key], "with none of it nothing is ever said"),
            None => Ok(()),
        }
    }

    fn ends_before(&self) -> String {
        format!("the world ends before that, after {}", self.limits.simulated)
    }

    fn check_work(&self) -> Result<(), Problem> {
        let mut streams = 0_u64;
        for (index, work) in self.work.iter().enumerate() {
            let index = index.to_string();
            let at = |key| ["work", index.as_str(), key];
            let Some((_, services)) = members(&self.services, &work.service) else {
                return problem(&at("service"), format!("there is no service `{}`", work.service));
            };
            let Some((_, devices)) = members(&self.devices, &work.device) else {
                return problem(&at("device"), format!("there is no device `{}`", work.device));
            };
            let pairs = services.len() as u64 * devices.len() as u64;
            streams = streams.saturating_add(pairs.saturating_mul(work.streams.most.0));
            if streams > MAX_STREAMS {
                let text = format!("{streams} streams in all, up to here; there can be {MAX_STREAMS}");
                return problem(&at("streams"), text);
            }
            if work.start.least >= self.limits.simulated {
                return problem(&at("start"), self.ends_before());
            }
            let reads = [("device_reads", work.device_reads), ("service_reads", work.service_reads)];
            if let Some((key, _)) = reads.into_iter().find(|(_, rate)| *rate == Some(Rate(0))) {
                return problem(&at(key), "who reads at no rate never reads: use the fault `slow-reader`");
            }
            if work.up.most == Size(0) && work.down.most == Size(0) {
                return problem(&at("name"), "nobody says anything: give `up` or `down` a size");
            }
            if work.rounds.least.0 == 0 {
                return problem(&at("rounds"), "a stream has at least one round");
            }
            let ends = [work.resets, work.stops, work.late_resets];
            if ends.iter().map(|share| u64::from(share.0)).sum::<u64>() > 1_000_000 {
                let text = "`resets`, `stops` and `late_resets` are more than all streams together";
                return problem(&at("resets"), text);
            }
            if work.sips == Some(Size(0)) {
                return problem(&at("sips"), "who reads nothing at once never reads");
            }
            let hubs = |list: &[EndpointSpec], name: &str| {
                let members = members(list, name).map(|(spec, _)| spec.hubs.clone()).unwrap_or_default();
                if members.is_empty() {
                    self.hubs.iter().map(|hub| hub.name.clone()).collect()
                } else {
                    members
                }
            };
            let of_device = hubs(&self.devices, &work.device);
            if !hubs(&self.services, &work.service).iter().any(|hub| of_device.contains(hub)) {
                return problem(&at("device"), "the service and the device know no hub in common");
            }
        }
        Ok(())
    }

    fn check_faults(&self) -> Result<(), Problem> {
        let mut faults: u64 = 0;
        for (index, fault) in self.faults.iter().enumerate() {
            let index = index.to_string();
            let at = |key| ["fault", index.as_str(), key];
            let is_hub = self.hubs.iter().any(|hub| hub.name == fault.host);
            let is_proxy = self.proxies.iter().any(|proxy| proxy.name == fault.host);
            let is_endpoint =
                members(&self.devices, &fault.host).or(members(&self.services, &fault.host)).is_some();
            if !is_hub && !is_proxy && !is_endpoint {
                return problem(&at("host"), format!("there is no host `{}`", fault.host));
            }
            let group = members(&self.devices, &fault.host).or(members(&self.services, &fault.host));
            let each = group.filter(|_| fault.each).map_or(1, |(_, names)| names.len() as u64);
            faults = faults.saturating_add(fault.times.most.0.saturating_mul(each));
            if faults > MAX_FAULTS {
                let text = format!("{faults} faults in all, up to here; there can be {MAX_FAULTS}");
                return problem(&at("times"), text);
            }
            let suits = match fault.kind {
                FaultKind::Drain => is_hub,
                FaultKind::DrainSessions
                | FaultKind::CloseSessions
                | FaultKind::Replay
                | FaultKind::Forge => members(&self.devices, &fault.host).is_some(),
                FaultKind::LateBytes | FaultKind::BlockTls => is_endpoint,
                FaultKind::SlowReader | FaultKind::Move => is_endpoint,
                FaultKind::Suspend | FaultKind::ClockJump => is_endpoint || is_hub,
                _ => true,
            };
            if !suits {
                return problem(&at("kind"), format!("this cannot happen to `{}`", fault.host));
            }
            if fault.kind.is_over_at_once() && fault.lasts.is_some() {
                return problem(&at("for"), "this is over at once: leave `for` out");
            }
            let needs_end = matches!(fault.kind, FaultKind::Suspend | FaultKind::ClockJump);
            if needs_end && fault.lasts.is_none() {
                return problem(&at("kind"), "say for how long, with `for`");
            }
            if fault.at.least >= self.limits.simulated {
                return problem(&at("at"), self.ends_before());
            }
        }
        Ok(())
    }

    fn check_expectations(&self) -> Result<(), Problem> {
        let expect = &self.expect;
        if let Some((place, text)) = unheard_of(&expect.sometimes) {
            return problem(&["expect", "sometimes", &place.to_string()], text);
        }
        if expect.no_failure && expect.some_failure {
            return problem(&["expect", "some_failure"], "contradicts `no_failure`: only one can hold");
        }
        if let (Some(least), Some(most)) = (expect.resumes_at_least, expect.resumes_at_most)
            && most.0 == 0
            && least.0 > 0
        {
            return problem(&["expect", "resumes_at_least"], "contradicts `resumes_at_most = 0`");
        }
        if expect.resumes_at_least.is_some_and(|least| least.0 > 0) && !self.session.resumable {
            return problem(&["expect", "resumes_at_least"], "contradicts `resumable = false` in [session]");
        }
        if expect.interactive_below.is_some() && !self.work.iter().any(|work| work.interactive) {
            return problem(&["expect", "interactive_below"], "no [[work]] is interactive");
        }
        if (expect.all_online || expect.online_within.is_some()) && self.devices.is_empty() {
            return problem(&["expect"], "there is no device that could be online");
        }
        Ok(())
    }

    fn check_backend(&self, backend: Option<Backend>) -> Result<Backend, Problem> {
        let able = self.backends();
        if let Some(backend) = backend.or(self.backend) {
            for feature in self.features() {
                if let Err(why) = is_supported(backend, feature) {
                    let text = format!("not on the backend `{backend}`: {why}");
                    return Err(Problem { path: self.path_of(feature), text });
                }
            }
            return Ok(backend);
        }
        match able.first() {
            Some(&backend) => Ok(backend),
            None => {
                let why =
                    |backend| self.features().into_iter().find_map(|it| is_supported(backend, it).err());
                let why = Backend::ALL.map(|it| format!("{it}: {}", why(it).unwrap_or_default())).join("; ");
                let text = format!("no backend has all that it asks for: {why}");
                Err(Problem { path: self.path_of_what_is_missing(), text })
            }
        }
    }

    /// Where it asks for the first feature that the likelier backend does not have: the one that lacks least.
    fn path_of_what_is_missing(&self) -> Vec<String> {
        let features = self.features();
        let lacks = |backend: &Backend| {
            let lacks = features.iter().filter(|&&it| is_supported(*backend, it).is_err());
            lacks.copied().collect::<Vec<_>>()
        };
        let likelier = Backend::ALL.iter().map(lacks).min_by_key(Vec::len).unwrap_or_default();
        // A key of its own says more than the name, which stands for what the whole of it asks for.
        let paths = || likelier.iter().map(|&feature| self.path_of(feature));
        paths().find(|path| *path != ["name"]).unwrap_or_else(|| path(&["name"]))
    }

    /// Where a scenario asks for a feature.
    fn path_of(&self, feature: super::Feature) -> Vec<String> {
        use super::Feature;
        match feature {
            Feature::Fault(kind) => {
                let place = self.faults.iter().position(|fault| fault.kind == kind).unwrap_or(0);
                path(&["fault", &place.to_string(), "kind"])
            }
            Feature::BlockUdpWithoutQuic if self.faults.iter().any(|it| it.kind == FaultKind::BlockUdp) => {
                self.path_of(Feature::Fault(FaultKind::BlockUdp))
            }
            Feature::BlockUdpWithoutQuic => self.path_of_line(|line| line.blocks_udp),
            Feature::Loss | Feature::LossUnderTcp => self.path_of_link(&[
                ("loss", |it| it.loss.0 > 0),
                ("burst", |it| it.burst.is_some()),
                ("reorder", |it| it.reorder.is_some()),
                ("duplicate", |it| it.duplicate.0 > 0),
            ]),
            Feature::Mtu | Feature::MtuUnderTcp => self.path_of_link(&[("mtu", |it| it.mtu.is_some())]),
            Feature::Nat => self.path_of_link(&[("nat_timeout", |it| it.nat_timeout.is_some())]),
            Feature::Memory => path(&["expect", "memory_below"]),
            Feature::Session => path(&["session"]),
            Feature::Survival => path(&["expect", "no_failure"]),
            Feature::Resumes => path(&["expect", "resumes_at_most"]),
            Feature::ResumesAtLeast => path(&["expect", "resumes_at_least"]),
            Feature::Links => path(&["expect", "links_at_most"]),
            Feature::Handshake => {
                let place = self.hubs.iter().position(|hub| hub.handshake.0 > 0).unwrap_or(0);
                path(&["hub", &place.to_string(), "handshake"])
            }
            Feature::Window => path(&["expect", "window_at_least"]),
            Feature::LateResets => {
                let place = self.work.iter().position(|work| work.late_resets.0 > 0).unwrap_or(0);
                path(&["work", &place.to_string(), "late_resets"])
            }
            Feature::Transport(transport) => {
                let place = self.endpoints().find(|(.., it)| it.transport == transport);
                place.map_or(path(&["name"]), |(list, index, _)| {
                    path(&[list, &index.to_string(), "transport"])
                })
            }
            Feature::Hosts(_) => path(&["name"]),
        }
    }

    /// Where the scenario's links have the first of these keys that any has; or the host that is on such a profile.
    fn path_of_link(&self, keys: &[LinkKey]) -> Vec<String> {
        for (key, is_there) in keys {
            if let Some((name, _)) = self.links.iter().find(|(_, link)| is_there(link)) {
                return path(&["link", name, key]);
            }
        }
        self.path_of_line(|line| line.ways().any(|way| keys.iter().any(|(_, is_there)| is_there(way))))
    }

    /// Where a host is on such a line.
    fn path_of_line(&self, is_such: impl Fn(&Line) -> bool) -> Vec<String> {
        let found = self.line_names().find(|(.., name)| self.line(name).is_some_and(|line| is_such(&line)));
        found.map_or(path(&["link"]), |(list, index, _)| path(&[list, &index.to_string(), "link"]))
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&'static str, usize, &EndpointSpec)> {
        let devices = self.devices.iter().enumerate().map(|(index, it)| ("device", index, it));
        devices.chain(self.services.iter().enumerate().map(|(index, it)| ("service", index, it)))
    }
}

/// The keys that lead somewhere.
fn path(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

/// The group that `name` is, or is one of; and its names.
pub(super) fn members<'a>(list: &'a [EndpointSpec], name: &str) -> Option<(&'a EndpointSpec, Vec<String>)> {
    list.iter().find_map(|spec| {
        let names = names(spec);
        if spec.name == name {
            Some((spec, names))
        } else {
            names.iter().any(|it| it == name).then(|| (spec, vec![name.to_owned()]))
        }
    })
}

/// The names of the hosts of a group.
pub(super) fn names(spec: &EndpointSpec) -> Vec<String> {
    match spec.count {
        None => vec![spec.name.clone()],
        Some(count) => (0..count.0).map(|index| format!("{}-{index}", spec.name)).collect(),
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'
}
