//! Those who carry many streams over one pipe, behind one face.
//!
//! Each is used by the best of its own interfaces: who can take and give slices without a copy does, who cannot
//! copies. Whatever a muxer needs to run is in tasks on the one thread that everything happens on.

mod bare;
mod h2;
mod pipe;
mod qmux;
mod scratch;
mod tokio_yamux;
pub(crate) mod towline;
mod yamux;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;

pub(crate) use bare::{AcceptOnce, Bare, OpenOnce};
pub(crate) use h2::H2;
pub(crate) use pipe::MemoryPipe;
pub(crate) use qmux::Qmux;
pub(crate) use tokio_yamux::TokioYamux;
pub(crate) use towline::{Towline, config};
pub(crate) use yamux::{Yamux13, Yamux14};

/// A muxer, in one of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// No muxer: the pipe alone, for the workloads that have one stream
    Pipe,
    /// The engine, both sessions pumped by hand: no tasks, no lock
    TowlineEngine,
    /// The same, with windows of 4 MiB (stream) and 16 MiB (session), and records of 64 KiB
    TowlineEngineBig,
    /// Links, with slices in and out
    Towline,
    /// Links, with windows of 4 MiB and 16 MiB, and records of 64 KiB
    TowlineBig,
    /// Links, with bytes copied in and out, as through AsyncRead and AsyncWrite
    TowlineCopy,
    /// The crate yamux, 0.13: slices out, copies in; its windows grow by themselves
    #[value(name = "yamux-0.13")]
    #[serde(rename = "yamux-0.13")]
    Yamux13,
    /// The crate yamux, 0.14
    #[value(name = "yamux-0.14")]
    #[serde(rename = "yamux-0.14")]
    Yamux14,
    /// HTTP/2 requests with a body each way: slices in and out
    H2,
    /// The same, with windows of 4 MiB (stream) and 16 MiB (session), and frames of 64 KiB
    H2Big,
    /// The crate qmux, the same protocol as ours: slices in and out
    Qmux,
    /// The same, with windows of 4 MiB and 16 MiB
    QmuxBig,
    /// The crate tokio-yamux: copies in and out
    TokioYamux,
    /// The same, with a stream window of 4 MiB
    TokioYamuxBig,
}

impl Name {
    /// As it is written on the command line.
    pub fn text(self) -> String {
        self.to_possible_value().expect("no name is hidden").get_name().to_owned()
    }
}

/// How large windows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Windows {
    Default,
    Big,
}

/// The window of a stream, and of all streams together, where they are big.
pub(crate) const BIG_STREAM: u32 = 4 << 20;
pub(crate) const BIG_SESSION: u32 = 16 << 20;

/// The largest record, or frame, where windows are big.
pub(crate) const BIG_FRAME: u32 = 64 << 10;

/// Starts an end over a pipe. It may be that either waits for the other.
pub(crate) trait Muxer<P>: Copy + Send + Sync + 'static {
    type Opener: Open;
    type Acceptor: Accept;

    fn opener(self, pipe: P) -> impl Future<Output = Self::Opener> + Send;

    fn acceptor(self, pipe: P) -> impl Future<Output = Self::Acceptor> + Send;
}

/// The end that opens streams.
pub(crate) trait Open: Clone + Send + 'static {
    type Stream: Stream;

    fn open(&self) -> impl Future<Output = Self::Stream> + Send;
}

/// The end that accepts them. It may be that it only works while it is asked.
pub(crate) trait Accept: Send + 'static {
    type Stream: Stream;

    /// The next stream; `None` once there will be none.
    fn accept(&mut self) -> impl Future<Output = Option<Self::Stream>> + Send;
}

/// A stream. What fails here is the bench's fault, so nothing returns an error.
pub(crate) trait Stream: Send + 'static {
    /// Writes all of `data`, once it is taken.
    fn write(&mut self, data: Bytes) -> impl Future<Output = ()> + Send;

    /// Waits for bytes, lets `look` see them, and returns how many came; 0 at the end of the stream.
    fn read(&mut self, look: impl FnMut(&[u8]) + Send) -> impl Future<Output = usize> + Send;

    /// Says that no more will be written.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
}

/// What has gone through a pipe, both ways.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What a result that cannot be an error is.
pub(crate) const UP: &str = "both ends are here, and the pipe is up";
