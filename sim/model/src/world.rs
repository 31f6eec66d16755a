//! Two real sessions and what is between them.
//!
//! In: what the pipes and the clock do. Out: whatever the sessions make of it. Keeps: the bytes under way, record by
//! record. Consistency of both sessions is checked after each step.

use std::time::Duration;

use bytes::Bytes;
use towline_engine::{
    Acceptor, Config, Epoch, Instant, PipeClosed, Resumption, Secret, Session, SessionId, Side, StreamId,
};

use crate::digest::Digest;
use crate::end::End;
use crate::observer::Observer;
use crate::pipe::Pipe;

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
    pub(crate) client: End,
    /// The end that accepts them.
    pub(crate) server: End,
    /// The time, for both.
    pub now: Instant,
    /// The number of the present pipe.
    pub epoch: Epoch,
    /// Whether there is a pipe; there may be none that either end knows of.
    pub connected: bool,
    /// The number of the pipe that the server was on last.
    pub(crate) server_epoch: Epoch,
    pub(crate) config: Config,
    /// The present pipe.
    pub(crate) pipe: Pipe,
    /// Those that the client has left while their bytes could still arrive.
    pub(crate) older: Vec<Pipe>,
    observers: [Observer; 2],
    /// How each half ended where it arrived, by who wrote it: with a FIN, or with a reset.
    ends: Vec<(StreamId, Side, bool)>,
    /// What the client has begun its later pipes with, each the first record.
    pub(crate) resumes: Vec<(Epoch, Bytes)>,
}

