//! Where fuzzing starts: inputs made of what two real sessions say to each other.
//!
//! In: stories. Out: for each target, files by name. `make-seeds` writes them to `fuzz/seeds/`, and a test sees to it
//! that they stay the same until somebody wants them otherwise.

mod ops;
mod recorder;
mod stories;

use std::collections::BTreeMap;

use towline::message::{
    self, Accepted, Answer, DeviceStatus, Goodbye, Hello, List, Offer, Open, Profile, Request,
};
use towline::refusal::{Refusal, RefusalCode};
use towline_engine::Side;

use crate::setup::{LIMITS, Setup, Stage};
use crate::wire::{self, parameter};

/// The seeds of one target, by file name.
pub type Seeds = BTreeMap<String, Vec<u8>>;

/// The seeds of a target. None if there is no such target.
pub fn of(target: &str) -> Option<Seeds> {
    Some(match target {
        "record_frame" => record_frame(),
        "session_bytes" => session_bytes(),
        "pair_ops" => ops::seeds(),
        "parameters" => parameters(),
        "messages" => messages(),
        "resume" => resume(),
        _ => return None,
    })
}

/// A setup with small limits, where nothing has happened.
pub(crate) fn fresh(side: Side, resumable: bool) -> Setup {
    Setup {
        side,
        resumable,
        stage: Stage::Fresh,
        copies_out: true,
        fail_fast: false,
        optimistic: true,
        limits: 0,
    }
}

fn name_of(story: &str, side: Side, resumable: bool) -> String {
    let side = if side == Side::Client { "client" } else { "server" };
    let kind = if resumable { "resumable" } else { "bare" };
    format!("{story}-{side}-{kind}")
}

/// Whole exchanges, with everything that one end did and heard.
fn session_bytes() -> Seeds {
    let mut seeds = Seeds::new();
    for side in [Side::Client, Side::Server] {
        for resumable in [false, true] {
            for &(story, tell) in stories::ALL {
                if let Some(steps) = stories::told(fresh(side, resumable), tell) {
                    seeds.insert(name_of(story, side, resumable), steps);
                }
            }
        }
        let setup = Setup { stage: Stage::Again, ..fresh(side, true) };
        for &(story, tell) in stories::EXCHANGES {
            let mut input = Vec::new();
            setup.put(&mut input);
            tell(side).into_iter().for_each(|step| step.put(&mut input));
            seeds.insert(name_of(story, side, true), input);
        }
    }
    let mut input = Vec::new();
    Setup { limits: LIMITS - 1, ..fresh(Side::Client, false) }.put(&mut input);
    stories::early().into_iter().for_each(|step| step.put(&mut input));
    seeds.insert(name_of("early", Side::Client, false), input);
    seeds
}

/// What a peer says in one go, to an end that only listens.
fn record_frame() -> Seeds {
    let mut seeds = Seeds::new();
    for side in [Side::Client, Side::Server] {
        for resumable in [false, true] {
            for &(story, speak) in stories::FLIGHTS {
                let mut input = Vec::new();
                fresh(side, resumable).put(&mut input);
                input.extend([7, 1, 0, 40]);
                input.extend(stories::flight(side, resumable, speak));
                seeds.insert(name_of(story, side, resumable), input);
            }
        }
        let setup = Setup { stage: Stage::Again, ..fresh(side, true) };
        let mut input = Vec::new();
        setup.put(&mut input);
        input.extend([3, 50, 0, 9]);
        input.extend(crate::harness::Harness::new(setup).greeting());
        seeds.insert(name_of("again", side, true), input);
    }
    seeds
}

/// The same stories, told to a server whose session is there already; and beginnings of a pipe that are wrong.
fn resume() -> Seeds {
    let mut seeds = Seeds::new();
    for &(story, tell) in stories::ARRIVALS {
        let mut input = Vec::new();
        fresh(Side::Server, true).put(&mut input);
        for step in tell() {
            step.put(&mut input);
        }
        seeds.insert(story.into(), input);
    }
    // As bytes rather than as a step, so that every byte of it can be mutated.
    let setup = Setup { stage: Stage::Again, ..fresh(Side::Server, true) };
    let mut input = Vec::new();
    setup.put(&mut input);
    for chunk in crate::harness::Harness::new(setup).greeting().chunks(60) {
        crate::step::Step::Bytes(chunk).put(&mut input);
    }
    seeds.insert("greeting-as-bytes".into(), input);
    seeds
}

