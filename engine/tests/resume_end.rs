//! A session that outlives its pipes comes to an end: closed, given up, drained, too late; and each end knows the truth.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{BOTH, ONE, Pair, SECRET, config, events, patterned, read_all, write_some};
use towline_engine::{
    Acceptor, CloseReason, Code, Config, Detached, Dir, Event, OpenError, ReadError, Refused, Secret, Side,
    Timer, WriteError,
};

/// Corner case 8, and `ttl_order`: the end that is asked never forgets first; both say how much had arrived.
#[test]
fn ttl_order() {
    let mut pair = Pair::resumable(config(|c| c.grace = Duration::from_secs(20)));
    let id = pair.stream(Dir::Bi, &patterned(100));
    pair.advance(Duration::from_millis(25));
    write_some(&mut pair.service, id, 100, 50).unwrap();
    pair.cut(&BOTH);
    assert_eq!(pair.service.poll_timeout(), Some((pair.now + Duration::from_secs(20), Timer::Grace)));
    assert_eq!(pair.device.poll_timeout(), Some((pair.now + Duration::from_secs(50), Timer::Grace)));
    pair.reconnect();
    pair.advance_cut_off(Duration::from_secs(20));
    assert!(
        events(&mut pair.service).contains(&Event::Closed(CloseReason::Expired)),
        "though a RESUME is out"
    );
    assert!(!pair.device.is_closed());
    assert_eq!(pair.service.stream(id).unwrap().acknowledged(), 100);
    assert_eq!(read_all(&mut pair.service, id).1, Err(ReadError::Closed), "never an end of file");
    assert_eq!(pair.service.stream(id).unwrap().write(b"y"), Err(WriteError::Closed));
    pair.advance_cut_off(Duration::from_secs(30));
    assert!(events(&mut pair.device).contains(&Event::Closed(CloseReason::Expired)));
    assert_eq!(read_all(&mut pair.device, id), (patterned(100), Err(ReadError::Closed)));
}

/// Corner case 7, and `closed_truth`: who comes late learns how it ended, and what had arrived.
#[test]
fn closed_truth() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, &patterned(100));
    write_some(&mut pair.service, id, 100, 50).unwrap();
    pair.transmit(Side::Client);
    while pair.on_the_wire(Side::Client) > 0 {
        pair.deliver(Side::Client, 1000);
    }
    pair.device.close(pair.now, ONE, b"enough");
    pair.transmit(Side::Server);
    assert!(pair.device.is_closed());
    pair.cut(&BOTH); // and with it the CONNECTION_CLOSE
    pair.reconnect();
    pair.run();
    let refused = CloseReason::ResumeRefused(Refused::Closed(ONE));
    assert!(events(&mut pair.service).contains(&Event::Closed(refused)));
    assert_eq!(pair.service.stream(id).unwrap().acknowledged(), 150);

    // A tombstone says the same when the session itself is gone.
    let tombstone = pair.device.tombstone().unwrap();
    let mut acceptor = Acceptor::new(&Config::default());
    assert_eq!(tombstone.refuse(&SECRET, &mut acceptor), Refused::Closed(ONE));
    assert_eq!(tombstone.refuse(&Secret::new([0; 32]), &mut acceptor), Refused::Unknown);
}

/// `close_flushes`: a clean close says that everything has arrived.
#[test]
fn close_flushes() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    write_some(&mut pair.service, id, 1, 5000).unwrap();
    pair.service.stream(id).unwrap().finish().unwrap();
    pair.service.close(pair.now, ONE, b"");
    while pair.transmit(Side::Client) > 0 {}
    pair.cut(&BOTH);
    assert!(!pair.service.is_closed(), "the pipe took it, but the peer does not have it");
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Closed));
    pair.reconnect();
    pair.run();
    assert!(events(&mut pair.service).contains(&Event::Closed(CloseReason::Local(ONE))));
    assert_eq!(read_all(&mut pair.device, id).0.len(), 5001);
    assert_eq!(read_all(&mut pair.device, id).1, Ok(()));
}

/// `close_flushes`: a close that no pipe came for is still clean if everything had arrived before.
#[test]
fn a_close_without_a_pipe_is_clean_if_all_had_arrived() {
    for arrives in [true, false] {
        let mut pair = Pair::resumable(Config::default());
        let id = pair.stream(Dir::Bi, b"all of it");
        pair.service.stream(id).unwrap().finish().unwrap();
        if arrives {
            pair.advance(Duration::from_secs(1));
        }
        pair.cut(&BOTH);
        pair.service.close(pair.now, ONE, b"");
        pair.advance_cut_off(Duration::from_secs(10));
        let why = if arrives { CloseReason::Local(ONE) } else { CloseReason::LocalUnflushed(ONE) };
        assert!(events(&mut pair.service).contains(&Event::Closed(why)), "{arrives}");
    }
}

