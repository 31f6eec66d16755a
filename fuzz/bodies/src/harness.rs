//! One session, its application, and the pipes it gets: everything that can be done to it, watched.
//!
//! In: [`Step`]s. Keeps: the session, what it may use of memory, and what a peer has heard of it. After each step the
//! session is consistent, its memory is within the formula, its timers are not due, and it has said nothing that a
//! lawful peer would not.

use std::time::Duration;

use bytes::Bytes;
use towline_engine::{
    Acceptor, Arrival, Code, Config, Detached, Epoch, Event, Instant, MIN_TRANSMIT, PipeClosed, Sending,
    Session, Side, StreamId, Urgency,
};

use crate::arrival::{Asker, resume};
use crate::memory::{Meter, acceptor_bound, bound, momentary_bound};
use crate::peer::Peer;
use crate::setup::{Setup, Stage};
use crate::step::Step;
use crate::wire::{self, Held};

/// A session under test.
#[derive(Debug)]
pub struct Harness {
    session: Session,
    config: Config,
    setup: Setup,
    meter: Meter,
    peer: Peer,
    /// A later pipe of which nobody knows yet whose it is, and who speaks there.
    arriving: Option<(Acceptor, Peer)>,
    now: Instant,
    /// The newest epoch that the peer claims to have seen.
    newest: u64,
    /// The streams that the application has.
    held: Vec<StreamId>,
    /// The most streams that were open at a time.
    most_streams: usize,
    /// The application has heard that it is over.
    told: bool,
    /// Records come here. Never grows, so that it costs the session nothing.
    out: Vec<u8>,
    /// What the application's own chunks may add to what is measured.
    spare: u64,
    /// How many more bytes are fed before the run is over, so that each takes milliseconds.
    left: usize,
}

/// The bytes that are fed in one run.
const MOST_INPUT: usize = 1 << 18;

/// The pieces that one step's bytes arrive in, about.
const MOST_PIECES: usize = 200;

/// The largest record that is asked for.
pub(crate) const MOST_OUTPUT: usize = 1 << 16;

impl Harness {
    /// A session as `setup` says, as far as it says.
    ///
    /// # Panics
    ///
    /// If it breaks a promise on its way there.
    pub fn new(setup: Setup) -> Self {
        let config = setup.config();
        let mut meter = Meter::default();
        // The session moves out of the closure; only what it allocates counts.
        let mut session = None;
        meter.run(|| session = Some(Session::new(setup.side, config.clone())));
        let session = session.expect("it was just made");
        let mut harness = Self {
            session,
            config,
            setup,
            meter,
            peer: Peer::new(setup.side, setup.resumable),
            arriving: None,
            now: Instant::from_nanos(1 << 40),
            newest: 0,
            held: Vec::new(),
            most_streams: 0,
            told: false,
            out: Vec::with_capacity(2 * MOST_OUTPUT),
            spare: 0,
            left: MOST_INPUT,
        };
        harness.peer.heard.max_record_size = u64::MAX; // the peer may have said any
        harness.meter.run(|| harness.session.attach(harness.now, Epoch(0))).expect("its first pipe");
        for step in setup.first_steps() {
            harness.apply(&step);
        }
        harness
    }

