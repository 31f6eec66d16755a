//! What happens between two ends.

use towline_engine::{Acceptor, Code, Dir, Epoch, Session, Side, StreamId};

use super::recorder::{NOW, Recorder, peer_config};
use crate::peer::{Kind, PeerFrame};
use crate::setup::Setup;
use crate::step::Step;
use crate::wire;

type Story = fn(&mut Recorder);

/// The stories, by name.
pub(crate) const ALL: &[(&str, Story)] = &[
    ("greeting", Recorder::carry),
    ("asks", asks),
    ("answers", answers),
    ("resets", resets),
    ("stops", stops),
    ("limits", limits),
    ("timers", timers),
    ("closes", closes),
    ("is-closed", is_closed),
    ("drains", drains),
    ("is-drained", is_drained),
    ("hops", hops),
    ("hops-while-busy", hops_while_busy),
    ("expires", expires),
];

/// Stories that need a session that can resume.
const HOPS: [&str; 3] = ["hops", "hops-while-busy", "expires"];

/// Tells a story; `None` if it makes no sense for such a session.
pub(crate) fn told(setup: Setup, tell: Story) -> Option<Vec<u8>> {
    let is_hop = ALL.iter().any(|&(name, story)| HOPS.contains(&name) && std::ptr::fn_addr_eq(story, tell));
    if is_hop && !setup.resumable {
        return None;
    }
    let mut recorder = Recorder::new(setup);
    tell(&mut recorder);
    Some(recorder.end())
}

const fn write(stream: u8, length: u16) -> Step<'static> {
    Step::Write { stream, length, copied: true }
}

const fn read(stream: u8, most: u16) -> Step<'static> {
    Step::Read { stream, most, copied: false }
}

/// What the peer's application does with all streams that it gets: it reads them, and answers.
fn serve(peer: &mut Session, answer: &[u8]) {
    for dir in [Dir::Bi, Dir::Uni] {
        while let Some(id) = peer.accept(dir) {
            let mut stream = peer.stream(id).expect("it was just accepted");
            while let Ok(Some(_)) = stream.read(usize::MAX) {}
            if dir == Dir::Bi {
                let _ = stream.write(answer);
                let _ = stream.finish();
            }
        }
    }
}

fn open(peer: &mut Session, dir: Dir, data: &[u8]) -> StreamId {
    let id = peer.open(dir).expect("the limits allow it");
    let _ = peer.stream(id).expect("it was just opened").write(data);
    id
}

fn asks(story: &mut Recorder) {
    story.carry();
    for step in [Step::Open(Dir::Bi), write(0, 300), Step::Open(Dir::Uni), write(1, 20), Step::Finish(1)] {
        story.step(step);
    }
    story.carry();
    serve(&mut story.peer, &[7; 400]);
    story.step(Step::Finish(0));
    story.carry();
    for step in [Step::Events, read(0, 100), read(0, 1000), read(0, 1), Step::Release(1), Step::Release(0)] {
        story.step(step);
    }
    story.carry();
}

fn answers(story: &mut Recorder) {
    story.carry();
    let id = open(&mut story.peer, Dir::Bi, &[5; 1200]);
    let other = open(&mut story.peer, Dir::Uni, b"one way");
    story.peer.stream(other).expect("it is there").finish().expect("it is open");
    story.carry();
    for step in [Step::Events, Step::Accept(Dir::Bi), Step::Accept(Dir::Uni), read(0, 600), read(1, 600)] {
        story.step(step);
    }
    story.carry();
    story.peer.stream(id).expect("it is there").finish().expect("it is open");
    story.carry();
    let more = [read(0, 9999), read(0, 1), write(0, 50), Step::Finish(0), Step::Release(1), Step::Release(0)];
    for step in more {
        story.step(step);
    }
    story.carry();
}

fn resets(story: &mut Recorder) {
    story.carry();
    let id = open(&mut story.peer, Dir::Bi, &[5; 200]);
    let unseen = open(&mut story.peer, Dir::Uni, &[]);
    story.peer.stream(unseen).expect("it is there").reset(Code::from(3)).expect("it is open");
    story.carry();
    story.peer.stream(id).expect("it is there").reset(Code::from(4)).expect("it is open");
    for step in [Step::Open(Dir::Bi), write(0, 100), Step::Open(Dir::Uni), write(1, 100)] {
        story.step(step);
    }
    story.carry();
    for step in [
        Step::Reset { stream: 0, code: 5, when_sent: false },
        write(1, 60),
        Step::Reset { stream: 1, code: 6, when_sent: true },
        Step::Accept(Dir::Bi),
        read(2, 1000),
        read(2, 1),
    ] {
        story.step(step);
    }
    story.carry();
    for number in [2, 1, 0] {
        story.step(Step::Release(number));
    }
    story.carry();
}

