//! The scopes: which applications, which windows, how many pipes.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use towline_engine::{Config, Dir, Side, StreamId, Timer};

use crate::explore::program::{Program, Step, Verb};

/// What is walked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Two streams of two bytes, in windows that are smaller; and streams that follow each other in one place.
    Delivery,
    /// A stream of four bytes over three pipes, lost after any record and inside one.
    Resume,
    /// Every way to end: FIN, RESET, STOP, release, close and drain, over two pipes.
    Close,
    /// Pipes that contend: bytes of the older one still arrive, at either end.
    Race,
    /// Two streams of four bytes over three pipes: too much to exhaust, so it is bounded.
    Full,
    /// All but `full`.
    All,
}

/// What is walked: two sessions, applications, and what may happen to the pipes between them.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where it belongs.
    pub scope: Scope,
    /// What is special about it.
    pub name: &'static str,
    pub(crate) settings: &'static [Setting],
    pub(crate) is_resumable: bool,
    pub(crate) programs: Vec<Program>,
    /// How many times the pipe may be lost, or left.
    pub(crate) losses: u8,
    /// Whether the client leaves a pipe while its bytes can still arrive, rather than that it is lost with them.
    pub(crate) overtakes: bool,
    /// Whether to look at what costs more after each step as well.
    pub(crate) is_thorough: bool,
    /// How many timers may fire besides those of acknowledgements, and which.
    pub(crate) timers: u8,
    pub(crate) fires: &'static [(Side, Timer)],
    /// Whether records arrive in part as well.
    pub(crate) parts: bool,
    /// Whether the pipe is lost inside records as well.
    pub(crate) cuts_inside: bool,
    /// Who notices that a pipe is lost: the client, the server.
    pub(crate) notices: &'static [(bool, bool)],
    /// Whether all ways lead to the same end: every application has come to its own.
    pub(crate) is_confluent: bool,
}

/// What differs from the default configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Setting {
    StreamWindow(u64),
    SessionWindow(u64),
    SendBuffer(u64),
    MaxStreamsBidi(u64),
    OptimisticResend(bool),
}

impl Setting {
    pub(crate) fn apply(self, config: &mut Config) {
        match self {
            Self::StreamWindow(bytes) => config.stream_window = bytes,
            Self::SessionWindow(bytes) => config.session_window = bytes,
            Self::SendBuffer(bytes) => config.send_buffer = bytes,
            Self::MaxStreamsBidi(count) => config.max_streams_bidi = count,
            Self::OptimisticResend(is_wanted) => config.optimistic_resend = is_wanted,
        }
    }
}

const CLIENT: Side = Side::Client;
const SERVER: Side = Side::Server;

const fn stream(opener: Side, dir: Dir, index: u64) -> Option<StreamId> {
    StreamId::new(opener, dir, index)
}

const ONE: Option<StreamId> = stream(CLIENT, Dir::Bi, 0);
const TWO: Option<StreamId> = stream(CLIENT, Dir::Bi, 1);
const TO_SERVER: Option<StreamId> = stream(CLIENT, Dir::Uni, 0);
const TO_CLIENT: Option<StreamId> = stream(SERVER, Dir::Uni, 0);

const OPEN_ONE: &[Step] = &[Step(0, Verb::Open(Dir::Bi), 1)];
const OPEN_TWO: &[Step] = &[Step(0, Verb::Open(Dir::Bi), 1), Step(1, Verb::Open(Dir::Bi), 2)];
const OPEN_UNI: &[Step] = &[Step(0, Verb::Open(Dir::Uni), 1)];

const FINISH: &[Step] = &[Step(0, Verb::Finish, 1)];
const ONE_BYTE: &[Step] = &[Step(0, Verb::Write(1), 1), Step(1, Verb::Finish, 2)];
const TWO_BYTES: &[Step] =
    &[Step(0, Verb::Write(1), 1), Step(1, Verb::Write(1), 2), Step(2, Verb::Finish, 3)];
const FOUR_BYTES: &[Step] = &[
    Step(0, Verb::Write(1), 1),
    Step(1, Verb::Write(1), 2),
    Step(2, Verb::Write(1), 3),
    Step(3, Verb::Write(1), 4),
    Step(4, Verb::Finish, 5),
];

