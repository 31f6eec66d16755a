//! What the applications do: small machines, of which every path is walked.
//!
//! In: what the engine tells. Out: operations. Keeps: how far each machine has come, and what it has been told. An
//! application does what the documentation says: it reads until there is nothing left and goes on when it hears of
//! more; it writes until there is no room and goes on when it hears that there is. So a wake-up that is lost is a
//! state from which nothing goes on (`no_stall`).

use std::collections::BTreeSet;

use towline_engine::{Dir, Event, Side, StreamId};
use towline_model::{Checked, Op};

/// A machine: what an application does on one stream, or with the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) side: Side,
    /// `None`: the session.
    pub(crate) stream: Option<StreamId>,
    /// It starts at 0, and stands still where no step leads away.
    pub(crate) steps: &'static [Step],
}

/// From a place to another, by doing something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step(pub(crate) u8, pub(crate) Verb, pub(crate) u8);

/// What an application can do by itself. It accepts and reads whenever it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Open(Dir),
    Write(u8),
    Finish,
    Reset,
    ResetWhenSent,
    Stop,
    Release,
    Drain,
    Close,
}

/// The code of everything that is reset or stopped.
const CODE: u8 = 7;

/// Longer than anything that is read.
const ALL: u16 = u16::MAX;

/// How far the applications have come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Applications {
    /// The place of each program.
    at: Vec<u8>,
    /// What is left of the write that the program is at.
    left: Vec<u8>,
    /// Which writers have found no room, and have not heard of any.
    blocked: BTreeSet<(Side, StreamId)>,
    /// Which readers have heard of something, and have not read to its end.
    readable: BTreeSet<(Side, StreamId)>,
    /// Which ends have heard of streams to accept.
    incoming: BTreeSet<(Side, Dir)>,
    /// Which ends may not open, and have not heard that they may.
    closed_door: BTreeSet<(Side, Dir)>,
    /// Which ends have heard that the peer takes no more streams.
    turned_away: BTreeSet<Side>,
}

/// What an application does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// This program takes this step.
    Step { program: usize, step: usize },
    /// It accepts all that there are, and reads what has come.
    Accept(Side, Dir),
    /// It reads all there is.
    Read(Side, StreamId),
}

impl Deed {
    /// At which end.
    pub(crate) fn side(self, programs: &[Program]) -> Side {
        match self {
            Self::Step { program, .. } => programs[program].side,
            Self::Accept(side, _) | Self::Read(side, _) => side,
        }
    }
}

impl Applications {
    pub(crate) fn new(programs: &[Program]) -> Self {
        Self { at: vec![0; programs.len()], left: vec![0; programs.len()], ..Self::default() }
    }

    /// What the applications can do now.
    pub(crate) fn deeds(&self, programs: &[Program], checked: &Checked, deeds: &mut Vec<Deed>) {
        for (number, program) in programs.iter().enumerate() {
            for (index, step) in program.steps.iter().enumerate() {
                if step.0 == self.at[number] && self.may(program, step.1, checked) {
                    deeds.push(Deed::Step { program: number, step: index });
                }
            }
        }
        deeds.extend(self.incoming.iter().map(|&(side, dir)| Deed::Accept(side, dir)));
        deeds.extend(self.readable.iter().map(|&(side, id)| Deed::Read(side, id)));
    }

    fn may(&self, program: &Program, verb: Verb, checked: &Checked) -> bool {
        let side = program.side;
        let is_open = !checked.model.is_over(side) && !checked.model.is_closing(side);
        let Some(id) = program.stream else {
            return is_open && !matches!(verb, Verb::Open(dir) if self.may_not_open(side, dir));
        };
        if !checked.model.held(side).contains(&id) {
            return false;
        }
        let (sends, receives) = (checked.model.seen(id, side), checked.model.seen(id, side.peer()));
        match verb {
            Verb::Write(_) => is_open && !sends.has_ended() && !self.blocked.contains(&(side, id)),
            Verb::Finish | Verb::ResetWhenSent => is_open && !sends.has_ended(),
            Verb::Reset => is_open && sends.reset.is_none(),
            Verb::Stop => receives.stopped.is_none() && !receives.saw_end && !checked.model.is_over(side),
            Verb::Release => true,
            Verb::Open(_) | Verb::Drain | Verb::Close => is_open,
        }
    }

    fn may_not_open(&self, side: Side, dir: Dir) -> bool {
        self.closed_door.contains(&(side, dir)) || self.turned_away.contains(&side)
    }

    /// Whether every program has come to where no step leads away.
    pub(crate) fn have_finished(&self, programs: &[Program]) -> bool {
        let is_done = |(program, at): (&Program, &u8)| program.steps.iter().all(|step| step.0 != *at);
        programs.iter().zip(&self.at).all(is_done)
    }

