//! A world and its model, side by side.

use std::time::Duration;

use towline_engine::{Code, Config, Dir, Event, Side, StreamId};

use crate::model::{CLOSED, Model};
use crate::op::Op;
use crate::world::{BOTH, World, pattern};

/// Small windows, few streams and a small send buffer, so that a short list of operations meets every limit.
pub fn config() -> Config {
    let mut config = Config::default();
    (config.stream_window, config.session_window) = (1000, 4000);
    (config.max_streams_bidi, config.max_streams_uni, config.send_buffer) = (3, 3, 3000);
    // Pipes are lost when an operation says so.
    config.grace = Duration::from_secs(1 << 20);
    config
}

fn code(code: u8) -> Code {
    Code::from(u32::from(code))
}

/// After how many timers a session is over for both ends that is over for one: each may have to give its pipe up, and
/// then the session.
const MAX_TIMERS: usize = 8;

/// The code that a release ends streams with.
const RELEASED: Code = Code::new(99).unwrap();

/// Two real sessions that are held against the model after each operation.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The sessions.
    pub world: World,
    /// What they must do.
    pub model: Model,
    /// What the applications have heard since the last operation began.
    pub news: Vec<(Side, Event)>,
    /// Whether to look at what costs more as well: `fencing` and `proof_first`, after each operation.
    pub thorough: bool,
    window: u64,
}

impl Checked {
    /// A world whose ends know each other and have nothing more to say.
    pub fn new(config: &Config, resumable: bool) -> Self {
        let mut world = World::new(config, resumable);
        world.run();
        assert_eq!(world.is_resumable(), resumable);
        for side in BOTH {
            while world.end(side).poll_event().is_some() {}
        }
        let (model, news) = Default::default();
        Self { world, model, news, thorough: false, window: config.session_window }
    }

    /// As [`new`](Self::new), for who has the time to look at everything.
    pub fn thorough(config: &Config, resumable: bool) -> Self {
        Self { thorough: true, ..Self::new(config, resumable) }
    }

    /// Does one thing.
    ///
    /// # Panics
    ///
    /// If what it gives is not what the model says.
    pub fn apply(&mut self, op: Op) {
        self.news.clear();
        match op {
            Op::Open(side, dir) => {
                if let Ok(id) = self.world.end(side).open(dir) {
                    self.model.on_opened(side, id);
                }
            }
            Op::Accept(side, dir) => _ = self.accept(side, dir),
            Op::Write(side, n, count) => self.with(side, n, |this, id| this.write(side, id, count.into())),
            Op::Read(side, n, count) => {
                self.with(side, n, |this, id| _ = this.read(side, id, count.into()));
            }
            Op::Finish(side, n) => self.with(side, n, |this, id| this.finish(side, id)),
            Op::Reset(side, n, c) => self.with(side, n, |this, id| this.reset(side, id, code(c))),
            Op::ResetWhenSent(side, n, c) => self.with(side, n, |this, id| {
                if this.stream(side, id).reset_when_sent(code(c)).is_ok() {
                    this.model.on_reset(side, id, code(c), true);
                }
            }),
            Op::Stop(side, n, c) => self.with(side, n, |this, id| this.stop(side, id, code(c))),
            Op::Release(side, n) => self.with(side, n, |this, id| this.release(side, id)),
            Op::SetUrgency(side, n, urgency) => {
                self.with(side, n, |this, id| this.stream(side, id).set_urgency(urgency));
            }
            Op::Ping(side) => self.world.end(side).ping(),
            Op::CopyOut(side) => self.world.end(side).copy_out(),
            Op::Drain(side) => {
                let now = self.world.now;
                self.world.end(side).drain(now, Duration::from_secs(1 << 20), Duration::ZERO);
                self.model.on_drain(side);
            }
            Op::Close(side) => {
                self.model.on_close(side);
                let now = self.world.now;
                self.world.end(side).close(now, CLOSED, b"");
            }
            pipe_or_clock => self.apply_outside(pipe_or_clock),
        }
        self.look();
    }

