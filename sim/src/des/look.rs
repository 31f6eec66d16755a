//! Where what must hold of sessions can be broken, it is looked at: when records go out and arrive, when pipes change, when
//! a session ends, and now and then whether anybody waits in vain.
//!
//! In: what happens to sessions. Out: properties, by the rules in `judge.rs`. It changes nothing of the world.

use bytes::Bytes;
use towline_engine::{CloseReason, Epoch, PipeClosed, Refused, StreamId};
use towline_model::Looks;
use towline_transports::qlog::Recorded;

use super::judge::{self, Bounds, Truth};
use super::watch::{Arrived, Raised};
use super::world::{Task, World};
use crate::event::What;
use crate::link::LinkSpec;
use crate::scenario::{End as Planned, Host};

/// How long it is between two looks at who waits.
pub(super) const AUDIT: u64 = 1_000_000_000;

/// How long a record is, of which one of each stream may be under way.
const RECORD: u64 = 16 << 10;

/// How long nothing may go on over a pipe that works: longer than it takes to find out that one does not.
const PATIENCE: u64 = 25_000_000_000;

/// What must be through by then, after a session has a pipe again.
pub(super) struct Debt {
    end: usize,
    epoch: Epoch,
    since: u64,
    owed: Vec<Owed>,
    /// It was looked at, or cannot be any more.
    is_settled: bool,
}

/// What a direction of a stream owes.
#[derive(Clone, Copy)]
struct Owed {
    stream: usize,
    /// How often it had been begun anew.
    refusals: u32,
    way: usize,
    /// How far it was written, and whether its end was.
    offset: u64,
    end: bool,
}

