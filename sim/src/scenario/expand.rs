//! A scenario and a seed become a plan.
//!
//! Each stream and each fault draws from a stream of numbers of its own name, so that one more does not shift the others.

use super::check::{members, names};
use super::lines::Line;
use super::plan::{End, FORMAT, Fault, Host, Plan, Role, StreamPlan};
use super::{Backend, EndpointSpec, FaultKind, FaultSpec, Problem, Scenario, Share, Size, Span, WorkSpec};
use crate::random::{Random, Stream};

impl Scenario {
    /// Fixes everything that is drawn.
    ///
    /// # Errors
    ///
    /// If it makes no sense: see [`check`](Self::check).
    pub fn expand(&self, seed: u64, backend: Option<Backend>) -> Result<Plan, Problem> {
        let backend = self.check(backend)?;
        let random = Random::new(seed);
        let mut streams: Vec<_> =
            self.work.iter().flat_map(|work| self.streams(work, backend, random)).collect();
        streams.sort_by(|one, other| (one.start, &one.name).cmp(&(other.start, &other.name)));
        let mut faults: Vec<_> = self
            .faults
            .iter()
            .enumerate()
            .flat_map(|(index, fault)| self.faults(index, fault, random))
            .chain(self.firewalls())
            .collect();
        faults.sort_by(|one, other| (one.at, one.kind, &one.host).cmp(&(other.at, other.kind, &other.host)));
        Ok(Plan {
            format: FORMAT,
            scenario: self.name.clone(),
            seed,
            backend,
            limits: self.limits,
            hosts: self.hosts(random),
            session: self.session,
            streams,
            faults,
            expect: self.expect.clone(),
        })
    }

    fn hosts(&self, random: Random) -> Vec<Host> {
        let host = |name: &str, role, link: Option<&String>| {
            let Line { up, down, .. } = link.and_then(|name| self.line(name)).unwrap_or_default();
            Host {
                name: name.to_owned(),
                identity: name.to_owned(),
                role,
                link: up,
                down,
                hubs: Vec::new(),
                transport: Default::default(),
                proxy: None,
                start: Default::default(),
                handshake: Default::default(),
                unauthenticated: None,
            }
        };
        let hubs = self.hubs.iter().map(|hub| Host {
            handshake: hub.handshake,
            unauthenticated: hub.unauthenticated.map(|count| count.0),
            ..host(&hub.name, Role::Hub, hub.link.as_ref())
        });
        let proxies = self.proxies.iter().map(|proxy| host(&proxy.name, Role::Proxy, proxy.link.as_ref()));
        let mut hosts: Vec<_> = hubs.chain(proxies).collect();
        for (role, list) in [(Role::Device, &self.devices), (Role::Service, &self.services)] {
            for spec in list {
                hosts.extend(names(spec).iter().map(|name| Host {
                    identity: spec.identity.clone().unwrap_or_else(|| name.clone()),
                    hubs: self.hubs_of(spec),
                    transport: spec.transport,
                    proxy: spec.proxy.clone(),
                    start: spec.start.draw(&mut random.stream(&format!("host/{name}/start"))),
                    ..host(name, role, spec.link.as_ref())
                }));
            }
        }
        hosts
    }

    fn hubs_of(&self, spec: &EndpointSpec) -> Vec<String> {
        if spec.hubs.is_empty() {
            self.hubs.iter().map(|hub| hub.name.clone()).collect()
        } else {
            spec.hubs.clone()
        }
    }

    fn streams(&self, work: &WorkSpec, backend: Backend, random: Random) -> Vec<StreamPlan> {
        let of = |list, name: &str| members(list, name).map(|(_, names)| names).unwrap_or_default();
        let mut streams = Vec::new();
        for service in of(&self.services, &work.service) {
            for device in of(&self.devices, &work.device) {
                let base = format!("{}/{service}/{device}", work.name);
                let count = work.streams.draw(&mut random.stream(&format!("work/{base}"))).0;
                streams.extend((0..count).map(|index| {
                    let name = format!("{base}/{index}");
                    let draws = random.stream(&format!("work/{name}"));
                    let half_closes = half_closes(work, backend, random, &name);
                    stream(work, name, [&service, &device], half_closes, draws)
                }));
            }
        }
        streams
    }

