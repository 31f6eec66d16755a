//! The async handles: who is woken, what a cancelled call leaves behind, what a dropped handle means.
//! Names are those of the invariants that they show.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::{config, pair, pattern, poll_once, stream, tls_pair};
use tokio::io::AsyncReadExt;
use towline_transports::{
    Code, Config, Link, LinkClosed, ReadError, RecvStream, SendStream, Side, Urgency, WriteError, websocket,
};

/// Counts its wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Lets the drivers do all they can without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// What [`overhead`] sends.
const BULK: usize = 8 << 20;

/// An end that takes such records.
fn takes_records_of(max_record_size: u64) -> Config {
    config(|c| {
        c.stream_window = BULK as u64;
        c.max_record_size = max_record_size;
    })
}

/// Bulk, one way. Returns how many more bytes than these the link has sent for it.
async fn overhead(service: &Link, device: &Link) -> u64 {
    let ((mut send, _recv), (_answer, mut question)) = stream(service, device).await;
    let before = service.stats().bytes_sent;
    let content = pattern(BULK);
    let write = async {
        send.write_all(&content).await.unwrap();
        send.finish().unwrap();
    };
    let ((), read) = tokio::join!(write, question.read_to_end(BULK));
    assert!(read.unwrap() == content);
    service.stats().bytes_sent - before - BULK as u64
}

/// What a record costs is its size, and the type, stream and offset of its frame.
#[tokio::test(start_paused = true)]
async fn records_are_as_large_as_the_peer_takes() {
    let mut costs = Vec::new();
    for size in [0, 16_383, 64 << 10, u64::MAX] {
        let (service, device) = pair(1 << 20, takes_records_of(size));
        costs.push(overhead(&service, &device).await);
    }
    let [small, hardly_larger, large, any] = costs[..] else { panic!() };
    assert!(hardly_larger <= small && 2 * large < small && any <= large, "{costs:?}");
}

/// A TLS record has 16 KiB, and a message of a WebSocket 64.
#[tokio::test]
async fn what_is_below_carries_large_records() {
    for limits in [16_390, 64 << 10, u64::MAX].map(takes_records_of) {
        let (service, device, ()) = tls_pair(limits.clone()).await;
        overhead(&service, &device).await;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let bare = [websocket::SUBPROTOCOL_BARE];
        let (ours, theirs) = tokio::join!(
            websocket::connect(ours, "hub.test", "/", bare[0]),
            websocket::accept(theirs, "/", &bare)
        );
        let service = Link::start(ours.unwrap().with_records(), Side::Client, limits.clone());
        let device = Link::start(theirs.unwrap().with_records(), Side::Server, limits);
        overhead(&service, &device).await;
    }
}

#[tokio::test(start_paused = true)]
async fn separate_wakers() {
    let (service, device) = pair(64 << 10, config(|c| c.stream_window = 10));
    let ((mut send, mut recv), (mut answer, mut question)) = stream(&service, &device).await;
    send.write_all(&[0; 9]).await.unwrap();

    let wakers = [(); 4].map(|()| Arc::new(Count::default()));
    let contexts = wakers.clone().map(Waker::from);
    let mut contexts = contexts.each_ref().map(Context::from_waker);
    let mut chunk = Bytes::from_static(b"more");
    assert!(send.poll_write_chunk(&mut contexts[0], &mut chunk).is_pending());
    assert!(recv.poll_read_chunk(&mut contexts[1], 100).is_pending());
    let mut accept = pin!(service.accept_bi());
    assert!(accept.as_mut().poll(&mut contexts[2]).is_pending());
    let mut accept_uni = pin!(service.accept_uni());
    assert!(accept_uni.as_mut().poll(&mut contexts[3]).is_pending());
    let woken = || wakers.each_ref().map(|count| count.get());

    answer.write_all(b"a").await.unwrap();
    settle().await;
    assert_eq!(woken(), [0, 1, 0, 0], "only the reader");
    assert_eq!(question.read_chunk(100).await.unwrap().unwrap().len(), 9);
    settle().await;
    assert_eq!(woken(), [1, 1, 0, 0], "only the writer");
    let (mut opened, _kept) = device.open_bi().await.unwrap();
    opened.write_all(b"b").await.unwrap();
    settle().await;
    assert_eq!(woken(), [1, 1, 1, 0], "only who accepts such streams");
    let mut opened = device.open_uni().await.unwrap();
    opened.write_all(b"c").await.unwrap();
    settle().await;
    assert_eq!(woken(), [1, 1, 1, 1]);
    assert!(accept.poll(&mut contexts[2]).is_ready());
    assert!(accept_uni.poll(&mut contexts[3]).is_ready());
}

