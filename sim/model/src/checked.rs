//! A world and its model, side by side.

use std::time::Duration;

use towline_engine::{
    Code, Config, Dir, Event, OpenError, ReadError, Side, Stream, StreamId, Timer, WriteError,
};

use crate::model::{CLOSED, Model};
use crate::op::Op;
use crate::waiting::{Waiting, What};
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
    pub(crate) waiting: Waiting,
    pub(crate) window: u64,
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
        let mut waiting = Waiting::default();
        // The engine takes the first accepts as asked for; see `Event`.
        for (side, dir) in BOTH.into_iter().flat_map(|side| [(side, Dir::Bi), (side, Dir::Uni)]) {
            waiting.add(side, What::Accept(dir));
        }
        let (model, news) = Default::default();
        Self { world, model, news, thorough: false, waiting, window: config.session_window }
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
            Op::Open(side, dir) => self.open(side, dir),
            Op::Accept(side, dir) => _ = self.accept(side, dir),
            Op::Write(side, n, count) => self.with(side, n, |this, id| this.write(side, id, count.into())),
            Op::Read(side, n, count) => {
                self.with(side, n, |this, id| _ = this.read(side, id, count.into()));
            }
            Op::Finish(side, n) => self.with(side, n, |this, id| this.finish(side, id)),
            Op::Reset(side, n, c) => self.with(side, n, |this, id| this.reset(side, id, code(c))),
            Op::ResetWhenSent(side, n, c) => {
                self.with(side, n, |this, id| this.reset_when_sent(side, id, code(c)));
            }
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
    pub(crate) fn look(&mut self) {
        let mut news = Vec::new();
        for side in BOTH {
            if !self.world.take_touched(side) {
                continue;
            }
            self.world.peek(side).check_invariants();
            news.extend(std::iter::from_fn(|| Some((side, self.world.end(side).poll_event()?))));
            self.world.take_touched(side); // but for what was heard
        }
        // The reasons at one end have to do with the other.
        for (side, _) in news.iter().filter(|(_, event)| matches!(event, Event::Closed(_))) {
            self.model.on_over(*side);
        }
        for (side, event) in &news {
            self.on_event(*side, event);
        }
        self.news.append(&mut news);
        if self.thorough {
            self.world.check_fencing();
            self.world.check_proof_first();
            self.check_ttl_order();
        }
    }

    /// `ttl_order`: the end that accepts pipes never forgets first.
    fn check_ttl_order(&self) {
        let gone_at = |side| match self.world.peek(side).poll_timeout() {
            Some((at, Timer::Grace)) => Some(at),
            _ => None,
        };
        if let (Some(client), Some(server)) = (gone_at(Side::Client), gone_at(Side::Server)) {
            assert!(client <= server, "ttl_order: the client at {client:?}, the server at {server:?}");
        }
    }

    fn on_event(&mut self, side: Side, event: &Event) {
        self.waiting.on_event(side, event);
        match event {
            Event::Stopped(id, code) => {
                self.model.on_told(side, *id);
                self.model.on_stopped_by_peer(side, *id, *code);
            }
            Event::Finished(id) => {
                self.model.on_told(side, *id);
                self.model.on_all_arrived(side, *id);
            }
            Event::Draining { .. } => self.model.on_drain_heard(side),
            Event::Closed(why) if self.model.has_flushed(side, why) && self.world.is_resumable() => {
                self.check_flushed(side);
            }
            _ => {}
        }
    }

    /// `close_flushes`: the session is over at `side`, and all that was written there can be read at the other end.
    fn check_flushed(&self, side: Side) {
        let mut then = self.clone();
        then.read_here(side.peer());
        if let Err(why) = then.model.is_settled_from(side) {
            panic!("close_flushes: {side:?} has closed, but {why}");
        }
    }

    fn with(&mut self, side: Side, number: u8, act: impl FnOnce(&mut Self, StreamId)) {
        if let Some(id) = self.model.pick(side, number) {
            act(self, id);
        }
    }

    fn stream(&mut self, side: Side, id: StreamId) -> Stream<'_> {
        self.world.end(side).stream(id).expect("a stream that is held is there")
    }

    fn open(&mut self, side: Side, dir: Dir) {
        match self.world.end(side).open(dir) {
            Ok(id) => self.model.on_opened(side, id),
            Err(OpenError::Blocked(_)) => self.waiting.add(side, What::Open(dir)),
            Err(_) => {}
        }
    }

    /// Accepts a stream, if there is one. Returns whether there was.
    pub fn accept(&mut self, side: Side, dir: Dir) -> bool {
        let Some(id) = self.world.end(side).accept(dir) else {
            self.waiting.add(side, What::Accept(dir));
            return false;
        };
        // Who accepts although nobody has told it to does not wait any more.
        self.waiting.remove(side, What::Accept(dir));
        self.model.on_accepted(side, id);
        true
    }

    /// Writes `count` bytes of the stream's pattern, as far as they are accepted.
    pub fn write(&mut self, side: Side, id: StreamId, count: u64) {
        let from = self.model.half(id, side).written;
        let bytes: Vec<u8> = (from..from + count).map(pattern).collect();
        let outcome = self.stream(side, id).write(&bytes).map(|accepted| accepted as u64);
        if outcome == Err(WriteError::Blocked) || outcome.is_ok_and(|accepted| accepted < count) {
            self.waiting.add(side, What::Write(id));
        }
        self.model.on_write(side, id, outcome);
    }

    /// Reads at most `most` bytes. Returns whether that was all there was.
    pub fn read(&mut self, side: Side, id: StreamId, most: u64) -> bool {
        let outcome = self.stream(side, id).read(usize::try_from(most).unwrap_or(usize::MAX));
        match &outcome {
            Err(ReadError::Blocked) => self.waiting.add(side, What::Read(id)),
            // Who reads although nobody has told it to does not wait any more.
            _ => self.waiting.remove(side, What::Read(id)),
        }
        let outcome = outcome.as_ref().map(|bytes| bytes.as_deref()).map_err(|error| *error);
        self.check_end(side, id, &outcome);
        self.model.on_read(side, id, most, outcome)
    }

    /// What the reader learned of the end is what arrived first: the FIN or the reset.
    fn check_end(&self, side: Side, id: StreamId, outcome: &Result<Option<&[u8]>, ReadError>) {
        let first = self.world.first_end(id, side.peer());
        match outcome {
            Ok(None) => assert_eq!(first, Some(true), "eof_iff_fin: {id:?} at {side:?}"),
            Err(ReadError::Reset(_)) => {
                assert_eq!(first, Some(false), "late_reset_ignored: {id:?} at {side:?}");
            }
            _ => {}
        }
    }

    /// Finishes the stream, if it is not too late.
    pub fn finish(&mut self, side: Side, id: StreamId) {
        if self.end_stream(side, id, |mut stream| stream.finish().is_ok()) {
            self.waiting.remove(side, What::Write(id));
            self.model.on_finished(side, id);
        }
    }

    /// Resets the stream, if it is not too late.
    pub fn reset(&mut self, side: Side, id: StreamId, code: Code) {
        if self.end_stream(side, id, |mut stream| stream.reset(code).is_ok()) {
            self.waiting.remove(side, What::Write(id));
            self.model.on_reset(side, id, code, false);
        }
    }

    /// Resets the stream once everything has gone out, if it is not too late.
    fn reset_when_sent(&mut self, side: Side, id: StreamId, code: Code) {
        if self.end_stream(side, id, |mut stream| stream.reset_when_sent(code).is_ok()) {
            self.waiting.remove(side, What::Write(id));
            self.model.on_reset(side, id, code, true);
        }
    }

    /// Stops the stream, if it is not too late.
    pub fn stop(&mut self, side: Side, id: StreamId, code: Code) {
        if self.end_stream(side, id, |mut stream| stream.stop(code).is_ok()) {
            self.waiting.remove(side, What::Read(id));
            self.model.on_stopped(side, id, code);
        }
    }

    /// Ends a half, and says whether that was in time. If it was not, nothing may change (`close_idempotent`).
    fn end_stream(&mut self, side: Side, id: StreamId, end: impl FnOnce(Stream<'_>) -> bool) -> bool {
        let before = self.thorough.then(|| self.world.peek(side).fingerprint(self.world.now));
        let was_in_time = end(self.stream(side, id));
        if let (Some(before), false) = (before, was_in_time) {
            let after = self.world.peek(side).fingerprint(self.world.now);
            assert_eq!(after, before, "close_idempotent: {id:?} at {side:?}");
        }
        was_in_time
    }

    /// Releases the stream. That resets what has not ended; to know whether it does, it is reset first.
    pub fn release(&mut self, side: Side, id: StreamId) {
        let half = self.model.half(id, side);
        if !half.finished && !half.last_words {
            self.reset(side, id, RELEASED);
        }
        self.model.on_stopped(side, id, RELEASED);
        self.world.end(side).release(id, RELEASED);
        self.waiting.remove_stream(side, id);
        self.model.on_released(side, id);
    }
}
