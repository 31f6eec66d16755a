//! What those who play in a world share: the plan, and how far each stream is.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use towline::{EndToEnd, Hub, HubStats};

use super::air::Air;
use super::cast::Cast;
use crate::event::What;
use crate::pattern::Pattern;
use crate::random::Random;
use crate::scenario::Plan;

/// The stage of one run. There is one thread, so whoever plays may look at it at any time.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) cast: Cast,
    pub(super) air: Air,
    pub(super) random: Random,
    pub(super) pattern: Pattern,
    /// How far each stream of the plan is.
    pub(super) streams: RefCell<Vec<Progress>>,
    /// The hubs that run.
    pub(super) hubs: RefCell<BTreeMap<String, HubHandle>>,
    /// Which devices are online, as they see it.
    pub(super) online: RefCell<BTreeSet<String>>,
    /// Whose applications read nothing for now, by how many faults say so.
    pub(super) slow: RefCell<BTreeMap<String, u32>>,
    /// How often each host was started.
    starts: RefCell<BTreeMap<String, u32>>,
    /// How long each round of interactive streams took, in nanoseconds.
    pub(super) rounds: RefCell<Vec<u64>>,
    /// The sessions between services and devices.
    sessions: RefCell<BTreeMap<(String, String), SessionPlace>>,
    /// All work is done: sessions may end.
    pub(super) idle: Cell<bool>,
    /// Everybody may go home.
    pub(super) over: Cell<bool>,
}

/// Where a session is, once it has begun.
pub(super) type SessionPlace = Rc<tokio::sync::Mutex<Option<EndToEnd>>>;

/// A hub that runs.
#[derive(Debug)]
pub(super) struct HubHandle {
    /// Not while it drains. Its host holds it, since it must die there: turmoil's sockets know no other place.
    pub(super) hub: Weak<Hub>,
    /// Has it drained, and come back after so long.
    pub(super) drain: mpsc::UnboundedSender<Duration>,
}

/// How far a stream is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The service wants it.
    pub(super) wanted: bool,
    /// There was a tunnel.
    pub(super) opened: bool,
    /// At the service, and at the device.
    pub(super) sides: [Side; 2],
    /// When something went on last.
    pub(super) last: u64,
    /// The longest that nothing went on.
    pub(super) stall: u64,
}

/// How far one side of a stream is.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub(super) written: u64,
    pub(super) read: u64,
    /// It has said its FIN.
    pub(super) finished: bool,
    /// It has read the other side's FIN.
    pub(super) ended: bool,
    pub(super) begun: bool,
    /// How it turned out.
    pub(super) outcome: Option<Result<(), String>>,
}

impl Stage {
    pub(super) fn new(plan: Plan, air: Air) -> Rc<Self> {
        let random = Random::new(plan.seed);
        let chaos = true;
        let streams = RefCell::new(vec![Progress::default(); plan.streams.len()]);
        Rc::new(Self {
            cast: Cast::new(random, air.clone(), chaos),
            plan,
            air,
            random,
            pattern: Pattern::new(),
            streams,
            hubs: RefCell::default(),
            online: RefCell::default(),
            slow: RefCell::default(),
            starts: RefCell::default(),
            rounds: RefCell::default(),
            sessions: RefCell::default(),
            idle: Cell::new(false),
            over: Cell::new(false),
        })
    }

    /// Where the session between a service and a device is.
    pub(super) fn session(&self, service: &str, device: &str) -> SessionPlace {
        self.sessions.borrow_mut().entry((service.to_owned(), device.to_owned())).or_default().clone()
    }

    /// All sessions of a service.
    pub(super) fn sessions_of(&self, service: &str) -> Vec<SessionPlace> {
        let sessions = self.sessions.borrow();
        sessions.iter().filter(|((of, _), _)| of == service).map(|(_, place)| place.clone()).collect()
    }

    /// Whether all sessions are over, and none begins. One without a tunnel would never hear that everybody goes home.
    pub(super) fn has_no_session(&self) -> bool {
        self.sessions.borrow().values().all(|place| place.try_lock().is_ok_and(|session| session.is_none()))
    }

    /// The process of a service has no sessions any more.
    pub(super) fn forget_sessions(&self, service: &str) {
        self.sessions.borrow_mut().retain(|(of, _), _| of != service);
    }

    /// The number of this start of a host, from 0.
    pub(super) fn start(&self, host: &str) -> u32 {
        let mut starts = self.starts.borrow_mut();
        let count = starts.entry(host.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    pub(super) fn now(&self) -> u64 {
        self.air.now()
    }

    pub(super) fn emit(&self, who: &str, what: What) {
        self.air.emit(who, what);
    }

    /// Something went on with a stream.
    pub(super) fn moved(&self, stream: usize, change: impl FnOnce(&mut Progress)) {
        let now = self.now();
        let progress = &mut self.streams.borrow_mut()[stream];
        progress.stall = progress.stall.max(now.saturating_sub(progress.last));
        progress.last = now;
        change(progress);
    }

    /// A stream has something to say from now on: what was before is no stall.
    pub(super) fn resume(&self, stream: usize) {
        self.streams.borrow_mut()[stream].last = self.now();
    }

    /// A side of a stream is over.
    pub(super) fn end(&self, stream: usize, side: usize, outcome: Result<(), String>) {
        let plan = &self.plan.streams[stream];
        let who = if side == SERVICE { &plan.service } else { &plan.device };
        let how = outcome.as_ref().err().cloned().unwrap_or_else(|| "done".into());
        self.emit(who, What::StreamEnded { stream: plan.name.clone(), how });
        let first = self.streams.borrow()[stream].sides[side].outcome.is_none();
        self.air.always("one_terminal_event", first, who, || format!("{} ended twice", plan.name));
        self.moved(stream, |progress| {
            progress.sides[side].outcome.get_or_insert(outcome);
        });
    }

    /// What the hub of this name has to do, if it runs.
    pub(super) fn stats(&self, hub: &str) -> Option<HubStats> {
        self.hubs.borrow().get(hub)?.hub.upgrade().map(|hub| hub.stats())
    }
}

/// The sides of a stream.
pub(super) const SERVICE: usize = 0;
pub(super) const DEVICE: usize = 1;

impl Progress {
    /// Whether nothing more will come of it.
    pub(super) fn is_over(&self) -> bool {
        let [service, device] = &self.sides;
        service.outcome.is_some() && (device.outcome.is_some() || !device.begun)
    }

    /// Whether it went as planned.
    pub(super) fn is_done(&self) -> bool {
        self.sides.iter().all(|side| matches!(side.outcome, Some(Ok(()))))
    }
}
