//! How much a session keeps of what is on its way: no more than its path takes.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/uploads.rs"]
mod uploads;

use std::time::Duration;

use common::{BOTH, Pair, config, events, read_all, write_some};
use towline_engine::{Event, ReadError, Side, StreamId, Urgency, WriteError};
use uploads::{SEND_BUFFER, SHORT_PATH, arrive, fill, opened, pair, pair_with, read};

/// Measures a round trip of this length from the service's side.
fn measure(pair: &mut Pair, round_trip: Duration) {
    pair.service.ping();
    pair.transmit(Side::Client);
    pair.now = pair.now + round_trip;
    pair.run();
    assert_eq!(pair.service.rtt().unwrap().latest, round_trip);
}

#[test]
fn bulk_gets_what_the_path_takes_and_keys_the_rest() {
    for (round_trip, takes) in [(0, SHORT_PATH), (2_000, 536_870), (4_000, SEND_BUFFER / 8 * 7)] {
        let mut pair = pair();
        for _ in 0..100 {
            measure(&mut pair, Duration::from_micros(round_trip));
        }
        let (bulk, keys) = (opened(&mut pair, Urgency::Bulk), opened(&mut pair, Urgency::Interactive));
        let filled = fill(&mut pair, bulk);
        assert!(filled.abs_diff(takes) < 10, "{round_trip} us: {filled}");
        assert_eq!(fill(&mut pair, keys), SEND_BUFFER - filled, "{round_trip} us");
    }
}

#[test]
fn who_waits_hears_when_the_path_has_half_of_it() {
    let mut pair = pair();
    let id = opened(&mut pair, Urgency::Normal);
    assert_eq!(fill(&mut pair, id), SHORT_PATH);
    events(&mut pair.service);
    while pair.on_the_wire(Side::Client) > 130 << 10 {
        pair.deliver(Side::Client, 16 << 10);
        assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Blocked));
        pair.transmit(Side::Server);
        pair.deliver(Side::Server, usize::MAX);
    }
    assert_eq!(events(&mut pair.service), []);
    read(&mut pair, id);
    assert_eq!(events(&mut pair.service), [Event::Writable(id)]);
    assert_eq!(fill(&mut pair, id), SHORT_PATH);
}

/// Writes and reads as much as may be on its way for a minute, a step after the other. Returns how much each time.
fn upload(pair: &mut Pair, id: StreamId, step: Duration, rest: Duration) -> Vec<u64> {
    let steps = Duration::from_secs(60).as_millis() / (step + rest).as_millis();
    (0..steps)
        .map(|_| {
            let filled = fill(pair, id);
            pair.now = pair.now + step;
            read(pair, id);
            pair.advance_cut_off(rest);
            filled
        })
        .collect()
}

/// The path may change under the same pipe: a device that leaves a LAN, and whose transport follows.
#[test]
fn a_path_that_has_become_longer_is_measured_again() {
    let mut pair = pair();
    let id = opened(&mut pair, Urgency::Normal);
    let step = Duration::from_millis(40);
    let rounds = upload(&mut pair, id, step, Duration::from_millis(500));
    assert!(rounds.is_sorted());
    assert_eq!((rounds[0], rounds[rounds.len() - 1]), (SHORT_PATH, SEND_BUFFER / 8 * 7));
    let measured = pair.service.rtt().unwrap();
    assert_eq!((measured.min, measured.latest), (Duration::ZERO, step));
}

/// A pipe that takes 2.5 MB a second has a queue of its own: what is on its way takes longer, the more there is.
#[test]
fn a_queue_of_its_own_does_not_make_the_path_longer() {
    let mut pair = pair();
    let id = opened(&mut pair, Urgency::Normal);
    for index in 0..400 {
        fill(&mut pair, id);
        if index % 20 == 0 {
            pair.service.ping();
            pair.transmit(Side::Client);
        }
        let on_its_way = pair.on_the_wire(Side::Client);
        assert!(on_its_way < 258 << 10, "{on_its_way} bytes");
        pair.now = pair.now + Duration::from_millis(50);
        pair.deliver(Side::Client, 128 << 10);
        assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Blocked));
        pair.advance_cut_off(Duration::ZERO);
        while pair.transmit(Side::Server) > 0 {}
        pair.deliver(Side::Server, usize::MAX);
        events(&mut pair.service);
    }
    assert!(pair.service.rtt().unwrap().latest >= Duration::from_millis(100), "pings wait in the queue");
}

