//! A hub: the product's own core and lobby, behind connections that are modelled.

use std::collections::BTreeMap;

use towline::core::{Action, Core, Limits, LinkId, Lobby, Visitor};
use towline::identity::{self, Identity};
use towline::message::{Accepted, Answer, Hello, Open, Profile, VERSION};
use towline::policy::AllowAll;
use towline::refusal::{Refusal, RefusalCode};
use towline_engine::{Epoch, Instant};

use super::endpoint::{KEEP_ALIVE, nanos};
use super::network::{Body, Way};
use super::world::{Conn, Far, Hub, Task, Tunnel, World};
use crate::scenario::{Host, Role};

impl Hub {
    pub(super) fn new(host: &Host) -> Self {
        let limits = limits(host);
        let lobby = Lobby::new(limits.unauthenticated);
        let core = Core::new(limits, Box::new(AllowAll));
        Self {
            core,
            lobby,
            visitors: BTreeMap::new(),
            outside: Default::default(),
            spoken: Default::default(),
            lets_in_at: u64::MAX,
            at_work: None,
            handshakes: Default::default(),
            timeout_at: u64::MAX,
        }
    }
}

/// What a hub allows.
pub(super) fn limits(host: &Host) -> Limits {
    let limits = Limits::default();
    match host.unauthenticated.map(|count| usize::try_from(count).unwrap_or(usize::MAX)) {
        Some(count) => limits.unauthenticated(count),
        None => limits,
    }
}