    /// Where no UDP passes since the line is so: from the beginning to the end.
    fn firewalls(&self) -> impl Iterator<Item = Fault> {
        let is_behind_one = |link: &Option<String>| {
            link.as_ref().and_then(|name| self.line(name)).is_some_and(|line| line.blocks_udp)
        };
        let hubs = self.hubs.iter().filter(move |hub| is_behind_one(&hub.link)).map(|hub| hub.name.clone());
        let endpoints = self.endpoints().filter(move |(.., it)| is_behind_one(&it.link));
        let hosts = hubs.chain(endpoints.flat_map(|(.., it)| names(it)));
        hosts.map(|host| Fault { at: Span::default(), kind: FaultKind::BlockUdp, host, lasts: None })
    }

    fn faults(&self, index: usize, spec: &FaultSpec, random: Random) -> Vec<Fault> {
        let endpoints = members(&self.devices, &spec.host).or(members(&self.services, &spec.host));
        let hosts = endpoints.map_or_else(|| vec![spec.host.clone()], |(_, names)| names);
        let times = spec.times.draw(&mut random.stream(&format!("fault/{index}"))).0;
        let mut faults = Vec::new();
        for time in 0..times {
            let mut draws = random.stream(&format!("fault/{index}/{time}"));
            // Whose it is comes from numbers of its own: one host has no choice, and of many none changes when it happens.
            let mut host = random.stream(&format!("fault/{index}/{time}/host"));
            let chosen = if spec.each { hosts.clone() } else { vec![choose(&hosts, &mut host)] };
            faults.extend(chosen.into_iter().map(|host| Fault {
                at: spec.at.draw(&mut draws),
                kind: spec.kind,
                host,
                lasts: spec.lasts.map(|lasts| lasts.draw(&mut draws)),
            }));
        }
        faults
    }
}

fn choose(hosts: &[String], draws: &mut Stream) -> String {
    let place = if hosts.len() > 1 { draws.below(hosts.len() as u64) } else { 0 };
    hosts[usize::try_from(place).expect("below a length")].clone()
}

fn stream(
    work: &WorkSpec,
    name: String,
    [service, device]: [&str; 2],
    half_closes: bool,
    mut draws: Stream,
) -> StreamPlan {
    let start = work.start.draw(&mut draws);
    let rounds = work.rounds.draw(&mut draws).0;
    let (up, down) = (work.up.draw(&mut draws), work.down.draw(&mut draws));
    StreamPlan {
        name,
        service: service.to_owned(),
        device: device.to_owned(),
        start,
        rounds,
        up,
        down,
        think: work.think,
        both_ways: work.both_ways,
        interactive: work.interactive,
        half_closes,
        end: end(work, rounds, up, down, &mut draws),
        device_reads: work.device_reads,
        service_reads: work.service_reads,
        sips: work.sips,
        session: work.session,
    }
}

/// Whether the service finishes its half of the stream with this name before it has read the other.
fn half_closes(work: &WorkSpec, backend: Backend, random: Random, name: &str) -> bool {
    match work.half_closes {
        Some(Share(share)) => {
            random.stream(&format!("work/{name}/half_closes")).below(1_000_000) < u64::from(share)
        }
        None => backend == Backend::Des || work.both_ways,
    }
}

/// How long after it has finished a stream is reset at most, in nanoseconds.
const LATE: u64 = 200_000_000;

