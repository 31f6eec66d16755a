//! Memory and turns: nothing that a peer sends makes the engine remember more than was promised, and nobody
//! is passed over.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use common::{EPOCH, Pair, config, events, hex, read_all, write_some};
use proptest::prelude::*;
use towline_engine::{
    Acceptor, CloseReason, Code, Config, Dir, Event, Instant, Resumption, Session, Side, Urgency, Violation,
};

fn record(session: &mut Session, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    session.poll_transmit(now, 1 << 16, &mut out);
    out.concat()
}

#[test]
fn fair_bound() {
    // Backlogged streams take turns, a record each.
    let mut pair = Pair::new(common::wide());
    pair.cut = usize::MAX;
    let ids: Vec<_> = (0..5).map(|_| pair.service.open(Dir::Uni).unwrap()).collect();
    for &id in &ids {
        write_some(&mut pair.service, id, 0, 100_000).unwrap();
    }
    let mut arrived = [0; 5];
    for turn in 1..=25 {
        pair.transmit(Side::Client);
        pair.deliver(Side::Client, usize::MAX);
        while pair.device.accept(Dir::Uni).is_some() {}
        for (n, &id) in ids.iter().enumerate() {
            if pair.device.stream(id).is_ok() {
                arrived[n] += read_all(&mut pair.device, id).0.len();
            }
        }
        let (least, most) = (arrived.iter().min().unwrap(), arrived.iter().max().unwrap());
        assert!(most - least <= 16384, "after {turn} records: {arrived:?}");
    }
}

#[test]
fn work_conserving() {
    // As long as anybody may send anything, something goes out, and records are as full as whole turns make them.
    let mut pair = Pair::new(common::wide());
    let mut total = 0;
    for n in 0..40 {
        let id = pair.service.open(Dir::Uni).unwrap();
        let count = 700 + 997 * n % 29_000;
        assert_eq!(write_some(&mut pair.service, id, 0, count), Ok(count));
        pair.service.stream(id).unwrap().set_urgency([Urgency::Bulk, Urgency::Normal][n % 2]);
        total += count;
    }
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < total {
        lengths.push(record(&mut pair.service, pair.now).len());
    }
    let (_, others) = lengths.split_last().unwrap();
    assert!(others.iter().all(|&length| length > 16384 / 8), "{lengths:?}");
    assert!(lengths.len() <= total.div_ceil(16384) * 5 / 4, "{lengths:?}");
}

/// A turn that a record cuts in two would have all turns after it cut as well, for as long as there is a backlog.
#[test]
fn turns_among_others_are_frames_of_their_own() {
    let mut pair = Pair::new(common::wide());
    for count in [5000, 100_000, 100_000, 100_000] {
        let id = pair.service.open(Dir::Uni).unwrap();
        assert_eq!(write_some(&mut pair.service, id, 0, count), Ok(count));
    }
    let lengths: Vec<_> = (0..4).map(|_| record(&mut pair.service, pair.now).len()).collect();
    assert!(lengths[0].abs_diff(5000) < 32, "nothing of the next turn is in it: {lengths:?}");
    assert_eq!(lengths[1..], [16384; 3]);
}

#[test]
fn more_urgent_streams_go_first_and_do_not_fill_up_the_send_buffer_for_others() {
    let mut pair = Pair::new(config(|c| (c.send_buffer, c.stream_window) = (64 << 10, 1 << 20)));
    let bulk = pair.service.open(Dir::Uni).unwrap();
    let keys = pair.service.open(Dir::Uni).unwrap();
    pair.service.stream(bulk).unwrap().set_urgency(Urgency::Bulk);
    pair.service.stream(keys).unwrap().set_urgency(Urgency::Interactive);
    let accepted = write_some(&mut pair.service, bulk, 0, 1 << 20).unwrap();
    assert_eq!(accepted, 56 << 10, "the last eighth is kept for keystrokes");
    pair.transmit(Side::Client);
    assert_eq!(pair.service.stream(keys).unwrap().write(b"k"), Ok(1));
    pair.transmit(Side::Client);
    pair.deliver(Side::Client, usize::MAX);
    assert!(pair.device.accept(Dir::Uni).is_some() && pair.device.accept(Dir::Uni).is_some());
    assert_eq!(read_all(&mut pair.device, keys).0, b"k");
}

