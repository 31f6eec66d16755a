//! Sessions and the tunnels that carry them.
//!
//! In: tunnels that come and go, bytes, timers. Out: records, when the line can take them, and what applications must
//! know. A service asks for a tunnel whenever a session of its needs one; a device accepts all that is offered.

use std::time::Duration;

use bytes::Bytes;
use towline::refusal::{Refusal, RefusalCode};
use towline_engine::{
    Acceptor, Arrival, Config, Detached, Dir, Epoch, Event, PipeClosed, Resumption, Secret, SessionId, Side,
};
use towline_model::Observer;
use towline_transports::qlog::Recorded;

use super::endpoint::nanos;
use super::judge;
use super::network::{Body, Way};
use super::watch::Watch;
use super::world::{End, Near, Task, Tunnel, World, digest};
use crate::event::What;

/// How long a record may be.
const RECORD: usize = 16_384;

/// What waits on a line when the next record is made: one record, so that what is urgent waits for no more.
const AHEAD: u64 = 16_384;

/// How many bytes of a tunnel are under way at most, in each direction: what the windows of two links and the splice hold.
const UNDER_WAY: u64 = 1 << 20;

/// After how many words that a device is not there a service that knows several hubs tries the next.
const ELSEWHERE: u32 = 3;

/// How long a session whose work is done rests before one looks what is left.
const REST: u64 = 3_000_000_000;