/// Every end of a half that carries a byte, or none.
const ANY_END: &[Step] = &[
    Step(0, Verb::Write(1), 1),
    Step(0, Verb::Finish, 2),
    Step(0, Verb::Reset, 3),
    Step(1, Verb::Finish, 2),
    Step(1, Verb::Reset, 3),
    Step(1, Verb::ResetWhenSent, 3),
    Step(2, Verb::Reset, 3),
];
/// The same without the rarer ones.
const FIN_OR_RESET: &[Step] = &[
    Step(0, Verb::Write(1), 1),
    Step(0, Verb::Finish, 2),
    Step(0, Verb::Reset, 3),
    Step(1, Verb::Finish, 2),
    Step(1, Verb::Reset, 3),
];
/// Every end of a half that carries nothing.
const EMPTY_END: &[Step] = &[Step(0, Verb::Finish, 1), Step(0, Verb::Reset, 2), Step(1, Verb::Reset, 2)];
const BYTE_AND_END: &[Step] =
    &[Step(0, Verb::Write(1), 1), Step(1, Verb::Finish, 2), Step(1, Verb::Reset, 2)];
const STOP: &[Step] = &[Step(0, Verb::Stop, 1)];
/// A stream's whole life, up to its release.
const LIFE: &[Step] = &[
    Step(0, Verb::Write(1), 1),
    Step(0, Verb::Reset, 2),
    Step(1, Verb::Finish, 2),
    Step(1, Verb::Reset, 2),
    Step(2, Verb::Release, 3),
];
const ANSWER: &[Step] = &[
    Step(0, Verb::Finish, 1),
    Step(0, Verb::Reset, 1),
    Step(0, Verb::Release, 2),
    Step(1, Verb::Release, 2),
];
const SHORT_LIFE: &[Step] = &[
    Step(0, Verb::Write(1), 1),
    Step(1, Verb::Finish, 2),
    Step(1, Verb::Release, 3),
    Step(2, Verb::Release, 3),
];
const RELEASE: &[Step] = &[Step(0, Verb::Release, 1)];
const CLOSE: &[Step] = &[Step(0, Verb::Close, 1)];
const DRAIN: &[Step] = &[Step(0, Verb::Drain, 1)];

const BOTH_NOTICE: &[(bool, bool)] = &[(true, true)];
const ANYBODY_NOTICES: &[(bool, bool)] = &[(true, true), (true, false), (false, true), (false, false)];

const fn program(side: Side, stream: Option<StreamId>, steps: &'static [Step]) -> Program {
    Program { side, stream, steps }
}

impl Scope {
    /// What belongs to it.
    pub fn cases(self) -> Vec<Case> {
        match self {
            Self::Delivery => delivery(),
            Self::Resume => resume(),
            Self::Close => close(),
            Self::Race => race(),
            Self::Full => vec![full()],
            Self::All => [delivery(), resume(), close(), race()].concat(),
        }
    }
}

impl Case {
    /// Two sessions that resume over as many pipes as it takes, and nothing else that could happen.
    fn new(scope: Scope, name: &'static str, programs: &[Program]) -> Self {
        Self {
            scope,
            name,
            settings: &[],
            is_resumable: true,
            programs: programs.to_vec(),
            losses: 0,
            overtakes: false,
            is_thorough: false,
            timers: 0,
            fires: &[],
            parts: false,
            cuts_inside: false,
            notices: BOTH_NOTICE,
            is_confluent: true,
        }
    }

    /// What both ends want and allow.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        // Nothing happens because of the time alone.
        config.keep_alive = None;
        config.grace = Duration::from_secs(1 << 20);
        self.settings.iter().for_each(|setting| setting.apply(&mut config));
        config
    }
}

fn delivery() -> Vec<Case> {
    let one_way = [
        program(CLIENT, None, OPEN_TWO),
        program(CLIENT, ONE, TWO_BYTES),
        program(CLIENT, TWO, TWO_BYTES),
        program(SERVER, ONE, FINISH),
        program(SERVER, TWO, FINISH),
    ];
    let both_ways = [
        program(CLIENT, None, OPEN_TWO),
        program(CLIENT, ONE, TWO_BYTES),
        program(CLIENT, TWO, FINISH),
        program(SERVER, ONE, FINISH),
        program(SERVER, TWO, TWO_BYTES),
    ];
    let one_place = [
        program(CLIENT, None, OPEN_TWO),
        program(CLIENT, ONE, LIFE),
        program(CLIENT, TWO, LIFE),
        program(SERVER, ONE, ANSWER),
        program(SERVER, TWO, ANSWER),
    ];
    let base = Case { is_resumable: false, parts: true, ..Case::new(Scope::Delivery, "", &[]) };
    let narrow = &[Setting::StreamWindow(1), Setting::SessionWindow(2)];
    vec![
        Case { name: "one way", settings: narrow, programs: one_way.to_vec(), ..base.clone() },
        Case { name: "both ways", settings: narrow, programs: both_ways.to_vec(), ..base.clone() },
        Case {
            name: "one place",
            settings: &[Setting::MaxStreamsBidi(1)],
            programs: one_place.to_vec(),
            is_confluent: false,
            ..base
        },
    ]
}