#[test]
fn a_changed_urgency_holds_from_the_next_record_on() {
    let mut pair = Pair::new(Config::default());
    let first = pair.service.open(Dir::Uni).unwrap();
    let second = pair.service.open(Dir::Uni).unwrap();
    write_some(&mut pair.service, first, 0, 50_000).unwrap();
    write_some(&mut pair.service, second, 0, 100).unwrap();
    pair.service.stream(first).unwrap().set_urgency(Urgency::Bulk);
    pair.transmit(Side::Client);
    pair.deliver(Side::Client, usize::MAX);
    while pair.device.accept(Dir::Uni).is_some() {}
    assert_eq!(read_all(&mut pair.device, second).0.len(), 100);
}

/// What a flood may leave behind: bytes to send, and streams.
fn after_flood(frames: &str, times: usize) -> (usize, usize) {
    let mut pair = Pair::new(config(|c| (c.max_streams_bidi, c.max_streams_uni) = (10, 10)));
    let one = hex(frames);
    for n in 0..times {
        let mut bytes = one.clone();
        // Where the frame carries a number that must grow, it is in the last two bytes.
        if frames.ends_with("4000") {
            let at = bytes.len() - 2;
            bytes[at..].copy_from_slice(&u16::try_from(0x4000 + 64 + n).unwrap().to_be_bytes());
        }
        pair.device.handle_input(pair.now, EPOCH, bytes.into());
        pair.device.check_invariants();
    }
    assert!(!pair.device.is_closed(), "{frames}");
    let owed =
        std::iter::repeat_with(|| record(&mut pair.device, pair.now).len()).take_while(|&n| n > 0).sum();
    (owed, pair.device.open_streams())
}

#[test]
fn reply_state_bounded() {
    for (frames, what) in [
        ("0a f48c67529ef8c7bd 4000", "pings"),
        ("04 10 80004000", "limits that say nothing new"),
        ("02 14 00", "DATA_BLOCKED"),
        ("03 15 00 00", "STREAM_DATA_BLOCKED"),
        ("02 16 00", "STREAMS_BLOCKED"),
        ("03 05 00 00", "STOP_SENDING on one stream"),
        ("04 04 00 00 00", "RESET_STREAM of one stream"),
        ("02 08 24", "an empty STREAM frame that opens ten streams"),
        ("03 05 24 00", "STOP_SENDING that opens ten streams"),
        ("01 00", "padding"),
    ] {
        let frames = if what.starts_with("limits") { "03 10 4001" } else { frames };
        let few = after_flood(frames, 20);
        let many = after_flood(frames, 5000);
        assert_eq!(few, many, "{what}: 20 and 5000 leave the same behind");
        assert!(many.0 < 400 && many.1 <= 10, "{what}: {many:?}");
    }
}

#[test]
fn events_are_bounded_by_streams() {
    // An application that never listens: news are flags, one set for each stream.
    let mut pair = Pair::new(config(|c| c.stream_window = 64));
    let id = pair.stream(Dir::Bi, b"x");
    for _ in 0..1000 {
        let _ = read_all(&mut pair.device, id);
        let _ = write_some(&mut pair.service, id, 0, 10);
        pair.run();
        pair.service.ping();
    }
    assert!(events(&mut pair.device).len() <= 2);
}

#[test]
fn pre_auth_bounded() {
    // Before the peer has declared itself, what an acceptor or a session keeps of it is one record.
    let mut session = Session::new(Side::Server, Config::default());
    session.attach(Instant::default(), EPOCH).unwrap();
    let mut acceptor = Acceptor::new(&Config::default());
    // A QX_TRANSPORT_PARAMETERS frame full of unknown parameters, one byte at a time, never complete.
    let mut hello = String::from("7ffe ff51 5330 0d0a 0d0a 7ff4");
    for _ in 0..5450 {
        write!(hello, "20 01 00").unwrap();
    }
    let hello = hex(&hello);
    for byte in &hello[..16_300] {
        assert_eq!(acceptor.handle_input(Bytes::copy_from_slice(&[*byte])), None);
        session.handle_input(Instant::default(), EPOCH, Bytes::copy_from_slice(&[*byte]));
    }
    assert!(!session.is_closed());
    assert_eq!(session.open_streams(), 0);
    // One that claims to be larger is refused before anything is kept for it.
    let mut session = Session::new(Side::Server, Config::default());
    session.attach(Instant::default(), EPOCH).unwrap();
    session.handle_input(Instant::default(), EPOCH, hex("7fff").into());
    assert!(session.is_closed());
}

