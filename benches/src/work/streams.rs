//! The work, over any muxer's streams: both ends on this thread, in tasks.

use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ECHO, PATIENCE, PIECE, Sample, Workload};
use crate::alloc;
use crate::clock;
use crate::figures::UNIT;
use crate::muxer::{Accept, MemoryPipe, Meter, Muxer, Open, Stream};

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) warm_up: u64,
    pub(crate) times: u64,
}

pub(crate) fn run<M: Muxer<MemoryPipe>>(muxer: M, plan: Plan) -> anyhow::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let sample = timeout(PATIENCE, work(muxer, plan)).await;
        sample.context("it was not done after ten minutes: it stands still")
    })
}

async fn work<M: Muxer<MemoryPipe>>(muxer: M, Plan { workload, warm_up, times }: Plan) -> Sample {
    let meter = Meter::default();
    let (ours, theirs) = MemoryPipe::pair(&meter);
    let (opener, acceptor) = tokio::join!(muxer.opener(ours), muxer.acceptor(theirs));
    let bulk = matches!(workload, Workload::Bulk | Workload::Bulk64);
    tokio::spawn(serve(acceptor, bulk));
    let source = Bytes::from(vec![7; PIECE]);

    if workload == Workload::Echo {
        return echo(&opener, &source.slice(..ECHO), &meter, warm_up, times).await;
    }
    let once = |times| {
        let (opener, source) = (opener.clone(), source.clone());
        async move {
            match workload {
                Workload::Bulk | Workload::Bulk64 => send(&opener, &source, workload.streams(), times).await,
                _ => open_and_close(&opener, workload.streams(), times).await,
            }
        }
    };
    if warm_up > 0 {
        once(warm_up).await;
    }
    let from = From::now(&meter);
    once(times).await;
    from.sample(&meter, times)
}

/// Where a measurement begins.
struct From {
    wall: Instant,
    cpu: std::time::Duration,
    wire_bytes: u64,
    heap: alloc::Heap,
}

impl From {
    fn now(meter: &Meter) -> Self {
        let (wire_bytes, heap) = (meter.bytes(), alloc::heap());
        Self { wire_bytes, heap, cpu: clock::thread_cpu(), wall: Instant::now() }
    }

    fn sample(self, meter: &Meter, times: u64) -> Sample {
        let (wall, cpu) = (self.wall.elapsed(), clock::thread_cpu() - self.cpu);
        let (wire_bytes, heap) = (meter.bytes() - self.wire_bytes, alloc::heap() - self.heap);
        Sample { times, wall, cpu, wire_bytes, heap, latencies: Vec::new() }
    }
}

/// The far end: takes all that comes, or gives back as much as comes; then ends its half.
async fn serve<A: Accept>(mut acceptor: A, takes: bool) {
    let answers = Bytes::from(vec![8; PIECE]);
    while let Some(mut stream) = acceptor.accept().await {
        let answers = answers.clone();
        tokio::spawn(async move {
            while let count @ 1.. = stream.read(|_| ()).await {
                if !takes {
                    stream.write(answers.slice(..count)).await;
                }
            }
            stream.finish().await;
        });
    }
}

/// Sends `times` units on `streams` streams, and waits until all have arrived.
async fn send<O: Open>(opener: &O, source: &Bytes, streams: usize, times: u64) {
    let mut tasks = JoinSet::new();
    // A stream that nothing is written on may never be there for the peer, so there is none.
    for share in shares(times, streams).filter(|&share| share > 0) {
        let (opener, source) = (opener.clone(), source.clone());
        tasks.spawn(async move {
            let mut stream = opener.open().await;
            let mut left = usize::try_from(share * UNIT).expect("it was told on the command line");
            while left > 0 {
                let count = left.min(source.len());
                stream.write(source.slice(..count)).await;
                left -= count;
            }
            stream.finish().await;
            assert_eq!(stream.read(|_| ()).await, 0, "who only takes gives nothing");
        });
    }
    tasks.join_all().await;
}

async fn echo<O: Open>(opener: &O, message: &Bytes, meter: &Meter, warm_up: u64, times: u64) -> Sample {
    let mut stream = opener.open().await;
    for _ in 0..warm_up {
        there_and_back(&mut stream, message).await;
    }
    let mut latencies = Vec::with_capacity(usize::try_from(times).expect("it was told on the command line"));
    let from = From::now(meter);
    for _ in 0..times {
        let start = Instant::now();
        there_and_back(&mut stream, message).await;
        latencies.push(start.elapsed());
    }
    Sample { latencies, ..from.sample(meter, times) }
}

async fn there_and_back(stream: &mut impl Stream, message: &Bytes) {
    stream.write(message.clone()).await;
    let mut left = message.len();
    while left > 0 {
        left -= match stream.read(|_| ()).await {
            0 => panic!("the stream has ended early"),
            count => count,
        };
    }
}

/// Opens and closes `times` streams, at most `at_once` at a time.
async fn open_and_close<O: Open>(opener: &O, at_once: usize, times: u64) {
    let mut tasks = JoinSet::new();
    for share in shares(times, at_once) {
        let opener = opener.clone();
        tasks.spawn(async move {
            for _ in 0..share {
                let mut stream = opener.open().await;
                there_and_back(&mut stream, &Bytes::from_static(b"?")).await;
                stream.finish().await;
                assert_eq!(stream.read(|_| ()).await, 0, "one byte was answered with one byte");
            }
        });
    }
    tasks.join_all().await;
}

/// `times` in so many parts that differ by one at most.
pub(crate) fn shares(times: u64, parts: usize) -> impl Iterator<Item = u64> {
    let parts = parts as u64;
    (0..parts).map(move |part| times / parts + u64::from(part < times % parts))
}
