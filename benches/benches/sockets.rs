//! Transports, and the whole product, over sockets on loopback, with criterion:
//! `cargo bench -p towline-bench --bench sockets`.
//!
//! Time is all that criterion measures; what it costs, and how others do, is what `towline-bench transports` and
//! `towline-bench tunnel` say. What tunnels do is what the hub's splice does, between two links over TLS.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use towline_bench::transports::{contender::Name, live::Live};
use towline_bench::tunnel::{self, Which};

/// How many bytes are moved at a time, in bulk.
const BULK: usize = 16 << 20;

/// How many small things are done at a time.
const TIMES: usize = 64;

fn transports(criterion: &mut Criterion) {
    for name in [Name::TowlineTcp, Name::TowlineTls, Name::TowlineWss, Name::TowlineQuic] {
        let mut group = criterion.benchmark_group(name.text());
        let live = Live::start(name).expect("loopback is there");
        group.throughput(Throughput::Bytes(BULK as u64));
        group.bench_function("bulk", |bencher| bencher.iter(|| live.bulk(BULK)));
        group.throughput(Throughput::Elements(TIMES as u64));
        group.bench_function("64 echoes of 1 KiB", |bencher| bencher.iter(|| live.echo(TIMES)));
        group.bench_function("64 streams with an echo", |bencher| bencher.iter(|| live.open(TIMES)));
        group.finish();
    }
}

fn product(criterion: &mut Criterion) {
    for (name, which) in [("splice, tunnels", Which::Tunnels), ("session end to end", Which::EndToEnd)] {
        let mut group = criterion.benchmark_group(name);
        let live = tunnel::Live::start(which).expect("loopback is there");
        group.throughput(Throughput::Bytes(BULK as u64));
        group.bench_function("bulk", |bencher| bencher.iter(|| live.upload(BULK as u64).expect("it works")));
        group.throughput(Throughput::Elements(TIMES as u64));
        group.bench_function("64 connections with an echo", |bencher| {
            bencher.iter(|| live.requests(TIMES).expect("it works"));
        });
        group.finish();
    }
}

fn settings() -> Criterion {
    Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4))
}

criterion_group! { name = sockets; config = settings(); targets = transports, product }
criterion_main!(sockets);
