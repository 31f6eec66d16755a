//! The network: packets from host to host, over each host's own line.
//!
//! In: packets of connections. Out: the same, later, in order, or never. A packet goes up its sender's line, perhaps
//! through a proxy, and down its receiver's. Connections of TCP do not lose: what is held goes on its way later, and what is
//! lost takes the whole connection with it. Datagrams are lost one by one.

use std::net::SocketAddr;

use bytes::Bytes;
use towline::refusal::Refusal;

use super::world::{Conn, Task, World};

/// Which way, or which end that is: 0 is the endpoint's, 1 the hub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToHub,
    ToEndpoint,
}

/// Something under way on a connection.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) conn: usize,
    pub(super) way: Way,
    pub(super) body: Body,
    /// How many hosts it has come to.
    pub(super) hops: usize,
}

/// What a packet says.
#[derive(Debug)]
pub(super) enum Body {
    Syn,
    SynAck,
    ClientHello,
    ServerHello,
    Hello,
    Welcome,
    Goodbye(Refusal),
    /// The connection is over.
    Fin,
    Ping,
    Pong,
    Open(usize),
    OpenRefused(usize, Refusal),
    Offer(usize),
    Answer(usize),
    Opened(usize),
    Data(usize, Bytes),
    Closed(usize),
    /// Bytes of QUIC's, of any of these but the handshakes.
    Datagram(Datagram),
}

/// A packet of UDP.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) bytes: Bytes,
    /// Where its endpoint is: where it comes from, or where it is to go.
    pub(super) place: SocketAddr,
}

impl Body {
    /// How long it is on the wire, in bytes: payload and a record's, a segment's and a TLS record's heads.
    fn len(&self) -> usize {
        match self {
            Self::Syn | Self::SynAck | Self::Fin => 60,
            Self::ClientHello => 1_800,
            Self::ServerHello => 3_000,
            Self::Hello => 1_200,
            Self::Data(_, bytes) => bytes.len() + bytes.len().div_ceil(1_448) * 52 + 30,
            Self::Datagram(datagram) => datagram.bytes.len(),
            _ => 160,
        }
    }

    /// How long it is on a stream of QUIC's, in bytes.
    pub(super) fn message_len(&self) -> usize {
        match self {
            Self::Hello => 48,
            Self::Open(_) | Self::Offer(_) => 96,
            Self::Goodbye(_) | Self::OpenRefused(..) => 80,
            Self::Data(_, bytes) => bytes.len(),
            _ => 16,
        }
    }
}

impl Packet {
    /// Whether it has come to who it is for.
    pub(super) fn is_at_its_end(&self, world: &World<'_>) -> bool {
        self.hops + 1 >= world.route_len(self.conn)
    }

    pub(super) fn receiver(&self, world: &World<'_>) -> usize {
        world.side_of(self.conn, self.way.back())
    }
}

impl Way {
    /// By its index.
    pub(super) const ALL: [Self; 2] = [Self::ToHub, Self::ToEndpoint];

    pub(super) fn back(self) -> Self {
        match self {
            Self::ToHub => Self::ToEndpoint,
            Self::ToEndpoint => Self::ToHub,
        }
    }

    /// Whose end sends that way.
    pub(super) fn index(self) -> usize {
        match self {
            Self::ToHub => 0,
            Self::ToEndpoint => 1,
        }
    }
}

pub(super) const UP: usize = 0;
pub(super) const DOWN: usize = 1;

