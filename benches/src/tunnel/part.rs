//! A part of a way, with threads of its own, so that what it costs can be told from what all others cost.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nix::unistd::{Pid, gettid};
use tokio::runtime::{Builder, Runtime};

use crate::clock;

/// Longer than anything is measured: the time of a thread that has ended is counted nowhere.
const KEEP_ALIVE: Duration = Duration::from_secs(24 * 60 * 60);

/// The near end, what is in the middle, and the far end.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) near: Arc<Part>,
    pub(crate) middle: Part,
    pub(crate) far: Part,
}

impl Parts {
    pub(crate) fn start() -> io::Result<Self> {
        let [near, middle, far] = ["near", "middle", "far"].map(Part::start);
        Ok(Self { near: near?.into(), middle: middle?, far: far? })
    }

    /// The CPU time that they have used.
    pub(crate) fn cpu(&self) -> Cpu {
        let middle = self.middle.cpu();
        Cpu { all: self.near.cpu() + middle + self.far.cpu(), middle: Some(middle) }
    }
}

/// The CPU time of a way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Of all its parts.
    pub(crate) all: Duration,
    /// Of the part that the two ends meet in, if there is one.
    pub(crate) middle: Option<Duration>,
}

/// A runtime with as many threads as there are processors. Dropping it ends what runs in it.
#[derive(Debug)]
pub(crate) struct Part {
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
    threads: Arc<Mutex<Vec<Pid>>>,
}

impl Part {
    /// `name` is what its threads are called, for profilers.
    fn start(name: &str) -> io::Result<Self> {
        let threads = Arc::<Mutex<Vec<Pid>>>::default();
        let of_part = threads.clone();
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name(name)
            .thread_keep_alive(KEEP_ALIVE)
            .on_thread_start(move || of_part.lock().unwrap_or_else(PoisonError::into_inner).push(gettid()))
            .build()?;
        Ok(Self { runtime: Some(runtime), threads })
    }

    /// Does `work` in it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.runtime().spawn(work).await.context("a part of a way has panicked")?
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken when this is dropped")
    }

    fn cpu(&self) -> Duration {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().copied().map(clock::cpu_of_thread).sum()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
