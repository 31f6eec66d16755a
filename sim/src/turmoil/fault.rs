//! What goes wrong, and when it is over.
//!
//! In: the plan's faults and the time between two steps. Out: changes of lines, and hosts that die and are started anew.

use std::rc::Rc;
use std::time::Duration;

use turmoil::Sim;

use super::air::nanoseconds;
use super::line::{BOTH, Line, Presence, Way};
use super::stage::{DEVICE, SERVICE, Stage};
use crate::event::What;
use crate::scenario::{Fault, FaultKind, Role};

/// The faults of a plan, as far as they have come.
#[derive(Debug)]
pub(super) struct Faults {
    stage: Rc<Stage>,
    /// How many have begun.
    begun: usize,
    /// Those that go on, and until when.
    going_on: Vec<(u64, Fault)>,
    /// When the last one was over.
    pub(super) last: u64,
}

impl Faults {
    pub(super) fn new(stage: Rc<Stage>) -> Self {
        Self { stage, begun: 0, going_on: Vec::new(), last: 0 }
    }

    /// Whether all have begun, and are over that ever are.
    pub(super) fn are_over(&self) -> bool {
        self.begun == self.stage.plan.faults.len()
            && self.going_on.iter().all(|(until, _)| *until == u64::MAX)
    }

    /// Lets end and begin what does so by now.
    pub(super) fn advance(&mut self, sim: &mut Sim<'_>) {
        let now = nanoseconds(sim.elapsed());
        while let Some(place) = self.going_on.iter().position(|(until, _)| *until <= now) {
            let (_, fault) = self.going_on.remove(place);
            self.last = now;
            self.stage.emit(&fault.host, What::FaultEnded { kind: name(fault.kind) });
            self.end(sim, &fault);
        }
        while let Some(fault) =
            self.stage.plan.faults.get(self.begun).filter(|fault| fault.at.0 <= now).cloned()
        {
            self.begun += 1;
            self.last = now;
            let lasts = fault.lasts.map(|lasts| lasts.0);
            self.stage.emit(&fault.host, What::FaultBegan { kind: name(fault.kind), lasts });
            let until =
                if fault.kind.is_over_at_once() { now } else { lasts.map_or(u64::MAX, |lasts| now + lasts) };
            self.going_on.push((until, fault.clone()));
            self.begin(sim, &fault);
        }
    }

    fn line(&self, host: &str, change: impl FnOnce(&mut Line)) {
        self.stage.air.change(host, change);
    }

    /// Whether somebody is at a host, by all the faults that go on: a machine without power does not even say that nobody is.
    fn presence(&self, host: &str) -> Presence {
        let has = |kind| self.going_on.iter().any(|(_, fault)| fault.host == host && fault.kind == kind);
        match (has(FaultKind::PowerLoss), has(FaultKind::Crash)) {
            (true, _) => Presence::Gone,
            (false, true) => Presence::Dead,
            (false, false) => Presence::Here,
        }
    }

    fn begin(&self, sim: &mut Sim<'_>, fault: &Fault) {
        let host = fault.host.as_str();
        match fault.kind {
            FaultKind::Cut => {
                self.line(host, |line| BOTH.iter().for_each(|&way| line.set_cut(way, true)));
                self.stage.air.break_off(host);
            }
            FaultKind::CutUp => self.line(host, |line| line.set_mute(Way::Up, true)),
            FaultKind::CutDown => self.line(host, |line| line.set_mute(Way::Down, true)),
            FaultKind::Hold => self.line(host, |line| BOTH.iter().for_each(|&way| line.set_held(way, true))),
            FaultKind::HoldUp => self.line(host, |line| line.set_held(Way::Up, true)),
            FaultKind::HoldDown => self.line(host, |line| line.set_held(Way::Down, true)),
            FaultKind::BlockUdp => self.line(host, |line| line.set_udp_blocked(true)),
            FaultKind::Crash => {
                self.line(host, |line| line.set_presence(self.presence(host)));
                self.stop(sim, host);
            }
            FaultKind::PowerLoss => {
                self.line(host, |line| line.set_presence(self.presence(host)));
                self.stage.air.forget(host);
                self.stop(sim, host);
            }
            FaultKind::Move => {
                self.stage.air.forget(host);
                self.line(host, Line::move_on);
            }
            FaultKind::SlowReader => *self.stage.slow.borrow_mut().entry(host.to_owned()).or_default() += 1,
            FaultKind::Drain => {
                if let Some(hub) = self.stage.hubs.borrow().get(host) {
                    // A hub that is gone needs not be told.
                    let _ = hub.drain.send(DRAINED_FOR);
                }
            }
            FaultKind::BlockTls => {
                self.line(host, |line| line.set_tls_blocked(true));
                self.stage.air.break_off(host);
            }
            // The credentials were made so.
            FaultKind::Expire => {}
            FaultKind::Suspend
            | FaultKind::ClockJump
            | FaultKind::DrainSessions
            | FaultKind::CloseSessions
            | FaultKind::Replay
            | FaultKind::Forge
            | FaultKind::LateBytes => {
                unreachable!("it was checked that turmoil can do it")
            }
        }
    }

