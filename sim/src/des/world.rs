//! What there is, and the loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time;

use anyhow::Context;
use bytes::Bytes;
use towline::core::{Backoff, Core, Lobby, Visitor};
use towline_engine::{Acceptor, CloseReason, Epoch, Instant, SessionId, StreamId};
use towline_model::Observer;
use towline_transports::qlog::Recorded;

use super::app_state::App;
use super::look::Debt;
use super::network::{Packet, Way};
use super::queue::Queue;
use super::quic::{Quic, QuicConn};
use super::watch::Watch;
use crate::link::{Link, LinkSpec, Nat};
use crate::pattern::Pattern;
use crate::random::{Random, Stream};
use crate::run::{Ended, Rest, Sink};
use crate::scenario::{Plan, Role};

/// Everything that there is.
pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) sink: &'a mut Sink,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) queue: Queue<Task>,
    pub(super) hosts: Vec<Host>,
    pub(super) conns: Vec<Conn>,
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) pairs: Vec<Pair>,
    pub(super) ends: Vec<End>,
    pub(super) observers: Vec<[Observer; 2]>,
    /// Of each session, as the observers.
    pub(super) watches: Vec<Watch>,
    /// What must be through by when.
    pub(super) debts: Vec<Debt>,
    pub(super) streams: Vec<StreamState>,
    pub(super) quic: Quic,
    /// Sessions that may have something to say.
    pub(super) dirty: BTreeSet<usize>,
    /// Those that an application has written to, and that were not looked at since.
    pub(super) written_to: BTreeSet<usize>,
    pub(super) pattern: Pattern,
    /// How long rounds of interactive streams took.
    pub(super) rounds: Vec<u64>,
    /// How many devices are on a hub, and since when all are, after the last fault.
    pub(super) online: usize,
    pub(super) devices: usize,
    /// How many links of QUIC are up at endpoints only, as the hub's process is gone and nobody has said so.
    pub(super) ghosts: usize,
    /// Where hosts are, by name.
    pub(super) places: BTreeMap<String, usize>,
    pub(super) all_online_at: Option<u64>,
    pub(super) last_fault: u64,
    /// When something last began to go wrong, or was mended.
    pub(super) disturbed_at: u64,
    pub(super) faults_left: usize,
    /// How many streams are neither done nor failed.
    pub(super) streams_left: usize,
}

/// What will happen.
#[derive(Debug)]
pub(super) enum Task {
    /// A packet has come to the next host on its way.
    Hop(Box<Packet>),
    /// An endpoint tries to reach a hub; if it is still the same process.
    Connect(usize, u32),
    /// A hub looks again whether there is room in its lobby.
    LetIn(usize),
    /// The hub's processor is done with a handshake.
    Greet(usize),
    /// An end of a connection looks whether the other is alive.
    Alive(usize, Way),
    /// An end of a QUIC connection has something to do.
    Quic(usize, usize),
    /// An endpoint looks whether anything comes back over UDP; the look with that number.
    Path(usize, u64),
    /// A handshake that has not come to an end by now will not.
    HandshakeDue(usize, Way),
    /// The core's deadline.
    HubTimeout(usize),
    /// A session wants another pipe.
    Reopen(usize),
    /// A session's timer, or its turn to write.
    Timer(usize),
    Write(usize),
    /// An application goes on.
    App(usize, StreamId),
    /// It is time for a stream.
    Start(usize),
    /// A session whose work is done has come to rest.
    Rest(usize),
    /// A pair whose session has failed begins another.
    Again(usize),
    /// It is time to look whether anybody waits in vain, or whether what was owed is through.
    Audit,
    Collect(usize),
    FaultBegins(usize),
    FaultEnds(usize),
}

