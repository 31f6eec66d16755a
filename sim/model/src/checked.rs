//! A world and its model, side by side.

use std::time::Duration;

use towline_engine::{Code, Config, Dir, Event, Side, StreamId};

use crate::model::Model;
use crate::op::Op;
use crate::world::{World, pattern};

/// Small windows, few streams and a small send buffer, so that a short list of operations meets every limit.
pub fn config() -> Config {
    let mut config = Config::default();
    (config.stream_window, config.session_window) = (1000, 4000);
    (config.max_streams_bidi, config.max_streams_uni, config.send_buffer) = (3, 3, 3000);
    // Pipes are lost when an operation says so.
    config.grace = Duration::from_secs(1 << 20);
    config
}

/// The code that a release ends streams with.
const RELEASED: Code = Code::new(99).unwrap();

/// Two real sessions that are held against the model after each operation.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The sessions.
    pub world: World,
    /// What they must do.
    pub model: Model,
    window: u64,
}

impl Checked {
    /// A world whose ends know each other and have nothing more to say.
    pub fn new(config: &Config, resumable: bool) -> Self {
        let mut world = World::new(config, resumable);
        world.run();
        assert_eq!(world.is_resumable(), resumable);
        for side in [Side::Client, Side::Server] {
            while world.end(side).poll_event().is_some() {}
        }
        Self { world, model: Model::default(), window: config.session_window }
    }

    /// Does one thing.
    ///
    /// # Panics
    ///
    /// If what it gives is not what the model says.
    pub fn apply(&mut self, op: Op) {
        let code = |code: u8| Code::from(u32::from(code));
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
            Op::Transmit(side, max) => _ = self.world.transmit(side, max.into()),
            Op::Deliver(side, count) => _ = self.world.deliver(side, count.into()),
            Op::Wait(millis) => self.world.wait(Duration::from_millis(millis.into())),
            Op::Cut { client_notices, server_notices } if self.world.is_resumable() => {
                let sides = [(client_notices, Side::Client), (server_notices, Side::Server)];
                let noticed: Vec<_> = sides.iter().filter(|(notices, _)| *notices).map(|(_, s)| *s).collect();
                self.world.cut(&noticed);
            }
            Op::Reconnect if self.world.is_resumable() => self.world.reconnect(),
            Op::Cut { .. } | Op::Reconnect => {}
            Op::Drain(side) => {
                let now = self.world.now;
                self.world.end(side).drain(now, Duration::from_secs(1 << 20), Duration::ZERO);
                self.model.on_drain(side);
            }
        }
        self.world.client.check_invariants();
        self.world.server.check_invariants();
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
        self.model.check_settled();
        for side in [Side::Client, Side::Server] {
            for id in self.model.held(side).to_vec() {
                self.release(side, id);
            }
        }
        self.world.recover();
        self.check_at_rest();
    }

    /// Reads and accepts until nothing moves any more.
    fn read_all(&mut self) {
        loop {
            self.world.recover();
            let mut quiet = true;
            for side in [Side::Client, Side::Server] {
                for dir in [Dir::Bi, Dir::Uni] {
                    while self.accept(side, dir) {
                        quiet = false;
                    }
                }
                for id in self.model.held(side).to_vec() {
                    while !self.read(side, id, u64::MAX) {
                        quiet = false;
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn check_at_rest(&mut self) {
        for side in [Side::Client, Side::Server] {
            let window = self.window;
            let end = self.world.end(side);
            assert_eq!(end.open_streams(), 0, "no_residue: {side:?}");
            let credit = end.credit();
            assert_eq!(credit.unread, 0, "credit_conservation: {side:?}");
            assert_eq!(credit.promised + credit.withheld, window, "credit_conservation: {side:?}");
            while let Some(event) = end.poll_event() {
                assert!(!matches!(event, Event::Closed(_)), "{side:?}: {event:?}");
            }
            assert!(!end.wants_transmit(), "{side:?} is quiet");
        }
        let (client, server) = (self.world.client.credit(), self.world.server.credit());
        assert_eq!(client.available, server.promised, "credit_conservation");
        assert_eq!(server.available, client.promised, "credit_conservation");
    }
}
