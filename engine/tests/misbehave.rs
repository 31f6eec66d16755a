//! Peers that break the rules, as bytes beside the rule that they break.
//!
//! Each is fed to a server whole, and cut at every byte: it ends in one `Closed` with the exact code, the peer
//! is told, and what was received before can still be read.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{EPOCH, config, events, hex, read_all};
use towline_engine::{CloseReason, Config, Dir, Event, Instant, Session, Side, Violation};

const NOW: Instant = Instant::from_nanos(1);

/// QX_TRANSPORT_PARAMETERS that allow 16 KiB on the session and each stream, and 4 streams of each kind.
const HELLO: &str = "27 ff5153300d0a0d0a 1e \
                     04 04 80004000 05 04 80004000 06 04 80004000 07 04 80004000 08 01 04 09 01 04 ";

fn server() -> Session {
    let config = config(|c| {
        (c.stream_window, c.session_window, c.max_streams_bidi, c.max_streams_uni) = (20, 30, 2, 2);
    });
    let mut session = Session::new(Side::Server, config);
    session.attach(NOW, EPOCH).unwrap();
    session
}

/// Feeds `pieces`; returns how the session ended and what it told the peer.
fn feed(mut session: Session, pieces: &[&[u8]]) -> (Option<CloseReason>, Vec<u8>) {
    let mut out = Vec::new();
    for piece in pieces {
        session.handle_input(NOW, EPOCH, Bytes::copy_from_slice(piece));
        session.check_invariants();
    }
    while session.poll_transmit(NOW, 1 << 16, &mut out) > 0 {}
    session.check_invariants();
    let mut ends = events(&mut session).into_iter().filter_map(|event| match event {
        Event::Closed(reason) => Some(reason),
        _ => None,
    });
    let end = ends.next();
    assert_eq!(ends.next(), None, "one terminal event");
    (end, out.concat())
}

fn assert_refused(bytes: &str, violation: Violation) {
    let bytes = hex(bytes);
    for cut in 0..bytes.len() {
        let (end, told) = feed(server(), &[&bytes[..cut], &bytes[cut..]]);
        assert_eq!(end, Some(CloseReason::Violation(violation)), "{bytes:02x?} cut at {cut}");
        // The last frame is CONNECTION_CLOSE with the code, frame type 0, and the reason.
        let reason = violation.reason().as_bytes();
        let length = u8::try_from(reason.len()).unwrap();
        let length: &[u8] = if length < 64 { &[length] } else { &[0x40, length] };
        let code = u8::try_from(violation.code()).unwrap();
        let close = [&[0x1c, code, 0x00], length, reason].concat();
        assert!(told.ends_with(&close), "{told:02x?}");
    }
}

fn assert_fine(bytes: &str) {
    let (end, _) = feed(server(), &[&hex(bytes)]);
    assert_eq!(end, None, "{bytes}");
}

