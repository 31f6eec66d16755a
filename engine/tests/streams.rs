//! Delivery and lifecycle: what is written is read, ends are ends, and what is over is gone.
//! Names are those of the invariants that they show.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{EPOCH, ONE, Pair, config, events, pattern, read_all, write_some};
use towline_engine::{
    Acceptor, Arrival, AttachError, CloseReason, Code, Config, Dir, Epoch, Event, OpenError, PipeClosed,
    ReadError, Session, Side, StreamId, UnknownStream, Urgency, WriteError,
};

const TWO: Code = Code::new(2).unwrap();

#[test]
fn bytes_travel_both_ways_and_end() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"request");
    pair.service.stream(id).unwrap().finish().unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.device, id), (b"request".to_vec(), Ok(())));
    pair.device.stream(id).unwrap().write(b"response").unwrap();
    pair.device.stream(id).unwrap().finish().unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.service, id), (b"response".to_vec(), Ok(())));
    assert_eq!(events(&mut pair.service), [Event::Finished(id)]);
}

#[test]
fn exact_prefix_of_a_megabyte_in_awkward_pieces() {
    let mut pair = Pair::new(config(|c| (c.stream_window, c.session_window) = (5000, 7000)));
    pair.cut = 977;
    let id = pair.stream(Dir::Uni, &[pattern(0)]);
    let (mut written, mut read) = (1, Vec::new());
    while read.len() < 1 << 20 {
        let count = 1 + (written * 7 + read.len()) % 9000;
        let count = count.min((1 << 20) - written);
        if let Ok(accepted) = write_some(&mut pair.service, id, written, count) {
            written += accepted;
        }
        pair.run();
        if let Ok(Some(bytes)) = pair.device.stream(id).unwrap().read(1 + read.len() % 3000) {
            read.extend_from_slice(&bytes);
        }
        pair.run();
    }
    assert!(read.iter().enumerate().all(|(offset, &byte)| byte == pattern(offset)));
}

#[test]
fn accepted_means_owed() {
    let mut pair = Pair::new(config(|c| c.stream_window = 100));
    let id = pair.stream(Dir::Bi, &[pattern(0)]);
    let accepted = write_some(&mut pair.service, id, 1, 1000).unwrap();
    assert_eq!(accepted, 99);
    pair.run();
    let (read, _) = read_all(&mut pair.device, id);
    assert_eq!(read.len(), 1 + accepted, "all of it, without another call");
}

#[test]
fn eof_iff_fin() {
    // A reset, a lost pipe and a closed session each end a stream; none looks like its end.
    for end in ["fin", "reset", "pipe", "close"] {
        let mut pair = Pair::new(Config::default());
        let id = pair.stream(Dir::Bi, b"abc");
        match end {
            "fin" => pair.service.stream(id).unwrap().finish().unwrap(),
            "reset" => pair.service.stream(id).unwrap().reset(ONE).unwrap(),
            "pipe" => pair.device.handle_pipe_closed(pair.now, EPOCH, PipeClosed::Finished),
            _ => pair.service.close(pair.now, TWO, b"bye"),
        }
        pair.run();
        let (bytes, how) = read_all(&mut pair.device, id);
        match end {
            "fin" => assert_eq!((&bytes[..], how), (&b"abc"[..], Ok(()))),
            "reset" => assert_eq!((&bytes[..], how), (&b"abc"[..], Err(ReadError::Reset(ONE)))),
            _ => assert_eq!((&bytes[..], how), (&b"abc"[..], Err(ReadError::Closed)), "{end}"),
        }
        assert_eq!(read_all(&mut pair.device, id), (vec![], how), "and it stays so");
    }
}

#[test]
fn late_reset_ignored() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"abc");
    pair.service.stream(id).unwrap().finish().unwrap();
    pair.run();
    assert_eq!(pair.service.stream(id).unwrap().reset(ONE), Err(WriteError::Finished));
    // And on the wire: RESET_STREAM with the same final size, after the FIN.
    pair.device.handle_input(pair.now, EPOCH, common::hex("04 04000103").into());
    assert_eq!(read_all(&mut pair.device, id), (b"abc".to_vec(), Ok(())));
    assert!(!pair.device.is_closed());
}