/// Keys have room of their own, whoever else waits and whatever was written of them.
#[test]
fn keys_and_bulk_do_not_wait_for_each_other() {
    let mut pair = pair();
    let ids = [Urgency::Bulk, Urgency::Interactive].map(|urgency| opened(&mut pair, urgency));
    let [bulk, keys] = ids;
    assert_eq!((fill(&mut pair, keys), fill(&mut pair, bulk)), (SEND_BUFFER, 0));
    for id in [keys, bulk] {
        read(&mut pair, id);
    }
    assert_eq!(write_some(&mut pair.service, keys, 0, 1 << 20), Ok(128 << 10));
    assert_eq!(fill(&mut pair, bulk), SHORT_PATH, "though keys are on their way");
    // Bulk waits now, and keys do not wait with it.
    events(&mut pair.service);
    assert_eq!(write_some(&mut pair.service, bulk, 0, 1), Err(WriteError::Blocked));
    assert_eq!(write_some(&mut pair.service, keys, 0, 1), Ok(1));
}

/// Nothing is on its way once the pipe is lost, and so the send buffer is there for all.
#[test]
fn a_lost_pipe_gives_back_what_the_path_took() {
    for notices in [true, false] {
        let mut pair = pair();
        let [id, other] = [(); 2].map(|()| opened(&mut pair, Urgency::Normal));
        assert_eq!(fill(&mut pair, id), SHORT_PATH);
        assert_eq!(fill(&mut pair, other), 0);
        events(&mut pair.service);
        pair.cut(if notices { &BOTH } else { &[] });
        if !notices {
            pair.reconnect();
        }
        assert!(events(&mut pair.service).contains(&Event::Writable(other)));
        let written = write_some(&mut pair.service, other, 0, 1 << 20).unwrap();
        assert!((8 * ((16 << 10) - 64)..=128 << 10).contains(&written), "its share: {written}");
    }
}

/// Streams whose own windows hold them up never wait for the session's room, and would take all of it in turns.
#[test]
fn who_waits_for_room_is_not_passed_over() {
    let window = 30 << 10;
    let mut pair = Pair::resumable(config(|c| (c.stream_window, c.max_stream_window) = (window, window)));
    pair.cut = 1 << 20;
    let busy = [(); 9].map(|()| opened(&mut pair, Urgency::Normal));
    let late = opened(&mut pair, Urgency::Normal);
    // What is read at once makes the session's window grow, which shall hold nobody up.
    for _ in 0..20 {
        fill(&mut pair, late);
        pair.run();
        assert_eq!(read_all(&mut pair.device, late).1, Err(ReadError::Blocked));
        pair.run();
    }
    pair.advance(Duration::from_millis(25));
    let filled: u64 = busy.map(|id| fill(&mut pair, id)).iter().sum();
    assert_eq!((filled, fill(&mut pair, late)), (SHORT_PATH, 0));
    events(&mut pair.service);
    // Not for so long that the path is measured again.
    for _ in 0..30 {
        // An eighth of what is on its way arrives, is read and acknowledged; who hears of that goes on.
        arrive(&mut pair, 32 << 10, &busy);
        for event in events(&mut pair.service) {
            match event {
                Event::Writable(id) if id == late => return,
                Event::Writable(id) => drop(fill(&mut pair, id)),
                _ => {}
            }
        }
    }
    panic!("it never hears");
}

/// Hands over a key while `bulk` bytes are on their way, and has all of it take `took`. Returns how much more may be on its
/// way then.
fn type_beside(pair: &mut Pair, bulk: StreamId, keys: StreamId, took: Duration) -> u64 {
    fill(pair, bulk);
    for _ in 0..2 {
        // The ping goes out with whatever goes out after the key has.
        assert_eq!(write_some(&mut pair.service, keys, 0, 1), Ok(1));
        while pair.transmit(Side::Client) > 0 {}
    }
    pair.now = pair.now + took;
    read(pair, bulk);
    assert_eq!(read_all(&mut pair.device, keys).1, Err(ReadError::Blocked));
    pair.advance(Duration::from_millis(25));
    fill(pair, bulk)
}