/// The rule, what breaks it after a lawful hello, and how it is called.
const BROKEN: &[(&str, &str, Violation)] = &[
    ("draft-02 §3.2: a frame ends within its record", "03 10 00 10", Violation::TruncatedFrame),
    ("draft-02 §3.2: the same, by its length", "04 0a 00 05 61", Violation::TruncatedFrame),
    ("draft-02 §3.2: the same, CONNECTION_CLOSE", "04 1d 00 7fff", Violation::TruncatedFrame),
    ("draft-02 §3.2: one or more frames", "00", Violation::EmptyRecord),
    ("draft-02 §5.2: max_record_size", "7fff", Violation::RecordTooLarge),
    ("draft-02 §5.2: the same, 2^62 - 1", "ffffffffffffffff", Violation::RecordTooLarge),
    ("draft-02 §4: PING is prohibited", "01 01", Violation::UnknownFrame),
    ("draft-02 §4: ACK is prohibited", "05 02 00 00 00 00", Violation::UnknownFrame),
    ("draft-02 §4: CRYPTO is prohibited", "03 06 00 00", Violation::UnknownFrame),
    ("draft-02 §4: NEW_TOKEN is prohibited", "02 07 00", Violation::UnknownFrame),
    ("draft-02 §4: NEW_CONNECTION_ID is prohibited", "02 18 00", Violation::UnknownFrame),
    ("draft-02 §4: RETIRE_CONNECTION_ID is prohibited", "02 19 00", Violation::UnknownFrame),
    ("draft-02 §4: PATH_CHALLENGE is prohibited", "09 1a 0000000000000000", Violation::UnknownFrame),
    ("draft-02 §4: PATH_RESPONSE is prohibited", "09 1b 0000000000000000", Violation::UnknownFrame),
    ("draft-02 §4: HANDSHAKE_DONE is prohibited", "01 1e", Violation::UnknownFrame),
    ("RFC 9000 §12.4: unknown frames", "01 1f", Violation::UnknownFrame),
    ("RFC 9221 §3: DATAGRAM was not negotiated", "01 30", Violation::UnknownFrame),
    ("RFC 9000 §12.4: frame types are shortest", "02 4000", Violation::LongFrameType),
    ("RFC 9000 §12.4: the same, STREAM", "04 4008 00 61", Violation::LongFrameType),
    ("draft-02 §4.1: no overlap", "05 0a 00 01 61 00 05 0c 00 00 6162", Violation::NotInOrder),
    ("draft-02 §4.1: no gap", "04 0c 00 01 61", Violation::NotInOrder),
    ("draft-02 §4.2: parameters only once", "0a ff5153300d0a0d0a 00 00", Violation::ParametersOutOfPlace),
    ("draft-02 §4.3: pings grow", "12 f48c67529ef8c7bd 05 f48c67529ef8c7bd 05", Violation::PingSequence),
    ("draft-02 §4.3: pongs answer", "09 f48c67529ef8c7be 05", Violation::PingSequence),
    (
        "RFC 9000 §4.1: stream limit, by data",
        "17 08 00 000000000000000000000000000000000000000000",
        Violation::FlowControl,
    ),
    ("RFC 9000 §4.1: stream limit, by RESET_STREAM", "04 04 00 00 15", Violation::FlowControl),
    ("RFC 9000 §4.1: session limit", "04 04 00 00 14 04 04 04 00 0b", Violation::FlowControl),
    ("RFC 9000 §4.5: RESET_STREAM below what came", "04 08 00 6161 04 04 00 00 01", Violation::FinalSize),
    ("RFC 9000 §4.5: data past the FIN", "03 09 00 61 04 0c 00 01 61", Violation::FinalSize),
    ("RFC 9000 §4.5: another FIN", "03 09 00 61 02 09 00", Violation::FinalSize),
    ("RFC 9000 §4.5: the same, within what came", "05 09 00 616161 04 09 00 6161", Violation::FinalSize),
    ("RFC 9000 §4.5: another final size", "04 04 00 00 01 04 04 00 00 02", Violation::FinalSize),
    ("RFC 9000 §4.5: RESET_STREAM against FIN", "03 09 00 61 04 04 00 00 02", Violation::FinalSize),
    ("RFC 9000 §4.5: data after RESET_STREAM", "04 04 00 00 00 03 08 00 61", Violation::FinalSize),
    ("RFC 9000 §4.6: stream limit", "03 08 08 61", Violation::StreamLimit),
    ("RFC 9000 §4.6: the same, by RESET_STREAM", "04 04 0a 00 00", Violation::StreamLimit),
    ("RFC 9000 §4.6: the same, by STOP_SENDING", "03 05 08 00", Violation::StreamLimit),
    ("RFC 9000 §4.6: the same, the last id there is", "0a 08 fffffffffffffffc 61", Violation::StreamLimit),
    ("RFC 9000 §19.4: RESET_STREAM on our stream", "04 04 03 00 00", Violation::StreamState),
    ("RFC 9000 §19.5: STOP_SENDING on the peer's", "03 05 02 00", Violation::StreamState),
    ("RFC 9000 §19.5: the same, not opened", "03 05 01 00", Violation::StreamState),
    ("RFC 9000 §19.8: STREAM on our stream", "03 08 03 61", Violation::StreamState),
    ("RFC 9000 §19.8: the same, not opened", "03 08 01 61", Violation::StreamState),
    ("RFC 9000 §19.8: past 2^62 - 1", "0b 0c 00 ffffffffffffffff 61", Violation::FieldOutOfRange),
    ("RFC 9000 §19.10: MAX_STREAM_DATA on the peer's", "03 11 02 00", Violation::StreamState),
    ("RFC 9000 §19.10: the same, not opened", "03 11 01 00", Violation::StreamState),
    ("RFC 9000 §19.11: more than 2^60 streams", "09 12 d000000000000001", Violation::FieldOutOfRange),
    ("RFC 9000 §19.13: STREAM_DATA_BLOCKED on ours", "03 15 03 00", Violation::StreamState),
    ("RFC 9000 §19.14: more than 2^60 streams", "09 17 d000000000000001", Violation::FieldOutOfRange),
];

#[test]
fn every_broken_rule_ends_the_session_with_its_code() {
    for (rule, bytes, violation) in BROKEN {
        std::println!("{rule}");
        assert_refused(&format!("{HELLO}{bytes}"), *violation);
    }
}