    /// Does one thing, and checks what must hold after it.
    ///
    /// # Panics
    ///
    /// If something does not.
    pub fn apply(&mut self, step: &Step<'_>) {
        match *step {
            Step::Bytes(bytes) => self.feed(bytes, 0),
            Step::Frame { frame, times, cut } => {
                let mut bytes = Vec::new();
                for _ in 0..=times {
                    let frame = self.speaker().say(frame);
                    bytes.extend(wire::record(&frame));
                    if bytes.len() > self.left {
                        break;
                    }
                }
                self.feed(&bytes, cut.into());
            }
            Step::Greet => {
                let bytes = self.speaker().greet();
                self.feed(&bytes, 0);
            }
            Step::Open(dir) => {
                if let Ok(id) = self.meter.run(|| self.session.open(dir)) {
                    self.held.push(id);
                }
            }
            Step::Accept(dir) => {
                if let Some(id) = self.meter.run(|| self.session.accept(dir)) {
                    assert!(!self.held.contains(&id), "surfaced_once: {id}");
                    self.held.push(id);
                }
            }
            Step::Write { stream, length, copied } => self.write(stream, length, copied),
            Step::Read { stream, most, copied } => self.read(stream, most, copied),
            Step::Finish(stream) => self.with(stream, |stream| _ = stream.finish()),
            Step::Reset { stream, code, when_sent } => self.with(stream, |stream| {
                let code = Code::from(u32::from(code));
                _ = if when_sent { stream.reset_when_sent(code) } else { stream.reset(code) };
            }),
            Step::Stop { stream, code } => {
                self.with(stream, |stream| _ = stream.stop(Code::from(u32::from(code))));
            }
            Step::Release(stream) => {
                if let Some(index) = self.pick(stream) {
                    let id = self.held.swap_remove(index);
                    self.meter.run(|| self.session.release(id, Code::from(u32::from(stream))));
                }
            }
            Step::SetUrgency { stream, urgency } => self.with(stream, |stream| {
                stream.set_urgency(
                    [Urgency::Interactive, Urgency::Normal, Urgency::Bulk][usize::from(urgency) % 3],
                );
            }),
            Step::Ping => self.meter.run(|| self.session.ping()),
            Step::CopyOut => self.meter.run(|| self.session.copy_out()),
            Step::Close { code, reason } => {
                let (code, reason) = (Code::from(u32::from(code)), vec![b'x'; reason.into()]);
                self.meter.run(|| self.session.close(self.now, code, &reason));
            }
            Step::Drain { seconds } => {
                let deadline = Duration::from_secs(seconds.into());
                self.meter.run(|| self.session.drain(self.now, deadline, deadline));
            }
            Step::Transmit { max } => _ = self.transmit(max.into()),
            Step::Wait { millis } => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.fire();
            }
            Step::WaitForTimer => {
                if let Some((at, _)) = self.session.poll_timeout() {
                    self.now = self.now.max(at);
                    self.fire();
                }
            }
            Step::Events => {
                self.events();
                self.ask();
            }
            Step::PipeClosed { back: 0, .. } if self.arriving.is_some() => self.drop_arriving(),
            Step::PipeClosed { back, failed } => {
                let epoch = Epoch(self.peer.epoch.saturating_sub(back.into()));
                let how = if failed { PipeClosed::Failed } else { PipeClosed::Finished };
                self.meter.run(|| self.session.handle_pipe_closed(self.now, epoch, how));
            }
            Step::Attach { ahead } => self.attach(ahead.into()),
            Step::Flush => self.flush(),
        }
        self.check();
    }

    /// What must hold at any time.
    fn check(&mut self) {
        self.session.check_invariants();
        if !self.session.is_closed() {
            let credit = self.session.credit();
            let window = self.config.session_window.min(wire::MAX);
            let all = credit.promised + credit.unread + credit.withheld;
            assert_eq!(all, window, "credit_conservation: {credit:?}");
        }
        self.most_streams = self.most_streams.max(self.session.open_streams());
        if self.setup.copies_out {
            let most = self.bound();
            let live = self.meter.live();
            assert!(
                u64::try_from(live).is_ok_and(|live| live <= most),
                "memory_formula: {live} bytes; {most} are allowed with {} streams of {}, {:?}",
                self.session.open_streams(),
                self.most_streams,
                self.session.credit(),
            );
        }
    }

    /// Who speaks on the pipe that was opened last.
    fn speaker(&mut self) -> &mut Peer {
        self.arriving.as_mut().map_or(&mut self.peer, |(_, peer)| peer)
    }

    /// The formula, for the session and for a pipe that arrives.
    fn bound(&self) -> u64 {
        let arriving = if self.arriving.is_some() { acceptor_bound(&self.config) } else { 0 };
        bound(&self.config, self.most_streams).saturating_add(self.spare).saturating_add(arriving)
    }

    /// Brings bytes from the pipe, at most `cut` at a time; 0: all at once.
    fn feed(&mut self, bytes: &[u8], cut: usize) {
        let bytes = &bytes[..bytes.len().min(self.left)];
        self.left -= bytes.len();
        let cut = if cut == 0 { bytes.len().max(1) } else { cut.max(bytes.len() / MOST_PIECES) };
        for chunk in bytes.chunks(cut) {
            if self.arriving.is_some() {
                self.feed_arriving(chunk);
            } else {
                let (now, epoch, copies_out) = (self.now, Epoch(self.peer.epoch), self.setup.copies_out);
                self.meter.run(|| {
                    self.session.handle_input(now, epoch, Bytes::copy_from_slice(chunk));
                    if copies_out {
                        self.session.copy_out();
                    }
                });
            }
            self.most_streams = self.most_streams.max(self.session.open_streams());
            let fed = (MOST_INPUT - self.left) as u64;
            let most = self.bound().saturating_add(momentary_bound(&self.config, fed));
            let peak = self.meter.peak();
            assert!(
                !self.setup.copies_out || u64::try_from(peak).is_ok_and(|peak| peak <= most),
                "check_before_alloc: {peak} bytes for a moment; {most} are allowed",
            );
        }
    }

    fn pick(&self, number: u8) -> Option<usize> {
        (!self.held.is_empty()).then(|| usize::from(number) % self.held.len())
    }

    fn with(&mut self, number: u8, act: impl FnOnce(&mut towline_engine::Stream<'_>)) {
        let Some(index) = self.pick(number) else { return };
        let id = self.held[index];
        self.meter.run(|| act(&mut self.session.stream(id).expect("a stream that is held is there")));
    }

    fn write(&mut self, number: u8, length: u16, copied: bool) {
        let zeros = [0; 1 << 16];
        let data = &zeros[..length.into()];
        let mut given = 0;
        self.with(number, |stream| {
            if copied {
                _ = stream.write(data);
            } else {
                let mut chunk = Bytes::copy_from_slice(data);
                _ = stream.write_chunk(&mut chunk);
                given = data.len() as u64;
            }
        });
        // What the application gives without a copy stays its own.
        self.spare += given;
    }

    fn read(&mut self, number: u8, most: u16, copied: bool) {
        self.with(number, |stream| {
            let mut left = usize::from(most);
            while left > 0 {
                let count = if copied {
                    let mut buffer = [0; 1000];
                    let length = left.min(buffer.len());
                    stream.read_to(&mut buffer[..length])
                } else {
                    stream.read(left).map(|data| data.map_or(0, |data| data.len()))
                };
                match count {
                    Ok(count) if count > 0 => left -= count,
                    _ => break,
                }
            }
        });
    }

    fn fire(&mut self) {
        let now = self.now;
        self.meter.run(|| self.session.handle_timeout(now));
        let next = self.session.poll_timeout();
        assert!(next.is_none_or(|(at, _)| at > now), "a timer that was handled is not due: {next:?}");
    }

    fn events(&mut self) {
        loop {
            let Self { session, meter, newest, .. } = self;
            let closed = meter.run(|| match session.poll_event()? {
                Event::Closed(_) => Some(true),
                Event::Detached(Detached::Stale(epoch)) => {
                    *newest = (*newest).max(epoch.0);
                    Some(false)
                }
                _ => Some(false),
            });
            let Some(closed) = closed else { return };
            assert!(!self.told, "one_terminal_event: nothing follows Closed");
            self.told = closed;
        }
    }

    /// What an owner may ask at any time.
    fn ask(&mut self) {
        let Self { session, meter, held, peer, .. } = self;
        meter.run(|| {
            let _ =
                (session.rtt(), session.stats(), session.side(), session.tombstone(), session.is_detached());
            for &id in held.iter() {
                let stream = session.stream(id).expect("a stream that is held is there");
                let acknowledged = stream.acknowledged();
                let said = peer.heard.streams.get(&id.to_wire()).map_or(0, |&(said, _)| said);
                assert!(acknowledged <= said, "offset_window: {acknowledged} of {said} bytes: {id:?}");
                let is_told =
                    matches!(stream.sending(), Sending::Finished | Sending::Reset | Sending::Stopped(_));
                assert!(is_told || wire::sends(session.side(), id.to_wire()));
            }
            let unknown = StreamId::from_wire(wire::MAX).expect("the last one");
            assert!(session.stream(unknown).is_err());
        });
    }

    /// Takes one record, hears it, and says how long it is.
    fn transmit(&mut self, max: usize) -> Held {
        let (now, max, wanted) = (self.now, max.min(MOST_OUTPUT), self.wants_transmit());
        let Self { session, meter, out, arriving, .. } = self;
        let length = meter.run(|| {
            let mut slices = Vec::new();
            let length = match arriving {
                Some((acceptor, _)) => acceptor.poll_transmit(max, &mut slices),
                None => session.poll_transmit(now, max, &mut slices),
            };
            out.clear();
            slices.iter().for_each(|slice| out.extend_from_slice(slice));
            length
        });
        assert_eq!(length, self.out.len(), "as long as it says");
        assert!(length <= max, "no longer than asked for");
        assert!(wanted || length == 0, "who has nothing to say says nothing");
        if length == 0 {
            let is_done = max < MIN_TRANSMIT || !self.wants_transmit();
            assert!(is_done, "an owner that asks `wants_transmit` would spin");
            return Held::default();
        }
        let record = std::mem::take(&mut self.out);
        let held = self.speaker().heard.on_record(&record);
        self.out = record;
        held
    }

    /// Everything that is to be said now, by a copy of the session: it is no more than streams are worth.
    fn flush(&mut self) {
        let (now, most_payload) = (self.now, self.config.send_buffer);
        let Self { session, meter, peer, .. } = self;
        let streams = session.open_streams();
        // Within the meter: a copy shares memory with what it was made of.
        let (sum, records) = meter.run(|| {
            let (mut session, mut heard) = (session.clone(), peer.heard.clone());
            let (mut slices, mut sum, mut records) = (Vec::new(), Held::default(), 0);
            while session.poll_transmit(now, MOST_OUTPUT, &mut slices) > 0 {
                sum += heard.on_record(&slices.concat());
                slices.clear();
                records += 1;
                assert!(records <= 1000, "it ends");
            }
            (sum, records)
        });
        let Held { payload, control, empty_stream_frames, .. } = sum;
        assert!(payload as u64 <= most_payload, "no more payload is kept than fits the send buffer");
        assert!(empty_stream_frames <= streams, "one FIN a stream");
        let most = SAID_ANYWAY + SAID_OF_A_STREAM * streams + 4 * records;
        assert!(control <= most, "reply_state_bounded: {control} bytes for {streams} streams");
    }

    /// A pipe is there, `ahead` of the last one. If the peer opened it, it is for the peer to say what it wants.
    fn attach(&mut self, ahead: u64) {
        let epoch = self.peer.epoch.max(self.newest).saturating_add(ahead);
        let now = self.now;
        if self.setup.side == Side::Client {
            if self.meter.run(|| self.session.attach(now, Epoch(epoch))).is_ok() {
                self.peer.on_new_pipe(epoch);
            }
            return;
        }
        self.drop_arriving();
        let mut acceptor = None;
        self.meter.run(|| acceptor = Some(Acceptor::new(&self.config)));
        let mut peer = self.peer.clone();
        peer.on_new_pipe(epoch);
        self.arriving = acceptor.map(|acceptor| (acceptor, peer));
    }

    fn drop_arriving(&mut self) {
        let arriving = self.arriving.take().map(|(acceptor, _)| acceptor);
        self.meter.run(|| drop(arriving));
    }

    /// Brings bytes to a pipe of which nobody knows yet whose it is, and does what an owner does when it is known.
    fn feed_arriving(&mut self, chunk: &[u8]) {
        let Self { session, config, meter, arriving, now, peer, setup, .. } = self;
        let Some((acceptor, speaker)) = arriving else { return };
        let now = *now;
        let resumed = meter.run(|| match acceptor.handle_input(Bytes::copy_from_slice(chunk))? {
            Arrival::Resume { session: name, epoch, proof } => {
                speaker.epoch = epoch.0;
                let is_stale = epoch.0 <= peer.epoch;
                let is_ours = setup.stage != Stage::Fresh;
                let asker = Asker { name, epoch, proof, is_stale, is_ours };
                let resumed = resume(session, acceptor, config, now, &asker);
                if setup.copies_out {
                    session.copy_out();
                }
                Some(resumed)
            }
            // Somebody else: a session of its own.
            arrival => {
                assert!(matches!(arrival, Arrival::New(_)));
                let mut other = Session::new(Side::Server, config.clone());
                let acceptor = acceptor.clone();
                other.attach_accepted(now, Epoch(0), acceptor).expect("its first pipe");
                other.check_invariants();
                Some(false)
            }
        });
        match resumed {
            Some(true) => {
                if let Some((acceptor, speaker)) = self.arriving.take() {
                    self.peer = speaker;
                    self.meter.run(|| drop(acceptor));
                }
            }
            // It says so, and then the pipe is of no use; who it was for somebody else is for somebody else.
            Some(false) => {
                while self.transmit(MOST_OUTPUT) != Held::default() {}
                self.drop_arriving();
            }
            None => {}
        }
    }

    /// The record that was taken last; empty if there was none.
    pub fn last_record(&self) -> &[u8] {
        &self.out
    }

    /// Whether there is something to say on the pipe that was opened last.
    pub fn wants_transmit(&self) -> bool {
        let acceptor = self.arriving.as_ref().map(|(acceptor, _)| acceptor);
        acceptor.map_or(self.session.wants_transmit(), Acceptor::wants_transmit)
    }

    /// What a fair peer would say first on the pipe that was opened last.
    pub fn greeting(&mut self) -> Vec<u8> {
        self.speaker().greet()
    }

    /// The session as it is, when it is, and the number of its pipe.
    pub fn into_session(self) -> (Session, Instant, Epoch) {
        (self.session, self.now, Epoch(self.peer.epoch))
    }

    /// The end of the run: what is to be said is bounded, and the session leaves nothing in memory.
    ///
    /// # Panics
    ///
    /// If that is not so.
    pub fn end(mut self) {
        self.events();
        self.flush();
        self.drop_arriving();
        let Self { session, mut meter, .. } = self;
        meter.run(|| drop(session));
        assert_eq!(meter.live(), 0, "nothing is left of a session");
    }
}

/// What a session says that has no stream, in bytes: the beginning of a pipe and its end, liveness, limits.
const SAID_ANYWAY: usize = 1000;

/// What it says of each stream besides its data.
const SAID_OF_A_STREAM: usize = 120;