/// What sessions declare, and the corners of what they may.
fn parameters() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |name: &str, flags: u8, body: &[u8]| {
        for (side, bit) in [("server", 0), ("client", 1)] {
            let input = [&[flags | bit, 0], body].concat();
            seeds.insert(format!("{name}-{side}"), input);
        }
    };
    for (name, flags, side, resumable) in [
        ("bare", 0, Side::Client, false),
        ("resume-offered", 2, Side::Client, true),
        ("resume-accepted", 2, Side::Server, true),
    ] {
        add(name, flags, &stories::declared(side, resumable));
    }
    add("nothing", 2, &[]);
    let numbers = |list: &[(u64, u64)]| {
        let mut body = Vec::new();
        list.iter().for_each(|&(id, value)| wire::put_parameter(&mut body, id, value));
        body
    };
    add(
        "largest",
        0,
        &numbers(&[
            (parameter::MAX_IDLE_TIMEOUT, wire::MAX),
            (parameter::INITIAL_MAX_DATA, wire::MAX),
            (parameter::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL, wire::MAX),
            (parameter::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, wire::MAX),
            (parameter::INITIAL_MAX_STREAM_DATA_UNI, wire::MAX),
            (parameter::INITIAL_MAX_STREAMS_BIDI, 1 << 60),
            (parameter::INITIAL_MAX_STREAMS_UNI, 1 << 60),
            (parameter::MAX_RECORD_SIZE, wire::MAX),
        ]),
    );
    add("too-many-streams", 0, &numbers(&[(parameter::INITIAL_MAX_STREAMS_UNI, (1 << 60) + 1)]));
    add("record-too-small", 0, &numbers(&[(parameter::MAX_RECORD_SIZE, 16381)]));
    add("twice", 0, &numbers(&[(parameter::INITIAL_MAX_DATA, 1), (parameter::INITIAL_MAX_DATA, 1)]));
    add("prohibited", 0, &numbers(&[(0x0e, 2)]));
    add("extension", 0, &numbers(&[(0x20, 65_535), (0x7f00, 1), (0x7f00, 2)]));
    let mut long = Vec::new();
    wire::put_parameter_bytes(&mut long, parameter::INITIAL_MAX_DATA, &[0x40, 0x05]);
    add("longer-than-needed", 0, &long);
    let mut cut = Vec::new();
    wire::put_parameter_bytes(&mut cut, parameter::RESUME, &[0x05, 1, 2]);
    add("ticket-cut-short", 2, &cut);
    seeds
}

/// The examples of PROTOCOL §5.2, and some more.
fn messages() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |name: &str, kind: u8, message: Vec<u8>| {
        seeds.insert(name.into(), [&[kind], &message[2..]].concat());
    };
    let hello = |agent: &str| Request::Hello(Hello { version: 1, instance: 7, agent: agent.into() });
    add("hello", 0, message::encode(&hello("t")));
    add("hello-long", 0, message::encode(&hello(&"an agent that says much of itself ".repeat(110))));
    let open = Open {
        device: "press-7".into(),
        service: "ssh".into(),
        profile: Profile::Native,
        deadline_ms: 30_000,
        wait_ms: None,
    };
    add("open", 0, message::encode(&Request::Open(open.clone())));
    let strict = Open { profile: Profile::Strict, device: "no such \u{1b} name".into(), ..open };
    add("open-strict", 0, message::encode(&Request::Open(strict)));
    add("list", 0, message::encode(&Request::List(List {})));
    add("accepted", 1, message::encode(&Answer::Accepted(Accepted { tunnel: Some(5) })));
    add("accepted-hello", 1, message::encode(&Answer::Accepted(Accepted::default())));
    for code in RefusalCode::ALL {
        let refusal = Refusal::new(code, code.name()).retry_after(std::time::Duration::from_secs(1));
        add(&format!("refused-{}", code.exit_status()), 1, message::encode(&Answer::Refused(refusal)));
    }
    let refusal = Refusal::new(RefusalCode::HubDraining, "this hub is being stopped");
    add("goodbye", 3, message::encode(&Goodbye { refusal }));
    let offer = Offer {
        tunnel: 5,
        service: "ssh".into(),
        from: "spiffe://d/service/ops".into(),
        profile: Profile::Native,
        deadline_ms: 30_000,
    };
    add("offer", 2, message::encode(&offer));
    let status = DeviceStatus {
        device: "press-7".into(),
        online: true,
        for_ms: 1000,
        tunnels: 2,
        address: "192.0.2.1:5".into(),
        agent: "t".into(),
        takeovers: 0,
        last_takeover_ms: None,
    };
    add("device-status", 4, message::encode(&status));
    add(
        "device-status-taken-over",
        4,
        message::encode(&DeviceStatus { last_takeover_ms: Some(9), ..status }),
    );
    // As a peer may write it that does not care for short forms: indefinite map, long numbers, something unknown.
    let odd = b"\x82\x18\x00\xbf\x00\x1a\x00\x00\x00\x01\x01\x1b\0\0\0\0\0\0\0\x07\x02\x61t\x18\x63\x82\xf6\xf5\xff";
    seeds.insert("hello-odd".into(), [&[0], &odd[..]].concat());
    seeds
}
