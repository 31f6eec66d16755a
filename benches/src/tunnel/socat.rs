//! The same shape made of socat: a local port, TLS to a meeting point, TLS to the far end, the target.
//!
//! Three processes, each in the part that the service, the hub and the device have; certificates on both sides, as
//! there. They end when [`Chain`] is dropped.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::{SysconfVar, sysconf};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use tempfile::TempDir;

use super::target::{self, PIECE};

/// How long the three may take to be there, and their children to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file with what the three say.
const LOG: &str = "log";

/// Three socats in a row.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    processes: Vec<Running>,
    /// Holds the keys, and what the three say.
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

/// Whether there is a socat.
pub(crate) fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("socat").is_file())
}

impl Chain {
    pub(crate) fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("towline-bench-")?;
        let [listens, connects] = write_keys(folder.path())?;
        let [near, middle, far] = free_ports()?;
        let listen = |port| format!("OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,{listens}");
        let connect = |port| format!("OPENSSL:127.0.0.1:{port},{connects}");
        let log = || File::options().create(true).append(true).open(folder.path().join(LOG));
        let tcp = "bind=127.0.0.1,reuseaddr,fork,nodelay";
        let processes = vec![
            socat(log()?, &listen(far), &format!("TCP:{target},nodelay"))?,
            socat(log()?, &listen(middle), &connect(far))?,
            socat(log()?, &format!("TCP-LISTEN:{near},{tcp}"), &connect(middle))?,
        ];
        let chain = Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, near)), processes, folder };
        chain.wait_until_ready()?;
        Ok(chain)
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Err(error) = target::request(self.address) {
            if start.elapsed() > PATIENCE {
                let said = fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
                let last = said.lines().next_back().unwrap_or("socat says nothing");
                bail!("the chain of socats carries nothing: {error}: {last}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The CPU time that the processes have used, with those that they had for a connection each. Waits until the
    /// latter are gone, since only then is it counted.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let pids = || self.processes.iter().map(|process| process.0.id());
        while pids().map(has_children).collect::<io::Result<Vec<_>>>()?.contains(&true) {
            if start.elapsed() > PATIENCE {
                bail!("a socat has not ended with its connection");
            }
            thread::sleep(Duration::from_millis(10));
        }
        pids().map(cpu_of).sum()
    }
}

fn socat(log: File, from: &str, to: &str) -> anyhow::Result<Running> {
    let mut command = Command::new("socat");
    command.arg("-b").arg(PIECE.to_string()).args([from, to]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(Running(command.spawn().context("socat does not start")?))
}

/// Writes an authority's certificate, and one for those who listen and those who connect. Returns the options with
/// which socat uses the latter two.
///
/// They are for P-256: not every OpenSSL reads an Ed25519 key as it is written here.
fn write_keys(folder: &Path) -> anyhow::Result<[String; 2]> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "bench");
    let root = folder.join("root.pem");
    fs::write(&root, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let write = |name: &str| -> anyhow::Result<String> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
        let path = folder.join(name);
        fs::write(&path, format!("{}{}", certificate.pem(), key.serialize_pem()))?;
        let (keys, root) = (path.display(), root.display());
        Ok(format!("cert={keys},cafile={root},verify=1,openssl-min-proto-version=TLS1.3,nodelay"))
    };
    Ok([write("listens.pem")?, write("connects.pem")?])
}

/// Ports that nobody listens on now.
fn free_ports() -> io::Result<[u16; 3]> {
    let listener = || TcpListener::bind("127.0.0.1:0");
    let listeners = [listener()?, listener()?, listener()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn has_children(pid: u32) -> io::Result<bool> {
    Ok(!fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.trim().is_empty())
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
