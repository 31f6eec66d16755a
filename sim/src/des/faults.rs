//! What goes wrong, and how it is mended.

use std::time::Duration;

use super::network::{DOWN, UP};
use super::world::{Endpoint, Far, Hub, Near, Task, World};
use crate::event::What;
use crate::scenario::{Fault, FaultKind, Role};

/// After how long a hub that is being stopped asks its links to come back.
const RETRY: Duration = Duration::from_secs(1);

impl World<'_> {
    pub(super) fn fault_begins(&mut self, index: usize) {
        let Fault { kind, host, lasts, .. } = &self.plan.faults[index];
        let (kind, lasts) = (*kind, lasts.map(|lasts| lasts.0));
        let host = self.places[host];
        self.disturbed_at = self.now;
        self.emit(host, What::FaultBegan { kind: name(kind), lasts });
        match kind {
            FaultKind::Cut => self.cut(host),
            FaultKind::CutUp => self.hosts[host].mutes[UP] += 1,
            FaultKind::CutDown => self.hosts[host].mutes[DOWN] += 1,
            FaultKind::Hold => (0..2).for_each(|line| self.hosts[host].holds[line] += 1),
            FaultKind::HoldUp => self.hosts[host].holds[UP] += 1,
            FaultKind::HoldDown => self.hosts[host].holds[DOWN] += 1,
            FaultKind::Crash => self.crash(host),
            FaultKind::PowerLoss => self.power_loss(host),
            FaultKind::Move => self.move_away(host),
            FaultKind::SlowReader => self.hosts[host].slow += 1,
            FaultKind::Suspend => self.hosts[host].suspensions += 1,
            FaultKind::ClockJump => self.jump(host, lasts.unwrap_or(0)),
            FaultKind::Drain => self.drain(host),
            FaultKind::DrainSessions => self.drain_sessions(host),
            FaultKind::CloseSessions => self.close_sessions(host),
            FaultKind::Replay => self.replay(host),
            FaultKind::Forge => self.forge(host),
            FaultKind::LateBytes => self.late_bytes(host),
            FaultKind::BlockUdp => self.hosts[host].udp_blocks += 1,
            FaultKind::BlockTls | FaultKind::Expire => {}
        }
        let ends = lasts.filter(|_| kind != FaultKind::ClockJump);
        match ends {
            Some(lasts) => self.queue.push(self.now + lasts, Task::FaultEnds(index)),
            None => self.fault_is_over(),
        }
    }

    pub(super) fn fault_ends(&mut self, index: usize) {
        let Fault { kind, host, .. } = &self.plan.faults[index];
        let kind = *kind;
        let host = self.places[host];
        self.disturbed_at = self.now;
        self.emit(host, What::FaultEnded { kind: name(kind) });
        match kind {
            FaultKind::Cut => self.hosts[host].cuts -= 1,
            FaultKind::CutUp => self.end_mute(host, UP),
            FaultKind::CutDown => self.end_mute(host, DOWN),
            FaultKind::Hold => (0..2).for_each(|line| self.end_hold(host, line)),
            FaultKind::HoldUp => self.end_hold(host, UP),
            FaultKind::HoldDown => self.end_hold(host, DOWN),
            FaultKind::Crash | FaultKind::PowerLoss => self.start_again(host),
            FaultKind::SlowReader => {
                self.hosts[host].slow -= 1;
                if self.hosts[host].slow == 0 {
                    self.go_on_all(host);
                }
            }
            FaultKind::Suspend => self.wake_host(host),
            FaultKind::BlockUdp => self.hosts[host].udp_blocks -= 1,
            FaultKind::ClockJump | FaultKind::BlockTls => {}
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
        self.fault_is_over();
    }

    fn fault_is_over(&mut self) {
        self.faults_left -= 1;
        self.last_fault = self.now;
        self.all_online_at = self.is_everybody_online().then_some(self.now);
    }

    /// What was held back, or was to be sent again, goes on its way once nothing stops it any more.
    fn let_pass(&mut self, host: usize, line: usize) {
        let it = &self.hosts[host];
        if it.holds[line] == 0 && it.mutes[line] == 0 {
            self.release(host, line);
        }
    }

    fn end_hold(&mut self, host: usize, line: usize) {
        self.hosts[host].holds[line] -= 1;
        self.let_pass(host, line);
    }

    fn end_mute(&mut self, host: usize, line: usize) {
        self.hosts[host].mutes[line] -= 1;
        self.let_pass(host, line);
    }

    /// The connections of TCP over which `host` is reached, or reaches others. What happens to QUIC it finds out by itself.
    fn tcp_conns_of(&self, host: usize) -> Vec<usize> {
        let mut conns = self.conns_of(host);
        conns.retain(|&conn| self.conns[conn].quic.is_none());
        conns
    }

    /// The connections over which `host` is reached, or reaches others.
    fn conns_of(&self, host: usize) -> Vec<usize> {
        let is_live = |&conn: &usize| {
            let it = &self.conns[conn];
            (it.near != Near::Over || it.far != Far::Over) && self.hosts_of(conn).contains(&host)
        };
        (0..self.conns.len()).filter(is_live).collect()
    }

    fn cut(&mut self, host: usize) {
        self.hosts[host].cuts += 1;
        for conn in self.tcp_conns_of(host) {
            self.conns[conn].is_lost = true;
            self.link_lost(conn, "cut", None);
            self.hub_link_over(conn, "cut");
        }
    }

    fn crash(&mut self, host: usize) {
        self.hosts[host].deaths += 1;
        if !self.hosts[host].is_alive {
            return;
        }
        let conns = self.tcp_conns_of(host);
        self.stop_process(host);
        for conn in conns {
            // The kernel of the host says so to the other end, as soon as that can be reached.
            let it = &mut self.conns[conn];
            it.is_lost = true;
            if it.hub != host {
                self.hub_link_over(conn, "reset");
            }
            if self.conns[conn].endpoint != host {
                self.link_lost(conn, "reset", None);
            }
        }
    }

    fn power_loss(&mut self, host: usize) {
        self.hosts[host].deaths += 1;
        for conn in self.tcp_conns_of(host) {
            self.conns[conn].is_lost = true;
        }
        self.stop_process(host);
    }

    /// The process is gone, with all that it knew.
    fn stop_process(&mut self, host: usize) {
        if !self.hosts[host].is_alive {
            return;
        }
        self.lose_apps(host);
        for conn in self.conns_of(host) {
            if self.conns[conn].endpoint == host {
                self.forget_near(conn);
            } else if self.conns[conn].hub == host {
                self.conns[conn].far = Far::Over;
                self.leave_ghost(conn);
            }
        }
        self.forget_quic(host);
        let it = &mut self.hosts[host];
        it.is_alive = false;
        it.process += 1;
        it.inbox.clear();
        if it.hub.is_some() {
            it.hub = Some(Hub::new(&self.plan.hosts[host]));
        }
        if let Some(Endpoint { backoff, conn, instance, draws, .. }) = &mut it.endpoint {
            (*backoff, *conn, *instance) = (Default::default(), None, draws.next_u64());
        }
        for tunnel in self.tunnels.iter_mut().filter(|tunnel| tunnel.hub == host) {
            tunnel.is_at_hub = false;
        }
        for tunnel in &mut self.tunnels {
            for side in 0..2 {
                if self.conns[tunnel.conns[side]].endpoint == host {
                    tunnel.open[side] = false;
                }
            }
        }
    }

    fn start_again(&mut self, host: usize) {
        self.hosts[host].deaths -= 1;
        if self.hosts[host].deaths > 0 {
            return;
        }
        self.hosts[host].is_alive = true;
        if self.hosts[host].endpoint.is_some() {
            self.queue.push(self.now, Task::Connect(host, self.hosts[host].process));
        }
    }

    /// The host has another address: what it was connected to hears nothing more, and what it hears is not for it. QUIC goes
    /// on from there.
    fn move_away(&mut self, host: usize) {
        self.hosts[host].moves += 1;
        for conn in self.tcp_conns_of(host) {
            self.conns[conn].is_lost = true;
            self.link_lost(conn, "moved", None);
        }
    }

    fn wake_host(&mut self, host: usize) {
        self.hosts[host].suspensions -= 1;
        if self.hosts[host].suspensions > 0 {
            return;
        }
        for task in std::mem::take(&mut self.hosts[host].inbox) {
            self.queue.push(self.now, task);
        }
    }

    /// Sessions of the host look at the clock again.
    fn jump(&mut self, host: usize, by: u64) {
        self.hosts[host].ahead += by;
        for end in 0..self.ends.len() {
            if self.ends[end].host == host && self.is_running(&self.ends[end]) {
                self.ends[end].timer_at = self.now;
                self.queue.push(self.now, Task::Timer(end));
            }
        }
        if self.hosts[host].hub.is_some() {
            self.queue.push(self.now, Task::HubTimeout(host));
        }
        self.look_at_clock(host);
    }

    fn drain(&mut self, host: usize) {
        self.hub(host).core.handle_drain(RETRY);
        self.act(host);
        // It is started anew at once, as an upgrade does.
        let conns = self.conns_of(host);
        for conn in conns {
            self.hub_link_over(conn, "dismissed");
        }
        self.hosts[host].hub = Some(Hub::new(&self.plan.hosts[host]));
        self.hosts[host].process += 1;
    }

    fn forget_near(&mut self, conn: usize) {
        if matches!(self.conns[conn].near, Near::Up(_))
            && self.hosts[self.conns[conn].endpoint].role == Role::Device
        {
            self.online -= 1;
            self.all_online_at = None;
        }
        self.lay_ghost(conn);
        self.conns[conn].near = Near::Over;
    }

    /// The hub's process of a link of QUIC is gone, and the endpoint takes it to be up.
    fn leave_ghost(&mut self, conn: usize) {
        let it = &mut self.conns[conn];
        if it.quic.is_some() && matches!(it.near, Near::Up(_)) && !it.is_lost {
            it.is_lost = true;
            self.ghosts += 1;
        }
    }

    /// The endpoint of a link learns that it is over, or is gone itself.
    pub(super) fn lay_ghost(&mut self, conn: usize) {
        let it = &mut self.conns[conn];
        if it.quic.is_some() && std::mem::take(&mut it.is_lost) {
            self.ghosts -= 1;
        }
    }
}

