//! What lies between the hosts: everybody's line, and what is under way on it.
//!
//! turmoil carries bytes from socket to socket within a tick and loses none. What a network does besides is decided here
//! and enforced by the sockets in `tcp.rs` and `udp.rs`: when a piece arrives, whether it does, and what a fault makes of
//! it. An endpoint has one line to the rest of the world. From one endpoint to another it is up the one's line and down
//! the other's. A hub's line is as ideal as its specification says.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::firewall::Kind;
use super::line::{Line, Way};
use super::udp::Port;
use crate::event::{What, digest};
use crate::run::Sink;

/// An endpoint's name: `hub-0`, `device-7`.
pub type Who = Arc<str>;

/// What lies between the hosts. Cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Air(Arc<Mutex<State>>);

/// The insides, while they are locked.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lines: BTreeMap<Who, Line>,
    pub(super) wires: BTreeMap<u64, Wire>,
    /// Connections that were accepted and whose client does not know yet.
    pub(super) accepted: BTreeMap<(IpAddr, SocketAddr, SocketAddr), u64>,
    next_wire: u64,
    /// Who has which port of UDP.
    pub(super) ports: BTreeMap<SocketAddr, Port>,
    /// What the sockets of a host that dies leave behind: tokio drops its tasks in an order that is not always the same.
    last_words: Option<Vec<(u64, usize, Who, End)>>,
    /// Payload is not part of what is written down, only its length.
    pub(super) lengths_only: bool,
    /// Where events go.
    pub(super) sink: Sink,
    /// How many bytes came to each endpoint over each kind of link.
    carried: BTreeMap<(Who, Kind), u64>,
    /// The time between two steps, when no host has one.
    clock: u64,
    /// Those who wait for a line to be repaired.
    waiting: Vec<Waker>,
}

/// A TCP connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// The client, once it knows, and the server.
    pub(super) ends: [Option<Who>; 2],
    /// From the client, and from the server.
    pub(super) flows: [Flow; 2],
    /// The network has forgotten it: an end has another address, or is without power. Nothing gets through.
    pub(super) silent: bool,
    /// The client, or the server, has said FIN into the silence, and repeats it.
    repeats_fin: [bool; 2],
    /// When something was sent on it last, for a NAT that forgets.
    used: u64,
    /// One end knows nothing of it any more, and answers with a reset.
    pub(super) unknown: bool,
    open_ends: u8,
}

/// One direction of a TCP connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    written: u64,
    read: u64,
    /// Up to which byte is there when.
    pieces: VecDeque<(u64, u64)>,
    /// How and when it ends.
    pub(super) end: Option<(u64, End)>,
    /// When what was written last is there: nothing overtakes it.
    latest: u64,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// So many bytes.
    Bytes(usize),
    /// Nothing before this moment.
    At(u64),
    /// Nothing for now.
    Nothing,
    Ended(End),
}

/// How many bytes may be written and not read: what the sockets' buffers and the network hold.
const MAX_UNDER_WAY: u64 = 256 << 10;

impl Air {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an endpoint its line.
    pub fn connect(&self, who: &str, line: Line) {
        self.lock().lines.insert(who.into(), line);
    }

    /// Lets the air know what time it is between two steps of the simulation.
    pub fn set_clock(&self, since: Duration) {
        self.lock().clock = nanoseconds(since);
    }

    /// Changes something about an endpoint's line. Whoever waited for that goes on.
    pub fn change(&self, who: &str, change: impl FnOnce(&mut Line)) {
        let mut state = self.lock();
        if let Some(line) = state.lines.get_mut(who) {
            change(line);
        }
        state.wake_all();
    }

    /// An endpoint is at another address from now on, or without power: what it had with others is no more, and nobody
    /// tells them.
    pub fn forget(&self, who: &str) {
        let mut state = self.lock();
        for wire in state.wires.values_mut().filter(|wire| wire.is_of(who) && !wire.is_inner()) {
            wire.silent = true;
        }
        state.wake_all();
    }

    /// An endpoint is there again and knows nothing of the connections that it had: it says so to whoever uses them.
    pub fn deny(&self, who: &str) {
        let mut state = self.lock();
        let mut asked = Vec::new();
        for (&number, wire) in state.wires.iter_mut().filter(|(_, wire)| wire.is_of(who) && wire.silent) {
            wire.unknown = true;
            let is_other = |end: &Option<Who>| end.as_ref().is_some_and(|end| **end != *who);
            if wire.ends.iter().zip(wire.repeats_fin).any(|(end, repeats)| repeats && is_other(end)) {
                asked.push(number);
            }
        }
        asked.into_iter().for_each(|wire| state.answer_unknown(wire));
        state.wake_all();
    }