#[test]
fn halves_independent() {
    let cases: [fn(&mut Session, StreamId); 3] = [
        |session, id| session.stream(id).unwrap().finish().unwrap(),
        |session, id| session.stream(id).unwrap().reset(ONE).unwrap(),
        |session, id| session.stream(id).unwrap().stop(ONE).unwrap(),
    ];
    for (case, end) in cases.into_iter().enumerate() {
        let mut pair = Pair::new(Config::default());
        let id = pair.stream(Dir::Bi, b"there");
        end(&mut pair.service, id);
        pair.run();
        let other = if case == 2 { Side::Client } else { Side::Server };
        pair.end(other).stream(id).unwrap().write(b"and back").unwrap();
        pair.run();
        let (bytes, how) = read_all(pair.end(other.peer()), id);
        assert!(bytes.ends_with(b"and back"), "case {case}: {bytes:?}");
        assert_eq!(how, Err(ReadError::Blocked), "case {case}");
    }
}

#[test]
fn gapless_pipes_keep_no_bytes_back() {
    // Whatever arrives in order can be read at once; there is nowhere else for it to be.
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Uni, b"x");
    assert_eq!(read_all(&mut pair.device, id).0, b"x");
    pair.service.stream(id).unwrap().write(&[7; 3000]).unwrap();
    pair.transmit(Side::Client);
    let mut read = 0;
    while pair.on_the_wire(Side::Client) > 0 {
        pair.deliver(Side::Client, 1);
        read += read_all(&mut pair.device, id).0.len();
        assert!(read + pair.on_the_wire(Side::Client) >= 3000 - 1);
    }
    assert_eq!(read, 3000);
}

#[test]
fn no_dup_and_no_loss_across_every_cut() {
    for cut in 1..60 {
        let mut pair = Pair::new(Config::default());
        pair.cut = cut;
        let id = pair.stream(Dir::Bi, b"the quick brown fox ");
        pair.service.stream(id).unwrap().write(b"jumps over ").unwrap();
        pair.service.stream(id).unwrap().write(b"the lazy dog").unwrap();
        pair.service.stream(id).unwrap().finish().unwrap();
        pair.run();
        let expected = b"the quick brown fox jumps over the lazy dog".to_vec();
        assert_eq!(read_all(&mut pair.device, id), (expected, Ok(())), "cut at {cut}");
    }
}

