//! A session outlives its pipe: no byte lost, doubled or reordered, ends intact, credit exact.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{BOTH, ID, ONE, Pair, SECRET, config, events, pattern, patterned, read_all, write_some};
use towline_engine::{
    Acceptor, Arrival, AttachError, CloseReason, Config, Detached, Dir, Epoch, Event, MIN_TRANSMIT,
    PipeClosed, ReadError, Refused, Resumption, Secret, Sending, Session, Side, StreamId, WriteError,
};

fn small() -> Config {
    config(|c| (c.stream_window, c.session_window) = (4000, 8000))
}

/// Reads on both ends until nothing moves any more, and returns what came out at the device.
fn drain(pair: &mut Pair, id: StreamId) -> (Vec<u8>, Result<(), ReadError>) {
    let mut all = Vec::new();
    loop {
        pair.run();
        let (bytes, how) = read_all(&mut pair.device, id);
        all.extend_from_slice(&bytes);
        if bytes.is_empty() || how != Err(ReadError::Blocked) {
            return (all, how);
        }
    }
}

#[test]
fn a_stream_goes_on_where_it_was() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, &patterned(10));
    write_some(&mut pair.service, id, 10, 1000).unwrap();
    pair.transmit(Side::Client);
    pair.cut(&BOTH);
    let lost = Event::Detached(Detached::Pipe(PipeClosed::Failed));
    assert_eq!(events(&mut pair.service), std::slice::from_ref(&lost));
    assert_eq!(events(&mut pair.device), [lost]);
    write_some(&mut pair.service, id, 1010, 500).unwrap();
    pair.service.stream(id).unwrap().finish().unwrap();

    pair.reconnect();
    pair.run();
    assert!(events(&mut pair.service).contains(&Event::Attached(Epoch(1))));
    assert_eq!(read_all(&mut pair.device, id), (patterned(1510), Ok(())));
    assert_eq!(pair.service.stream(id).unwrap().sending(), Sending::Finished);
    assert_eq!(pair.service.stream(id).unwrap().acknowledged(), 1510);
    pair.release(id);
    pair.run();
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
}

/// What is sent again and is there already is trimmed, wherever the pipe was cut; if it were not the same bytes, that
/// would be an error.
#[test]
fn no_dup() {
    for cut in 0..60 {
        let mut pair = Pair::resumable(Config::default());
        let id = pair.stream(Dir::Bi, &patterned(10));
        write_some(&mut pair.service, id, 10, 40).unwrap();
        pair.transmit(Side::Client);
        pair.deliver(Side::Client, cut);
        let (got, _) = read_all(&mut pair.device, id);
        pair.cut(&BOTH);
        pair.reconnect();
        let sent = pair.service.stats().bytes_sent;
        pair.run();
        assert!(pair.service.stats().bytes_sent - sent >= 50 - got.len() as u64);
        let (rest, _) = read_all(&mut pair.device, id);
        assert_eq!([got, rest].concat(), patterned(50), "cut at {cut}");
        assert_eq!(pair.device.credit().unread, 0);
    }
}

/// `exact_prefix`, `eof_iff_fin` and `retry_converges`: whatever byte the pipe is cut at, and wherever the
/// one after it.
#[test]
fn retry_converges() {
    let exchange = {
        let mut pair = Pair::resumable(small());
        pair.stream(Dir::Bi, &patterned(10));
        pair.cut(&BOTH);
        pair.reconnect();
        pair.transmit(Side::Client)
    };
    for first in (0..1300).step_by(23) {
        for second in (0..exchange + 40).step_by(7) {
            let mut pair = Pair::resumable(small());
            let id = pair.stream(Dir::Bi, &patterned(10));
            write_some(&mut pair.service, id, 10, 1200).unwrap();
            pair.service.stream(id).unwrap().finish().unwrap();
            pair.device.stream(id).unwrap().write(b"answer").unwrap();
            for side in BOTH {
                while pair.transmit(side) > 0 {}
                pair.deliver(side, first);
            }
            for cut in [second, exchange + 40 - second] {
                pair.cut(&BOTH);
                pair.reconnect();
                pair.transmit(Side::Client);
                pair.deliver(Side::Client, cut);
                pair.transmit(Side::Server);
                pair.deliver(Side::Server, cut);
            }
            pair.hop();
            assert_eq!(drain(&mut pair, id), (patterned(1210), Ok(())), "cut at {first} and {second}");
            assert_eq!(read_all(&mut pair.service, id), (b"answer".to_vec(), Err(ReadError::Blocked)));
            pair.release(id);
            pair.run();
            assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
            assert_eq!(pair.service.credit().available, pair.device.credit().promised);
            assert_eq!(pair.device.credit().available, pair.service.credit().promised);
        }
    }
}