impl World<'_> {
    /// The host that sends that way.
    pub(super) fn side_of(&self, conn: usize, way: Way) -> usize {
        match way {
            Way::ToHub => self.conns[conn].endpoint,
            Way::ToEndpoint => self.conns[conn].hub,
        }
    }

    /// The proxy in its way. A proxy takes no datagrams, so QUIC goes past it.
    fn proxy_of(&self, conn: usize) -> Option<usize> {
        if self.conns[conn].quic.is_some() {
            return None;
        }
        let name = self.plan.hosts[self.conns[conn].endpoint].proxy.as_ref()?;
        self.places.get(name).copied()
    }

    fn route_len(&self, conn: usize) -> usize {
        if self.proxy_of(conn).is_some() { 3 } else { 2 }
    }

    fn host_at(&self, packet: &Packet, hop: usize) -> usize {
        let last = self.route_len(packet.conn) - 1;
        match hop {
            0 => self.side_of(packet.conn, packet.way),
            _ if hop == last => packet.receiver(self),
            _ => self.proxy_of(packet.conn).expect("the route has a proxy"),
        }
    }

    /// Who is in the way of the connection: its hosts and its proxy.
    pub(super) fn hosts_of(&self, conn: usize) -> Vec<usize> {
        let Conn { endpoint, hub, .. } = self.conns[conn];
        [Some(endpoint), self.proxy_of(conn), Some(hub)].into_iter().flatten().collect()
    }

    /// Whether packets of the connection get anywhere.
    pub(super) fn is_passable(&self, conn: usize) -> bool {
        self.hosts_of(conn).iter().all(|&host| self.hosts[host].cuts == 0)
    }

    /// An end of a connection says something to the other.
    pub(super) fn send(&mut self, conn: usize, way: Way, body: Body) {
        if self.conns[conn].quic.is_some() {
            self.say_over_quic(conn, way, body);
        } else {
            self.launch(conn, way, body);
        }
    }

    /// A packet goes on its way.
    pub(super) fn launch(&mut self, conn: usize, way: Way, body: Body) {
        let packet = Box::new(Packet { conn, way, body, hops: 0 });
        let from = self.side_of(conn, way);
        if !self.hosts[from].is_alive {
            return;
        }
        self.pass(from, UP, packet);
    }

    /// A packet takes a host's line, or waits until it can.
    pub(super) fn pass(&mut self, host: usize, line: usize, packet: Box<Packet>) {
        // TCP sends again what is lost, so that it comes when the way is open again.
        let is_mute = self.hosts[host].mutes[line] > 0 && !matches!(packet.body, Body::Datagram(_));
        if self.hosts[host].holds[line] > 0 || is_mute {
            self.sink.sometimes("something_is_held", true);
            return self.hosts[host].held[line].push_back(packet);
        }
        if let Body::Datagram(datagram) = &packet.body {
            let datagram = datagram.clone();
            return self.pass_datagram(host, line, &packet, &datagram);
        }
        let len = packet.body.len();
        let at = self.hosts[host].lines[line].carry(self.now, len);
        self.queue.push(at, Task::Hop(packet));
    }

    /// What was held goes on its way.
    pub(super) fn release(&mut self, host: usize, line: usize) {
        for packet in std::mem::take(&mut self.hosts[host].held[line]) {
            self.pass(host, line, packet);
        }
    }

    /// A packet has left a line: the sender's up to the network, or the receiver's (or a proxy's) down from it.
    pub(super) fn hop(&mut self, mut packet: Box<Packet>) {
        let conn = packet.conn;
        if packet.is_at_its_end(self) {
            return self.arrive(*packet);
        }
        packet.hops += 1;
        let next = self.host_at(&packet, packet.hops);
        if let Body::Datagram(datagram) = &packet.body {
            let datagram = datagram.clone();
            return self.hop_datagram(next, packet, &datagram);
        }
        if !self.is_passable(conn) || !self.hosts[next].is_alive || self.has_nat_forgotten(conn) {
            self.conns[conn].is_lost = true;
        }
        if !self.conns[conn].is_lost {
            self.pass(next, DOWN, packet);
        }
    }

    fn has_nat_forgotten(&mut self, conn: usize) -> bool {
        let now = self.now;
        let nat = &mut self.conns[conn].nat;
        let knows = nat.remembers(now);
        nat.touch(now);
        if !knows {
            self.sink.sometimes("nat_forgot", true);
        }
        !knows
    }

    fn arrive(&mut self, packet: Packet) {
        let Packet { conn, way, body, .. } = packet;
        if !self.hosts[self.side_of(conn, way.back())].is_alive {
            return;
        }
        if let Body::Datagram(datagram) = body {
            return self.datagram_arrived(conn, way, datagram);
        }
        self.conns[conn].heard[way.back().index()] = self.now;
        match way {
            Way::ToHub => self.arrive_at_hub(conn, body),
            Way::ToEndpoint => self.arrive_at_endpoint(conn, body),
        }
    }

    /// How many bytes wait on the line of `host`.
    pub(super) fn backlog(&self, host: usize) -> u64 {
        self.hosts[host].lines[UP].backlog(self.now)
    }
}
