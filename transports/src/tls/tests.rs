//! The record layer against itself, where a peer must do what no honest one does, and the handshake in pieces.
//!
//! That it speaks TLS is shown beside rustls' own record layer, in tests/tls_records.rs.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use rustls::{AlertDescription, ContentType, Error, InvalidMessage, PeerMisbehaved};

use super::records::{Handshake, MAX_PLAINTEXT, Opened, Records, Step, alert_for, whole_record};
use super::{ALPN_LINK, TlsPipe, client_config, server_config};
use crate::session::carrier::{Batch, Carrier};
use crate::testing::{credentials, environment};
use tokio::io::AsyncWrite;

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// Lets two ends shake hands; `piece` bytes arrive at a time. Both read on before they answer, as sockets may make them.
fn pair(piece: usize) -> (Records, Records) {
    let credentials = credentials();
    let client = client_config(credentials.clone(), &[ALPN_LINK], &environment()).unwrap();
    let server = server_config(credentials, &[ALPN_LINK], &environment()).unwrap();
    let mut ends = [
        Handshake::client(client, "hub.test".try_into().unwrap()).unwrap(),
        Handshake::server(server).unwrap(),
    ];
    let mut inputs = [BytesMut::new(), BytesMut::new()];
    let mut on_their_way = [Vec::new(), Vec::new()];
    let mut steps = [Step::Read; 2];
    while steps != [Step::Done; 2] {
        for end in 0..2 {
            let arrived = on_their_way[1 - end].len().min(piece);
            inputs[end].extend(on_their_way[1 - end].drain(..arrived));
            if steps[end] == Step::Read {
                steps[end] = ends[end].advance(&mut inputs[end], &mut on_their_way[end]).unwrap();
            }
        }
    }
    let [client, server] = ends.map(|end| end.finish().unwrap());
    assert_eq!((client.1.alpn.as_deref(), server.1.alpn.as_deref()), (Some(ALPN_LINK), Some(ALPN_LINK)));
    assert_eq!((client.1.certificates.len(), server.1.certificates.len()), (1, 1));
    (client.0, server.0)
}

/// Seals one record.
fn seal(records: &mut Records, typ: ContentType, bytes: &[u8]) -> BytesMut {
    let mut sealed = BytesMut::new();
    records.seal_as(typ, [bytes], &mut sealed).unwrap();
    sealed
}

fn data(records: &mut Records, bytes: &[u8]) -> BytesMut {
    seal(records, ContentType::ApplicationData, bytes)
}

fn handshake(records: &mut Records, bytes: &[u8]) -> BytesMut {
    seal(records, ContentType::Handshake, bytes)
}

#[test]
fn a_handshake_may_arrive_in_pieces_of_any_size() {
    for piece in [1, 2, 5, 6, 100, 1 << 20] {
        let (mut client, mut server) = pair(piece);
        let there = data(&mut client, b"there");
        assert_eq!(server.open(there), Ok(Opened::Data(Bytes::from_static(b"there"))));
        let back = data(&mut server, b"back");
        assert_eq!(client.open(back), Ok(Opened::Data(Bytes::from_static(b"back"))));
    }
}

/// What comes right behind a handshake must not be taken for a part of it.
#[test]
fn data_behind_a_handshake_is_left_to_the_records() {
    let credentials = credentials();
    let client = client_config(credentials.clone(), &[ALPN_LINK], &environment()).unwrap();
    let server = server_config(credentials, &[ALPN_LINK], &environment()).unwrap();
    let mut client = Handshake::client(client, "hub.test".try_into().unwrap()).unwrap();
    let mut server = Handshake::server(server).unwrap();
    let (mut to_client, mut to_server) = (BytesMut::new(), Vec::new());
    let mut out = Vec::new();
    assert_eq!(client.advance(&mut to_client, &mut to_server), Ok(Step::Read));
    assert_eq!(server.advance(&mut to_server[..].into(), &mut out), Ok(Step::Read));
    to_client.extend_from_slice(&out);
    to_server.clear();
    assert_eq!(client.advance(&mut to_client, &mut to_server), Ok(Step::Done));
    let (mut client, _) = client.finish().unwrap();
    let mut input = BytesMut::from(&to_server[..]);
    for number in 0..3 {
        input.extend_from_slice(&data(&mut client, &[number; 100]));
    }
    assert_eq!(server.advance(&mut input, &mut out), Ok(Step::Done));
    let (mut server, _) = server.finish().unwrap();
    for number in 0..3 {
        let record = input.split_to(whole_record(&input).unwrap().unwrap());
        assert_eq!(server.open(record), Ok(Opened::Data(Bytes::copy_from_slice(&[number; 100]))));
    }
    assert!(input.is_empty());
}

#[test]
fn what_is_opened_lies_where_its_record_lay() {
    let (mut client, mut server) = pair(1 << 20);
    let record = data(&mut client, &[7; MAX_PLAINTEXT]);
    let (start, end) = (record.as_ptr().addr(), record.as_ptr().addr() + record.len());
    let Ok(Opened::Data(opened)) = server.open(record) else { panic!("it is data") };
    assert_eq!(opened, [7; MAX_PLAINTEXT][..]);
    assert!(start < opened.as_ptr().addr() && opened.as_ptr().addr() + opened.len() < end);
}

