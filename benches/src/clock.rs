//! What time it costs: of a thread, of the process.

use std::time::Duration;

use nix::time::ClockId;

/// The CPU time that this thread has used.
pub fn thread_cpu() -> Duration {
    cpu(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// The CPU time that this process has used, in all its threads.
pub fn process_cpu() -> Duration {
    cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu(clock: ClockId) -> Duration {
    clock.now().expect("every thread and process has this clock").into()
}
