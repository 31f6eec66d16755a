//! What signals do: with the first one a run ends early, with the next one the process does at once.

use std::io;
use std::thread;

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

/// Does `work` until it is over or a signal comes, and says whether one came: then the work goes on, with nobody to wait for
/// it. After that a signal ends this process at once, and all that it has started.
///
/// # Errors
///
/// That of `work`, or the system has no threads or signals.
pub(super) fn is_interrupted(
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<bool> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut signals, done) = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let done = tokio::select! {
            biased;
            done = spawn_blocking(work) => Some(done.expect("it does not panic")),
            () = signals.come() => None,
        };
        io::Result::Ok((signals, done))
    })?;
    // The runtime goes there as well: if it were dropped, that would wait for the work.
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(signals.come());
        process::end_all();
        eprintln!("interrupted: it ends at once");
        std::process::exit(INTERRUPTED);
    })?;
    let is_interrupted = done.is_none();
    done.unwrap_or(Ok(())).map(|()| is_interrupted)
}