#[test]
fn parts_are_gathered_into_one_record() {
    let (mut client, mut server) = pair(1 << 20);
    let mut sealed = BytesMut::new();
    client.seal([&b"a"[..], b"", b"bc", &[b'd'; 1000]], &mut sealed).unwrap();
    assert_eq!(whole_record(&sealed), Ok(Some(sealed.len())));
    let mut whole = b"abc".to_vec();
    whole.resize(1003, b'd');
    assert_eq!(server.open(sealed), Ok(Opened::Data(whole.into())));
}

#[test]
fn a_key_that_has_sealed_enough_is_changed() {
    let (mut client, mut server) = pair(1 << 20);
    client.set_limit(10);
    let (mut records, mut opened) = (0, 0);
    for number in 0..50 {
        let mut sealed = BytesMut::new();
        client.seal([&[number][..]], &mut sealed).unwrap();
        while let Some(length) = whole_record(&sealed).unwrap() {
            records += 1;
            if let Opened::Data(bytes) = server.open(sealed.split_to(length)).unwrap() {
                assert_eq!(bytes, [number][..]);
                opened += 1;
            }
        }
    }
    assert_eq!((records, opened), (50 + 5, 50), "the change itself is sealed under the old key");
}

#[test]
fn a_peer_that_changes_its_key_may_ask_for_ours() {
    let (mut client, mut server) = pair(1 << 20);
    // A message may come in two records.
    let parts = [&KEY_UPDATE_REQUESTED[..2], &KEY_UPDATE_REQUESTED[2..]];
    let [first, second] = parts.map(|part| handshake(&mut client, part));
    client.change_sealing_key().unwrap();
    assert_eq!(server.open(first), Ok(Opened::Nothing));
    assert_eq!(server.open(second), Ok(Opened::KeyWanted));
    let mut answer = BytesMut::new();
    server.update_key(&mut answer).unwrap();
    assert_eq!(client.open(answer), Ok(Opened::Nothing));
    let there = data(&mut client, b"there");
    assert_eq!(server.open(there), Ok(Opened::Data(Bytes::from_static(b"there"))));
    let back = data(&mut server, b"back");
    assert_eq!(client.open(back), Ok(Opened::Data(Bytes::from_static(b"back"))));
}

#[test]
fn a_record_that_was_touched_is_refused() {
    let (mut client, _) = pair(1 << 20);
    for index in [5, 20, 50] {
        let mut server = pair(1 << 20);
        let mut record = data(&mut server.0, &[7; 40]);
        record[index] ^= 1;
        assert_eq!(server.1.open(record), Err(Error::DecryptError));
    }
    // One that is missing, and one that comes again.
    let mut ends = pair(1 << 20);
    let [first, second] = [b"1", b"2"].map(|bytes| data(&mut ends.0, bytes));
    assert_eq!(ends.1.open(second), Err(Error::DecryptError));
    assert_eq!(ends.1.open(first.clone()), Ok(Opened::Data(Bytes::from_static(b"1"))));
    assert_eq!(ends.1.open(first), Err(Error::DecryptError));
    // One that claims to need no key.
    let mut record = data(&mut client, b"x");
    for typ in [20, 21, 22] {
        record[0] = typ;
        let mut ends = pair(1 << 20);
        assert_eq!(ends.1.open(record.clone()), Err(InvalidMessage::InvalidContentType.into()));
    }
}

#[test]
fn what_is_no_record_is_refused_by_its_header() {
    assert_eq!(whole_record(b"GET "), Ok(None));
    assert_eq!(whole_record(b"GET /"), Err(InvalidMessage::InvalidContentType.into()));
    assert_eq!(whole_record(&[23, 4, 3, 0, 0]), Err(InvalidMessage::UnknownProtocolVersion.into()));
    assert_eq!(whole_record(&[23, 3, 3, 0x41]), Ok(None));
    assert_eq!(whole_record(&[23, 3, 3, 0x41, 0]), Ok(None));
    assert_eq!(whole_record(&[23, 3, 3, 0x41, 1]), Err(Error::PeerSentOversizedRecord));
    assert_eq!(whole_record(&[23, 3, 3, 0, 0]), Ok(Some(5)));
    let (_, mut server) = pair(1 << 20);
    assert_eq!(server.open(BytesMut::from(&[23, 3, 3, 0, 0][..])), Err(Error::DecryptError));
}

