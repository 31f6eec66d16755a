//! The scopes: which applications, which windows, how many pipes.

use std::time::Duration;

use towline_engine::{Config, Dir, Side, StreamId, Timer};

use crate::explore::program::{Program, Step, Verb};

/// What is walked: two sessions, applications, and what may happen to the pipes between them.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    pub(crate) is_resumable: bool,
    pub(crate) programs: Vec<Program>,
    /// How many times the pipe may be lost, or left.
    pub(crate) losses: u8,
    /// Whether the client leaves a pipe while its bytes can still arrive, rather than that it is lost with them.
    pub(crate) overtakes: bool,
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

fn stream(opener: Side, dir: Dir, index: u64) -> Option<StreamId> {
    Some(StreamId::new(opener, dir, index).expect("a small number"))
}

const CLIENT: Side = Side::Client;
const SERVER: Side = Side::Server;

/// Opens two.
const OPEN_ONE: &[Step] = &[Step(0, Verb::Open(Dir::Bi), 1)];
const OPEN_TWO: &[Step] = &[Step(0, Verb::Open(Dir::Bi), 1), Step(1, Verb::Open(Dir::Bi), 2)];
/// Writes byte by byte, and finishes.
const TWO_BYTES: &[Step] =
    &[Step(0, Verb::Write(1), 1), Step(1, Verb::Write(1), 2), Step(2, Verb::Finish, 3)];
const FOUR_BYTES: &[Step] = &[
    Step(0, Verb::Write(1), 1),
    Step(1, Verb::Write(1), 2),
    Step(2, Verb::Write(1), 3),
    Step(3, Verb::Write(1), 4),
    Step(4, Verb::Finish, 5),
];
const FINISH: &[Step] = &[Step(0, Verb::Finish, 1)];