/// A host.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) role: Role,
    /// Which process this is, by how many there were before.
    pub(super) process: u32,
    pub(super) is_alive: bool,
    /// Nobody is there, and how many faults say so.
    pub(super) deaths: u32,
    /// It stands still, and how many faults say so.
    pub(super) suspensions: u32,
    /// What waits until it wakes.
    pub(super) inbox: VecDeque<Task>,
    /// How far its clock is ahead.
    pub(super) ahead: u64,
    /// Nobody gets through, and how many faults say so.
    pub(super) cuts: u32,
    /// No datagrams get through, and how many faults say so.
    pub(super) udp_blocks: u32,
    /// How often it has got another address.
    pub(super) moves: u32,
    /// How many ports of UDP it has had.
    pub(super) ports: u32,
    /// Nothing goes up, or down, until later, and how many faults say so.
    pub(super) holds: [u32; 2],
    /// What goes up, or down, is lost, and how many faults say so.
    pub(super) mutes: [u32; 2],
    pub(super) held: [VecDeque<Box<Packet>>; 2],
    /// Up and down.
    pub(super) lines: [Link; 2],
    /// Its applications read nothing, and how many faults say so.
    pub(super) slow: u32,
    pub(super) hub: Option<Hub>,
    pub(super) endpoint: Option<Endpoint>,
}

/// What a host is that is a hub.
pub(super) struct Hub {
    pub(super) core: Core,
    pub(super) lobby: Lobby,
    pub(super) visitors: BTreeMap<Visitor, usize>,
    /// Who finds no room in the lobby: the system's queue.
    pub(super) outside: VecDeque<usize>,
    /// Whose first words have come of those.
    pub(super) spoken: BTreeSet<usize>,
    /// When it is next looked whether there is room.
    pub(super) lets_in_at: u64,
    /// Whose handshake its processor works at, and who waits for that.
    pub(super) at_work: Option<usize>,
    pub(super) handshakes: VecDeque<usize>,
    pub(super) timeout_at: u64,
}

/// What a host is that is a device or a service.
pub(super) struct Endpoint {
    pub(super) backoff: Backoff,
    pub(super) draws: Stream,
    /// Which of its hubs is next.
    pub(super) turn: usize,
    pub(super) conn: Option<usize>,
    pub(super) instance: u64,
}

/// A connection of an endpoint to a hub, and its state at both ends.
pub(super) struct Conn {
    pub(super) endpoint: usize,
    pub(super) hub: usize,
    /// Which processes.
    pub(super) processes: [u32; 2],
    /// At the endpoint: since when it is up, or that it is on its way, or over.
    pub(super) near: Near,
    pub(super) far: Far,
    /// When each end last heard of the other.
    pub(super) heard: [u64; 2],
    /// Nothing gets through any more, and nobody says so.
    pub(super) is_lost: bool,
    pub(super) nat: Nat,
    /// Tunnels over it.
    pub(super) tunnels: BTreeSet<usize>,
    /// What it is made of, if that is QUIC. It knows by itself who is silent, and what is lost.
    pub(super) quic: Option<Box<QuicConn>>,
}

/// A connection, as its endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Near {
    Connecting,
    Up(u64),
    Over,
}

/// A connection, as its hub sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Far {
    Unknown,
    Waiting(Visitor),
    Up,
    Over,
}

/// A tunnel, which is a pipe of a session.
pub(super) struct Tunnel {
    pub(super) hub: usize,
    pub(super) id: towline::core::TunnelId,
    /// The service's connection, and the device's.
    pub(super) conns: [usize; 2],
    pub(super) pair: usize,
    /// Whether it is open at the service, and at the device.
    pub(super) open: [bool; 2],
    pub(super) is_at_hub: bool,
    pub(super) is_answered: bool,
    pub(super) epoch: Epoch,
    /// The sessions at its ends.
    pub(super) ends: [Option<usize>; 2],
    pub(super) acceptor: Option<Acceptor>,
    /// What the acceptor has read.
    pub(super) kept: Vec<Bytes>,
    /// How many bytes are under way, up and down.
    pub(super) under_way: [u64; 2],
}

