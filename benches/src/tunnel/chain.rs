//! Other programs in a row that carry bytes from a local port to the target.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::{SysconfVar, sysconf};

use super::part::Cpu;
use super::target;
use crate::lab::{Ends, Lab};
use crate::process::{Folder, Running, children};

/// How long they may take to be there, and their children to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it is from one look to the next: another program does not tell when it is ready.
const LOOK: Duration = Duration::from_millis(5);

/// The file with what they say.
const LOG: &str = "log";

/// Which end: that of whoever calls, or that of the meeting point and the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Near,
    Far,
}

/// Where the two ends are: both on loopback, or with a line of the laboratory between them.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    ends: Option<Arc<Ends>>,
    near: Ipv4Addr,
    far: Ipv4Addr,
}

impl Site {
    pub(crate) fn loopback() -> Self {
        Self { ends: None, near: Ipv4Addr::LOCALHOST, far: Ipv4Addr::LOCALHOST }
    }

    pub(crate) fn of(lab: &Lab) -> Self {
        Self { ends: Some(lab.ends().clone()), near: Lab::NEAR, far: Lab::FAR }
    }

    /// The address at which the other end reaches this one.
    pub(crate) fn address(&self, end: End) -> Ipv4Addr {
        match end {
            End::Near => self.near,
            End::Far => self.far,
        }
    }

    /// Does `work` at an end.
    pub(crate) fn run<T: Send>(
        &self,
        end: End,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        match (&self.ends, end) {
            (None, _) => work(),
            (Some(ends), End::Near) => ends.near.run(work),
            (Some(ends), End::Far) => ends.far.run(work),
        }
    }

    /// A port at this end that nobody listens on now.
    pub(crate) fn free_port(&self, end: End) -> anyhow::Result<u16> {
        self.run(end, || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port()))
    }
}

/// Programs in a row. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Where it begins, at the near end.
    pub(crate) address: SocketAddr,
    /// How long it took from the start of the last program until the first request was answered.
    pub(crate) cold: Duration,
    site: Site,
    /// The last one first, which is the one that connects to the others.
    processes: Vec<Running>,
    /// The one that the two ends meet in, if there is one.
    middle: Option<u32>,
    /// When the last one was started.
    started: Instant,
    /// Each connection has children of its own, whose CPU time is known once they have ended.
    forks: bool,
    /// Holds the keys, and what they say.
    folder: Folder,
}

impl Chain {
    /// One with nothing in it yet.
    pub(crate) fn new(site: &Site, forks: bool) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, site.free_port(End::Near)?));
        Ok(Self {
            address,
            cold: Duration::ZERO,
            site: site.clone(),
            processes: Vec::new(),
            middle: None,
            started: Instant::now(),
            forks,
            folder: Folder::new()?,
        })
    }

    /// A folder for keys.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts one more program at this end.
    pub(crate) fn start(&mut self, end: End, command: &mut Command) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join(LOG))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.started = Instant::now();
        let start = || Running::start(command).map_err(Into::into);
        let process = self.site.run(end, start);
        let process =
            process.with_context(|| format!("{} does not start", command.get_program().display()))?;
        self.processes.insert(0, process);
        Ok(())
    }

    /// As [`start`](Self::start), and it is the one that the two ends meet in.
    pub(crate) fn start_middle(&mut self, command: &mut Command) -> anyhow::Result<()> {
        self.start(End::Far, command)?;
        self.middle = self.processes.first().map(Running::id);
        Ok(())
    }

    /// Waits until somebody listens at this end, so that whoever is started next need not try again. Nothing passes the line
    /// for that.
    pub(crate) fn wait_until_listening(&mut self, end: End, address: SocketAddr) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Err(error) = self.site.run(end, || Ok(TcpStream::connect(address)?)) {
            self.check(start, &error)?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until it carries something.
    pub(crate) fn wait_until_ready(mut self) -> anyhow::Result<Self> {
        let start = Instant::now();
        while let Err(error) = self.site.run(End::Near, || Ok(target::request(self.address)?)) {
            self.check(start, &error)?;
            thread::sleep(LOOK);
        }
        self.cold = self.started.elapsed();
        Ok(self)
    }

    /// Whether it may still become ready, since `start`.
    fn check(&mut self, start: Instant, error: &anyhow::Error) -> anyhow::Result<()> {
        let has_ended = self.processes.iter_mut().any(Running::has_ended);
        if has_ended || start.elapsed() > PATIENCE {
            let said = fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
            let last = said.lines().next_back().unwrap_or("nothing is said");
            let what = if has_ended { "one of the programs has ended" } else { "the chain carries nothing" };
            bail!("{what}: {error}: {last}");
        }
        Ok(())
    }

    /// The CPU time that the processes have used, and their children. Where each connection has children of its own, it
    /// waits until those are gone, since only then is it counted.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        let start = Instant::now();
        let pids = || self.processes.iter().map(Running::id);
        let lives = |pid| children(pid).map(|children| !children.is_empty());
        while self.forks && pids().map(lives).collect::<io::Result<Vec<_>>>()?.contains(&true) {
            if start.elapsed() > PATIENCE {
                bail!("a child has not ended with its connection");
            }
            // Nor does a child that is not ours tell when it has ended.
            thread::sleep(Duration::from_millis(10));
        }
        let all = pids().map(cpu_of_family).sum::<anyhow::Result<_>>()?;
        Ok(Cpu { all, middle: self.middle.map(cpu_of_family).transpose()? })
    }
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
