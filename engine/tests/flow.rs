//! Flow control: credit is kept to, never lost, and nobody waits for it in vain.
//! Names are those of the invariants that they show.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{EPOCH, ONE, Pair, config, events, read_all, write_some};
use towline_engine::{
    CloseReason, Config, Dir, Event, OpenError, PipeClosed, ReadError, Side, StreamId, Violation, WriteError,
};

#[test]
fn writer_resumes_when_reader_makes_room() {
    let mut pair = Pair::new(config(|c| c.stream_window = 8));
    let id = pair.service.open(Dir::Bi).unwrap();

    assert_eq!(pair.service.stream(id).unwrap().write(b"twelve bytes"), Ok(8));
    pair.run();
    assert_eq!(pair.service.poll_event(), None, "nothing has been read yet");

    assert_eq!(pair.device.accept(Dir::Bi), Some(id));
    pair.device.stream(id).unwrap().read(8).unwrap();
    pair.run();
    assert_eq!(pair.service.poll_event(), Some(Event::Writable(id)));
}

#[test]
fn never_over_limit() {
    // Neither the stream's nor the session's, whatever is written.
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (100, 250)));
    let ids: Vec<_> = (0..4).map(|_| pair.service.open(Dir::Uni).unwrap()).collect();
    let accepted: Vec<_> =
        ids.iter().map(|&id| write_some(&mut pair.service, id, 0, 1000).unwrap_or(0)).collect();
    assert_eq!(accepted, [100, 100, 50, 0]);
    pair.run();
    assert_eq!(pair.device.credit().unread, 250);
    assert!(!pair.device.is_closed(), "the last byte is within the limit");
}

/// The last byte is accepted, one more is FLOW_CONTROL_ERROR; on a stream and on the session, as data and as a
/// final size.
#[test]
fn limit_exact() {
    let config = config(|c| (c.stream_window, c.session_window) = (20, 30));
    let data = |id: u8, count: u8| [&[count + 2, 0x08, id][..], &vec![0; count.into()]].concat();
    let reset = |id: u8, final_size: u8| vec![4, 0x04, id, 0, final_size];
    for (records, what) in [
        ([data(0, 20), data(4, 10)], "data"),
        ([data(0, 20), reset(4, 10)], "a final size after data"),
        ([reset(0, 20), reset(4, 10)], "final sizes"),
        ([data(0, 10), reset(0, 20)], "a final size on top of data"),
    ] {
        let mut pair = Pair::new(config.clone());
        pair.device.handle_input(pair.now, EPOCH, records.concat().into());
        assert!(!pair.device.is_closed(), "{what} up to the limit");
    }
    for (records, what) in [
        ([data(4, 1), data(0, 21)], "data past the stream's limit"),
        ([data(4, 1), reset(0, 21)], "a final size past the stream's limit"),
        ([data(0, 20), data(4, 11)], "data past the session's limit"),
        ([data(0, 20), reset(4, 11)], "a final size past the session's limit"),
        ([reset(0, 20), reset(4, 11)], "final sizes past the session's limit"),
    ] {
        let mut pair = Pair::new(config.clone());
        pair.device.handle_input(pair.now, EPOCH, records.concat().into());
        let end = Event::Closed(CloseReason::Violation(Violation::FlowControl));
        assert_eq!(events(&mut pair.device).pop(), Some(end), "{what}");
    }
}

#[test]
fn limits_monotone() {
    let mut pair =
        Pair::new(config(|c| (c.stream_window, c.session_window, c.max_streams_bidi) = (100, 100, 4)));
    let id = pair.stream(Dir::Bi, b"x");
    let before = pair.service.credit();
    // MAX_DATA 5, MAX_STREAM_DATA 5, MAX_STREAMS 1: all smaller than what was promised before.
    pair.service.handle_input(pair.now, EPOCH, common::hex("07 1005 110005 1201").into());
    assert_eq!(pair.service.credit(), before);
    assert_eq!(write_some(&mut pair.service, id, 1, 1000), Ok(99));
    assert!(pair.service.open(Dir::Bi).is_ok());
}