    /// Does it.
    pub(crate) fn act(&mut self, programs: &[Program], deed: Deed, hands: &mut Hands<'_>) {
        match deed {
            Deed::Step { program, step } => self.step(programs, program, step, hands),
            Deed::Accept(side, dir) => {
                self.incoming.remove(&(side, dir));
                loop {
                    let before = hands.checked.model.held(side).len();
                    hands.apply(self, Op::Accept(side, dir));
                    let held = hands.checked.model.held(side);
                    if held.len() == before {
                        break;
                    }
                    let id = held[before];
                    self.read(side, id, hands);
                }
            }
            Deed::Read(side, id) => self.read(side, id, hands),
        }
    }

    fn step(&mut self, programs: &[Program], number: usize, step: usize, hands: &mut Hands<'_>) {
        let Program { side, stream, steps } = programs[number];
        let Step(_, verb, to) = steps[step];
        let place = |hands: &Hands<'_>| place(hands.checked, side, stream.expect("a stream's verb"));
        match verb {
            Verb::Open(dir) => {
                let before = hands.checked.model.held(side).len();
                hands.apply(self, Op::Open(side, dir));
                if hands.checked.model.held(side).len() == before {
                    self.closed_door.insert((side, dir));
                    return; // again, when there is news
                }
                let id = hands.checked.model.held(side)[before];
                if dir == Dir::Bi {
                    self.read(side, id, hands); // to hear when there is something
                }
            }
            Verb::Write(count) => {
                let count = if self.left[number] > 0 { self.left[number] } else { count };
                self.left[number] = self.write(side, stream.expect("a stream's verb"), count, hands);
                if self.left[number] > 0 {
                    return; // goes on when there is room
                }
            }
            Verb::Finish => hands.apply(self, Op::Finish(side, place(hands))),
            Verb::Reset => hands.apply(self, Op::Reset(side, place(hands), CODE)),
            Verb::ResetWhenSent => hands.apply(self, Op::ResetWhenSent(side, place(hands), CODE)),
            Verb::Stop => {
                hands.apply(self, Op::Stop(side, place(hands), CODE));
                self.readable.remove(&(side, stream.expect("a stream's verb")));
            }
            Verb::Release => {
                let id = stream.expect("a stream's verb");
                hands.apply(self, Op::Release(side, place(hands)));
                self.readable.remove(&(side, id));
                self.blocked.remove(&(side, id));
            }
            Verb::Drain => hands.apply(self, Op::Drain(side)),
            Verb::Close => hands.apply(self, Op::Close(side)),
        }
        (self.at[number], self.left[number]) = (to, 0);
    }

    /// Writes. Returns how much of it there was no room for.
    fn write(&mut self, side: Side, id: StreamId, count: u8, hands: &mut Hands<'_>) -> u8 {
        let before = hands.checked.model.seen(id, side).written;
        // Before the news of room come, which may be at once.
        self.blocked.insert((side, id));
        hands.apply(self, Op::Write(side, place(hands.checked, side, id), count.into()));
        let half = hands.checked.model.seen(id, side);
        let accepted = u8::try_from(half.written - before).expect("no more than was given");
        if accepted == count || half.has_ended() {
            self.blocked.remove(&(side, id));
            return 0;
        }
        count - accepted
    }

    /// Reads until there is nothing left.
    fn read(&mut self, side: Side, id: StreamId, hands: &mut Hands<'_>) {
        self.readable.remove(&(side, id));
        loop {
            let before = hands.checked.model.seen(id, side.peer());
            hands.apply(self, Op::Read(side, place(hands.checked, side, id), ALL));
            let after = hands.checked.model.seen(id, side.peer());
            if after.read == before.read {
                return;
            }
        }
    }

    fn hear(&mut self, news: &[(Side, Event)]) {
        for &(side, ref event) in news {
            match *event {
                Event::Readable(id) => _ = self.readable.insert((side, id)),
                Event::Writable(id) => _ = self.blocked.remove(&(side, id)),
                Event::Incoming(dir) => _ = self.incoming.insert((side, dir)),
                Event::Draining { .. } => _ = self.turned_away.insert(side),
                Event::Openable(dir) => _ = self.closed_door.remove(&(side, dir)),
                _ => {}
            }
        }
    }
}

/// Which of the streams that `side` has `id` is.
fn place(checked: &Checked, side: Side, id: StreamId) -> u8 {
    let place = checked.model.held(side).iter().position(|&held| held == id);
    u8::try_from(place.expect("the application has it")).expect("there are few")
}

/// What does the operations, and writes them down if somebody wants to read them.
#[derive(Debug)]
pub(crate) struct Hands<'a> {
    pub(crate) checked: &'a mut Checked,
    pub(crate) log: Option<&'a mut Vec<Op>>,
}

impl Hands<'_> {
    pub(crate) fn apply(&mut self, applications: &mut Applications, op: Op) {
        if let Some(log) = &mut self.log {
            log.push(op);
        }
        self.checked.apply(op);
        applications.hear(&self.checked.news);
    }
}
