//! A plan, played.
//!
//! In: a [`Plan`]. Out: events, properties and figures, in the sink. Each hub and each proxy is a host of turmoil's, and
//! so is each device and service, as long as there are not too many; beyond that they share hosts, since each step of
//! turmoil's looks at every pair of them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use turmoil::{Builder, Sim};

use super::air::{Air, nanoseconds};
use super::fault::Faults;
use super::firewall::Kind;
use super::line::Line;
use super::play;
use super::stage::{DEVICE, Progress, SERVICE, Stage};
use crate::crypto::EPOCH;
use crate::expect;
use crate::explore::{catch, has_panicked};
use crate::run::{Ended, Rest, Sink};
use crate::scenario::{End, FaultKind, Host, Plan, Role, StreamPlan, Transport};

/// The most hosts of turmoil's.
const MAX_HOSTS: usize = 25;

/// How long after the work is done everybody has to go home. A QUIC link whose last word is lost ends by its idle timeout.
const CLOSING: Duration = Duration::from_secs(40);

/// How long a device may not know that another one has taken its place: a slow line, and the hub's goodbye.
const TAKEOVER: Duration = Duration::from_secs(5);

/// What a kind of link has carried that was in use, in bytes: more than its handshakes.
const A_LOT: u64 = 32 << 10;

/// How many steps there are between two looks at the real clock.
const LOOK_EVERY: u64 = 256;

/// Runs a plan. A panic of the product, in whatever task, is a broken property.
///
/// # Errors
///
/// turmoil cannot run it, or one of its hosts failed.
pub fn run(plan: &Plan, sink: &mut Sink) -> anyhow::Result<Rest> {
    let air = Air::default();
    air.set_sink(std::mem::take(sink));
    let rest = play_out(plan, &air);
    *sink = air.set_sink(Sink::default());
    rest
}

fn play_out(plan: &Plan, air: &Air) -> anyhow::Result<Rest> {
    let sites = sites(plan)?;
    let may_use_websocket = |host: &Host| matches!(host.transport, Transport::WebSocket | Transport::Auto);
    let endpoints = || plan.hosts.iter().filter(|host| matches!(host.role, Role::Device | Role::Service));
    if endpoints().any(may_use_websocket) {
        air.keep_lengths_only();
    }
    let stage = Stage::new(plan.clone(), air.clone());
    let mut sim = simulation(plan);
    for (host, site) in plan.hosts.iter().zip(&sites) {
        air.connect(&host.name, Line::new(host.ways().map(Clone::clone), stage.random, &host.name));
        if *site == host.name {
            settle(&mut sim, &stage, host);
        }
    }
    settle_together(&mut sim, &stage, &sites);
    let rest = play_through(&mut sim, &stage)?;
    // What is dropped in here says goodbye, which is not part of it any more.
    let sink = air.set_sink(Sink::default());
    // A host that has panicked may do so again.
    let _ = catch(|| drop(sim));
    air.set_sink(sink);
    Ok(rest)
}

/// Lets everybody play, to the end or until somebody panics.
fn play_through(sim: &mut Sim<'_>, stage: &Rc<Stage>) -> anyhow::Result<Rest> {
    let mut director = Director::new(stage.clone());
    let outcome = catch(|| director.direct(sim));
    let simulated = nanoseconds(sim.elapsed());
    let ended = match outcome {
        Ok(ended) => ended?,
        Err(broken) => {
            stage.air.set_clock(sim.elapsed());
            stage.air.always(broken.property, false, "product", || broken.detail());
            return Ok(Rest { ended: Ended::Panicked, simulated, waiting: director.waiting() });
        }
    };
    let waiting = if ended == Ended::Done { Vec::new() } else { director.waiting() };
    director.measure();
    Ok(Rest { ended, simulated, waiting })
}

/// A simulation without a network of its own: everything arrives in the next tick.
fn simulation<'a>(plan: &Plan) -> Sim<'a> {
    Builder::new()
        .tick_duration(TICK)
        .simulation_duration(Duration::MAX)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::ZERO)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        // More than that waiting for a listener, and turmoil panics.
        .tcp_capacity(1 << 14)
        .udp_capacity(1 << 14)
        .rng_seed(plan.seed)
        .build()
}

/// tokio's timers know nothing shorter.
const TICK: Duration = Duration::from_millis(1);

