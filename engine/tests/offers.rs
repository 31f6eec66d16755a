//! Who hears that a session has room again, and how much of it is theirs: all have their turn, whatever one of them does.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/uploads.rs"]
mod uploads;

use std::time::Duration;

use common::{Pair, config, events, read_all, write_some};
use towline_engine::{Config, Dir, Event, ReadError, Side, StreamId, Timer, Urgency, WriteError};
use uploads::{SEND_BUFFER, SHORT_PATH, arrive, fill, opened, pair, pair_with, read};

/// The streams whose writers hear now that there is room.
fn told(pair: &mut Pair) -> Vec<StreamId> {
    let writable = |event| if let Event::Writable(id) = event { Some(id) } else { None };
    events(&mut pair.service).into_iter().filter_map(writable).collect()
}

/// All that is on its way arrives, is read and acknowledged.
fn drain(pair: &mut Pair, ids: &[StreamId]) {
    pair.run();
    for &id in ids {
        assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Blocked));
    }
    pair.advance(Duration::from_millis(25));
}

/// All that is on its way arrives, is read, and acknowledged at once, since all of it together is enough for that.
fn arrive_at_once(pair: &mut Pair, ids: &[StreamId]) {
    pair.run();
    for &id in ids {
        assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Blocked));
    }
    pair.run();
}

/// So many streams that wait for room, of which there is some now, since what another one had taken of it has arrived.
fn waiting<const COUNT: usize>(pair: &mut Pair) -> [StreamId; COUNT] {
    let (first, others) = waiting_in_vain(pair);
    read(pair, first);
    others
}

/// So many streams that wait for room, and who has taken all of it.
fn waiting_in_vain<const COUNT: usize>(pair: &mut Pair) -> (StreamId, [StreamId; COUNT]) {
    let first = opened(pair, Urgency::Normal);
    let others = [(); COUNT].map(|()| opened(pair, Urgency::Normal));
    assert_eq!(fill(pair, first), SHORT_PATH);
    for id in others {
        assert_eq!(fill(pair, id), 0);
    }
    told(pair);
    (first, others)
}

/// How much each of these writes in so many rounds, whenever it is told of room. All else that is told does not write.
fn written<const COUNT: usize>(
    pair: &mut Pair,
    ids: [StreamId; COUNT],
    rounds: usize,
    mut before: impl FnMut(&mut Pair),
) -> [u64; COUNT] {
    let mut written = [0; COUNT];
    for _ in 0..rounds {
        for id in told(pair) {
            if let Some(place) = ids.iter().position(|&other| other == id) {
                written[place] += write_some(&mut pair.service, id, 0, 1 << 20).unwrap_or(0) as u64;
            }
        }
        before(pair);
        drain(pair, &ids);
    }
    written
}

fn assert_fair(written: &[u64]) {
    let [least, most] = [written.iter().min(), written.iter().max()].map(|count| *count.unwrap());
    assert!(least > 0 && most <= least * 5 / 4, "{written:?}");
}

/// Each of them could take all of the room that there is, and is woken in the same order each time.
#[test]
fn who_writes_all_the_time_leaves_room_for_others() {
    let mut pair = pair();
    let all = [(); 3].map(|()| opened(&mut pair, Urgency::Normal));
    for id in all {
        fill(&mut pair, id);
    }
    let mut written = [0; 3];
    events(&mut pair.service);
    for _ in 0..30 {
        pair.run();
        for id in all {
            assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Blocked));
        }
        pair.advance(Duration::from_millis(25));
        for id in told(&mut pair) {
            let place = all.iter().position(|other| *other == id).unwrap();
            written[place] += fill(&mut pair, id);
        }
    }
    let [least, most] = [written.iter().min(), written.iter().max()].map(|count| *count.unwrap());
    assert!(least > 0 && most <= least * 11 / 10, "{written:?}");
}

