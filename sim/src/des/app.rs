//! What applications do with streams: what the plan says, and no sooner than they were told that they can.
//!
//! In: news of a stream, and the time. Out: reads, writes and ends, each held against what the other end did. Who finds
//! nothing to read or no room to write waits for the session to say so; so a waker that is forgotten is a stall.

use bytes::Bytes;
use towline_engine::{CloseReason, Code, Dir, Event, ReadError, StreamId, Urgency, WriteError};

use super::app_state::App;
use super::judge;
use super::watch::Ended;
use super::world::{Task, World};
use crate::event::What;
use crate::scenario::End;

/// What applications end streams with.
const CODE: u32 = 7;

/// As much is read at once by who reads slowly.
const SIP: usize = 4_096;

impl World<'_> {
    /// Opens the streams whose time has come, as far as the peer allows.
    pub(super) fn open_ready(&mut self, end: usize) {
        let pair = self.ends[end].pair;
        if self.ends[end].side != 0 || self.pairs[pair].end != Some(end) {
            return;
        }
        while let Some(&stream) = self.pairs[pair].ready.front() {
            let Ok(id) = self.ends[end].session.open(Dir::Bi) else { return };
            self.pairs[pair].ready.pop_front();
            let draws = self.random.stream(&format!("{}/think", self.plan.streams[stream].name));
            let is_new = self.ends[end].ids.insert(id, stream).is_none();
            let name = self.plan.streams[stream].name.clone();
            self.sink.always("ids_monotone_unique", is_new, self.now, &name, || format!("{id:?} again"));
            self.add_app(end, id, App::new(stream, id, 0, draws));
        }
    }

    pub(super) fn accept(&mut self, end: usize) {
        let Some(peer) = self.ends[end].peer else { return };
        while let Some(id) = self.ends[end].session.accept(Dir::Bi) {
            let stream = self.ends[peer].ids.get(&id).copied();
            let is_new = stream.is_some() && !self.ends[end].apps.contains_key(&id);
            let name = self.ends[end].name.clone();
            self.sink.always("surfaced_once", is_new, self.now, &name, || format!("{id:?}"));
            let Some(stream) = stream else { continue };
            self.streams[stream].surfaced = true;
            let draws = self.random.stream(&format!("{}/answer", self.plan.streams[stream].name));
            self.add_app(end, id, App::new(stream, id, 1, draws));
        }
    }

    fn add_app(&mut self, end: usize, id: StreamId, app: App) {
        let plan = &self.plan.streams[app.stream];
        let (host, stream) = (self.ends[end].host, plan.name.clone());
        if plan.interactive
            && let Ok(mut stream) = self.ends[end].session.stream(id)
        {
            stream.set_urgency(Urgency::Interactive);
        }
        self.emit(host, What::StreamOpened { stream });
        self.ends[end].apps.insert(id, app);
        self.go_on(end, id);
    }

    /// The session has news of a stream.
    pub(super) fn heard(&mut self, end: usize, id: StreamId, event: &Event) {
        if matches!(event, Event::Stopped(_, code) if *code == Code::REFUSED) && self.refused(end, id) {
            return;
        }
        let Some(app) = self.ends[end].apps.get_mut(&id) else { return };
        match event {
            Event::Readable(_) => app.can_read = true,
            Event::Writable(_) => app.can_write = true,
            Event::Stopped(..) => (app.sent, app.has_said_all) = (true, true),
            Event::Finished(_) => app.sent = true,
            _ => {}
        }
        self.go_on(end, id);
    }

    pub(super) fn app(&mut self, end: usize, id: StreamId) {
        if self.is_running(&self.ends[end]) {
            self.go_on(end, id);
        }
    }

    /// All applications of a host go on, for instance since they read again.
    pub(super) fn go_on_all(&mut self, host: usize) {
        for end in 0..self.ends.len() {
            if self.ends[end].host == host && self.is_running(&self.ends[end]) {
                let ids: Vec<_> = self.ends[end].apps.keys().copied().collect();
                ids.into_iter().for_each(|id| self.go_on(end, id));
            }
        }
    }

    /// The session is over. What has come can still be read.
    pub(super) fn closed(&mut self, end: usize, why: &CloseReason) {
        self.ends[end].is_over = true;
        let can_resume = self.ends[end].session.id().is_some();
        let verdict = judge::dead_is_detach(can_resume, why);
        self.sink.judge("dead_is_detach", verdict, self.now, &self.ends[end].name);
        let ids: Vec<_> = self.ends[end].apps.keys().copied().collect();
        for id in ids {
            if let Some(app) = self.ends[end].apps.get_mut(&id) {
                (app.can_read, app.can_write) = (true, true);
            }
            self.go_on(end, id);
        }
        let pair = self.ends[end].pair;
        self.pairs[pair].draining.retain(|&other| other != end);
        if self.pairs[pair].end == Some(end) {
            self.pairs[pair].end = None;
            if !self.pairs[pair].ready.is_empty() {
                // A session without a single pipe behind it is tried again at the back-off's pace.
                self.queue.push(self.now + AGAIN, Task::Again(pair));
            }
        }
        self.dirty.insert(end);
    }

    pub(super) fn again(&mut self, pair: usize) {
        if self.pairs[pair].end.is_none() && !self.pairs[pair].ready.is_empty() {
            self.begin_session(pair);
        }
    }

    /// Does what can be done.
    fn go_on(&mut self, end: usize, id: StreamId) {
        let Some(mut app) = self.ends[end].apps.remove(&id) else { return };
        if !app.released {
            self.read(end, id, &mut app);
        }
        if app.is_refused {
            self.ends[end].apps.insert(id, app);
            _ = self.refused(end, id);
            return;
        }
        if !app.released {
            self.say(end, id, &mut app);
            self.reset_late(end, id, &mut app);
            self.let_go(end, id, &mut app);
        }
        self.ends[end].apps.insert(id, app);
        self.dirty.insert(end);
    }

    fn read(&mut self, end: usize, id: StreamId, app: &mut App) {
        let (plan, way) = (&self.plan.streams[app.stream], 1 - app.side);
        while app.can_read && !app.received {
            if self.hosts[self.ends[end].host].slow > 0 {
                return;
            }
            let rate = app.rate(plan);
            if app.reads_at > self.now {
                return self.wake(end, id, app, app.reads_at);
            }
            let sip = plan.sips.map(|sip| usize::try_from(sip.0).unwrap_or(usize::MAX));
            let max = sip.unwrap_or(if rate.is_some() { SIP } else { usize::MAX });
            let Ok(mut stream) = self.ends[end].session.stream(id) else { return };
            match stream.read(max) {
                Ok(Some(bytes)) => {
                    self.check_bytes(end, app, &bytes);
                    if let Some(rate) = rate {
                        app.reads_at = self.now + bytes.len() as u64 * 8_000_000_000 / rate.0.max(1);
                    }
                    if let (End::Stop(after), 0) = (plan.end, app.side)
                        && app.read >= after.0
                    {
                        self.stop(end, id, app);
                    }
                }
                Ok(None) => {
                    app.received = true;
                    let state = &self.streams[app.stream];
                    let (written, finished) = (state.written[way], state.finished[way]);
                    let came_first = self.ended_on_wire(end, id) == Some(Ended::Fin);
                    let holds = finished && written == app.read && came_first;
                    let read = app.read;
                    self.sink.always("eof_iff_fin", holds, self.now, &plan.name, || {
                        format!(
                            "an end after {read} bytes of {written}, finished: {finished}, arrived first: {came_first}"
                        )
                    });
                    self.ended(end, app, way, "eof");
                }
                Err(ReadError::Blocked) => app.can_read = false,
                Err(ReadError::Reset(code)) if code == Code::REFUSED && app.side == 0 => {
                    app.is_refused = true;
                    return;
                }
                Err(ReadError::Reset(_)) => {
                    app.received = true;
                    if app.side == 1 {
                        let came_first = self.ended_on_wire(end, id) == Some(Ended::Reset);
                        self.sink.always("eof_iff_fin", came_first, self.now, &plan.name, || {
                            "a reset, and the end had arrived".into()
                        });
                    }
                    let state = &self.streams[app.stream];
                    // What is reset before its application has seen it is reset by the engine (PROTOCOL §4.4).
                    let was_hidden = state.reset[app.side] && !state.surfaced;
                    let holds = state.reset[way] || state.stopped[way] || was_hidden;
                    self.sink.always("halves_independent", holds, self.now, &plan.name, || {
                        "a reset that nobody has asked for".into()
                    });
                    self.ended(end, app, way, "reset");
                }
                Err(ReadError::Stopped) => {
                    app.received = true;
                    self.ended(end, app, way, "stopped");
                }
                Err(_) => {
                    app.received = true;
                    self.fail(end, app, "the session ended first");
                }
            }
        }
    }

    fn check_bytes(&mut self, end: usize, app: &mut App, bytes: &Bytes) {
        let (stream, way, offset, length) = (app.stream, 1 - app.side, app.read, bytes.len() as u64);
        let name = &self.plan.streams[stream].name;
        let holds = self.pattern.is(stream, way, offset, bytes);
        let written = self.streams[stream].written[way];
        self.sink.always("exact_prefix", holds && offset + length <= written, self.now, name, || {
            format!("{length} bytes at {offset} of {written} are not those that were written")
        });
        app.read += length;
        self.look_at_read(end, app.id, app.read);
        self.ends[end].moved_at = self.now;
        let (now, stall) = (self.now, self.streams[stream].pending[way]);
        if let Some(since) = stall {
            self.sink.most(crate::expect::STALL, now - since);
        }
        let state = &mut self.streams[stream];
        state.read[way] = app.read;
        state.pending[way] = (state.written[way] > app.read).then_some(now);
        self.sink.count("bytes_read", length);
        let what = What::StreamRead { stream: name.clone(), offset, length };
        self.emit(self.ends[end].host, what);
    }

    fn stop(&mut self, end: usize, id: StreamId, app: &mut App) {
        if let Ok(mut stream) = self.ends[end].session.stream(id)
            && stream.stop(Code::from(CODE)).is_ok()
        {
            self.sink.sometimes("stream_stopped", true);
            self.streams[app.stream].stopped[1 - app.side] = true;
        }
    }

    /// Begins rounds, and writes what there is to say.
    fn say(&mut self, end: usize, id: StreamId, app: &mut App) {
        while !app.has_said_all {
            if app.side == 0 && !self.begin_round(end, id, app) {
                return;
            }
            let plan = &self.plan.streams[app.stream];
            let is_stopped = self.streams[app.stream].stopped[1];
            let (may, all) = (app.may_say(plan, is_stopped), app.says_in_all(plan));
            let reset = match plan.end {
                End::Reset(after) if app.side == 0 => Some(after.0.min(may)),
                _ => None,
            };
            if reset.is_some_and(|after| app.written >= after && after < all.max(1) && may >= after) {
                return self.reset(end, id, app);
            }
            if app.written >= all {
                if app.may_finish(plan) {
                    self.finish_saying(end, id, app);
                }
                return;
            }
            // Who answers somebody that has ended says what it owes, and ends as well.
            if app.side == 1 && app.received && app.written >= may {
                return self.finish_saying(end, id, app);
            }
            if app.written >= may || !app.can_write {
                return;
            }
            self.write_some(end, id, app, reset.unwrap_or(may));
        }
    }

    fn write_some(&mut self, end: usize, id: StreamId, app: &mut App, until: u64) {
        let way = app.side;
        let mut bytes = self.pattern.slice(app.stream, way, app.written, until - app.written);
        let Ok(mut stream) = self.ends[end].session.stream(id) else { return };
        match stream.write_chunk(&mut bytes) {
            Ok(length) => {
                let offset = app.written;
                app.written += length as u64;
                // Who was given less waits to be told.
                app.can_write = bytes.is_empty();
                let state = &mut self.streams[app.stream];
                state.written[way] = app.written;
                state.pending[way].get_or_insert(self.now);
                state.begun[way].get_or_insert(self.now);
                let stream = self.plan.streams[app.stream].name.clone();
                let what = What::StreamWritten { stream, offset, length: length as u64 };
                self.emit(self.ends[end].host, what);
                self.written_to.insert(end);
            }
            Err(WriteError::Blocked) => app.can_write = false,
            Err(WriteError::Stopped(_)) => {
                let was_asked = self.streams[app.stream].stopped[way];
                let name = self.plan.streams[app.stream].name.clone();
                self.sink.always("halves_independent", was_asked, self.now, &name, || {
                    "stopped, and nobody has asked for it".into()
                });
                (app.sent, app.has_said_all) = (true, true);
            }
            Err(_) => {
                (app.sent, app.has_said_all) = (true, true);
                self.fail(end, app, "the session ended first");
            }
        }
    }

    /// Whether the service has something to say now, in this round or, having thought, in the next one.
    fn begin_round(&mut self, end: usize, id: StreamId, app: &mut App) -> bool {
        let plan = &self.plan.streams[app.stream];
        let is_stopped = self.streams[app.stream].stopped[1];
        if plan.both_ways || is_stopped || app.received {
            app.rounds = plan.rounds;
            return true;
        }
        let is_answered = app.read >= plan.down.0 * app.rounds && app.written >= plan.up.0 * app.rounds;
        if app.rounds == plan.rounds || !is_answered {
            return true;
        }
        let until = match app.thinks_until {
            Some(until) => until,
            None => {
                if app.rounds > 0 && plan.interactive {
                    self.rounds.push(self.now - app.began);
                }
                self.now + plan.think.draw(&mut app.draws).0
            }
        };
        app.thinks_until = Some(until);
        if until > self.now {
            self.wake(end, id, app, until);
            return false;
        }
        (app.rounds, app.began, app.thinks_until) = (app.rounds + 1, self.now, None);
        true
    }

    fn reset(&mut self, end: usize, id: StreamId, app: &mut App) {
        (app.sent, app.has_said_all) = (true, true);
        if let Ok(mut stream) = self.ends[end].session.stream(id)
            && stream.reset(Code::from(CODE)).is_ok()
        {
            self.streams[app.stream].reset[app.side] = true;
            self.streams[app.stream].pending[app.side] = None;
            self.watches[self.ends[end].observers].on_reset(app.side, id);
            self.sink.sometimes("stream_reset", true);
        }
    }

    /// Resets what it has finished, in time or too late.
    fn reset_late(&mut self, end: usize, id: StreamId, app: &mut App) {
        let Some(at) = app.resets_at.filter(|_| !app.sent) else { return };
        if at > self.now {
            return self.wake(end, id, app, at);
        }
        app.resets_at = None;
        if let Ok(mut stream) = self.ends[end].session.stream(id)
            && stream.reset(Code::from(CODE)).is_ok()
        {
            app.sent = true;
            self.streams[app.stream].reset[app.side] = true;
            self.streams[app.stream].pending[app.side] = None;
            self.sink.sometimes("stream_reset_after_its_end", true);
        }
    }

    fn finish_saying(&mut self, end: usize, id: StreamId, app: &mut App) {
        app.has_said_all = true;
        let Ok(mut stream) = self.ends[end].session.stream(id) else { return };
        match stream.finish() {
            Ok(()) => {
                self.streams[app.stream].finished[app.side] = true;
                if let (End::Late(after), 0) = (self.plan.streams[app.stream].end, app.side) {
                    app.resets_at = Some(self.now + after.0);
                    return;
                }
                // A device, or a service in haste, need not know that everything has arrived.
                app.sent = app.side == 1 || self.plan.session.hasty_close;
            }
            Err(WriteError::Stopped(_)) => app.sent = true,
            Err(_) => {
                app.sent = true;
                self.fail(end, app, "the session ended first");
            }
        }
    }

    fn ended(&mut self, end: usize, app: &App, way: usize, how: &str) {
        self.ends[end].moved_at = self.now;
        let name = &self.plan.streams[app.stream].name;
        let was_over = self.streams[app.stream].ended[way];
        let verdict = judge::one_terminal_event(was_over, || "a half has ended twice".to_owned());
        self.sink.judge("one_terminal_event", verdict, self.now, name);
        self.streams[app.stream].ended[way] = true;
        self.streams[app.stream].pending[way] = None;
        self.look_at_isolation(end, app.stream, way);
        let stream = self.plan.streams[app.stream].name.clone();
        self.emit(self.ends[end].host, What::StreamEnded { stream, how: how.to_owned() });
    }

    /// A stream that has come to its end is given back.
    fn let_go(&mut self, end: usize, id: StreamId, app: &mut App) {
        if self.ends[end].was_closed && app.received {
            app.sent = true;
        }
        if !app.is_over() || app.released {
            return;
        }
        app.released = true;
        self.ends[end].session.release(id, Code::from(CODE));
        let state = &mut self.streams[app.stream];
        state.over[app.side] = true;
        if app.side == 0 && state.reset[0] && !state.surfaced {
            // The device will never hear of it (PROTOCOL §4.4).
            state.over[1] = true;
        }
        if app.side == 0 {
            let pair = self.ends[end].pair;
            self.pairs[pair].left -= 1;
            if self.pairs[pair].left == 0 {
                let mut ends: Vec<_> = self.pairs[pair].draining.clone();
                ends.extend(self.pairs[pair].end);
                ends.into_iter().chain([end]).for_each(|end| self.come_to_rest(end));
            }
        }
        if self.streams[app.stream].over == [true; 2] {
            self.count_stream(app.stream, crate::expect::DONE);
        }
    }

    /// A stream failed, and its application knows.
    fn fail(&mut self, end: usize, app: &App, why: &str) {
        let stream = self.plan.streams[app.stream].name.clone();
        self.emit(self.ends[end].host, What::StreamEnded { stream, how: format!("failed: {why}") });
        self.count_failed(app.stream);
    }

    fn count_failed(&mut self, stream: usize) {
        self.streams[stream].has_failed = true;
        let state = &self.streams[stream];
        let was_wanted = matches!(self.plan.streams[stream].end, End::Finish);
        let name =
            if was_wanted || state.over == [false; 2] { crate::expect::FAILED } else { crate::expect::DONE };
        self.count_stream(stream, name);
    }

    fn count_stream(&mut self, stream: usize, name: &str) {
        if !std::mem::replace(&mut self.streams[stream].is_counted, true) {
            self.streams_left -= 1;
            self.sink.count(name, 1);
        }
    }

    /// The process of a host is gone, and with it the applications of its sessions.
    pub(super) fn lose_apps(&mut self, host: usize) {
        for end in 0..self.ends.len() {
            if self.ends[end].host != host || !self.is_running(&self.ends[end]) {
                continue;
            }
            for (_, app) in std::mem::take(&mut self.ends[end].apps) {
                if !app.released {
                    self.count_failed(app.stream);
                    if app.side == 0 {
                        self.pairs[self.ends[end].pair].left -= 1;
                    }
                }
            }
            let pair = self.ends[end].pair;
            self.pairs[pair].draining.retain(|&other| other != end);
            if self.pairs[pair].end == Some(end) {
                self.pairs[pair].end = None;
                self.pairs[pair].is_opening = false;
                self.queue.push(self.now + AGAIN, Task::Again(pair));
            }
        }
    }

    fn wake(&mut self, end: usize, id: StreamId, app: &mut App, at: u64) {
        if app.is_woken_at != at {
            app.is_woken_at = at;
            self.queue.push(at, Task::App(end, id));
        }
    }
}

/// How long a service waits before the next session, if the last one has failed.
const AGAIN: u64 = 100_000_000;