/// On which host of turmoil's each host of the plan is.
fn sites(plan: &Plan) -> anyhow::Result<Vec<String>> {
    let fixed = plan.hosts.iter().filter(|host| matches!(host.role, Role::Hub | Role::Proxy)).count();
    if plan.hosts.len() <= MAX_HOSTS {
        return Ok(plan.hosts.iter().map(|host| host.name.clone()).collect());
    }
    ensure!(fixed < MAX_HOSTS, "turmoil has time for {MAX_HOSTS} hosts, and {fixed} are hubs and proxies");
    let shared = MAX_HOSTS - fixed;
    let endpoint =
        |name: &str| plan.host(name).is_some_and(|host| matches!(host.role, Role::Device | Role::Service));
    let dies = |kind| matches!(kind, FaultKind::Crash | FaultKind::PowerLoss);
    if let Some(fault) = plan.faults.iter().find(|fault| dies(fault.kind) && endpoint(&fault.host)) {
        bail!(
            "{} cannot die alone: with more than {MAX_HOSTS} hosts, devices and services share those of turmoil; \
             use fewer, or --backend des",
            fault.host
        );
    }
    let mut next = 0;
    let site = |host: &Host| {
        if matches!(host.role, Role::Hub | Role::Proxy) {
            return host.name.clone();
        }
        next += 1;
        format!("site-{}", (next - 1) % shared)
    };
    Ok(plan.hosts.iter().map(site).collect())
}

/// Gives a host of the plan one of turmoil's.
fn settle(sim: &mut Sim<'_>, stage: &Rc<Stage>, host: &Host) {
    let (stage, host) = (stage.clone(), host.clone());
    match host.role {
        Role::Hub => sim.host(host.name.clone(), move || play::hub(stage.clone(), host.clone())),
        Role::Proxy => sim.host(host.name.clone(), move || play::proxy(stage.clone(), host.clone())),
        Role::Device => {
            sim.host(host.name.clone(), move || play::device(stage.clone(), host.clone(), host.name.clone()));
        }
        Role::Service => {
            sim.host(host.name.clone(), move || {
                play::service(stage.clone(), host.clone(), host.name.clone())
            });
        }
    }
}

/// Gives those who share a host of turmoil's one.
fn settle_together(sim: &mut Sim<'_>, stage: &Rc<Stage>, sites: &[String]) {
    let hosts = || stage.plan.hosts.iter().zip(sites).filter(|(host, site)| host.name != **site);
    let mut names: Vec<&String> = hosts().map(|(_, site)| site).collect();
    names.sort();
    names.dedup();
    for name in names {
        let members: Vec<Host> =
            hosts().filter(|(_, site)| *site == name).map(|(host, _)| host.clone()).collect();
        let (stage, name) = (stage.clone(), name.clone());
        sim.host(name.clone(), move || {
            let (stage, members, name) = (stage.clone(), members.clone(), name.clone());
            async move {
                let played = members.into_iter().map(|host| {
                    let (stage, site) = (stage.clone(), name.clone());
                    tokio::task::spawn_local(async move {
                        match host.role {
                            Role::Device => play::device(stage, host, site).await,
                            _ => play::service(stage, host, site).await,
                        }
                        .map_err(|error| error.to_string())
                    })
                });
                for played in played.collect::<Vec<_>>() {
                    played.await??;
                }
                Ok(())
            }
        });
    }
}

/// Lets time pass, has things go wrong, and looks on.
struct Director {
    stage: Rc<Stage>,
    faults: Faults,
    steps: u64,
    /// Since when all devices are online again, after the last fault.
    online_after: Option<u64>,
    /// Since when two devices with one identity have both been online, as they see it.
    both_online: BTreeMap<String, u64>,
}

impl Director {
    fn new(stage: Rc<Stage>) -> Self {
        Self {
            faults: Faults::new(stage.clone()),
            stage,
            steps: 0,
            online_after: None,
            both_online: BTreeMap::new(),
        }
    }

    /// Plays until all is done and everybody has gone home, or until a limit.
    fn direct(&mut self, sim: &mut Sim<'_>) -> anyhow::Result<Ended> {
        let ended = self.play(sim)?;
        self.look_at_devices();
        if ended == Ended::Done {
            self.look_at_residue(sim)?;
        }
        Ok(ended)
    }

