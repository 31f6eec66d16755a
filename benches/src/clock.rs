//! What time it costs: of a thread, of the process.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// The CPU time that this thread has used.
pub fn thread_cpu() -> Duration {
    cpu(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// The CPU time that this process has used, in all its threads.
pub fn process_cpu() -> Duration {
    cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// The CPU time that another process has used, in all its threads; `None` if it has ended.
pub(crate) fn cpu_of_process(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into().ok()?)).ok()?;
    clock.now().ok().map(Into::into)
}

/// The CPU time that another thread of this process has used; none if it has ended.
///
/// Its clock's number is made of its own (Linux, `posix-timers_types.h`).
pub(crate) fn cpu_of_thread(thread: Pid) -> Duration {
    const OF_A_THREAD: i32 = 0b100;
    const ALL_THAT_IT_RAN: i32 = 0b010;
    let clock = ClockId::from_raw((!thread.as_raw() << 3) | OF_A_THREAD | ALL_THAT_IT_RAN);
    clock.now().map_or(Duration::ZERO, Into::into)
}

fn cpu(clock: ClockId) -> Duration {
    clock.now().expect("every thread and process has this clock").into()
}