#[test]
fn the_parameters_come_first() {
    for first in ["02 08 00", "01 00", "03 10 4000", "04 1d 00 00", "09 f48c67529ef8c7bd 00"] {
        assert_refused(first, Violation::ParametersOutOfPlace);
    }
    assert_refused("0e ff5153300d0a0d0a 05 04 02 4001 01", Violation::BadParameters);
    assert_refused("0b ff5153300d0a0d0a 02 0000", Violation::BadParameters);
    assert_refused("ff51 5330 0d0a 0d0a", Violation::RecordTooLarge); // draft-00, which had no records
    assert_refused("47 4554202f20 485454502f312e310d0a", Violation::UnknownFrame); // "GET / HTTP/1.1"
}

#[test]
fn what_looks_odd_but_is_lawful_is_taken() {
    for bytes in [
        "05 00 00 00 00 00",                             // PADDING alone
        "02 08 00",                                      // STREAM without data opens the stream
        "03 09 00 61 03 0d 00 01",                       // the FIN, said twice
        "03 09 00 61 04 04 00 07 01",                    // RESET_STREAM after the FIN, same final size
        "04 04 00 07 00 04 04 00 08 00",                 // RESET_STREAM twice
        "03 05 00 07 03 05 00 08",                       // STOP_SENDING twice
        "02 10 00 03 11 00 00 02 12 00",                 // limits that are smaller than before
        "02 14 00 03 15 00 00 02 16 00 02 17 00",        // BLOCKED of every kind
        "09 12 d000000000000000",                        // 2^60 streams
        "09 f48c67529ef8c7bd 05 09 f48c67529ef8c7bd 07", // pings may leave numbers out
        "4002 08 00 8000 0002 08 04",                    // sizes in more bytes than needed
        "07 08 4000 616263 6465",                        // and a stream id
    ] {
        assert_fine(&format!("{HELLO}{bytes}"));
    }
}

#[test]
fn what_came_before_the_violation_can_still_be_read() {
    let mut session = server();
    session.handle_input(NOW, EPOCH, hex(&format!("{HELLO} 05 0a 00 02 6869 01 01")).into());
    let id = session.accept(Dir::Bi).unwrap();
    assert_eq!(read_all(&mut session, id).0, b"hi");
    assert!(session.is_closed());
}

#[test]
fn nothing_is_read_or_said_after_the_end() {
    let mut session = server();
    session.handle_input(NOW, EPOCH, hex(&format!("{HELLO} 01 01")).into());
    let mut out = Vec::new();
    while session.poll_transmit(NOW, 1 << 16, &mut out) > 0 {}
    let before = session.fingerprint(NOW);
    session.handle_input(NOW, EPOCH, hex("03 08 00 61").into());
    session.ping();
    session.handle_timeout(Instant::from_nanos(u64::MAX));
    assert_eq!((session.fingerprint(NOW), session.poll_transmit(NOW, 1 << 16, &mut out)), (before, 0));
}

/// A repeat of what sets a limit or ends a half has no second effect.
#[test]
fn idempotent_frames() {
    for frame in ["03 10 7000", "04 11 00 7000", "03 12 7000", "04 04 00 07 00", "03 05 00 07", "03 09 00 61"]
    {
        let fed = |frames: &str| {
            let mut session = server();
            session.handle_input(NOW, EPOCH, hex(&format!("{HELLO} 02 08 00 {frames}")).into());
            (session.fingerprint(NOW), events(&mut session))
        };
        let twice =
            if frame.starts_with("03 09") { "03 09 00 61 03 0d 00 01" } else { &[frame, frame].join(" ") };
        assert_eq!(fed(frame), fed(twice), "{frame}");
    }
}

#[test]
fn no_wrap() {
    // Limits and offsets at the end of the scale, from a peer that allows everything.
    let everything = "ff ff ff ff ff ff ff ff";
    let hello = format!(
        "31 ff5153300d0a0d0a 28 04 08 {everything} 05 08 {everything} 06 08 {everything} 08 08 d000000000000000"
    );
    let frames = format!("09 10 {everything} 0a 11 00 {everything} 09 12 d000000000000000");
    let mut session = Session::new(Side::Server, Config::default());
    session.attach(NOW, EPOCH).unwrap();
    session.handle_input(NOW, EPOCH, hex(&format!("{hello} 02 08 00 {frames}")).into());
    session.check_invariants();
    assert!(!session.is_closed());
    let id = session.open(Dir::Bi).unwrap();
    assert_eq!(session.stream(id).unwrap().write(&[0; 1000]), Ok(1000));
}
