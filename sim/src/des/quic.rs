//! QUIC: what links are made of, for endpoints that say so.
//!
//! In: the words of links, datagrams, timers. Out: the same words at the other end, and datagrams for the network. Real is
//! `quinn-proto`, with the product's own configuration, and TLS 1.3 within it; of a hub there is one endpoint for each
//! process, and of each attempt to reach one another, with a port of its own, as in the product. Which word goes on which
//! stream is in `quic/side.rs`, what becomes of datagrams in `quic/datagrams.rs`, and how a path that has gone dark shows in
//! `quic/path.rs`.
//!
//! quinn asks for a time of the system's. Here that is a beginning, which is no part of what happens, and so many nanoseconds
//! of the host's own clock.

mod datagrams;
mod path;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{ConnectionError, ConnectionHandle, Endpoint, Incoming};
use towline::core::Limits;
use towline::identity;
use towline::{hub_link_config, link_config};
use towline_engine::Config;
use towline_transports::quic::{self, Silence};
use towline_transports::tls::Environment;

use super::endpoint::nanos;
use super::hub::limits;
use super::judge;
use super::network::{Body, Way};
use super::world::{Far, Task, World};
use crate::crypto::{self, FirstDay};
use crate::issuer::Issuer;
use crate::scenario::{Role, Transport};
use datagrams::hub_address;
use side::{Heard, Side, Spoken};

/// How many streams a peer may have open at first: as the product's links.
const STREAMS_AT_FIRST: u64 = 16;

/// All that is of QUIC, but for what connections know of themselves.
pub(super) struct Quic {
    /// The beginning of time.
    began: Instant,
    issuer: Option<Issuer>,
    /// What each process needs to connect.
    clients: BTreeMap<(usize, u32), Client>,
    /// What each process accepts with.
    servers: BTreeMap<(usize, u32), Server>,
    /// Ends of connections that may have something to say.
    pub(super) dirty: BTreeSet<(usize, usize)>,
}

struct Client {
    config: quic::ClientConfig,
    environment: Environment,
}

struct Server {
    endpoint: Endpoint,
    /// Whose the connections are that it has accepted.
    conns: BTreeMap<usize, usize>,
    /// Who wants to connect, and waits for the hub's processor.
    knocking: BTreeMap<usize, Incoming>,
}

/// What a connection is that is QUIC.
pub(super) struct QuicConn {
    /// From where its endpoint's packets come at the moment, on the outer side of a NAT.
    port: u16,
    client: Endpoint,
    sides: [Option<Box<Side>>; 2],
    /// What each end has said, and the other has not read.
    spoken: [Spoken; 2],
    /// The endpoint's watch over it.
    silence: Silence,
    /// Which of the looks at it that were planned is the next.
    look: u64,
    /// Where the hub takes the endpoint to be.
    seen_at: Option<SocketAddr>,
}

impl Quic {
    #[expect(clippy::disallowed_methods, reason = "quinn's times are the system's; only differences matter")]
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            issuer: None,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }
}

