//! What every kind of link does: one list of behaviours, run over each kind.
//!
//! A kind is one line of `kinds!`, at the foot: how to make two ends with a configuration. A behaviour is a function
//! over the two ends, and a name in `behaviours!`. Where kinds may differ, docs/ARCHITECTURE.md, "Kinds of link", says
//! how, and the list leaves it open.
#![allow(clippy::unwrap_used, reason = "tests")]

mod closing;
#[path = "../common/mod.rs"]
mod common;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use closing::*;
use common::{Halves, config, pattern, poll_once, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinSet, yield_now};
use towline_transports::{Code, Config, Link, LinkClosed, ReadError, RecvStream, Urgency, WriteError};

/// Two ends of one link, and what has to live as long.
struct Ends {
    service: Link,
    device: Link,
    _rest: Box<dyn Any + Send>,
}

/// After this long something hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Limits under which no stream may have more than `window` bytes ahead of its reader.
fn window(window: u64) -> Config {
    config(|config| {
        config.stream_window = window;
        config.max_stream_window = window;
    })
}

/// Sends one byte there and back, so that whatever was on its way before has had its time.
async fn round_trips(count: usize, ours: &mut Halves, theirs: &mut Halves) {
    for _ in 0..count {
        ours.0.write_all(b"?").await.unwrap();
        assert_eq!(theirs.1.read_chunk(1).await.unwrap().unwrap(), "?");
        theirs.0.write_all(b"!").await.unwrap();
        assert_eq!(ours.1.read_chunk(1).await.unwrap().unwrap(), "!");
    }
}

/// Reads until the stream breaks off.
async fn read_to_break(recv: &mut RecvStream) -> (Vec<u8>, ReadError) {
    let mut all = Vec::new();
    loop {
        match recv.read_chunk(usize::MAX).await {
            Ok(Some(chunk)) => all.extend_from_slice(&chunk),
            Ok(None) => panic!("it ended, after {} bytes", all.len()),
            Err(error) => return (all, error),
        }
    }
}

