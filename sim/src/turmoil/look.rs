//! How a run went, once it is over: how streams have ended, and what became of them over several kinds of link.
//!
//! In: the stage, as it was left. Out: properties and figures, in the sink.

use super::firewall::Kind;
use super::stage::{DEVICE, Progress, SERVICE, Stage};
use crate::expect;
use crate::scenario::{End, FaultKind, Host, Role, StreamPlan};

/// What a kind of link has carried that was in use, in bytes: more than its handshakes.
const A_LOT: u64 = 32 << 10;

impl Stage {
    /// Writes down the figures.
    pub(super) fn measure(&self) {
        self.look_at_hops();
        let streams = self.streams.borrow();
        let mut done = 0;
        let mut failed = 0;
        let mut stall = 0;
        for (plan, stream) in self.plan.streams.iter().zip(&*streams) {
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
        let mut rounds = self.rounds.borrow().clone();
        rounds.sort_unstable();
        let slowest = rounds.get(rounds.len().saturating_sub(1).min(rounds.len() * 99 / 100)).copied();
        let bound = self.plan.expect.interactive_below;
        let slow = |plan: &StreamPlan| plan.device_reads.is_some() || plan.service_reads.is_some();
        let slow_readers = self.plan.streams.iter().any(slow)
            || self.plan.faults.iter().any(|fault| fault.kind == FaultKind::SlowReader);
        let carried: u64 = streams.iter().flat_map(|stream| &stream.sides).map(|side| side.read).sum();
        let reached = streams.iter().filter(|stream| stream.sides[DEVICE].begun).count() as u64;
        self.air.with_sink(|sink| {
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
                let now = self.plan.limits.simulated.0;
                let detail = || format!("keystrokes took {} ms beside a slow reader", slowest / 1_000_000);
                sink.always("slow_reader_isolated", slowest <= most.0, now, "world", detail);
            }
        });
    }

    /// Looks at what streams made of it when the kind of link beneath their session changed: nothing.
    fn look_at_hops(&self) {
        let plan = &self.plan;
        let has_session = |host: &&Host| plan.streams.iter().any(|it| it.session && it.service == host.name);
        for service in plan.hosts_of(Role::Service).filter(has_session) {
            let is_used = |kind: &&Kind| self.air.carried(&service.name, **kind) >= A_LOT;
            let kinds = Kind::ALL.iter().filter(is_used).count();
            let streams = self.streams.borrow();
            for (plan, stream) in plan.streams.iter().zip(&*streams) {
                if kinds < 2 || !plan.session || plan.service != service.name {
                    continue;
                }
                let all = [(SERVICE, plan.down.0), (DEVICE, plan.up.0)]
                    .iter()
                    .all(|&(side, bytes)| stream.sides[side].read == bytes * plan.rounds);
                let whole = plan.end != End::Finish || stream.is_done() && all;
                self.air.always("kind_hop", whole, &plan.service, || {
                    format!("{}: over {kinds} kinds of link, {stream:?}", plan.name)
                });
            }
            if kinds == Kind::ALL.len() {
                self.air.sometimes("over_all_kinds_of_link", true);
            }
        }
    }

    /// Looks at how a stream that is over has ended, at both sides.
    fn look_at_end(&self, plan: &StreamPlan, stream: &Progress) {
        if !stream.is_over() {
            return;
        }
        let air = &self.air;
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;
    use crate::run::Sink;
    use crate::scenario::{Backend, parse};
    use crate::turmoil::air::Air;

    /// Two devices with one identity, of which the first says eight bytes to each stream of a service.
    pub(in crate::turmoil) fn text(work: &str, expect: &str) -> String {
        format!(
            "name = \"test\"\nstory = \"A device says eight bytes.\"\n[[hub]]\nname = \"hub\"\n\
             [[device]]\nname = \"device\"\nidentity = \"press\"\n[[device]]\nname = \"copy\"\nidentity = \"press\"\n\
             [[service]]\nname = \"service\"\n\
             [[work]]\nname = \"work\"\nservice = \"service\"\ndevice = \"device\"\nup = \"1 B\"\ndown = \"8 B\"\n{work}\n\
             [expect]\n{expect}\n"
        )
    }

    /// What breaks in a run of which `prepare` says how it went.
    fn broken(text: &str, prepare: impl FnOnce(&Stage)) -> Vec<String> {
        let plan = parse("test.toml", text).unwrap().expand(1, Some(Backend::Turmoil)).unwrap();
        let air = Air::default();
        let stage = Stage::new(plan, air.clone());
        prepare(&stage);
        stage.measure();
        let sink = air.set_sink(Sink::default());
        sink.properties.broken().map(|(name, _)| name.to_owned()).collect()
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
        assert!(broken(&text, |stage| well(stage)).is_empty());
        let cut_short = |stage: &Stage| {
            well(stage);
            stage.moved(0, |progress| progress.sides[SERVICE].read = 7);
        };
        assert!(broken(&text, cut_short).contains(&"kind_hop".to_owned()));
        let failed = |stage: &Stage| {
            well(stage);
            stage.moved(0, |progress| progress.sides[DEVICE].outcome = Some(Err("lost".into())));
        };
        assert_eq!(broken(&text, failed), ["kind_hop"]);
    }

    #[test]
    fn a_byte_that_was_accepted_and_not_delivered_is_noticed() {
        let lost = |stage: &Stage| {
            went_well(stage);
            stage.moved(0, |progress| progress.sides[DEVICE].read = 0);
        };
        assert_eq!(broken(&text("", ""), lost), ["accepted_means_owed"]);
    }

    #[test]
    fn a_reset_that_is_not_seen_is_noticed() {
        let text = text("resets = \"100 %\"", "");
        assert_eq!(broken(&text, went_well), ["drop_semantics"]);
        let seen = |stage: &Stage| {
            went_well(stage);
            stage.moved(0, |progress| progress.sides[DEVICE].outcome = Some(Err("reset".into())));
        };
        assert!(broken(&text, seen).is_empty());
    }

    #[test]
    fn keystrokes_that_wait_for_a_slow_reader_are_noticed() {
        let text = text("interactive = true\ndevice_reads = \"1 kbit/s\"", "interactive_below = \"1 ms\"");
        let rounds = |nanos| move |stage: &Stage| stage.rounds.borrow_mut().push(nanos);
        assert!(broken(&text, rounds(1_000_000)).is_empty());
        assert_eq!(broken(&text, rounds(1_000_001)), ["slow_reader_isolated"]);
    }
}