#[test]
fn split_invariance() {
    // The same bytes in one piece, cut once at every place, and byte by byte: the same state, the same news.
    let mut sender = Pair::new(Config::default());
    let mut bytes = Vec::new();
    let (a, b) = (sender.service.open(Dir::Bi).unwrap(), sender.service.open(Dir::Uni).unwrap());
    sender.service.stream(a).unwrap().write(b"some payload that is cut").unwrap();
    sender.service.stream(b).unwrap().write(b"another").unwrap();
    sender.service.stream(b).unwrap().finish().unwrap();
    collect(&mut sender, &mut bytes);
    sender.service.stream(a).unwrap().stop(ONE).unwrap();
    sender.service.stream(a).unwrap().reset(TWO).unwrap();
    sender.service.ping();
    collect(&mut sender, &mut bytes);
    sender.service.close(sender.now, TWO, b"that was all");
    collect(&mut sender, &mut bytes);

    let receive = |pieces: &[&[u8]]| {
        let mut pair = Pair::new(Config::default());
        for piece in pieces {
            pair.device.handle_input(pair.now, EPOCH, piece.to_vec().into());
        }
        (pair.device.fingerprint(pair.now), events(&mut pair.device))
    };
    let whole = receive(&[&bytes]);
    assert!(matches!(whole.1.last(), Some(Event::Closed(CloseReason::Peer { code: TWO, .. }))));
    for cut in 0..bytes.len() {
        assert_eq!(receive(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
    }
    assert_eq!(receive(&bytes.chunks(1).collect::<Vec<_>>()), whole);
}

fn collect(pair: &mut Pair, bytes: &mut Vec<u8>) {
    let mut out = Vec::new();
    while pair.service.poll_transmit(pair.now, 1 << 16, &mut out) > 0 {}
    bytes.extend(out.concat());
}

#[test]
fn ids_monotone_unique() {
    let mut pair = Pair::new(config(|c| (c.max_streams_bidi, c.max_streams_uni) = (3, 3)));
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..20 {
        for side in [Side::Client, Side::Server] {
            for dir in [Dir::Bi, Dir::Uni] {
                let id = pair.end(side).open(dir).unwrap();
                assert_eq!((id.opener(), id.dir(), id.index()), (side, dir, round));
                assert!(seen.insert(id));
                pair.end(side).stream(id).unwrap().finish().unwrap();
                pair.run();
                assert_eq!(pair.end(side.peer()).accept(dir), Some(id));
                pair.release(id);
            }
        }
        pair.run();
    }
}

#[test]
fn surfaced_once() {
    let mut pair = Pair::new(Config::default());
    let ids: Vec<_> = (0..5).map(|_| pair.service.open(Dir::Bi).unwrap()).collect();
    // The last one speaks first; naming it opens the others, unseen (RFC 9000 §2.1).
    pair.service.stream(ids[4]).unwrap().write(b"x").unwrap();
    pair.run();
    assert_eq!(events(&mut pair.device), [Event::Incoming(Dir::Bi)]);
    assert_eq!(pair.device.accept(Dir::Bi), Some(ids[4]));
    assert_eq!(pair.device.accept(Dir::Bi), None);
    assert!(matches!(pair.device.stream(ids[0]), Err(UnknownStream(_))));
    for id in [ids[2], ids[0]] {
        pair.service.stream(id).unwrap().finish().unwrap();
        pair.run();
        assert_eq!(events(&mut pair.device), [Event::Incoming(Dir::Bi)]);
        assert_eq!(pair.device.accept(Dir::Bi), Some(id));
        assert_eq!(pair.device.accept(Dir::Bi), None);
    }
    // One that is abandoned before it said anything is never seen, and leaves nothing behind.
    pair.service.release(ids[1], ONE);
    pair.run();
    assert_eq!((pair.device.accept(Dir::Bi), events(&mut pair.device)), (None, vec![]));
    for id in [ids[0], ids[2], ids[3], ids[4]] {
        pair.release(id);
    }
    pair.run();
    assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
}

/// Corner case 1: STOP_SENDING or credit arrives before the first data.
#[test]
fn a_stream_that_is_stopped_before_its_first_byte_surfaces_with_that_byte() {
    let mut pair = Pair::new(Config::default());
    let id = pair.service.open(Dir::Bi).unwrap();
    pair.service.stream(id).unwrap().stop(ONE).unwrap();
    pair.run();
    assert_eq!((pair.device.accept(Dir::Bi), events(&mut pair.device)), (None, vec![]));
    pair.service.stream(id).unwrap().write(b"hello").unwrap();
    pair.run();
    assert_eq!(pair.device.accept(Dir::Bi), Some(id));
    assert_eq!(events(&mut pair.device), [Event::Incoming(Dir::Bi), Event::Stopped(id, ONE)]);
    assert_eq!(pair.device.stream(id).unwrap().write(b"x"), Err(WriteError::Stopped(ONE)));
    assert_eq!(read_all(&mut pair.device, id).0, b"hello");
}

#[test]
fn slot_held_by_work() {
    // Rapid Reset: what the peer abandons stays on its account until the application is done with it.
    let mut pair = Pair::new(config(|c| c.max_streams_bidi = 2));
    let ids = [pair.stream(Dir::Bi, b"work"), pair.stream(Dir::Bi, b"work")];
    for id in ids {
        pair.service.release(id, ONE);
    }
    pair.run();
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Blocked(Dir::Bi)));
    // MadeYouReset: the same if it was this end that reset it.
    pair.device.stream(ids[0]).unwrap().reset(TWO).unwrap_err();
    let (_, how) = read_all(&mut pair.device, ids[0]);
    assert_eq!(how, Err(ReadError::Reset(ONE)));
    pair.run();
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Blocked(Dir::Bi)));
    pair.device.release(ids[0], TWO);
    pair.run();
    assert_eq!(events(&mut pair.service), [Event::Openable(Dir::Bi)]);
    assert!(pair.service.open(Dir::Bi).is_ok());
    assert_eq!(pair.service.open(Dir::Bi), Err(OpenError::Blocked(Dir::Bi)), "one slot, one stream");
}

