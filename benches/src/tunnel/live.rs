//! A way from a client to the target that is there for whoever asks: for criterion.

use std::net::Ipv4Addr;

use tokio::runtime::{Builder, Runtime};

use super::target::{self, Meters};
use super::way::{Way, Which};

/// One way. It ends when this is dropped.
pub struct Live {
    runtime: Runtime,
    way: Way,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("way", &self.way.name).finish_non_exhaustive()
    }
}

impl Live {
    /// One that has carried something.
    ///
    /// # Errors
    ///
    /// Something did not start.
    pub fn start(which: Which) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let target = target::start(Ipv4Addr::LOCALHOST, &Meters::default())?;
        let mut ways = runtime.block_on(Way::ours(target, &[which]))?;
        let way = ways.remove(0);
        runtime.block_on(way.upload(1))?;
        Ok(Self { runtime, way })
    }

    /// Carries so many bytes to the target.
    ///
    /// # Errors
    ///
    /// It does not work.
    pub fn upload(&self, bytes: u64) -> anyhow::Result<()> {
        self.run(self.way.upload(bytes)).map(drop)
    }

    /// Connects so many times, one after the other, and gets 1 KiB back each time.
    ///
    /// # Errors
    ///
    /// It does not work.
    pub fn requests(&self, count: usize) -> anyhow::Result<()> {
        self.run(self.way.requests(count)).map(drop)
    }

    fn run<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.runtime.block_on(work)
    }
}