/// As it is written in a scenario.
fn name(kind: FaultKind) -> String {
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::event::{Event, What};
    use crate::run::{Sink, run};
    use crate::scenario::{Backend, parse};

    /// When the device is on the hub, in seconds, if `kinds` go wrong with `host`: the first from 5 s to 25 s, and the second
    /// for a second in between.
    fn ups(kinds: [&str; 2], host: &str) -> Vec<u64> {
        let fault = |kind: &str, at: u64, lasts: u64| {
            format!("[[fault]]\nkind = \"{kind}\"\nhost = \"{host}\"\nat = \"{at} s\"\nfor = \"{lasts} s\"\n")
        };
        let text = "name = \"overlap\"\nstory = \"Two faults at once.\"\n[[hub]]\nname = \"hub\"\n\
            [[device]]\nname = \"device\"\n[[service]]\nname = \"service\"\n[[work]]\nname = \"late\"\n\
            service = \"service\"\ndevice = \"device\"\nstart = \"60 s\"\nup = \"1 KiB\"\n"
            .to_owned()
            + &fault(kinds[0], 5, 20)
            + &fault(kinds[1], 6, 1);
        let plan = parse("overlap.toml", &text).expect("it can be read").expand(1, Some(Backend::Des));
        let outcome = run(&plan.expect("it can be run"), Sink::keeping()).expect("it runs");
        assert_eq!(outcome.properties.broken().count(), 0, "{kinds:?} {host}");
        let events = outcome.lines.iter().map(|line| serde_json::from_str(line).expect("an event"));
        let is_up = |event: &Event| event.who == "device" && matches!(event.what, What::LinkUp { .. });
        events.filter(is_up).map(|event| event.time / 1_000_000_000).collect()
    }

    #[test]
    fn who_dies_twice_at_once_is_started_once_when_the_last_fault_ends() {
        for host in ["device", "hub"] {
            for one in ["crash", "power-loss"] {
                for other in ["crash", "power-loss"] {
                    let ups = ups([one, other], host);
                    assert!(ups.len() == 2 && ups[1] >= 25, "{host} {one} {other}: {ups:?}");
                }
            }
        }
    }

    #[test]
    fn who_is_suspended_twice_at_once_wakes_when_the_last_fault_ends() {
        let ups = ups(["suspend", "suspend"], "device");
        assert!(ups.len() == 2 && ups[1] >= 25, "{ups:?}");
    }
}