#[test]
fn close_idempotent() {
    // Finish, reset, stop, release and close in every order of five, twice each: no panic, one outcome.
    type Verb = fn(&mut Pair, StreamId);
    let verbs: [Verb; 5] = [
        |pair, id| _ = pair.service.stream(id).map(|mut s| s.finish()),
        |pair, id| _ = pair.service.stream(id).map(|mut s| s.reset(ONE)),
        |pair, id| _ = pair.service.stream(id).map(|mut s| s.stop(ONE)),
        |pair, id| pair.service.release(id, TWO),
        |pair, _| pair.service.close(pair.now, TWO, b""),
    ];
    for order in permutations(5) {
        for run_between in [false, true] {
            let mut pair = Pair::new(Config::default());
            let id = pair.stream(Dir::Bi, b"data");
            for &verb in order.iter().flat_map(|v| [v, v]) {
                verbs[verb](&mut pair, id);
                pair.service.check_invariants();
                if run_between {
                    pair.run();
                }
            }
            pair.run();
            assert_eq!(events(&mut pair.service).last(), Some(&Event::Closed(CloseReason::Local(TWO))));
            assert_eq!(pair.service.open_streams(), 0, "{order:?}");
            pair.device.release(id, ONE);
            assert_eq!(pair.device.open_streams(), 0, "{order:?}");
        }
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(count - 1);
    let insert = |order: &Vec<usize>, at| [&order[..at], &[count - 1], &order[at..]].concat();
    shorter.iter().flat_map(|order| (0..count).map(move |at| insert(order, at))).collect()
}

#[test]
fn confluence() {
    // Each end does one thing to the stream at the same time. Whoever's frames arrive first, the end is the
    // same: both halves are over once both applications are, and nothing is left.
    let things: [fn(&mut Session, StreamId); 4] = [
        |session, id| _ = session.stream(id).unwrap().finish(),
        |session, id| _ = session.stream(id).unwrap().reset(ONE),
        |session, id| _ = session.stream(id).unwrap().stop(TWO),
        |_, _| (),
    ];
    for ours in things {
        for theirs in things {
            let mut outcomes = Vec::new();
            for first in [Side::Client, Side::Server] {
                let mut pair = Pair::new(Config::default());
                let id = pair.stream(Dir::Bi, b"abc");
                pair.device.stream(id).unwrap().write(b"def").unwrap();
                ours(&mut pair.service, id);
                theirs(&mut pair.device, id);
                for side in [first, first.peer()] {
                    pair.transmit(side);
                }
                for side in [first, first.peer()] {
                    pair.deliver(side, usize::MAX);
                }
                pair.run();
                let ends = [Side::Client, Side::Server].map(|side| read_all(pair.end(side), id));
                pair.release(id);
                pair.run();
                assert_eq!((pair.service.open_streams(), pair.device.open_streams()), (0, 0));
                outcomes.push((ends, pair.service.credit(), pair.device.credit()));
            }
            assert_eq!(outcomes[0], outcomes[1]);
        }
    }
}

/// Corner case 3: STOP_SENDING crosses the FIN, or comes after all went out.
#[test]
fn a_stop_after_the_end_changes_nothing() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"abc");
    pair.service.stream(id).unwrap().finish().unwrap();
    pair.transmit(Side::Client);
    pair.device.stream(id).unwrap().stop(ONE).unwrap();
    pair.run();
    assert_eq!(events(&mut pair.service), [Event::Finished(id)]);
    assert_eq!(pair.service.stream(id).unwrap().write(b"x"), Err(WriteError::Finished));
}

