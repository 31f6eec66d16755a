//! What the muxers are made to do, and what that cost.

pub mod engine;
mod streams;

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;

use crate::alloc::Heap;
use crate::figures::UNIT;
use crate::muxer::{Bare, H2, Name, Qmux, TokioYamux, Towline, Windows, Yamux13, Yamux14};

/// How much is written at a time, in bulk.
pub(crate) const PIECE: usize = 64 << 10;

/// How large an echo is.
pub(crate) const ECHO: usize = 1 << 10;

/// How long a piece of work may take, also under a profiler and on a busy machine, before the muxer is taken to stand
/// still.
const PATIENCE: Duration = Duration::from_secs(600);

/// A piece of work, which is done so and so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// 16 KiB one way on one stream, written 64 KiB at a time
    Bulk,
    /// The same on 64 streams at once
    #[value(name = "bulk-64")]
    #[serde(rename = "bulk-64")]
    Bulk64,
    /// 1 KiB there and back, on one stream
    Echo,
    /// Open a stream, a byte each way, close both halves; one stream after the other
    OpenClose,
    /// The same, with 64 that do so at a time
    #[value(name = "open-close-64")]
    #[serde(rename = "open-close-64")]
    OpenClose64,
}

impl Workload {
    /// As it is written on the command line.
    pub fn text(self) -> String {
        self.to_possible_value().expect("no workload is hidden").get_name().to_owned()
    }

    /// How many streams are at work at a time.
    pub(crate) fn streams(self) -> usize {
        match self {
            Self::Bulk | Self::Echo | Self::OpenClose => 1,
            Self::Bulk64 | Self::OpenClose64 => 64,
        }
    }

    /// Whether `name` can do it: a pipe alone has one stream.
    pub fn is_for(self, name: Name) -> bool {
        name != Name::Pipe || matches!(self, Self::Bulk | Self::Echo)
    }
}

/// What some work cost, both ends and all tasks together.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// How many times it was done.
    pub times: u64,
    /// How long it took.
    pub wall: Duration,
    /// The thread's CPU time.
    pub cpu: Duration,
    /// Bytes that went through the pipe, both ways.
    pub wire_bytes: u64,
    /// What the heap was asked for.
    pub heap: Heap,
    /// How long each echo took; nothing for the others.
    pub latencies: Vec<Duration>,
}

impl Sample {
    /// Bytes of payload, both ways. The two bytes that show that a stream is open count as its cost.
    pub(crate) fn payload(&self, workload: Workload) -> u64 {
        self.times
            * match workload {
                Workload::Bulk | Workload::Bulk64 => UNIT,
                Workload::Echo => 2 * ECHO as u64,
                Workload::OpenClose | Workload::OpenClose64 => 0,
            }
    }
}

/// Lets `name` do `workload` `times` times on a new pipe, after doing it `warm_up` times.
///
/// # Errors
///
/// It stands still, or is not for that.
pub fn run(name: Name, workload: Workload, warm_up: u64, times: u64) -> anyhow::Result<Sample> {
    if !workload.is_for(name) {
        bail!("{} is not for {}: it has one stream", name.text(), workload.text());
    }
    let plan = streams::Plan { workload, warm_up, times };
    let towline = |windows, copies| Towline { windows, copies };
    match name {
        // Its one stream is needed for the work itself.
        Name::Pipe => streams::run(Bare::default(), streams::Plan { warm_up: 0, ..plan }),
        Name::TowlineEngine => Ok(engine::run(Windows::Default, workload, warm_up, times)),
        Name::TowlineEngineBig => Ok(engine::run(Windows::Big, workload, warm_up, times)),
        Name::Towline => streams::run(towline(Windows::Default, false), plan),
        Name::TowlineBig => streams::run(towline(Windows::Big, false), plan),
        Name::TowlineCopy => streams::run(towline(Windows::Default, true), plan),
        Name::Yamux13 => streams::run(Yamux13, plan),
        Name::Yamux14 => streams::run(Yamux14, plan),
        Name::H2 => streams::run(H2(Windows::Default), plan),
        Name::H2Big => streams::run(H2(Windows::Big), plan),
        Name::Qmux => streams::run(Qmux(Windows::Default), plan),
        Name::QmuxBig => streams::run(Qmux(Windows::Big), plan),
        Name::TokioYamux => streams::run(TokioYamux(Windows::Default), plan),
        Name::TokioYamuxBig => streams::run(TokioYamux(Windows::Big), plan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_does_everything() {
        for &name in Name::value_variants() {
            for &workload in Workload::value_variants().iter().filter(|workload| workload.is_for(name)) {
                let sample = run(name, workload, 1, 130);
                let sample = sample.unwrap_or_else(|error| panic!("{name:?} {workload:?}: {error}"));
                assert!(sample.wire_bytes >= sample.payload(workload), "{name:?} {workload:?}");
                assert_eq!(sample.latencies.len(), if workload == Workload::Echo { 130 } else { 0 });
            }
        }
    }
}