/// Corner case 6 and `detached_ops_once`: what happens while there is no pipe is applied once, as state.
#[test]
fn detached_ops_once() {
    let mut pair = Pair::resumable(Config::default());
    let finished = pair.stream(Dir::Bi, b"a");
    let reset = pair.stream(Dir::Bi, b"b");
    let stopped = pair.stream(Dir::Bi, b"c");
    let released = pair.stream(Dir::Bi, b"d");
    pair.cut(&BOTH);

    pair.service.stream(finished).unwrap().finish().unwrap();
    pair.service.stream(reset).unwrap().write(b"never sent").unwrap();
    pair.service.stream(reset).unwrap().reset(ONE).unwrap();
    pair.service.stream(stopped).unwrap().stop(ONE).unwrap();
    pair.service.release(released, ONE);
    let opened = pair.service.open(Dir::Bi).unwrap();
    let empty = pair.service.open(Dir::Uni).unwrap();
    pair.service.stream(opened).unwrap().write(b"e").unwrap();
    pair.service.stream(empty).unwrap().finish().unwrap();
    for _ in 0..3 {
        pair.hop();
    }

    assert_eq!(read_all(&mut pair.device, finished), (b"a".to_vec(), Ok(())));
    assert_eq!(read_all(&mut pair.device, reset), (b"b".to_vec(), Err(ReadError::Reset(ONE))));
    assert_eq!(pair.device.stream(stopped).unwrap().sending(), Sending::Stopped(ONE));
    assert_eq!(read_all(&mut pair.device, released), (b"d".to_vec(), Err(ReadError::Reset(ONE))));
    assert_eq!(pair.device.accept(Dir::Bi), Some(opened));
    assert_eq!(read_all(&mut pair.device, opened), (b"e".to_vec(), Err(ReadError::Blocked)));
    assert_eq!(pair.device.accept(Dir::Uni), Some(empty));
    assert_eq!(read_all(&mut pair.device, empty), (vec![], Ok(())));
    for id in [finished, reset, stopped, released, opened, empty] {
        pair.release(id);
    }
    pair.run();
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0), "no_residue");
    assert_eq!(pair.device.accept(Dir::Bi), None, "surfaced_once");
}

/// `unacked_never_evicted`: the writer blocks at the cap, and goes on when the peer has what was sent.
#[test]
fn unacked_never_evicted() {
    let mut pair = Pair::resumable(config(|c| (c.send_buffer, c.stream_window) = (8000, 100_000)));
    let id = pair.stream(Dir::Bi, b"x");
    let mut written = 1;
    let write_all_there_is_room_for = |pair: &mut Pair, written: &mut usize| {
        while let Ok(count) = write_some(&mut pair.service, id, *written, 1000) {
            *written += count;
            pair.transmit(Side::Client);
        }
    };
    write_all_there_is_room_for(&mut pair, &mut written);
    assert_eq!(written, 7000, "the last eighth is for interactive streams");
    pair.cut(&BOTH);
    assert_eq!(write_some(&mut pair.service, id, written, 1), Err(WriteError::Blocked));
    events(&mut pair.service);
    pair.reconnect();
    pair.run();
    pair.advance(Duration::from_millis(25)); // the acknowledgement's delay
    assert!(events(&mut pair.service).contains(&Event::Writable(id)));
    write_all_there_is_room_for(&mut pair, &mut written);
    pair.run();
    assert_eq!(read_all(&mut pair.device, id).0, [b"x", &patterned(written)[1..]].concat());
}