    /// Lets a host die, with all of its sockets. What they say last is said in the order of their numbers.
    pub fn let_die(&self, die: impl FnOnce()) {
        self.lock().last_words = Some(Vec::new());
        die();
        let mut state = self.lock();
        let mut last_words = state.last_words.take().unwrap_or_default();
        last_words.sort_by_key(|(wire, flow, ..)| (*wire, *flow));
        for (wire, flow, who, end) in last_words {
            state.part(wire, flow, &who, end);
        }
    }

    /// Everything that an endpoint is connected to breaks, and both ends see it.
    pub fn break_off(&self, who: &str) {
        let mut state = self.lock();
        let wires: Vec<u64> = state
            .wires
            .iter()
            .filter(|(_, wire)| wire.is_of(who) && !wire.is_inner())
            .map(|(&id, _)| id)
            .collect();
        let now = state.now();
        for flow in wires.into_iter().flat_map(|wire| [(wire, 0), (wire, 1)]) {
            if let Some(flow) = state.flow(flow.0, flow.1) {
                flow.break_off(now);
            }
        }
        state.wake_all();
    }

    /// Where events go, from now on. Returns where they went.
    pub fn set_sink(&self, sink: Sink) -> Sink {
        std::mem::replace(&mut self.lock().sink, sink)
    }

    /// Does something with where events go, which may look at all else.
    pub(super) fn with_sink(&self, act: impl FnOnce(&mut Sink)) {
        let mut sink = self.set_sink(Sink::default());
        act(&mut sink);
        self.set_sink(sink);
    }

    /// Leaves payload out of the events, and keeps its length. A WebSocket's masks are drawn by a crate that asks nobody for
    /// its entropy: what they make of the payload differs from run to run, and nothing else does.
    pub fn keep_lengths_only(&self) {
        self.lock().lengths_only = true;
    }

    /// Nanoseconds since the simulation began.
    pub fn now(&self) -> u64 {
        self.lock().now()
    }

    /// Something happened.
    pub fn emit(&self, who: &str, what: What) {
        let mut state = self.lock();
        let now = state.now();
        state.sink.emit(now, who, what);
    }

    /// Looks at a property that must hold.
    pub fn always(&self, name: &str, holds: bool, who: &str, detail: impl FnOnce() -> String) {
        let mut state = self.lock();
        let now = state.now();
        state.sink.always(name, holds, now, who, detail);
    }

    /// Something that should happen sometimes did, or did not.
    pub fn sometimes(&self, name: &str, happens: bool) {
        self.lock().sink.sometimes(name, happens);
    }

    /// How many bytes came to an endpoint over links of this kind.
    pub(super) fn carried(&self, who: &str, kind: Kind) -> u64 {
        self.lock().carried.get(&(who.into(), kind)).copied().unwrap_or(0)
    }

    /// How many connections have not ended at both ends.
    pub fn connections(&self) -> usize {
        self.lock().wires.len()
    }
}

impl State {
    /// So many bytes came to an endpoint.
    pub(super) fn carry(&mut self, who: &Who, kind: Kind, length: usize) {
        *self.carried.entry((who.clone(), kind)).or_default() += length as u64;
    }

    /// Nanoseconds since the simulation began. A host's own clock has another origin.
    pub(super) fn now(&self) -> u64 {
        turmoil::sim_elapsed().map_or(self.clock, nanoseconds)
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        self.waiting.push(waker.clone());
    }

    fn wake_all(&mut self) {
        let flows = self.wires.values_mut().flat_map(|wire| &mut wire.flows);
        let sockets = flows.flat_map(|flow| [flow.reader.take(), flow.writer.take()]).flatten();
        sockets.chain(self.waiting.drain(..)).for_each(Waker::wake);
    }

    pub(super) fn open_wire(&mut self, server: &Who) -> u64 {
        self.next_wire += 1;
        let wire = Wire {
            ends: [None, Some(server.clone())],
            flows: [Flow::default(), Flow::default()],
            silent: false,
            repeats_fin: [false; 2],
            used: self.now(),
            unknown: false,
            open_ends: 2,
        };
        self.wires.insert(self.next_wire, wire);
        self.next_wire
    }

    /// Whether nothing gets from `from` to `to`. A missing end is one that is not known yet.
    pub(super) fn is_cut(&self, from: Option<&Who>, to: Option<&Who>) -> bool {
        if from == to {
            return false;
        }
        let blocked = |who: Option<&Who>, way| {
            who.and_then(|who| self.lines.get(who)).is_some_and(|line| line.is_stopped(way))
        };
        blocked(from, Way::Up) || blocked(to, Way::Down)
    }

