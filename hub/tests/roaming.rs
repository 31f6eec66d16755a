//! Real programs whose device roams: its address changes, its network is gone for a while, resets connections, lets no UDP
//! through any more. The networks are namespaces of this machine. Where that cannot be, a test is skipped with a word;
//! `TOWLINE_REQUIRE_CLIENTS=1` makes it fail instead.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/factory.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod factory;
#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use factory::Namespace;
use field::{Field, Running, Sshd, digest_of, find, skip, until, user};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

/// The hub's machine, where the service is too.
const WORLD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1));
const HUB: SocketAddr = SocketAddr::new(WORLD, 443);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A device on the road, and the world.
///
/// ```text
///   road (the device, sshd)  10.78.0.2 ──── 10.78.0.1  world (the hub, the service)
/// ```
struct Site {
    // In the order in which they end: what runs, before that in which it runs.
    _device: Running,
    hub: Option<Running>,
    sshd: Sshd,
    field: Field,
    road: Namespace,
    world: Namespace,
}

impl Site {
    /// `firewall` is what the device's machine has at first; and it offers these services besides `ssh`.
    fn new(firewall: &str, services: &[(&str, SocketAddr)]) -> Option<Self> {
        for program in ["ip", "nft", "nc"] {
            find(program)?;
        }
        let (road, world) = match (Namespace::new("road"), Namespace::new("world")) {
            (Ok(road), Ok(world)) => (road, world),
            (Err(why), _) | (_, Err(why)) => {
                skip(&format!("there can be no network namespaces: {why}"));
                return None;
            }
        };
        world.ip("link add out type veth peer name in");
        world.ip(&format!("link set in netns {}", road.name()));
        world.ip("addr add 10.78.0.1/24 dev out");
        world.ip("link set out up");
        road.ip("addr add 10.78.0.2/24 dev in");
        road.ip("link set in up");
        road.firewall(firewall);
        let field = Field::with_hub_names(&[&WORLD.to_string()]);
        let inside = |command: Command| road.inside(&command);
        let sshd = Sshd::start_in(&field, &inside, &|address| road.connects(address))?;
        let hub = Some(start_hub(&field, &world));
        let mut device = field.towline("device");
        device.args(["--hub", &HUB.to_string(), "--service", &format!("ssh={}", sshd.address)]);
        for (name, address) in services {
            device.args(["--service", &format!("{name}={address}")]);
        }
        let log = File::create(field.path().join("device.log")).unwrap();
        let device = Running::start(road.inside(&device).stderr(log));
        let this = Self { _device: device, hub, sshd, field, road, world };
        this.wait_for_device();
        Some(this)
    }

    fn wait_for_device(&self) {
        until("press-7 is online", || {
            let mut devices = self.field.towline("devices");
            let listed = self.world.inside(devices.args(["--json", "--hub", &HUB.to_string()])).output();
            String::from_utf8_lossy(&listed.unwrap().stdout).contains("\"online\": true")
        });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.field.path().join(name)
    }

    fn device_log(&self) -> String {
        std::fs::read_to_string(self.path("device.log")).unwrap()
    }

    /// Kills the hub, and starts another in its place.
    fn swap_hub(&mut self) {
        self.hub.take().unwrap().kill();
        self.hub = Some(start_hub(&self.field, &self.world));
    }

    /// `ssh`, or one of its kin, in the world, with what it needs to get to `press-7`.
    fn client(&self, program: &str) -> Command {
        self.world.inside(&self.sshd.client(program, &self.field, HUB))
    }

    /// A file on the device, as `scp` and `rsync` name it.
    fn remote(&self, name: &str) -> String {
        format!("{}@press-7:{}", user(), self.path(name).display())
    }

    /// A local port in the world that leads to a service of the device.
    fn forward(&self, service: &str) -> (Running, SocketAddr) {
        let mut forward = self.field.towline("forward");
        forward.args(["press-7", service, "--hub", &HUB.to_string()]);
        let mut forward = Running::start(self.world.inside(&forward).stdout(Stdio::piped()));
        let line = forward.line();
        let address = line.split(' ').next().and_then(|address| address.parse().ok());
        (forward, address.unwrap_or_else(|| panic!("the forward said {line:?}")))
    }
}

fn start_hub(field: &Field, world: &Namespace) -> Running {
    let mut hub = field.towline("hub");
    hub.args(["--quiet", "--listen", &HUB.to_string()]);
    Running::start(world.inside(&hub).stdout(Stdio::piped())).listening().0
}