#[test]
fn an_acceptor_does_not_keep_padding_without_end() {
    let offered = config(|c| c.resumption = Resumption::Accept);
    // Parameters that want to resume, as on every later pipe; then padding instead of RESUME.
    let hello = hex("0f ff51 5330 0d0a 0d0a 06 80544c52 01 05");
    let padding = [vec![0x7f, 0xfe], vec![0; 16382]].concat();
    for cut in [1, 1000, 16384] {
        let mut acceptor = Acceptor::new(&offered);
        assert_eq!(acceptor.handle_input(hello.clone().into()), None);
        let pieces = padding.chunks(cut).cycle().take(100_000 / cut);
        let kept = pieces
            .take_while(|piece| acceptor.handle_input(Bytes::copy_from_slice(piece)).is_none())
            .map(<[u8]>::len)
            .sum::<usize>();
        assert!(kept <= 16384, "cut at {cut}: {kept} bytes were kept for somebody who wants nothing");
    }
}

#[test]
fn the_read_buffer_is_free_after_copy_out() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Uni, b"x");
    write_some(&mut pair.service, id, 1, 10_000).unwrap();
    let buffer = Bytes::from(record(&mut pair.service, pair.now));
    pair.device.handle_input(pair.now, EPOCH, buffer.clone());
    assert!(!buffer.is_unique(), "the stream holds a slice, not a copy");
    pair.device.copy_out();
    assert!(buffer.is_unique());
    assert_eq!(read_all(&mut pair.device, id).0.len(), 10_001);
}

proptest! {
    /// Any bytes, cut anywhere, after a lawful hello: no panic, no inconsistency, at most the streams and the
    /// bytes that were promised.
    #[test]
    fn check_before_alloc_and_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut pair = Pair::new(config(|c| {
            (c.max_streams_bidi, c.max_streams_uni, c.session_window) = (4, 4, 1000);
        }));
        let cut = cut.index(bytes.len() + 1);
        for piece in [&bytes[..cut], &bytes[cut..]] {
            pair.device.handle_input(pair.now, EPOCH, Bytes::copy_from_slice(piece));
            pair.device.check_invariants();
            prop_assert!(pair.device.open_streams() <= 8);
            prop_assert!(pair.device.credit().unread <= 1000);
        }
        pair.run();
    }

    /// The same with records that are well formed as far as frames go.
    #[test]
    fn frames_in_any_order_never_panic(
        frames in proptest::collection::vec((0u8..0x18, 0u8..24, 0u8..12, any::<u8>()), 0..60),
    ) {
        let mut pair = Pair::new(config(|c| {
            (c.max_streams_bidi, c.max_streams_uni, c.session_window) = (4, 4, 1000);
        }));
        for id in 0..2 {
            let opened = pair.device.open(Dir::Bi).unwrap();
            prop_assert_eq!(opened.index(), id);
        }
        for (kind, id, a, b) in frames {
            let record = match kind {
                0x04 => vec![4, 0x04, id, a, b & 0x3f],
                0x05 => vec![3, 0x05, id, a],
                0x08..=0x0f => vec![8, kind | 0x06, id, b & 0x07, 3, 1, 2, 3, 0],
                0x10 => vec![3, 0x10, 0x40, b],
                0x11 => vec![4, 0x11, id, 0x40, b],
                0x12 | 0x13 => vec![2, kind, a],
                0x14 => vec![2, 0x14, a],
                0x15 => vec![3, 0x15, id, a],
                0x16 | 0x17 => vec![2, kind, a],
                _ => vec![1, 0],
            };
            pair.device.handle_input(pair.now, EPOCH, record.into());
            pair.device.check_invariants();
            while let Some(id) = pair.device.accept(if a % 2 == 0 { Dir::Bi } else { Dir::Uni }) {
                if b % 3 == 0 {
                    pair.device.release(id, Code::default());
                }
            }
            let _ = record_and_check(&mut pair);
            prop_assert!(pair.device.open_streams() <= 10);
        }
    }
}

fn record_and_check(pair: &mut Pair) -> usize {
    let length = record(&mut pair.device, pair.now).len();
    pair.device.check_invariants();
    length
}

/// Feeds `frames` to a device until it has had enough, at most `times`; returns how often it took them.
fn taken_until_refused(frames: impl Fn(usize) -> Vec<u8>, times: usize, between: Duration) -> usize {
    let mut pair = Pair::new(config(|c| c.max_streams_bidi = 1 << 20));
    for n in 0..times {
        pair.device.handle_input(pair.now, EPOCH, frames(n).into());
        record(&mut pair.device, pair.now);
        if pair.device.is_closed() {
            let why = CloseReason::Violation(Violation::ExcessiveLoad);
            assert!(events(&mut pair.device).contains(&Event::Closed(why)));
            return n;
        }
        pair.now = pair.now + between;
    }
    times
}