#[test]
fn a_peer_that_keeps_us_busy_with_nothing_is_refused() {
    for (typ, bytes) in [(ContentType::ApplicationData, &[][..]), (ContentType::Handshake, &KEY_UPDATE)] {
        let (mut client, mut server) = pair(1 << 20);
        let mut refused = None;
        for count in 0..100 {
            let record = seal(&mut client, typ, bytes);
            if typ == ContentType::Handshake {
                client.change_sealing_key().unwrap();
            }
            match server.open(record) {
                Ok(outcome) => assert_eq!(outcome, Opened::Nothing),
                Err(error) => {
                    refused = Some((count, error));
                    break;
                }
            }
        }
        assert_eq!(refused, Some((32, PeerMisbehaved::TooManyEmptyFragments.into())));
    }
    // With data in between it may go on for ever.
    let (mut client, mut server) = pair(1 << 20);
    for _ in 0..100 {
        for bytes in [&b""[..], b"x"] {
            let record = data(&mut client, bytes);
            server.open(record).unwrap();
        }
    }
}

#[test]
fn a_client_may_be_given_tickets_and_does_not_use_them() {
    let (mut client, mut server) = pair(1 << 20);
    let mut ticket = vec![4, 0, 0, 100];
    ticket.resize(104, 9);
    let record = handshake(&mut server, &[&ticket[..], &ticket].concat());
    assert_eq!(client.open(record), Ok(Opened::Nothing));
    let record = handshake(&mut client, &ticket);
    assert!(matches!(server.open(record), Err(Error::InappropriateMessage { .. })), "but a server not");
}

#[test]
fn messages_that_make_no_sense_are_refused() {
    let refused = |messages: &[&[u8]]| {
        let (mut client, mut server) = pair(1 << 20);
        let mut last = None;
        for message in messages {
            let record = handshake(&mut client, message);
            last = Some(server.open(record));
        }
        last.unwrap().unwrap_err()
    };
    assert_eq!(refused(&[&[24, 0, 0, 1, 2]]), InvalidMessage::InvalidKeyUpdate.into());
    assert_eq!(refused(&[&[24, 0, 0, 2, 0, 0]]), InvalidMessage::InvalidKeyUpdate.into());
    let behind = [&KEY_UPDATE[..], &[4]].concat();
    assert_eq!(refused(&[&behind]), PeerMisbehaved::KeyEpochWithPendingFragment.into());
    assert_eq!(refused(&[&[4, 0xff, 0xff, 0xff]]), InvalidMessage::HandshakePayloadTooLarge.into());
    assert!(matches!(refused(&[&[1, 0, 0, 0]]), Error::InappropriateMessage { .. }));
    // Data in the middle of a message.
    let (mut client, mut server) = pair(1 << 20);
    let (half, between) = (handshake(&mut client, &KEY_UPDATE[..3]), data(&mut client, b"x"));
    assert_eq!(server.open(half), Ok(Opened::Nothing));
    assert_eq!(server.open(between), Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into()));
}

#[test]
fn alerts_are_understood_and_answered() {
    let (mut client, mut server) = pair(1 << 20);
    let mut told = |alert: AlertDescription| {
        let mut sealed = BytesMut::new();
        client.seal_alert(alert, &mut sealed).unwrap();
        server.open(sealed)
    };
    assert_eq!(told(AlertDescription::UserCanceled), Ok(Opened::Nothing));
    let refused = Error::AlertReceived(AlertDescription::CertificateRequired);
    assert_eq!(told(AlertDescription::CertificateRequired), Err(refused.clone()));
    assert_eq!(told(AlertDescription::CloseNotify), Ok(Opened::Closed));
    assert_eq!(alert_for(&refused), None, "who complains is not complained to");
    assert_eq!(alert_for(&Error::DecryptError), Some(AlertDescription::BadRecordMac));
    let (mut client, mut server) = pair(1 << 20);
    let short = seal(&mut client, ContentType::Alert, &[1]);
    assert_eq!(server.open(short), Err(InvalidMessage::MessageTooShort.into()));
}

/// However often it asks, and whether it listens or not: it is told once.
#[test]
fn a_peer_that_asks_for_keys_and_does_not_listen_makes_us_keep_one_answer() {
    let (mut client, server) = pair(1 << 20);
    let (ours, mut theirs) = tokio::io::duplex(64);
    let mut ours = TlsPipe::over(ours, server);
    let mut context = Context::from_waker(Waker::noop());
    // What it does not take stays with us.
    let mut batch = Batch { slices: vec![Bytes::from(vec![7; 1000])], ends: vec![1] };
    Carrier::send(&mut ours, &mut batch);
    assert!(Carrier::poll_flush(&mut ours, &mut context).is_pending());
    let mut pieces = Vec::new();
    for _ in 0..1000 {
        let mut input = handshake(&mut client, &KEY_UPDATE_REQUESTED);
        client.change_sealing_key().unwrap();
        input.extend_from_slice(&data(&mut client, b"x"));
        while !input.is_empty() {
            let written = Pin::new(&mut theirs).poll_write(&mut context, &input);
            if let Poll::Ready(written) = written {
                input.advance(written.unwrap());
            }
            let _ = Carrier::poll_receive(&mut ours, &mut context, &mut pieces);
            let _ = Carrier::poll_flush(&mut ours, &mut context);
            Carrier::make_room(&mut ours, 0, || ());
        }
    }
    assert_eq!((pieces.len(), ours.waiting()), (1000, 1));
}