impl World<'_> {
    // What goes out and what arrives.

    /// The observer on the wire looks at a record.
    pub(super) fn observe(&mut self, observers: usize, side: usize, epoch: Epoch, record: &[u8]) {
        let [client, server] = &mut self.observers[observers];
        let (speaker, peer) = if side == 0 { (client, server) } else { (server, client) };
        let before = speaker.looks();
        speaker.on_record(epoch, record, peer);
        let Looks { gapless, never_over_limit, limits_monotone } = speaker.looks();
        let properties = &mut self.sink.properties;
        properties.looked("gapless", gapless - before.gapless);
        properties.looked("never_over_limit", never_over_limit - before.never_over_limit);
        properties.looked("limits_monotone", limits_monotone - before.limits_monotone);
    }

    /// A record goes out on `tunnel`.
    pub(super) fn watch_sending(&mut self, tunnel: usize, side: usize, observers: usize, record: &Bytes) {
        let epoch = self.tunnels[tunnel].epoch;
        let host = self.side_of_tunnel(tunnel, side);
        let clock = self.clock(host).as_nanos();
        let sent = self.watches[observers].on_sent(side, epoch, record, clock);
        let Some(service) = self.tunnels[tunnel].ends[0] else { return };
        let name = self.ends[service].name.clone();
        for (id, offset, range) in sent.repeats {
            let Some(&stream) = self.ends[service].ids.get(&id) else { continue };
            let holds = self.pattern.is(stream, side, offset, &record[range]);
            self.sink
                .always("no_dup", holds, self.now, &name, || format!("{id:?} at {offset} is not the same"));
        }
        for records in [sent.before_pong, sent.before_reset].into_iter().flatten() {
            self.sink.judge("control_under_bulk", judge::control_under_bulk(records), self.now, &name);
        }
        for raised in sent.raised {
            if let Some(end) = self.tunnels[tunnel].ends[side] {
                self.look_at_window(end, raised);
            }
        }
    }

    /// Which host is at that end of a tunnel.
    pub(super) fn side_of_tunnel(&self, tunnel: usize, side: usize) -> usize {
        self.conns[self.tunnels[tunnel].conns[side]].endpoint
    }

    /// An end takes a stream further.
    fn look_at_window(&mut self, end: usize, raised: Raised) {
        let Some(stream) = self.stream_of(end, raised.id) else { return };
        let way = 1 - self.ends[end].side;
        let state = &self.streams[stream];
        if state.stopped[way] || state.reset[way] {
            return;
        }
        let (read, config) = (state.read[way], self.config());
        let most = config.max_stream_window.min(config.session_window / 4).max(config.stream_window);
        let bounds = Bounds { first: config.stream_window, most };
        let before = self.ends[end].windows.get(&raised.id).copied().unwrap_or(0);
        let window = raised.to.saturating_sub(read);
        self.ends[end].windows.insert(raised.id, window);
        let name = self.ends[end].name.clone();
        self.sink.judge("tune_bounded", judge::tune_bounded(raised, read, before, bounds), self.now, &name);
        self.sink.judge("no_stall", judge::no_stall_by_frames(raised, bounds.first), self.now, &name);
        self.sink.most(crate::expect::WINDOW, window);
        if window > bounds.first {
            self.sink.sometimes("window_grew", true);
        }
        let (host, stream) = (self.ends[end].host, self.plan.streams[stream].name.clone());
        self.emit(host, What::WindowUpdated { stream, limit: raised.to, window });
    }

    /// Which stream of the plan it is.
    fn stream_of(&self, end: usize, id: StreamId) -> Option<usize> {
        let service = if self.ends[end].side == 0 { Some(end) } else { self.ends[end].peer };
        self.ends[service?].ids.get(&id).copied()
    }

    /// What a device's acceptor has read goes to a session.
    pub(super) fn watch_kept(&mut self, end: usize, tunnel: usize) {
        for bytes in std::mem::take(&mut self.tunnels[tunnel].kept) {
            let clock = self.clock(self.ends[end].host).as_nanos();
            self.watches[self.ends[end].observers].on_arrived(1, &bytes, clock);
        }
    }

    /// A record comes from the present pipe.
    pub(super) fn watch_arrival(&mut self, end: usize, record: &[u8]) -> Arrived {
        let it = &self.ends[end];
        if it.session.is_closed() || it.session.is_detached() {
            return Arrived::default();
        }
        let (side, observers) = (it.side, it.observers);
        let clock = self.clock(it.host).as_nanos();
        self.ends[end].heard_at = clock;
        self.watches[observers].on_arrived(side, record, clock)
    }

    /// The session has taken it.
    pub(super) fn look_at_arrival(&mut self, end: usize, arrived: Arrived) {
        let it = &self.ends[end];
        let Some(round_trip) = arrived.round_trip.filter(|_| !it.session.is_closed()) else { return };
        let measured = it.session.rtt().map(|rtt| rtt.latest);
        let name = it.name.clone();
        self.sink.judge("rtt_at_wire", judge::rtt_at_wire(measured, round_trip), self.now, &name);
    }

    /// Bytes come from a pipe that the session has left.
    pub(super) fn look_at_late_input(&mut self, end: usize, epoch: Epoch, bytes: Bytes) {
        let now = self.clock(self.ends[end].host);
        self.look_at_late(end, |session| session.handle_input(now, epoch, bytes));
    }

    /// A pipe ends that the session has left.
    pub(super) fn look_at_late_close(&mut self, end: usize, epoch: Epoch) {
        let now = self.clock(self.ends[end].host);
        self.look_at_late(end, |session| session.handle_pipe_closed(now, epoch, PipeClosed::Failed));
    }

    fn look_at_late(&mut self, end: usize, act: impl FnOnce(&mut Recorded)) {
        let it = &mut self.ends[end];
        let now = towline_engine::Instant::from_nanos(self.now + self.hosts[it.host].ahead);
        let before = it.session.fingerprint(now);
        act(&mut it.session);
        let verdict = judge::is_unchanged(before, it.session.fingerprint(now));
        let name = it.name.clone();
        self.sink.judge("stale_pipe_inert", verdict, self.now, &name);
        self.dirty.insert(end);
    }

    // What applications do.

    /// A reader has read up to `to`.
    pub(super) fn look_at_read(&mut self, end: usize, id: StreamId, to: u64) {
        let it = &self.ends[end];
        let half = self.watches[it.observers].half(1 - it.side, id);
        let name = it.name.clone();
        self.sink.judge("no_dup", judge::no_dup(to, half.arrived), self.now, &name);
    }

    /// A stream has been read to its end whose reader is quick, beside others whose readers are slow and hold what has come for
    /// them. It took no longer than it would have without them.
    pub(super) fn look_at_isolation(&mut self, end: usize, stream: usize, way: usize) {
        let (state, plan) = (&self.streams[stream], &self.plan.streams[stream]);
        let Some(begun) = state.begun[way] else { return };
        let is_whole = state.finished[way] && state.read[way] == state.written[way];
        if !is_whole || plan.rounds > 1 || self.reads_slowly(stream, way) {
            return;
        }
        let holds_up = |stream: usize| {
            let state = &self.streams[stream];
            state.written[way] > state.read[way] && self.reads_slowly(stream, way)
        };
        let is_beside_slow = self.ends[end].apps.values().any(|app| holds_up(app.stream));
        if !is_beside_slow || self.disturbed_at >= begun || !self.is_undisturbed(end) {
            return;
        }
        let (took, within) = (self.now - begun, self.soon(end, state.read[way]));
        let verdict = judge::slow_reader_isolated(took, within);
        self.sink.judge("slow_reader_isolated", verdict, self.now, &plan.name);
    }

    /// Whether who reads that direction of a stream takes its time.
    fn reads_slowly(&self, stream: usize, way: usize) -> bool {
        let plan = &self.plan.streams[stream];
        let rate = if way == 0 { plan.device_reads } else { plan.service_reads };
        rate.is_some() || plan.sips.is_some()
    }

    /// How the half ended that comes in, as somebody beside the wire has it.
    pub(super) fn ended_on_wire(&self, end: usize, id: StreamId) -> Option<super::watch::Ended> {
        let it = &self.ends[end];
        self.watches[it.observers].half(1 - it.side, id).ended
    }

    /// An application has written.
    pub(super) fn look_at_write(&mut self, end: usize) {
        let buffer = self.config().send_buffer;
        let side = self.ends[end].side;
        let it = &mut self.ends[end];
        let mut unacknowledged = 0;
        for (id, app) in &it.apps {
            let state = &self.streams[app.stream];
            let is_kept = !state.reset[side] && !state.stopped[side] && !app.is_released();
            if is_kept && let Ok(stream) = it.session.stream(*id) {
                unacknowledged += state.written[side].saturating_sub(stream.acknowledged());
            }
        }
        let verdict = judge::unacked_never_evicted(unacknowledged, buffer);
        let name = it.name.clone();
        self.sink.judge("unacked_never_evicted", verdict, self.now, &name);
    }

    // When pipes change.

    /// The session has a pipe again: what counts as arrived has, and what is owed is due.
    pub(super) fn look_at_resume(&mut self, end: usize) {
        let Some(peer) = self.ends[end].peer else { return };
        let (side, name, observers) =
            (self.ends[end].side, self.ends[end].name.clone(), self.ends[end].observers);
        let ids: Vec<_> = self.ends[end].apps.iter().map(|(id, app)| (*id, app.stream)).collect();
        let available = self.ends[end].session.credit().available;
        let promised = self.ends[peer].session.credit().promised;
        for (id, stream) in ids {
            let state = &self.streams[stream];
            let ends_alike = state.reset[side] || state.stopped[side];
            let Ok(stream) = self.ends[end].session.stream(id) else { continue };
            if ends_alike {
                continue;
            }
            let acknowledged = stream.acknowledged();
            let half = self.watches[observers].half(side, id);
            let verdict = judge::resume_safe(acknowledged, half, available, promised);
            self.sink.judge("resume_safe", verdict, self.now, &name);
        }
        if side == 0 {
            self.owe(end);
        }
    }

    /// Everything that was written by now is to be through soon.
    fn owe(&mut self, end: usize) {
        let mut owed = Vec::new();
        let mut longest = 0;
        for app in self.ends[end].apps.values() {
            let (state, plan) = (&self.streams[app.stream], &self.plan.streams[app.stream]);
            let is_slow = plan.device_reads.is_some() || plan.service_reads.is_some();
            if is_slow || plan.end != Planned::Finish || app.is_released() {
                continue;
            }
            for way in 0..2 {
                let left = state.written[way] - state.read[way];
                let end = state.finished[way] && !state.ended[way];
                if left > 0 || end {
                    let (stream, refusals, offset) = (app.stream, state.refusals, state.written[way]);
                    owed.push(Owed { stream, refusals, way, offset, end });
                    longest = longest.max(left);
                }
            }
        }
        if owed.is_empty() {
            return;
        }
        let within = self.soon(end, longest);
        let (epoch, since) = (self.ends[end].epoch, self.now);
        let debt = Debt { end, epoch, since, owed, is_settled: false };
        self.debts.push(debt);
        self.queue.push(self.now + within, Task::Collect(self.debts.len() - 1));
    }

    /// How long a session may take to bring through what its streams owe, each `longest` at most: twenty round trips, one
    /// for each half window, and twice what as many bytes take of each stream that may share the lines.
    fn soon(&self, end: usize, longest: u64) -> u64 {
        let pair = &self.pairs[self.ends[end].pair];
        let ends = [pair.service, pair.device].map(|host| &self.plan.hosts[host]);
        let hubs = self.plan.hosts.iter().filter(|host| host.role == crate::scenario::Role::Hub);
        let lines: Vec<&LinkSpec> = ends.into_iter().chain(hubs).flat_map(Host::ways).collect();
        let detour = |line: &LinkSpec| line.reorder.map_or(0, |reorder| reorder.by.0);
        let trip: u64 = lines.iter().map(|line| line.delay.0 + line.jitter.0 + detour(line)).sum();
        // QUIC paces by the round trips that it has measured, which are as long as a line was held.
        let conns = self.ends[end].tunnel.map(|tunnel| self.tunnels[tunnel].conns);
        let measured: u64 = conns.into_iter().flatten().map(|conn| self.quic_round_trip(conn)).sum();
        let trip = trip.max(measured);
        let rate = lines.iter().filter_map(|line| line.rate).map(|rate| rate.0).min().unwrap_or(1 << 33);
        let live = self.ends.iter().filter(|it| it.side == 0 && !it.is_over).map(|it| it.apps.len() as u64);
        let all = (longest + RECORD) * (1 + live.sum::<u64>()) * 2;
        let carried = u128::from(all) * 8_000_000_000 / u128::from(rate);
        let half_windows = 2 * longest / self.config().stream_window.max(1);
        1_000_000_000 + trip * (20 + half_windows) + u64::try_from(carried).unwrap_or(u64::MAX / 4)
    }

    /// Whether what was owed is through, if nothing has gone wrong since.
    pub(super) fn collect(&mut self, debt: usize) {
        self.debts[debt].is_settled = true;
        let Debt { end, epoch, since, .. } = self.debts[debt];
        let it = &self.ends[end];
        let is_attached = it.epoch == epoch && !it.session.is_detached() && !it.session.is_closed();
        if is_attached && self.disturbed_at < since && self.is_undisturbed(end) {
            self.look_at_debt(debt);
        }
    }

    /// All is done, and so sooner than it had to be.
    pub(super) fn collect_early(&mut self) {
        for debt in 0..self.debts.len() {
            if !self.debts[debt].is_settled && self.streams_left == 0 {
                self.look_at_debt(debt);
            }
        }
    }

    fn look_at_debt(&mut self, debt: usize) {
        let Debt { since, ref owed, .. } = self.debts[debt];
        let within = self.now - since;
        for &Owed { stream, refusals, way, offset, end } in owed {
            let (state, name) = (&self.streams[stream], &self.plan.streams[stream].name);
            if state.has_failed || state.refusals != refusals {
                continue;
            }
            let fin_owed = end && !state.ended[way];
            let verdict = judge::eventual(offset, state.read[way], fin_owed, within);
            self.sink.judge("eventual", verdict, self.now, name);
        }
    }

    /// Whether nothing is in the way of a session's pipe at the moment.
    fn is_undisturbed(&self, end: usize) -> bool {
        let Some(tunnel) = self.ends[end].tunnel else { return false };
        let conns = self.tunnels[tunnel].conns;
        conns.iter().all(|&conn| {
            let is_well = |host: usize| {
                let it = &self.hosts[host];
                it.is_alive
                    && it.suspensions == 0
                    && it.holds == [0; 2]
                    && it.mutes == [0; 2]
                    && it.cuts == 0
                    && it.udp_blocks == 0
                    && it.slow == 0
            };
            !self.conns[conn].is_lost && self.hosts_of(conn).into_iter().all(is_well)
        })
    }

    /// The peer was given up.
    pub(super) fn look_at_silence(&mut self, end: usize) {
        let it = &self.ends[end];
        let silence = self.clock(it.host).as_nanos().saturating_sub(it.heard_at);
        let (timeout, name) = (self.config().idle_timeout, it.name.clone());
        self.sink.judge("any_byte_is_life", judge::any_byte_is_life(silence, timeout), self.now, &name);
    }

    // When a session ends.

    /// The session is over, for this reason.
    pub(super) fn look_at_close(&mut self, end: usize, why: &CloseReason) {
        self.ends[end].why = Some(why.clone());
        let name = self.ends[end].name.clone();
        let verdict = judge::no_violation(why, &self.plan.expect.transport_errors);
        self.sink.judge("no_violation", verdict, self.now, &name);
        if *why == CloseReason::IdleTimeout {
            self.look_at_silence(end);
        }
        if self.ends[end].session.id().is_none() {
            return;
        }
        match why {
            CloseReason::Local(_) => self.look_at_flushed(end),
            CloseReason::LocalUnflushed(_) => self.look_at_unflushed(end),
            CloseReason::Expired => self.look_at_expiry(end),
            CloseReason::ResumeRefused(told) => self.look_at_refusal(end, *told),
            CloseReason::Peer { .. } if self.ends[end].side == 0 => self.look_at_drained(end),
            _ => {}
        }
    }

    /// Closed in order: all that was finished here has arrived.
    fn look_at_flushed(&mut self, end: usize) {
        let (side, observers) = (self.ends[end].side, self.ends[end].observers);
        let service = if side == 0 { Some(end) } else { self.ends[end].peer };
        let Some(service) = service else { return };
        let ids: Vec<_> = self.ends[service].ids.iter().map(|(id, stream)| (*id, *stream)).collect();
        for (id, stream) in ids {
            let state = &self.streams[stream];
            if !state.finished[side] || state.reset[side] || state.stopped[side] {
                continue;
            }
            let half = self.watches[observers].half(side, id);
            let (name, written) = (&self.plan.streams[stream].name, state.written[side]);
            self.sink.judge("close_flushes", judge::close_flushes(written, half), self.now, name);
        }
    }

    /// Closed, and told that not all has arrived: then something was said of which this end has not heard that it has.
    fn look_at_unflushed(&mut self, end: usize) {
        self.sink.sometimes("close_was_given_up", true);
        let (side, observers) = (self.ends[end].side, self.ends[end].observers);
        let service = if side == 0 { Some(end) } else { self.ends[end].peer };
        let Some(service) = service else { return };
        let is_open = |(id, stream): (&StreamId, &usize)| {
            let state = &self.streams[*stream];
            let ends = u64::from(state.finished[side] || state.reset[side]);
            self.watches[observers].half(side, *id).acknowledged < state.written[side] + ends
        };
        let is_left = self.ends[service].ids.iter().any(is_open);
        let name = self.ends[end].name.clone();
        self.sink.judge("close_flushes", judge::close_is_not_given_up_early(is_left), self.now, &name);
    }

    /// Given up: at the end that accepts pipes, not before the other. What counts as arrived has.
    fn look_at_expiry(&mut self, end: usize) {
        self.sink.sometimes("session_expired", true);
        let Some(peer) = self.ends[end].peer else { return };
        let name = self.ends[end].name.clone();
        let clocks = [end, peer].map(|end| self.hosts[self.ends[end].host].ahead);
        let is_there = self.is_running(&self.ends[peer]) && clocks == [0; 2];
        if self.ends[end].side == 1 && is_there {
            let other = &self.ends[peer].session;
            let at = other.poll_timeout().map(|(at, _)| at.as_nanos());
            let verdict = judge::ttl_order(other.is_closed(), at, self.now);
            self.sink.judge("ttl_order", verdict, self.now, &name);
        }
        for (id, acknowledged, _) in self.acknowledged(end) {
            let half = self.watches[self.ends[end].observers].half(self.ends[end].side, id);
            let verdict = judge::resume_safe(acknowledged, half, 0, 0);
            self.sink.judge("ttl_order", verdict, self.now, &name);
        }
    }

    /// What an end's applications are told of what has arrived of theirs, by stream.
    fn acknowledged(&mut self, end: usize) -> Vec<(StreamId, u64, usize)> {
        let side = self.ends[end].side;
        let it = &mut self.ends[end];
        let mut all = Vec::new();
        for (id, app) in &it.apps {
            let state = &self.streams[app.stream];
            if !state.reset[side]
                && !state.stopped[side]
                && let Ok(stream) = it.session.stream(*id)
            {
                all.push((*id, stream.acknowledged(), app.stream));
            }
        }
        all
    }

    /// A pipe was refused: with the truth.
    fn look_at_refusal(&mut self, end: usize, told: Refused) {
        let name = self.ends[end].name.clone();
        let asked = self.ends[end].tunnel.map(|tunnel| self.side_of_tunnel(tunnel, 1));
        let knows = |&peer: &usize| asked == Some(self.ends[peer].host) && self.is_running(&self.ends[peer]);
        let peer = self.ends[end].peer.filter(knows);
        let truth = match peer.map(|peer| &self.ends[peer]) {
            None => Truth::Unknown,
            Some(peer) => peer.why.clone().map_or(Truth::GoesOn, Truth::Over),
        };
        self.sink.judge("closed_truth", judge::closed_truth(told, &truth), self.now, &name);
        let (Some(peer), false) = (peer, told == Refused::Unknown) else { return };
        self.sink.sometimes("late_resume_was_told_the_truth", true);
        for (id, acknowledged, _) in self.acknowledged(end) {
            // Of a stream that both its ends are done with nothing is kept.
            if self.ends[peer].apps.get(&id).is_none_or(|app| app.is_over()) {
                continue;
            }
            let half = self.watches[self.ends[end].observers].half(0, id);
            self.sink.judge("closed_truth", judge::closed_truth_of(acknowledged, half), self.now, &name);
        }
    }

    /// The device has closed the session: if at the end of a drain, the service was told of that.
    fn look_at_drained(&mut self, end: usize) {
        if self.ends[end].peer.is_some_and(|peer| self.ends[peer].drains) {
            let name = self.ends[end].name.clone();
            let verdict = judge::drain_is_told(self.ends[end].has_heard_drain);
            self.sink.judge("drain_partition", verdict, self.now, &name);
        }
    }

    /// A stream was refused, since the device is ending the session.
    pub(super) fn look_at_refused_stream(&mut self, end: usize, stream: usize) {
        let drains = self.ends[end].peer.is_some_and(|peer| self.ends[peer].drains);
        let verdict = judge::drain_partition(drains, self.streams[stream].surfaced);
        let name = &self.plan.streams[stream].name;
        self.sink.judge("drain_partition", verdict, self.now, name);
    }

    // Now and then.

    /// Looks at everybody who waits.
    pub(super) fn audit(&mut self) {
        self.queue.push(self.now + AUDIT, Task::Audit);
        for end in 0..self.ends.len() {
            let it = &self.ends[end];
            let is_there = it.side == 0 && !it.is_over && self.is_running(it);
            let Some(peer) = it.peer.filter(|_| is_there) else { continue };
            let together = it.tunnel.is_some() && it.tunnel == self.ends[peer].tunnel;
            if !together || !self.is_undisturbed(end) || self.ends[peer].is_over {
                self.ends[end].moved_at = self.now;
                continue;
            }
            self.look_who_waits(end, peer);
        }
    }

    fn look_who_waits(&mut self, end: usize, peer: usize) {
        let (mut waits, mut is_slow) = (false, false);
        for app in self.ends[end].apps.values() {
            let (state, plan) = (&self.streams[app.stream], &self.plan.streams[app.stream]);
            is_slow |= plan.device_reads.is_some() || plan.service_reads.is_some();
            let is_owed = |way: usize| {
                let is_left = state.written[way] > state.read[way];
                let is_live = !state.reset[way] && !state.stopped[way] && !state.ended[way];
                is_live && (is_left || state.finished[way])
            };
            waits |= !app.is_released() && (is_owed(0) || is_owed(1));
        }
        if waits && !is_slow {
            let name = self.ends[end].name.clone();
            let moved = self.ends[end].moved_at.max(self.ends[peer].moved_at).max(self.disturbed_at);
            let patience = PATIENCE + self.soon(end, 0);
            let verdict = judge::no_stall(self.now - moved, patience);
            self.sink.judge("no_stall", verdict, self.now, &name);
        } else {
            self.ends[end].moved_at = self.now;
        }
        for end in [end, peer] {
            self.look_at_writers(end);
        }
    }

    /// A writer waits. Once everything that its end has written was read, there is room, and it must have been told.
    fn look_at_writers(&mut self, end: usize) {
        let (side, name) = (self.ends[end].side, self.ends[end].name.clone());
        // The acknowledgements that make room are due some round trips later.
        let patience = self.soon(end, 0);
        let moved_at = self.ends[end].moved_at.max(self.disturbed_at);
        let all_read = self.ends[end].apps.values().all(|app| {
            let state = &self.streams[app.stream];
            state.written[side] == state.read[side] || state.reset[side] || state.stopped[side]
        });
        let blocked: Vec<_> =
            self.ends[end].apps.iter().filter(|(_, app)| app.waits_to_write()).map(|(id, _)| *id).collect();
        for id in blocked {
            let is_due = all_read && self.now - moved_at > patience;
            let mut session = self.ends[end].session.clone();
            let has_room = is_due && session.stream(id).is_ok_and(|mut stream| stream.write(&[0]).is_ok());
            let verdict = judge::blocked_writer_wakes(true, has_room);
            self.sink.judge("blocked_writer_wakes", verdict, self.now, &name);
        }
    }
}
