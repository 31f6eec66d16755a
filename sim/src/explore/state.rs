//! A state of the walk, and what can happen in it.
//!
//! In: an action. Out: the next state, which is broken if a property does not hold in it. Keeps: two real sessions with
//! their model, the applications, and what the scope still allows.

use std::hash::{Hash, Hasher};

use towline_engine::{Side, Timer};
use towline_model::{BOTH, Checked, Digest, Op};

use crate::explore::broken::{Broken, catch};
use crate::explore::program::{Applications, Deed, Hands};
use crate::explore::reductions;
use crate::explore::scope::Case;

/// A state.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) checked: Checked,
    pub(crate) applications: Applications,
    /// How many more times the pipe may be lost or left.
    pub(crate) losses: u8,
    /// How many more timers may fire that are not those of acknowledgements.
    pub(crate) timers: u8,
    /// The property that does not hold. Nothing happens after that.
    pub(crate) broken: Option<Broken>,
    /// Equal for states that will go on alike.
    digest: u128,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u128(self.digest);
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// An application does something.
    Do(Deed),
    /// An end writes a record with everything that it has to say.
    Transmit(Side),
    /// So many bytes arrive that this side wrote: a record, or a part of one.
    Deliver(Side, u16),
    /// The server writes to the pipe that the client has left.
    TransmitOlder,
    /// So many bytes that the client wrote to an older pipe arrive.
    DeliverOlder(u8, u16),
    /// The next timer fires.
    Fire(Side),
    /// The pipe is lost, perhaps inside the records under way: the ends still get so many bytes, and perhaps notice.
    Cut { to_server: u16, to_client: u16, client_notices: bool, server_notices: bool },
    /// The client opens another one.
    Reconnect,
    /// The client opens another one, while bytes of the last one are under way.
    Overtake,
}

/// One state in so many is settled before its time. All that nothing follows are, and every state leads to some of
/// those; so this only looks for ways that never end.
const SETTLED: u128 = 64;

/// More than any record.
const WHOLE: u16 = 1 << 14;

impl Action {
    /// At which end it happens, and changes only that and what it writes or takes; `None` for both.
    pub(crate) fn side(self, case: &Case) -> Option<Side> {
        match self {
            Self::Do(deed) => Some(deed.side(&case.programs)),
            Self::Transmit(side) | Self::Fire(side) => Some(side),
            Self::Deliver(side, _) => Some(side.peer()),
            Self::TransmitOlder | Self::DeliverOlder(..) => Some(Side::Server),
            Self::Reconnect | Self::Overtake | Self::Cut { .. } => None,
        }
    }
}

impl State {
    pub(crate) fn new(case: &Case) -> Self {
        let mut state = Self {
            checked: Checked::new(&case.config(), case.is_resumable),
            applications: Applications::new(&case.programs),
            losses: case.losses,
            timers: case.timers,
            broken: None,
            digest: 0,
        };
        state.checked.thorough = case.is_thorough;
        state.digest = state.compute_digest();
        state
    }

    /// The state after `action`.
    pub(crate) fn after(&self, case: &Case, action: Action) -> Self {
        let mut next = self.clone();
        let outcome = catch(|| {
            next.act(case, action, None);
            next.digest = next.compute_digest();
            next.check(case);
        });
        match outcome {
            Ok(()) => {}
            Err(broken) => {
                next.digest = self.digest ^ broken.digest();
                next.broken = Some(broken);
            }
        }
        next
    }

    /// Does `action`, and writes its operations to `log`.
    pub(crate) fn act(&mut self, case: &Case, action: Action, log: Option<&mut Vec<Op>>) {
        let op = match action {
            Action::Do(deed) => {
                let mut hands = Hands { checked: &mut self.checked, log };
                return self.applications.act(&case.programs, deed, &mut hands);
            }
            Action::Transmit(side) => Op::Transmit(side, WHOLE),
            Action::Deliver(side, count) => Op::Deliver(side, count),
            Action::TransmitOlder => Op::TransmitOlder(WHOLE),
            Action::DeliverOlder(older, count) => Op::DeliverOlder(older, count),
            Action::Fire(side) => {
                if !self.acknowledges(side) {
                    self.timers -= 1;
                }
                Op::Fire(side)
            }
            Action::Cut { to_server, to_client, client_notices, server_notices } => {
                self.losses -= 1;
                let mut hands = Hands { checked: &mut self.checked, log };
                for (side, count) in [(Side::Client, to_server), (Side::Server, to_client)] {
                    if count > 0 {
                        hands.apply(&mut self.applications, Op::Deliver(side, count));
                    }
                }
                return hands.apply(&mut self.applications, Op::Cut { client_notices, server_notices });
            }
            Action::Reconnect => Op::Reconnect,
            Action::Overtake => {
                if !self.checked.world.is_lost() {
                    self.losses -= 1;
                }
                Op::Overtake
            }
        };
        let mut hands = Hands { checked: &mut self.checked, log };
        hands.apply(&mut self.applications, op);
    }