    /// When a piece of `length` bytes that is sent now from one to the other over TCP is there.
    pub(super) fn arrival(&mut self, from: Option<&Who>, to: Option<&Who>, length: u64) -> u64 {
        let mut at = self.now();
        if from == to {
            return at;
        }
        for (who, way) in [(from, Way::Up), (to, Way::Down)] {
            if let Some(line) = who.and_then(|who| self.lines.get_mut(who)) {
                at = line.carry_segment(way, at, usize::try_from(length).unwrap_or(usize::MAX));
            }
        }
        at
    }

    /// When the next segment may be sent from one to the other: not while the queue is full.
    pub(super) fn sendable_at(&self, from: Option<&Who>, to: Option<&Who>) -> u64 {
        if from == to {
            return 0;
        }
        let at = |who: Option<&Who>, way| {
            who.and_then(|who| self.lines.get(who)).map_or(0, |line| line.sendable_at(way))
        };
        at(from, Way::Up).max(at(to, Way::Down))
    }

    /// `length` more bytes are under way on this flow of a wire.
    pub(super) fn send(&mut self, wire: u64, flow: usize, length: usize) {
        let Some(ends) = self.ends(wire, flow) else { return };
        self.pass_nat(wire, &ends);
        let length = length as u64;
        let at = self.arrival(ends[0].as_ref(), ends[1].as_ref(), length);
        if let Some(flow) = self.flow(wire, flow) {
            flow.latest = flow.latest.max(at);
            flow.written += length;
            flow.pieces.push_back((flow.written, flow.latest));
        }
    }

    /// A NAT on the way forgets a connection that was not used for long: from then on nothing gets through.
    fn pass_nat(&mut self, wire: u64, ends: &[Option<Who>; 2]) {
        let now = self.now();
        let timeout = |who: &Who| self.lines.get(who).and_then(Line::nat_timeout);
        let timeout = ends.iter().flatten().filter_map(timeout).min();
        let Some(wire) = self.wires.get_mut(&wire) else { return };
        wire.silent |= !wire.is_inner() && timeout.is_some_and(|timeout| now - wire.used > timeout.0);
        wire.used = now;
    }

    /// A flow ends, after what was written.
    pub(super) fn end(&mut self, wire: u64, flow: usize, end: End) {
        let Some(open) = self.wires.get_mut(&wire) else { return };
        if open.silent {
            // Nobody hears it, but it is said again until somebody does.
            open.repeats_fin[flow] |= end == End::Fin;
            return self.answer_unknown(wire);
        }
        let Some(ends) = self.ends(wire, flow) else { return };
        let at = self.arrival(ends[0].as_ref(), ends[1].as_ref(), 0);
        let Some(Wire { flows, .. }) = self.wires.get_mut(&wire) else { return };
        // A reset after a FIN still tells a writer that nobody reads.
        if flows[flow].end.is_none_or(|(_, before)| before == End::Fin && end == End::Reset) {
            flows[flow].latest = flows[flow].latest.max(at);
            flows[flow].end = Some((flows[flow].latest, end));
            [flows[flow].reader.take(), flows[1 - flow].writer.take()]
                .into_iter()
                .flatten()
                .for_each(Waker::wake);
        }
    }

    /// The two ends of a flow, in its direction.
    pub(super) fn ends(&self, wire: u64, flow: usize) -> Option<[Option<Who>; 2]> {
        let [client, server] = self.wires.get(&wire)?.ends.clone();
        Some(if flow == 0 { [client, server] } else { [server, client] })
    }

    pub(super) fn flow(&mut self, wire: u64, flow: usize) -> Option<&mut Flow> {
        self.wires.get_mut(&wire).map(|wire| &mut wire.flows[flow])
    }

    /// What is to be read from a flow now.
    pub(super) fn readable(&self, wire: u64, flow: usize) -> Readable {
        let Some(Wire { flows, silent, .. }) = self.wires.get(&wire) else { return Readable::Nothing };
        let flow_state = &flows[flow];
        let is_reset = |(_, end): (u64, End)| end == End::Reset;
        // A reset that this end is told of on the way back, or that answers what it wrote.
        if *silent && !flow_state.end.is_some_and(is_reset) {
            return Readable::Nothing;
        }
        let now = self.now();
        let ends = self.ends(wire, flow).unwrap_or_default();
        let broken = flow_state.pieces.is_empty() && flow_state.end.is_some_and(is_reset);
        if !*silent && !broken && self.is_cut(ends[0].as_ref(), ends[1].as_ref()) {
            return Readable::Nothing;
        }
        let there = flow_state.pieces.iter().take_while(|(_, at)| *at <= now).last();
        let count = there.map_or(0, |(end, _)| end - flow_state.read);
        if count > 0 && !*silent {
            return Readable::Bytes(usize::try_from(count).unwrap_or(usize::MAX));
        }
        match (flow_state.pieces.front().filter(|_| !*silent), flow_state.end) {
            (Some((_, at)), _) => Readable::At(*at),
            (None, Some((at, end))) if at <= now => Readable::Ended(end),
            (None, Some((at, _))) => Readable::At(at),
            (None, None) => Readable::Nothing,
        }
    }