impl World<'_> {
    pub(super) fn config(&self) -> Config {
        let spec = &self.plan.session;
        let mut config = Config::default();
        config.optimistic_resend = spec.optimistic_resend;
        let sizes = [
            (&mut config.stream_window, spec.stream_window),
            (&mut config.session_window, spec.session_window),
            (&mut config.send_buffer, spec.send_buffer),
        ];
        for (field, value) in sizes {
            *field = value.map_or(*field, |size| size.0);
        }
        let spans = [
            (&mut config.idle_timeout, spec.idle_timeout),
            (&mut config.close_timeout, spec.close_timeout),
            (&mut config.grace, spec.grace),
        ];
        for (field, value) in spans {
            *field = value.map_or(*field, |span| span.duration());
        }
        config.max_streams_bidi = spec.max_streams.map_or(config.max_streams_bidi, |count| count.0);
        config.keep_alive = spec.keep_alive.map_or(config.keep_alive, |span| Some(span.duration()));
        config
    }

    pub(super) fn server_config(&self) -> Config {
        let mut config = self.config();
        config.resumption = if self.plan.session.resumable { Resumption::Accept } else { Resumption::Off };
        config
    }

    /// It is time for a stream: on the session that is there, or on a new one.
    pub(super) fn start(&mut self, stream: usize) {
        let pair = self.streams[stream].pair;
        self.pairs[pair].ready.push_back(stream);
        match self.pairs[pair].end {
            Some(end) => self.open_ready(end),
            None => self.begin_session(pair),
        }
    }

    pub(super) fn begin_session(&mut self, pair: usize) {
        let (service, device) = (self.pairs[pair].service, self.pairs[pair].device);
        if !self.hosts[service].is_alive {
            return;
        }
        let generation = self.pairs[pair].generation;
        self.pairs[pair].generation += 1;
        let name = format!("{}/{}#{generation}", self.hosts[service].name, self.hosts[device].name);
        let mut draws = self.random.stream(&format!("session/{name}"));
        let (mut id, mut secret) = ([0; SessionId::LEN], [0; Secret::LEN]);
        draws.fill(&mut id);
        draws.fill(&mut secret);
        let mut config = self.config();
        if self.plan.session.resumable {
            config.resumption = Resumption::Offer(SessionId(id), Secret::new(secret));
        }
        self.observers.push([Observer::new(Side::Client), Observer::new(Side::Server)]);
        self.watches.push(Watch::new());
        let observers = self.observers.len() - 1;
        let session = self.sink.session(Side::Client, config, &name);
        let end = self.add_end((service, pair, 0), name, session, observers);
        self.pairs[pair].end = Some(end);
        self.pairs[pair].is_opening = false;
        self.reopen(pair);
    }

    fn add_end(
        &mut self,
        (host, pair, side): (usize, usize, usize),
        name: String,
        session: Recorded,
        observers: usize,
    ) -> usize {
        self.ends.push(End {
            host,
            process: self.hosts[host].process,
            pair,
            side,
            name,
            session,
            observers,
            tunnel: None,
            epoch: Epoch(0),
            timer_at: u64::MAX,
            writes_at: None,
            apps: Default::default(),
            is_over: false,
            was_closed: false,
            is_resting: false,
            resumes: 0,
            peer: None,
            ids: Default::default(),
            heard_at: self.clock(host).as_nanos(),
            moved_at: self.now,
            drains: false,
            has_heard_drain: false,
            why: None,
            windows: Default::default(),
        });
        self.ends.len() - 1
    }

    // Tunnels, at the service.

    /// Which of a pair's sessions needs a tunnel: the present one first.
    fn in_need(&self, pair: usize) -> Option<usize> {
        let it = &self.pairs[pair];
        let mut ends = it.end.into_iter().chain(it.draining.iter().copied());
        ends.find(|&end| !self.ends[end].is_over && self.ends[end].tunnel.is_none())
    }

    /// Asks for a tunnel, if there is a link and a session needs one.
    pub(super) fn reopen(&mut self, pair: usize) {
        let it = &self.pairs[pair];
        let needs = !it.is_opening && self.in_need(pair).is_some();
        let host = &self.hosts[it.service];
        let conn = host.endpoint.as_ref().and_then(|endpoint| endpoint.conn);
        let Some(conn) = conn.filter(|&conn| needs && host.is_alive && self.is_up(conn)) else { return };
        self.pairs[pair].is_opening = true;
        self.send(conn, Way::ToHub, Body::Open(pair));
    }

    fn is_up(&self, conn: usize) -> bool {
        matches!(self.conns[conn].near, Near::Up(_))
    }

    /// The link is up: all sessions that need a tunnel ask for one.
    pub(super) fn reopen_all(&mut self, host: usize) {
        for pair in 0..self.pairs.len() {
            if self.pairs[pair].service == host {
                self.reopen(pair);
            }
        }
    }

    /// The link is down: nobody will be answered.
    pub(super) fn forget_openings(&mut self, host: usize) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.service == host) {
            pair.is_opening = false;
        }
    }

    pub(super) fn open_refused(&mut self, pair: usize, refusal: &Refusal) {
        let it = &mut self.pairs[pair];
        it.is_opening = false;
        let random = it.draws.next_u64();
        let wait = match refusal.retry_after_ms {
            Some(millis) => it.backoff.next_with_hint(Duration::from_millis(millis), random),
            None => it.backoff.next(random),
        };
        let (service, device) = (it.service, self.hosts[it.device].name.clone());
        self.queue.push(self.now + nanos(wait), Task::Reopen(pair));
        self.sink.sometimes("tunnel_refused", true);
        self.emit(service, What::TunnelRefused { device, why: refusal.code.name().to_owned() });
        let is_elsewhere = matches!(refusal.code, RefusalCode::DeviceOffline | RefusalCode::DeviceUnknown);
        self.pairs[pair].not_here = if is_elsewhere { self.pairs[pair].not_here + 1 } else { 0 };
        if self.pairs[pair].not_here >= ELSEWHERE {
            self.look_elsewhere(pair);
        }
    }

    /// The device may be on another hub that the service knows, if nothing holds the service here.
    fn look_elsewhere(&mut self, pair: usize) {
        let service = self.pairs[pair].service;
        let conn = self.hosts[service].endpoint.as_ref().and_then(|endpoint| endpoint.conn);
        let Some(conn) = conn.filter(|_| self.plan.hosts[service].hubs.len() > 1) else { return };
        if self.conns[conn].tunnels.iter().any(|&tunnel| self.tunnels[tunnel].open[0]) {
            return;
        }
        self.pairs[pair].not_here = 0;
        self.sink.sometimes("looked_on_another_hub", true);
        self.send(conn, Way::ToHub, Body::Fin);
        self.link_lost(conn, "the device is not on this hub", None);
    }

    pub(super) fn opened(&mut self, tunnel: usize) {
        let Tunnel { pair, hub, .. } = self.tunnels[tunnel];
        self.tunnels[tunnel].open[0] = true;
        self.pairs[pair].is_opening = false;
        self.pairs[pair].backoff = Default::default();
        self.pairs[pair].not_here = 0;
        let (service, device) = (self.pairs[pair].service, self.pairs[pair].device);
        let (device, hub) = (self.hosts[device].name.clone(), self.hosts[hub].name.clone());
        self.emit(service, What::TunnelOpened { device, hub });
        let present = self.pairs[pair].end.filter(|&end| !self.ends[end].is_over);
        let Some(end) = self.in_need(pair).or(present) else { return self.close_tunnel(tunnel, 0) };
        let now = self.clock(service);
        let is_first = self.ends[end].resumes == 0 && self.tunnels.iter().all(|it| it.ends[0] != Some(end));
        let epoch = if is_first { Epoch(0) } else { Epoch(self.ends[end].epoch.0 + 1) };
        if self.ends[end].session.attach(now, epoch).is_err() {
            return self.close_tunnel(tunnel, 0);
        }
        self.tunnels[tunnel].epoch = epoch;
        self.tunnels[tunnel].ends[0] = Some(end);
        (self.ends[end].tunnel, self.ends[end].epoch) = (Some(tunnel), epoch);
        self.ends[end].heard_at = now.as_nanos();
        self.dirty.insert(end);
        self.reopen(pair);
    }

    // Tunnels, at the device.

    pub(super) fn offered(&mut self, tunnel: usize) {
        let conn = self.tunnels[tunnel].conns[1];
        self.tunnels[tunnel].open[1] = true;
        self.tunnels[tunnel].acceptor = Some(Acceptor::new(&self.server_config()));
        self.send(conn, Way::ToHub, Body::Answer(tunnel));
    }

    /// Bytes of a tunnel have come to an end of it.
    pub(super) fn data_arrived(&mut self, tunnel: usize, _: Way, host: usize, bytes: Bytes) {
        let side = usize::from(self.conns[self.tunnels[tunnel].conns[0]].endpoint != host);
        self.tunnels[tunnel].under_way[1 - side] -= bytes.len() as u64;
        if let Some(sender) = self.tunnels[tunnel].ends[1 - side] {
            self.dirty.insert(sender);
        }
        if !self.tunnels[tunnel].open[side] {
            return;
        }
        if side == 1 && self.tunnels[tunnel].acceptor.is_some() {
            return self.accept_bytes(tunnel, bytes);
        }
        let Some(end) = self.tunnels[tunnel].ends[side] else { return };
        let (now, epoch) = (self.clock(host), self.tunnels[tunnel].epoch);
        let length = bytes.len() as u64;
        if epoch < self.ends[end].epoch {
            self.sink.sometimes("bytes_of_an_older_pipe", true);
            self.look_at_late_input(end, epoch, bytes);
        } else {
            let arrived = self.watch_arrival(end, &bytes);
            self.ends[end].session.handle_input(now, epoch, bytes);
            self.look_at_arrival(end, arrived);
        }
        let session = self.ends[end].name.clone();
        self.emit(host, What::DataReceived { session, length });
        self.dirty.insert(end);
    }

    /// The beginning of a pipe, at the device: whose is it?
    fn accept_bytes(&mut self, tunnel: usize, bytes: Bytes) {
        let pair = self.tunnels[tunnel].pair;
        let host = self.side_of_tunnel(tunnel, 1);
        let now = self.clock(host);
        let Some(mut acceptor) = self.tunnels[tunnel].acceptor.take() else { return };
        self.answer(tunnel, &mut acceptor);
        self.tunnels[tunnel].kept.push(bytes.clone());
        match acceptor.handle_input(bytes) {
            None => self.tunnels[tunnel].acceptor = Some(acceptor),
            Some(Arrival::New(id)) => {
                let Some(service) = self.tunnels[tunnel].ends[0] else { return };
                let (name, observers) = (self.ends[service].name.clone(), self.ends[service].observers);
                let config = self.server_config();
                let session = self.sink.session(Side::Server, config, &name);
                let end = self.add_end((host, pair, 1), name, session, observers);
                self.ends[end].peer = Some(service);
                self.ends[service].peer = Some(end);
                if let Some(id) = id {
                    self.pairs[pair].known.insert(id, end);
                }
                let taken = self.ends[end].session.attach_accepted(now, Epoch(0), acceptor);
                self.sink
                    .always("no_violation", taken.is_ok(), self.now, "device", || "a new session".into());
                self.take_tunnel(end, tunnel, Epoch(0));
                self.watch_kept(end, tunnel);
            }
            Some(Arrival::Resume { session, epoch, proof }) => {
                let known = self.pairs[pair].known.get(&session).copied();
                // It may be another device with the same identity.
                let is_here = |end: &usize| self.ends[*end].host == host && self.is_running(&self.ends[*end]);
                let Some(end) = known.filter(is_here) else {
                    acceptor.refuse();
                    return self.refuse(tunnel, &mut acceptor, "unknown");
                };
                let was_attached = !self.ends[end].session.is_detached();
                match self.ends[end].session.resume(now, epoch, &proof, &mut acceptor) {
                    Ok(()) => {
                        self.sink.sometimes("newer_pipe_before_the_older_was_missed", was_attached);
                        self.sink.count("resumes_accepted", 1);
                        self.take_tunnel(end, tunnel, epoch);
                        self.watch_kept(end, tunnel);
                        let verdict = judge::newest_wins_now(self.ends[end].session.is_detached());
                        self.sink.judge("newest_wins_now", verdict, self.now, "device");
                    }
                    Err(refused) => {
                        self.sink.sometimes("resume_refused", true);
                        self.refuse(tunnel, &mut acceptor, &refused.to_string());
                    }
                }
            }
            Some(_) => {}
        }
    }

    fn refuse(&mut self, tunnel: usize, acceptor: &mut Acceptor, why: &str) {
        let host = self.side_of_tunnel(tunnel, 1);
        self.emit(host, What::Note { text: format!("a pipe was refused: {why}") });
        self.answer(tunnel, acceptor);
        self.close_tunnel(tunnel, 1);
    }

    fn take_tunnel(&mut self, end: usize, tunnel: usize, epoch: Epoch) {
        self.tunnels[tunnel].ends[1] = Some(end);
        (self.ends[end].tunnel, self.ends[end].epoch) = (Some(tunnel), epoch);
        self.ends[end].heard_at = self.clock(self.ends[end].host).as_nanos();
        self.dirty.insert(end);
    }

    /// What the beginning of a pipe is answered with.
    fn answer(&mut self, tunnel: usize, acceptor: &mut Acceptor) {
        let mut out = Vec::new();
        acceptor.poll_transmit(RECORD, &mut out);
        if !out.is_empty()
            && let Some(service) = self.tunnels[tunnel].ends[0]
        {
            let (name, observers) = (self.ends[service].name.clone(), self.ends[service].observers);
            let host = self.side_of_tunnel(tunnel, 1);
            self.write(tunnel, 1, host, &name, observers, &out);
        }
    }

    // Both.

    /// The end of a tunnel at `host` learns that it is over.
    pub(super) fn tunnel_closed(&mut self, tunnel: usize, host: usize, why: &str) {
        let side = usize::from(self.conns[self.tunnels[tunnel].conns[0]].endpoint != host);
        if !std::mem::replace(&mut self.tunnels[tunnel].open[side], false) {
            return;
        }
        self.tunnels[tunnel].acceptor = self.tunnels[tunnel].acceptor.take().filter(|_| side == 0);
        let pair = &self.pairs[self.tunnels[tunnel].pair];
        let device = self.hosts[pair.device].name.clone();
        self.emit(host, What::TunnelClosed { device, why: why.to_owned() });
        let (now, epoch) = (self.clock(host), self.tunnels[tunnel].epoch);
        if let Some(end) = self.tunnels[tunnel].ends[side] {
            if self.ends[end].tunnel == Some(tunnel) {
                self.ends[end].session.handle_pipe_closed(now, epoch, PipeClosed::Failed);
                self.ends[end].tunnel = None;
            } else {
                self.look_at_late_close(end, epoch);
            }
            self.dirty.insert(end);
        }
    }

    /// An end of a tunnel has no use for it any more.
    fn close_tunnel(&mut self, tunnel: usize, side: usize) {
        if std::mem::replace(&mut self.tunnels[tunnel].open[side], false) {
            let conn = self.tunnels[tunnel].conns[side];
            self.send(conn, Way::ToHub, Body::Closed(tunnel));
        }
    }

    pub(super) fn timer(&mut self, end: usize) {
        if self.ends[end].timer_at > self.now {
            return;
        }
        self.ends[end].timer_at = u64::MAX;
        if self.is_running(&self.ends[end]) {
            let now = self.clock(self.ends[end].host);
            self.ends[end].session.handle_timeout(now);
            self.dirty.insert(end);
        }
    }

    /// Hears what a session has to say, and lets it write.
    pub(super) fn pump(&mut self, end: usize) {
        if !self.is_running(&self.ends[end]) {
            return;
        }
        while let Some(event) = self.ends[end].session.poll_event() {
            self.on_event(end, event);
        }
        self.transmit(end);
        while let Some(event) = self.ends[end].session.poll_event() {
            self.on_event(end, event);
        }
        let host = self.ends[end].host;
        if let Some((at, _)) = self.ends[end].session.poll_timeout() {
            let at = at.as_nanos().saturating_sub(self.hosts[host].ahead).max(self.now);
            if at < self.ends[end].timer_at {
                self.ends[end].timer_at = at;
                self.queue.push(at, Task::Timer(end));
            }
        }
        self.measure(end);
    }

    fn measure(&mut self, end: usize) {
        let it = &self.ends[end];
        let unread = it.session.credit().unread;
        self.sink.most(crate::expect::MEMORY, unread);
    }

    fn transmit(&mut self, end: usize) {
        let End { host, side, observers, tunnel, .. } = self.ends[end];
        let Some(tunnel) = tunnel else { return };
        while self.ends[end].session.wants_transmit() && self.tunnels[tunnel].open[side] {
            let wait = self.backlog(host).saturating_sub(AHEAD);
            if wait > 0 {
                return self.write_later(end, host, wait);
            }
            let is_full = self.is_full(self.tunnels[tunnel].conns[side], tunnel);
            if is_full || self.tunnels[tunnel].under_way[side] >= UNDER_WAY {
                return;
            }
            let (now, mut out) = (self.clock(host), Vec::new());
            if self.ends[end].session.poll_transmit(now, RECORD, &mut out) == 0 {
                break;
            }
            let name = self.ends[end].name.clone();
            self.write(tunnel, side, host, &name, observers, &out);
        }
        if self.ends[end].was_closed && !self.ends[end].session.wants_transmit() {
            self.ends[end].tunnel = None;
            self.close_tunnel(tunnel, side);
        }
    }

    fn write_later(&mut self, end: usize, host: usize, wait: u64) {
        let rate = self.plan.hosts[host].link.rate.map_or(u64::MAX, |rate| rate.0);
        let nanos = u128::from(wait) * 8_000_000_000 / u128::from(rate);
        let at = self.now + u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        if self.ends[end].writes_at.is_none_or(|other| at < other) {
            self.ends[end].writes_at = Some(at);
            self.queue.push(at, Task::Write(end));
        }
    }

    /// A record goes out.
    fn write(
        &mut self,
        tunnel: usize,
        side: usize,
        host: usize,
        name: &str,
        observers: usize,
        out: &[Bytes],
    ) {
        let record = if let [one] = out { one.clone() } else { Bytes::from(out.concat()) };
        let epoch = self.tunnels[tunnel].epoch;
        self.observe(observers, side, epoch, &record);
        self.watch_sending(tunnel, side, observers, &record);
        let length = record.len() as u64;
        let what =
            What::RecordSent { session: name.to_owned(), length, digest: format!("{:016x}", digest(out)) };
        self.emit(host, what);
        self.tunnels[tunnel].under_way[side] += length;
        let conn = self.tunnels[tunnel].conns[side];
        self.send(conn, Way::ToHub, Body::Data(tunnel, record));
    }

    fn on_event(&mut self, end: usize, event: Event) {
        let (host, session) = (self.ends[end].host, self.ends[end].name.clone());
        let was_closed = self.ends[end].was_closed;
        let verdict =
            judge::one_terminal_event(was_closed, || format!("{event:?} after the session had closed"));
        self.sink.judge("one_terminal_event", verdict, self.now, &session);
        match event {
            Event::Attached(epoch) => {
                self.emit(host, What::SessionAttached { session, epoch: epoch.0 });
                if epoch.0 > 0 {
                    self.look_at_resume(end);
                }
                if epoch.0 > 0 && self.ends[end].side == 0 {
                    self.ends[end].resumes += 1;
                    self.sink.count(crate::expect::RESUMES, 1);
                    self.sink.most(crate::expect::RESUMES_OF_ONE, self.ends[end].resumes);
                }
                self.sink.sometimes("session_resumed", epoch.0 > 0);
                self.open_ready(end);
            }
            Event::Detached(how) => {
                if how == Detached::IdleTimeout {
                    self.look_at_silence(end);
                }
                self.emit(host, What::SessionDetached { session, why: format!("{how:?}") });
                if let Some(tunnel) = self.ends[end].tunnel.take() {
                    self.sink.sometimes("silent_pipe_found", true);
                    self.close_tunnel(tunnel, self.ends[end].side);
                }
                if self.ends[end].side == 0 {
                    self.reopen(self.ends[end].pair);
                }
            }
            Event::Incoming(Dir::Bi) => self.accept(end),
            Event::Openable(_) => self.open_ready(end),
            Event::Draining { .. } => self.peer_drains(end),
            Event::Readable(id) | Event::Writable(id) | Event::Stopped(id, _) | Event::Finished(id) => {
                self.heard(end, id, &event);
            }
            Event::Closed(why) => {
                self.ends[end].was_closed = true;
                self.emit(host, What::SessionClosed { session, why: why.to_string() });
                self.look_at_close(end, &why);
                self.closed(end, &why);
            }
            _ => {}
        }
    }

    /// The work of a session is done. Once it rests, both ends must agree, and nothing may be left.
    pub(super) fn come_to_rest(&mut self, end: usize) {
        if !std::mem::replace(&mut self.ends[end].is_resting, true) {
            let wait = if self.plan.session.hasty_close { 0 } else { REST };
            self.queue.push(self.now + wait, Task::Rest(end));
        }
    }

    pub(super) fn rest(&mut self, end: usize) {
        let End { host, is_over, .. } = self.ends[end];
        if is_over || !self.is_running(&self.ends[end]) {
            return;
        }
        if !self.plan.session.hasty_close {
            if !self.is_at_rest(end) {
                self.ends[end].is_resting = false;
                return self.come_to_rest(end);
            }
            self.look_at_rest(end);
        }
        // It is over once the session says so: until then it may have to resume, to bring out what was accepted.
        let now = self.clock(host);
        self.ends[end].session.close(now, towline_engine::Code::from(0), b"done");
        self.dirty.insert(end);
    }

    /// Whether both ends are on the same pipe, and nothing was or is under way for a while.
    fn is_at_rest(&self, end: usize) -> bool {
        let Some(peer) = self.ends[end].peer else { return true };
        let same = self.ends[end].tunnel.is_some() && self.ends[end].tunnel == self.ends[peer].tunnel;
        let is_quiet = self.ends[end].tunnel.is_some_and(|tunnel| self.tunnels[tunnel].under_way == [0; 2]);
        let apps_over = self.ends[peer].apps.values().all(|app| app.is_over());
        let says_nothing = |end: usize| !self.ends[end].session.wants_transmit();
        same && is_quiet && apps_over && says_nothing(end) && says_nothing(peer)
            || !self.is_running(&self.ends[peer])
    }

    fn look_at_rest(&mut self, end: usize) {
        let Some(peer) = self.ends[end].peer.filter(|&peer| self.is_running(&self.ends[peer])) else {
            return;
        };
        let (ours, theirs) = (self.ends[end].session.credit(), self.ends[peer].session.credit());
        let agrees = ours.available == theirs.promised && theirs.available == ours.promised;
        let name = self.ends[end].name.clone();
        self.sink
            .always("credit_conservation", agrees, self.now, &name, || format!("{ours:?} and {theirs:?}"));
        let left = self.ends[end].session.open_streams() + self.ends[peer].session.open_streams();
        self.sink.count(crate::expect::RESIDUE, left as u64);
        self.ends[end].session.check_invariants();
        self.ends[peer].session.check_invariants();
    }
}
