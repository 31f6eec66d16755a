//! Other programs in a row that carry bytes from a local port to the target.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::{SysconfVar, sysconf};
use tempfile::TempDir;

use super::target;

/// How long they may take to be there, and their children to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file with what they say.
const LOG: &str = "log";

/// Programs in a row. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    processes: Vec<Running>,
    /// Each connection has children of its own, whose CPU time is known once they have ended.
    forks: bool,
    /// Holds the keys, and what they say.
    folder: TempDir,
}

/// A process that is ended when this is dropped.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether there is such a program.
pub(crate) fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

impl Chain {
    /// One that will begin at `port`, with nothing in it yet.
    pub(crate) fn new(port: u16, forks: bool) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("towline-bench-")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { address, processes: Vec::new(), forks, folder })
    }

    /// A folder for keys.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts one more program.
    pub(crate) fn start(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join(LOG))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process =
            command.spawn().with_context(|| format!("{} does not start", command.get_program().display()))?;
        self.processes.push(Running(process));
        Ok(())
    }

    /// Waits until it carries something.
    pub(crate) fn wait_until_ready(self) -> anyhow::Result<Self> {
        let start = Instant::now();
        while let Err(error) = target::request(self.address) {
            if start.elapsed() > PATIENCE {
                let said = fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
                let last = said.lines().next_back().unwrap_or("nothing is said");
                bail!("the chain carries nothing: {error}: {last}");
            }
            // Another program does not tell when it is ready.
            thread::sleep(Duration::from_millis(50));
        }
        Ok(self)
    }

    /// The CPU time that the processes have used, and their children. Where each connection has children of its own, it
    /// waits until those are gone, since only then is it counted.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let pids = || self.processes.iter().map(|process| process.0.id());
        if !self.forks {
            return pids().map(cpu_of_family).sum();
        }
        while pids()
            .map(|pid| Ok(!children(pid)?.is_empty()))
            .collect::<io::Result<Vec<_>>>()?
            .contains(&true)
        {
            if start.elapsed() > PATIENCE {
                bail!("a child has not ended with its connection");
            }
            // Nor does a child that is not ours tell when it has ended.
            thread::sleep(Duration::from_millis(10));
        }
        pids().map(cpu_of).sum()
    }
}

/// Ports that nobody listens on now.
pub(crate) fn free_ports<const COUNT: usize>() -> io::Result<[u16; COUNT]> {
    let listeners = (0..COUNT).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    let mut ports = [0; COUNT];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn children(pid: u32) -> io::Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().filter_map(|child| child.parse().ok()).collect())
}

/// The CPU time of a process, of its children that live, and of theirs.
fn cpu_of_family(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = cpu_of(pid)?;
    for child in children(pid)? {
        sum += cpu_of_family(child)?;
    }
    Ok(sum)
}

/// The CPU time of a process and of its children that have ended (proc(5): fields 14 to 17 of `stat`).
fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything; the third field follows it.
    let (_, fields) = stat.rsplit_once(')').context("/proc has another form than proc(5) says")?;
    let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<_, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the system does not tell its clock tick")?;
    Ok(Duration::from_secs(1) * ticks / u32::try_from(per_second)?)
}
