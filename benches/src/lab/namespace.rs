//! Networks of our own: a namespace, and threads and processes in it.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

/// A network with nothing in it but a loopback. It ends with the last handle, thread and process.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// This process may not make any, or `ip` is missing.
    pub fn new() -> anyhow::Result<Self> {
        in_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context(
                "this process may not have networks of its own: run as root, or allow user namespaces",
            )?;
            ip(&["link", "set", "lo", "up"])?;
            Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
        })
    }

    /// Runs `work` in a thread that is in this network, as are all threads and processes that it starts.
    ///
    /// # Errors
    ///
    /// That of `work`, or this process may not enter.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        in_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter the network")?;
            work()
        })
    }
}

/// In a thread of its own, so that this one stays where it is.
fn in_a_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `ip` in the network of this thread.
pub(super) fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.context("cannot run `ip`: install iproute2")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`ip {}` failed: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

/// Makes this process, unless it is root, the root of a user namespace of its own, where it may make networks. Before the
/// first thread is started.
///
/// # Errors
///
/// This system does not let it.
pub fn become_root_of_own() -> anyhow::Result<()> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER)
        .context("not root, and this system lets nobody else have networks of their own: run as root")?;
    for (file, words) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1")),
        ("gid_map", format!("0 {group} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        let written =
            File::options().write(true).open(&path).and_then(|mut file| file.write_all(words.as_bytes()));
        written.with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
