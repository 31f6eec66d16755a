//! The end that connects, which does the work and measures it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::contender::Connect;
use super::far::{BULK, COUNT, Far};
use crate::clock;
use crate::muxer::{Open, Stream};
use crate::work::{ECHO, PIECE};

/// What something cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// CPU time of the end that connects, which sends.
    pub(crate) near: Duration,
    /// CPU time of the end that accepts, which receives.
    pub(crate) far: Duration,
}

/// How long things took, and what all of them cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) each: Vec<Duration>,
    pub(crate) cost: Cost,
}

/// Where a measurement begins.
struct Start {
    wall: Instant,
    near: Duration,
    far: Duration,
}

impl Start {
    async fn now(far: &Far) -> Self {
        let far = far.cpu().await;
        Self { far, near: clock::thread_cpu(), wall: Instant::now() }
    }

    async fn cost(self, far: &Far) -> Cost {
        let (wall, near) = (self.wall.elapsed(), clock::thread_cpu() - self.near);
        Cost { wall, near, far: far.cpu().await - self.far }
    }
}

/// Sends `bytes` bytes on so many streams of a connection. That they are open is no part of it; that all has arrived is.
pub(crate) async fn bulk(opener: &impl Open, far: &Far, streams: usize, bytes: usize) -> Cost {
    let mut open = Vec::with_capacity(streams);
    for _ in 0..streams {
        open.push(open_bulk(opener).await);
    }
    let piece = Bytes::from(vec![7; PIECE]);
    let start = Start::now(far).await;
    let mut tasks = JoinSet::new();
    for stream in open {
        tasks.spawn(send(stream, piece.clone(), bytes / streams));
    }
    tasks.join_all().await;
    start.cost(far).await
}

/// A stream that takes bytes.
async fn open_bulk<O: Open>(opener: &O) -> O::Stream {
    let mut stream = opener.open().await;
    stream.write(Bytes::from_static(&[BULK])).await;
    assert_eq!(stream.read(|_| ()).await, 1, "that it is open is told in one byte");
    stream
}

async fn send(mut stream: impl Stream, piece: Bytes, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len());
        stream.write(piece.slice(..count)).await;
        left -= count;
    }
    finish_bulk(stream, bytes).await;
}

/// Waits until the other end has all of it.
async fn finish_bulk(mut stream: impl Stream, bytes: usize) {
    stream.finish().await;
    let mut count = Vec::with_capacity(COUNT);
    while stream.read(|read| count.extend_from_slice(read)).await > 0 {}
    let count = count.try_into().map(u64::from_be_bytes);
    assert_eq!(count, Ok(bytes as u64 + 1), "every byte has arrived");
}

/// So many messages there and back, one after the other, on one stream.
pub(crate) async fn echo(opener: &impl Open, far: &Far, times: usize) -> Latencies {
    let mut stream = opener.open().await;
    let message = message();
    for _ in 0..times.div_ceil(8) {
        there_and_back(&mut stream, &message).await;
    }
    let mut each = Vec::with_capacity(times);
    let start = Start::now(far).await;
    for _ in 0..times {
        let start = Instant::now();
        there_and_back(&mut stream, &message).await;
        each.push(start.elapsed());
    }
    let cost = start.cost(far).await;
    end(stream).await;
    Latencies { each, cost }
}

/// The same, while another stream of the connection carries as much as it can.
pub(crate) async fn echo_beside_bulk(opener: &impl Open, far: &Far, times: usize) -> Latencies {
    let enough = Arc::new(AtomicBool::new(false));
    let mut stream = open_bulk(opener).await;
    let told = enough.clone();
    let bulk = tokio::spawn(async move {
        let piece = Bytes::from(vec![7; PIECE]);
        let mut bytes = 0;
        while !told.load(Ordering::Relaxed) {
            stream.write(piece.clone()).await;
            bytes += PIECE;
            // Some always take what they are given, and never let others have their turn.
            tokio::task::yield_now().await;
        }
        finish_bulk(stream, bytes).await;
    });
    let latencies = echo(opener, far, times).await;
    enough.store(true, Ordering::Relaxed);
    bulk.await.expect("nothing panics there that would not panic here");
    latencies
}

/// So many times, one after the other: a new connection, a stream on it, and a message there and back. That the connection
/// ends costs, and takes no time.
pub(crate) async fn cold(connector: &impl Connect, far: &Far, times: usize) -> Latencies {
    let message = message();
    let mut each = Vec::with_capacity(times);
    let start = Start::now(far).await;
    for _ in 0..times {
        let start = Instant::now();
        let opener = connector.connect().await;
        let mut stream = opener.open().await;
        there_and_back(&mut stream, &message).await;
        each.push(start.elapsed());
        end(stream).await;
    }
    Latencies { each, cost: start.cost(far).await }
}

/// So many times, one after the other: a new stream on a connection, and a message there and back.
pub(crate) async fn warm(opener: &impl Open, far: &Far, times: usize) -> Latencies {
    let message = message();
    let mut each = Vec::with_capacity(times);
    let start = Start::now(far).await;
    for _ in 0..times {
        let start = Instant::now();
        let mut stream = opener.open().await;
        there_and_back(&mut stream, &message).await;
        each.push(start.elapsed());
        end(stream).await;
    }
    Latencies { each, cost: start.cost(far).await }
}

fn message() -> Bytes {
    Bytes::from(vec![7; ECHO])
}

/// Sends a message, and waits for all of it to come back, as it was.
pub(crate) async fn there_and_back(stream: &mut impl Stream, message: &Bytes) {
    stream.write(message.clone()).await;
    let mut rest = &message[..];
    while !rest.is_empty() {
        let count = stream.read(|read| {
            let (same, after) = rest.split_at(read.len());
            assert_eq!(read, same);
            rest = after;
        });
        assert_ne!(count.await, 0, "the stream has ended early");
    }
}

/// Ends both halves.
async fn end(mut stream: impl Stream) {
    stream.finish().await;
    assert_eq!(stream.read(|_| ()).await, 0, "nothing was asked that is not answered");
}
