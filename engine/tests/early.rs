//! What goes out before the peer has declared itself: as much as the applications have agreed on, and no more.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{EPOCH, ONE, Pair, config, events, read_all};
use towline_engine::{
    CloseReason, Config, Dir, Event, OpenError, Resumption, Session, Side, Violation, WriteError,
};

/// How much both applications have agreed on.
const AGREED: usize = 100;

/// A service that counts on it, and a device with these limits.
fn pair(device: Config) -> Pair {
    let mut pair = Pair::unattached(config(|c| c.early_window = AGREED as u64), device);
    pair.service.attach(pair.now, EPOCH).unwrap();
    pair.device.attach(pair.now, EPOCH).unwrap();
    pair
}

fn words(count: usize) -> Bytes {
    Bytes::from_iter((0..=u8::MAX).cycle().take(count))
}

/// Opens a stream and writes as much of `words` as is taken. Returns how much that was.
fn write(session: &mut Session, words: &Bytes) -> usize {
    let id = session.open(Dir::Bi).unwrap();
    let mut left = words.clone();
    let wrote = session.stream(id).unwrap().write_chunk(&mut left);
    assert!(wrote.is_ok() || wrote == Err(WriteError::Blocked));
    words.len() - left.len()
}

#[test]
fn the_first_words_go_out_with_the_parameters() {
    let mut pair = pair(Config::default());
    assert_eq!(write(&mut pair.service, &words(50)), 50);
    let length = pair.transmit(Side::Client);
    assert!(length > 50, "all of it is one record");
    pair.deliver(Side::Client, length);
    let id = pair.device.accept(Dir::Bi).unwrap();
    assert_eq!(read_all(&mut pair.device, id).0, words(50));
    pair.run();
    assert_eq!(events(&mut pair.service).first(), Some(&Event::Attached(EPOCH)));
}

/// `never_over_limit`: the peer's own limits hold as soon as they are known, also for what has begun before.
#[test]
fn what_was_agreed_on_is_a_limit_until_the_peer_has_declared_its_own() {
    let mut pair = pair(Config::default());
    let id = pair.service.open(Dir::Bi).unwrap();
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Blocked(Dir::Bi)), "one stream is agreed on");
    assert_eq!(pair.service.open(Dir::Uni), Err(OpenError::Blocked(Dir::Uni)));
    let mut left = words(1000);
    let _ = pair.service.stream(id).unwrap().write_chunk(&mut left);
    while pair.transmit(Side::Client) > 0 {}
    let wire = pair.on_the_wire(Side::Client);
    pair.deliver(Side::Client, wire);
    let here = pair.device.accept(Dir::Bi).unwrap();
    assert_eq!(read_all(&mut pair.device, here).0, words(AGREED), "and no more");
    pair.run();
    while !left.is_empty() {
        pair.service.stream(id).unwrap().write_chunk(&mut left).unwrap();
    }
    pair.run();
    assert_eq!(read_all(&mut pair.device, here).0, words(1000).slice(AGREED..));
    assert!(pair.service.open(Dir::Bi).is_ok());
}

#[test]
fn a_peer_that_declares_less_breaks_the_rules() {
    const LESS: u64 = AGREED as u64 - 1;
    let less: [fn(&mut Config); 3] =
        [|c| c.stream_window = LESS, |c| c.session_window = LESS, |c| c.max_streams_bidi = 0];
    for less in less {
        let mut pair = pair(config(less));
        pair.transmit(Side::Server);
        let wire = pair.on_the_wire(Side::Server);
        pair.deliver(Side::Server, wire);
        let closed = Event::Closed(CloseReason::Violation(Violation::BadParameters));
        assert_eq!(events(&mut pair.service), [closed]);
    }
    // Just as much does.
    let mut pair = pair(config(|c| {
        (c.stream_window, c.session_window, c.max_streams_bidi) = (AGREED as u64, AGREED as u64, 1);
    }));
    assert_eq!(write(&mut pair.service, &words(AGREED)), AGREED);
    pair.run();
    assert_eq!(pair.service.poll_event(), Some(Event::Attached(EPOCH)));
}

/// Its limits are agreed on with the peer itself, and what it sends is kept until it is acknowledged.
#[test]
fn a_session_that_may_outlive_its_pipe_waits() {
    let mut pair = Pair::unattached(
        config(|c| {
            c.early_window = AGREED as u64;
            c.resumption = Resumption::Offer(common::ID, common::SECRET);
        }),
        Config::default(),
    );
    pair.service.attach(pair.now, EPOCH).unwrap();
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Blocked(Dir::Bi)));
}

/// A session that is closed at once says what it was given first.
#[test]
fn what_was_said_early_goes_out_before_a_close() {
    let mut pair = pair(Config::default());
    write(&mut pair.service, &words(50));
    pair.service.close(pair.now, ONE, b"");
    pair.run();
    let id = pair.device.accept(Dir::Bi).unwrap();
    assert_eq!(read_all(&mut pair.device, id).0, words(50));
    let closed = Event::Closed(CloseReason::Peer { code: ONE, reason: Bytes::new() });
    assert!(events(&mut pair.device).contains(&closed));
}
