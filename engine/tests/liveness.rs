//! Time: who is alive, who is asked, who is given up.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{EPOCH, Pair, config, events, hex, read_all, write_some};
use towline_engine::{CloseReason, Config, Dir, Event, Session, Side, Timer, Urgency};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_idle_session_lives_by_its_keepalive() {
    let mut pair = Pair::new(Config::default());
    pair.advance(100 * SECOND);
    assert_eq!((events(&mut pair.service), events(&mut pair.device)), (vec![], vec![]));
    let records = pair.service.stats().records_sent + pair.device.stats().records_sent;
    assert!(records <= 100 / 5 * 4, "at most a ping and a pong from each end every 5 s: {records}");
}

#[test]
fn a_silent_peer_is_asked_then_given_up() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    let start = pair.now;
    assert_eq!(pair.service.poll_timeout(), Some((start + 5 * SECOND, Timer::KeepAlive)));
    pair.advance_cut_off(5 * SECOND);
    assert!(pair.transmit(Side::Client) > 0, "a ping");
    pair.advance_cut_off(9 * SECOND);
    assert_eq!(pair.service.poll_event(), None);
    pair.advance_cut_off(SECOND);
    assert_eq!(events(&mut pair.service), [Event::Closed(CloseReason::IdleTimeout)]);
    assert!(pair.service.stream(id).unwrap().write(b"y").is_err());
    assert!(!pair.service.wants_transmit(), "silently (RFC 9000 §10.1)");
}

#[test]
fn any_byte_is_life() {
    // A peer whose records trickle in byte by byte, with no frame complete for a minute, is alive.
    let mut pair = Pair::new(config(|c| c.keep_alive = None));
    let id = pair.stream(Dir::Bi, b"x");
    write_some(&mut pair.device, id, 0, 60).unwrap();
    pair.transmit(Side::Server);
    while pair.on_the_wire(Side::Server) > 0 {
        pair.advance_cut_off(SECOND);
        pair.deliver(Side::Server, 1);
    }
    assert!(!pair.service.is_closed());
}

#[test]
fn a_stalled_write_alone_does_not_kill() {
    // The pipe takes nothing from this end for a minute, but the peer is heard.
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    write_some(&mut pair.service, id, 1, 1000).unwrap();
    for sequence in 1..60 {
        pair.advance_cut_off(SECOND);
        let ping = format!("09 f48c67529ef8c7bd {sequence:02x}");
        pair.service.handle_input(pair.now, EPOCH, hex(&ping).into());
        // It has a ping and pongs to send, and does not wake for them again and again.
        assert!(pair.service.poll_timeout().unwrap().0 > pair.now);
    }
    assert!(!pair.service.is_closed());
}

#[test]
fn single_owed_pong() {
    let mut pair = Pair::new(Config::default());
    for _ in 0..1000 {
        pair.device.ping();
        pair.transmit(Side::Server);
        pair.deliver(Side::Server, usize::MAX);
    }
    let before = pair.service.stats();
    let length = pair.transmit(Side::Client);
    assert!((1..40).contains(&length), "one pong answers a thousand pings");
    assert_eq!(pair.service.stats().records_sent, before.records_sent + 1);
    assert!(!pair.service.wants_transmit());
}

#[test]
fn rtt_at_wire() {
    let mut pair = Pair::new(Config::default());
    pair.service.ping();
    pair.advance_cut_off(SECOND); // before the pipe takes the ping
    pair.transmit(Side::Client);
    pair.advance_cut_off(Duration::from_millis(30));
    pair.deliver(Side::Client, usize::MAX);
    pair.transmit(Side::Server);
    pair.advance_cut_off(Duration::from_millis(12));
    pair.deliver(Side::Server, usize::MAX);
    assert_eq!(pair.service.rtt().unwrap().latest, Duration::from_millis(42));
}