fn stops(story: &mut Recorder) {
    story.carry();
    open(&mut story.peer, Dir::Bi, &[5; 200]);
    for step in [Step::Open(Dir::Bi), write(0, 100)] {
        story.step(step);
    }
    story.carry();
    while let Some(id) = story.peer.accept(Dir::Bi) {
        story.peer.stream(id).expect("it is there").stop(Code::from(8)).expect("it is open");
    }
    for step in [Step::Accept(Dir::Bi), Step::Stop { stream: 1, code: 9 }] {
        story.step(step);
    }
    story.carry();
    for step in [Step::Events, write(0, 1), Step::Release(0), Step::Release(0)] {
        story.step(step);
    }
    story.carry();
}

fn limits(story: &mut Recorder) {
    story.carry();
    for _ in 0..4 {
        story.step(Step::Open(Dir::Uni));
    }
    for number in 0..3 {
        story.step(write(number, 1100));
    }
    story.carry();
    serve(&mut story.peer, &[]);
    for number in 0..3 {
        story.step(write(number, 1100));
        story.step(Step::Finish(number));
    }
    story.carry();
    for _ in 0..3 {
        story.step(Step::Release(0));
    }
    story.carry();
    story.step(Step::Open(Dir::Uni));
    story.step(write(0, 1));
    story.carry();
}

fn timers(story: &mut Recorder) {
    story.carry();
    story.step(Step::Ping);
    story.peer.ping();
    story.carry();
    story.step(Step::Wait { millis: 5000 });
    story.carry();
    for _ in 0..4 {
        story.step(Step::WaitForTimer);
        story.step(Step::Transmit { max: 1 << 14 });
    }
}

fn closes(story: &mut Recorder) {
    story.carry();
    for step in [Step::Open(Dir::Bi), write(0, 700), Step::Close { code: 1, reason: 20 }] {
        story.step(step);
    }
    story.carry();
    serve(&mut story.peer, b"too late");
    story.carry();
}

fn is_closed(story: &mut Recorder) {
    story.carry();
    open(&mut story.peer, Dir::Bi, &[5; 100]);
    story.peer.close(NOW, Code::from(2), b"that was all");
    story.carry();
    story.step(Step::Wait { millis: 30 });
    story.carry();
    for step in [Step::Events, Step::Accept(Dir::Bi), read(0, 1000), read(0, 1), Step::Release(0)] {
        story.step(step);
    }
}

fn drains(story: &mut Recorder) {
    story.carry();
    open(&mut story.peer, Dir::Bi, b"in time");
    story.carry();
    story.step(Step::Drain { seconds: 20 });
    open(&mut story.peer, Dir::Bi, b"too late");
    story.carry();
    for step in [Step::Accept(Dir::Bi), Step::Accept(Dir::Bi), read(0, 100), Step::Release(0)] {
        story.step(step);
    }
    story.carry();
    for _ in 0..8 {
        story.step(Step::WaitForTimer);
        story.carry();
    }
}

fn is_drained(story: &mut Recorder) {
    story.carry();
    let second = std::time::Duration::from_secs(1);
    story.peer.drain(NOW, second, second);
    story.carry();
    for step in [Step::Events, Step::Open(Dir::Bi), write(0, 10)] {
        story.step(step);
    }
    story.carry();
}

fn hops(story: &mut Recorder) {
    story.carry();
    story.cut();
    for step in [Step::Events, Step::Open(Dir::Bi), write(0, 100)] {
        story.step(step);
    }
    story.reconnect();
    story.carry();
    serve(&mut story.peer, &[7; 10]);
    story.carry();
    story.step(Step::Events);
    story.step(read(0, 100));
}

fn hops_while_busy(story: &mut Recorder) {
    story.carry();
    let id = open(&mut story.peer, Dir::Bi, &[5; 900]);
    for step in [Step::Open(Dir::Bi), write(0, 900), Step::Open(Dir::Uni), write(1, 5), Step::Finish(1)] {
        story.step(step);
    }
    story.speak();
    story.listen();
    for step in [write(0, 300), Step::Accept(Dir::Bi), read(2, 100)] {
        story.step(step);
    }
    for _ in 0..3 {
        story.cut();
        let _ = story.peer.stream(id).expect("it is there").write(&[5; 50]);
        story.reconnect();
        story.speak();
        story.listen();
        story.speak();
        story.listen();
        story.step(read(2, 200));
        story.step(write(0, 100));
    }
    story.carry();
    serve(&mut story.peer, &[7; 10]);
    story.step(Step::Wait { millis: 25 });
    story.carry();
    for number in [2, 1, 0] {
        story.step(Step::Release(number));
    }
    story.carry();
}