impl World<'_> {
    pub(super) fn hub(&mut self, host: usize) -> &mut Hub {
        self.hosts[host].hub.as_mut().expect("it is a hub")
    }

    pub(super) fn arrive_at_hub(&mut self, conn: usize, body: Body) {
        let hub = self.conns[conn].hub;
        let is_ours = self.hosts[hub].process == self.conns[conn].processes[1];
        if !is_ours || self.conns[conn].far == Far::Over {
            if !matches!(body, Body::Fin) {
                self.send(conn, Way::ToEndpoint, Body::Fin);
            }
            return;
        }
        match body {
            Body::Syn => self.admit(conn),
            Body::ClientHello => self.shake_hands(conn),
            Body::Hello => self.hello(conn),
            Body::Fin => self.hub_link_over(conn, "closed by the endpoint"),
            Body::Ping => self.send(conn, Way::ToEndpoint, Body::Pong),
            Body::Open(pair) => self.open(conn, pair),
            Body::Answer(tunnel) => self.answered(tunnel),
            Body::Data(tunnel, bytes) => self.splice(tunnel, conn, bytes),
            Body::Closed(tunnel) => self.close_at_hub(tunnel, Some(conn)),
            Body::Pong
            | Body::SynAck
            | Body::ServerHello
            | Body::Welcome
            | Body::Goodbye(_)
            | Body::OpenRefused(..)
            | Body::Offer(_)
            | Body::Opened(_)
            | Body::Datagram(_) => {}
        }
    }

    /// Somebody knocks. The system answers, whether there is room or not.
    pub(super) fn admit(&mut self, conn: usize) {
        let hub = self.conns[conn].hub;
        self.hub(hub).outside.push_back(conn);
        self.let_in(hub);
        self.send(conn, Way::ToEndpoint, Body::SynAck);
    }

    /// Lets in who waits for a place, as long as there are some. The oldest may have to go.
    pub(super) fn let_in(&mut self, hub: usize) {
        while let Some(&conn) = self.hub(hub).outside.front() {
            if self.conns[conn].far != Far::Unknown {
                self.hub(hub).outside.pop_front();
                self.hub(hub).spoken.remove(&conn);
                continue;
            }
            let now = Instant::from_nanos(self.now);
            let (visitor, goes) = match self.hub(hub).lobby.arrive(now) {
                Ok(place) => place,
                Err(until) => {
                    self.sink.sometimes("lobby_was_full", true);
                    return self.let_in_at(hub, until.as_nanos());
                }
            };
            self.hub(hub).outside.pop_front();
            self.hub(hub).visitors.insert(visitor, conn);
            self.conns[conn].far = Far::Waiting(visitor);
            if let Some(gone) = goes.and_then(|goes| self.hub(hub).visitors.remove(&goes)) {
                self.hub_link_over(gone, "evicted");
            }
            let handshake = nanos(Limits::default().handshake);
            self.queue.push(self.now + handshake, Task::HandshakeDue(conn, Way::ToEndpoint));
            if self.hub(hub).spoken.remove(&conn) {
                self.shake_hands(conn);
            }
        }
    }

    /// Somebody has left the lobby.
    fn leave(&mut self, hub: usize, visitor: Visitor) {
        self.hub(hub).lobby.leave(visitor);
        self.hub(hub).visitors.remove(&visitor);
        if !self.hub(hub).outside.is_empty() {
            self.let_in_at(hub, self.now);
        }
    }

    fn let_in_at(&mut self, hub: usize, at: u64) {
        if at < self.hub(hub).lets_in_at {
            self.hub(hub).lets_in_at = at;
            self.queue.push(at, Task::LetIn(hub));
        }
    }

    pub(super) fn lobby_timeout(&mut self, hub: usize) {
        if self.hosts[hub].is_alive {
            self.hub(hub).lets_in_at = u64::MAX;
            self.let_in(hub);
        }
    }

    pub(super) fn hub_handshake_due(&mut self, conn: usize) {
        if matches!(self.conns[conn].far, Far::Waiting(_)) && self.is_hubs(conn) {
            self.hub_link_over(conn, "deadline passed");
        }
    }

    fn is_hubs(&self, conn: usize) -> bool {
        let hub = &self.hosts[self.conns[conn].hub];
        hub.is_alive && hub.process == self.conns[conn].processes[1]
    }

    /// The processor works, one handshake after the other, of those who are in the lobby.
    pub(super) fn shake_hands(&mut self, conn: usize) {
        let hub = self.conns[conn].hub;
        if self.conns[conn].far == Far::Unknown {
            self.hub(hub).spoken.insert(conn);
            return;
        }
        self.hub(hub).handshakes.push_back(conn);
        self.work(hub);
    }

    /// Takes up the next handshake, if there is time. Whoever had to go meanwhile costs nothing.
    fn work(&mut self, hub: usize) {
        while self.hub(hub).at_work.is_none()
            && let Some(conn) = self.hub(hub).handshakes.pop_front()
        {
            if self.conns[conn].far != Far::Over {
                self.hub(hub).at_work = Some(conn);
                self.queue.push(self.now + self.plan.hosts[hub].handshake.0, Task::Greet(conn));
            }
        }
    }

    pub(super) fn greet(&mut self, conn: usize) {
        if !self.is_hubs(conn) {
            return;
        }
        match (self.conns[conn].far, self.conns[conn].quic.is_some()) {
            (Far::Over, _) => {}
            (_, true) => self.accept_quic(conn),
            (_, false) => self.send(conn, Way::ToEndpoint, Body::ServerHello),
        }
        let hub = self.conns[conn].hub;
        self.hub(hub).at_work = None;
        self.work(hub);
    }

    fn hello(&mut self, conn: usize) {
        let Conn { endpoint, hub, far, .. } = self.conns[conn];
        let now = self.clock(hub);
        let host = &self.hosts[endpoint];
        let role = if host.role == Role::Device { identity::Role::Device } else { identity::Role::Service };
        let name = self.plan.hosts[endpoint].identity.parse().expect("names of hosts are names");
        let identity = Identity { trust_domain: "lab".into(), role, name };
        let instance = host.endpoint.as_ref().expect("it is one").instance;
        let hello = Hello { version: VERSION, instance, agent: "lab".into() };
        let link = LinkId(conn as u64);
        let answer = self.hub(hub).core.handle_hello(now, link, identity, String::new(), hello);
        if let Far::Waiting(visitor) = far {
            if answer.is_ok() {
                self.hub(hub).lobby.pass(visitor);
            }
            self.leave(hub, visitor);
        }
        match answer {
            Ok(()) => {
                self.conns[conn].far = Far::Up;
                if self.conns[conn].quic.is_some() {
                    self.welcome_quic(conn);
                } else {
                    self.queue.push(self.now + KEEP_ALIVE, Task::Alive(conn, Way::ToEndpoint));
                }
                self.send(conn, Way::ToEndpoint, Body::Welcome);
            }
            Err(refusal) => {
                self.conns[conn].far = Far::Over;
                self.send(conn, Way::ToEndpoint, Body::Goodbye(refusal));
            }
        }
        self.act(hub);
    }

    /// Does what the core wants done.
    pub(super) fn act(&mut self, hub: usize) {
        while let Some(action) = self.hub(hub).core.poll_action() {
            match action {
                Action::Dismiss(LinkId(conn), refusal) => {
                    let conn = usize::try_from(conn).expect("it was one");
                    self.send(conn, Way::ToEndpoint, Body::Goodbye(refusal));
                    self.hub_link_over(conn, "dismissed");
                }
                Action::Refuse(id, refusal) => {
                    let found =
                        self.tunnels.iter().rposition(|it| it.hub == hub && it.id == id && it.is_at_hub);
                    if let Some(tunnel) = found {
                        let Tunnel { pair, conns: [conn, _], .. } = self.tunnels[tunnel];
                        self.tunnels[tunnel].is_at_hub = false;
                        self.send(conn, Way::ToEndpoint, Body::OpenRefused(pair, refusal));
                    }
                }
                _ => {}
            }
        }
        let next = self.hub(hub).core.poll_timeout();
        let ahead = self.hosts[hub].ahead;
        if let Some(at) = next.map(|at| at.as_nanos().saturating_sub(ahead))
            && at < self.hub(hub).timeout_at
        {
            self.hub(hub).timeout_at = at;
            let at = at.max(self.now);
            self.queue.push(at, Task::HubTimeout(hub));
        }
    }

    pub(super) fn hub_timeout(&mut self, hub: usize) {
        if !self.hosts[hub].is_alive {
            return;
        }
        let now = self.clock(hub);
        self.hub(hub).timeout_at = u64::MAX;
        self.hub(hub).core.handle_timeout(now);
        self.act(hub);
    }

    /// The link is over, as the hub has it: so are its tunnels.
    pub(super) fn hub_link_over(&mut self, conn: usize, why: &str) {
        let Conn { hub, far, .. } = self.conns[conn];
        if far == Far::Over {
            return;
        }
        self.conns[conn].far = Far::Over;
        if why != "dismissed" {
            self.send(conn, Way::ToEndpoint, Body::Fin);
        } else if far != Far::Up {
            self.give_up_quic(conn, Way::ToEndpoint);
        }
        let now = self.clock(hub);
        if let Far::Waiting(visitor) = far {
            self.leave(hub, visitor);
        }
        self.hub(hub).core.handle_link_closed(now, LinkId(conn as u64));
        for tunnel in self.conns[conn].tunnels.clone() {
            self.close_at_hub(tunnel, Some(conn));
        }
    }

    fn open(&mut self, conn: usize, pair: usize) {
        let hub = self.conns[conn].hub;
        let now = self.clock(hub);
        let device = self.plan.hosts[self.pairs[pair].device].identity.clone();
        let open = Open {
            device,
            service: "lab".into(),
            profile: Profile::Native,
            deadline_ms: 30_000,
            wait_ms: None,
        };
        match self.hub(hub).core.handle_open(now, LinkId(conn as u64), &open) {
            Ok(offered) => {
                let to = usize::try_from(offered.link.0).expect("it was one");
                let tunnel = self.tunnels.len();
                self.tunnels.push(Tunnel {
                    hub,
                    id: offered.tunnel,
                    conns: [conn, to],
                    pair,
                    open: [false; 2],
                    is_at_hub: true,
                    is_answered: false,
                    epoch: Epoch(0),
                    ends: [None; 2],
                    acceptor: None,
                    kept: Vec::new(),
                    under_way: [0; 2],
                });
                self.conns[conn].tunnels.insert(tunnel);
                self.conns[to].tunnels.insert(tunnel);
                self.send(to, Way::ToEndpoint, Body::Offer(tunnel));
            }
            Err(refusal) => self.send(conn, Way::ToEndpoint, Body::OpenRefused(pair, refusal)),
        }
        self.act(hub);
    }

    fn answered(&mut self, tunnel: usize) {
        let Tunnel { hub, id, conns: [service, _], is_at_hub, .. } = self.tunnels[tunnel];
        let answer = Answer::Accepted(Accepted { tunnel: Some(id.0) });
        if is_at_hub && self.hub(hub).core.handle_answer(id, answer).is_some() {
            self.tunnels[tunnel].is_answered = true;
            self.send(service, Way::ToEndpoint, Body::Opened(tunnel));
        }
    }

    /// The bytes of one leg go to the other.
    fn splice(&mut self, tunnel: usize, from: usize, bytes: bytes::Bytes) {
        let Tunnel { conns: [service, device], is_at_hub, .. } = self.tunnels[tunnel];
        let to = if from == service { device } else { service };
        if is_at_hub && self.conns[to].far == Far::Up {
            self.send(to, Way::ToEndpoint, Body::Data(tunnel, bytes));
        }
    }

    /// The tunnel is over, as the hub has it. Whoever is still there learns it.
    fn close_at_hub(&mut self, tunnel: usize, from: Option<usize>) {
        let Tunnel { hub, id, conns, pair, is_at_hub, is_answered, .. } = self.tunnels[tunnel];
        if !is_at_hub {
            return;
        }
        self.tunnels[tunnel].is_at_hub = false;
        self.hub(hub).core.handle_tunnel_closed(id);
        for conn in conns {
            if Some(conn) == from || self.conns[conn].far != Far::Up {
                continue;
            }
            if is_answered || conn == conns[1] {
                self.send(conn, Way::ToEndpoint, Body::Closed(tunnel));
            } else {
                let refusal = Refusal::new(RefusalCode::DeviceOffline, "its link ended before it answered");
                self.send(conn, Way::ToEndpoint, Body::OpenRefused(pair, refusal));
            }
        }
    }
}