/// What a service and a device have to do with each other.
pub(super) struct Pair {
    pub(super) service: usize,
    pub(super) device: usize,
    pub(super) generation: u64,
    /// The present session, at the service.
    pub(super) end: Option<usize>,
    /// Those that the device is ending, at the service.
    pub(super) draining: Vec<usize>,
    /// A tunnel was asked for.
    pub(super) is_opening: bool,
    /// How often in a row the hub has said that the device is not there.
    pub(super) not_here: u32,
    pub(super) backoff: Backoff,
    pub(super) draws: Stream,
    /// Streams whose time has come.
    pub(super) ready: VecDeque<usize>,
    /// How many are neither done nor failed.
    pub(super) left: usize,
    /// The sessions that the device knows.
    pub(super) known: BTreeMap<SessionId, usize>,
}

/// One end of a session.
pub(super) struct End {
    pub(super) host: usize,
    pub(super) process: u32,
    pub(super) pair: usize,
    /// 0 at the service, 1 at the device.
    pub(super) side: usize,
    pub(super) name: String,
    pub(super) session: Recorded,
    pub(super) observers: usize,
    pub(super) tunnel: Option<usize>,
    pub(super) epoch: Epoch,
    pub(super) timer_at: u64,
    pub(super) writes_at: Option<u64>,
    pub(super) apps: BTreeMap<StreamId, App>,
    pub(super) is_over: bool,
    pub(super) was_closed: bool,
    pub(super) is_resting: bool,
    pub(super) resumes: u64,
    /// What the peer's end of it is, once there is one.
    pub(super) peer: Option<usize>,
    /// Which stream has which id: at the service.
    pub(super) ids: BTreeMap<StreamId, usize>,
    /// When something last came from the present pipe, or that was attached, by the host's clock.
    pub(super) heard_at: u64,
    /// When its streams last went on.
    pub(super) moved_at: u64,
    /// Its application has begun to drain it; or it was told that the peer has.
    pub(super) drains: bool,
    pub(super) has_heard_drain: bool,
    /// How it ended.
    pub(super) why: Option<CloseReason>,
    /// How large each stream's window was that it announced last.
    pub(super) windows: BTreeMap<StreamId, u64>,
}

