//! UDP: datagrams on their way between an endpoint and its hub.
//!
//! In: what quinn wants sent. Out: the same at the other end, or not: lost, twice, too large, blocked, or for a place where
//! the endpoint is not any more. An endpoint is at an address that it changes when it moves, and at a port that is a NAT's,
//! which changes when the NAT has forgotten it; only the hub sees either.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, DatagramEvent};

use super::super::network::{Body, DOWN, Datagram, Packet, UP, Way};
use super::super::world::{Task, World};
use super::QuicConn;
use crate::event::{What, digest};
use crate::link::Fate;

/// The hubs' port.
const PORT: u16 = 443;

/// Where endpoints' ports begin, and how many there are.
const FIRST_PORT: u32 = 1 << 10;
const PORTS: u32 = 60_000;

impl World<'_> {
    /// An endpoint's next port, or the next one of the NAT before it.
    pub(super) fn next_port(&mut self, host: usize) -> u16 {
        let count = &mut self.hosts[host].ports;
        *count += 1;
        u16::try_from(FIRST_PORT + (*count - 1) % PORTS).expect("there are no more ports than that")
    }

    /// Where the endpoint of a connection is now, as others see it.
    fn place_of(&self, conn: usize) -> SocketAddr {
        let host = self.conns[conn].endpoint;
        let port = self.conns[conn].quic.as_ref().map_or(0, |quic| quic.port);
        address(host, self.hosts[host].moves, port)
    }

    pub(super) fn send_datagram(&mut self, conn: usize, way: Way, to: SocketAddr, bytes: Bytes) {
        let place = match way {
            Way::ToHub => self.go_out(conn),
            Way::ToEndpoint => to,
        };
        self.launch(conn, way, Body::Datagram(Datagram { bytes, place }));
    }

    /// A packet goes out through a NAT, which gives it another port if it has forgotten the last one.
    fn go_out(&mut self, conn: usize) -> SocketAddr {
        let host = self.conns[conn].endpoint;
        let nat = &mut self.conns[conn].nat;
        let remembers = nat.remembers(self.now);
        nat.touch(self.now);
        if !remembers {
            let port = self.next_port(host);
            self.quic_of(conn).port = port;
            self.sink.sometimes("nat_forgot", true);
            self.emit(host, What::Note { text: "its port of UDP is another one from now on".into() });
        }
        self.place_of(conn)
    }

    /// A datagram has come to its end.
    pub(in super::super) fn datagram_arrived(
        &mut self,
        conn: usize,
        way: Way,
        Datagram { bytes, place }: Datagram,
    ) {
        match way {
            Way::ToEndpoint => self.datagram_at_endpoint(conn, &bytes),
            Way::ToHub => self.datagram_at_hub(conn, place, &bytes),
        }
    }

    fn datagram_at_endpoint(&mut self, conn: usize, bytes: &[u8]) {
        let (host, hub) = (self.conns[conn].endpoint, self.conns[conn].hub);
        let now = self.instant(host);
        let QuicConn { client, sides: [side, _], .. } = self.quic_of(conn);
        let Some(side) = side else { return };
        let mut answer = Vec::new();
        let from = hub_address(hub);
        match client.handle(now, from, None, None, BytesMut::from(bytes), &mut answer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                side.connection.handle_event(event);
                self.quic.dirty.insert((conn, 0));
            }
            Some(DatagramEvent::Response(_)) => self.send_datagram(conn, Way::ToHub, from, answer.into()),
            Some(DatagramEvent::NewConnection(_)) | None => {}
        }
    }

    fn datagram_at_hub(&mut self, conn: usize, from: SocketAddr, bytes: &[u8]) {
        let hub = self.conns[conn].hub;
        let (now, process) = (self.instant(hub), self.process_for(conn));
        let server = self.server(hub, process);
        let mut answer = Vec::new();
        match server.endpoint.handle(now, from, None, None, BytesMut::from(bytes), &mut answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(&conn) = server.conns.get(&handle.0) else { return };
                if let Some(side) = &mut self.quic_of(conn).sides[1] {
                    side.connection.handle_event(event);
                    self.quic.dirty.insert((conn, 1));
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.knock(conn, process, incoming),
            Some(DatagramEvent::Response(_)) => {
                self.send_datagram(conn, Way::ToEndpoint, from, answer.into());
            }
            None => {}
        }
    }

    /// Which process of its hub a connection's datagrams go to: the present one. Before an older one that is being replaced
    /// is gone, it has those who are on it.
    fn process_for(&mut self, conn: usize) -> u32 {
        let (hub, asked) = (self.conns[conn].hub, self.conns[conn].processes[1]);
        let is_accepted = self.quic_of(conn).sides[1].is_some();
        let server = self.quic.servers.get(&(hub, asked));
        let is_on_it = server.is_some_and(|server| is_accepted || server.knocking.contains_key(&conn));
        if is_on_it { asked } else { self.hosts[hub].process }
    }

    /// A datagram takes a host's line: once, twice, or not at all.
    pub(in super::super) fn pass_datagram(
        &mut self,
        host: usize,
        line: usize,
        packet: &Packet,
        datagram: &Datagram,
    ) {
        let length = datagram.bytes.len();
        let fate = if self.stops_datagrams(host, line) {
            "blocked"
        } else {
            match self.hosts[host].lines[line].send(self.now, length) {
                Fate::Arrives { at, again } => {
                    for at in [Some(at), again].into_iter().flatten() {
                        let Packet { conn, way, hops, .. } = *packet;
                        let body = Body::Datagram(datagram.clone());
                        self.queue.push(at, Task::Hop(Box::new(Packet { conn, way, body, hops })));
                    }
                    if again.is_some() { "twice" } else { "sent" }
                }
                Fate::TooLarge => "too large",
                Fate::QueueFull => "queue full",
                Fate::Lost => "lost",
            }
        };
        let is_lost = !matches!(fate, "sent" | "twice");
        match fate {
            "sent" => {}
            "twice" => self.sink.sometimes("packet_came_twice", true),
            _ => self.sink.sometimes("packet_lost", true),
        }
        if line == UP {
            let (length, digest) = (length as u64, digest(&datagram.bytes));
            self.emit(host, What::PacketSent { length, digest, fate: fate.into() });
        } else if is_lost {
            self.drop_datagram(host, length, fate);
        }
    }

    fn stops_datagrams(&self, host: usize, line: usize) -> bool {
        let it = &self.hosts[host];
        it.udp_blocks > 0 || it.cuts > 0 || it.mutes[line] > 0
    }

    fn drop_datagram(&mut self, host: usize, length: usize, why: &str) {
        self.emit(host, What::PacketDropped { length: length as u64, why: why.into() });
    }

    /// A datagram comes to the next host, if that is there, is where the datagram is to go, and is let to have it.
    pub(in super::super) fn hop_datagram(&mut self, next: usize, packet: Box<Packet>, datagram: &Datagram) {
        let conn = packet.conn;
        let is_here = packet.way == Way::ToHub || self.has_come_home(conn, datagram);
        if !self.hosts[next].is_alive || !is_here {
            return self.drop_datagram(next, datagram.bytes.len(), "nobody is there");
        }
        self.pass(next, DOWN, packet);
    }

    /// Whether the endpoint is still where a datagram is to go, and a NAT lets it in.
    fn has_come_home(&mut self, conn: usize, datagram: &Datagram) -> bool {
        let now = self.now;
        let is_known = datagram.place == self.place_of(conn) && self.conns[conn].nat.remembers(now);
        if is_known {
            self.conns[conn].nat.touch(now);
        }
        is_known
    }

    /// The hub takes its peer to be elsewhere: that is told.
    pub(super) fn note_place(&mut self, conn: usize, way: Way, connection: &Connection) {
        if way == Way::ToHub {
            return;
        }
        let place = connection.remote_address();
        let before = self.quic_of(conn).seen_at.replace(place);
        if let Some(before) = before.filter(|before| *before != place) {
            self.sink.sometimes("path_migrated", true);
            let endpoint = self.hosts[self.conns[conn].endpoint].name.clone();
            let text = format!("{endpoint} is at {place} now, and not at {before}");
            self.emit(self.conns[conn].hub, What::Note { text });
        }
    }
}

/// Where a host is that has moved so often.
fn address(host: usize, moves: u32, port: u16) -> SocketAddr {
    let host = u32::try_from(host).expect("there are no more than 100,000");
    let network = (10 + moves % 200) << 24;
    SocketAddr::new(Ipv4Addr::from(network + host).into(), port)
}

/// Where a hub is.
pub(super) fn hub_address(hub: usize) -> SocketAddr {
    address(hub, 0, PORT)
}