/// `proof_first`: an attempt that does not hold changes nothing, and all of them get the same answer.
#[test]
fn proof_first() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    pair.cut(&[Side::Client]);
    pair.reconnect();
    let mut hello = Vec::new();
    pair.service.poll_transmit(pair.now, 1 << 14, &mut hello);
    let hello = hello.concat();

    let before = pair.device.fingerprint(pair.now);
    let answer_to = |device: &mut Session, proof: &Secret, epoch: Epoch| {
        let mut acceptor = Acceptor::new(&config(|c| c.resumption = Resumption::Accept));
        let arrival = acceptor.handle_input(hello.clone().into());
        assert_eq!(arrival, Some(Arrival::Resume { session: ID, epoch: Epoch(1), proof: SECRET }));
        let why = device.resume(pair.now, epoch, proof, &mut acceptor).unwrap_err();
        let mut out = Vec::new();
        acceptor.poll_transmit(1 << 14, &mut out);
        assert_eq!(acceptor.poll_transmit(1 << 14, &mut out), 0);
        assert_eq!(acceptor.handle_input(hello.clone().into()), None, "what follows is discarded");
        (why, out.concat())
    };
    let mut wrong = [0x5e; 32];
    wrong[31] ^= 1;
    let bad_proof = answer_to(&mut pair.device, &Secret::new(wrong), Epoch(1));
    assert_eq!(bad_proof.0, Refused::Unknown);
    let mut bare = Session::new(Side::Server, Config::default());
    assert_eq!(answer_to(&mut bare, &SECRET, Epoch(1)), bad_proof, "unknown and bad look the same");
    let stale_and_bad = answer_to(&mut pair.device, &Secret::new(wrong), Epoch(0));
    assert_eq!(stale_and_bad, bad_proof, "without a proof nobody learns the epoch");
    assert_eq!(answer_to(&mut pair.device, &SECRET, Epoch(0)).0, Refused::Stale(Epoch(0)));
    assert_eq!(pair.device.fingerprint(pair.now), before);

    pair.cut(&[Side::Client]);
    pair.reconnect();
    pair.run();
    assert_eq!(read_all(&mut pair.device, id).0, b"x");
    assert!(pair.service.poll_event().is_some());
}

/// `fencing`, `newest_wins_now` and corner case 5: the newest pipe wins at once; what older ones say has no effect.
#[test]
fn fencing() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    // The device has not noticed that the first pipe is dead.
    pair.cut(&[Side::Client]);
    pair.reconnect();
    pair.run();
    assert_eq!(events(&mut pair.device), [Event::Attached(Epoch(1))]);
    let before = (pair.service.fingerprint(pair.now), pair.device.fingerprint(pair.now));
    for side in BOTH {
        let now = pair.now;
        pair.end(side).handle_input(now, Epoch(0), common::hex("03 0f 00 01").into());
        pair.end(side).handle_pipe_closed(now, Epoch(0), PipeClosed::Failed);
    }
    assert_eq!((pair.service.fingerprint(pair.now), pair.device.fingerprint(pair.now)), before);
    assert_eq!(pair.service.attach(pair.now, Epoch(1)), Err(AttachError::Stale(Epoch(1))));
    assert_eq!(pair.device.attach(pair.now, Epoch(2)), Err(AttachError::NotResumable));

    pair.service.stream(id).unwrap().finish().unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.device, id), (b"x".to_vec(), Ok(())));
}

/// Corner case 9, and `offset_window`: what the peer claims to have lies within what was sent.
#[test]
fn offset_window() {
    let claims = |records: &str| {
        let mut pair = Pair::resumable(Config::default());
        let id = pair.stream(Dir::Bi, b"hello");
        pair.advance(Duration::from_millis(25)); // the device acknowledges
        assert_eq!(pair.service.stream(id).unwrap().acknowledged(), 5);
        pair.cut(&BOTH);
        pair.reconnect();
        // The device's parameters, RESUMED, and SESSION_STATE: one stream seen, limits of 100 bytes and 9 streams.
        let begin = "09 ff515330 0d0a0d0a 00  03 5d42 01  08 5d44 01 00 4064 09 09";
        let input = [common::hex(begin), common::hex(records)].concat();
        pair.service.handle_input(pair.now, Epoch(1), input.into());
        pair.service.check_invariants();
        events(&mut pair.service).into_iter().find_map(|event| match event {
            Event::Closed(CloseReason::Violation(violation)) => Some(violation),
            Event::Closed(why) => panic!("{why}"),
            _ => None,
        })
    };
    use towline_engine::Violation::{AckOutOfRange, ResumeOutOfPlace, ResumeState};
    assert_eq!(claims("05 5d45 00 05 05  02 5d46"), None, "all of it, and credit as it was");
    for (records, violation, why) in [
        ("05 5d45 00 06 05", AckOutOfRange, "more than was sent"),
        ("05 5d45 00 04 05", AckOutOfRange, "less than it had before"),
        ("05 5d45 04 00 05", ResumeState, "a stream that was never opened"),
        ("02 5d46", ResumeState, "it has seen the stream, and is done with it, which has not ended"),
        ("05 5d45 00 05 05  05 5d45 00 05 05", ResumeOutOfPlace, "twice"),
        ("05 5d45 00 05 05  02 1020", ResumeOutOfPlace, "MAX_DATA before the end of the state"),
    ] {
        assert_eq!(claims(records), Some(violation), "{why}");
    }
}