/// Both ends.
pub const BOTH: [Side; 2] = [Side::Client, Side::Server];

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
        let epoch = Epoch(0);
        let mut world = Self {
            client: End::new(Session::new(Side::Client, client)),
            server: End::new(Session::new(Side::Server, server.clone())),
            now: Instant::from_nanos(1_000_000_000),
            epoch,
            connected: true,
            server_epoch: epoch,
            config: server,
            pipe: Pipe { epoch, acceptor: None, wires: Default::default() },
            older: Vec::new(),
            observers: BOTH.map(Observer::new),
            ends: Vec::new(),
            resumes: Vec::new(),
        };
        for side in BOTH {
            let now = world.now;
            world.end(side).attach(now, epoch).expect("a new session takes a pipe");
        }
        world
    }

    /// One of the ends.
    pub fn end(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Client => self.client.get_mut(),
            Side::Server => self.server.get_mut(),
        }
    }

    /// One of the ends, to look at.
    pub fn peek(&self, side: Side) -> &Session {
        match side {
            Side::Client => self.client.get(),
            Side::Server => self.server.get(),
        }
    }

    /// Whether anything may have happened to `side` since this was last asked.
    pub(crate) fn take_touched(&mut self, side: Side) -> bool {
        match side {
            Side::Client => self.client.take_touched(),
            Side::Server => self.server.take_touched(),
        }
    }

    /// Whether the ends can do without the present pipe.
    pub fn is_resumable(&self) -> bool {
        BOTH.iter().all(|&side| self.peek(side).id().is_some())
    }

    /// How many bytes that `side` wrote are under way.
    pub fn under_way(&self, side: Side) -> usize {
        self.wire(side).map(Bytes::len).sum()
    }

    /// The length of the first record under way that `side` wrote; 0 if there is none.
    pub fn next_record(&self, side: Side) -> usize {
        self.wire(side).next().map_or(0, Bytes::len)
    }

    /// The bytes under way that `side` wrote, as they will arrive.
    pub fn wire(&self, side: Side) -> impl Iterator<Item = &Bytes> {
        self.pipe.wires[index(side)].iter().map(|record| &record.left)
    }

    /// After how many bytes the first record under way that `side` wrote can be cut so that it matters: see
    /// [`cuts`](crate::wire::cuts).
    pub fn cuts(&self, side: Side) -> Vec<usize> {
        self.pipe.cuts(side)
    }

    /// Whether `side` has something to say to a pipe that is there.
    pub fn wants_transmit(&self, side: Side) -> bool {
        self.connected
            && match (side, &self.pipe.acceptor) {
                (Side::Server, Some(acceptor)) => acceptor.wants_transmit(),
                _ => self.peek(side).wants_transmit(),
            }
    }

    /// Lets `side` write a record of at most `max` bytes. Returns its length.
    ///
    /// # Panics
    ///
    /// If the session is inconsistent after it, or the record breaks a rule.
    pub fn transmit(&mut self, side: Side, max: usize) -> usize {
        if !self.connected {
            return 0;
        }
        let mut out = Vec::new();
        let now = self.now;
        let length = match &mut self.pipe.acceptor {
            Some(acceptor) if side == Side::Server => acceptor.poll_transmit(max, &mut out),
            _ => self.end(side).poll_transmit(now, max, &mut out),
        };
        assert_eq!(length, out.iter().map(Bytes::len).sum::<usize>(), "as long as it says");
        self.peek(side).check_invariants();
        if length > 0 {
            let record = Bytes::from(out.concat());
            self.observe(side, self.epoch, &record);
            let is_resumed = self.epoch.0 > 0 && self.resumes.last().is_none_or(|last| last.0 < self.epoch);
            if side == Side::Client && is_resumed {
                self.resumes.push((self.epoch, record.clone()));
            }
            self.pipe.send(side, record);
        }
        length
    }

    pub(crate) fn observe(&mut self, side: Side, epoch: Epoch, record: &[u8]) {
        let [client, server] = &mut self.observers;
        match side {
            Side::Client => client.on_record(epoch, record, server),
            Side::Server => server.on_record(epoch, record, client),
        }
    }

    /// Brings at most `count` of the bytes that `side` wrote to the other end. Returns how many.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn deliver(&mut self, side: Side, count: usize) -> usize {
        let was_there = !self.peek(side.peer()).is_closed();
        let Some(arrived) = self.pipe.take(side, count) else { return 0 };
        let length = arrived.bytes.len();
        match side {
            Side::Client => self.pipe.arrive(self.server.get_mut(), self.now, arrived.bytes),
            Side::Server => self.client.get_mut().handle_input(self.now, self.pipe.epoch, arrived.bytes),
        }
        self.note_server_epoch();
        if was_there && (side == Side::Server || self.pipe.acceptor.is_none()) {
            self.note_ends(side, arrived.ends);
        }
        self.peek(side.peer()).check_invariants();
        length
    }

    /// How the half of `id` that `sender` writes ended for the other end: with a FIN (`true`), or with a reset.
    pub fn first_end(&self, id: StreamId, sender: Side) -> Option<bool> {
        let is_it = |&&(ended, by, _): &&(StreamId, Side, bool)| (ended, by) == (id, sender);
        self.ends.iter().find(is_it).map(|&(.., is_fin)| is_fin)
    }

    /// Remembers the ends that have arrived at an end that was there; the first counts.
    pub(crate) fn note_ends(&mut self, side: Side, ends: Vec<(StreamId, bool)>) {
        for (id, is_fin) in ends {
            if !self.peek(side.peer()).is_detached() && self.first_end(id, side).is_none() {
                self.ends.push((id, side, is_fin));
            }
        }
    }

    /// Finds out which pipe the server is on.
    pub(crate) fn note_server_epoch(&mut self) {
        let taken = self.older.iter().chain([&self.pipe]).filter(|pipe| pipe.acceptor.is_none());
        let newest = taken.map(|pipe| pipe.epoch).max();
        self.server_epoch = self.server_epoch.max(newest.unwrap_or_default());
    }

    /// The pipe is gone, with all that was under way. The ends on the sides in `noticed` learn of it.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn cut(&mut self, noticed: &[Side]) {
        self.older.clear();
        self.pipe.wires = Default::default();
        self.connected = false;
        let (now, epoch) = (self.now, self.epoch);
        for &side in noticed {
            self.end(side).handle_pipe_closed(now, epoch, PipeClosed::Failed);
            self.peek(side).check_invariants();
        }
    }

    /// The client opens another pipe, if its session goes on. What was under way on the last one is lost.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn reconnect(&mut self) {
        if self.attach_next() {
            self.older.clear();
        }
    }

    /// Attaches the client to another pipe. The last one is the last of the older ones then.
    pub(crate) fn attach_next(&mut self) -> bool {
        let epoch = Epoch(self.epoch.0 + 1);
        if self.client.get_mut().attach(self.now, epoch).is_err() {
            return false;
        }
        self.epoch = epoch;
        self.connected = true;
        let acceptor = Some(Acceptor::new(&self.config));
        let pipe = Pipe { epoch, acceptor, wires: Default::default() };
        self.older.push(std::mem::replace(&mut self.pipe, pipe));
        self.peek(Side::Client).check_invariants();
        true
    }

    /// Whether the present pipe is of no use any more: it is gone, or an end that was on it has left it.
    pub fn is_lost(&self) -> bool {
        let has_left = |side| self.peek(side).is_detached();
        let was_accepted = self.server_epoch == self.epoch;
        !self.connected || has_left(Side::Client) || was_accepted && has_left(Side::Server)
    }

    /// Lets time pass, and fires the timers that are due then.
    ///
    /// # Panics
    ///
    /// If a session is inconsistent after it.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        for side in BOTH {
            let now = self.now;
            self.end(side).handle_timeout(now);
            self.peek(side).check_invariants();
        }
    }

    /// Fires the next timer of `side`, whatever it is and whenever it is due, while time stands still. So timers fire
    /// in any order, and no state depends on when they did.
    ///
    /// # Panics
    ///
    /// If the session is inconsistent after it.
    pub fn fire(&mut self, side: Side) {
        if let Some((deadline, _)) = self.peek(side).poll_timeout() {
            self.end(side).handle_timeout(deadline);
            self.peek(side).check_invariants();
        }
    }

    /// Carries everything that the ends have to say, both ways, until they are quiet. Time stands still, but for
    /// the delay of acknowledgements.
    ///
    /// # Panics
    ///
    /// If they never are.
    pub fn run(&mut self) {
        for _ in 0..2 {
            let mut rounds = 0;
            loop {
                let mut moved = 0;
                for side in BOTH {
                    moved += self.transmit(side, 1 << 14);
                    moved += self.deliver(side, usize::MAX);
                }
                if moved == 0 {
                    break;
                }
                rounds += 1;
                assert!(rounds < MAX_ROUNDS, "no_stall: two ends that never come to rest");
            }
            self.wait(Duration::from_millis(25));
        }
    }

    /// As [`run`](Self::run), over a new pipe if there is none that works.
    pub fn recover(&mut self) {
        if self.is_lost() || self.peek(Side::Server).is_detached() {
            self.cut(&[]);
            self.reconnect();
        }
        self.run();
    }

    /// A number for the state: equal for worlds that will behave alike from now on.
    pub fn fingerprint(&mut self) -> u128 {
        let mut digest = Digest::default();
        digest.add(self.client.fingerprint(self.now));
        digest.add(self.server.fingerprint(self.now));
        for side in BOTH {
            if let Some(tombstone) = self.peek(side).tombstone() {
                digest.add_bytes(format!("{tombstone:?}").as_bytes());
            }
        }
        digest.add(u128::from(self.connected));
        digest.add(u128::from(self.epoch.0));
        if self.connected {
            self.older.iter().chain([&self.pipe]).for_each(|pipe| pipe.digest(&mut digest));
        }
        digest.result()
    }
}

/// No exchange of what a test has written takes as many records each way.
const MAX_ROUNDS: usize = 1 << 16;