#[test]
fn credit_conservation() {
    // Streams that end in every way there is; afterwards both ends agree, and all credit is there.
    type End = fn(&mut Pair, StreamId);
    let ends: [(&str, End); 8] = [
        ("fin, read", |pair, id| {
            pair.service.stream(id).unwrap().finish().unwrap();
            pair.run();
            assert_eq!(read_all(&mut pair.device, id).1, Ok(()));
        }),
        ("fin, unread", |pair, id| pair.service.stream(id).unwrap().finish().unwrap()),
        ("reset before it went out", |pair, id| pair.service.stream(id).unwrap().reset(ONE).unwrap()),
        ("reset after it went out", |pair, id| {
            pair.run();
            pair.service.stream(id).unwrap().reset(ONE).unwrap();
        }),
        ("stop before it arrived", |pair, id| pair.device.stream(id).unwrap().stop(ONE).unwrap()),
        ("stop after it arrived", |pair, id| {
            pair.run();
            pair.device.stream(id).unwrap().stop(ONE).unwrap();
        }),
        ("reset and stop cross", |pair, id| {
            pair.transmit(Side::Client);
            pair.service.stream(id).unwrap().reset(ONE).unwrap();
            pair.device.stream(id).unwrap().stop(ONE).unwrap();
        }),
        ("half read, then dropped", |pair, id| {
            pair.run();
            pair.device.stream(id).unwrap().read(20).unwrap();
        }),
    ];
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (60, 100)));
    for round in 0..40 {
        for (name, end) in &ends {
            let id = pair.stream(if round % 2 == 0 { Dir::Bi } else { Dir::Uni }, &[1]);
            assert_eq!(write_some(&mut pair.service, id, 1, 50), Ok(50), "{name}, round {round}");
            end(&mut pair, id);
            pair.run();
            pair.release(id);
            pair.run();
            let (ours, theirs) = (pair.service.credit(), pair.device.credit());
            assert_eq!(ours.available, theirs.promised, "{name}: both ends agree");
            assert_eq!((theirs.unread, theirs.promised + theirs.withheld), (0, 100), "{name}: all is there");
            events(&mut pair.service);
            events(&mut pair.device);
        }
    }
}

/// The lower ids that a stream opens implicitly hold slots and credit like any other, and give them back.
#[test]
fn credit_conservation_of_streams_that_were_never_used() {
    let mut pair = Pair::new(config(|c| c.max_streams_bidi = 4));
    for _ in 0..50 {
        let ids: Vec<_> = (0..2).map(|_| pair.service.open(Dir::Bi).unwrap()).collect();
        pair.service.stream(ids[1]).unwrap().write(b"x").unwrap();
        pair.run();
        assert_eq!(pair.device.accept(Dir::Bi), Some(ids[1]));
        for id in ids {
            pair.release(id);
        }
        pair.run();
        assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
    }
}

#[test]
fn reset_charges_final() {
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (60, 100)));
    // RESET_STREAM with final size 50 on a stream of which nothing had come: charged, and given back.
    pair.device.handle_input(pair.now, EPOCH, common::hex("04 04 02 01 32").into());
    assert!(!pair.device.is_closed());
    let credit = pair.device.credit();
    assert_eq!((credit.promised, credit.unread, credit.withheld), (50, 0, 50));
    // And the peer is told so, since that is half a window.
    pair.run();
    assert_eq!(pair.device.credit().withheld, 0);
}

#[test]
fn blocked_writer_wakes() {
    for end in ["credit", "stop", "release", "close", "pipe", "idle"] {
        let mut pair = Pair::new(config(|c| c.stream_window = 10));
        let id = pair.stream(Dir::Bi, b"x");
        write_some(&mut pair.service, id, 1, 100).unwrap();
        assert_eq!(write_some(&mut pair.service, id, 10, 1), Err(WriteError::Blocked));
        pair.run();
        assert_eq!(events(&mut pair.service), []);
        match end {
            "credit" => drop(read_all(&mut pair.device, id).0),
            "stop" => pair.device.stream(id).unwrap().stop(ONE).unwrap(),
            "release" => pair.device.release(id, ONE),
            "close" => pair.device.close(pair.now, ONE, b""),
            "pipe" => pair.service.handle_pipe_closed(pair.now, EPOCH, PipeClosed::Failed),
            _ => pair.advance_cut_off(Duration::from_secs(60)),
        }
        pair.run();
        let news = events(&mut pair.service);
        let again = write_some(&mut pair.service, id, 10, 1);
        match end {
            "credit" => assert_eq!((&news[..], again), (&[Event::Writable(id)][..], Ok(1))),
            "stop" | "release" => {
                assert_eq!(
                    (&news[..1], again),
                    (&[Event::Stopped(id, ONE)][..], Err(WriteError::Stopped(ONE)))
                );
            }
            _ => {
                assert!(matches!(news[..], [Event::Closed(_)]), "{end}: {news:?}");
                assert_eq!(again, Err(WriteError::Closed), "{end}");
            }
        }
    }
}