/// What is sent again is trimmed, not charged, and must be the same.
#[test]
fn credit_not_recharged() {
    let mut pair = Pair::resumable(small());
    let id = pair.stream(Dir::Bi, &patterned(1000));
    write_some(&mut pair.service, id, 1000, 2000).unwrap();
    pair.transmit(Side::Client);
    while pair.on_the_wire(Side::Client) > 0 {
        pair.deliver(Side::Client, 1000); // and its acknowledgement is lost
    }
    for _ in 0..5 {
        let promised = pair.device.credit().promised;
        pair.hop();
        assert_eq!(pair.device.credit().promised, promised);
        assert_eq!(pair.device.credit().unread, 3000);
    }
    assert_eq!(read_all(&mut pair.device, id).0, patterned(3000));
}

#[test]
fn changed_data_is_refused() {
    let resend = |byte: u8| {
        let mut pair = Pair::resumable(Config::default());
        let id = pair.stream(Dir::Bi, b"abc");
        pair.cut(&BOTH);
        pair.reconnect();
        pair.transmit(Side::Client);
        let count = pair.on_the_wire(Side::Client);
        // The last byte of the service's first flight is the last of "abc".
        pair.deliver(Side::Client, count - 1);
        pair.device.handle_input(pair.now, Epoch(1), vec![byte].into());
        pair.device.check_invariants();
        assert_eq!(read_all(&mut pair.device, id).0, b"abc");
        pair.device.is_closed()
    };
    assert!(!resend(b'c'));
    assert!(resend(b'd'));
}

#[test]
fn without_optimism_nothing_is_sent_in_vain() {
    for optimistic in [true, false] {
        let mut pair = Pair::resumable(config(|c| c.optimistic_resend = optimistic));
        pair.stream(Dir::Bi, &patterned(5000));
        pair.cut(&BOTH);
        pair.reconnect();
        let mut first = 0;
        while let length @ 1.. = pair.transmit(Side::Client) {
            first += length;
        }
        assert_eq!(first > 5000, optimistic);
        pair.run();
        assert_eq!(pair.device.credit().unread, 5000);
    }
}

/// The last words come before the reset, also when they have to be said twice.
#[test]
fn last_words_survive_a_lost_pipe() {
    let mut pair = Pair::resumable(Config::default());
    let id = pair.stream(Dir::Bi, b"x");
    write_some(&mut pair.service, id, 1, 3000).unwrap();
    pair.service.stream(id).unwrap().reset_when_sent(ONE).unwrap();
    while pair.transmit(Side::Client) > 0 {}
    pair.hop();
    let (bytes, how) = read_all(&mut pair.device, id);
    assert_eq!((bytes.len(), how), (3001, Err(ReadError::Reset(ONE))));
    assert_eq!(pair.service.stream(id).unwrap().sending(), Sending::Reset);
    pair.release(id);
    pair.run();
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
}

/// Corner case 10: the record limit of the new pipe is smaller than that of the old one; the default is the least.
#[test]
fn a_thousand_streams_resume_over_many_records() {
    let mut pair = Pair::resumable(config(|c| (c.max_streams_bidi, c.session_window) = (2000, 1 << 30)));
    let ids: Vec<_> = (0..2000).map(|_| pair.service.open(Dir::Bi).unwrap()).collect();
    for &id in &ids {
        pair.service.stream(id).unwrap().write(b"x").unwrap();
    }
    pair.cut = 16_000;
    pair.run();
    for _ in 0..2 {
        pair.hop();
    }
    for &id in &ids {
        assert_eq!(pair.device.accept(Dir::Bi), Some(id));
        assert_eq!(read_all(&mut pair.device, id).0, b"x");
        pair.release(id);
    }
    pair.hop();
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
}