/// However many wait, whoever is woken finds room, and all have their turn.
#[test]
fn as_many_hear_of_room_as_find_some() {
    let mut pair = pair();
    let first = opened(&mut pair, Urgency::Normal);
    let others = [(); 20].map(|()| opened(&mut pair, Urgency::Normal));
    assert_eq!(fill(&mut pair, first), SHORT_PATH);
    for id in others {
        assert_eq!(fill(&mut pair, id), 0);
    }
    events(&mut pair.service);
    let in_order: Vec<_> = [first].into_iter().chain(others).collect();
    let mut turns = Vec::new();
    while turns.len() < 30 {
        // Something is always on its way.
        arrive(&mut pair, 131 << 10, &in_order);
        let told = told(&mut pair);
        assert!((1..=2).contains(&told.len()), "as much as a stream may write at all, of 256 KiB: {told:?}");
        for id in told {
            let written = fill(&mut pair, id);
            assert_eq!(written, 8 * ((16 << 10) - 64), "the rest comes after the others");
            turns.push(id);
        }
    }
    assert_eq!((&turns[..21], &turns[21..]), (&in_order[..], &in_order[..9]));
}

/// Who is told and does not write keeps room from nobody for longer than until what is on its way has come; also if keys
/// are on their way all the time.
#[test]
fn who_hears_of_room_and_does_not_write_keeps_nobody_waiting() {
    let mut pair = pair();
    let keys = opened(&mut pair, Urgency::Interactive);
    let first = opened(&mut pair, Urgency::Normal);
    let others = [(); 40].map(|()| opened(&mut pair, Urgency::Normal));
    assert_eq!(fill(&mut pair, first), SHORT_PATH);
    for id in others {
        assert_eq!(fill(&mut pair, id), 0);
    }
    let mut all_told = std::collections::BTreeSet::new();
    for _ in 0..3 {
        read(&mut pair, first);
        assert_eq!(write_some(&mut pair.service, keys, 0, 1), Ok(1));
        while pair.transmit(Side::Client) > 0 {}
        all_told.extend(told(&mut pair));
    }
    assert!(others.iter().all(|id| all_told.contains(id)));
    let late = opened(&mut pair, Urgency::Normal);
    assert_eq!(write_some(&mut pair.service, late, 0, 1), Ok(1));
}

/// Where all that is written arrives at once, nothing is held each time. To tell all of many then would wake most in vain.
#[test]
fn of_many_only_those_are_told_who_find_room() {
    let mut pair = pair();
    let (first, others) = waiting_in_vain::<100>(&mut pair);
    let all: Vec<_> = [first].into_iter().chain(others).collect();
    let mut heard = std::collections::BTreeSet::new();
    for round in 0..100 {
        arrive_at_once(&mut pair, &all);
        for id in told(&mut pair) {
            assert!(fill(&mut pair, id) > 0, "round {round}: {id:?} was told in vain");
            heard.insert(id);
        }
    }
    assert!(all.iter().all(|id| heard.contains(id)), "{} had their turn", heard.len());
}

/// And if none of those who were told comes, all hear of it in the end, once.
#[test]
fn all_of_many_are_told_once_nobody_has_come_for_long() {
    let mut pair = pair();
    let (first, others) = waiting_in_vain::<100>(&mut pair);
    arrive_at_once(&mut pair, &[first]);
    let early = told(&mut pair);
    assert!(!early.is_empty() && early.len() < others.len() / 2, "{}", early.len());
    let (at, timer) = pair.service.poll_timeout().unwrap();
    assert_eq!((at.saturating_duration_since(pair.now), timer), (Duration::from_millis(10), Timer::Room));
    pair.advance(Duration::from_millis(10));
    let late = told(&mut pair);
    assert_eq!(early.len() + late.len(), others.len() + 1);
    assert_ne!(pair.service.poll_timeout().unwrap().1, Timer::Room);
    assert!(fill(&mut pair, *late.last().unwrap()) > 0);
}

/// Who comes too late then, and is refused, hears again, though nobody else comes.
#[test]
fn who_was_told_with_all_others_and_is_refused_is_told_again() {
    let mut pair = pair();
    let (first, _) = waiting_in_vain::<100>(&mut pair);
    arrive_at_once(&mut pair, &[first]);
    told(&mut pair);
    pair.advance(Duration::from_millis(10));
    let late = told(&mut pair);
    let [quick, slow] = [late[0], *late.last().unwrap()];
    assert!(fill(&mut pair, quick) > 0);
    assert_eq!(fill(&mut pair, slow), 0);
    arrive_at_once(&mut pair, &[quick]);
    let mut again = told(&mut pair);
    pair.advance(Duration::from_millis(10));
    again.extend(told(&mut pair));
    assert!(again.contains(&slow), "{again:?}");
    assert!(fill(&mut pair, slow) > 0);
}