#[test]
fn writers_that_wait_for_the_session_wake_in_turn() {
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (100, 100)));
    let ids: Vec<_> = (0..3).map(|_| pair.stream(Dir::Uni, b"x")).collect();
    write_some(&mut pair.service, ids[0], 1, 97).unwrap();
    for &id in &ids[1..] {
        assert_eq!(write_some(&mut pair.service, id, 1, 1), Err(WriteError::Blocked));
    }
    pair.run();
    assert_eq!(events(&mut pair.service), []);
    assert_eq!(read_all(&mut pair.device, ids[0]).0.len(), 98);
    pair.run();
    assert_eq!(events(&mut pair.service), [Event::Writable(ids[1]), Event::Writable(ids[2])]);
}

#[test]
fn no_stall() {
    // One-byte reads against a full window: every write completes, at one update per half window.
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (16, 16)));
    let id = pair.stream(Dir::Uni, &[common::pattern(0)]);
    let (mut written, mut read) = (1, 0);
    let before = pair.device.stats().records_sent;
    while read < 1600 {
        if let Ok(count) = write_some(&mut pair.service, id, written, 1600 - written) {
            written += count;
        }
        pair.run();
        let byte = pair.device.stream(id).unwrap().read(1).unwrap().unwrap();
        assert_eq!(byte[..], [common::pattern(read)]);
        read += 1;
        pair.run();
    }
    let updates = pair.device.stats().records_sent - before;
    assert!(updates <= 1600 / 8 + 2, "{updates} records for 1600 single bytes");
}

#[test]
fn slow_reader_isolated() {
    // Ten readers stall with full windows; the eleventh is not held up.
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (1000, 12_000)));
    pair.cut = 5000;
    for _ in 0..10 {
        let id = pair.stream(Dir::Uni, b"x");
        assert_eq!(write_some(&mut pair.service, id, 1, 5000), Ok(999));
    }
    pair.run();
    assert_eq!(pair.device.credit().unread, 10_000, "k stalled readers cost k windows");
    let id = pair.stream(Dir::Uni, &[common::pattern(0)]);
    let mut read = 0;
    let mut written = 1;
    while read < 100_000 {
        written += write_some(&mut pair.service, id, written, 100_000 - written).unwrap_or(0);
        pair.run();
        let (bytes, _) = read_all(&mut pair.device, id);
        assert!(!bytes.is_empty(), "always some progress");
        read += bytes.len();
        pair.run();
    }
}

/// Corner case 4.
#[test]
fn a_fin_needs_no_credit() {
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (0, 0)));
    let id = pair.service.open(Dir::Uni).unwrap();
    assert_eq!(pair.service.stream(id).unwrap().write(b"x"), Err(WriteError::Blocked));
    pair.service.stream(id).unwrap().finish().unwrap();
    pair.run();
    assert_eq!(pair.device.accept(Dir::Uni), Some(id));
    assert_eq!(read_all(&mut pair.device, id), (vec![], Ok(())));
}

#[test]
fn resets_and_stops_overtake_data_that_waits_for_credit() {
    let mut pair = Pair::new(config(|c| c.stream_window = 10));
    let id = pair.stream(Dir::Bi, b"x");
    write_some(&mut pair.service, id, 1, 100).unwrap();
    pair.run();
    pair.service.stream(id).unwrap().reset(ONE).unwrap();
    pair.service.stream(id).unwrap().stop(ONE).unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Reset(ONE)));
    assert_eq!(pair.device.stream(id).unwrap().write(b"x"), Err(WriteError::Stopped(ONE)));
}

#[test]
fn opens_wait_for_slots() {
    let mut pair = Pair::new(config(|c| c.max_streams_uni = 2));
    let ids: Vec<_> = (0..2).map(|_| pair.stream(Dir::Uni, b"x")).collect();
    assert_eq!(pair.service.open(Dir::Uni), Err(OpenError::Blocked(Dir::Uni)));
    assert!(pair.service.open(Dir::Bi).is_ok(), "the other direction has its own");
    pair.release(ids[1]);
    pair.run();
    assert_eq!(events(&mut pair.service).last(), Some(&Event::Openable(Dir::Uni)));
    assert_eq!(pair.service.open(Dir::Uni).map(StreamId::index), Ok(2));
}

#[test]
fn nothing_is_said_or_written_before_the_peer_declared_itself() {
    let mut pair = Pair::unattached(Config::default(), Config::default());
    pair.service.attach(pair.now, EPOCH).unwrap();
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Blocked(Dir::Bi)));
    pair.service.ping();
    assert!(pair.transmit(Side::Client) > 0, "the parameters");
    assert_eq!(pair.transmit(Side::Client), 0);
    pair.device.attach(pair.now, EPOCH).unwrap();
    pair.run();
    assert_eq!(events(&mut pair.service), [Event::Attached(EPOCH), Event::Openable(Dir::Bi)]);
}