/// Corner case 16.
#[test]
fn a_reset_is_never_a_clean_end() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"abc");
    assert_eq!(read_all(&mut pair.device, id), (b"abc".to_vec(), Err(ReadError::Blocked)));
    pair.service.release(id, ONE); // as a dropped, unfinished writer does
    pair.run();
    assert_eq!(events(&mut pair.device)[0], Event::Stopped(id, ONE));
    assert_eq!(read_all(&mut pair.device, id), (vec![], Err(ReadError::Reset(ONE))));
}

#[test]
fn what_came_before_a_reset_is_read_before_it() {
    let mut pair = Pair::new(common::wide());
    let id = pair.stream(Dir::Bi, b"abc");
    pair.service.stream(id).unwrap().write(b"not sent").unwrap();
    pair.service.stream(id).unwrap().reset(ONE).unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.device, id), (b"abc".to_vec(), Err(ReadError::Reset(ONE))));
    // With `reset_when_sent`, that is all that was written.
    let id = pair.stream(Dir::Bi, b"abc");
    write_some(&mut pair.service, id, 0, 100_000).unwrap();
    pair.service.stream(id).unwrap().reset_when_sent(TWO).unwrap();
    assert_eq!(pair.service.stream(id).unwrap().write(b"x"), Err(WriteError::Finished));
    pair.run();
    let (bytes, how) = read_all(&mut pair.device, id);
    assert_eq!((bytes.len(), how), (100_003, Err(ReadError::Reset(TWO))));
    assert_eq!(events(&mut pair.service), [], "it did not finish");
    // With nothing on its way it is a reset like any other; and a reset does not wait behind it.
    let id = pair.stream(Dir::Bi, b"abc");
    pair.service.stream(id).unwrap().reset_when_sent(TWO).unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Reset(TWO)));
    let id = pair.stream(Dir::Bi, b"abc");
    write_some(&mut pair.service, id, 0, 100_000).unwrap();
    pair.service.stream(id).unwrap().reset_when_sent(TWO).unwrap();
    pair.service.stream(id).unwrap().reset(ONE).unwrap();
    pair.run();
    assert_eq!(read_all(&mut pair.device, id), (b"abc".to_vec(), Err(ReadError::Reset(ONE))));
}

/// Corner case 17.
#[test]
fn a_writer_fails_at_once_when_the_peer_drops_the_stream() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"abc");
    pair.device.release(id, TWO);
    pair.run();
    assert!(events(&mut pair.service).contains(&Event::Stopped(id, TWO)));
    assert_eq!(pair.service.stream(id).unwrap().write(b"more"), Err(WriteError::Stopped(TWO)));
}

#[test]
fn no_residue() {
    let mut pair = Pair::new(Config::default());
    let at_rest = |pair: &Pair| {
        (pair.service.fingerprint(pair.now) != 0, pair.service.open_streams(), pair.device.open_streams())
    };
    for round in 0..50u8 {
        let id = pair.stream(if round % 2 == 0 { Dir::Bi } else { Dir::Uni }, &[round; 3000]);
        match round % 5 {
            0 => pair.service.stream(id).unwrap().finish().unwrap(),
            1 => pair.service.stream(id).unwrap().reset(ONE).unwrap(),
            2 => pair.device.stream(id).unwrap().stop(ONE).unwrap(),
            3 => _ = read_all(&mut pair.device, id),
            _ => {}
        }
        if round % 3 == 0 {
            pair.run();
        }
        pair.release(id);
        pair.run();
        assert_eq!(at_rest(&pair), (true, 0, 0), "round {round}");
        assert_eq!(pair.service.credit().available, pair.device.credit().promised);
        assert_eq!((events(&mut pair.device), pair.device.credit().unread), (vec![], 0));
        events(&mut pair.service);
        assert!(!pair.service.wants_transmit() && !pair.device.wants_transmit());
    }
    // The timers that are left are the session's own.
    let (at, timer) = pair.service.poll_timeout().unwrap();
    assert_eq!(timer, towline_engine::Timer::KeepAlive);
    assert!(at > pair.now);
}