/// Each half in a task of its own, both ways at once.
async fn bytes_arrive_in_order(ends: Ends) {
    const COUNT: usize = 4 << 20;
    let (ours, theirs) = stream(&ends.service, &ends.device).await;
    let mut tasks = JoinSet::new();
    for (mut send, mut recv) in [ours, theirs] {
        tasks.spawn(async move {
            for chunk in pattern(COUNT).chunks(7919) {
                send.write_chunk(&mut Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            send.finish().unwrap();
        });
        tasks.spawn(async move {
            let expected = pattern(COUNT);
            let mut read = 0;
            while let Some(chunk) = recv.read_chunk(10_007).await.unwrap() {
                assert!(!chunk.is_empty() && chunk.len() <= 10_007);
                assert!(chunk == expected[read..read + chunk.len()], "at {read}");
                read += chunk.len();
            }
            assert_eq!(read, COUNT);
            assert!(recv.read_chunk(1).await.unwrap().is_none(), "an end stays an end");
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
}

async fn a_large_chunk_arrives_whole(ends: Ends) {
    let ((mut send, _recv), (_answer, mut question)) = stream(&ends.service, &ends.device).await;
    let writer = tokio::spawn(async move {
        let mut chunk = Bytes::from(pattern(3 << 20));
        send.write_chunk(&mut chunk).await.unwrap();
        assert!(chunk.is_empty());
        send.finish().unwrap();
        send
    });
    assert!(question.read_to_end(4 << 20).await.unwrap() == pattern(3 << 20));
    writer.await.unwrap();
}

async fn both_ends_open_streams_of_both_directions(ends: Ends) {
    for (from, to) in [(&ends.service, &ends.device), (&ends.device, &ends.service)] {
        let mut send = from.open_uni().await.unwrap();
        send.write_all(b"one way").await.unwrap();
        send.finish().unwrap();
        assert_eq!(to.accept_uni().await.unwrap().read_to_end(100).await.unwrap(), b"one way");
        let (ours, theirs) = stream(from, to).await;
        drop((ours, theirs));
    }
}

async fn one_half_ends_and_the_other_goes_on(ends: Ends) {
    let ((mut send, mut recv), (mut answer, mut question)) = stream(&ends.service, &ends.device).await;
    send.write_all(b"that is all").await.unwrap();
    send.finish().unwrap();
    assert_eq!(question.read_to_end(100).await.unwrap(), b"that is all");
    let writer = tokio::spawn(async move {
        answer.write_all(&pattern(300_000)).await.unwrap();
        answer.finish().unwrap();
    });
    assert!(recv.read_to_end(1 << 20).await.unwrap() == pattern(300_000));
    writer.await.unwrap();
}

async fn a_stream_may_end_without_a_byte(ends: Ends) {
    let (mut send, _recv) = ends.service.open_bi().await.unwrap();
    send.finish().unwrap();
    let (_answer, mut question) = ends.device.accept_bi().await.unwrap();
    assert!(question.read_chunk(1).await.unwrap().is_none());
}

async fn what_has_finished_takes_no_more(ends: Ends) {
    let ((mut send, _recv), (_answer, mut question)) = stream(&ends.service, &ends.device).await;
    send.write_all(b"all").await.unwrap();
    send.finish().unwrap();
    assert!(matches!(send.write_all(b"more").await, Err(WriteError::Finished)));
    assert!(matches!(send.finish(), Err(WriteError::Finished)));
    assert_eq!(question.read_to_end(100).await.unwrap(), b"all");
    assert_eq!(send.stopped().await.unwrap(), None, "everything has gone out");
    send.reset(Code::from(5));
    send.stopped().await.unwrap();
}

async fn a_reset_arrives_with_its_code(ends: Ends) {
    let ((mut send, mut recv), (mut answer, mut question)) = stream(&ends.service, &ends.device).await;
    send.write_all(b"never mind").await.unwrap();
    send.reset(Code::from(5));
    assert!(matches!(read_to_break(&mut question).await.1, ReadError::Reset(code) if code == Code::from(5)));
    let again = question.read_chunk(1).await;
    assert!(matches!(again, Err(ReadError::Reset(code)) if code == Code::from(5)), "it stays so");
    assert!(matches!(send.write_all(b"more").await, Err(WriteError::Finished)));
    assert_eq!(send.stopped().await.unwrap(), None);
    answer.write_all(b"the other half goes on").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"the other half goes on");
}

async fn a_stop_arrives_with_its_code(ends: Ends) {
    let ((mut send, mut recv), (mut answer, mut question)) = stream(&ends.service, &ends.device).await;
    question.stop(Code::from(6));
    assert!(matches!(question.read_chunk(1).await, Err(ReadError::Stopped)));
    assert_eq!(send.stopped().await.unwrap(), Some(Code::from(6)));
    assert!(matches!(send.write_all(b"x").await, Err(WriteError::Stopped(code)) if code == Code::from(6)));
    assert!(matches!(send.finish(), Err(WriteError::Stopped(code)) if code == Code::from(6)));
    assert_eq!(send.stopped().await.unwrap(), Some(Code::from(6)), "it stays so");
    answer.write_all(b"the other half goes on").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"the other half goes on");
}

async fn a_stop_wakes_a_writer_that_waits(ends: Ends) {
    let ((mut send, _recv), (_answer, mut question)) = stream(&ends.service, &ends.device).await;
    let writer = tokio::spawn(async move { (send.write_all(&[0; 64 << 20]).await, send) });
    question.read_exact(&mut [0; 100_000]).await.unwrap();
    question.stop(Code::from(7));
    let (outcome, _send) = writer.await.unwrap();
    assert!(matches!(outcome, Err(WriteError::Stopped(code)) if code == Code::from(7)));
}

/// On some kinds the last words come first whatever happens (`handles.rs`), on others if there was time.
async fn a_reset_that_waits_for_the_last_words_arrives(ends: Ends) {
    let ((mut send, _recv), (_answer, mut question)) = stream(&ends.service, &ends.device).await;
    send.write_all(&pattern(50_000)).await.unwrap();
    send.reset_when_sent(Code::from(8));
    assert!(matches!(send.write_all(b"more").await, Err(WriteError::Finished)));
    drop(send);
    let (all, error) = read_to_break(&mut question).await;
    assert!(matches!(error, ReadError::Reset(code) if code == Code::from(8)), "{error}");
    assert!(pattern(50_000).starts_with(&all));
}

async fn a_dropped_reader_stops_the_writer(ends: Ends) {
    let ((mut send, _recv), (_answer, question)) = stream(&ends.service, &ends.device).await;
    drop(question);
    assert_eq!(send.stopped().await.unwrap(), Some(Code::default()));
    assert!(matches!(send.write_all(b"more").await, Err(WriteError::Stopped(_))));
}

async fn a_dropped_writer_is_a_reset_and_never_an_end(ends: Ends) {
    let ((_send, mut recv), (answer, _question)) = stream(&ends.service, &ends.device).await;
    drop(answer);
    assert!(matches!(recv.read_chunk(10).await, Err(ReadError::Reset(code)) if code == Code::default()));
}

async fn a_dropped_writer_that_has_finished_is_an_end(ends: Ends) {
    let ((mut send, _recv), (_answer, mut question)) = stream(&ends.service, &ends.device).await;
    send.write_all(&pattern(50_000)).await.unwrap();
    send.finish().unwrap();
    drop(send);
    assert!(question.read_to_end(1 << 20).await.unwrap() == pattern(50_000));
}

/// A writer gets ahead of its reader by the window and what the sender may hold, and no further. Runs with a window
/// of 64 KiB.
async fn a_writer_waits_for_its_reader(ends: Ends) {
    const COUNT: usize = 16 << 20;
    let Ends { service, device, .. } = &ends;
    let (mut ours, mut theirs) = stream(service, device).await;
    let ((mut send, _recv), (_answer, mut question)) = stream(service, device).await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn({
        let accepted = accepted.clone();
        async move {
            for chunk in pattern(COUNT).chunks(8 << 10) {
                send.write_chunk(&mut Bytes::copy_from_slice(chunk)).await.unwrap();
                accepted.fetch_add(chunk.len(), Ordering::SeqCst);
            }
            send.finish().unwrap();
            send
        }
    });
    round_trips(200, &mut ours, &mut theirs).await;
    assert!(accepted.load(Ordering::SeqCst) <= 1 << 20, "the reader has not begun");
    assert!(question.read_to_end(COUNT).await.unwrap() == pattern(COUNT));
    writer.await.unwrap();
}

/// Ten that stall hold up their writers, and nobody else. Runs with a window of 64 KiB.
async fn slow_readers_hold_up_nobody_else(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    let mut stalled = Vec::new();
    let mut writers = JoinSet::new();
    for _ in 0..10 {
        let ((mut send, recv), theirs) = stream(service, device).await;
        writers.spawn(async move { send.write_all(&[0; 8 << 20]).await.map(|()| send) });
        stalled.push((recv, theirs));
    }
    let ((mut send, _recv), (_answer, mut question)) = stream(service, device).await;
    let writer = tokio::spawn(async move {
        send.write_all(&pattern(4 << 20)).await.unwrap();
        send.finish().unwrap();
    });
    assert!(question.read_to_end(8 << 20).await.unwrap() == pattern(4 << 20));
    writer.await.unwrap();
    assert!(writers.try_join_next().is_none(), "the others still wait");
    drop(stalled);
    while let Some(outcome) = writers.join_next().await {
        assert!(matches!(outcome.unwrap(), Err(WriteError::Stopped(_))));
    }
}

/// Reads and writes that are dropped after every poll lose and repeat nothing. Runs with a window of 64 KiB.
async fn cancelled_reads_and_writes_lose_nothing(ends: Ends) {
    let ((mut send, _recv), (_answer, mut question)) = stream(&ends.service, &ends.device).await;
    let expected = pattern(300_000);
    let mut chunk = Bytes::from(expected.clone());
    let mut read = Vec::new();
    while read.len() < expected.len() {
        if !chunk.is_empty() {
            let _ = poll_once(send.write_chunk(&mut chunk)).await;
        }
        if let Some(outcome) = poll_once(question.read_chunk(777)).await {
            read.extend_from_slice(&outcome.unwrap().unwrap());
        }
        let _ = poll_once(send.stopped()).await;
        yield_now().await;
    }
    assert!(read == expected);
}

/// Runs with one stream at a time.
async fn opens_and_accepts_that_are_dropped_lose_no_stream(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    for _ in 0..20 {
        let (ours, theirs) = stream(service, device).await;
        for _ in 0..5 {
            assert!(poll_once(service.open_bi()).await.is_none(), "one at a time");
            assert!(poll_once(device.accept_bi()).await.is_none());
            yield_now().await;
        }
        drop((ours, theirs));
        let (mut send, _recv) = service.open_bi().await.unwrap();
        send.write_all(b"y").await.unwrap();
        assert!(device.accept_bi().await.is_ok());
    }
}

/// Whoever waits to open a stream is woken when there is a place. Runs with one stream at a time.
async fn an_open_waits_for_a_place(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    let first = stream(service, device).await;
    let second = tokio::spawn({
        let (service, device) = (service.clone(), device.clone());
        async move { stream(&service, &device).await }
    });
    assert!(poll_once(service.open_bi()).await.is_none(), "one at a time");
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap();
}

async fn ten_thousand_streams_in_turn(ends: Ends) {
    let Ends { service, device, _rest } = ends;
    let echo = tokio::spawn(async move {
        for _ in 0..10_000 {
            let (mut send, mut recv) = device.accept_bi().await.unwrap();
            let said = recv.read_to_end(10).await.unwrap();
            send.write_all(&said).await.unwrap();
            send.finish().unwrap();
        }
        device
    });
    for number in 0..10_000_u32 {
        let (mut send, mut recv) = service.open_bi().await.unwrap();
        send.write_all(&number.to_be_bytes()).await.unwrap();
        send.finish().unwrap();
        assert_eq!(recv.read_to_end(10).await.unwrap(), number.to_be_bytes());
    }
    let device = echo.await.unwrap();
    assert_eq!((service.stats().open_streams, device.stats().open_streams), (0, 0));
}

/// All are open before the first is read. Runs with 1,000 places.
async fn a_thousand_streams_at_a_time(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    let open = async {
        let mut opened = Vec::new();
        for number in 0..1000_u32 {
            let (mut send, recv) = service.open_bi().await.unwrap();
            send.write_all(&number.to_be_bytes()).await.unwrap();
            opened.push((send, recv));
        }
        opened
    };
    let accept = async {
        let mut accepted = Vec::new();
        for _ in 0..1000 {
            accepted.push(device.accept_bi().await.unwrap());
        }
        accepted
    };
    let (opened, accepted) = tokio::join!(open, accept);
    assert_eq!((service.stats().open_streams, device.stats().open_streams), (1000, 1000));
    let mut tasks = JoinSet::new();
    for (number, (mut send, mut recv)) in accepted.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut said = [0; 4];
            recv.read_exact(&mut said).await.unwrap();
            assert_eq!(u32::from_be_bytes(said) as usize, number, "in the order in which they were opened");
            send.write_all(&pattern(number)).await.unwrap();
            send.finish().unwrap();
            assert!(recv.read_chunk(1).await.unwrap().is_none());
        });
    }
    for (number, (mut send, mut recv)) in opened.into_iter().enumerate() {
        tasks.spawn(async move {
            send.finish().unwrap();
            assert!(recv.read_to_end(2000).await.unwrap() == pattern(number));
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
}

async fn urgencies_change_nothing_of_what_arrives(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    let mut tasks = JoinSet::new();
    for urgency in [Urgency::Bulk, Urgency::Interactive, Urgency::Normal] {
        let ((mut send, _recv), (_answer, mut question)) = stream(service, device).await;
        tasks.spawn(async move {
            send.set_urgency(urgency);
            send.write_all(&pattern(1 << 20)).await.unwrap();
            send.finish().unwrap();
        });
        tasks.spawn(async move { assert!(question.read_to_end(2 << 20).await.unwrap() == pattern(1 << 20)) });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
}

async fn a_stream_is_a_tokio_stream(ends: Ends) {
    let ((mut send, mut recv), (answer, question)) = stream(&ends.service, &ends.device).await;
    let echo = tokio::spawn(async move {
        let (mut from, mut to) = (question, answer);
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    });
    AsyncWriteExt::write_all(&mut send, &pattern(10_000)).await.unwrap();
    send.flush().await.unwrap();
    send.shutdown().await.unwrap();
    send.shutdown().await.unwrap();
    let mut all = Vec::new();
    AsyncReadExt::read_to_end(&mut recv, &mut all).await.unwrap();
    assert!(all == pattern(10_000));
    echo.await.unwrap();
}

async fn errors_keep_their_codes_as_io_errors(ends: Ends) {
    let ((mut send, mut recv), (mut answer, mut question)) = stream(&ends.service, &ends.device).await;
    answer.reset(Code::from(5));
    question.stop(Code::from(6));
    let error = AsyncReadExt::read(&mut recv, &mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let inner = error.get_ref().unwrap().downcast_ref::<ReadError>().unwrap();
    assert!(matches!(inner, ReadError::Reset(code) if *code == Code::from(5)));
    assert_eq!(send.stopped().await.unwrap(), Some(Code::from(6)));
    let error = AsyncWriteExt::write(&mut send, b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

/// The engine over one stream of the link.
async fn a_session_rides_a_stream(ends: Ends) {
    use towline_transports::{Side, stream_pipe};
    let ((send, recv), (answer, question)) = stream(&ends.service, &ends.device).await;
    let service = Link::start(stream_pipe(send, recv), Side::Client, Config::default());
    let device = Link::start(stream_pipe(answer, question), Side::Server, Config::default());
    let _rest = Box::new(ends);
    let inner = Ends { service: service.clone(), device: device.clone(), _rest };
    bytes_arrive_in_order(inner).await;
    service.close(Code::from(4), "done");
    assert!(matches!(device.closed().await, LinkClosed::Peer { code, .. } if code == Code::from(4)));
    assert!(matches!(service.closed().await, LinkClosed::Local(code) if code == Code::from(4)));
}

async fn a_link_measures_its_round_trips_and_counts_its_bytes(ends: Ends) {
    let Ends { service, device, .. } = &ends;
    let (mut ours, mut theirs) = stream(service, device).await;
    while service.rtt().is_none() || device.rtt().is_none() {
        round_trips(1, &mut ours, &mut theirs).await;
    }
    for link in [service, device] {
        assert!(link.stats().bytes_sent > 0 && link.stats().bytes_received > 0);
        assert_eq!(link.stats().open_streams, 1);
    }
}

/// The list. A behaviour runs with the limits that stand beside it.
macro_rules! behaviours {
    ($connect:expr) => {
        behaviours! { $connect;
            bytes_arrive_in_order: Config::default(),
            a_large_chunk_arrives_whole: Config::default(),
            both_ends_open_streams_of_both_directions: Config::default(),
            one_half_ends_and_the_other_goes_on: Config::default(),
            a_stream_may_end_without_a_byte: Config::default(),
            what_has_finished_takes_no_more: Config::default(),
            a_reset_arrives_with_its_code: Config::default(),
            a_stop_arrives_with_its_code: Config::default(),
            a_stop_wakes_a_writer_that_waits: Config::default(),
            a_reset_that_waits_for_the_last_words_arrives: Config::default(),
            a_dropped_reader_stops_the_writer: Config::default(),
            a_dropped_writer_is_a_reset_and_never_an_end: Config::default(),
            a_dropped_writer_that_has_finished_is_an_end: Config::default(),
            a_close_is_heard_with_code_and_reason: Config::default(),
            the_one_that_connected_may_close_as_well: Config::default(),
            a_closing_link_takes_nothing_new: Config::default(),
            what_was_accepted_before_a_close_arrives: Config::default(),
            the_last_handle_closes_the_link_and_what_was_written_arrives: Config::default(),
            a_weak_handle_does_not_keep_the_link_open_and_streams_do: Config::default(),
            a_weak_handle_can_close: Config::default(),
            a_writer_waits_for_its_reader: window(64 << 10),
            slow_readers_hold_up_nobody_else: window(64 << 10),
            cancelled_reads_and_writes_lose_nothing: window(64 << 10),
            opens_and_accepts_that_are_dropped_lose_no_stream: config(|c| c.max_streams_bidi = 1),
            an_open_waits_for_a_place: config(|c| c.max_streams_bidi = 1),
            ten_thousand_streams_in_turn: Config::default(),
            a_thousand_streams_at_a_time: config(|c| c.max_streams_bidi = 1000),
            urgencies_change_nothing_of_what_arrives: Config::default(),
            a_stream_is_a_tokio_stream: Config::default(),
            errors_keep_their_codes_as_io_errors: Config::default(),
            a_session_rides_a_stream: Config::default(),
            a_link_measures_its_round_trips_and_counts_its_bytes: Config::default(),
        }
    };
    ($connect:expr; $($behaviour:ident: $config:expr,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let connect = $connect;
                let run = async {
                    let (service, device, rest) = connect($config).await;
                    super::$behaviour(Ends { service, device, _rest: Box::new(rest) }).await;
                };
                tokio::time::timeout(HANGS, run).await.expect("nothing hangs");
            }
        )*
    };
}

/// The kinds: a name, and what makes two ends, and whatever has to live as long, with limits.
macro_rules! kinds {
    ($($kind:ident: $connect:expr,)*) => {
        $(
            mod $kind {
                use super::*;
                behaviours! { $connect }
            }
        )*
    };
}

kinds! {
    memory: common::memory_pair,
    tcp: common::tcp_pair,
    tls: common::tls_pair,
    websocket: common::websocket_pair,
    quic: common::quic_pair,
    quic_stream: common::quic_stream_pair,
}