    fn end(&self, sim: &mut Sim<'_>, fault: &Fault) {
        let host = fault.host.as_str();
        match fault.kind {
            FaultKind::Cut => self.line(host, |line| BOTH.iter().for_each(|&way| line.set_cut(way, false))),
            FaultKind::CutUp => self.line(host, |line| line.set_mute(Way::Up, false)),
            FaultKind::CutDown => self.line(host, |line| line.set_mute(Way::Down, false)),
            FaultKind::Hold => self.line(host, |line| BOTH.iter().for_each(|&way| line.set_held(way, false))),
            FaultKind::HoldUp => self.line(host, |line| line.set_held(Way::Up, false)),
            FaultKind::HoldDown => self.line(host, |line| line.set_held(Way::Down, false)),
            FaultKind::BlockUdp => self.line(host, |line| line.set_udp_blocked(false)),
            FaultKind::Crash | FaultKind::PowerLoss => {
                let presence = self.presence(host);
                self.line(host, |line| line.set_presence(presence));
                if presence != Presence::Gone {
                    self.stage.air.deny(host);
                }
                if presence == Presence::Here {
                    sim.bounce(host);
                }
            }
            FaultKind::SlowReader => {
                if let Some(count) = self.stage.slow.borrow_mut().get_mut(host) {
                    *count -= 1;
                }
            }
            FaultKind::BlockTls => self.line(host, |line| line.set_tls_blocked(false)),
            FaultKind::Suspend | FaultKind::ClockJump => {}
            // Over at once.
            FaultKind::Move
            | FaultKind::Drain
            | FaultKind::Expire
            | FaultKind::DrainSessions
            | FaultKind::CloseSessions
            | FaultKind::Replay
            | FaultKind::Forge
            | FaultKind::LateBytes => {}
        }
    }

    /// Everything on a host stops at once, if it has not before.
    fn stop(&self, sim: &mut Sim<'_>, host: &str) {
        if !sim.is_host_running(host) {
            return;
        }
        self.stage.air.let_die(|| sim.crash(host));
        self.stage.hubs.borrow_mut().remove(host);
        self.stage.online.borrow_mut().remove(host);
        let role = self.stage.plan.host(host).map(|host| host.role);
        for (index, plan) in self.stage.plan.streams.iter().enumerate() {
            for (side, who, of) in
                [(SERVICE, &plan.service, Role::Service), (DEVICE, &plan.device, Role::Device)]
            {
                let progress = &self.stage.streams.borrow()[index].clone();
                let side_state = &progress.sides[side];
                let had_begun = side_state.begun || (side == SERVICE && progress.wanted);
                if who == host && role == Some(of) && had_begun && side_state.outcome.is_none() {
                    self.stage.end(index, side, Err("its program died".into()));
                }
            }
        }
    }
}

/// How long a hub that has drained is gone.
const DRAINED_FOR: Duration = Duration::from_secs(1);

fn name(kind: FaultKind) -> String {
    serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