    /// Plays until all is done, or until a limit.
    #[expect(clippy::disallowed_methods, reason = "the limit of real time is one of the real clock")]
    fn play(&mut self, sim: &mut Sim<'_>) -> anyhow::Result<Ended> {
        let limits = self.stage.plan.limits;
        let start = Instant::now();
        while !self.is_done() {
            if nanoseconds(sim.elapsed()) >= limits.simulated.0 {
                return Ok(Ended::SimulatedLimit);
            }
            if self.steps.is_multiple_of(LOOK_EVERY) && nanoseconds(start.elapsed()) >= limits.wall.0 {
                return Ok(Ended::WallLimit);
            }
            self.step(sim)?;
        }
        Ok(Ended::Done)
    }

    fn step(&mut self, sim: &mut Sim<'_>) -> anyhow::Result<()> {
        self.steps += 1;
        self.stage.air.set_clock(sim.elapsed());
        self.faults.advance(sim);
        sim.step().map_err(|error| anyhow::anyhow!("{error}")).context("a host of the simulation failed")?;
        ensure!(!has_panicked(), "a task of the simulation panicked");
        self.stage.air.set_clock(sim.elapsed());
        self.look_who_is_online();
        self.look_at_twins();
        Ok(())
    }

    /// Of two devices with one identity, the one that came last is in at once, and the other one hears of it. A device that
    /// is cut off cannot hear of anything.
    fn look_at_twins(&mut self) {
        let plan = &self.stage.plan;
        if !plan.faults.is_empty() {
            return;
        }
        let now = self.stage.now();
        let online = self.stage.online.borrow();
        let mut present: BTreeMap<&str, u32> = BTreeMap::new();
        for host in plan.hosts_of(Role::Device).filter(|host| online.contains(&host.name)) {
            *present.entry(&host.identity).or_default() += 1;
        }
        let shared =
            |name: &str| plan.hosts_of(Role::Device).filter(|host| host.identity == name).count() > 1;
        present.retain(|name, _| shared(name));
        self.both_online.retain(|name, _| present.get(name.as_str()).is_some_and(|count| *count > 1));
        for (name, count) in present {
            let since = if count > 1 { *self.both_online.entry(name.to_owned()).or_insert(now) } else { now };
            let soon = now - since <= nanoseconds(TAKEOVER);
            self.stage.air.always("newest_wins_now", soon, name, || {
                format!("two devices with this identity have both been online since {} ms", since / 1_000_000)
            });
        }
    }

    /// All streams are over, all faults too, and all devices are where they should be.
    fn is_done(&self) -> bool {
        let plan = &self.stage.plan;
        let all_online =
            !(plan.expect.all_online || plan.expect.online_within.is_some()) || self.online_after.is_some();
        self.faults.are_over()
            && all_online
            && self.stage.streams.borrow().iter().all(|stream| stream.is_over())
    }

    fn look_who_is_online(&mut self) {
        let devices = self.stage.plan.hosts_of(Role::Device).count();
        if !self.faults.are_over() || self.stage.online.borrow().len() < devices {
            self.online_after = None;
        } else if self.online_after.is_none() {
            self.online_after = Some(self.stage.now().saturating_sub(self.faults.last));
        }
    }

    /// Who is online in the end, and since when all are: before everybody is sent home.
    fn look_at_devices(&self) {
        let online = self.stage.online.borrow().len() as u64;
        let after = self.online_after.unwrap_or(u64::MAX);
        self.with_sink(|sink| {
            sink.most(expect::ONLINE, online);
            sink.most(expect::ONLINE_AFTER, after);
        });
    }

    /// Everything was said: there are no sessions, the hubs have no tunnels any more, and once everybody has gone home,
    /// there are no links and no connections.
    fn look_at_residue(&mut self, sim: &mut Sim<'_>) -> anyhow::Result<()> {
        let tunnels = |stage: &Stage| {
            let hubs = stage.plan.hosts_of(Role::Hub);
            hubs.filter_map(|hub| stage.stats(&hub.name))
                .map(|stats| (stats.tunnels, stats.links))
                .fold((0, 0), |(tunnels, links), (more, and)| (tunnels + more, links + and))
        };
        self.stage.idle.set(true);
        self.wait(sim, |stage| tunnels(stage).0 == 0 && stage.has_no_session())?;
        let left = tunnels(&self.stage).0;
        self.stage.over.set(true);
        self.wait(sim, |stage| tunnels(stage) == (0, 0) && stage.air.connections() == 0)?;
        let (_, links) = tunnels(&self.stage);
        let connections = self.stage.air.connections();
        self.with_sink(|sink| sink.most(expect::RESIDUE, (left + links + connections) as u64));
        Ok(())
    }

