//! WebSocket as a pipe: what is carried, how it begins and ends, and what bad input leads to.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{self, IoSlice};

use common::pattern;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use towline_transports::websocket::{
    self, MAX_RECEIVED, MAX_SENT, SUBPROTOCOL_LINK, UpgradeError, WebSocketError, WebSocketPipe,
};
use towline_transports::{Config, Link, Side};

const PATH: &str = "/link";

/// Both ends of a WebSocket over a pipe that holds `capacity` bytes each way.
async fn pair(capacity: usize) -> (WebSocketPipe<DuplexStream>, WebSocketPipe<DuplexStream>) {
    let (ours, theirs) = duplex(capacity);
    let (ours, theirs) = tokio::join!(
        websocket::connect(ours, "hub.test", PATH, SUBPROTOCOL_LINK),
        websocket::accept(theirs, PATH, &[SUBPROTOCOL_LINK])
    );
    (ours.unwrap(), theirs.unwrap())
}

/// The server's end, and what a client would write frames to.
async fn server() -> (WebSocketPipe<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(4 << 20);
    (websocket::from_upgraded(ours, SUBPROTOCOL_LINK.to_owned()).await, theirs)
}

/// A client's frame, masked with zeros. `first` is its flags and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const FIN: u8 = 0x80;

/// A frame of the server's: its flags and opcode, and the payload.
async fn read_frame(pipe: &mut DuplexStream) -> (u8, Vec<u8>) {
    let first = pipe.read_u8().await.unwrap();
    let length = match pipe.read_u8().await.unwrap() {
        126 => usize::from(pipe.read_u16().await.unwrap()),
        127 => usize::try_from(pipe.read_u64().await.unwrap()).unwrap(),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    pipe.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

fn reason(error: &io::Error) -> &WebSocketError {
    error.get_ref().and_then(|error| error.downcast_ref()).unwrap_or_else(|| panic!("{error}"))
}

// What is carried.

#[tokio::test]
async fn bytes_arrive_both_ways_over_a_pipe_of_any_size() {
    for capacity in [16, 1 << 10, 1 << 20] {
        let (mut ours, mut theirs) = pair(capacity).await;
        assert_eq!((ours.subprotocol(), theirs.subprotocol()), (SUBPROTOCOL_LINK, SUBPROTOCOL_LINK));
        carry(&mut ours, &mut theirs).await;
        carry(&mut theirs, &mut ours).await;
    }
}

async fn carry(from: &mut WebSocketPipe<DuplexStream>, to: &mut WebSocketPipe<DuplexStream>) {
    let sent = pattern(300_000);
    let mut read = vec![0; sent.len()];
    let write = async {
        from.write_all(&sent).await.unwrap();
        from.flush().await.unwrap();
    };
    tokio::join!(write, async { to.read_exact(&mut read).await.unwrap() });
    assert!(read == sent);
}

#[tokio::test]
async fn messages_hold_at_most_64_kib_and_a_vectored_write_is_one() {
    let (mut server, mut client) = server().await;
    let parts = [b"one ", b"two ", b"6   "].map(|part| IoSlice::new(part));
    assert_eq!(server.write_vectored(&parts).await.unwrap(), 12);
    assert_eq!(server.write(&[]).await.unwrap(), 0);
    let sent = pattern(200_000);
    server.write_all(&sent).await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(read_frame(&mut client).await, (BINARY, b"one two 6   ".to_vec()));
    let mut read = Vec::new();
    while read.len() < sent.len() {
        let (first, payload) = read_frame(&mut client).await;
        assert_eq!((first, payload.len()), (BINARY, MAX_SENT.min(sent.len() - read.len())));
        read.extend(payload);
    }
    assert!(read == sent);
}

#[tokio::test]
async fn a_payload_is_lent_without_a_copy_and_in_pieces() {
    let (mut server, mut client) = server().await;
    client.write_all(&frame(BINARY, b"abcdef")).await.unwrap();
    assert_eq!(server.fill_buf().await.unwrap(), b"abcdef");
    server.consume(2);
    let mut rest = [0; 3];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"cde");
    assert_eq!(server.fill_buf().await.unwrap(), b"f");
}

#[tokio::test]
async fn fragments_and_empty_messages_mean_nothing_and_pings_are_answered_among_them() {
    let (mut server, mut client) = server().await;
    let input = [
        frame(0x02, b"ab"),
        frame(0x00, b""),
        frame(PING, b"alive?"),
        frame(0x00, b"cd"),
        frame(FIN, b"ef"),
        frame(BINARY, b""),
        frame(0x8a, b"a pong that nobody asked for"),
        frame(BINARY, b"gh"),
    ];
    client.write_all(&input.concat()).await.unwrap();
    let mut read = [0; 8];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"abcdefgh");
    assert_eq!(read_frame(&mut client).await, (0x8a, b"alive?".to_vec()));
}