/// A path of 200 ms there and back.
struct LongPath {
    pair: Pair,
    under_way: [Vec<bytes::Bytes>; 2],
}

impl LongPath {
    fn new(config: Config) -> Self {
        let mut pair = Pair::unattached(config.clone(), config);
        pair.service.attach(pair.now, EPOCH).unwrap();
        pair.device.attach(pair.now, EPOCH).unwrap();
        let mut path = Self { pair, under_way: Default::default() };
        (0..4).for_each(|_| path.half_a_round_trip(None));
        assert_eq!(path.pair.device.rtt().unwrap().min, Duration::from_millis(200));
        path
    }

    /// Both ends say what they have to say, which arrives 100 ms later. The service writes what it may on `id`.
    fn half_a_round_trip(&mut self, id: Option<StreamId>) {
        let pair = &mut self.pair;
        for (n, side) in [Side::Client, Side::Server].into_iter().enumerate() {
            loop {
                if let (Side::Client, Some(id)) = (side, id) {
                    let mut data = bytes::Bytes::from_static(&[7; 1 << 16]);
                    _ = pair.service.stream(id).unwrap().write_chunk(&mut data);
                }
                let now = pair.now;
                if pair.end(side).poll_transmit(now, 1 << 14, &mut self.under_way[n]) == 0 {
                    break;
                }
            }
        }
        pair.now = pair.now + Duration::from_millis(100);
        for (n, side) in [Side::Client, Side::Server].into_iter().enumerate() {
            let now = pair.now;
            for bytes in self.under_way[n].drain(..) {
                pair.end(side.peer()).handle_input(now, EPOCH, bytes);
            }
        }
        pair.device.check_invariants();
    }

    /// How much comes in each of `count` round trips on a stream whose writer and reader are as fast as can be.
    fn throughput(&mut self, count: usize) -> Vec<usize> {
        let id = self.pair.service.open(Dir::Uni).unwrap();
        let round = |path: &mut Self| {
            path.half_a_round_trip(Some(id));
            path.pair.device.accept(Dir::Uni);
            let came = read_all(&mut path.pair.device, id).0.len();
            path.half_a_round_trip(Some(id));
            came
        };
        (0..count).map(|_| round(self)).collect()
    }
}

/// From 64 KiB a round trip to 16 MiB; within a budget if there is one.
#[test]
fn tune_bounded() {
    let wide = |budget| config(|c| (c.send_buffer, c.budget) = (64 << 20, budget));
    let mut path = LongPath::new(wide(None));
    let came = path.throughput(24);
    assert_eq!(came[0], 64 << 10);
    assert!(came.iter().take(13).any(|&bytes| bytes >= 8 << 20), "half of it in 12 round trips: {came:?}");
    assert!(came.iter().any(|&bytes| bytes >= 16 << 20), "it is reached: {came:?}");
    assert!(came.iter().all(|&bytes| bytes <= 16 << 20), "and not passed: {came:?}");
    assert!(path.pair.device.credit().promised <= 64 << 20);

    let budget = towline_engine::Budget::new(1 << 20);
    let mut path = LongPath::new(wide(Some(budget.clone())));
    let came = path.throughput(24);
    assert!(came.iter().all(|&bytes| bytes <= (1 << 20) + (256 << 10)), "{came:?}");
    assert!(came.iter().any(|&bytes| bytes > 1 << 20), "{came:?}");
    drop(path);
    assert_eq!(budget.left(), 1 << 20, "what was taken is given back");
}

/// Readers who stall hold their streams' windows, and the others are not held up: not at first, when little is
/// promised, and not when a hundred of them stall.
#[test]
fn a_hundred_readers_who_stall_cost_their_windows_and_nobody_elses_throughput() {
    let mut pair = Pair::new(config(|c| c.max_streams_bidi = 200));
    pair.cut = usize::MAX;
    for _ in 0..100 {
        let stalled = pair.stream(Dir::Bi, b"x");
        write_some(&mut pair.service, stalled, 1, 1 << 20).unwrap();
        pair.run();
    }
    let unread = pair.device.credit().unread;
    assert_eq!(unread, 100 * (64 << 10));
    let live = pair.stream(Dir::Bi, b"x");
    let mut total = 0;
    while total < 4 << 20 {
        pair.run(); // the credit for what was read
        _ = write_some(&mut pair.service, live, 0, 64 << 10);
        pair.run();
        let came = read_all(&mut pair.device, live).0.len();
        assert!(came > 0, "after {total} bytes");
        total += came;
    }
}
