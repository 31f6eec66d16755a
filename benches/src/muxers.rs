//! All muxers side by side, in rounds that take turns.

use clap::ValueEnum;
use serde::Serialize;

use crate::muxer::Name;
use crate::report;
use crate::stats::{Spread, percentile};
use crate::work::{self, Sample, Workload};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom; nobody means all.
    pub muxers: Vec<Name>,
    /// How many rounds.
    pub rounds: usize,
    /// A sixteenth of the work.
    pub quick: bool,
}

/// What one muxer took for one workload, both ends together. Costs are for one time: 16 KiB, one echo, one stream.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Whose row.
    pub muxer: Name,
    /// At what.
    pub workload: Workload,
    /// How many times in a round.
    pub times: u64,
    /// How many times in a second.
    pub per_second: Spread,
    /// The thread's CPU time, in microseconds.
    pub cpu_us: Spread,
    /// Payload in 10^9 bytes a second, of bulk.
    pub gb_per_s: Option<Spread>,
    /// CPU seconds for 10^9 bytes of payload, of bulk.
    pub cpu_s_per_gb: Option<Spread>,
    /// The median, of echoes, in microseconds.
    pub p50_us: Option<Spread>,
    /// The 99th percentile, of echoes, in microseconds.
    pub p99_us: Option<Spread>,
    /// Bytes on the pipe beyond the payload, both ways.
    pub overhead_bytes: Spread,
    /// Allocations, and moves to larger or smaller memory.
    pub allocations: Spread,
    /// What these were in bytes.
    pub allocated_bytes: Spread,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// How many rounds there were.
    pub rounds: usize,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// Measures everybody at everything.
pub fn measure(options: &Options) -> Results {
    let muxers = match &options.muxers[..] {
        [] => Name::value_variants(),
        some => some,
    };
    let pairs = Workload::value_variants().iter().flat_map(|&workload| {
        let able = muxers.iter().filter(move |&&name| workload.is_for(name));
        able.map(move |&name| (name, workload))
    });
    let pairs: Vec<_> = pairs.collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); pairs.len()];
    let mut missing = Vec::new();
    let bar = report::progress(options.rounds * pairs.len());
    for _ in 0..options.rounds {
        for (&(name, workload), samples) in pairs.iter().zip(&mut samples) {
            bar.set_message(format!("{} {}", name.text(), workload.text()));
            let times = times(workload, options.quick);
            match work::run(name, workload, times / 8, times) {
                Ok(sample) => samples.push(sample),
                Err(error) => missing.push(format!("{} {}: {error:#}", name.text(), workload.text())),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let rows = pairs.iter().zip(samples);
    let rows = rows.filter_map(|(&(name, workload), samples)| row(name, workload, samples)).collect();
    Results { rounds: options.rounds, rows, missing }
}

/// How often a workload is done in a round: a good tenth of a second, for most.
fn times(workload: Workload, quick: bool) -> u64 {
    let times = match workload {
        Workload::Bulk | Workload::Bulk64 => 32 << 10,
        Workload::Echo => 32 << 10,
        Workload::OpenClose | Workload::OpenClose64 => 16 << 10,
    };
    if quick { times / 16 } else { times }
}

fn row(muxer: Name, workload: Workload, mut samples: Vec<Sample>) -> Option<Row> {
    let times = samples.first()?.times;
    let all =
        |value: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(value)).expect("there is a sample");
    let each = times as f64;
    let per_second = all(&|sample| each / sample.wall.as_secs_f64());
    let cpu_us = all(&|sample| sample.cpu.as_secs_f64() * 1e6 / each);
    let overhead = |sample: &Sample| (sample.wire_bytes as f64 - sample.payload(workload) as f64) / each;
    let overhead_bytes = all(&overhead);
    let allocations = all(&|sample| sample.heap.allocations as f64 / each);
    let allocated_bytes = all(&|sample| sample.heap.allocated_bytes as f64 / each);
    let gb = |sample: &Sample| sample.payload(workload) as f64 / 1e9;
    let is_bulk = matches!(workload, Workload::Bulk | Workload::Bulk64);
    let gb_per_s = is_bulk.then(|| all(&|sample| gb(sample) / sample.wall.as_secs_f64()));
    let cpu_s_per_gb = is_bulk.then(|| all(&|sample| sample.cpu.as_secs_f64() / gb(sample)));
    let mut echoes = |part| {
        let rounds = samples.iter_mut().map(|sample| percentile(&mut sample.latencies, part));
        Spread::of(rounds.collect::<Vec<_>>()).filter(|_| workload == Workload::Echo)
    };
    let (p50_us, p99_us) = (echoes(0.5), echoes(0.99));
    Some(Row {
        muxer,
        workload,
        times,
        per_second,
        cpu_us,
        gb_per_s,
        cpu_s_per_gb,
        p50_us,
        p99_us,
        overhead_bytes,
        allocations,
        allocated_bytes,
    })
}

/// Prints them.
///
/// # Errors
///
/// They cannot be written as JSON.
pub fn print(results: &Results, json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(results);
    }
    for &workload in Workload::value_variants() {
        let rows: Vec<_> = results.rows.iter().filter(|row| row.workload == workload).collect();
        if !rows.is_empty() {
            println!("{}\n", table(workload, &rows));
        }
    }
    println!("{} rounds: median (min..max), both ends together on one thread", results.rounds);
    results.missing.iter().for_each(|missing| println!("missing: {missing}"));
    Ok(())
}

fn table(workload: Workload, rows: &[&Row]) -> comfy_table::Table {
    let name = workload.text().to_uppercase();
    let head = match workload {
        Workload::Bulk | Workload::Bulk64 => ["GB/s", "CPU s/GB", "OVERHEAD B/16 KiB", "ALLOCS/16 KiB"],
        Workload::Echo => ["p50 us", "p99 us", "CPU us", "ALLOCS"],
        Workload::OpenClose | Workload::OpenClose64 => ["STREAMS/s", "CPU us", "WIRE B", "ALLOCS"],
    };
    let mut table = report::table([&name, head[0], head[1], head[2], head[3]], 1);
    for row in rows {
        let median = |spread: Spread| crate::stats::short(spread.median);
        let spread = |spread: Option<Spread>| spread.map_or("-".into(), |spread| spread.to_string());
        let cells = match workload {
            Workload::Bulk | Workload::Bulk64 => [
                spread(row.gb_per_s),
                spread(row.cpu_s_per_gb),
                median(row.overhead_bytes),
                median(row.allocations),
            ],
            Workload::Echo => {
                [spread(row.p50_us), spread(row.p99_us), spread(Some(row.cpu_us)), median(row.allocations)]
            }
            Workload::OpenClose | Workload::OpenClose64 => [
                spread(Some(row.per_second)),
                spread(Some(row.cpu_us)),
                median(row.overhead_bytes),
                median(row.allocations),
            ],
        };
        table.add_row([row.muxer.text()].into_iter().chain(cells));
    }
    table
}