    /// Checks what must hold when nothing can happen any more. And `eventual`, of some other states as well: once the
    /// pipe stays up, everything gets through.
    fn check(&self, case: &Case) {
        let is_terminal = self.is_quiet() && self.actions(case).is_empty();
        if is_terminal && case.is_confluent {
            let is_done = self.applications.have_finished(&case.programs);
            assert!(is_done, "retry_converges: the applications have not come to their end");
        }
        if is_terminal || self.digest.is_multiple_of(SETTLED) {
            self.checked.clone().settle();
        }
    }

    /// Whether this property does not hold in it.
    pub(crate) fn breaks(&self, property: &str) -> bool {
        self.broken.as_ref().is_some_and(|broken| broken.property == property)
    }

    /// What can happen.
    pub(crate) fn actions(&self, case: &Case) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.broken.is_none() {
            self.application_actions(case, &mut actions);
            self.pipe_actions(case, &mut actions);
            reductions::reduce(self, case, &mut actions);
        }
        actions
    }

    fn application_actions(&self, case: &Case, actions: &mut Vec<Action>) {
        let mut deeds = Vec::new();
        self.applications.deeds(&case.programs, &self.checked, &mut deeds);
        actions.extend(deeds.into_iter().map(Action::Do));
    }

    fn pipe_actions(&self, case: &Case, actions: &mut Vec<Action>) {
        let world = &self.checked.world;
        for side in BOTH {
            if world.wants_transmit(side) {
                actions.push(Action::Transmit(side));
            }
            if world.next_record(side) > 0 {
                if reductions::parts_matter(self, case) {
                    actions.extend(world.cuts(side).into_iter().map(|cut| Action::Deliver(side, short(cut))));
                }
                actions.push(Action::Deliver(side, WHOLE));
            }
            let timer = world.peek(side).poll_timeout().map(|(_, timer)| timer);
            let may_fire =
                |timer| timer == Timer::Ack || self.timers > 0 && case.fires.contains(&(side, timer));
            if timer.is_some_and(may_fire) {
                actions.push(Action::Fire(side));
            }
        }
        for older in 0..world.older() {
            if world.is_under_way_on(older) {
                let number = u8::try_from(older).expect("there are few");
                if case.parts {
                    let cuts = world.cuts_on(older).into_iter();
                    actions.extend(cuts.map(|cut| Action::DeliverOlder(number, short(cut))));
                }
                actions.push(Action::DeliverOlder(number, WHOLE));
            }
        }
        if world.wants_transmit_older() {
            actions.push(Action::TransmitOlder);
        }
        self.losses(case, actions);
    }

    fn losses(&self, case: &Case, actions: &mut Vec<Action>) {
        let world = &self.checked.world;
        if !case.is_resumable || world.peek(Side::Client).is_closed() {
            return;
        }
        if case.overtakes && (self.losses > 0 || world.is_lost()) {
            actions.push(Action::Overtake);
        } else if world.is_lost() {
            actions.push(Action::Reconnect);
        } else if self.losses > 0 {
            self.cuts(case, actions);
        }
    }

    fn cuts(&self, case: &Case, actions: &mut Vec<Action>) {
        let inside = |side| {
            let cuts = if case.cuts_inside { self.checked.world.cuts(side) } else { Vec::new() };
            std::iter::once(0).chain(cuts.into_iter().map(short)).collect::<Vec<_>>()
        };
        let (to_server, to_client) = (inside(Side::Client), inside(Side::Server));
        for &(client_notices, server_notices) in case.notices {
            for &to_server in &to_server {
                for &to_client in &to_client {
                    actions.push(Action::Cut { to_server, to_client, client_notices, server_notices });
                }
            }
        }
    }

    /// Whether neither end has anything to say, and nothing is under way.
    fn is_quiet(&self) -> bool {
        let world = &self.checked.world;
        world.connected
            && BOTH.iter().all(|&side| !world.wants_transmit(side) && world.next_record(side) == 0)
            || BOTH.iter().all(|&side| world.peek(side).is_closed())
    }

    /// Whether the next timer of `side` is that of its acknowledgements.
    fn acknowledges(&self, side: Side) -> bool {
        matches!(self.checked.world.peek(side).poll_timeout(), Some((_, Timer::Ack)))
    }

    fn compute_digest(&mut self) -> u128 {
        let mut digest = Digest::default();
        digest.add(self.checked.world.fingerprint());
        self.checked.model.hash(&mut digest);
        self.applications.hash(&mut digest);
        digest.add(u128::from(self.losses) << 8 | u128::from(self.timers));
        digest.result()
    }
}

fn short(count: usize) -> u16 {
    u16::try_from(count).expect("records are short")
}
