//! Closing is behaviour: the last byte arrives, and it is clear what happened when it cannot.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{EPOCH, ONE, Pair, config, events, read_all, write_some};
use towline_engine::{
    CloseReason, Config, Dir, Event, OpenError, PipeClosed, ReadError, Sending, Side, WriteError,
};

fn closed(session: &mut towline_engine::Session) -> Option<CloseReason> {
    events(session).into_iter().find_map(|event| match event {
        Event::Closed(reason) => Some(reason),
        _ => None,
    })
}

/// Corner case 18: data accepted before `close` arrives at a peer that reads slowly.
#[test]
fn close_flushes() {
    let mut pair = Pair::new(Config::default());
    pair.capacity = 100;
    let finished = pair.stream(Dir::Bi, b"x");
    let open = pair.stream(Dir::Bi, b"y");
    write_some(&mut pair.service, finished, 1, 50_000).unwrap();
    write_some(&mut pair.service, open, 1, 50_000).unwrap();
    pair.service.stream(finished).unwrap().finish().unwrap();
    pair.service.close(pair.now, ONE, b"done");
    assert_eq!(pair.service.poll_event(), None, "not before it has gone out");
    pair.run();
    assert_eq!(closed(&mut pair.service), Some(CloseReason::Local(ONE)));

    let reason = CloseReason::Peer { code: ONE, reason: b"done"[..].into() };
    assert_eq!(closed(&mut pair.device), Some(reason));
    let (bytes, how) = read_all(&mut pair.device, finished);
    assert_eq!((bytes.len(), how), (50_001, Ok(())));
    let (bytes, how) = read_all(&mut pair.device, open);
    assert_eq!((bytes.len(), how), (50_001, Err(ReadError::Closed)), "all of it, but no end");
}

/// `one_terminal_event`: a stream that is accepted from a session that is over has no news.
#[test]
fn nothing_follows_closed() {
    let mut pair = Pair::new(Config::default());
    let id = pair.service.open(Dir::Bi).unwrap();
    write_some(&mut pair.service, id, 0, 10).unwrap();
    pair.service.stream(id).unwrap().stop(ONE).unwrap();
    pair.run();
    pair.device.handle_pipe_closed(pair.now, EPOCH, PipeClosed::Failed);
    assert!(matches!(events(&mut pair.device)[..], [.., Event::Closed(_)]));
    assert_eq!(pair.device.accept(Dir::Bi), Some(id));
    assert_eq!(events(&mut pair.device), []);
    assert_eq!(pair.device.stream(id).unwrap().sending(), Sending::Stopped(ONE), "it can be asked");
}

#[test]
fn after_close_nothing_new_is_accepted() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    pair.service.close(pair.now, ONE, b"");
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Closed));
    assert_eq!(pair.service.stream(id).unwrap().write(b"y"), Err(WriteError::Closed));
    // A handle that is dropped now must not take back what was accepted before.
    pair.service.release(id, ONE);
    pair.run();
    assert_eq!(read_all(&mut pair.device, id), (b"x".to_vec(), Err(ReadError::Closed)));
    pair.device.release(id, ONE);
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
}

#[test]
fn a_close_that_cannot_go_out_ends_by_its_timeout() {
    let mut pair = Pair::new(config(|c| c.idle_timeout = Duration::ZERO));
    let id = pair.stream(Dir::Bi, b"x");
    write_some(&mut pair.service, id, 1, 1000).unwrap();
    pair.service.close(pair.now, ONE, b"");
    pair.advance_cut_off(Duration::from_secs(9));
    assert_eq!(closed(&mut pair.service), None);
    pair.advance_cut_off(Duration::from_secs(1));
    assert_eq!(closed(&mut pair.service), Some(CloseReason::LocalUnflushed(ONE)));
    // Should the pipe move again, the peer at least hears why.
    pair.run();
    assert!(matches!(closed(&mut pair.device), Some(CloseReason::Peer { code: ONE, .. })));
}

#[test]
fn a_close_before_the_peer_declared_itself_reaches_it() {
    let mut pair = Pair::unattached(Config::default(), Config::default());
    pair.service.attach(pair.now, EPOCH).unwrap();
    pair.service.close(pair.now, ONE, b"never mind");
    pair.run();
    pair.device.attach(pair.now, EPOCH).unwrap();
    assert_eq!(closed(&mut pair.service), Some(CloseReason::Local(ONE)));
}

#[test]
fn both_close_at_once() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    for side in [Side::Client, Side::Server] {
        let now = pair.now;
        pair.end(side).close(now, ONE, b"");
        pair.transmit(side);
    }
    pair.run();
    assert_eq!(closed(&mut pair.service), Some(CloseReason::Local(ONE)));
    assert_eq!(closed(&mut pair.device), Some(CloseReason::Local(ONE)));
    assert_eq!(read_all(&mut pair.device, id).0, b"x");
}

#[test]
fn a_lost_pipe_is_not_an_end_of_file() {
    for how in [PipeClosed::Finished, PipeClosed::Failed] {
        let mut pair = Pair::new(Config::default());
        let id = pair.stream(Dir::Bi, b"x");
        pair.device.handle_pipe_closed(pair.now, EPOCH, how);
        assert_eq!(closed(&mut pair.device), Some(CloseReason::PipeLost(how)));
        assert_eq!(read_all(&mut pair.device, id), (b"x".to_vec(), Err(ReadError::Closed)));
        assert_eq!(pair.device.poll_timeout(), None, "nothing is left to wait for");
        assert!(!pair.device.wants_transmit());
    }
}

#[test]
fn long_reasons_are_cut() {
    let mut pair = Pair::new(Config::default());
    pair.service.close(pair.now, ONE, &[b'x'; 10_000]);
    pair.run();
    let Some(CloseReason::Peer { reason, .. }) = closed(&mut pair.device) else {
        panic!("closed by the peer")
    };
    assert_eq!(reason.len(), towline_engine::MAX_REASON);
}

/// A handle that is dropped right after `finish` takes nothing back.
#[test]
fn what_was_finished_goes_out_after_the_release() {
    let mut pair = Pair::new(common::wide());
    let id = pair.stream(Dir::Bi, b"x");
    write_some(&mut pair.service, id, 1, 100_000).unwrap();
    pair.service.stream(id).unwrap().finish().unwrap();
    pair.service.release(id, ONE);
    pair.run();
    let (bytes, how) = read_all(&mut pair.device, id);
    assert_eq!((bytes.len(), how), (100_001, Ok(())));
    pair.device.release(id, ONE);
    pair.run();
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
}