#[test]
fn one_terminal_event() {
    let mut pair = Pair::new(Config::default());
    let finished = pair.stream(Dir::Bi, b"abc");
    let stopped = pair.stream(Dir::Bi, b"abc");
    pair.service.stream(finished).unwrap().finish().unwrap();
    pair.device.stream(stopped).unwrap().stop(ONE).unwrap();
    pair.run();
    pair.device.stream(finished).unwrap().stop(ONE).unwrap(); // late
    pair.run();
    let mut news = events(&mut pair.service);
    news.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(news, [Event::Finished(finished), Event::Stopped(stopped, ONE)]);
    pair.service.close(pair.now, TWO, b"");
    pair.run();
    pair.service.close(pair.now, ONE, b"");
    pair.service.handle_pipe_closed(pair.now, EPOCH, PipeClosed::Failed);
    pair.run();
    assert_eq!(events(&mut pair.service), [Event::Closed(CloseReason::Local(TWO))]);
    assert_eq!(events(&mut pair.device).len(), 1);
}

#[test]
fn stale_pipe_inert() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"abc");
    let before = pair.device.fingerprint(pair.now);
    let other = Epoch(7);
    pair.device.handle_input(pair.now, other, common::hex("ff ff ff ff").into());
    pair.device.handle_pipe_closed(pair.now, other, PipeClosed::Failed);
    assert_eq!(pair.device.fingerprint(pair.now), before);
    assert_eq!(pair.device.attach(pair.now, other), Err(AttachError::NotResumable));
    assert_eq!(read_all(&mut pair.device, id).0, b"abc");
}

#[test]
fn any_call_at_any_time_is_legal() {
    let mut session = Session::new(Side::Client, Config::default());
    let now = towline_engine::Instant::default();
    let nowhere = StreamId::new(Side::Client, Dir::Bi, 0).unwrap();
    session.handle_input(now, EPOCH, vec![1, 2, 3].into());
    session.handle_pipe_closed(now, EPOCH, PipeClosed::Failed);
    session.handle_timeout(now);
    session.ping();
    session.copy_out();
    session.release(nowhere, ONE);
    assert_eq!(session.open(Dir::Bi), Err(OpenError::Blocked(Dir::Bi)));
    assert!(session.stream(nowhere).is_err());
    assert_eq!(session.accept(Dir::Uni), None);
    assert_eq!(session.poll_transmit(now, 1 << 16, &mut Vec::new()), 0);
    assert_eq!(session.poll_timeout(), None);
    session.close(now, TWO, b"");
    assert_eq!(session.poll_event(), Some(Event::Closed(CloseReason::Local(TWO))));
    assert_eq!(session.attach(now, EPOCH), Err(AttachError::Closed));
    assert_eq!(session.open(Dir::Bi), Err(OpenError::Closed));
    session.check_invariants();
}

#[test]
fn directions_are_kept_apart() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Uni, b"abc");
    assert_eq!(pair.service.stream(id).unwrap().read(1), Err(ReadError::SendOnly));
    assert_eq!(pair.service.stream(id).unwrap().stop(ONE), Err(ReadError::SendOnly));
    assert_eq!(pair.device.stream(id).unwrap().write(b"x"), Err(WriteError::ReceiveOnly));
    assert_eq!(pair.device.stream(id).unwrap().finish(), Err(WriteError::ReceiveOnly));
    assert_eq!(pair.device.stream(id).unwrap().reset(ONE), Err(WriteError::ReceiveOnly));
}