/// The halves of one stream, each in a task of its own, on several threads: nobody is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn halves_in_separate_tasks_never_stall() {
    const COUNT: usize = 8 << 20;
    for capacity in [64, 1 << 10, 64 << 10] {
        let count = COUNT.min(capacity * 4096);
        let (service, device) = pair(capacity, config(|c| c.stream_window = 64 << 10));
        let (ours, theirs) = stream(&service, &device).await;
        let mut tasks = tokio::task::JoinSet::new();
        for (mut send, mut recv) in [ours, theirs] {
            tasks.spawn(async move {
                for chunk in pattern(count).chunks(7919) {
                    send.write_chunk(&mut Bytes::copy_from_slice(chunk)).await.unwrap();
                }
                send.finish().unwrap();
            });
            tasks.spawn(async move {
                let expected = pattern(count);
                let mut read = 0;
                while let Some(chunk) = recv.read_chunk(10_007).await.unwrap() {
                    assert_eq!(chunk, expected[read..read + chunk.len()]);
                    read += chunk.len();
                }
                assert_eq!(read, count);
            });
        }
        while let Some(outcome) = tasks.join_next().await {
            outcome.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_safe() {
    // Reads and writes that are dropped after every poll lose and repeat nothing.
    let (service, device) = pair(50, config(|c| c.stream_window = 40));
    let ((mut send, _recv), (_answer, mut question)) = stream(&service, &device).await;
    let expected = pattern(5000);
    let mut chunk = Bytes::from(expected.clone());
    let mut read = Vec::new();
    while read.len() < expected.len() {
        let _ = poll_once(send.write_chunk(&mut chunk)).await;
        if let Some(Ok(Some(bytes))) = poll_once(question.read_chunk(7)).await {
            read.extend_from_slice(&bytes);
        }
        settle().await;
    }
    assert_eq!(read, expected);
}

#[tokio::test(start_paused = true)]
async fn drop_semantics() {
    let (service, device) = pair(1 << 10, Config::default());
    {
        // A dropped reader stops the writer.
        let ((mut send, mut recv), (answer, question)) = stream(&service, &device).await;
        drop(question);
        assert_eq!(send.stopped().await.unwrap(), Some(Code::default()));
        assert!(matches!(send.write_all(b"more").await, Err(WriteError::Stopped(_))));
        // A dropped, unfinished writer is a reset, never an end of file.
        drop(answer);
        assert!(matches!(recv.read_chunk(10).await, Err(ReadError::Reset(_))));
    }
    {
        // One that was finished is an end.
        let ((mut send, _recv), (_answer, mut question)) = stream(&service, &device).await;
        send.write_all(b"all").await.unwrap();
        send.finish().unwrap();
        drop(send);
        assert_eq!(question.read_to_end(10).await.unwrap(), b"all");
    }
    settle().await;
    assert_eq!((service.stats().open_streams, device.stats().open_streams), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn last_words_come_before_a_reset_that_waits_for_them() {
    let (service, device) = pair(100, Config::default());
    let ((mut send, _recv), (_answer, mut question)) = stream(&service, &device).await;
    send.write_all(&pattern(50_000)).await.unwrap();
    send.reset_when_sent(Code::from(8));
    drop(send);
    question.read_exact(&mut vec![0; 50_000]).await.unwrap();
    assert!(matches!(question.read_chunk(1).await, Err(ReadError::Reset(code)) if code == Code::from(8)));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_the_link_and_what_was_written_arrives() {
    let (service, device) = pair(100, Config::default());
    let ((mut send, recv), (_answer, mut question)) = stream(&service, &device).await;
    send.write_all(&pattern(50_000)).await.unwrap();
    send.finish().unwrap();
    drop((service, recv));
    drop(send);
    assert_eq!(question.read_to_end(1 << 20).await.unwrap(), pattern(50_000));
    assert!(matches!(device.closed().await, LinkClosed::Peer { code, .. } if code == Code::default()));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_closed_before_its_driver_has_run_says_so() {
    let (service, device) = pair(100, Config::default());
    service.close(Code::from(3), "never mind");
    assert!(matches!(service.closed().await, LinkClosed::Local(code) if code == Code::from(3)));
    assert!(matches!(device.closed().await, LinkClosed::Peer { code, .. } if code == Code::from(3)));
}

#[tokio::test(start_paused = true)]
async fn streams_keep_the_link_alive() {
    let (service, device) = pair(100, Config::default());
    let ((mut send, _recv), (_answer, mut question)) = stream(&service, &device).await;
    drop(service);
    tokio::time::sleep(Duration::from_secs(60)).await;
    send.write_all(b"still here").await.unwrap();
    assert_eq!(question.read_chunk(100).await.unwrap().unwrap(), "still here");
}

#[tokio::test(start_paused = true)]
async fn a_weak_handle_does_not_keep_the_link_open_and_can_end_it() {
    let (service, device) = pair(100, Config::default());
    let (streams, _theirs) = stream(&service, &device).await;
    let weak = service.downgrade();
    drop(service);
    settle().await;
    assert!(!device.is_closed(), "there are streams");
    drop(streams);
    assert!(matches!(weak.closed().await, LinkClosed::Local(code) if code == Code::default()));

    let (service, device) = pair(100, Config::default());
    let _streams = stream(&service, &device).await;
    service.downgrade().close(Code::from(3), "enough");
    assert!(matches!(service.closed().await, LinkClosed::Local(code) if code == Code::from(3)));
}

#[tokio::test(start_paused = true)]
async fn blocked_writer_wakes() {
    for end in ["read", "stop", "drop", "close", "lost"] {
        let (ours, theirs) = tokio::io::duplex(100);
        let small = config(|c| c.stream_window = 10);
        let service = Link::start(ours, Side::Client, small.clone());
        let device = Link::start(theirs, Side::Server, small);
        let ((mut send, _recv), (_answer, mut question)) = stream(&service, &device).await;
        let writer = tokio::spawn(async move { (send.write_all(&[0; 50]).await, send) });
        settle().await;
        assert!(!writer.is_finished(), "there is credit for ten bytes");
        match end {
            "read" => _ = question.read_exact(&mut [0; 50]).await.unwrap(),
            "stop" => question.stop(Code::from(7)),
            "drop" => drop(question),
            "close" => device.close(Code::from(9), "enough"),
            _ => service.close(Code::from(8), ""),
        }
        let (outcome, _send) = writer.await.unwrap();
        match end {
            "read" => outcome.unwrap(),
            "stop" => assert!(matches!(outcome, Err(WriteError::Stopped(code)) if code == Code::from(7))),
            "drop" => assert!(matches!(outcome, Err(WriteError::Stopped(_)))),
            "close" => assert!(
                matches!(&outcome, Err(WriteError::Closed(LinkClosed::Peer { code, reason }))
                    if *code == Code::from(9) && reason == "enough"),
                "{outcome:?}"
            ),
            _ => assert!(matches!(outcome, Err(WriteError::Closed(_)))),
        }
    }
}

/// Corner case 15: 100 kB each way over a pipe that holds 1 KiB, with pings in the middle.
#[tokio::test(start_paused = true)]
async fn two_writers_over_a_small_pipe_never_wait_for_each_other() {
    let (service, device) = pair(1 << 10, config(|c| c.keep_alive = Some(Duration::from_millis(1))));
    let (ours, theirs) = stream(&service, &device).await;
    let run = |(mut send, mut recv): (SendStream, RecvStream)| async move {
        let write = async {
            send.write_all(&pattern(100_000)).await.unwrap();
            send.finish().unwrap();
        };
        tokio::join!(write, recv.read_to_end(1 << 20)).1.unwrap()
    };
    let (a, b) = tokio::join!(run(ours), run(theirs));
    assert!(a == pattern(100_000) && b == a);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_fifteen_seconds() {
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let service = Link::start(ours, Side::Client, Config::default());
    let start = tokio::time::Instant::now();
    assert!(matches!(service.closed().await, LinkClosed::TimedOut));
    assert_eq!(start.elapsed().as_secs(), 15);
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_ends_is_not_a_clean_close() {
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let service = Link::start(ours, Side::Client, Config::default());
    let opened = tokio::spawn({
        let service = service.clone();
        async move { service.open_bi().await.map(|_| ()) }
    });
    settle().await;
    drop(theirs);
    assert!(matches!(service.closed().await, LinkClosed::Lost(_)));
    assert!(matches!(opened.await.unwrap(), Err(LinkClosed::Lost(_))));
    assert!(matches!(service.accept_uni().await, Err(LinkClosed::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn stale_pipe_inert() {
    // A pipe that fails after the session is over changes nothing of what was said about it.
    let (service, device) = pair(1 << 10, Config::default());
    let ((_send, mut recv), (mut answer, _question)) = stream(&service, &device).await;
    answer.write_all(b"last words").await.unwrap();
    answer.finish().unwrap();
    device.close(Code::from(3), "bye");
    assert!(matches!(device.closed().await, LinkClosed::Local(_)));
    assert!(matches!(service.closed().await, LinkClosed::Peer { .. }));
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"last words");
    service.close(Code::from(4), "too late");
    assert!(matches!(service.closed().await, LinkClosed::Peer { code, .. } if code == Code::from(3)));
}

#[tokio::test(start_paused = true)]
async fn interactive_data_overtakes_bulk() {
    let (service, device) = pair(20_000, Config::default());
    let ((mut bulk, _b), (_c, mut bulk_in)) = stream(&service, &device).await;
    let ((mut keys, _d), (_e, mut keys_in)) = stream(&service, &device).await;
    bulk.set_urgency(Urgency::Bulk);
    keys.set_urgency(Urgency::Interactive);
    let writer = tokio::spawn(async move {
        bulk.write_all(&pattern(1 << 20)).await.unwrap();
        bulk
    });
    settle().await;
    keys.write_all(b"k").await.unwrap();
    let mut before = 0;
    let key = loop {
        tokio::select! {
            biased;
            key = keys_in.read_chunk(1) => break key,
            chunk = bulk_in.read_chunk(usize::MAX) => before += chunk.unwrap().unwrap().len(),
        }
    };
    assert_eq!(key.unwrap().unwrap(), "k");
    // What the pipe and the reader held already, the record that was on its way out, and the credit for it.
    assert!(before <= 300_000, "{before}");
    drop(bulk_in);
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn rtt_is_measured() {
    let (service, device) = pair(1 << 10, Config::default());
    let _streams = stream(&service, &device).await;
    settle().await;
    assert!(service.rtt().is_some() && device.rtt().is_some());
    assert!(service.stats().bytes_sent > 0 && service.stats().bytes_received > 0);
}