fn resume() -> Vec<Case> {
    let programs =
        [program(CLIENT, None, OPEN_ONE), program(CLIENT, ONE, FOUR_BYTES), program(SERVER, ONE, FINISH)];
    // Less than is written, so that the writer waits for acknowledgements.
    let base = Case { settings: &[Setting::SendBuffer(3)], ..Case::new(Scope::Resume, "", &programs) };
    let in_part = Case { name: "in part", losses: 1, parts: true, notices: ANYBODY_NOTICES, ..base.clone() };
    let patient = &[Setting::SendBuffer(3), Setting::OptimisticResend(false)];
    vec![
        Case { name: "three pipes", losses: 2, cuts_inside: true, ..base.clone() },
        in_part,
        Case { name: "no optimism", settings: patient, losses: 2, cuts_inside: true, ..base },
    ]
}

fn close() -> Vec<Case> {
    let case = |name, programs: &[Program]| Case {
        losses: 1,
        is_confluent: false,
        ..Case::new(Scope::Close, name, programs)
    };
    let one_stream = [
        program(CLIENT, None, OPEN_ONE),
        program(CLIENT, ONE, ANY_END),
        program(CLIENT, ONE, STOP),
        program(SERVER, ONE, EMPTY_END),
        program(SERVER, ONE, STOP),
    ];
    let two_streams = [
        program(CLIENT, None, OPEN_UNI),
        program(SERVER, None, OPEN_UNI),
        program(CLIENT, TO_SERVER, FIN_OR_RESET),
        program(SERVER, TO_SERVER, STOP),
        program(SERVER, TO_CLIENT, FIN_OR_RESET),
        program(CLIENT, TO_CLIENT, STOP),
    ];
    let one_place = [
        program(CLIENT, None, OPEN_TWO),
        program(CLIENT, ONE, SHORT_LIFE),
        program(CLIENT, TWO, RELEASE),
        program(SERVER, ONE, RELEASE),
        program(SERVER, TWO, RELEASE),
    ];
    let session = [
        program(CLIENT, None, OPEN_ONE),
        program(CLIENT, ONE, BYTE_AND_END),
        program(SERVER, ONE, BYTE_AND_END),
        program(CLIENT, None, CLOSE),
        program(SERVER, None, CLOSE),
    ];
    let drain = [
        program(CLIENT, None, OPEN_TWO),
        program(CLIENT, ONE, BYTE_AND_END),
        program(CLIENT, TWO, BYTE_AND_END),
        program(SERVER, None, DRAIN),
    ];
    vec![
        Case { is_thorough: true, ..case("one stream", &one_stream) },
        case("two streams", &two_streams),
        Case { settings: &[Setting::MaxStreamsBidi(1)], ..case("one place", &one_place) },
        Case {
            timers: 1,
            fires: &[
                (CLIENT, Timer::Grace),
                (SERVER, Timer::Grace),
                (CLIENT, Timer::Close),
                (SERVER, Timer::Close),
            ],
            ..case("session", &session)
        },
        Case { timers: 1, fires: &[(SERVER, Timer::Drain)], ..case("drain", &drain) },
    ]
}

fn race() -> Vec<Case> {
    let programs = |writes| {
        [program(CLIENT, None, OPEN_ONE), program(CLIENT, ONE, writes), program(SERVER, ONE, FINISH)]
    };
    let case = |name, writes| Case {
        losses: 1,
        overtakes: true,
        is_thorough: true,
        ..Case::new(Scope::Race, name, &programs(writes))
    };
    vec![
        Case { parts: true, ..case("two pipes", TWO_BYTES) },
        Case { losses: 2, ..case("three pipes", ONE_BYTE) },
        Case {
            timers: 1,
            fires: &[(CLIENT, Timer::Idle), (SERVER, Timer::Idle)],
            ..case("silent pipes", ONE_BYTE)
        },
    ]
}

fn full() -> Case {
    let programs = [
        program(CLIENT, None, OPEN_TWO),
        program(CLIENT, ONE, FOUR_BYTES),
        program(CLIENT, TWO, FOUR_BYTES),
        program(SERVER, ONE, FINISH),
        program(SERVER, TWO, FINISH),
    ];
    Case {
        settings: &[Setting::StreamWindow(2), Setting::SessionWindow(6), Setting::SendBuffer(6)],
        losses: 2,
        cuts_inside: true,
        notices: ANYBODY_NOTICES,
        ..Case::new(Scope::Full, "2 x 4 x 3", &programs)
    }
}