/// Pong, reset and credit leave within one record of bulk; so does an interactive stream's data.
#[test]
fn control_under_bulk() {
    let mut pair = Pair::new(common::wide());
    pair.cut = usize::MAX;
    let bulk = pair.stream(Dir::Uni, b"x");
    let dropped = pair.stream(Dir::Bi, b"x");
    let keys = pair.stream(Dir::Bi, b"x");
    pair.service.stream(keys).unwrap().set_urgency(Urgency::Interactive);
    pair.device.stream(dropped).unwrap().write(&[0; 200_000]).unwrap();
    pair.run();
    write_some(&mut pair.service, bulk, 1, 100_000).unwrap();
    pair.transmit(Side::Client); // a record of bulk is under way; everything else comes after it

    pair.device.ping();
    pair.transmit(Side::Server);
    pair.deliver(Side::Server, usize::MAX);
    assert_eq!(read_all(&mut pair.service, dropped).0.len(), 128 << 10);
    pair.service.stream(dropped).unwrap().reset(1.into()).unwrap();
    pair.service.stream(keys).unwrap().write(b"k").unwrap();

    pair.deliver(Side::Client, usize::MAX);
    pair.advance_cut_off(Duration::from_millis(7));
    pair.transmit(Side::Client);
    pair.deliver(Side::Client, usize::MAX);
    assert_eq!(read_all(&mut pair.device, keys).0, b"xk");
    assert_eq!(pair.device.rtt().unwrap().latest, Duration::from_millis(7), "the pong");
    assert!(read_all(&mut pair.device, dropped).1.is_err());
    assert!(pair.service.wants_transmit(), "bulk goes on");
}

/// Corner case 13 and 15: 100 kB each way over a pipe that holds 1 KiB, with a ping in the middle.
#[test]
fn read_without_write() {
    let mut pair = Pair::new(common::wide());
    pair.capacity = 1024;
    pair.cut = 100;
    let id = pair.stream(Dir::Bi, &[common::pattern(0)]);
    write_some(&mut pair.service, id, 1, 99_999).unwrap();
    write_some(&mut pair.device, id, 0, 100_000).unwrap();
    // Neither end's pipe takes anything while the other's bytes pour in.
    let mut poured = Vec::new();
    for side in [Side::Client, Side::Server] {
        let (mut end, mut out) = (pair.end(side).clone(), Vec::new());
        while end.poll_transmit(pair.now, 1 << 16, &mut out) > 0 {}
        poured.push(out.concat());
    }
    pair.service.handle_input(pair.now, EPOCH, poured.remove(1).into());
    pair.device.handle_input(pair.now, EPOCH, poured.remove(0).into());
    assert_eq!(read_all(&mut pair.service, id).0.len(), 100_000);
    assert_eq!(read_all(&mut pair.device, id).0.len(), 100_000);
}

#[test]
fn two_writers_and_a_small_pipe_never_wait_for_each_other() {
    let mut pair = Pair::new(Config::default());
    (pair.capacity, pair.cut) = (1024, 300);
    let id = pair.stream(Dir::Bi, &[common::pattern(0)]);
    let (mut written, mut read) = ([1, 0], [0, 0]);
    while read != [100_000, 100_000] {
        for (n, side) in [Side::Client, Side::Server].into_iter().enumerate() {
            let left = 100_000 - written[n];
            written[n] += write_some(pair.end(side), id, written[n], left).unwrap_or(0);
            if written[n] == 50_000 {
                pair.end(side).ping();
            }
            pair.transmit(side);
            pair.deliver(side, 300);
            read[1 - n] += read_all(pair.end(side.peer()), id).0.len();
        }
    }
}

#[test]
fn jumps_of_time_are_safe() {
    let mut pair = Pair::new(config(|c| c.idle_timeout = Duration::ZERO));
    pair.jump(Duration::from_secs(u32::MAX.into()));
    pair.jump(Duration::MAX);
    let before = towline_engine::Instant::default();
    pair.service.handle_timeout(before);
    pair.service.handle_input(before, EPOCH, hex("01 00").into());
    pair.service.check_invariants();
    assert!(!pair.service.is_closed());
}

#[test]
fn the_shorter_idle_timeout_holds_for_both() {
    let mut pair = Pair::with(
        config(|c| (c.idle_timeout, c.keep_alive) = (60 * SECOND, None)),
        config(|c| (c.idle_timeout, c.keep_alive) = (2 * SECOND, None)),
    );
    for session in [&pair.service, &pair.device] {
        let (at, timer) = session.poll_timeout().unwrap();
        assert_eq!((at.saturating_duration_since(pair.now), timer), (2 * SECOND, Timer::Idle));
    }
    pair.advance(2 * SECOND);
    assert!(pair.service.is_closed() && pair.device.is_closed());
}

#[test]
fn a_peer_that_never_declares_itself_is_given_up() {
    let mut session = Session::new(Side::Server, Config::default());
    session.attach(common::Pair::unattached(Config::default(), Config::default()).now, EPOCH).unwrap();
    let (at, timer) = session.poll_timeout().unwrap();
    assert_eq!(timer, Timer::Idle);
    session.handle_timeout(at);
    assert_eq!(events(&mut session), [Event::Closed(CloseReason::IdleTimeout)]);
}
