//! Two sessions, a pipe between them that cuts what it carries, and a clock that moves when told.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use towline_engine::{
    Acceptor, Arrival, Code, Config, Dir, Epoch, Event, Instant, PipeClosed, ReadError, Resumption, Secret,
    Session, SessionId, Side, StreamId, WriteError,
};

pub const EPOCH: Epoch = Epoch(0);

/// An application's code.
pub const ONE: Code = Code::new(1).unwrap();

pub const BOTH: [Side; 2] = [Side::Client, Side::Server];

/// A service and a device. The service opened the pipe.
pub struct Pair {
    pub service: Session,
    pub device: Session,
    pub now: Instant,
    /// The most bytes that arrive at a time.
    pub cut: usize,
    /// How many bytes the pipe holds in each direction before its writer must wait.
    pub capacity: usize,
    /// The number of the pipe.
    pub epoch: Epoch,
    device_config: Config,
    /// Reads the beginning of a later pipe at the device's end.
    acceptor: Option<Acceptor>,
    /// Whether there is a pipe.
    pub connected: bool,
    to_device: VecDeque<u8>,
    to_service: VecDeque<u8>,
}

/// The name and the secret of every session that can resume.
pub const ID: SessionId = SessionId([0x1d; 16]);
pub const SECRET: Secret = Secret::new([0x5e; 32]);

impl Pair {
    /// Both ends with the same configuration, attached and acquainted, with nothing left to say or to hear.
    pub fn new(config: Config) -> Self {
        Self::with(config.clone(), config)
    }

    pub fn with(service: Config, device: Config) -> Self {
        let mut pair = Self::unattached(service, device);
        pair.service.attach(pair.now, EPOCH).unwrap();
        pair.device.attach(pair.now, EPOCH).unwrap();
        pair.run();
        assert_eq!(pair.service.poll_event(), Some(Event::Attached(EPOCH)));
        assert_eq!(pair.device.poll_event(), Some(Event::Attached(EPOCH)));
        pair
    }

    pub fn unattached(service: Config, device: Config) -> Self {
        Self {
            service: Session::new(Side::Client, service),
            device: Session::new(Side::Server, device.clone()),
            device_config: device,
            now: Instant::from_nanos(1_000_000_000),
            cut: 1,
            capacity: usize::MAX,
            epoch: EPOCH,
            acceptor: None,
            connected: true,
            to_device: VecDeque::new(),
            to_service: VecDeque::new(),
        }
    }

    /// As [`new`](Self::new), with both ends willing to resume.
    pub fn resumable(config: Config) -> Self {
        let (mut service, mut device) = (config.clone(), config);
        service.resumption = Resumption::Offer(ID, SECRET);
        device.resumption = Resumption::Accept;
        let pair = Self::with(service, device);
        assert_eq!((pair.service.id(), pair.device.id()), (Some(ID), Some(ID)));
        pair
    }

    /// The pipe is lost, with whatever is on it. Each end notices if `notice` has it.
    pub fn cut(&mut self, notice: &[Side]) {
        self.to_device.clear();
        self.to_service.clear();
        self.connected = false;
        self.acceptor = None;
        let (now, epoch) = (self.now, self.epoch);
        for &side in notice {
            self.end(side).handle_pipe_closed(now, epoch, PipeClosed::Failed);
            self.end(side).check_invariants();
        }
    }

    /// The service opens another pipe.
    pub fn reconnect(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.to_device.clear();
        self.to_service.clear();
        self.connected = true;
        self.acceptor = Some(Acceptor::new(&self.device_config));
        self.service.attach(self.now, self.epoch).unwrap();
        self.service.check_invariants();
    }

    /// Cuts the pipe, opens another, and lets both ends settle there.
    pub fn hop(&mut self) {
        self.cut(&[Side::Client, Side::Server]);
        self.reconnect();
        self.run();
    }

    /// Bytes come to the device's end of a later pipe, where nobody knows yet whose it is.
    fn deliver_to_acceptor(&mut self, bytes: Bytes) {
        let acceptor = self.acceptor.as_mut().unwrap();
        match acceptor.handle_input(bytes) {
            None => {}
            Some(Arrival::Resume { session, epoch, proof }) => {
                assert_eq!((session, epoch), (ID, self.epoch));
                let resumed = self.device.resume(self.now, epoch, &proof, acceptor);
                if resumed.is_ok() {
                    self.acceptor = None;
                }
            }
            Some(arrival) => panic!("{arrival:?}"),
        }
    }