    /// Whether a flow's reset is there, before or after what its reader has still to read.
    pub(super) fn has_reset(&self, wire: u64, flow: usize) -> bool {
        if self.readable(wire, flow) == Readable::Ended(End::Reset) {
            return true;
        }
        let ends = self.ends(wire, flow).unwrap_or_default();
        let is_there = self.reset_at(wire, flow).is_some_and(|at| at <= self.now());
        is_there && !self.is_cut(ends[0].as_ref(), ends[1].as_ref())
    }

    /// When a flow's reset is there, if nothing stops it.
    pub(super) fn reset_at(&self, wire: u64, flow: usize) -> Option<u64> {
        let wire = self.wires.get(&wire).filter(|wire| !wire.silent)?;
        wire.flows[flow].end.filter(|(_, end)| *end == End::Reset).map(|(at, _)| at)
    }

    /// `count` bytes were read from a flow.
    pub(super) fn take(&mut self, wire: u64, flow: usize, count: usize) {
        let Some(flow) = self.flow(wire, flow) else { return };
        flow.read += count as u64;
        while flow.pieces.front().is_some_and(|(end, _)| *end <= flow.read) {
            flow.pieces.pop_front();
        }
        flow.writer.take().into_iter().for_each(Waker::wake);
    }

    /// What was under way on a flow is lost, and its reader knows.
    pub(super) fn lose(&mut self, wire: u64, flow: usize) {
        let now = self.now();
        if let Some(flow) = self.flow(wire, flow) {
            flow.break_off(now);
        }
        if let Some(flow) = self.flow(wire, 1 - flow) {
            flow.writer.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Somebody uses a connection that the other end does not know: it is reset.
    pub(super) fn answer_unknown(&mut self, wire: u64) {
        if self.wires.get(&wire).is_none_or(|wire| !wire.unknown) {
            return;
        }
        let now = self.now();
        for flow in 0..2 {
            if let Some(flow) =
                self.flow(wire, flow).filter(|flow| flow.end.is_none_or(|(_, end)| end == End::Fin))
            {
                flow.end = Some((now + RESET_DELAY, End::Reset));
                [flow.reader.take(), flow.writer.take()].into_iter().flatten().for_each(Waker::wake);
            }
        }
    }

    /// One of the two sockets of a connection is gone, the one that writes `flow`, and this is its last word.
    pub(super) fn part(&mut self, wire: u64, flow: usize, who: &Who, end: End) {
        if let Some(last_words) = &mut self.last_words {
            last_words.push((wire, flow, who.clone(), end));
            return;
        }
        let finished = self.flow(wire, flow).is_none_or(|flow| flow.end.is_some());
        if !finished || end == End::Reset {
            let how = if end == End::Fin { "fin" } else { "rst" };
            self.note(who, What::ConnectionEnded { wire, how: how.into() });
            self.end(wire, flow, end);
        }
        self.drop_end(wire);
    }

    fn drop_end(&mut self, wire: u64) {
        if let Some(open) = self.wires.get_mut(&wire) {
            open.open_ends -= 1;
            if open.open_ends == 0 {
                self.wires.remove(&wire);
            }
        }
    }

    /// What is written down of some bytes.
    pub(super) fn digest(&self, bytes: &[u8]) -> u64 {
        if self.lengths_only { 0 } else { digest(bytes) }
    }

    /// Something happened on the wires.
    pub(super) fn note(&mut self, who: &str, what: What) {
        let now = self.now();
        self.sink.emit(now, who, what);
    }
}

impl Wire {
    fn is_of(&self, who: &str) -> bool {
        self.ends.iter().flatten().any(|end| &**end == who)
    }
}

impl Wire {
    /// Whether it never leaves the machine.
    fn is_inner(&self) -> bool {
        self.ends[0] == self.ends[1]
    }
}

impl Flow {
    /// It breaks now, whatever was said before.
    fn break_off(&mut self, now: u64) {
        self.pieces.clear();
        self.end = Some((now, End::Reset));
    }

    /// How many bytes may be written now.
    pub(super) fn room(&self) -> usize {
        usize::try_from(MAX_UNDER_WAY.saturating_sub(self.written - self.read)).unwrap_or(usize::MAX)
    }
}

/// How long it takes until whoever knows nothing of a connection has said so.
const RESET_DELAY: u64 = 2_000_000;

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