/// `close_idempotent`: what was finished and never arrived can still be reset when the session is over.
#[test]
fn a_reset_after_the_end_is_too_late() {
    let mut pair = Pair::resumable(config(|c| c.grace = Duration::from_secs(5)));
    let id = pair.stream(Dir::Bi, b"x");
    pair.cut(&BOTH);
    write_some(&mut pair.service, id, 1, 100).unwrap();
    pair.service.stream(id).unwrap().finish().unwrap();
    pair.advance_cut_off(Duration::from_secs(5));
    assert!(pair.service.is_closed());
    assert_eq!(pair.service.stream(id).unwrap().reset(ONE), Err(WriteError::Finished));
    pair.service.check_invariants();
}

/// `one_terminal_event`: who knows that there will be no other pipe need not wait for the grace period.
#[test]
fn a_session_is_given_up_at_once_only_while_it_has_no_pipe() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    pair.service.give_up();
    assert!(!pair.service.is_closed(), "it goes on over the pipe that it has");
    pair.cut(&BOTH);
    pair.service.give_up();
    pair.service.give_up();
    let closed: Vec<_> = std::iter::from_fn(|| pair.service.poll_event())
        .filter(|event| matches!(event, Event::Closed(_)))
        .collect();
    assert_eq!(closed, [Event::Closed(CloseReason::Expired)]);
    assert_eq!(pair.service.stream(id).unwrap().write(b"y"), Err(WriteError::Closed));
    pair.service.check_invariants();
}

/// `dead_is_detach`, `eof_iff_fin`: a silent peer is a detachment first.
#[test]
fn dead_is_detach() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    // Corner case 14: suspended for a minute, it asks once, and then waits for another pipe.
    pair.jump(Duration::from_secs(60));
    assert_eq!(events(&mut pair.service), []);
    assert!(pair.service.wants_transmit(), "a ping");
    pair.transmit(Side::Client);
    pair.advance_cut_off(Duration::from_secs(5));
    assert_eq!(events(&mut pair.service), [Event::Detached(Detached::IdleTimeout)]);
    assert!(pair.service.is_detached() && !pair.service.is_closed());
    assert_eq!(read_all(&mut pair.device, id), (b"x".to_vec(), Err(ReadError::Blocked)));
    pair.cut(&[]);
    pair.reconnect();
    pair.run();
    assert!(!pair.service.is_detached());
}

#[test]
fn who_fails_fast_gets_an_error_instead_of_a_pause() {
    let mut pair = Pair::resumable(config(|c| (c.fail_fast, c.stream_window) = (true, 3)));
    let id = pair.stream(Dir::Bi, b"abc");
    assert_eq!(pair.service.stream(id).unwrap().read(9), Err(ReadError::Blocked));
    assert_eq!(pair.service.stream(id).unwrap().write(b"d"), Err(WriteError::Blocked));
    pair.run();
    pair.cut(&BOTH);
    let news = events(&mut pair.service);
    assert!(news.contains(&Event::Readable(id)) && news.contains(&Event::Writable(id)), "{news:?}");
    assert_eq!(pair.service.stream(id).unwrap().read(9), Err(ReadError::Detached));
    assert_eq!(pair.service.stream(id).unwrap().write(b"d"), Err(WriteError::Detached));
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Detached));
    assert_eq!(read_all(&mut pair.device, id), (b"abc".to_vec(), Err(ReadError::Detached)));
    pair.reconnect();
    pair.run();
    assert_eq!(pair.service.stream(id).unwrap().write(b"d"), Ok(1));
    pair.run();
    assert_eq!(read_all(&mut pair.device, id).0, b"d");
}

/// Corner case 11, and `drain_partition`: what was begun finishes, what came too late is refused unseen.
#[test]
fn drain_partition() {
    for hop in [false, true] {
        let mut pair = Pair::resumable(Config::default());
        let before = pair.stream(Dir::Bi, b"before");
        let late = pair.service.open(Dir::Bi).unwrap();
        write_some(&mut pair.service, late, 0, 3000).unwrap();
        pair.transmit(Side::Client); // it crosses the DRAIN
        pair.device.drain(pair.now, Duration::from_secs(30), Duration::from_secs(5));
        if hop {
            pair.hop();
        }
        pair.run();
        let news = events(&mut pair.service);
        let draining =
            Event::Draining { deadline: Duration::from_secs(30), retry_after: Duration::from_secs(5) };
        assert!(news.contains(&draining), "{news:?}");
        assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Draining));
        assert_eq!(pair.service.stream(late).unwrap().write(b"y"), Err(WriteError::Stopped(Code::REFUSED)));
        assert_eq!(read_all(&mut pair.service, late).1, Err(ReadError::Reset(Code::REFUSED)));
        assert_eq!(pair.device.accept(Dir::Bi), None, "no application has seen it");

        pair.service.stream(before).unwrap().finish().unwrap();
        pair.run();
        assert_eq!(read_all(&mut pair.device, before), (b"before".to_vec(), Ok(())));
        pair.release(before);
        pair.release(late);
        pair.run();
        assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
        assert_eq!(pair.device.credit().unread, 0, "credit_conservation");
        assert_eq!(pair.service.credit().available, pair.device.credit().promised);
        pair.advance(Duration::from_secs(30));
        let end = |why| Event::Closed(why);
        assert!(events(&mut pair.device).contains(&end(CloseReason::Local(Code::default()))));
    }
}