#[tokio::test]
async fn larger_messages_than_are_sent_are_accepted() {
    let (mut server, mut client) = server().await;
    let sent = pattern(MAX_RECEIVED);
    let write = async { client.write_all(&frame(BINARY, &sent)).await.unwrap() };
    let mut read = vec![0; sent.len()];
    tokio::join!(write, async { server.read_exact(&mut read).await.unwrap() });
    assert!(read == sent);
}

/// The peer pings and does not read. What it gets in answer is bounded, and nobody waits for it.
#[tokio::test]
async fn a_flood_of_pings_stops_neither_reads_nor_writes() {
    let (ours, mut client) = duplex(1 << 10);
    let mut server = websocket::from_upgraded(ours, SUBPROTOCOL_LINK.to_owned()).await;
    let flood = async {
        for _ in 0..20_000 {
            client.write_all(&frame(PING, &[0; 125])).await.unwrap();
        }
        client.write_all(&frame(BINARY, b"x")).await.unwrap();
    };
    let mut byte = [0];
    tokio::join!(flood, async { server.read_exact(&mut byte).await.unwrap() });
    assert_eq!(byte, *b"x");

    // The pongs and then a whole message: everything that waits comes out, and no more than the bound.
    let write = async {
        server.write_all(&[7; MAX_SENT]).await.unwrap();
        server.flush().await.unwrap();
    };
    let read = async {
        let mut pongs = 0;
        loop {
            match read_frame(&mut client).await {
                (0x8a, _) => pongs += 1,
                message => break (pongs, message),
            }
        }
    };
    let ((), (pongs, message)) = tokio::join!(write, read);
    assert_eq!(message, (BINARY, vec![7; MAX_SENT]));
    assert!(pongs < 600, "{pongs}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Messages, fragments, pings among them, and pieces in which all of it comes: what is read is the payload.
    #[test]
    fn however_it_is_cut_the_payload_is_what_is_read(
        frames in vec((vec(any::<u8>(), 0..300), any::<bool>(), any::<bool>()), 1..20),
        cut in 1_usize..600,
    ) {
        let (mut input, mut sent, mut is_within) = (Vec::new(), Vec::new(), false);
        for (payload, is_last, is_pinged) in frames {
            let first = if is_within { 0 } else { 0x02 } | if is_last { FIN } else { 0 };
            input.extend(frame(first, &payload));
            if is_pinged {
                input.extend(frame(PING, b"?"));
            }
            sent.extend(payload);
            is_within = !is_last;
        }
        if is_within {
            input.extend(frame(FIN, b""));
        }
        input.extend(frame(CLOSE, b""));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(async {
            let (ours, client) = duplex(cut);
            let mut server = websocket::from_upgraded(ours, SUBPROTOCOL_LINK.to_owned()).await;
            let (mut answers, mut client) = tokio::io::split(client);
            let mut read = Vec::new();
            let write = async { client.write_all(&input).await.unwrap() };
            let listen = async {
                server.read_to_end(&mut read).await.unwrap();
                server.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            tokio::join!(write, listen, async { answers.read_to_end(&mut heard).await.unwrap() });
            read
        });
        prop_assert_eq!(read, sent);
    }
}

/// Each end reads in one task and writes in another, over a pipe that is always full: nobody is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tasks_share_an_end_and_none_of_them_is_forgotten() {
    const LENGTH: usize = 2 << 20;
    let (ours, theirs) = pair(1 << 10).await;
    let mut tasks = tokio::task::JoinSet::new();
    for end in [ours, theirs] {
        let (mut read, mut write) = tokio::io::split(end);
        tasks.spawn(async move {
            for piece in pattern(LENGTH).chunks(10_007) {
                write.write_all(piece).await.unwrap();
            }
            write.flush().await.unwrap();
        });
        tasks.spawn(async move {
            let mut received = vec![0; LENGTH];
            read.read_exact(&mut received).await.unwrap();
            assert!(received == pattern(LENGTH));
        });
    }
    tasks.join_all().await;
}

// How it ends.

#[tokio::test]
async fn a_close_is_the_end_of_file_and_is_answered() {
    let (mut server, mut client) = server().await;
    client.write_all(&[frame(BINARY, b"last"), frame(CLOSE, &[0x03, 0xe8])].concat()).await.unwrap();
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"last");
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "and remains the end");
    assert_eq!(read_frame(&mut client).await, (CLOSE, vec![0x03, 0xe8]));
    let error = server.write_all(b"too late").await.unwrap_err();
    assert_eq!((error.kind(), reason(&error)), (io::ErrorKind::BrokenPipe, &WebSocketError::Closed));
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "both have closed, so the connection ends");
}