fn expires(story: &mut Recorder) {
    story.carry();
    open(&mut story.peer, Dir::Bi, &[5; 90]);
    story.carry();
    story.cut();
    story.step(Step::WaitForTimer);
    story.step(Step::Events);
    if story.setup.side == Side::Server {
        story.reconnect();
        story.carry();
    }
}

type Flight = fn(&mut Session);

/// What a peer says in one go.
pub(crate) const FLIGHTS: &[(&str, Flight)] = &[
    ("hello", |_| {}),
    ("data", |peer| {
        open(peer, Dir::Bi, &[5; 700]);
        let id = open(peer, Dir::Uni, b"whole");
        peer.stream(id).expect("it is there").finish().expect("it is open");
    }),
    ("resets", |peer| {
        let id = open(peer, Dir::Bi, &[5; 7]);
        peer.stream(id).expect("it is there").reset(Code::from(3)).expect("it is open");
        let id = open(peer, Dir::Bi, &[5; 7]);
        peer.stream(id).expect("it is there").stop(Code::from(70_000)).expect("it is open");
        while peer.open(Dir::Uni).is_ok() {}
    }),
    ("close", |peer| {
        open(peer, Dir::Uni, b"last words");
        peer.close(NOW, Code::from(2), b"that was all");
    }),
    ("drain", |peer| {
        let second = std::time::Duration::from_secs(1);
        open(peer, Dir::Bi, b"more");
        peer.drain(NOW, second, second);
    }),
];

/// The bytes of a flight from a peer that has heard nothing but the parameters of `side`.
pub(crate) fn flight(side: Side, resumable: bool, speak: Flight) -> Vec<u8> {
    let mut peer = Session::new(side.peer(), peer_config(side, resumable));
    peer.attach(NOW, Epoch(0)).expect("its first pipe");
    let hello = first_record(side, resumable);
    let mut slices = Vec::new();
    peer.poll_transmit(NOW, 1 << 14, &mut slices);
    peer.handle_input(NOW, Epoch(0), hello.into());
    speak(&mut peer);
    while peer.poll_transmit(NOW, 400.max(towline_engine::MIN_TRANSMIT), &mut slices) > 0 {}
    slices.concat()
}

/// The record that an end begins a session with.
fn first_record(side: Side, resumable: bool) -> Vec<u8> {
    let config = peer_config(side.peer(), resumable);
    let mut slices = Vec::new();
    match side {
        Side::Client => {
            let mut session = Session::new(side, config);
            session.attach(NOW, Epoch(0)).expect("its first pipe");
            session.poll_transmit(NOW, 1 << 14, &mut slices);
        }
        Side::Server => _ = Acceptor::new(&config).poll_transmit(1 << 14, &mut slices),
    }
    slices.concat()
}

/// The body of the parameters that an end declares.
pub(crate) fn declared(side: Side, resumable: bool) -> Vec<u8> {
    let record = first_record(side, resumable);
    let mut body = &record[..];
    for _ in ["the record's size", "the frame's type", "the body's length"] {
        wire::take(&mut body).expect("a record");
    }
    body.to_vec()
}

type Exchange = fn(Side) -> Vec<Step<'static>>;
type Arriving = fn() -> Vec<Step<'static>>;

const fn says(kind: Kind, twist: u8) -> Step<'static> {
    Step::Frame { frame: frame(kind, 0, 9, twist), times: 0, cut: 0 }
}

const LATER: Step<'static> = Step::Attach { ahead: 1 };
const LOST: Step<'static> = Step::PipeClosed { back: 0, failed: true };

