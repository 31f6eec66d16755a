//! The examples in docs/PROTOCOL.md, appendix A, are what real sessions say: each is made here and compared, so that
//! the two cannot drift. A difference prints the line as it should be.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use common::{EPOCH, ID, Pair, SECRET, config, hex};
use towline_engine::{Acceptor, Code, Config, Dir, Epoch, Resumption, Secret, Session, Side};

/// Name and record, in the order in which they were made.
type Vectors = Vec<(&'static str, Vec<u8>)>;

fn record(pair: &mut Pair, side: Side) -> Vec<u8> {
    let (mut out, now) = (Vec::new(), pair.now);
    pair.end(side).poll_transmit(now, 1 << 14, &mut out);
    out.concat()
}

fn first_record(config: Config) -> Vec<u8> {
    let mut session = Session::new(Side::Client, config);
    session.attach(Default::default(), EPOCH).unwrap();
    let mut out = Vec::new();
    session.poll_transmit(Default::default(), 1 << 14, &mut out);
    out.concat()
}

fn beginnings(vectors: &mut Vectors) {
    vectors.push(("parameters-default", first_record(Config::default())));
    let link = config(|c| (c.max_streams_bidi, c.max_streams_uni) = (1 << 16, 0));
    vectors.push(("parameters-hub-link", first_record(link)));
    let resumable = config(|c| c.resumption = Resumption::Offer(ID, SECRET));
    vectors.push(("parameters-resume", first_record(resumable)));
}

fn streams(vectors: &mut Vectors) {
    let mut pair = Pair::new(Config::default());
    let first = pair.service.open(Dir::Bi).unwrap();
    let second = pair.service.open(Dir::Bi).unwrap();
    pair.service.stream(first).unwrap().write(b"hello").unwrap();
    let mut short = pair.service.clone();
    short.stream(first).unwrap().finish().unwrap();
    let mut out = Vec::new();
    short.poll_transmit(pair.now, 1 << 14, &mut out);
    vectors.push(("stream-fin", out.concat()));
    pair.service.stream(second).unwrap().write(b"hi").unwrap();
    pair.service.stream(second).unwrap().finish().unwrap();
    vectors.push(("stream-length", record(&mut pair, Side::Client)));
    pair.service.stream(first).unwrap().write(b"world").unwrap();
    vectors.push(("stream-offset", record(&mut pair, Side::Client)));
    let mut stopping = pair.service.clone();
    pair.service.stream(first).unwrap().finish().unwrap();
    vectors.push(("stream-end", record(&mut pair, Side::Client)));
    stopping.stream(first).unwrap().reset(1.into()).unwrap();
    pair.service = stopping;
    vectors.push(("reset", record(&mut pair, Side::Client)));
    pair.service.stream(first).unwrap().stop(3.into()).unwrap();
    vectors.push(("stop", record(&mut pair, Side::Client)));
    let mut pair = Pair::new(Config::default());
    let unused = pair.service.open(Dir::Bi).unwrap();
    pair.service.release(unused, Code::default());
    vectors.push(("released-unused", record(&mut pair, Side::Client)));
}

fn credit(vectors: &mut Vectors) {
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (100, 100)));
    let id = pair.stream(Dir::Bi, &[1; 50]);
    assert_eq!(common::read_all(&mut pair.device, id).0.len(), 50);
    vectors.push(("credit", record(&mut pair, Side::Server)));

    let mut pair = Pair::new(config(|c| c.max_streams_bidi = 2));
    let id = pair.stream(Dir::Bi, b"x");
    pair.service.release(id, Code::default());
    let bytes = record(&mut pair, Side::Client);
    pair.device.handle_input(pair.now, EPOCH, bytes.into());
    pair.device.release(id, Code::default());
    record(&mut pair, Side::Server); // the answer to the reset: then the place is free
    vectors.push(("max-streams", record(&mut pair, Side::Server)));

    for (name, stream, session) in [("data-blocked", 20, 5), ("stream-data-blocked", 5, 20)] {
        let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (stream, session)));
        let id = pair.service.open(Dir::Bi).unwrap();
        assert_eq!(pair.service.stream(id).unwrap().write(b"hello, world"), Ok(5));
        vectors.push((name, record(&mut pair, Side::Client)));
    }
    let mut pair = Pair::new(config(|c| c.max_streams_bidi = 0));
    assert!(pair.service.open(Dir::Bi).is_err());
    vectors.push(("streams-blocked", record(&mut pair, Side::Client)));
}