#[tokio::test]
async fn a_shutdown_says_close_after_what_was_written_and_hears_the_peer_out() {
    let (mut ours, mut theirs) = pair(64).await;
    let say = async {
        ours.write_all(&pattern(1000)).await.unwrap();
        ours.shutdown().await.unwrap();
        let error = ours.write_all(b"more").await.unwrap_err();
        assert_eq!(reason(&error), &WebSocketError::Closed);
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let hear = async {
        theirs.write_all(b"my last words").await.unwrap();
        theirs.flush().await.unwrap();
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        theirs.shutdown().await.unwrap();
        heard
    };
    let (ours, theirs) = tokio::join!(say, hear);
    assert_eq!((ours, theirs), (b"my last words".to_vec(), pattern(1000)));
}

#[tokio::test]
async fn a_peer_that_vanishes_is_an_error_and_never_an_end_of_file() {
    for last in
        [&[][..], &[BINARY], &frame(BINARY, b"whole"), &frame(BINARY, b"a part")[..9], &frame(0x02, b"x")]
    {
        let (mut server, mut client) = server().await;
        client.write_all(last).await.unwrap();
        drop(client);
        let mut read = Vec::new();
        let error = server.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(
            (error.kind(), reason(&error)),
            (io::ErrorKind::UnexpectedEof, &WebSocketError::Truncated)
        );
        assert!(server.read(&mut [0]).await.is_err(), "it does not turn into an end of file");
        // The connection is gone; all that is asked is that this comes back.
        let _ = server.shutdown().await;
    }
}

// Bad input.

/// What a server says to `input`, and the code of the Close that it sends.
async fn judged(input: &[u8]) -> (io::Error, Option<u16>) {
    let (mut server, mut client) = server().await;
    client.write_all(input).await.unwrap();
    let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(server.read(&mut [0]).await.is_err());
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let code = answer.strip_prefix(&[CLOSE, 2]).map(|code| u16::from_be_bytes(code.try_into().unwrap()));
    (error, code)
}

#[tokio::test]
async fn text_is_an_error() {
    for payload in [&b"hello"[..], b"", b"\xff\xfe"] {
        let (error, code) = judged(&frame(TEXT, payload)).await;
        assert_eq!((error.kind(), reason(&error)), (io::ErrorKind::InvalidData, &WebSocketError::Text));
        assert_eq!(code, Some(1003));
    }
    let (error, _) = judged(&[frame(0x01, b"hel"), frame(FIN, b"lo")].concat()).await;
    assert_eq!(
        error.to_string(),
        "the peer sent a WebSocket message of text, where only binary ones are taken"
    );
}

#[tokio::test]
async fn messages_that_are_too_large_are_an_error_before_they_have_come() {
    // The header alone.
    for size in [MAX_RECEIVED as u64 + 1, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
        let header = [&[BINARY, 0xff][..], &size.to_be_bytes(), &[0; 4]].concat();
        let (error, code) = judged(&header).await;
        assert_eq!((error.kind(), reason(&error)), (io::ErrorKind::InvalidData, &WebSocketError::TooLarge));
        assert_eq!(code, Some(1009), "{size}");
    }
    let half = vec![0; MAX_RECEIVED / 2 + 1];
    let (error, code) = judged(&[frame(0x02, &half), frame(FIN, &half)].concat()).await;
    assert_eq!((reason(&error), code), (&WebSocketError::TooLarge, Some(1009)));
}

#[tokio::test]
async fn other_violations_are_errors() {
    let cases: [(&str, Vec<u8>); 11] = [
        ("an opcode without a meaning", frame(0x83, b"")),
        ("a control opcode without a meaning", frame(0x8b, b"")),
        ("a reserved bit", frame(0xc2, b"x")),
        ("a frame that is not masked", vec![BINARY, 1, b'x']),
        ("a fragment of nothing", frame(0x00, b"x")),
        ("an end of nothing", frame(FIN, b"x")),
        ("a message within a message", [frame(0x02, b"x"), frame(BINARY, b"y")].concat()),
        ("a control frame in fragments", frame(0x09, b"x")),
        ("a control frame that is too large", frame(PING, &[0; 126])),
        ("a Close with half a code", frame(CLOSE, &[3])),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: hub.test\r\n\r\n".to_vec()),
    ];
    for (what, input) in cases {
        let (error, code) = judged(&input).await;
        let is_violation = matches!(reason(&error), WebSocketError::Violation(_));
        assert!(is_violation && error.kind() == io::ErrorKind::InvalidData, "{what}: {error:?}");
        assert_eq!(code, Some(1002), "{what}");
    }
}

#[tokio::test]
async fn no_garbage_is_taken_for_bytes_of_the_link() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..300 {
        let mut garbage = Vec::new();
        while garbage.len() < 512 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            garbage.extend_from_slice(&state.to_be_bytes());
        }
        let (mut server, mut client) = server().await;
        client.write_all(&garbage).await.unwrap();
        drop(client);
        // Whatever it is, it comes to an end. A Close among the garbage is a Close.
        let _ = server.read_to_end(&mut Vec::new()).await;
    }
}