/// Nor do those who were told and never come keep others waiting while somebody else writes now and then.
#[test]
fn all_of_many_are_told_though_others_write_a_little() {
    let mut pair = Pair::new(config(|c| (c.stream_window, c.send_buffer) = (4 << 20, 64 << 10)));
    let [first, newcomer] = [(); 2].map(|()| pair.stream(Dir::Bi, b"x"));
    let others = [(); 100].map(|()| pair.stream(Dir::Bi, b"x"));
    assert!(write_some(&mut pair.service, first, 0, 1 << 20).is_ok());
    for id in others {
        assert_eq!(write_some(&mut pair.service, id, 0, 1), Err(WriteError::Blocked));
    }
    told(&mut pair);
    let mut all_told = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let _ = write_some(&mut pair.service, newcomer, 0, 100);
        while pair.transmit(Side::Client) > 0 {}
        pair.advance(Duration::from_millis(3));
        all_told.extend(told(&mut pair));
    }
    assert!(others.iter().all(|id| all_told.contains(id)), "{} were told", all_told.len());
}

/// A write that is cancelled leaves a stream that was told and never comes.
#[test]
fn whoever_does_not_write_takes_nothing_from_others() {
    let whole = SHORT_PATH - (16 << 10);
    for idle in 0..3 {
        let mut pair = pair();
        let ids: [_; 4] = waiting(&mut pair);
        // Those who were told first stay silent.
        let writers = [2, 3].map(|place| ids[place]);
        for &id in &ids[idle..2] {
            pair.service.stream(id).unwrap().finish().unwrap();
        }
        let written = written(&mut pair, writers, 100, |_| ());
        assert_fair(&written);
        assert!(written.iter().sum::<u64>() > 95 * whole, "{idle} silent: {written:?}");
    }
}

/// The same while somebody types over a slow path, so that there is little room for all.
#[test]
fn whoever_does_not_write_takes_nothing_from_others_where_bulk_gives_way() {
    for idle in 0..3 {
        let mut pair = pair();
        let keys = opened(&mut pair, Urgency::Interactive);
        let ids: [_; 6] = waiting(&mut pair);
        for &id in &ids[idle..2] {
            pair.service.stream(id).unwrap().finish().unwrap();
        }
        let writers = [2, 3, 4, 5].map(|place| ids[place]);
        let written = written(&mut pair, writers, 200, |pair| {
            assert_eq!(write_some(&mut pair.service, keys, 0, 1), Ok(1));
            while pair.transmit(Side::Client) > 0 {}
            pair.now = pair.now + Duration::from_millis(500);
            pair.run();
            assert_eq!(read_all(&mut pair.device, keys).1, Err(ReadError::Blocked));
        });
        assert_fair(&written);
    }
}

/// Who comes just when nothing is on its way has not more than twice what those have who wait.
#[test]
fn who_comes_first_does_not_take_what_others_were_told_of() {
    let mut pair = pair();
    let newcomer = opened(&mut pair, Urgency::Normal);
    let ids: [_; 6] = waiting(&mut pair);
    let mut taken = 0;
    let written = written(&mut pair, ids, 120, |pair| {
        drain(pair, &[newcomer]);
        taken += write_some(&mut pair.service, newcomer, 0, 128 << 10).unwrap_or(0) as u64;
    });
    let [least, most] = [written.iter().min(), written.iter().max()].map(|count| *count.unwrap());
    assert!(most <= 2 * least, "{written:?}");
    assert!(taken <= written[0] * 5 / 2, "{taken} beside {written:?}");
}

#[test]
fn who_says_again_how_urgent_it_is_keeps_what_it_was_offered() {
    let mut pair = pair();
    let ids: [_; 4] = waiting(&mut pair);
    let mut urgencies = [Urgency::Normal, Urgency::Bulk].into_iter().cycle();
    let written = written(&mut pair, ids, 80, |pair| {
        pair.service.stream(ids[1]).unwrap().set_urgency(Urgency::Normal);
        pair.service.stream(ids[2]).unwrap().set_urgency(urgencies.next().unwrap());
    });
    assert!(written.iter().all(|&count| count * 5 > written[0] * 4), "{written:?}");
}