fn pings_and_ends(vectors: &mut Vectors) {
    let mut pair = Pair::new(Config::default());
    pair.service.ping();
    let ping = record(&mut pair, Side::Client);
    pair.device.handle_input(pair.now, EPOCH, ping.clone().into());
    vectors.push(("ping", ping));
    vectors.push(("pong", record(&mut pair, Side::Server)));
    for (name, code, reason) in [("close-application", 6, &b""[..]), ("close-with-reason", 1, b"done")] {
        let mut pair = Pair::new(Config::default());
        pair.service.close(pair.now, code.into(), reason);
        vectors.push((name, record(&mut pair, Side::Client)));
    }
    for (name, bytes) in
        [("close-not-in-order", "04 0c 00 05 78"), ("close-flow-control", "07 04 00 00 bfffffff")]
    {
        let mut pair = Pair::new(Config::default());
        pair.device.handle_input(pair.now, EPOCH, hex(bytes).into());
        vectors.push((name, record(&mut pair, Side::Server)));
    }
}

fn resumption(vectors: &mut Vectors) {
    let mut pair = Pair::resumable(config(|c| c.optimistic_resend = false));
    let id = pair.stream(Dir::Bi, b"hello");
    pair.now = pair.now + Duration::from_millis(25);
    let now = pair.now;
    pair.device.handle_timeout(now);
    vectors.push(("stream-ack", record(&mut pair, Side::Server)));
    pair.device.drain(now, Duration::from_secs(30), Duration::from_secs(5));
    vectors.push(("drain", record(&mut pair, Side::Server)));
    assert!(pair.device.stream(id).is_ok());
    pair.cut(&[Side::Client, Side::Server]);
    pair.service.attach(now, Epoch(1)).unwrap();
    let resume = record(&mut pair, Side::Client);
    vectors.push(("resume", resume.clone()));

    let refusal = |device: &mut Session, proof: &Secret, epoch| {
        let mut acceptor = Acceptor::new(&config(|c| c.resumption = Resumption::Accept));
        acceptor.poll_transmit(1 << 14, &mut Vec::new()); // the parameters, which are as on any pipe
        assert!(acceptor.handle_input(resume.clone().into()).is_some());
        device.resume(now, epoch, proof, &mut acceptor).unwrap_err();
        let mut out = Vec::new();
        acceptor.poll_transmit(1 << 14, &mut out);
        out.concat()
    };
    let mut device = pair.device.clone();
    vectors.push(("refused-unknown", refusal(&mut device, &Secret::new([0; 32]), Epoch(1))));
    vectors.push(("refused-stale", refusal(&mut device, &SECRET, Epoch(0))));
    device.close(now, 1.into(), b"");
    let end = device.poll_timeout().unwrap().0;
    device.handle_timeout(end); // it was without a pipe for as long as a close may take
    vectors.push(("refused-closed", refusal(&mut device, &SECRET, Epoch(1))));

    let mut acceptor = Acceptor::new(&config(|c| c.resumption = Resumption::Accept));
    acceptor.poll_transmit(1 << 14, &mut Vec::new());
    acceptor.handle_input(resume.clone().into());
    pair.device.resume(now, Epoch(1), &SECRET, &mut acceptor).unwrap();
    vectors.push(("resumed", record(&mut pair, Side::Server)));
}

#[test]
fn the_examples_are_what_sessions_say() {
    let mut vectors = Vectors::new();
    for make in [beginnings, streams, credit, pings_and_ends, resumption] {
        make(&mut vectors);
    }
    let text = include_str!("../../docs/PROTOCOL.md");
    let appendix = &text[text.find("## Appendix A").expect("there is an appendix A")..];
    let fences = appendix.split("```").skip(1).step_by(2);
    let lines = fences.flat_map(str::lines).filter_map(|line| line.split_once(": "));
    let documented: BTreeMap<_, _> = lines.map(|(name, bytes)| (name, hex(bytes))).collect();
    let mut report = String::new();
    for (name, bytes) in &vectors {
        if documented.get(name) != Some(bytes) {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(report, "{name}: {digits}").unwrap();
        }
    }
    for name in documented.keys().filter(|name| vectors.iter().all(|(made, _)| made != *name)) {
        writeln!(report, "{name} is in the document, and nobody makes it").unwrap();
    }
    assert!(report.is_empty(), "docs/PROTOCOL.md, appendix A, should read:\n{report}");
}
