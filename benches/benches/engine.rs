//! The engine in memory, with criterion: `cargo bench -p towline-bench`.
//!
//! Two sessions are pumped by hand, so nothing but the engine and the copies of a pipe is in it.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use towline_bench::pair::{NOW, Pair, write};
use towline_bench::work::Workload;
use towline_bench::work::engine::Bench;
use towline_engine::{Config, Epoch, Session, StreamId};

/// How many bytes are moved at a time, in bulk: enough that opening the streams is nothing beside it.
const BULK: u64 = 16 << 20;

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(BULK)).sample_size(20);
    for (name, workload) in [("1 stream", Workload::Bulk), ("64 streams", Workload::Bulk64)] {
        let mut bench = Bench::default();
        group.bench_function(name, |bencher| bencher.iter(|| bench.work(workload, BULK >> 14)));
    }
    group.finish();
}

fn small(criterion: &mut Criterion) {
    const TIMES: u64 = 64;
    let mut group = criterion.benchmark_group("64 times");
    group.throughput(Throughput::Elements(TIMES));
    for (name, workload) in [
        ("echo of 1 KiB", Workload::Echo),
        ("open and close", Workload::OpenClose),
        ("open and close at once", Workload::OpenClose64),
    ] {
        let mut bench = Bench::default();
        group.bench_function(name, |bencher| bencher.iter(|| bench.work(workload, TIMES)));
    }
    group.finish();
}

/// What a session makes of records that came: of one full frame each, and of many small frames.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode 64 KiB");
    for (name, size) in [("in full frames", 64 << 10), ("in frames of 64 B", 64)] {
        let (session, input) = input(size);
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| {
            let setup = || (session.clone(), input.clone());
            bencher.iter_batched(
                setup,
                |(mut session, input)| {
                    session.handle_input(NOW, Epoch(0), input);
                    black_box(session)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A session, and 64 KiB of payload for it: on a stream for each `size` bytes.
fn input(size: usize) -> (Session, Bytes) {
    let mut config = Config::default();
    config.max_streams_bidi = 1 << 16;
    let mut pair = Pair::new(config);
    let count = (64 << 10) / size;
    let ids: Vec<StreamId> = (0..count).map(|_| pair.stream()).collect();
    for id in ids {
        assert_eq!(write(&mut pair.opener, id, &mut Bytes::from(vec![7; size])), size);
    }
    let mut records = Vec::new();
    while pair.opener.poll_transmit(NOW, 16 << 10, &mut records) > 0 {}
    (pair.acceptor, Bytes::from(records.concat()))
}

criterion_group!(engine, bulk, small, decode);
criterion_main!(engine);