/// Also while there is no pipe, so that nothing goes out that would bring it about.
#[test]
fn what_was_offered_to_who_finishes_is_there_for_others() {
    let mut pair = pair();
    let (_, ids) = waiting_in_vain::<20>(&mut pair);
    pair.cut(&common::BOTH);
    let first = told(&mut pair);
    assert!(!first.is_empty() && first.len() < ids.len(), "{first:?}");
    for id in first {
        pair.service.stream(id).unwrap().finish().unwrap();
    }
    assert!(!told(&mut pair).is_empty());
}

/// Keys that fill the buffer by themselves do not wait for bulk that was told of room.
#[test]
fn keys_do_not_wait_for_bulk_that_was_told() {
    for idle in [false, true] {
        let mut pair = pair();
        let keys = opened(&mut pair, Urgency::Interactive);
        let ids: [_; 2] = waiting(&mut pair);
        assert!(told(&mut pair).contains(&ids[0]));
        if !idle {
            pair.service.stream(ids[0]).unwrap().finish().unwrap();
        }
        fill(&mut pair, keys);
        while !told(&mut pair).contains(&keys) {
            assert!(pair.on_the_wire(Side::Client) > (SEND_BUFFER / 3) as usize, "idle: {idle}");
            arrive(&mut pair, 32 << 10, &[keys]);
        }
    }
}

/// Told of room that it has not, a writer would ask for it, and be told again, without end.
#[test]
fn keys_that_wait_for_credit_are_not_told_of_the_buffer() {
    let limits = |c: &mut Config| (c.stream_window, c.session_window) = (100, 100);
    let mut pair = Pair::new(config(limits));
    let [bulk, keys] = [(); 2].map(|()| pair.stream(Dir::Bi, b"x"));
    pair.service.stream(keys).unwrap().set_urgency(Urgency::Interactive);
    assert_eq!(write_some(&mut pair.service, bulk, 1, 200), Ok(98));
    pair.run();
    told(&mut pair);
    for _ in 0..3 {
        assert!(write_some(&mut pair.service, keys, 1, 1).is_err());
        assert_eq!(told(&mut pair), []);
    }
    assert_eq!(read_all(&mut pair.device, bulk).0.len(), 99);
    pair.run();
    assert!(told(&mut pair).contains(&keys));
    assert_eq!(write_some(&mut pair.service, keys, 1, 1), Ok(1));
}

/// A session of which bulk takes all the credit that there is, and somebody types beside it.
fn pair_short_of_credit(window: u64, send_buffer: u64) -> (Pair, [StreamId; 2]) {
    let mut pair = Pair::new(config(|c| {
        (c.stream_window, c.session_window, c.send_buffer) = (window, window, send_buffer);
    }));
    pair.cut = 1 << 20;
    let ids = [Urgency::Normal, Urgency::Interactive].map(|urgency| opened(&mut pair, urgency));
    (pair, ids)
}

/// Bulk takes all the credit, so that a key finds none. Then bulk is read, so that more comes, of which both are told.
fn credit_comes(pair: &mut Pair, [bulk, keys]: [StreamId; 2]) {
    fill(pair, bulk);
    assert_eq!(write_some(&mut pair.service, keys, 1, 1), Err(WriteError::Blocked));
    told(pair);
    arrive_at_once(pair, &[bulk]);
    let told = told(pair);
    assert!(told.contains(&keys) && told.contains(&bulk), "{told:?}");
}

/// Bulk takes all the session's credit whenever there is some, and always comes first. A key waits for it once, and no more.
#[test]
fn keys_are_not_outrun_where_credit_is_what_all_wait_for() {
    let (mut pair, [bulk, keys]) = pair_short_of_credit(256 << 10, SEND_BUFFER);
    for round in 0..20 {
        credit_comes(&mut pair, [bulk, keys]);
        assert!(fill(&mut pair, bulk) > 64 << 10, "round {round}");
        assert_eq!(write_some(&mut pair.service, keys, 1, 1), Ok(1), "round {round}");
        assert!(told(&mut pair).contains(&bulk), "round {round}: what the key has left is for bulk");
    }
}