/// One end that is not willing makes it plain QMux, and nothing of the extension may be said.
#[test]
fn a_client_that_hears_first_offers_to_resume_all_the_same() {
    // The end that accepts declares itself at once, so its words may be there before the client's have gone out.
    let (mut service, mut device) = (small(), small());
    service.resumption = Resumption::Offer(ID, SECRET);
    device.resumption = Resumption::Accept;
    let mut pair = Pair::unattached(service, device);
    pair.service.attach(pair.now, pair.epoch).unwrap();
    pair.device.attach(pair.now, pair.epoch).unwrap();
    pair.transmit(Side::Server);
    pair.deliver(Side::Server, usize::MAX);
    pair.run();
    assert_eq!((pair.service.id(), pair.device.id()), (Some(ID), Some(ID)));
}

/// draft-02 §4.2, for pipes that take a few bytes at a time: what does not fit waits, and with it what follows.
#[test]
fn nothing_goes_out_before_the_parameters() {
    let first = |session: &mut Session, now| {
        let mut out = Vec::new();
        for max in 0..MIN_TRANSMIT {
            if session.poll_transmit(now, max, &mut out) > 0 {
                break;
            }
        }
        out.concat()
    };
    let begins =
        |record: &[u8]| record[1..].starts_with(b"\xffQS0\r\n\r\n") || record[2..].starts_with(b"\xffQS0");
    let mut pair = Pair::resumable(Config::default());
    pair.stream(Dir::Bi, b"x");
    pair.cut(&BOTH);
    pair.reconnect();
    assert!(begins(&first(&mut pair.service, pair.now)), "on a later pipe");
    for close in [false, true] {
        let mut fresh = Pair::unattached(Config::default(), Config::default());
        fresh.service.attach(fresh.now, fresh.epoch).unwrap();
        fresh.device.attach(fresh.now, fresh.epoch).unwrap();
        fresh.transmit(Side::Client);
        fresh.deliver(Side::Client, usize::MAX);
        if close {
            fresh.device.handle_input(fresh.now, fresh.epoch, common::hex("01 01").into());
        }
        assert!(begins(&first(&mut fresh.device, fresh.now)), "on the first; {close}");
    }
}

#[test]
fn a_refusal_waits_for_room_to_be_said() {
    let mut acceptor = Acceptor::new(&Config::default());
    let mut out = Vec::new();
    assert!(acceptor.poll_transmit(MIN_TRANSMIT, &mut out) > 0, "the parameters");
    acceptor.refuse();
    for max in [0, 1, 16, 100] {
        assert_eq!(acceptor.poll_transmit(max, &mut out), 0);
        assert!(acceptor.wants_transmit(), "not lost for a pipe that takes {max} bytes now");
    }
    assert!(acceptor.poll_transmit(MIN_TRANSMIT, &mut out) > 0);
    assert!(!acceptor.wants_transmit());
}

#[test]
fn no_epoch_follows_the_last() {
    // A peer says that it has seen a pipe with the largest number there is.
    let mut pair = Pair::resumable(Config::default());
    pair.cut(&BOTH);
    pair.reconnect();
    let answer = common::hex("0f ff5153300d0a0d0a 06 80544c52 01 05 0c 5d43 01 ffffffffffffffff 00");
    pair.service.handle_input(pair.now, pair.epoch, answer.into());
    let Some(Event::Detached(Detached::Stale(last))) = events(&mut pair.service).pop() else {
        panic!("the peer wants a newer one");
    };
    let next = Epoch(last.0 + 1);
    assert_eq!(pair.service.attach(pair.now, next), Err(AttachError::Stale(Epoch(1))));
    // Nor can an owner ask for one that no peer can have named.
    let mut acceptor = Acceptor::new(&Config::default());
    let why = pair.device.resume(pair.now, Epoch(u64::MAX), &SECRET, &mut acceptor);
    assert_eq!(why, Err(Refused::Stale(Epoch(0))));
    pair.service.check_invariants();
}

#[test]
fn no_wrap_of_times_that_have_no_end() {
    let mut pair = Pair::resumable(config(|c| {
        (c.idle_timeout, c.grace, c.close_timeout) = (Duration::MAX, Duration::MAX, Duration::MAX);
    }));
    pair.cut(&BOTH);
    pair.advance_cut_off(Duration::from_secs(1 << 30));
    pair.reconnect();
    pair.run();
    assert!(events(&mut pair.device).contains(&Event::Attached(Epoch(1))));
}