#[test]
fn bulk_gives_way_while_somebody_types() {
    for (took, takes) in [(5, SHORT_PATH), (20, SHORT_PATH / 2), (100, 64 << 10), (3_000, 32 << 10)] {
        let mut pair = pair();
        measure(&mut pair, Duration::ZERO);
        let (bulk, keys) = (opened(&mut pair, Urgency::Bulk), opened(&mut pair, Urgency::Interactive));
        let filled = type_beside(&mut pair, bulk, keys, Duration::from_millis(took));
        assert!(filled.abs_diff(takes) < 100, "{took} ms: {filled}");
        read(&mut pair, bulk);
        // What is on its way when the patience ends was sent before.
        pair.advance(Duration::from_secs(10));
        for _ in 0..2 {
            fill(&mut pair, bulk);
            read(&mut pair, bulk);
        }
        assert_eq!(fill(&mut pair, bulk), SHORT_PATH, "{took} ms: nobody types any more");
    }
}

/// A quarter of a large send buffer, on a path without length; and the quarter of a mebibyte that is left of it with keys.
#[test]
fn bulk_that_is_alone_may_have_more_on_its_way() {
    let mut pair = pair_with(4 << 20);
    measure(&mut pair, Duration::ZERO);
    let (bulk, keys) = (opened(&mut pair, Urgency::Bulk), opened(&mut pair, Urgency::Interactive));
    assert_eq!(fill(&mut pair, bulk), 1 << 20);
    read(&mut pair, bulk);
    let filled = type_beside(&mut pair, bulk, keys, Duration::ZERO);
    assert_eq!(filled, SHORT_PATH);
    read(&mut pair, bulk);
    pair.advance(Duration::from_secs(10));
    for _ in 0..2 {
        fill(&mut pair, bulk);
        read(&mut pair, bulk);
    }
    assert_eq!(fill(&mut pair, bulk), 1 << 20, "nobody types any more");
}

#[test]
fn keys_alone_and_bulk_alone_need_not_give_way() {
    let mut pair = pair();
    measure(&mut pair, Duration::ZERO);
    let (bulk, keys) = (opened(&mut pair, Urgency::Bulk), opened(&mut pair, Urgency::Interactive));
    for _ in 0..10 {
        let pings = pair.service.rtt();
        assert_eq!(write_some(&mut pair.service, keys, 0, 1), Ok(1));
        pair.transmit(Side::Client);
        pair.now = pair.now + Duration::from_millis(3);
        read(&mut pair, keys);
        assert_eq!(fill(&mut pair, bulk), SHORT_PATH);
        pair.now = pair.now + Duration::from_millis(500);
        read(&mut pair, bulk);
        assert_eq!(pair.service.rtt(), pings, "no ping went out");
    }
}

/// Also one of a young session, that is attached in the middle of an upload.
#[test]
fn each_pipe_measures_its_path() {
    let mut pair = pair();
    let bulk = opened(&mut pair, Urgency::Bulk);
    for _ in 0..3 {
        assert_eq!(fill(&mut pair, bulk), SHORT_PATH);
        pair.now = pair.now + Duration::from_secs(1);
        pair.hop(); // and all of it goes out again
        read(&mut pair, bulk);
    }
}

#[test]
fn a_slow_path_is_acknowledged_an_eighth_at_a_time() {
    for (millis, acknowledged) in [(1, 0), (4, 16 << 10)] {
        let mut pair = pair();
        let id = opened(&mut pair, Urgency::Normal);
        let before = pair.service.stream(id).unwrap().acknowledged();
        for _ in 0..2 {
            assert_eq!(write_some(&mut pair.service, id, 0, 8 << 10), Ok(8 << 10));
            pair.run();
            pair.now = pair.now + Duration::from_millis(millis);
        }
        let sent = pair.service.stream(id).unwrap().acknowledged() - before;
        assert_eq!(sent, acknowledged, "8 KiB in {millis} ms");
    }
}