fn config() -> Config {
    let mut config = Config::default();
    config.keep_alive = None;
    config.grace = Duration::from_secs(1 << 20);
    config
}

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        let base = Self {
            name: "",
            config: config(),
            is_resumable: true,
            programs: Vec::new(),
            losses: 0,
            overtakes: false,
            timers: 0,
            fires: &[],
            parts: false,
            cuts_inside: false,
            notices: &[(true, true)],
            is_confluent: true,
        };
        let one = stream(CLIENT, Dir::Bi, 0);
        let two = stream(CLIENT, Dir::Bi, 1);
        let program = |side, stream, steps| Program { side, stream, steps };
        let mut small = config();
        (small.stream_window, small.session_window) = (1, 2);
        let mut tight = config();
        tight.send_buffer = 3;
        let mut narrow = config();
        narrow.max_streams_bidi = 1;
        let slots: &[Step] = &[Step(0, Verb::Open(Dir::Bi), 1), Step(1, Verb::Open(Dir::Bi), 2)];
        let life: &[Step] = &[
            Step(0, Verb::Write(1), 1),
            Step(0, Verb::Reset, 2),
            Step(1, Verb::Finish, 2),
            Step(1, Verb::Reset, 2),
            Step(2, Verb::Release, 3),
        ];
        let answer: &[Step] = &[
            Step(0, Verb::Finish, 1),
            Step(0, Verb::Reset, 1),
            Step(0, Verb::Release, 2),
            Step(1, Verb::Release, 2),
        ];
        let ends: &[Step] = &[
            Step(0, Verb::Write(1), 1),
            Step(0, Verb::Finish, 2),
            Step(0, Verb::Reset, 3),
            Step(1, Verb::Finish, 2),
            Step(1, Verb::Reset, 3),
            Step(1, Verb::ResetWhenSent, 3),
            Step(2, Verb::Reset, 3),
        ];
        let ends_small: &[Step] =
            &[Step(0, Verb::Finish, 1), Step(0, Verb::Reset, 2), Step(1, Verb::Reset, 2)];
        let ends3: &[Step] = &[
            Step(0, Verb::Write(1), 1),
            Step(0, Verb::Finish, 2),
            Step(0, Verb::Reset, 3),
            Step(1, Verb::Finish, 2),
            Step(1, Verb::Reset, 3),
        ];
        let life3: &[Step] = &[Step(0, Verb::Finish, 1), Step(0, Verb::Reset, 1), Step(1, Verb::Release, 2)];
        let answer3: &[Step] = &[Step(0, Verb::Release, 1)];
        let stops: &[Step] = &[Step(0, Verb::Stop, 1)];
        let closes: &[Step] = &[Step(0, Verb::Close, 1)];
        let drains: &[Step] = &[Step(0, Verb::Drain, 1)];
        let write_end: &[Step] =
            &[Step(0, Verb::Write(1), 1), Step(1, Verb::Finish, 2), Step(1, Verb::Reset, 2)];
        vec![
            Self {
                name: "delivery",
                config: small,
                is_resumable: false,
                programs: vec![
                    program(CLIENT, None, OPEN_TWO),
                    program(CLIENT, one, TWO_BYTES),
                    program(CLIENT, two, TWO_BYTES),
                    program(SERVER, one, FINISH),
                    program(SERVER, two, FINISH),
                ],
                parts: true,
                ..base.clone()
            },
            Self {
                name: "slots",
                config: narrow.clone(),
                is_resumable: false,
                programs: vec![
                    program(CLIENT, None, slots),
                    program(CLIENT, one, life),
                    program(CLIENT, two, life),
                    program(SERVER, one, answer),
                    program(SERVER, two, answer),
                ],
                parts: true,
                is_confluent: false,
                ..base.clone()
            },
            Self {
                name: "resume",
                config: tight.clone(),
                programs: vec![
                    program(CLIENT, None, OPEN_ONE),
                    program(CLIENT, one, FOUR_BYTES),
                    program(SERVER, one, FINISH),
                ],
                losses: 2,
                cuts_inside: true,
                ..base.clone()
            },
            Self {
                name: "resume-parts",
                config: tight.clone(),
                programs: vec![
                    program(CLIENT, None, OPEN_ONE),
                    program(CLIENT, one, FOUR_BYTES),
                    program(SERVER, one, FINISH),
                ],
                losses: 1,
                parts: true,
                notices: &[(true, true), (true, false), (false, true), (false, false)],
                ..base.clone()
            },
            Self {
                name: "close-streams",
                programs: vec![
                    program(CLIENT, None, OPEN_ONE),
                    program(CLIENT, one, ends),
                    program(CLIENT, one, stops),
                    program(SERVER, one, ends_small),
                    program(SERVER, one, stops),
                ],
                losses: 1,
                is_confluent: false,
                ..base.clone()
            },
            Self {
                name: "close-two",
                programs: vec![
                    program(CLIENT, None, &[Step(0, Verb::Open(Dir::Uni), 1)]),
                    program(SERVER, None, &[Step(0, Verb::Open(Dir::Uni), 1)]),
                    program(CLIENT, stream(CLIENT, Dir::Uni, 0), ends3),
                    program(SERVER, stream(CLIENT, Dir::Uni, 0), stops),
                    program(SERVER, stream(SERVER, Dir::Uni, 0), ends3),
                    program(CLIENT, stream(SERVER, Dir::Uni, 0), stops),
                ],
                losses: 1,
                is_confluent: false,
                ..base.clone()
            },
            Self {
                name: "close-session",
                programs: vec![
                    program(CLIENT, None, OPEN_ONE),
                    program(CLIENT, one, write_end),
                    program(SERVER, one, write_end),
                    program(CLIENT, None, closes),
                    program(SERVER, None, closes),
                ],
                losses: 1,
                timers: 1,
                fires: &[
                    (CLIENT, Timer::Grace),
                    (SERVER, Timer::Grace),
                    (CLIENT, Timer::Close),
                    (SERVER, Timer::Close),
                ],
                is_confluent: false,
                ..base.clone()
            },
            Self {
                name: "close-drain",
                programs: vec![
                    program(CLIENT, None, OPEN_TWO),
                    program(CLIENT, one, write_end),
                    program(CLIENT, two, write_end),
                    program(SERVER, None, drains),
                ],
                losses: 1,
                timers: 1,
                fires: &[(SERVER, Timer::Drain)],
                is_confluent: false,
                ..base.clone()
            },
            Self {
                name: "close-slots",
                config: narrow.clone(),
                programs: vec![
                    program(CLIENT, None, slots),
                    program(CLIENT, one, life3),
                    program(CLIENT, two, life3),
                    program(SERVER, one, answer3),
                    program(SERVER, two, answer3),
                ],
                losses: 1,
                is_confluent: false,
                ..base.clone()
            },
            Self {
                name: "race",
                programs: vec![
                    program(CLIENT, None, OPEN_ONE),
                    program(CLIENT, one, TWO_BYTES),
                    program(SERVER, one, FINISH),
                ],
                losses: 1,
                overtakes: true,
                ..base.clone()
            },
            Self {
                name: "race-3",
                programs: vec![
                    program(CLIENT, None, OPEN_ONE),
                    program(CLIENT, one, &[Step(0, Verb::Write(1), 1), Step(1, Verb::Finish, 2)]),
                    program(SERVER, one, FINISH),
                ],
                losses: 2,
                overtakes: true,
                ..base.clone()
            },
            Self {
                name: "race-idle",
                programs: vec![
                    program(CLIENT, None, OPEN_ONE),
                    program(CLIENT, one, &[Step(0, Verb::Write(1), 1), Step(1, Verb::Finish, 2)]),
                    program(SERVER, one, FINISH),
                ],
                losses: 1,
                timers: 1,
                fires: &[(CLIENT, Timer::Idle), (SERVER, Timer::Idle)],
                overtakes: true,
                ..base.clone()
            },
        ]
    }
}
