//! What the user, the service manager or ssh says with a signal.

use std::time::Duration;

/// How long the hub may take to hear a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Whoever started this program is gone: a terminal, or ssh, which ends its ProxyCommand so (SIGHUP). To a hub it says
    /// something else as well: see [`Stops::of_a_hub`].
    Hangup,
    /// Ctrl-C (SIGINT).
    Interrupt,
    /// The service manager's (SIGTERM).
    Terminate,
}

impl Stop {
    /// The exit status of a command that could not do its work for this reason: as a shell has it, 128 and the
    /// signal's number.
    pub(crate) const fn status(self) -> u8 {
        128 + match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

/// Takes the signals that would end this program, from when it is made.
#[derive(Debug)]
pub(crate) struct Stops {
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    interrupt: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Stops {
    /// As [`new`](Self::new), for a program that loads its files anew on SIGHUP, under `nohup` too.
    pub(crate) fn of_a_hub() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { hangup: signal(SignalKind::hangup()).ok(), ..Self::new() }
    }

    pub(crate) fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        // Where a signal cannot be had, the default applies: the program ends at once.
        let take = |kind| signal(kind).ok();
        Self {
            hangup: if hangup_is_ignored() { None } else { take(SignalKind::hangup()) },
            terminate: take(SignalKind::terminate()),
            interrupt: take(SignalKind::interrupt()),
        }
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Stop {
        let Self { hangup, terminate, interrupt } = self;
        tokio::select! {
            Some(()) = next(hangup) => Stop::Hangup,
            Some(()) = next(terminate) => Stop::Terminate,
            Some(()) = next(interrupt) => Stop::Interrupt,
            else => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
async fn next(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    signal.as_mut()?.recv().await
}

/// Whether `nohup` started this program. What it says would not count any more once the signal is taken.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    // Only Linux tells without unsafe code. A mask in hexadecimal; the lowest bit is that of signal 1.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// The terminal that this program was started from, if it was one.
#[derive(Debug)]
pub(crate) struct Terminal {
    #[cfg(unix)]
    is_there: bool,
}

#[cfg(unix)]
impl Terminal {
    /// To be asked before a signal is taken.
    pub(crate) fn of_this_program() -> Self {
        use std::io::IsTerminal;
        Self { is_there: std::io::stdin().is_terminal() && !hangup_is_ignored() }
    }

    /// Whether it was closed: that is said with SIGHUP, as other things are.
    pub(crate) fn was_closed(&self) -> bool {
        self.is_there && std::fs::File::open("/dev/tty").is_err()
    }
}

#[cfg(not(unix))]
impl Terminal {
    pub(crate) fn of_this_program() -> Self {
        Self {}
    }

    pub(crate) fn was_closed(&self) -> bool {
        false
    }
}

#[cfg(not(unix))]
impl Stops {
    pub(crate) fn of_a_hub() -> Self {
        Self::new()
    }

    pub(crate) fn new() -> Self {
        Self {}
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Stop {
        let _ = tokio::signal::ctrl_c().await;
        Stop::Interrupt
    }
}

/// Waits for a goodbye, unless the hub takes too long to hear it, or somebody is in a hurry.
pub(crate) async fn end(goodbye: impl Future<Output = ()>, stops: &mut Stops) {
    tokio::select! {
        () = goodbye => {}
        () = tokio::time::sleep(GOODBYE) => {}
        _ = stops.next() => {}
    }
}