impl World<'_> {
    /// The time, as `host` has it, for quinn.
    fn instant(&self, host: usize) -> Instant {
        self.quic.began + Duration::from_nanos(self.clock(host).as_nanos())
    }

    // Who is who.

    /// The world as a process sees it.
    fn environment_of(&self, host: usize, process: u32) -> Environment {
        let stream = self.random.stream(&format!("host/{}/{process}/entropy", self.hosts[host].name));
        crypto::environment(stream, Arc::new(FirstDay))
    }

    fn client(&mut self, host: usize) -> &Client {
        let process = self.hosts[host].process;
        if !self.quic.clients.contains_key(&(host, process)) {
            let role = if self.hosts[host].role == Role::Device { "device" } else { "service" };
            let identity = format!("{role}/{}", self.plan.hosts[host].identity);
            let issuer = self.quic.issuer.get_or_insert_with(|| Issuer::new(self.random));
            let credentials = issuer.credentials(&identity, &[]);
            let environment = self.environment_of(host, process);
            let limits = link_config(towline_engine::Side::Client);
            let config = quic::client_config(credentials, &environment, limits);
            let config = config.expect("the credentials are good");
            self.quic.clients.insert((host, process), Client { config, environment });
        }
        &self.quic.clients[&(host, process)]
    }

    /// Somebody connects to a process of a hub: it has a port then.
    fn server(&mut self, host: usize, process: u32) -> &mut Server {
        if !self.quic.servers.contains_key(&(host, process)) {
            let name = self.hosts[host].name.clone();
            let issuer = self.quic.issuer.get_or_insert_with(|| Issuer::new(self.random));
            let credentials = issuer.credentials(&format!("hub/{name}"), &[&name]);
            let environment = self.environment_of(host, process);
            let config = quic::server_config(credentials, &environment, at_hub(None));
            let config = Arc::new(config.expect("the credentials are good").quinn().clone());
            let endpoint = Arc::new(quic::endpoint_config(&environment));
            let endpoint = Endpoint::new(endpoint, Some(config), true, None);
            let server = Server { endpoint, conns: BTreeMap::new(), knocking: BTreeMap::new() };
            self.quic.servers.insert((host, process), server);
        }
        self.quic.servers.get_mut(&(host, process)).expect("it is there")
    }

    /// A process is gone, with all of its sockets. Nobody says so.
    pub(super) fn forget_quic(&mut self, host: usize) {
        let process = self.hosts[host].process;
        let is_gone = |&(at, of): &(usize, u32)| at == host && of <= process;
        self.quic.clients.retain(|key, _| !is_gone(key));
        self.quic.servers.retain(|key, _| !is_gone(key));
        for conn in &mut self.conns {
            let ends = [conn.endpoint, conn.hub].into_iter().zip(conn.processes);
            let are_gone = ends.map(|end| is_gone(&end)).collect::<Vec<_>>();
            let Some(quic) = &mut conn.quic else { continue };
            for (side, _) in quic.sides.iter_mut().zip(are_gone).filter(|(_, is_gone)| *is_gone) {
                *side = None;
            }
        }
    }

    // Connecting.

    pub(super) fn is_quic(&self, host: usize) -> bool {
        self.plan.hosts[host].transport == Transport::Quic
    }

    /// What an endpoint needs to reach `hub`: its socket, and the connection that has not shaken hands.
    pub(super) fn new_quic(&mut self, host: usize, hub: usize) -> Box<QuicConn> {
        let (now, port) = (self.instant(host), self.next_port(host));
        let name = self.hosts[hub].name.clone();
        let Client { config, environment } = self.client(host);
        let config = config.quinn().clone();
        let endpoint = quic::endpoint_config(environment);
        let mut client = Endpoint::new(Arc::new(endpoint), None, true, None);
        let (handle, connection) =
            client.connect(now, config, hub_address(hub), &name).expect("the hub has a name and an address");
        let most = link_config(towline_engine::Side::Client).max_streams_bidi;
        let side = Side::new(handle, connection, most);
        Box::new(QuicConn {
            port,
            client,
            sides: [Some(Box::new(side)), None],
            spoken: Default::default(),
            silence: Silence::since(0),
            look: 0,
            seen_at: None,
        })
    }

    /// A first packet has come to a hub. Who waits longest may have to go, and who comes to a hub with much to do must first
    /// show where it is.
    fn knock(&mut self, conn: usize, process: u32, incoming: Incoming) {
        let (hub, far) = (self.conns[conn].hub, self.conns[conn].far);
        let is_new_hub = self.conns[conn].processes[1] != process;
        if far != Far::Unknown && !is_new_hub {
            return self.server(hub, process).endpoint.ignore(incoming);
        }
        let limit = quic::RETRY_FROM.min(limits(&self.plan.hosts[hub]).unauthenticated / 8);
        if self.hub(hub).visitors.len() >= limit && !incoming.remote_address_validated() {
            self.sink.sometimes("address_was_asked_for", true);
            let mut bytes = Vec::new();
            let to = incoming.remote_address();
            if self.server(hub, process).endpoint.retry(incoming, &mut bytes).is_ok() {
                self.send_datagram(conn, Way::ToEndpoint, to, bytes.into());
            }
            return;
        }
        self.conns[conn].processes[1] = process;
        // To this process it is a stranger.
        self.conns[conn].far = Far::Unknown;
        self.server(hub, process).knocking.insert(conn, incoming);
        self.admit(conn);
        self.shake_hands(conn);
    }

    /// The hub's processor is done with a handshake.
    pub(super) fn accept_quic(&mut self, conn: usize) {
        let (hub, process) = (self.conns[conn].hub, self.conns[conn].processes[1]);
        let now = self.instant(hub);
        let server = self.server(hub, process);
        let Some(incoming) = server.knocking.remove(&conn) else { return };
        let (to, mut bytes) = (incoming.remote_address(), Vec::new());
        match server.endpoint.accept(incoming, now, &mut bytes, None) {
            Ok((handle, connection)) => {
                server.conns.insert(handle.0, conn);
                let side = Box::new(Side::new(handle, connection, at_hub(None).max_streams_bidi));
                self.quic_of(conn).sides[1] = Some(side);
                self.quic.dirty.insert((conn, 1));
            }
            Err(error) => {
                if error.response.is_some() {
                    self.send_datagram(conn, Way::ToEndpoint, to, bytes.into());
                }
                self.hub_link_over(conn, "no handshake");
            }
        }
    }

    /// The hub does not want who knocks.
    fn turn_away(&mut self, conn: usize) {
        let (hub, process) = (self.conns[conn].hub, self.conns[conn].processes[1]);
        let Some(server) = self.quic.servers.get_mut(&(hub, process)) else { return };
        let Some(incoming) = server.knocking.remove(&conn) else { return };
        let (to, mut bytes) = (incoming.remote_address(), Vec::new());
        let _ = server.endpoint.refuse(incoming, &mut bytes);
        self.send_datagram(conn, Way::ToEndpoint, to, bytes.into());
    }

    /// The hub knows who it is: how many streams such a peer may have open.
    pub(super) fn welcome_quic(&mut self, conn: usize) {
        let is_device = self.hosts[self.conns[conn].endpoint].role == Role::Device;
        let role = if is_device { identity::Role::Device } else { identity::Role::Service };
        let limits = at_hub(Some(role));
        if let Some(side) = self.conns[conn].quic.as_mut().and_then(|quic| quic.sides[1].as_mut()) {
            side.most_streams = limits.max_streams_bidi;
            side.allow(limits.max_streams_bidi.min(STREAMS_AT_FIRST));
        }
    }

    fn quic_of(&mut self, conn: usize) -> &mut QuicConn {
        self.conns[conn].quic.as_mut().expect("it is one of QUIC")
    }

    // Words.

    /// An end says something.
    pub(super) fn say_over_quic(&mut self, conn: usize, way: Way, body: Body) {
        let pair = match body {
            Body::Opened(tunnel) => Some(self.tunnels[tunnel].pair),
            _ => None,
        };
        let quic = self.quic_of(conn);
        match &mut quic.sides[way.index()] {
            Some(side) => {
                side.say(body, pair, &mut quic.spoken[way.index()]);
                self.quic.dirty.insert((conn, way.index()));
            }
            None if matches!(body, Body::Fin) && way == Way::ToEndpoint => self.turn_away(conn),
            None => {}
        }
    }

    /// Whether a tunnel's stream takes no more for the moment. Its session will be told.
    pub(super) fn is_full(&self, conn: usize, tunnel: usize) -> bool {
        let quic = self.conns[conn].quic.as_ref();
        quic.and_then(|quic| quic.sides[0].as_ref()).is_some_and(|side| side.is_full(tunnel))
    }

    /// How long the slower of a connection's ends takes the way and back to be; nothing if it is not of QUIC.
    pub(super) fn quic_round_trip(&self, conn: usize) -> u64 {
        let sides = self.conns[conn].quic.iter().flat_map(|quic| quic.sides.iter().flatten());
        sides.map(|side| nanos(side.connection.rtt())).max().unwrap_or(0)
    }

    /// The link is over, as its end has it that sends `way`.
    pub(super) fn give_up_quic(&mut self, conn: usize, way: Way) {
        let now = self.instant(self.side_of(conn, way));
        let Some(quic) = &mut self.conns[conn].quic else { return };
        if let Some(side) = &mut quic.sides[way.index()] {
            side.give_up(now);
            self.quic.dirty.insert((conn, way.index()));
        }
    }

    fn heard_over_quic(&mut self, conn: usize, way: Way, heard: Heard) {
        match (way, heard) {
            (Way::ToHub, Heard::Connected) => self.say_over_quic(conn, Way::ToHub, Body::Hello),
            (Way::ToEndpoint, Heard::Connected) => {}
            (Way::ToHub, Heard::Word(body)) => self.arrive_at_endpoint(conn, body),
            (Way::ToEndpoint, Heard::Word(body)) => self.arrive_at_hub(conn, body),
            (Way::ToHub, Heard::Lost(why)) => {
                self.look_at_loss(conn, way, &why);
                self.link_lost(conn, reason(&why, "closed by the hub"), None);
            }
            (Way::ToEndpoint, Heard::Lost(why)) => {
                self.look_at_loss(conn, way, &why);
                self.hub_link_over(conn, reason(&why, "closed by the endpoint"));
            }
        }
    }

    /// Connections end because somebody closes them, or nobody is there: neither end ever finds fault with the other.
    fn look_at_loss(&mut self, conn: usize, way: Way, why: &ConnectionError) {
        if *why == ConnectionError::TimedOut {
            self.sink.sometimes("silent_link_found", true);
        }
        let who = self.hosts[self.side_of(conn, way)].name.clone();
        self.sink.judge("no_violation", judge::no_violation_of_quic(why), self.now, &who);
    }

    // Turns.

    pub(super) fn quic_timer(&mut self, conn: usize, end: usize) {
        let host = self.side_of(conn, Way::ALL[end]);
        let now = self.instant(host);
        let due = self.now;
        if let Some(side) = &mut self.quic_of(conn).sides[end]
            && side.timer_at <= due
        {
            side.timer_at = u64::MAX;
            side.connection.handle_timeout(now);
            self.quic.dirty.insert((conn, end));
        }
    }

    /// The clock of `host` is another one: its connections look at it.
    pub(super) fn look_at_clock(&mut self, host: usize) {
        for conn in 0..self.conns.len() {
            for end in 0..2 {
                let is_its = self.side_of(conn, Way::ALL[end]) == host;
                let now = self.now;
                let Some(quic) = self.conns[conn].quic.as_mut().filter(|_| is_its) else { continue };
                if let Some(side) = &mut quic.sides[end] {
                    side.timer_at = now;
                    self.queue.push(now, Task::Quic(conn, end));
                }
            }
        }
    }

    /// An end hears what has come, says what is to be said, and sends what is to be sent.
    pub(super) fn pump_quic(&mut self, conn: usize, end: usize) {
        let way = Way::ALL[end];
        let now = self.instant(self.side_of(conn, way));
        let quic = self.quic_of(conn);
        let Some(mut side) = quic.sides[end].take() else { return };
        let heard = side.listen(&mut quic.spoken[1 - end]);
        let free = side.flush(now, &mut quic.spoken[end]);
        let is_over = self.send_datagrams(conn, way, &mut side, now);
        let comes_into_use = side.comes_into_use();
        self.set_timer(conn, end, &mut side);
        self.note_place(conn, way, &side.connection);
        if !is_over {
            self.quic_of(conn).sides[end] = Some(side);
        }
        for tunnel in free.into_iter().filter(|_| way == Way::ToHub) {
            self.dirty.extend(self.tunnels[tunnel].ends.into_iter().flatten());
        }
        for heard in heard {
            self.heard_over_quic(conn, way, heard);
            // Sessions hear one thing after the other, as from a pipe.
            self.settle_sessions();
        }
        if comes_into_use && way == Way::ToHub {
            self.watch_path(conn);
        }
    }

    /// Sends what there is. Returns whether the connection is over for good.
    fn send_datagrams(&mut self, conn: usize, way: Way, side: &mut Side, now: Instant) -> bool {
        let mut is_over = false;
        loop {
            let mut bytes = Vec::new();
            let transmit = side.connection.poll_transmit(now, 1, &mut bytes);
            let was_sent = transmit.is_some();
            if let Some(transmit) = transmit {
                bytes.truncate(transmit.size);
                self.send_datagram(conn, way, transmit.destination, bytes.into());
            }
            let mut had_event = false;
            while let Some(event) = side.connection.poll_endpoint_events() {
                had_event = true;
                is_over |= event.is_drained();
                let Some(endpoint) = self.endpoint_of(conn, way, side.handle, is_over) else { continue };
                if let Some(event) = endpoint.handle_event(side.handle, event) {
                    side.connection.handle_event(event);
                }
            }
            if !was_sent && !had_event {
                return is_over;
            }
        }
    }

    fn endpoint_of(
        &mut self,
        conn: usize,
        way: Way,
        handle: ConnectionHandle,
        is_over: bool,
    ) -> Option<&mut Endpoint> {
        if way == Way::ToHub {
            return Some(&mut self.quic_of(conn).client);
        }
        let key = (self.conns[conn].hub, self.conns[conn].processes[1]);
        let server = self.quic.servers.get_mut(&key)?;
        if is_over {
            server.conns.remove(&handle.0);
        }
        Some(&mut server.endpoint)
    }

    fn set_timer(&mut self, conn: usize, end: usize, side: &mut Side) {
        let Some(at) = side.connection.poll_timeout() else { return };
        let ahead = self.hosts[self.side_of(conn, Way::ALL[end])].ahead;
        let at = nanos(at.saturating_duration_since(self.quic.began)).saturating_sub(ahead).max(self.now);
        if at < side.timer_at {
            side.timer_at = at;
            self.queue.push(at, Task::Quic(conn, end));
        }
    }
}

/// A hub's limits on a link to a peer in this role.
fn at_hub(peer: Option<identity::Role>) -> Config {
    hub_link_config(Limits::default().tunnels_per_device, peer)
}

/// Why a connection is over, in the words of links.
fn reason(why: &ConnectionError, closed: &'static str) -> &'static str {
    match why {
        ConnectionError::TimedOut => "silent",
        ConnectionError::ApplicationClosed(_) => closed,
        ConnectionError::LocallyClosed => "closed",
        ConnectionError::ConnectionClosed(_) => "closed by QUIC",
        ConnectionError::Reset => "reset",
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::CidsExhausted => "failed",
    }
}