    /// What pipes and clocks do.
    fn apply_outside(&mut self, op: Op) {
        let world = &mut self.world;
        match op {
            Op::Transmit(side, max) => _ = world.transmit(side, max.into()),
            Op::Deliver(side, count) => _ = world.deliver(side, count.into()),
            Op::Wait(millis) => world.wait(Duration::from_millis(millis.into())),
            Op::Fire(side) => world.fire(side),
            _ if !world.is_resumable() => {}
            Op::Cut { client_notices, server_notices } => {
                let sides = [(client_notices, Side::Client), (server_notices, Side::Server)];
                let noticed: Vec<_> = sides.iter().filter(|(notices, _)| *notices).map(|(_, s)| *s).collect();
                world.cut(&noticed);
            }
            Op::Reconnect => world.reconnect(),
            Op::Overtake => world.overtake(),
            Op::TransmitOlder(max) => _ = world.transmit_older(max.into()),
            Op::DeliverOlder(older, count) => _ = world.deliver_older(older.into(), count.into()),
            verb => unreachable!("{verb:?} is an application's"),
        }
    }

    /// Checks what must hold after each operation, and hears the news.
    fn look(&mut self) {
        for side in BOTH {
            if !self.world.take_touched(side) {
                continue;
            }
            self.world.peek(side).check_invariants();
            while let Some(event) = self.world.end(side).poll_event() {
                self.on_event(side, &event);
                self.news.push((side, event));
            }
        }
        if self.thorough {
            self.world.check_fencing();
            self.world.check_proof_first();
        }
    }

    fn on_event(&mut self, side: Side, event: &Event) {
        match event {
            Event::Stopped(id, code) => self.model.on_stopped_by_peer(side, *id, *code),
            Event::Finished(id) => self.model.on_all_arrived(side, *id),
            Event::Closed(why) => {
                let has_flushed = self.model.on_over(side, why);
                if has_flushed && self.world.is_resumable() {
                    self.check_flushed(side);
                }
            }
            _ => {}
        }
    }

    /// `close_flushes`: the session is over at `side`, and all that was written there can be read at the other end.
    fn check_flushed(&self, side: Side) {
        let mut then = self.clone();
        then.read_here(side.peer());
        then.model.check_settled_from(side);
    }

    fn with(&mut self, side: Side, number: u8, act: impl FnOnce(&mut Self, StreamId)) {
        if let Some(id) = self.model.pick(side, number) {
            act(self, id);
        }
    }