    /// Lets time pass until something is so, for a while.
    fn wait(&mut self, sim: &mut Sim<'_>, is_so: impl Fn(&Stage) -> bool) -> anyhow::Result<()> {
        let until = sim.elapsed() + CLOSING;
        while !is_so(&self.stage) && sim.elapsed() < until {
            self.step(sim)?;
        }
        Ok(())
    }

    fn with_sink(&self, act: impl FnOnce(&mut Sink)) {
        let mut sink = self.stage.air.set_sink(Sink::default());
        act(&mut sink);
        self.stage.air.set_sink(sink);
    }

    /// Who waits for what.
    fn waiting(&self) -> Vec<String> {
        let streams = self.stage.streams.borrow();
        let open = self.stage.plan.streams.iter().zip(&*streams).filter(|(_, stream)| !stream.is_over());
        let mut waiting: Vec<String> = open
            .map(|(plan, stream)| {
                let [service, device] = &stream.sides;
                match (stream.wanted, stream.opened) {
                    (false, _) => format!("{}: {} has not begun", plan.name, plan.service),
                    (true, false) => {
                        format!("{}: {} waits for a tunnel to {}", plan.name, plan.service, plan.device)
                    }
                    (true, true) => format!(
                        "{}: the service has written {} and read {}, the device has written {} and read {}; \
                         nothing since {} ms",
                        plan.name,
                        service.written,
                        service.read,
                        device.written,
                        device.read,
                        stream.last / 1_000_000
                    ),
                }
            })
            .collect();
        let online = self.stage.online.borrow();
        let offline = self.stage.plan.hosts_of(Role::Device).filter(|host| !online.contains(&host.name));
        waiting.extend(offline.map(|host| format!("{} is not online", host.name)));
        waiting
    }

    /// Looks at what streams made of it when the kind of link beneath their session changed: nothing.
    fn look_at_hops(&self) {
        let plan = &self.stage.plan;
        let has_session = |host: &&Host| plan.streams.iter().any(|it| it.session && it.service == host.name);
        for service in plan.hosts_of(Role::Service).filter(has_session) {
            let is_used = |kind: &&Kind| self.stage.air.carried(&service.name, **kind) >= A_LOT;
            let kinds = Kind::ALL.iter().filter(is_used).count();
            let streams = self.stage.streams.borrow();
            for (plan, stream) in plan.streams.iter().zip(&*streams) {
                if kinds < 2 || !plan.session || plan.service != service.name {
                    continue;
                }
                let all = [(SERVICE, plan.down.0), (DEVICE, plan.up.0)]
                    .iter()
                    .all(|&(side, bytes)| stream.sides[side].read == bytes * plan.rounds);
                let whole = plan.end != End::Finish || stream.is_done() && all;
                self.stage.air.always("kind_hop", whole, &plan.service, || {
                    format!("{}: over {kinds} kinds of link, {stream:?}", plan.name)
                });
            }
            if kinds == Kind::ALL.len() {
                self.stage.air.sometimes("over_all_kinds_of_link", true);
            }
        }
    }

    /// Looks at how a stream that is over has ended, at both sides.
    fn look_at_end(&self, plan: &StreamPlan, stream: &Progress) {
        if !stream.is_over() {
            return;
        }
        let air = &self.stage.air;
        let [service, device] = &stream.sides;
        if matches!(plan.end, End::Reset(_)) && matches!(service.outcome, Some(Ok(()))) && device.begun {
            let seen = matches!(device.outcome, Some(Err(_)));
            air.always("drop_semantics", seen, &plan.device, || {
                format!("{}: a reset was not seen", plan.name)
            });
        }
        if stream.is_done() && plan.end == End::Finish {
            let both = [(service, device), (device, service)];
            let all =
                both.iter().all(|(one, other)| one.finished && other.ended && one.written == other.read);
            air.always("accepted_means_owed", all, &plan.service, || format!("{}: {stream:?}", plan.name));
        }
    }