// The handshake.

/// What `connect` makes of a server that answers with `text`.
async fn connect_to(text: &'static str) -> UpgradeError {
    let (ours, mut theirs) = duplex(16 << 10);
    let answer = async {
        let mut request = vec![0; 4096];
        let length = theirs.read(&mut request).await.unwrap();
        theirs.write_all(text.as_bytes()).await.unwrap();
        drop(theirs);
        String::from_utf8(request[..length].to_vec()).unwrap()
    };
    let (outcome, request) =
        tokio::join!(websocket::connect(ours, "hub.test:8443", PATH, SUBPROTOCOL_LINK), answer);
    assert!(request.starts_with("GET /link HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Host: hub.test:8443\r\n"), "{request}");
    assert!(request.contains("Sec-WebSocket-Protocol: qmux-02.towline\r\n"), "{request}");
    outcome.unwrap_err()
}

#[tokio::test]
async fn a_refusal_says_who_refused_and_why() {
    let cases = [
        (
            "HTTP/1.1 404 Not Found\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\n\r\n<html>\r\n",
            "nginx/1.22.1 answered the request for a WebSocket with 404 Not Found",
        ),
        (
            "HTTP/1.1 403 No\r\nContent-Type: text/plain\r\n\r\nnot\x1b[2J from here\nmore\n",
            "the server answered the request for a WebSocket with 403 Forbidden: not\\x1b[2J from here",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "the server answered the request for a WebSocket with 502 Bad Gateway",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", "the server answered the request for a WebSocket with 200 OK"),
    ];
    for (answer, text) in cases {
        assert_eq!(connect_to(answer).await.to_string(), text);
    }
}

#[tokio::test]
async fn a_server_that_does_not_keep_to_the_handshake_is_refused() {
    let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nSec-WebSocket-Protocol: qmux-02.towline\r\n\r\n";
    let protocol = |error| matches!(error, UpgradeError::Protocol(_));
    assert!(protocol(connect_to(accept).await), "the key is another's");
    assert!(protocol(connect_to("HTTP/1.1 101 Switching Protocols\r\n\r\n").await), "an upgrade to what?");
    assert!(protocol(connect_to("SSH-2.0-OpenSSH_9.2\r\n\r\n").await));
    assert!(protocol(connect_to("\x15\x03\x03\0\x02\x02\x28").await), "a TLS alert");
    for cut in ["", "HTTP/1.1 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgr"] {
        assert!(matches!(connect_to(cut).await, UpgradeError::Io(_)), "{cut:?}");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_is_not_sent() {
    for (host, path) in
        [("hub.test", "link"), ("hub test", "/link"), ("hub.test\r\nX: y", "/link"), ("", "/")]
    {
        let (ours, theirs) = duplex(16);
        let outcome = websocket::connect(ours, host, path, SUBPROTOCOL_LINK).await;
        assert!(matches!(outcome, Err(UpgradeError::Request(_))), "{host:?} {path:?}: {outcome:?}");
        drop(theirs);
    }
}

#[tokio::test]
async fn both_ends_must_speak_the_same_subprotocol() {
    let (ours, theirs) = duplex(16 << 10);
    let (ours, theirs) = tokio::join!(
        websocket::connect(ours, "hub.test", PATH, "qmux-01"),
        websocket::accept(theirs, PATH, &[SUBPROTOCOL_LINK, "other"])
    );
    assert_eq!(
        theirs.unwrap_err().to_string(),
        "the request was answered with 400 Bad Request: the subprotocol here is qmux-02.towline or other"
    );
    assert_eq!(
        ours.unwrap_err().to_string(),
        "the server answered the request for a WebSocket with 400 Bad Request: \
         the subprotocol here is qmux-02.towline or other"
    );
    // The server's order counts.
    let (ours, theirs) = duplex(16 << 10);
    let (ours, theirs) = tokio::join!(
        websocket::connect(ours, "hub.test", PATH, "one, two"),
        websocket::accept(theirs, PATH, &["two", "one"])
    );
    assert_eq!(theirs.unwrap().subprotocol(), "two");
    drop(ours);
}

/// What `accept` makes of a client that sends `input` and no more.
async fn accept_from(input: &[u8]) -> UpgradeError {
    let (mut ours, theirs) = duplex(128 << 10);
    ours.write_all(input).await.unwrap();
    ours.shutdown().await.unwrap();
    websocket::accept(theirs, PATH, &[SUBPROTOCOL_LINK]).await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_request_for_this_websocket_is_refused() {
    let request = "GET /link HTTP/1.1\r\nHost: hub.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: qmux-02.towline\r\n\r\n";
    let elsewhere = accept_from(request.replace("/link", "/other").as_bytes()).await;
    assert!(
        matches!(elsewhere, UpgradeError::Unacceptable { status: StatusCode::NOT_FOUND, .. }),
        "{elsewhere}"
    );
    let without = accept_from(request.replace("Sec-WebSocket-Protocol", "X").as_bytes()).await;
    assert!(
        matches!(without, UpgradeError::Unacceptable { status: StatusCode::BAD_REQUEST, .. }),
        "{without}"
    );
    for (from, to) in [
        ("Upgrade: websocket\r\n", ""),
        ("Version: 13", "Version: 8"),
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
    ] {
        let error = accept_from(request.replace(from, to).as_bytes()).await;
        assert!(matches!(error, UpgradeError::Protocol(_)), "{to}: {error}");
    }
    // Every truncation of it.
    for cut in 0..request.len() {
        let error = accept_from(&request.as_bytes()[..cut]).await;
        assert!(matches!(error, UpgradeError::Io(_)), "cut at {cut}: {error}");
    }
    for garbage in
        [&b"SSH-2.0-x\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", &[0; 100], &[b'A'; 100_000]]
    {
        let error = accept_from(garbage).await;
        assert!(matches!(error, UpgradeError::Protocol(_)), "{error}");
    }
}

#[tokio::test]
async fn a_websocket_can_live_behind_an_http_server() {
    let (ours, theirs) = duplex(16 << 10);
    let serve = tokio::spawn(async move {
        let service = hyper::service::service_fn(|mut request: http::Request<hyper::body::Incoming>| async {
            let answer = websocket::answer(&request, PATH, &[SUBPROTOCOL_LINK]);
            if let Some(subprotocol) = answer.subprotocol {
                tokio::spawn(async move {
                    let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                    let mut pipe = websocket::from_upgraded(TokioIo::new(upgraded), subprotocol).await;
                    let mut read = vec![0; 100_000];
                    pipe.read_exact(&mut read).await.unwrap();
                    pipe.write_all(&read).await.unwrap();
                    pipe.shutdown().await.unwrap();
                    pipe.read_to_end(&mut read).await.unwrap();
                });
            }
            Ok::<_, std::convert::Infallible>(answer.response)
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(theirs), service)
            .with_upgrades()
            .await
            .unwrap();
    });
    // Another request first, on the same connection.
    let mut ours = ours;
    ours.write_all(b"GET /link HTTP/1.1\r\nHost: hub.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"upgrade\n") && !answer.ends_with(b"header\n") {
        let mut byte = [0];
        ours.read_exact(&mut byte).await.unwrap_or_else(|_| panic!("{}", answer.escape_ascii()));
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 426 Upgrade Required\r\n"), "{}", answer.escape_ascii());

    let mut pipe = websocket::connect(ours, "hub.test", PATH, SUBPROTOCOL_LINK).await.unwrap();
    let sent = pattern(100_000);
    pipe.write_all(&sent).await.unwrap();
    pipe.flush().await.unwrap();
    let mut read = Vec::new();
    pipe.read_to_end(&mut read).await.unwrap();
    assert!(read == sent);
    pipe.shutdown().await.unwrap();
    serve.await.unwrap();
}

/// What is wrong with the WebSocket is what the link says it was lost for.
#[tokio::test]
async fn a_link_tells_what_was_wrong_with_its_websocket() {
    let (server, mut client) = server().await;
    let link = Link::start(server, Side::Server, Config::default());
    client.write_all(&frame(TEXT, b"hello")).await.unwrap();
    assert_eq!(
        link.closed().await.to_string(),
        "the connection was lost: the peer sent a WebSocket message of text, where only binary ones are taken"
    );
}