/// A bucket for each kind of work that is done for nothing; at a pace that any honest peer may have, it never ends.
#[test]
fn work_budget() {
    let id = |n: usize| u32::try_from(n * 4).unwrap() | 2 << 30;
    let ping = |n: usize| {
        [&hex("0c f48c67529ef8c7bd")[..], &(u32::try_from(n + 64).unwrap() | 2 << 30).to_be_bytes()].concat()
    };
    let rapid_reset = |n: usize| [&[7, 4][..], &id(n).to_be_bytes(), &[0, 0]].concat();
    let made_you_reset = |n: usize| {
        let id = id(n).to_be_bytes();
        // A stream with a byte, and then STOP_SENDING for the answer.
        [&[14, 0x0a][..], &id, &[1, 0x78], &[5], &id, &[0], &[0]].concat()
    };
    let empty = |_: usize| hex("02 08 00");
    let tiny = |n: usize| {
        [&[7, 0x0c, 0][..], &(u32::try_from(n).unwrap() | 2 << 30).to_be_bytes(), &[0x78]].concat()
    };
    let known_limit = |_: usize| hex("02 10 00");
    let second = Duration::from_secs(1);
    for (what, frames, at_once, in_a_second) in [
        ("pings", &ping as &dyn Fn(usize) -> Vec<u8>, 16_384, 10_000),
        ("streams reset at once", &rapid_reset, 8_192, 5_000),
        ("resets provoked", &made_you_reset, 8_192, 5_000),
        ("empty frames", &empty, 1 << 20, 500_000),
        ("limits that are known", &known_limit, 1 << 20, 500_000),
    ] {
        let taken = taken_until_refused(frames, at_once + 1000, Duration::ZERO);
        assert!(taken.abs_diff(at_once) <= 100, "{what}: {taken} at once");
        let times = at_once + 2000;
        let pace = second / in_a_second;
        assert_eq!(taken_until_refused(frames, times, pace), times, "{what}: {in_a_second} a second");
    }
    // Bytes one by one are work, too; but the window is the first limit that they meet.
    assert_eq!(taken_until_refused(tiny, 60_000, Duration::ZERO), 60_000);
}

/// Honest traffic never meets the budgets: everything that streams are for, at half a million exchanges a second.
#[test]
fn work_budget_never_meets_honest_peers() {
    let mut pair = Pair::new(common::wide());
    pair.cut = usize::MAX;
    let exchange = Duration::from_micros(2);
    // A hundred thousand requests with answers, one byte each; every tenth is abandoned by one side or the other.
    for n in 0..100_000 {
        let id = pair.stream(Dir::Bi, b"q");
        if n % 10 == 0 && n < 50_000 {
            pair.end([Side::Client, Side::Server][n / 10 % 2]).release(id, 1.into());
        } else {
            pair.service.stream(id).unwrap().finish().unwrap();
            pair.device.stream(id).unwrap().write(b"a").unwrap();
            pair.device.stream(id).unwrap().finish().unwrap();
        }
        pair.run();
        pair.release(id);
        pair.run();
        pair.now = pair.now + exchange;
    }
    // Half a million keystrokes with their echoes, and credit for each half window.
    let keys = pair.stream(Dir::Bi, b"k");
    assert_eq!(read_all(&mut pair.device, keys).0, b"k");
    for _ in 0..250_000 {
        for side in [Side::Client, Side::Server] {
            pair.end(side).stream(keys).unwrap().write(b"k").unwrap();
            pair.run();
            assert_eq!(read_all(pair.end(side.peer()), keys).0, b"k");
            pair.now = pair.now + exchange;
        }
    }
    assert!(!pair.service.is_closed() && !pair.device.is_closed());
}

/// The end of a session with many streams takes time in proportion to them, whatever they wait for. (It once searched
/// every queue for every stream: minutes for these.)
#[test]
fn the_end_of_many_streams_is_swift() {
    const STREAMS: usize = 200_000;
    let mut pair = Pair::new(config(|c| {
        c.max_streams_bidi = STREAMS as u64;
        c.session_window = 1 << 30;
    }));
    pair.cut = usize::MAX;
    for _ in 0..STREAMS {
        let id = pair.service.open(Dir::Bi).unwrap();
        pair.service.stream(id).unwrap().write(b"x").unwrap();
    }
    let mut out = Vec::new();
    while pair.service.poll_transmit(pair.now, 1 << 14, &mut out) > 0 {}
    pair.device.handle_input(pair.now, EPOCH, out.concat().into());
    // Each of them is waited for, has something to send, and is done with.
    while let Some(id) = pair.device.accept(Dir::Bi) {
        pair.device.stream(id).unwrap().write(b"y").unwrap();
        pair.device.release(id, Code::default());
    }
    pair.device.handle_pipe_closed(pair.now, EPOCH, towline_engine::PipeClosed::Failed);
    assert_eq!(pair.device.open_streams(), 0);
}
