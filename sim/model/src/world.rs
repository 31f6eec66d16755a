//! Two real sessions and what is between them.
//!
//! In: what the pipe and the clock do. Out: whatever the sessions make of it. Keeps: the bytes under way, record by
//! record. Consistency of both sessions is checked after each step.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use towline_engine::{
    Acceptor, Arrival, Config, Epoch, Instant, PipeClosed, Resumption, Secret, Session, SessionId, Side,
};

/// The name of the session, if it can resume.
pub const ID: SessionId = SessionId([0x1d; SessionId::LEN]);

/// The secret of the session, if it can resume.
pub const SECRET: Secret = Secret::new([0x5e; Secret::LEN]);

/// The byte at `offset` of every stream.
///
/// # Panics
///
/// Never: the remainder fits a byte.
pub fn pattern(offset: u64) -> u8 {
    u8::try_from(offset * 31 % 251).expect("below 251")
}

/// A client that opens pipes, and a server that accepts them.
#[derive(Clone, Debug)]
pub struct World {
    /// The end that opens pipes.
    pub client: Session,
    /// The end that accepts them.
    pub server: Session,
    /// The time, for both.
    pub now: Instant,
    /// The number of the present pipe.
    pub epoch: Epoch,
    /// Whether there is a pipe; there may be none that either end knows of.
    pub connected: bool,
    config: Config,
    /// Reads the beginning of a later pipe, until it is known whose it is.
    acceptor: Option<Acceptor>,
    /// Records under way, by who wrote them.
    wires: [VecDeque<Bytes>; 2],
}

/// Where the end on `side` has its place in an array of two.
pub(crate) const fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

impl World {
    /// Two ends that want and allow the same, with a pipe on which nothing was said. They resume if `resumable`.
    pub fn new(config: &Config, resumable: bool) -> Self {
        let (mut client, mut server) = (config.clone(), config.clone());
        if resumable {
            client.resumption = Resumption::Offer(ID, SECRET);
            server.resumption = Resumption::Accept;
        }
        let mut world = Self {
            client: Session::new(Side::Client, client),
            server: Session::new(Side::Server, server.clone()),
            now: Instant::from_nanos(1_000_000_000),
            epoch: Epoch(0),
            connected: true,
            config: server,
            acceptor: None,
            wires: Default::default(),
        };
        for side in [Side::Client, Side::Server] {
            let (now, epoch) = (world.now, world.epoch);
            world.end(side).attach(now, epoch).expect("a new session takes a pipe");
        }
        world
    }

    /// One of the ends.
    pub fn end(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Whether the ends can do without the present pipe.
    pub fn is_resumable(&self) -> bool {
        self.client.id().is_some() && self.server.id().is_some()
    }

    /// How many bytes that `side` wrote are under way.
    pub fn under_way(&self, side: Side) -> usize {
        self.wires[index(side)].iter().map(Bytes::len).sum()
    }

    /// The length of the first record under way that `side` wrote; 0 if there is none.
    pub fn next_record(&self, side: Side) -> usize {
        self.wires[index(side)].front().map_or(0, Bytes::len)
    }

    /// The bytes under way that `side` wrote, as they will arrive.
    pub fn wire(&self, side: Side) -> impl Iterator<Item = &Bytes> {
        self.wires[index(side)].iter()
    }

    /// Whether `side` has something to say to a pipe that is there.
    pub fn wants_transmit(&self, side: Side) -> bool {
        self.connected
            && match (side, &self.acceptor) {
                (Side::Server, Some(acceptor)) => acceptor.wants_transmit(),
                (Side::Server, None) => self.server.wants_transmit(),
                (Side::Client, _) => self.client.wants_transmit(),
            }
    }

    /// Lets `side` write a record of at most `max` bytes. Returns its length.
    ///
    /// # Panics
    ///
    /// If the session is inconsistent after it.
    pub fn transmit(&mut self, side: Side, max: usize) -> usize {
        if !self.connected {
            return 0;
        }
        let mut out = Vec::new();
        let now = self.now;
        let length = match &mut self.acceptor {
            Some(acceptor) if side == Side::Server => acceptor.poll_transmit(max, &mut out),
            _ => self.end(side).poll_transmit(now, max, &mut out),
        };
        assert_eq!(length, out.iter().map(Bytes::len).sum::<usize>(), "as long as it says");
        if length > 0 {
            self.wires[index(side)].push_back(out.concat().into());
        }
        self.end(side).check_invariants();
        length
    }

    /// Brings at most `count` of the bytes that `side` wrote to the other end. Returns how many.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn deliver(&mut self, side: Side, count: usize) -> usize {
        let wire = &mut self.wires[index(side)];
        let Some(record) = wire.front_mut() else { return 0 };
        let bytes = record.split_to(count.min(record.len()));
        if record.is_empty() {
            wire.pop_front();
        }
        let arrived = bytes.len();
        let (now, epoch) = (self.now, self.epoch);
        match &mut self.acceptor {
            Some(acceptor) if side == Side::Client => {
                if let Some(Arrival::Resume { epoch, proof, .. }) = acceptor.handle_input(bytes)
                    && self.server.resume(now, epoch, &proof, acceptor).is_ok()
                {
                    self.acceptor = None;
                }
            }
            _ => self.end(side.peer()).handle_input(now, epoch, bytes),
        }
        self.end(side.peer()).check_invariants();
        arrived
    }

    /// The pipe is gone, with all that was under way. The ends on the sides in `noticed` learn of it.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn cut(&mut self, noticed: &[Side]) {
        self.wires = Default::default();
        self.connected = false;
        self.acceptor = None;
        let (now, epoch) = (self.now, self.epoch);
        for &side in noticed {
            self.end(side).handle_pipe_closed(now, epoch, PipeClosed::Failed);
            self.end(side).check_invariants();
        }
    }

    /// The client opens another pipe, if its session goes on. What was under way on the last one is lost.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn reconnect(&mut self) {
        let epoch = Epoch(self.epoch.0 + 1);
        if self.client.attach(self.now, epoch).is_err() {
            return;
        }
        self.epoch = epoch;
        self.wires = Default::default();
        self.connected = true;
        self.acceptor = Some(Acceptor::new(&self.config));
        self.client.check_invariants();
    }

    /// Lets time pass, and fires the timers that are due then.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        for side in [Side::Client, Side::Server] {
            let now = self.now;
            self.end(side).handle_timeout(now);
            self.end(side).check_invariants();
        }
    }

    /// Carries everything that the ends have to say, both ways, until they are quiet. Time stands still, but for
    /// the delay of acknowledgements.
    pub fn run(&mut self) {
        for _ in 0..2 {
            loop {
                let mut moved = 0;
                for side in [Side::Client, Side::Server] {
                    moved += self.transmit(side, 1 << 14);
                    moved += self.deliver(side, usize::MAX);
                }
                if moved == 0 {
                    break;
                }
            }
            self.wait(Duration::from_millis(25));
        }
    }

    /// As [`run`](Self::run), over a new pipe if there is none that works.
    pub fn recover(&mut self) {
        if !self.connected || self.client.is_detached() || self.server.is_detached() {
            self.cut(&[]);
            self.reconnect();
        }
        self.run();
    }
}