fn end(work: &WorkSpec, rounds: u64, up: Size, down: Size, draws: &mut Stream) -> End {
    let Share(kind) = Share(u32::try_from(draws.below(1_000_000)).expect("below a million"));
    let somewhere = |size: Size, draws: &mut Stream| Size(draws.below(size.0.saturating_mul(rounds)));
    if kind < work.resets.0 {
        End::Reset(somewhere(up, draws))
    } else if kind < work.resets.0 + work.stops.0 {
        End::Stop(somewhere(down, draws))
    } else if kind < work.resets.0 + work.stops.0 + work.late_resets.0 {
        End::Late(Span(draws.below(LATE)))
    } else {
        End::Finish
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Count, parse};

    /// Of how many streams the service finishes its half early, of a hundred.
    fn early(keys: &str, backend: Backend) -> (usize, Vec<StreamPlan>) {
        let text = format!(
            "name = \"early\"\nstory = \"Some hang up late.\"\n[[hub]]\nname = \"hub\"\n[[device]]\nname = \"device\"\n\
            [[service]]\nname = \"service\"\n[[work]]\nname = \"ask\"\nservice = \"service\"\ndevice = \"device\"\n\
            streams = 100\nup = \"1 B..9 KiB\"\n{keys}"
        );
        let scenario = parse("early.toml", &text).expect("it can be read");
        let mut streams = scenario.expand(3, Some(backend)).expect("it makes sense").streams;
        let early = streams.iter().filter(|stream| stream.half_closes).count();
        streams.iter_mut().for_each(|stream| stream.half_closes = true);
        (early, streams)
    }

    #[test]
    fn how_many_streams_close_a_half_early_is_said_or_as_the_backend_has_it() {
        let (share, streams) = early("half_closes = \"30 %\"", Backend::Des);
        assert!((10..60).contains(&share), "{share}");
        assert_eq!(streams, early("", Backend::Des).1, "and it shifts nothing else");
        assert_eq!(early("", Backend::Des).0, 100);
        assert_eq!(early("", Backend::Turmoil).0, 0);
        assert_eq!(early("both_ways = true\ndown = \"1 B\"", Backend::Turmoil).0, 100);
        assert_eq!(early("half_closes = \"100 %\"", Backend::Turmoil).0, 100);
        assert_eq!(early("half_closes = \"0 %\"", Backend::Des).0, 0);
    }

    /// A group of so many devices, and faults of which each strikes one of them or all.
    fn plan(devices: u64, seed: u64) -> Plan {
        let text = "name = \"group\"\nstory = \"One more device shifts nothing.\"\n[[hub]]\nname = \"hub\"\n\
            [[device]]\nname = \"device\"\nstart = \"0 s..9 s\"\n[[service]]\nname = \"service\"\n\
            [[work]]\nname = \"talk\"\nservice = \"service\"\ndevice = \"device\"\nstreams = \"1..4\"\nstart = \"1 s..9 s\"\nup = \"1 KiB..64 KiB\"\n\
            [[fault]]\nkind = \"hold\"\nhost = \"device\"\nat = \"1 s..90 s\"\nfor = \"1 s..90 s\"\ntimes = \"2..6\"\n\
            [[fault]]\nkind = \"crash\"\nhost = \"device\"\neach = true\nat = \"1 s..90 s\"\nfor = \"1 s..90 s\"\n";
        let mut scenario = parse("group.toml", text).expect("it can be read");
        scenario.devices[0].count = Some(Count(devices));
        scenario.expand(seed, None).expect("it makes sense")
    }

    #[test]
    fn one_more_member_of_a_group_shifts_nothing_else() {
        for seed in 0..20 {
            for devices in 1..4 {
                let (fewer, more) = (plan(devices, seed), plan(devices + 1, seed));
                assert!(fewer.hosts.iter().all(|host| more.hosts.contains(host)), "{devices} {seed}");
                assert!(fewer.streams.iter().all(|stream| more.streams.contains(stream)), "{devices} {seed}");
                let holds = |plan: &Plan| -> Vec<_> {
                    let holds = plan.faults.iter().filter(|fault| fault.kind == FaultKind::Hold);
                    holds.map(|fault| (fault.at, fault.lasts)).collect()
                };
                // Another one may be struck, at the same time and for as long.
                assert_eq!(holds(&fewer), holds(&more), "{devices} {seed}");
                let mut crashes = fewer.faults.iter().filter(|fault| fault.kind == FaultKind::Crash);
                assert!(crashes.all(|fault| more.faults.contains(fault)), "{devices} {seed}");
            }
        }
    }
}