    /// Writes down the figures.
    fn measure(&self) {
        self.look_at_hops();
        let streams = self.stage.streams.borrow();
        let mut done = 0;
        let mut failed = 0;
        let mut stall = 0;
        for (plan, stream) in self.stage.plan.streams.iter().zip(&*streams) {
            let service = stream.sides[SERVICE].outcome.as_ref();
            let planned = match plan.end {
                End::Finish => stream.is_done(),
                // What the device makes of it is looked at where it reads.
                End::Reset(_) | End::Stop(_) | End::Late(_) => {
                    matches!(service, Some(Ok(()))) && stream.is_over()
                }
            };
            self.look_at_end(plan, stream);
            done += u64::from(planned);
            failed += u64::from(stream.is_over() && !planned);
            stall = stall.max(stream.stall);
        }
        let mut rounds = self.stage.rounds.borrow().clone();
        rounds.sort_unstable();
        let slowest = rounds.get(rounds.len().saturating_sub(1).min(rounds.len() * 99 / 100)).copied();
        let bound = self.stage.plan.expect.interactive_below;
        let slow = |plan: &StreamPlan| plan.device_reads.is_some() || plan.service_reads.is_some();
        let slow_readers = self.stage.plan.streams.iter().any(slow)
            || self.stage.plan.faults.iter().any(|fault| fault.kind == FaultKind::SlowReader);
        let carried: u64 = streams.iter().flat_map(|stream| &stream.sides).map(|side| side.read).sum();
        let reached = streams.iter().filter(|stream| stream.sides[DEVICE].begun).count() as u64;
        self.with_sink(|sink| {
            sink.count(expect::DONE, done);
            sink.count(expect::FAILED, failed);
            sink.count("bytes_read", carried);
            sink.count("streams_opened", reached);
            sink.most(expect::STALL, stall);
            if let Some(slowest) = slowest {
                sink.most(expect::INTERACTIVE, slowest);
            }
            sink.sometimes("stream_failed", failed > 0);
            if let (Some(slowest), Some(most), true) = (slowest, bound, slow_readers) {
                let now = self.stage.plan.limits.simulated.0;
                let detail = || format!("keystrokes took {} ms beside a slow reader", slowest / 1_000_000);
                sink.always("slow_reader_isolated", slowest <= most.0, now, "world", detail);
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::scenario::{Backend, parse};

    /// Two devices with one identity, of which the first says eight bytes to each stream of a service.
    fn text(work: &str, expect: &str) -> String {
        format!(
            "name = \"test\"\nstory = \"A device says eight bytes.\"\n[[hub]]\nname = \"hub\"\n\
             [[device]]\nname = \"device\"\nidentity = \"press\"\n[[device]]\nname = \"copy\"\nidentity = \"press\"\n\
             [[service]]\nname = \"service\"\n\
             [[work]]\nname = \"work\"\nservice = \"service\"\ndevice = \"device\"\nup = \"1 B\"\ndown = \"8 B\"\n{work}\n\
             [expect]\n{expect}\n"
        )
    }

    /// What breaks in a run of which `prepare` says how it went.
    fn broken(text: &str, prepare: impl FnOnce(&Stage, &mut Director)) -> Vec<String> {
        let plan = parse("test.toml", text).unwrap().expand(1, Some(Backend::Turmoil)).unwrap();
        let air = Air::default();
        let stage = Stage::new(plan, air.clone());
        let mut director = Director::new(stage.clone());
        prepare(&stage, &mut director);
        director.measure();
        let sink = air.set_sink(Sink::default());
        sink.properties.broken().map(|(name, _)| name.to_owned()).collect()
    }

    /// What breaks in a run in which something is wrong with the product on a host, and what is said of it.
    fn broken_by<F>(host: impl Fn() -> F + 'static) -> Vec<(String, String)>
    where
        F: Future<Output = play::Played> + 'static,
    {
        let plan = parse("test.toml", &text("", "")).unwrap().expand(1, Some(Backend::Turmoil)).unwrap();
        let air = Air::default();
        let mut sim = simulation(&plan);
        sim.host("hub", host);
        let rest = play_through(&mut sim, &Stage::new(plan, air.clone())).unwrap();
        assert_eq!((rest.ended, rest.simulated / 10_000_000), (Ended::Panicked, 1));
        let sink = air.set_sink(Sink::default());
        let told =
            |(name, broken): (&str, &crate::property::Broken)| (name.to_owned(), broken.detail.clone());
        sink.properties.broken().map(told).collect()
    }

    #[test]
    fn a_panic_of_the_product_breaks_a_property_and_is_told() {
        let panics = || async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            panic!("one and one\nis three")
        };
        assert_eq!(broken_by(panics), [("consistent".to_owned(), "one and one is three".to_owned())]);
        // Nobody waits for the task, and its host goes on.
        let in_a_task = || async {
            tokio::spawn(async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                panic!("no_stall: in a task")
            });
            std::future::pending().await
        };
        assert_eq!(broken_by(in_a_task), [("no_stall".to_owned(), "no_stall: in a task".to_owned())]);
    }

    /// The stream went as planned, at both ends.
    fn went_well(stage: &Stage) {
        stage.moved(0, |progress| {
            for (side, written, read) in [(SERVICE, 1, 8), (DEVICE, 8, 1)] {
                let it = &mut progress.sides[side];
                (it.written, it.read, it.finished, it.ended, it.begun) = (written, read, true, true, true);
                it.outcome = Some(Ok(()));
            }
        });
    }

    fn hops(stage: &Stage) {
        let kinds = [Kind::Tls, Kind::Quic];
        kinds.into_iter().for_each(|kind| stage.air.lock().carry(&"service".into(), kind, 64 << 10));
    }

    #[test]
    fn a_stream_that_does_not_survive_a_hop_is_noticed() {
        let text = text("session = true", "");
        let well = |stage: &Stage| {
            went_well(stage);
            hops(stage);
        };
        assert!(broken(&text, |stage, _| well(stage)).is_empty());
        let cut_short = |stage: &Stage, _: &mut Director| {
            well(stage);
            stage.moved(0, |progress| progress.sides[SERVICE].read = 7);
        };
        assert!(broken(&text, cut_short).contains(&"kind_hop".to_owned()));
        let failed = |stage: &Stage, _: &mut Director| {
            well(stage);
            stage.moved(0, |progress| progress.sides[DEVICE].outcome = Some(Err("lost".into())));
        };
        assert_eq!(broken(&text, failed), ["kind_hop"]);
    }

    #[test]
    fn a_byte_that_was_accepted_and_not_delivered_is_noticed() {
        let lost = |stage: &Stage, _: &mut Director| {
            went_well(stage);
            stage.moved(0, |progress| progress.sides[DEVICE].read = 0);
        };
        assert_eq!(broken(&text("", ""), lost), ["accepted_means_owed"]);
    }

    #[test]
    fn a_reset_that_is_not_seen_is_noticed() {
        let text = text("resets = \"100 %\"", "");
        assert_eq!(broken(&text, |stage, _| went_well(stage)), ["drop_semantics"]);
        let seen = |stage: &Stage, _: &mut Director| {
            went_well(stage);
            stage.moved(0, |progress| progress.sides[DEVICE].outcome = Some(Err("reset".into())));
        };
        assert!(broken(&text, seen).is_empty());
    }

    #[test]
    fn keystrokes_that_wait_for_a_slow_reader_are_noticed() {
        let text = text("interactive = true\ndevice_reads = \"1 kbit/s\"", "interactive_below = \"1 ms\"");
        let rounds = |nanos| move |stage: &Stage, _: &mut Director| stage.rounds.borrow_mut().push(nanos);
        assert!(broken(&text, rounds(1_000_000)).is_empty());
        assert_eq!(broken(&text, rounds(1_000_001)), ["slow_reader_isolated"]);
    }

    #[test]
    fn two_of_one_identity_that_are_both_in_for_long_are_noticed() {
        let look = |after: Duration| {
            move |stage: &Stage, director: &mut Director| {
                stage.online.borrow_mut().extend(["device".to_owned(), "copy".to_owned()]);
                director.look_at_twins();
                stage.air.set_clock(after);
                director.look_at_twins();
            }
        };
        assert!(broken(&text("", ""), look(TAKEOVER)).is_empty());
        assert_eq!(broken(&text("", ""), look(TAKEOVER + TICK)), ["newest_wins_now"]);
    }
}
