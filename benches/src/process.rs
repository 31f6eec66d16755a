//! Programs of others: where they are, and that they end with whoever started them.
//!
//! Whatever ends this process by its own will has their whole families killed: dropping a [`Running`], or [`end_all`] when a
//! signal has come.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// What has to go when this process ends.
struct Held {
    pids: BTreeSet<u32>,
    folders: BTreeSet<PathBuf>,
}

static HELD: Mutex<Held> = Mutex::new(Held { pids: BTreeSet::new(), folders: BTreeSet::new() });

fn held() -> MutexGuard<'static, Held> {
    // A set is whole at any time.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that is ended, with all that it has started, when this is dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts it. What a terminal tells those in its foreground, it does not hear: it ends when we say so, and not before.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // Under the lock, so that there is none that `end_all` does not know of.
        let mut held = held();
        let child = command.process_group(0).spawn()?;
        held.pids.insert(child.id());
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut held = held();
        let has_ended = matches!(self.0.try_wait(), Ok(Some(_)));
        if has_ended {
            // Its number may be somebody else's from now on.
            held.pids.remove(&self.id());
        }
        has_ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut held = held();
        if held.pids.remove(&self.id()) {
            end(self.id());
            // One that has ended already is as good.
            let _ = self.0.wait();
        }
    }
}

/// A folder that goes when this is dropped, or when a signal ends this process.
#[derive(Debug)]
pub(crate) struct Folder(TempDir);

impl Folder {
    /// One where temporary things are.
    pub(crate) fn new() -> io::Result<Self> {
        Self::within(&std::env::temp_dir(), "towline-bench-")
    }

    /// One in `parent` whose name begins with `prefix`.
    pub(crate) fn within(parent: &Path, prefix: &str) -> io::Result<Self> {
        let mut held = held();
        let folder = TempDir::with_prefix_in(prefix, parent)?;
        held.folders.insert(folder.path().to_owned());
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// It stays where it is.
    pub(crate) fn keep(&mut self) -> &Path {
        held().folders.remove(self.0.path());
        self.0.disable_cleanup(true);
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        held().folders.remove(self.path());
    }
}

/// Ends all processes that run, and removes all folders. Nothing can be started from now on: this process is about to end.
pub(crate) fn end_all() {
    static ENDED: Once = Once::new();
    // Whoever comes second waits until that is done.
    ENDED.call_once(|| {
        let held = held();
        held.pids.iter().copied().for_each(end);
        // Nobody is left to be told.
        held.folders.iter().for_each(|folder| _ = fs::remove_dir_all(folder));
        std::mem::forget(held);
    });
}

/// Kills a process and those that it has started, and they in turn.
fn end(pid: u32) {
    let children = children(pid).unwrap_or_default();
    // Before its children, so that it starts no more; who has ended already is as good.
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    children.into_iter().for_each(end);
}

/// The processes that a process has started, and that live.
pub(crate) fn children(pid: u32) -> io::Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().filter_map(|child| child.parse().ok()).collect())
}

/// What it takes to run somebody else's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Programs; the first is the one that it is about.
    pub(crate) programs: &'static [&'static str],
    /// How one gets those.
    pub(crate) install: &'static str,
}

impl Needs {
    /// The first program that there is not.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        self.programs.iter().copied().find(|program| find(program).is_none())
    }
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_children() {
        let running = Running::start(Command::new("sh").args(["-c", "sleep 600 & wait"])).unwrap();
        let child = loop {
            if let [child] = children(running.id()).unwrap()[..] {
                break child;
            }
            std::thread::yield_now();
        };
        drop(running);
        // It was told to end, and nobody of this process can wait for it.
        let has_ended = || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z") || stat.contains(") X")
        };
        while !has_ended() {
            std::thread::yield_now();
        }
    }
}