/// What is known of a stream, of both directions: 0 is up.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamState {
    pub(super) written: [u64; 2],
    pub(super) read: [u64; 2],
    /// Since when its writer has been saying something.
    pub(super) begun: [Option<u64>; 2],
    pub(super) finished: [bool; 2],
    pub(super) reset: [bool; 2],
    pub(super) stopped: [bool; 2],
    /// The reader knows how it ended.
    pub(super) ended: [bool; 2],
    /// Since when there is something that was not read.
    pub(super) pending: [Option<u64>; 2],
    pub(super) over: [bool; 2],
    /// It is done, or has failed.
    pub(super) is_counted: bool,
    pub(super) pair: usize,
    /// An application was told that it failed.
    pub(super) has_failed: bool,
    /// The device's application has seen it.
    pub(super) surfaced: bool,
    /// How often it was refused by a session that drains, and begun again.
    pub(super) refusals: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(plan: &'a Plan, sink: &'a mut Sink) -> anyhow::Result<Self> {
        let random = Random::new(plan.seed);
        let mut world = Self {
            plan,
            sink,
            random,
            now: 0,
            queue: Queue::new(),
            hosts: plan.hosts.iter().map(|host| new_host(host, random)).collect(),
            conns: Vec::new(),
            tunnels: Vec::new(),
            pairs: Vec::new(),
            ends: Vec::new(),
            observers: Vec::new(),
            watches: Vec::new(),
            debts: Vec::new(),
            streams: vec![StreamState::default(); plan.streams.len()],
            quic: Quic::new(),
            dirty: BTreeSet::new(),
            written_to: BTreeSet::new(),
            pattern: Pattern::new(),
            rounds: Vec::new(),
            online: 0,
            ghosts: 0,
            devices: plan.hosts_of(Role::Device).count(),
            places: plan.hosts.iter().enumerate().map(|(at, host)| (host.name.clone(), at)).collect(),
            all_online_at: None,
            last_fault: 0,
            disturbed_at: 0,
            faults_left: plan.faults.len(),
            streams_left: plan.streams.len(),
        };
        let places = world.places.clone();
        let find =
            |name: &str| places.get(name).copied().with_context(|| format!("the plan has no host `{name}`"));
        for (index, host) in plan.hosts.iter().enumerate() {
            if world.hosts[index].endpoint.is_some() {
                world.queue.push(host.start.0, Task::Connect(index, 0));
            }
            for name in host.hubs.iter().chain(&host.proxy) {
                find(name)?;
            }
        }
        let mut pairs = BTreeMap::new();
        for (index, stream) in plan.streams.iter().enumerate() {
            let (service, device) = (find(&stream.service)?, find(&stream.device)?);
            let pair = *pairs.entry((service, device)).or_insert_with(|| {
                let name = format!("pair/{}/{}", stream.service, stream.device);
                world.pairs.push(new_pair(service, device, random.stream(&name)));
                world.pairs.len() - 1
            });
            world.pairs[pair].left += 1;
            world.streams[index].pair = pair;
            world.queue.push(stream.start.0, Task::Start(index));
        }
        world.queue.push(super::look::AUDIT, Task::Audit);
        for (index, fault) in plan.faults.iter().enumerate() {
            find(&fault.host)?;
            world.queue.push(fault.at.0, Task::FaultBegins(index));
        }
        Ok(world)
    }

    /// Lets things happen until all is done, or a limit.
    #[expect(clippy::disallowed_methods, reason = "the limit of real time is one of real time")]
    pub(super) fn run(&mut self) -> Rest {
        let started = time::Instant::now();
        let mut ended = Ended::SimulatedLimit;
        let mut steps = 0_u64;
        while let Some((time, task)) = self.queue.pop() {
            if time > self.plan.limits.simulated.0 {
                self.now = self.plan.limits.simulated.0;
                break;
            }
            self.now = time;
            self.step(task);
            steps += 1;
            if self.is_done() {
                ended = Ended::Done;
                break;
            }
            if steps.is_multiple_of(4096) && started.elapsed() > self.plan.limits.wall.duration() {
                ended = Ended::WallLimit;
                break;
            }
        }
        self.sink.count("steps", steps);
        self.finish();
        Rest { ended, simulated: self.now, waiting: self.waiting() }
    }

    fn step(&mut self, task: Task) {
        if let Some(host) = self.host_of(&task)
            && self.hosts[host].suspensions > 0
        {
            return self.hosts[host].inbox.push_back(task);
        }
        match task {
            Task::Hop(packet) => self.hop(packet),
            Task::Connect(host, process) => self.connect(host, process),
            Task::LetIn(hub) => self.lobby_timeout(hub),
            Task::Greet(conn) => self.greet(conn),
            Task::Alive(conn, way) => self.look_alive(conn, way),
            Task::Quic(conn, end) => self.quic_timer(conn, end),
            Task::Path(conn, look) => self.look_at_path(conn, look),
            Task::HandshakeDue(conn, way) => self.handshake_due(conn, way),
            Task::HubTimeout(host) => self.hub_timeout(host),
            Task::Reopen(pair) => self.reopen(pair),
            Task::Timer(end) => self.timer(end),
            Task::Write(end) => {
                self.ends[end].writes_at = None;
                self.dirty.insert(end);
            }
            Task::App(end, id) => self.app(end, id),
            Task::Start(stream) => self.start(stream),
            Task::Rest(end) => self.rest(end),
            Task::Again(pair) => self.again(pair),
            Task::Audit => self.audit(),
            Task::Collect(debt) => self.collect(debt),
            Task::FaultBegins(fault) => self.fault_begins(fault),
            Task::FaultEnds(fault) => self.fault_ends(fault),
        }
        self.settle();
        while let Some(end) = self.written_to.pop_first() {
            self.look_at_write(end);
        }
    }

    /// Lets everybody say what there is to say.
    fn settle(&mut self) {
        self.settle_sessions();
        while let Some((conn, end)) = self.quic.dirty.pop_first() {
            self.pump_quic(conn, end);
            self.settle_sessions();
        }
    }

    pub(super) fn settle_sessions(&mut self) {
        while let Some(end) = self.dirty.pop_first() {
            self.pump(end);
        }
    }

    /// Whose processor this takes.
    fn host_of(&self, task: &Task) -> Option<usize> {
        match task {
            Task::Hop(packet) => packet.is_at_its_end(self).then(|| packet.receiver(self)),
            Task::Connect(host, _) | Task::LetIn(host) | Task::HubTimeout(host) => Some(*host),
            Task::Greet(conn) => Some(self.conns[*conn].hub),
            Task::Quic(conn, end) => Some(self.side_of(*conn, Way::ALL[*end])),
            Task::Path(conn, _) => Some(self.conns[*conn].endpoint),
            Task::Alive(conn, way) | Task::HandshakeDue(conn, way) => Some(self.side_of(*conn, *way)),
            Task::Reopen(pair) | Task::Again(pair) => Some(self.pairs[*pair].service),
            Task::Timer(end) | Task::Write(end) | Task::App(end, _) | Task::Rest(end) => {
                Some(self.ends[*end].host)
            }
            Task::Start(stream) => Some(self.pairs[self.streams[*stream].pair].service),
            Task::FaultBegins(_) | Task::FaultEnds(_) | Task::Audit | Task::Collect(_) => None,
        }
    }

    /// The time, as `host` has it.
    pub(super) fn clock(&self, host: usize) -> Instant {
        Instant::from_nanos(self.now + self.hosts[host].ahead)
    }

    /// Whether all work is done, all faults are over, and nobody who is expected is missing.
    fn is_done(&self) -> bool {
        let sessions_over = || self.ends.iter().all(|end| end.is_over || !self.is_running(end));
        let wants_online = self.plan.expect.all_online || self.plan.expect.online_within.is_some();
        self.streams_left == 0
            && self.faults_left == 0
            && (!wants_online || self.is_everybody_online())
            && sessions_over()
    }

    /// Whether all devices are on a hub, and the hubs know it.
    pub(super) fn is_everybody_online(&self) -> bool {
        self.online == self.devices && self.ghosts == 0
    }

    pub(super) fn is_running(&self, end: &End) -> bool {
        self.hosts[end.host].is_alive && self.hosts[end.host].process == end.process
    }
}

