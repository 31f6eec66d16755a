//! What ends a run early: a signal, or that its time is over. With the next signal the process ends at once.

use std::future;
use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::process;

/// What a process ends with that was interrupted.
pub const INTERRUPTED: i32 = 130;

/// The signals that ask a process to end.
struct Signals([Signal; 3]);

impl Signals {
    /// Within a runtime. From now on they end nothing by themselves.
    fn listen() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    /// Waits for one.
    async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// How it was that a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All was done.
    Over,
    /// A signal came first.
    Interrupted,
    /// Its time was over first.
    OutOfTime,
}

/// Does `work` until it is over, or a signal comes, or `limit` has passed. If it is not over, the work goes on, with nobody to
/// wait for it. After that a signal ends this process at once, and all that it has started.
///
/// # Errors
///
/// That of `work`, or the system has no threads or signals.
pub(super) fn wait_for(
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    limit: Option<Duration>,
) -> anyhow::Result<End> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut signals, end) = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let end = tokio::select! {
            biased;
            done = spawn_blocking(work) => done.expect("it does not panic").map(|()| End::Over),
            () = signals.come() => Ok(End::Interrupted),
            () = pass(limit) => Ok(End::OutOfTime),
        };
        io::Result::Ok((signals, end))
    })?;
    // The runtime goes there as well: if it were dropped, that would wait for the work.
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(signals.come());
        process::end_all();
        eprintln!("interrupted: it ends at once");
        std::process::exit(INTERRUPTED);
    })?;
    end
}

/// Waits for so long, or for ever.
async fn pass(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_than_it_may_is_out_of_time() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hang = move || {
            let _ = held.recv();
            Ok(())
        };
        assert_eq!(wait_for(hang, Some(Duration::from_millis(1))).unwrap(), End::OutOfTime);
        drop(release);
        assert_eq!(wait_for(|| Ok(()), None).unwrap(), End::Over);
        assert!(wait_for(|| anyhow::bail!("it cannot be"), None).is_err());
    }
}