    fn stream(&mut self, side: Side, id: StreamId) -> towline_engine::Stream<'_> {
        self.world.end(side).stream(id).expect("a stream that is held is there")
    }

    /// Accepts a stream, if there is one. Returns whether there was.
    pub fn accept(&mut self, side: Side, dir: Dir) -> bool {
        let Some(id) = self.world.end(side).accept(dir) else { return false };
        self.model.on_accepted(side, id);
        true
    }

    /// Writes `count` bytes of the stream's pattern, as far as they are accepted.
    pub fn write(&mut self, side: Side, id: StreamId, count: u64) {
        let from = self.model.half(id, side).written;
        let bytes: Vec<u8> = (from..from + count).map(pattern).collect();
        let outcome = self.stream(side, id).write(&bytes);
        self.model.on_write(side, id, outcome.map(|count| count as u64));
    }

    /// Reads at most `most` bytes. Returns whether that was all there was.
    pub fn read(&mut self, side: Side, id: StreamId, most: u64) -> bool {
        let outcome = self.stream(side, id).read(usize::try_from(most).unwrap_or(usize::MAX));
        let outcome = outcome.as_ref().map(|bytes| bytes.as_deref()).map_err(|error| *error);
        self.model.on_read(side, id, most, outcome)
    }

    /// Finishes the stream, if it is not too late.
    pub fn finish(&mut self, side: Side, id: StreamId) {
        if self.stream(side, id).finish().is_ok() {
            self.model.on_finished(side, id);
        }
    }

    /// Resets the stream, if it is not too late.
    pub fn reset(&mut self, side: Side, id: StreamId, code: Code) {
        if self.stream(side, id).reset(code).is_ok() {
            self.model.on_reset(side, id, code, false);
        }
    }

    /// Stops the stream, if it is not too late.
    pub fn stop(&mut self, side: Side, id: StreamId, code: Code) {
        if self.stream(side, id).stop(code).is_ok() {
            self.model.on_stopped(side, id, code);
        }
    }

    /// Releases the stream. That resets what has not ended; to know whether it does, it is reset first.
    pub fn release(&mut self, side: Side, id: StreamId) {
        let half = self.model.half(id, side);
        if !half.finished && !half.last_words {
            self.reset(side, id, RELEASED);
        }
        self.model.on_stopped(side, id, RELEASED);
        self.world.end(side).release(id, RELEASED);
        self.model.on_released(side, id);
    }

    /// Lets everything that was promised happen, and checks that it has, and that nothing is left in the end.
    ///
    /// # Panics
    ///
    /// If it has not.
    pub fn settle(mut self) {
        self.read_all();
        if BOTH.into_iter().any(|side| self.world.peek(side).is_closed()) {
            return self.settle_over();
        }
        self.model.check_settled();
        for side in BOTH {
            for id in self.model.held(side).to_vec() {
                self.release(side, id);
            }
        }
        self.world.recover();
        self.check_at_rest();
    }

    /// As [`settle`](Self::settle), of a session that is over for one: it will be for the other, and nothing is left.
    fn settle_over(&mut self) {
        let is_over = |this: &Self| BOTH.into_iter().all(|side| this.world.peek(side).is_closed());
        for _ in 0..MAX_TIMERS {
            if is_over(self) {
                break;
            }
            BOTH.into_iter().for_each(|side| self.world.fire(side));
            self.read_all();
        }
        assert!(is_over(self), "one_terminal_event: it is over for one");
        for side in BOTH {
            for id in self.model.held(side).to_vec() {
                self.release(side, id);
            }
            let end = self.world.peek(side);
            assert_eq!(end.open_streams(), 0, "no_residue: {side:?}");
            assert_eq!(end.poll_timeout(), None, "no_residue: {side:?}");
        }
        self.world.run();
        for side in BOTH {
            assert!(!self.world.wants_transmit(side), "no_residue: {side:?} is quiet");
        }
    }

    /// Reads and accepts until nothing moves any more.
    fn read_all(&mut self) {
        loop {
            self.world.recover();
            self.look();
            let mut quiet = true;
            for side in BOTH {
                quiet &= !self.read_here(side);
            }
            if quiet {
                return;
            }
        }
    }

    /// Accepts and reads on `side` what there is. Returns whether there was anything.
    fn read_here(&mut self, side: Side) -> bool {
        let mut was_any = false;
        for dir in [Dir::Bi, Dir::Uni] {
            while self.accept(side, dir) {
                was_any = true;
            }
        }
        for id in self.model.held(side).to_vec() {
            while !self.read(side, id, u64::MAX) {
                was_any = true;
            }
        }
        was_any
    }

    fn check_at_rest(&mut self) {
        for side in BOTH {
            let window = self.window;
            let end = self.world.end(side);
            assert_eq!(end.open_streams(), 0, "no_residue: {side:?}");
            let credit = end.credit();
            assert_eq!(credit.unread, 0, "credit_conservation: {side:?}");
            assert_eq!(credit.promised + credit.withheld, window, "credit_conservation: {side:?}");
            while let Some(event) = end.poll_event() {
                assert!(!matches!(event, Event::Closed(_)), "no_violation: {side:?}: {event:?}");
            }
            assert!(!end.wants_transmit(), "no_residue: {side:?} is quiet");
        }
        let (client, server) =
            (self.world.peek(Side::Client).credit(), self.world.peek(Side::Server).credit());
        assert_eq!(client.available, server.promised, "credit_conservation");
        assert_eq!(server.available, client.promised, "credit_conservation");
    }
}
