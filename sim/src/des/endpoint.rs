//! A device's or a service's end of its link: it connects, says hello, and comes back.
//!
//! When to come back is the product's own `Backoff`; what a link is, a connection that takes two round trips and a hello.

use std::time::Duration;

use towline::core::Backoff;
use towline::refusal::{Refusal, RefusalCode};

use super::network::{Body, Way};
use super::world::{Conn, Far, Near, Task, World};
use crate::event::What;
use crate::link::Nat;
use crate::scenario::Role;

/// How long a connection has until the hub has welcomed it: as the product's `CONNECT_DEADLINE`.
pub(super) const CONNECT_DEADLINE: u64 = 10_000_000_000;

/// After how long without a word an end of a link asks for one, and gives it up: as the engine's defaults.
pub(super) const KEEP_ALIVE: u64 = 5_000_000_000;
pub(super) const IDLE: u64 = 15_000_000_000;

impl World<'_> {
    /// Tries the next hub.
    pub(super) fn connect(&mut self, host: usize, process: u32) {
        let it = &mut self.hosts[host];
        let Some(endpoint) = &mut it.endpoint else { return };
        if !it.is_alive || it.process != process || endpoint.conn.is_some() {
            return;
        }
        let hubs = &self.plan.hosts[host].hubs;
        let name = &hubs[endpoint.turn % hubs.len()];
        let hub = self.places[name];
        let conn = self.conns.len();
        self.hosts[host].endpoint.as_mut().expect("it is one").conn = Some(conn);
        let processes = [process, self.hosts[hub].process];
        let quic = self.is_quic(host).then(|| self.new_quic(host, hub));
        self.conns.push(Conn {
            endpoint: host,
            hub,
            processes,
            near: Near::Connecting,
            far: Far::Unknown,
            heard: [self.now; 2],
            is_lost: false,
            nat: Nat::new(self.plan.hosts[host].link.nat_timeout, self.now),
            tunnels: Default::default(),
            quic,
        });
        let what = What::LinkStarted { hub: self.hosts[hub].name.clone() };
        self.emit(host, what);
        if self.conns[conn].quic.is_some() {
            self.queue.push(self.now + CONNECT_DEADLINE, Task::HandshakeDue(conn, Way::ToHub));
            self.quic.dirty.insert((conn, 0));
        } else if self.is_passable(conn) {
            self.queue.push(self.now + CONNECT_DEADLINE, Task::HandshakeDue(conn, Way::ToHub));
            self.send(conn, Way::ToHub, Body::Syn);
        } else {
            // The kernel says that there is no way.
            self.link_lost(conn, "no route", None);
        }
    }

    pub(super) fn handshake_due(&mut self, conn: usize, way: Way) {
        match way {
            Way::ToHub if self.conns[conn].near == Near::Connecting => {
                self.link_lost(conn, "deadline passed", None);
            }
            Way::ToEndpoint => self.hub_handshake_due(conn),
            Way::ToHub => {}
        }
    }

    pub(super) fn arrive_at_endpoint(&mut self, conn: usize, body: Body) {
        let host = self.conns[conn].endpoint;
        let is_ours = self.hosts[host].process == self.conns[conn].processes[0];
        if !is_ours || self.conns[conn].near == Near::Over {
            if !matches!(body, Body::Fin) {
                self.send(conn, Way::ToHub, Body::Fin);
            }
            return;
        }
        match body {
            Body::SynAck => self.send(conn, Way::ToHub, Body::ClientHello),
            Body::ServerHello => self.send(conn, Way::ToHub, Body::Hello),
            Body::Welcome => self.welcomed(conn),
            Body::Goodbye(refusal) => {
                let why = refusal.code.name();
                self.send(conn, Way::ToHub, Body::Fin);
                self.link_lost(conn, why, Some(&refusal));
            }
            Body::Fin => self.link_lost(conn, "closed by the hub", None),
            Body::Ping => self.send(conn, Way::ToHub, Body::Pong),
            Body::Offer(tunnel) => self.offered(tunnel),
            Body::Opened(tunnel) => self.opened(tunnel),
            Body::OpenRefused(pair, refusal) => self.open_refused(pair, &refusal),
            Body::Data(tunnel, bytes) => self.data_arrived(tunnel, Way::ToEndpoint, host, bytes),
            Body::Closed(tunnel) => self.tunnel_closed(tunnel, host, "closed by the hub"),
            Body::Pong
            | Body::Syn
            | Body::ClientHello
            | Body::Hello
            | Body::Open(_)
            | Body::Answer(_)
            | Body::Datagram(_) => {}
        }
    }

    fn welcomed(&mut self, conn: usize) {
        let Conn { endpoint: host, hub, .. } = self.conns[conn];
        self.conns[conn].near = Near::Up(self.now);
        let transport = if self.conns[conn].quic.is_some() {
            self.watch_path(conn);
            "quic"
        } else {
            self.queue.push(self.now + KEEP_ALIVE, Task::Alive(conn, Way::ToHub));
            "connection"
        };
        let hub = self.hosts[hub].name.clone();
        self.emit(host, What::LinkUp { hub, transport: transport.into() });
        match self.hosts[host].role {
            Role::Device => self.count_online(true),
            _ => self.reopen_all(host),
        }
    }

    fn count_online(&mut self, comes: bool) {
        self.online = if comes { self.online + 1 } else { self.online - 1 };
        self.all_online_at =
            if self.is_everybody_online() { self.all_online_at.or(Some(self.now)) } else { None };
    }

    /// The link is over, as the endpoint has it. It comes back when its back-off says so.
    pub(super) fn link_lost(&mut self, conn: usize, why: &str, refusal: Option<&Refusal>) {
        let Conn { endpoint: host, hub, near, .. } = self.conns[conn];
        if near == Near::Over {
            return;
        }
        self.lay_ghost(conn);
        self.conns[conn].near = Near::Over;
        self.give_up_quic(conn, Way::ToHub);
        let hub = self.hosts[hub].name.clone();
        self.emit(host, What::LinkDown { hub, why: why.to_owned() });
        if matches!(near, Near::Up(_)) && self.hosts[host].role == Role::Device {
            self.count_online(false);
        }
        let now = self.now;
        let it = &mut self.hosts[host];
        let (is_alive, process) = (it.is_alive, it.process);
        let endpoint = it.endpoint.as_mut().expect("it is one");
        endpoint.conn = None;
        endpoint.turn += 1;
        let wait = match near {
            Near::Up(since) => {
                endpoint.backoff.connected_for(Duration::from_nanos(now - since));
                wait(&mut endpoint.backoff, refusal, endpoint.draws.next_u64())
            }
            Near::Connecting | Near::Over => wait(&mut endpoint.backoff, refusal, endpoint.draws.next_u64()),
        };
        if is_alive {
            self.queue.push(now + nanos(wait), Task::Connect(host, process));
        }
        for tunnel in self.conns[conn].tunnels.clone() {
            self.tunnel_closed(tunnel, host, "the link is down");
        }
        self.forget_openings(host);
    }

    /// An end of a link looks when it has last heard of the other.
    pub(super) fn look_alive(&mut self, conn: usize, way: Way) {
        let host = self.side_of(conn, way);
        let Conn { near, far, heard, processes, .. } = self.conns[conn];
        let is_up = match way {
            Way::ToHub => matches!(near, Near::Up(_)),
            Way::ToEndpoint => far == Far::Up,
        };
        if !is_up || !self.hosts[host].is_alive || self.hosts[host].process != processes[way.index()] {
            return;
        }
        let silence = self.now - heard[way.index()];
        if silence >= IDLE {
            self.sink.sometimes("silent_link_found", true);
            match way {
                Way::ToHub => self.link_lost(conn, "silent", None),
                Way::ToEndpoint => self.hub_link_over(conn, "silent"),
            }
            return;
        }
        if silence >= KEEP_ALIVE {
            self.send(conn, way, Body::Ping);
        }
        self.queue.push(self.now + KEEP_ALIVE, Task::Alive(conn, way));
    }

    pub(super) fn emit(&mut self, host: usize, what: What) {
        self.sink.emit(self.now, &self.hosts[host].name, what);
    }
}

/// How long to stay away.
fn wait(backoff: &mut Backoff, refusal: Option<&Refusal>, random: u64) -> Duration {
    let hint = refusal.and_then(|refusal| refusal.retry_after_ms).map(Duration::from_millis);
    match (refusal, hint) {
        (Some(refusal), Some(hint)) if refusal.code == RefusalCode::Superseded => {
            if hint.is_zero() {
                backoff.next(random)
            } else {
                backoff.next_superseded(hint, random)
            }
        }
        (_, Some(hint)) => backoff.next_with_hint(hint, random),
        (_, None) => backoff.next(random),
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
