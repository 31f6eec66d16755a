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
use super::line::Line;
use super::play;
use super::stage::Stage;
use crate::crypto::EPOCH;
use crate::expect;
use crate::explore::{catch, has_panicked};
use crate::run::{Ended, Rest, Sink};
use crate::scenario::{FaultKind, Host, Plan, Role, Transport};

/// The most hosts of turmoil's.
const MAX_HOSTS: usize = 25;

/// How long after the work is done everybody has to go home. A QUIC link whose last word is lost ends by its idle timeout.
const CLOSING: Duration = Duration::from_secs(40);

/// How long a device may not know that another one has taken its place: a slow line, and the hub's goodbye.
const TAKEOVER: Duration = Duration::from_secs(5);

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
    stage.measure();
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
        self.stage.air.with_sink(|sink| {
            sink.most(expect::ONLINE, online);
            if let Some(after) = self.online_after {
                sink.most(expect::ONLINE_AFTER, after);
            }
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
        self.stage.air.with_sink(|sink| sink.most(expect::RESIDUE, (left + links + connections) as u64));
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::scenario::{Backend, parse};
    use crate::turmoil::look::tests::text;

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

    #[test]
    fn two_of_one_identity_that_are_both_in_for_long_are_noticed() {
        let broken = |after: Duration| {
            let plan = parse("test.toml", &text("", "")).unwrap().expand(1, Some(Backend::Turmoil)).unwrap();
            let stage = Stage::new(plan, Air::default());
            let mut director = Director::new(stage.clone());
            stage.online.borrow_mut().extend(["device".to_owned(), "copy".to_owned()]);
            director.look_at_twins();
            stage.air.set_clock(after);
            director.look_at_twins();
            let sink = stage.air.set_sink(Sink::default());
            sink.properties.broken().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert!(broken(TAKEOVER).is_empty());
        assert_eq!(broken(TAKEOVER + TICK), ["newest_wins_now"]);
    }
}
