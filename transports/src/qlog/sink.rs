//! Where a log goes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use tracing::Level;

use super::event::{Event, Head, Stamp, line};

/// The target of the events of `tracing` that are lines of logs. Each has the fields `log`, a number for each session of the
/// process, and `head`, `event` or `end`: the first line, a later one, or, with `true`, that there is none after it.
pub const TARGET: &str = "towline::qlog";

/// Takes what a session's log says.
pub trait Sink: fmt::Debug + Send {
    /// The session's time, for calls that are not told.
    fn now(&self) -> towline_engine::Instant;

    /// Something happened.
    fn write(&mut self, stamp: Stamp, event: &Event);
}

/// Hands lines to `tracing`.
#[derive(Debug)]
pub(super) struct Traced {
    log: u64,
    start: Instant,
}

static LOGS: AtomicU64 = AtomicU64::new(0);

impl Traced {
    /// One for a session that began at `start`. `None` if nobody listens.
    pub(super) fn begin(start: Instant, head: impl FnOnce() -> Head) -> Option<Self> {
        if !tracing::enabled!(target: TARGET, Level::TRACE) {
            return None;
        }
        let log = LOGS.fetch_add(1, Ordering::Relaxed);
        let head = serde_json::to_string(&head()).expect("a head can be written");
        tracing::trace!(target: TARGET, log, head);
        Some(Self { log, start })
    }
}

impl Sink for Traced {
    fn now(&self) -> towline_engine::Instant {
        towline_engine::Instant::default() + Instant::now().saturating_duration_since(self.start)
    }

    fn write(&mut self, stamp: Stamp, event: &Event) {
        let line = line(stamp, event);
        tracing::trace!(target: TARGET, log = self.log, event = line);
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        tracing::trace!(target: TARGET, log = self.log, end = true);
    }
}