#[test]
fn an_accepted_pipe_is_handed_over_wherever_it_is_cut() {
    let mut pair = Pair::unattached(Config::default(), Config::default());
    pair.service.attach(pair.now, EPOCH).unwrap();
    let mut hello = Vec::new();
    pair.service.poll_transmit(pair.now, 1 << 16, &mut hello);
    let hello = hello.concat();
    for cut in 0..hello.len() {
        let mut acceptor = Acceptor::new(&Config::default());
        let mut ours = Vec::new();
        assert!(acceptor.poll_transmit(1 << 16, &mut ours) > 0, "it declares itself without waiting");
        assert_eq!(acceptor.poll_transmit(1 << 16, &mut ours), 0, "once");
        assert_eq!(acceptor.handle_input(hello[..cut].to_vec().into()), None);
        assert_eq!(acceptor.handle_input(hello[cut..].to_vec().into()), Some(Arrival::New(None)));
        let mut session = Session::new(Side::Server, Config::default());
        session.attach_accepted(pair.now, EPOCH, acceptor).unwrap();
        assert_eq!(session.poll_event(), Some(Event::Attached(EPOCH)));
        // The service's session takes what the acceptor and the session say as one stream of records.
        session.poll_transmit(pair.now, 1 << 16, &mut ours);
        let mut service = pair.service.clone();
        service.handle_input(pair.now, EPOCH, ours.concat().into());
        assert_eq!(events(&mut service), [Event::Attached(EPOCH)]);
    }
}

#[test]
fn what_makes_no_sense_is_answered_by_the_session() {
    let mut acceptor = Acceptor::new(&Config::default());
    assert_eq!(acceptor.handle_input(b"GET / HTTP/1.1\r\n\r\n".to_vec().into()), Some(Arrival::New(None)));
    let mut session = Session::new(Side::Server, Config::default());
    session.attach_accepted(towline_engine::Instant::default(), EPOCH, acceptor).unwrap();
    assert!(matches!(session.poll_event(), Some(Event::Closed(CloseReason::Violation(_)))));
}

#[test]
fn a_clone_behaves_alike_and_has_the_same_fingerprint() {
    let mut pair = Pair::new(Config::default());
    let id = pair.stream(Dir::Bi, b"abc");
    let mut copy = pair.device.clone();
    assert_eq!(copy.fingerprint(pair.now), pair.device.fingerprint(pair.now));
    copy.stream(id).unwrap().write(b"x").unwrap();
    assert_ne!(copy.fingerprint(pair.now), pair.device.fingerprint(pair.now));
    pair.device.stream(id).unwrap().write(b"x").unwrap();
    assert_eq!(copy.fingerprint(pair.now), pair.device.fingerprint(pair.now));
}

/// A stream that is gone still stood behind one that changed its class: it is passed over, and no longer counted.
#[test]
fn who_is_gone_is_passed_over_when_a_stream_changes_its_urgency() {
    let mut pair = Pair::new(Config::default());
    let stays = pair.service.open(Dir::Bi).unwrap();
    let goes = pair.service.open(Dir::Uni).unwrap();
    pair.service.stream(stays).unwrap().write(&[1; 20_000]).unwrap();
    pair.service.stream(goes).unwrap().write(&[2; 1_000]).unwrap();
    pair.service.release(goes, Code::default());
    let mut out = Vec::new();
    pair.service.poll_transmit(pair.now, 512, &mut out);
    assert_eq!(pair.service.open_streams(), 1);
    pair.service.stream(stays).unwrap().set_urgency(Urgency::Bulk);
    pair.service.check_invariants();
    while pair.service.poll_transmit(pair.now, 16384, &mut out) > 0 {}
    pair.service.check_invariants();
}