    pub fn end(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Client => &mut self.service,
            Side::Server => &mut self.device,
        }
    }

    /// Lets `side` write a record, if it has something to say and the pipe has room. Returns its length.
    pub fn transmit(&mut self, side: Side) -> usize {
        let now = self.now;
        if !self.connected {
            return 0;
        }
        let queued = self.wire(side).len();
        if queued > 0 && queued >= self.capacity {
            return 0;
        }
        let mut out = Vec::new();
        let length = match &mut self.acceptor {
            Some(acceptor) if side == Side::Server => acceptor.poll_transmit(1 << 16, &mut out),
            _ => self.end(side).poll_transmit(now, 1 << 16, &mut out),
        };
        assert_eq!(length, out.iter().map(Bytes::len).sum::<usize>());
        let wire = self.wire(side);
        wire.extend(out.iter().flatten());
        self.end(side).check_invariants();
        length
    }

    /// Brings at most `count` bytes that `side` wrote to the other end. Returns how many.
    pub fn deliver(&mut self, side: Side, count: usize) -> usize {
        let now = self.now;
        let wire = self.wire(side);
        let bytes: Bytes = wire.drain(..count.min(wire.len())).collect::<Vec<_>>().into();
        let count = bytes.len();
        if side == Side::Client && self.acceptor.is_some() {
            self.deliver_to_acceptor(bytes);
            self.device.check_invariants();
            return count;
        }
        let epoch = self.epoch;
        let peer = self.end(side.peer());
        peer.handle_input(now, epoch, bytes);
        peer.check_invariants();
        count
    }

    /// Carries bytes both ways until both ends are quiet.
    pub fn run(&mut self) {
        loop {
            let mut moved = 0;
            for side in [Side::Client, Side::Server] {
                moved += self.transmit(side);
                while self.on_the_wire(side) > 0 {
                    moved += self.deliver(side, self.cut);
                }
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// Lets time pass: fires every timer on its way, and carries what the ends have to say.
    pub fn advance(&mut self, duration: Duration) {
        self.pass(duration, Self::run);
    }

    /// As [`advance`](Self::advance), but nothing is said or arrives.
    pub fn advance_cut_off(&mut self, duration: Duration) {
        self.pass(duration, |_| ());
    }

    fn pass(&mut self, duration: Duration, after_each: impl Fn(&mut Self)) {
        let end = self.now + duration;
        loop {
            let next = [self.service.poll_timeout(), self.device.poll_timeout()];
            match next.into_iter().flatten().map(|(at, _)| at).min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
            self.fire();
            after_each(self);
        }
        self.now = end;
    }

    /// Both ends were suspended for so long.
    pub fn jump(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.fire();
    }

    fn fire(&mut self) {
        for side in [Side::Client, Side::Server] {
            let now = self.now;
            self.end(side).handle_timeout(now);
            self.end(side).check_invariants();
        }
    }

    /// How many bytes that `side` wrote are under way.
    pub fn on_the_wire(&mut self, side: Side) -> usize {
        self.wire(side).len()
    }

    fn wire(&mut self, from: Side) -> &mut VecDeque<u8> {
        match from {
            Side::Client => &mut self.to_device,
            Side::Server => &mut self.to_service,
        }
    }

    /// A stream that the service opened with `first`, and the device accepted.
    pub fn stream(&mut self, dir: Dir, first: &[u8]) -> StreamId {
        let id = self.service.open(dir).unwrap();
        assert_eq!(self.service.stream(id).unwrap().write(first), Ok(first.len()));
        self.run();
        assert_eq!(self.device.accept(dir), Some(id));
        while self.device.poll_event().is_some() {}
        id
    }

    pub fn release(&mut self, id: StreamId) {
        for side in [Side::Client, Side::Server] {
            self.end(side).release(id, Code::default());
        }
    }
}

/// Reads all that there is now, and says how it stands after that: `Ok` at the end of the stream.
pub fn read_all(session: &mut Session, id: StreamId) -> (Vec<u8>, Result<(), ReadError>) {
    let mut all = Vec::new();
    loop {
        match session.stream(id).unwrap().read(usize::MAX) {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

/// Writes as much of `count` bytes of `pattern` as is accepted.
pub fn write_some(
    session: &mut Session,
    id: StreamId,
    from: usize,
    count: usize,
) -> Result<usize, WriteError> {
    let bytes: Vec<u8> = (from..from + count).map(pattern).collect();
    session.stream(id).unwrap().write(&bytes)
}

/// The byte at `offset` of every test stream.
pub fn pattern(offset: usize) -> u8 {
    u8::try_from(offset * 31 % 251).unwrap()
}

/// The first `count` bytes of every test stream.
pub fn patterned(count: usize) -> Vec<u8> {
    (0..count).map(pattern).collect()
}

pub fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0, "whole bytes");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

pub fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

/// Windows that a test's hundred thousand bytes fit.
pub fn wide() -> Config {
    config(|c| c.stream_window = 256 << 10)
}
