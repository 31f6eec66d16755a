//! Idle devices on a hub: what they cost it, all of them together.

use serde::Serialize;

use super::{MOST, Options, up_to};
use crate::idle::{self, Name as Idle};
use crate::stats::short;
use crate::transports::trust::Trust;

/// How many there are, as far as descriptors go.
const DEVICES: [usize; 6] = [500, 1000, 2000, 5000, 10_000, MOST];

/// What devices cost their hub, all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Devices {
    /// How many.
    pub count: usize,
    /// Resident memory of its process, in bytes.
    pub rss_bytes: i64,
    /// Live heap, in bytes.
    pub heap_bytes: i64,
    /// CPU time in an hour, in seconds.
    pub cpu_s_per_hour: f64,
}

/// What they cost their hub, which is in a process of its own.
pub(super) fn measure(options: &Options) -> anyhow::Result<Vec<Devices>> {
    let counts: Vec<_> = up_to(DEVICES, options.devices).collect();
    let held = idle::held(Idle::HubTls, &counts, options.settle, &Trust::new()?)?;
    let hours = options.settle.as_secs_f64() / 3600.0;
    let devices = counts.into_iter().zip(held).map(|(count, held)| Devices {
        count,
        rss_bytes: held.rss_bytes,
        heap_bytes: held.heap_bytes,
        cpu_s_per_hour: held.cpu_s / hours,
    });
    Ok(devices.collect())
}

/// How much more memory each device takes than there were before, with that of the first ones: resident, and heap, in bytes.
fn each(devices: &[Devices]) -> impl Iterator<Item = [f64; 2]> {
    let before = devices.iter().map(Some);
    let of = |at: Option<&Devices>| at.map_or((0, 0, 0), |at| (at.count, at.rss_bytes, at.heap_bytes));
    devices.iter().zip([None].into_iter().chain(before)).map(move |(now, before)| {
        let (count, rss, heap) = of(before);
        let more = (now.count - count) as f64;
        [(now.rss_bytes - rss) as f64 / more, (now.heap_bytes - heap) as f64 / more]
    })
}

/// What there is in a row.
pub(super) const HEAD: [&str; 7] =
    ["DEVICES ON A HUB", "RSS MB", "B EACH MORE", "HEAP MB", "B EACH MORE", "CPU s AN HOUR", "ms EACH"];

/// A row for each number of them, as it is shown, below [`HEAD`].
pub(super) fn rows(devices: &[Devices]) -> impl Iterator<Item = [String; 7]> {
    devices.iter().zip(each(devices)).map(|(at, [rss, heap])| {
        let Devices { count, rss_bytes, heap_bytes, cpu_s_per_hour } = *at;
        let [all_rss, all_heap] = [rss_bytes, heap_bytes].map(|bytes| bytes as f64 / 1e6);
        let ms_each = cpu_s_per_hour * 1000.0 / count as f64;
        let [all_rss, rss, all_heap, heap, cpu, ms_each] =
            [all_rss, rss, all_heap, heap, cpu_s_per_hour, ms_each].map(short);
        [count.to_string(), all_rss, rss, all_heap, heap, cpu, ms_each]
    })
}