fn new_host(host: &crate::scenario::Host, random: Random) -> Host {
    let [up, down] = host.ways();
    let line = |spec: &LinkSpec, way: &str| {
        Link::new(spec.clone(), random.stream(&format!("link/{}/{way}", host.name)))
    };
    let endpoint = matches!(host.role, Role::Device | Role::Service).then(|| {
        let mut draws = random.stream(&format!("host/{}/backoff", host.name));
        Endpoint { backoff: Backoff::default(), turn: 0, conn: None, instance: draws.next_u64(), draws }
    });
    Host {
        name: host.name.clone(),
        role: host.role,
        process: 0,
        is_alive: true,
        deaths: 0,
        suspensions: 0,
        inbox: VecDeque::new(),
        ahead: 0,
        cuts: 0,
        udp_blocks: 0,
        moves: 0,
        ports: 0,
        holds: [0; 2],
        mutes: [0; 2],
        held: Default::default(),
        lines: [line(up, "up"), line(down, "down")],
        slow: 0,
        hub: (host.role == Role::Hub).then(|| Hub::new(host)),
        endpoint,
    }
}

fn new_pair(service: usize, device: usize, draws: Stream) -> Pair {
    Pair {
        service,
        device,
        generation: 0,
        end: None,
        draining: Vec::new(),
        is_opening: false,
        not_here: 0,
        backoff: Backoff::default(),
        draws,
        ready: VecDeque::new(),
        left: 0,
        known: BTreeMap::new(),
    }
}

/// What a record looks like, in 64 bits: eight bytes at a time, as there are many.
pub(super) fn digest(pieces: &[Bytes]) -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for piece in pieces {
        for chunk in piece.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            digest = (digest ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    digest
}