#[test]
fn credit_is_kept_for_keys_though_more_comes_before_them() {
    let (mut pair, [bulk, keys]) = pair_short_of_credit(256 << 10, SEND_BUFFER);
    credit_comes(&mut pair, [bulk, keys]);
    fill(&mut pair, bulk);
    arrive_at_once(&mut pair, &[bulk]);
    assert!(fill(&mut pair, bulk) > 64 << 10);
    assert_eq!(write_some(&mut pair.service, keys, 1, 1), Ok(1));
}

/// A key that never comes keeps bulk from nothing for longer than a moment, whether or not the peer gives more.
#[test]
fn what_is_kept_for_keys_that_do_not_come_is_for_all() {
    let (mut pair, ids) = pair_short_of_credit(256 << 10, SEND_BUFFER);
    credit_comes(&mut pair, ids);
    let [bulk, _] = ids;
    fill(&mut pair, bulk);
    told(&mut pair);
    pair.advance(Duration::from_millis(9));
    assert_eq!((told(&mut pair), fill(&mut pair, bulk)), (vec![], 0));
    pair.advance(Duration::from_millis(1));
    assert_eq!(told(&mut pair), [bulk]);
    assert_eq!(fill(&mut pair, bulk), 16 << 10);
}

/// Bulk hears of room once half of the buffer is free. Who waits for credit and not for room hears when that comes.
#[test]
fn keys_hear_of_credit_though_the_buffer_is_full() {
    const PART: usize = 34 << 10;
    let (mut pair, [bulk, keys]) = pair_short_of_credit(6 * PART as u64 + 2, 40 << 10);
    for _ in 0..5 {
        assert_eq!(write_some(&mut pair.service, bulk, 1, PART), Ok(PART));
        pair.run();
    }
    assert_eq!(write_some(&mut pair.service, bulk, 1, PART), Ok(PART), "held, and all the credit");
    assert_eq!(write_some(&mut pair.service, keys, 1, 1), Err(WriteError::Blocked));
    told(&mut pair);
    assert_eq!(read_all(&mut pair.device, bulk).0.len(), 1 + 5 * PART);
    while pair.transmit(Side::Server) > 0 {}
    pair.deliver(Side::Server, usize::MAX);
    assert_eq!(told(&mut pair), [keys]);
    assert_eq!(write_some(&mut pair.service, keys, 1, 1), Ok(1));
}

/// Where the room is less than what a record carries, whoever takes all of it has had its turn.
#[test]
fn little_room_is_taken_in_turns_as_well() {
    let mut pair = pair_with(24 << 10);
    let ids = [(); 4].map(|()| opened(&mut pair, Urgency::Normal));
    for id in ids {
        fill(&mut pair, id);
    }
    let mut written = [0; 4];
    for _ in 0..200 {
        // Some of it is on its way at all times.
        arrive(&mut pair, 12 << 10, &ids);
        for id in told(&mut pair) {
            let place = ids.iter().position(|&other| other == id).unwrap();
            written[place] += fill(&mut pair, id);
        }
    }
    assert_fair(&written);
}

/// Four wait for a buffer that one offer fills, and the one who has it comes late. Nobody who asks when told, and is refused,
/// is told again for ever.
#[test]
fn who_is_told_when_nothing_is_held_finds_room() {
    let mut pair = Pair::new(config(|c| (c.stream_window, c.send_buffer) = (4 << 20, 16 << 10)));
    let ids = [(); 4].map(|()| pair.stream(Dir::Bi, b"x"));
    let late = ids[0];
    assert!(write_some(&mut pair.service, late, 0, 1 << 20).is_ok());
    for &id in &ids[1..] {
        assert_eq!(write_some(&mut pair.service, id, 0, 1), Err(WriteError::Blocked));
    }
    told(&mut pair);
    while pair.transmit(Side::Client) > 0 {}
    let (mut asked, mut is_late) = (0, true);
    while let Some(event) = pair.service.poll_event() {
        let Event::Writable(id) = event else { continue };
        if id == late && is_late {
            continue;
        }
        asked += 1;
        assert!(asked < 20, "they are told again and again");
        if write_some(&mut pair.service, id, 0, 1000).is_ok() {
            return;
        }
        if asked == 3 {
            is_late = false;
            let _ = write_some(&mut pair.service, late, 0, 1000);
        }
    }
    panic!("nobody else is told");
}