/// Equal for sessions that will behave alike: the fingerprint does not tell where the bytes were cut.
#[test]
fn split_invariance_of_fingerprints() {
    let mut pair = Pair::resumable(small());
    let id = pair.stream(Dir::Bi, b"xyz");
    assert_eq!(id.to_wire(), 0);
    pair.advance(Duration::from_millis(25));
    let assert_alike = |pair: &Pair, what: &str, bytes: &str| {
        let bytes = common::hex(bytes);
        let fed = |cut: usize| {
            let mut session = pair.device.clone();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                session.handle_input(pair.now, pair.epoch, bytes::Bytes::copy_from_slice(piece));
            }
            session.fingerprint(pair.now)
        };
        for cut in 1..bytes.len() {
            assert_eq!(fed(cut), fed(0), "{what}: cut at {cut}");
        }
    };
    assert_alike(&pair, "a FIN is acknowledged at once", "07 0d 00 03 61626364");
    assert_alike(&pair, "the session ends within a record", "04 1d 02 05 61 03 04 04");
    assert_alike(&pair, "a bad frame, of which some was kept", "0e ff5153300d0a0d0a 05 04 02 4001 01");
    pair.hop();
    assert_alike(&pair, "sent again, and not the same", "07 0a 00 04 7879717a");
}

#[test]
fn unless_both_want_it_it_is_plain_qmux() {
    for (service, device) in [
        (Resumption::Offer(ID, SECRET), Resumption::Off),
        (Resumption::Off, Resumption::Accept),
        (Resumption::Off, Resumption::Off),
    ] {
        let mut pair = Pair::with(config(|c| c.resumption = service), config(|c| c.resumption = device));
        assert_eq!((pair.service.id(), pair.device.id()), (None, None));
        pair.stream(Dir::Bi, b"x");
        assert_eq!(pair.service.attach(pair.now, Epoch(1)), Err(AttachError::NotResumable));
        pair.device.handle_input(pair.now, Epoch(0), common::hex("04 5d40 00 01").into());
        assert!(pair.device.is_closed(), "STREAM_ACK was not negotiated");
        pair.cut(&[Side::Client]);
        let lost = CloseReason::PipeLost(PipeClosed::Failed);
        assert!(events(&mut pair.service).contains(&Event::Closed(lost)));
    }
}

/// What a state does not tell: a stream that the peer is done with has arrived whole, one that it has never seen goes
/// out again from its beginning.
#[test]
fn absent_means_done() {
    let mut pair = Pair::resumable(Config::default());
    let done = pair.stream(Dir::Bi, b"question");
    pair.service.stream(done).unwrap().finish().unwrap();
    pair.device.stream(done).unwrap().write(b"answer").unwrap();
    pair.device.stream(done).unwrap().finish().unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.device, done), (b"question".to_vec(), Ok(())));
    assert_eq!(read_all(&mut pair.service, done), (b"answer".to_vec(), Ok(())));
    pair.run();
    // The service has another stream, of which nothing arrives; and the device forgets the first one.
    let unseen = pair.service.open(Dir::Bi).unwrap();
    pair.service.stream(unseen).unwrap().write(b"never seen").unwrap();
    pair.transmit(Side::Client);
    pair.device.release(done, ONE);
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (2, 0));
    pair.hop();
    assert_eq!(pair.service.stream(done).unwrap().sending(), Sending::Finished);
    assert_eq!(pair.service.stream(done).unwrap().acknowledged(), 8);
    assert_eq!(pair.device.accept(Dir::Bi), Some(unseen));
    assert_eq!(read_all(&mut pair.device, unseen).0, b"never seen");
    pair.service.release(done, ONE);
    assert_eq!(pair.service.open_streams(), 1, "nobody needs it any more");
}

/// `eventual`: whatever was lost before, once a pipe is there for long enough everything is through.
#[test]
fn eventual() {
    let mut pair = Pair::resumable(small());
    let id = pair.stream(Dir::Bi, &[pattern(0)]);
    let (mut written, mut read) = (1, Vec::new());
    for round in 0..60 {
        written += write_some(&mut pair.service, id, written, 700).unwrap_or(0);
        for side in BOTH {
            pair.transmit(side);
            pair.deliver(side, 37 * round % 900);
        }
        if round % 3 == 0 {
            pair.cut(&BOTH[..round % 2 + 1]);
            pair.reconnect();
        }
        read.extend(read_all(&mut pair.device, id).0);
    }
    pair.service.stream(id).unwrap().finish().unwrap();
    let (rest, how) = drain(&mut pair, id);
    read.extend(rest);
    assert!(read == patterned(written) && how == Ok(()), "{} of {written}", read.len());
}