/// A shell on the device, in a terminal, as somebody types in it.
struct Terminal {
    ssh: Child,
    keys: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Terminal {
    fn open(site: &Site) -> Self {
        let mut ssh = site.client("ssh");
        ssh.args(["-tt", &format!("{}@press-7", user()), "exec env PS1= sh"]);
        let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, output) = (ssh.stdin.take().unwrap(), ssh.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                    return;
                }
            }
        });
        let mut this = Self { ssh, keys, lines };
        // What is typed is not to be mixed with what is said.
        this.types("stty -echo; echo ready\n");
        while this.line() != "ready" {}
        this
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the shell says something")
    }

    /// The number of its process.
    fn process(&mut self) -> String {
        self.types("echo process $$\n");
        self.line()
    }
}

/// Hears so many more numbers of a counter, each exactly once.
fn count_on(terminal: &mut Terminal, next: &mut u64, more: u64) {
    for _ in 0..more {
        assert_eq!(terminal.line(), format!("count {next}"));
        *next += 1;
    }
}

const NO_TCP: &str = "chain out { type filter hook output priority 0; tcp dport 443 drop; }";
const NO_UDP: &str = "chain out { type filter hook output priority 0; udp dport 443 drop; }";
const RESETS: &str = "chain out { type filter hook output priority 0; \
                      tcp dport 443 tcp flags & (syn | rst) == 0 reject with tcp reset; }";

/// Somebody looks at a counter that runs 100 times a second, and the device goes from QUIC to TLS, has its connections reset,
/// gets another address, and sees its hub replaced. It is the same shell to the end, and no number is lost or comes twice.
#[test]
fn a_shell_in_a_terminal_outlives_whatever_happens_to_its_device() {
    let Some(mut site) = Site::new(NO_TCP, &[]) else { return };
    let mut terminal = Terminal::open(&site);
    let shell = terminal.process();
    terminal.types("i=0; while :; do echo count $i; i=$((i+1)); sleep 0.01; done\n");
    let mut next = 0;
    count_on(&mut terminal, &mut next, 100);

    // It is over QUIC, and from now on nothing of that gets out.
    site.road.firewall(NO_UDP);
    count_on(&mut terminal, &mut next, 400);
    // Whoever is on the way resets every connection, until one was seen to be lost.
    let losses = || site.device_log().matches("not registered").count();
    let before = losses();
    site.road.firewall(RESETS);
    until("the link is lost", || losses() > before);
    site.road.firewall("");
    count_on(&mut terminal, &mut next, 400);
    // Another address, and nobody says so.
    site.road.ip("addr del 10.78.0.2/24 dev in");
    site.road.ip("addr add 10.78.0.3/24 dev in");
    count_on(&mut terminal, &mut next, 400);
    site.swap_hub();
    count_on(&mut terminal, &mut next, 400);

    // Ctrl-C.
    terminal.types("\u{3}");
    terminal.types("echo done\n");
    loop {
        let line = terminal.line();
        if line == "done" {
            break;
        }
        // Of the line that was cut short the terminal shows what there was.
        if line == format!("count {next}") {
            next += 1;
        }
    }
    assert_eq!(terminal.process(), shell, "the same shell");
    terminal.types("exit 7\n");
    assert_eq!(terminal.ssh.wait().unwrap().code(), Some(7));
}

/// How long a network is gone: 20 s, or as many as `TOWLINE_OUTAGE_SECONDS` says.
fn outage() -> Duration {
    let seconds = std::env::var("TOWLINE_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(20, |seconds| seconds.parse().unwrap()))
}

/// A web server that takes uploads, on the device's machine.
fn nginx(field: &Path, road: &Namespace, address: SocketAddr) -> Running {
    let dir = field.display();
    std::fs::create_dir_all(field.join("www")).unwrap();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.log;\n\
         events {{ worker_connections 64; }}\nhttp {{\n access_log off;\n client_body_temp_path {dir}/tmp;\n\
         proxy_temp_path {dir}/p;\n fastcgi_temp_path {dir}/f;\n uwsgi_temp_path {dir}/u;\n scgi_temp_path {dir}/s;\n\
         server {{ listen {address}; root {dir}/www; client_max_body_size 1g; location / {{ dav_methods PUT; }} }}\n}}\n"
    );
    let config = field.join("nginx.conf");
    std::fs::write(&config, text).unwrap();
    let mut nginx = road.command("nginx");
    let nginx = nginx.arg("-e").arg(field.join("nginx.log")).arg("-c").arg(&config).stderr(Stdio::null());
    let nginx = Running::start(nginx);
    until("nginx listens", || road.connects(address));
    nginx
}

/// What a thread in a namespace runs.
fn inside<T: Send>(namespace: &Namespace, run: impl Future<Output = T> + Send) -> T {
    namespace.enter();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run)
}