/// Pipes that arrive at a session that is there, and has streams.
pub(crate) const ARRIVALS: &[(&str, Arriving)] = &[
    ("resumes", || vec![Step::Greet, Step::Flush, Step::Transmit { max: 9999 }]),
    ("resumes-twice", || vec![Step::Greet, Step::Transmit { max: 9999 }, LATER, Step::Greet]),
    ("same-epoch", || vec![Step::Greet, Step::Attach { ahead: 0 }, Step::Greet]),
    ("wrong-name", || vec![says(Kind::Parameters, 0), says(Kind::Resume, 0x41), Step::Transmit { max: 999 }]),
    ("wrong-secret", || vec![says(Kind::Parameters, 0), says(Kind::Resume, 0x83), says(Kind::StateEnd, 0)]),
    ("wrong-secret-at-its-end", || vec![says(Kind::Parameters, 0), says(Kind::Resume, 0x9f)]),
    ("wrong-name-at-its-end", || vec![says(Kind::Parameters, 0), says(Kind::Resume, 0x4f)]),
    ("wrong-epoch", || vec![says(Kind::Parameters, 0), says(Kind::Resume, 0x20)]),
    ("new-session", || vec![says(Kind::Parameters, 0x40), says(Kind::MaxData, 0)]),
    ("no-resume", || vec![says(Kind::Parameters, 0x10), says(Kind::Stream, 0)]),
    ("padding", || vec![says(Kind::Parameters, 0), says(Kind::Padding, 0), says(Kind::Resume, 0)]),
    ("first-is-wrong", || vec![says(Kind::Resume, 0)]),
    ("cut-in-pieces", || {
        let piece = |kind, cut| Step::Frame { frame: frame(kind, 0, 0, 0), times: 0, cut };
        vec![piece(Kind::Parameters, 1), piece(Kind::Resume, 7), piece(Kind::SessionState, 1)]
    }),
    ("expired", || {
        let mut steps = vec![LOST];
        steps.extend([Step::WaitForTimer; 4]);
        steps.extend([Step::Events, LATER, says(Kind::Parameters, 0), says(Kind::Resume, 0)]);
        steps
    }),
    ("closed", || {
        let mut steps = vec![Step::Greet, Step::Close { code: 3, reason: 9 }];
        steps.extend([Step::WaitForTimer; 4]);
        steps.extend([LATER, says(Kind::Parameters, 0), says(Kind::Resume, 0), LATER]);
        steps.extend([says(Kind::Parameters, 0), says(Kind::Resume, 0x81)]);
        steps
    }),
    ("broken", || {
        vec![Step::Greet, says(Kind::Other, 0), LATER, says(Kind::Parameters, 0), says(Kind::Resume, 0)]
    }),
    ("drains", || vec![Step::Greet, Step::Drain { seconds: 9 }, LATER, Step::Greet, Step::WaitForTimer]),
];

/// What a client says before its peer has declared itself, if that is agreed on, and what it says then.
pub(crate) fn early() -> Vec<Step<'static>> {
    vec![
        Step::Open(Dir::Bi),
        write(0, 60),
        Step::Transmit { max: 1 << 14 },
        Step::Greet,
        write(0, 600),
        Step::Transmit { max: 1 << 14 },
        Step::Flush,
        Step::Events,
    ]
}

/// Beginnings of a later pipe, for a session on either end that has streams, of which the peer has some.
pub(crate) const EXCHANGES: &[(&str, Exchange)] = &[
    ("exchange-fair", |_| vec![Step::Greet, Step::Transmit { max: 9999 }, Step::Flush, Step::Events]),
    ("exchange-closed-in", |side| {
        vec![
            says(Kind::Parameters, 0),
            opening(side),
            says(Kind::SessionState, 0),
            says(Kind::CloseApplication, 3),
        ]
    }),
    ("exchange-refused", |_| vec![says(Kind::Parameters, 0), says(Kind::Refused, 0x22), Step::Events]),
    ("exchange-stale", |_| {
        let stale = Step::Frame { frame: frame(Kind::Refused, 0, 7, 1), times: 0, cut: 0 };
        vec![says(Kind::Parameters, 0), stale, Step::Events, Step::Attach { ahead: 1 }, Step::Greet]
    }),
    ("exchange-of-states", |side| {
        let mut steps = vec![says(Kind::Parameters, 0), opening(side), says(Kind::SessionState, 0)];
        steps.extend((0..4).map(|id| Step::Frame {
            frame: frame(Kind::StreamState, id, 900, 0),
            times: 0,
            cut: 0,
        }));
        steps.extend([says(Kind::StateEnd, 0), Step::Transmit { max: 9999 }, says(Kind::Ack, 0)]);
        steps
    }),
    ("exchange-out-of-order", |side| {
        vec![says(Kind::Parameters, 0), opening(side), says(Kind::StreamState, 0), says(Kind::StateEnd, 0)]
    }),
];

const fn frame(kind: Kind, stream: u8, number: u16, twist: u8) -> PeerFrame {
    PeerFrame { kind, stream, number, twist }
}

/// What the peer of `side` says first.
const fn opening(side: Side) -> Step<'static> {
    match side {
        Side::Client => says(Kind::Resumed, 0),
        Side::Server => says(Kind::Resume, 0),
    }
}
