//! The project's own figures: what idle things cost in memory, what the wire and the heap cost for each 16 KiB.
//!
//! All of them are counts on one thread without a clock, and come out the same on every run.

mod idle;
mod link;
mod steady;

use serde::Serialize;
use towline_engine::Config;

use crate::alloc::{self, Heap, Sizes};
use crate::report;
use crate::stats::short;

/// What wire and heap costs are given for, in bytes.
pub const UNIT: u64 = 16 << 10;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is of.
    pub what: &'static str,
    /// Under which circumstances.
    pub when: String,
    /// How much.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// What it is made of, if that is known.
    pub made_of: String,
}

/// All figures; those of idle things are taken over `count` of them.
pub fn measure(count: usize) -> Vec<Figure> {
    let mut figures = idle::streams(count);
    figures.extend(idle::sessions(count));
    figures.extend(link::figures(count));
    figures.extend(steady::figures());
    figures
}

/// Prints them.
///
/// # Errors
///
/// They cannot be written as JSON.
pub fn print(figures: &[Figure], json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(&figures);
    }
    let mut table = report::table(["FIGURE", "WHEN", "VALUE", "UNIT", "MADE OF"], 5);
    for Figure { what, when, value, unit, made_of } in figures {
        table.add_row([what, &when[..], &short(*value), unit, made_of]);
    }
    println!("{table}");
    Ok(())
}

/// The engine's defaults, with room for many streams.
fn config(streams: usize) -> Config {
    let mut config = Config::default();
    config.max_streams_bidi = streams as u64 + 1;
    config
}

/// What is live on the heap, to compare with later.
struct Before {
    heap: Heap,
    sizes: Sizes,
}

impl Before {
    fn now() -> Self {
        let sizes = alloc::sizes();
        Self { heap: alloc::heap(), sizes }
    }

    /// A figure of how much more is live now, for each of `count`.
    fn figure(&self, what: &'static str, when: &str, count: usize) -> Figure {
        let heap = alloc::heap() - self.heap;
        let grown = alloc::sizes().since(&self.sizes);
        let count = count as f64;
        let parts = grown.into_iter().map(|(size, blocks)| (size, blocks as f64 / count));
        // What there is one of for many things is not a part of each.
        let parts = parts.filter(|&(_, each)| each >= 0.01).take(6);
        let parts: Vec<_> = parts.map(|(size, each)| format!("{} x {size} B", short(each))).collect();
        let value = heap.live_bytes as f64 / count;
        Figure { what, when: when.to_owned(), value, unit: "B of heap", made_of: parts.join(" + ") }
    }
}