/// Gives back each message of whoever comes.
async fn echo_messages(listen: SocketAddr, ready: mpsc::Sender<()>) {
    let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
    ready.send(()).unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() {
            socket.send(message).await.unwrap();
        }
    }
}

/// Says numbers and hears each back, ten times a second, until `is_over`; says how many.
async fn talk_in_messages(local: SocketAddr, is_over: impl Fn() -> bool) -> usize {
    let socket = tokio::net::TcpStream::connect(local).await.unwrap();
    let url = format!("ws://{local}/");
    let (mut socket, _) = tokio_tungstenite::client_async(url, socket).await.unwrap();
    let mut number = 0;
    while !is_over() {
        socket.send(Message::text(number.to_string())).await.unwrap();
        let heard = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(heard, Message::text(number.to_string()));
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    number
}

/// `rsync`, `sftp` that resumes, `curl` and a WebSocket are in the middle of something when the device's network is gone for a while.
#[test]
fn transfers_outlive_a_while_without_a_network() {
    if ["rsync", "sftp", "curl", "nginx"].iter().any(|program| find(program).is_none()) {
        return;
    }
    let web = SocketAddr::from(([127, 0, 0, 1], 8080));
    let messages = SocketAddr::from(([127, 0, 0, 1], 8081));
    let Some(site) = Site::new("", &[("web", web), ("messages", messages)]) else { return };
    let _nginx = nginx(site.field.path(), &site.road, web);
    let (upload, upload_digest) = site.field.file("upload", 512);
    let (file, digest) = site.field.file("file", 128);

    // Each at such a rate that it takes a while.
    let mut rsync = site.world.command("rsync");
    let ssh =
        site.sshd.options(&site.field, HUB).iter().map(|option| format!("'{option}'")).collect::<Vec<_>>();
    rsync.args(["--inplace", "--bwlimit=10m", "-e", &format!("ssh {}", ssh.join(" "))]);
    let mut rsync = rsync.arg(&file).arg(site.remote("by-rsync")).spawn().unwrap();
    let batch = site.path("batch");
    // Of the file a quarter is there, of a transfer that ended before.
    let begun = std::fs::read(&file).unwrap();
    std::fs::write(site.path("by-sftp"), &begun[..begun.len() / 4]).unwrap();
    std::fs::write(&batch, format!("reput {} {}\n", file.display(), site.path("by-sftp").display())).unwrap();
    let mut sftp = site.client("sftp");
    sftp.args(["-q", "-l", "80000", "-b"]).arg(&batch).arg(format!("{}@press-7", user()));
    let mut sftp = sftp.spawn().unwrap();
    let (_to_web, local_web) = site.forward("web");
    let (_to_messages, local_messages) = site.forward("messages");

    let over = std::sync::atomic::AtomicBool::new(false);
    let (ready, listens) = mpsc::channel();
    std::thread::scope(|scope| {
        let Site { road, world, .. } = &site;
        scope.spawn(move || inside(road, echo_messages(messages, ready)));
        listens.recv().unwrap();
        let over = &over;
        let is_over = move || over.load(std::sync::atomic::Ordering::Acquire);
        let talking = scope.spawn(move || inside(world, talk_in_messages(local_messages, is_over)));

        let has_more = |name: &str, than: usize| {
            std::fs::metadata(site.path(name)).is_ok_and(|file| file.len() > (than + (8 << 20)) as u64)
        };
        until("both are in the middle", || has_more("by-rsync", 0) && has_more("by-sftp", begun.len() / 4));
        let mut curl = site.world.command("curl");
        curl.args(["-sS", "--fail", "--limit-rate", "40m", "-H", "Expect:", "-T"]).arg(&upload);
        let mut curl = curl.arg(format!("http://{local_web}/uploaded")).spawn().unwrap();
        let folder = site.path("tmp");
        let arrived = || std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let arrived = || arrived().filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>();
        until("curl is as well", || arrived() > 8 << 20);
        site.road.ip("link set in down");
        // That is what this is about: nothing is waited for.
        std::thread::sleep(outage());
        for running in [&mut rsync, &mut sftp, &mut curl] {
            assert!(running.try_wait().unwrap().is_none(), "it is in the middle still");
        }
        site.road.ip("link set in up");
        for (what, running) in [("rsync", &mut rsync), ("sftp", &mut sftp), ("curl", &mut curl)] {
            assert!(running.wait().unwrap().success(), "{what}");
        }
        over.store(true, std::sync::atomic::Ordering::Release);
        let messages = talking.join().unwrap();
        assert!(messages > 10, "{messages} messages");
    });
    assert_eq!(digest_of(&site.path("by-rsync")), digest);
    assert_eq!(digest_of(&site.path("by-sftp")), digest);
    assert_eq!(digest_of(&site.path("www/uploaded")), upload_digest);
}
