//! A field test: the program itself, as hub, device and service, and real programs to talk through it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// The program.
pub const TOWLINE: &str = env!("CARGO_BIN_EXE_towline");

/// Says that a test is skipped, and why. With `TOWLINE_REQUIRE_CLIENTS` set, as in CI, it is an error instead.
pub fn skip(why: &str) {
    assert!(std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_none(), "no test may be skipped, but {why}");
    eprintln!("skipped: {why}");
}

/// Where OpenBSD's netcat is, whose `-N` says the end of file: others have the same name. `None` as for [`find`].
pub fn find_nc() -> Option<PathBuf> {
    let nc = find("nc")?;
    let help = Command::new(&nc).arg("-h").stdin(Stdio::null()).output().unwrap();
    if String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("OpenBSD") {
        return Some(nc);
    }
    skip(&format!("{} is not OpenBSD's (netcat-openbsd)", nc.display()));
    None
}

/// Where a program is, or `None` after saying that the test is skipped for want of it.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// A program that is ended when this is dropped.
pub struct Running {
    child: Child,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line on its standard output, which must be piped.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.child.stdout.as_mut().expect("the output is piped");
        let mut byte = [0];
        while output.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0].into());
        }
        line
    }

    /// It, a hub whose output is piped, and the address that it says it listens on.
    pub fn listening(mut self) -> (Self, SocketAddr) {
        let line = self.line();
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(' ').next());
        let address = address.and_then(|address| address.parse().ok());
        (self, address.unwrap_or_else(|| panic!("the hub said {line:?}")))
    }

    /// Waits until it has ended by itself; returns how.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("it has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// SIGKILL: it has no time for a last word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with an authority and identities in it, and what runs with them.
pub struct Field {
    folder: TempDir,
}

impl Field {
    pub fn new() -> Self {
        Self::with_hub_names(&[])
    }

    /// One whose hub has more names than those of this machine.
    pub fn with_hub_names(names: &[&str]) -> Self {
        let field = Self { folder: TempDir::with_prefix("towline-test-").unwrap() };
        let mut init = vec!["init"];
        init.extend(names.iter().flat_map(|name| ["--hub-name", name]));
        for args in [&init[..], &["device", "press-7"], &["service", "me"]] {
            let output = field.towline("identity").args(args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        field
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `towline COMMAND` with this field's identities.
    pub fn towline(&self, command: &str) -> Command {
        let mut towline = Command::new(TOWLINE);
        towline.arg(command).env("TOWLINE_DIR", self.path()).env_remove("RUST_LOG");
        towline
    }

    /// A hub on `listen`, and its address.
    pub fn hub(&self, listen: &str) -> (Running, SocketAddr) {
        let mut command = self.towline("hub");
        command.args(["--quiet", "--listen", listen]).stdout(Stdio::piped());
        Running::start(&mut command).listening()
    }

    /// A hub that logs to a file, which is returned too.
    pub fn logging_hub(&self) -> (Running, SocketAddr, PathBuf) {
        let log = self.path().join("hub.log");
        let mut command = self.towline("hub");
        command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let (hub, address) = Running::start(command.stderr(std::fs::File::create(&log).unwrap())).listening();
        (hub, address, log)
    }

    /// The device `press-7`, online at the hub, with these services.
    pub fn device(&self, hub: SocketAddr, services: &[(&str, SocketAddr)]) -> Running {
        let mut command = self.towline("device");
        command.args(["--quiet", "--hub", &hub.to_string()]);
        for (name, address) in services {
            command.args(["--service", &format!("{name}={address}")]);
        }
        let device = Running::start(&mut command);
        self.wait_until_online(hub);
        device
    }

    /// Waits until `press-7` is online; returns for how long that took.
    pub fn wait_until_online(&self, hub: SocketAddr) -> Duration {
        let start = Instant::now();
        until("press-7 is online", || {
            let mut devices = self.towline("devices");
            let output = devices.args(["--json", "--hub", &hub.to_string()]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("\"online\": true")
        });
        start.elapsed()
    }

    /// A local port that leads to a service of `press-7`.
    pub fn forward(&self, hub: SocketAddr, service: &str) -> (Running, SocketAddr) {
        let mut command = self.towline("forward");
        command.args(["press-7", service, "--hub", &hub.to_string()]).stdout(Stdio::piped());
        let mut forward = Running::start(&mut command);
        let line = forward.line();
        let address = line.split(' ').next().and_then(|address| address.parse().ok());
        (forward, address.unwrap_or_else(|| panic!("the forward said {line:?}")))
    }

    /// A file of `mebibytes` MiB, hard to compress and different for each name, and its SHA-256.
    pub fn file(&self, name: &str, mebibytes: usize) -> (PathBuf, String) {
        let path = self.path().join(name);
        let seed = name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed;
        let mut block = Vec::with_capacity(1 << 20);
        let mut contents = std::fs::File::create(&path).unwrap();
        for _ in 0..mebibytes {
            block.clear();
            while block.len() < 1 << 20 {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                block.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
            }
            std::io::Write::write_all(&mut contents, &block).unwrap();
        }
        let digest = digest_of(&path);
        (path, digest)
    }
}

/// A file's SHA-256.
pub fn digest_of(path: &Path) -> String {
    let mut context =
        towline_transports::crypto::digest::Context::new(&towline_transports::crypto::digest::SHA256);
    let mut file = BufReader::with_capacity(1 << 20, std::fs::File::open(path).unwrap());
    loop {
        let block = file.fill_buf().unwrap();
        if block.is_empty() {
            break;
        }
        context.update(block);
        let count = block.len();
        file.consume(count);
    }
    context.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Waits until something is so that another process is about to bring about.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Sends a signal, such as `HUP`.
pub fn signal(pid: u32, name: &str) {
    let kill = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    assert!(kill.unwrap().success(), "no process {pid}");
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A real ssh server on loopback that takes the field's key.
pub struct Sshd {
    _running: Running,
    pub address: SocketAddr,
    folder: PathBuf,
}

impl Sshd {
    /// `None` if a program is missing.
    pub fn start(field: &Field) -> Option<Self> {
        Self::start_in(field, &|sshd| sshd, &|address| TcpStream::connect(address).is_ok())
    }

    /// As [`start`](Self::start), where `inside` puts it; `connects` tells whether somebody listens there.
    pub fn start_in(
        field: &Field,
        inside: &dyn Fn(Command) -> Command,
        connects: &dyn Fn(SocketAddr) -> bool,
    ) -> Option<Self> {
        let sshd = find("sshd")?;
        let keygen = find("ssh-keygen")?;
        find("ssh")?;
        let folder = field.path().join("ssh");
        std::fs::create_dir(&folder).unwrap();
        // Where Debian's sshd wants to be separated from its privileges.
        let _ = std::fs::create_dir_all("/run/sshd");
        for name in ["host", "user"] {
            let key = folder.join(name);
            let made = Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
            assert!(made.unwrap().success());
        }
        let port = free_port();
        let config = folder.join("sshd_config");
        let dir = folder.display();
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nPidFile {dir}/pid\n\
             AuthorizedKeysFile {dir}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 200\n\
             Subsystem sftp internal-sftp\nLogLevel ERROR\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(sshd);
        command.arg("-D").arg("-e").arg("-f").arg(&config);
        let running = Running::start(&mut inside(command));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("sshd listens", || connects(address));
        Some(Self { _running: running, address, folder })
    }

    /// What `ssh`, `scp` and `sftp` need to get to `press-7` through the hub.
    pub fn client(&self, program: &str, field: &Field, hub: SocketAddr) -> Command {
        let mut command = Command::new(program);
        command.args(self.options(field, hub));
        command
    }

    /// The same, as options.
    pub fn options(&self, field: &Field, hub: SocketAddr) -> Vec<String> {
        let proxy =
            format!("ProxyCommand={TOWLINE} connect --dir {} --hub {hub} %h ssh", field.path().display());
        let key = self.folder.join("user").display().to_string();
        let quiet = ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no"];
        let mut options: Vec<String> = vec!["-F".into(), "none".into(), "-o".into(), proxy];
        options.extend(quiet.map(str::to_owned));
        options.extend(["-o", "UserKnownHostsFile=/dev/null", "-i", &key].map(str::to_owned));
        options
    }
}

/// The user that this test runs as.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a command printed, if it succeeded.
pub fn success(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// The exit status, and the one line that says why.
pub fn failed(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "the standard output carries bytes only");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    let status = output.status.code().unwrap();
    assert!(tells(&help_of(&[]), status), "--help does not tell the status {status}");
    (status, said.trim_end().trim_start_matches("towline: ").to_owned())
}

/// What `towline COMMAND --help` prints.
pub fn help_of(command: &[&str]) -> String {
    success(&Command::new(TOWLINE).args(command).arg("--help").output().unwrap())
}

/// Whether a help text has an exit status in its table.
pub fn tells(help: &str, status: i32) -> bool {
    let table = help.split("Exit status:\n").nth(1).unwrap_or_default();
    table.split([' ', ',']).any(|word| word.parse() == Ok(status))
}
