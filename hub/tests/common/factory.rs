//! A factory's network, and the world outside of it, as network namespaces of this machine:
//!
//! ```text
//!   lan (the device)  10.77.1.2 ──── 10.77.1.1  proxy  10.77.2.1 ──── 10.77.2.2  world (the hub, a service)
//! ```
//!
//! Nothing is routed: who is in `lan` reaches the machine with the proxy, and through the proxy whatever that connects
//! to. Names are known where [`Factory::name`] says so, and nowhere else.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::field::{Field, Running, find, skip, success, until};

/// The device's machine.
pub const DEVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
/// Where the proxy listens.
pub const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1)), 8888);
/// The hub's machine.
pub const WORLD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 2));

/// What a program may take for a proxy.
const PROXY_VARIABLES: [&str; 8] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// A network of its own, which is gone when this is dropped. What runs in it should have ended by then.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// # Errors
    ///
    /// Why this machine does not let us.
    pub fn new(role: &str) -> Result<Self, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("towline-{}-{number}-{role}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        if !added.status.success() {
            return Err(String::from_utf8_lossy(&added.stderr).trim().to_owned());
        }
        let this = Self { name };
        // What `ip netns exec` puts in the place of the files of these names in /etc.
        fs::create_dir_all(this.etc()).unwrap();
        fs::write(this.etc().join("hosts"), "127.0.0.1 localhost\n").unwrap();
        // Nobody listens there, and so nobody waits for an answer.
        fs::write(this.etc().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        this.ip("link set lo up");
        Ok(this)
    }

    /// What `ip` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    /// Runs `ip` on it.
    pub fn ip(&self, args: &str) {
        success(&Command::new("ip").args(["-n", &self.name]).args(args.split(' ')).output().unwrap());
    }

    /// A program that will run in here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// The same command, in here, and without the proxies that this machine may have.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = self.command(command.get_program());
        inside.args(command.get_args());
        for name in PROXY_VARIABLES {
            inside.env_remove(name);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Moves this thread in here: the sockets that it opens from now on are of this network.
    #[cfg(target_os = "linux")]
    pub fn enter(&self) {
        let namespace = fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
    }

    /// Replaces its firewall by these chains of nftables.
    pub fn firewall(&self, chains: &str) {
        let rules =
            format!("add table inet road\ndelete table inet road\ntable inet road {{\n{chains}\n}}\n");
        success(&self.command("nft").arg(rules).output().unwrap());
    }

    /// Whether who is in here can connect to `address`.
    pub fn connects(&self, address: SocketAddr) -> bool {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        self.command("nc").args(["-z", "-w", "5", &host, &port]).status().unwrap().success()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = fs::remove_dir_all(self.etc());
    }
}

/// The networks, and a real tinyproxy between them.
pub struct Factory {
    pub lan: Namespace,
    pub proxy: Namespace,
    pub world: Namespace,
}

impl Factory {
    /// `None`, after saying that the test is skipped, where a program is missing or this is not root.
    pub fn new() -> Option<Self> {
        for program in ["ip", "nft", "tinyproxy"] {
            find(program)?;
        }
        let [lan, proxy, world] = ["lan", "proxy", "world"].map(Namespace::new);
        let (lan, proxy, world) = match (lan, proxy, world) {
            (Ok(lan), Ok(proxy), Ok(world)) => (lan, proxy, world),
            (Err(why), _, _) | (_, Err(why), _) | (_, _, Err(why)) => {
                skip(&format!("there can be no network namespaces: {why}"));
                return None;
            }
        };
        for (end, name, address) in [(&lan, "lan", "10.77.1"), (&world, "world", "10.77.2")] {
            end.ip(&format!("link add out type veth peer name {name} netns {}", proxy.name));
            end.ip(&format!("addr add {address}.2/24 dev out"));
            end.ip("link set out up");
            proxy.ip(&format!("addr add {address}.1/24 dev {name}"));
            proxy.ip(&format!("link set {name} up"));
        }
        let this = Self { lan, proxy, world };
        this.guard_the_lan();
        Some(this)
    }

    /// A firewall that lets nobody open anything towards the device, and counts who tries.
    fn guard_the_lan(&self) {
        let rules = [
            "table inet guard {",
            "counter inbound { }",
            "chain input {",
            "type filter hook input priority 0",
            "iifname \"lo\" accept",
            "tcp flags & (syn|ack) == syn counter name inbound drop",
            "meta l4proto udp counter name inbound drop",
            "}",
            "}",
        ];
        success(&self.lan.command("nft").arg(rules.join("\n")).output().unwrap());
    }

    /// Gives the device's machine a way to the hub's, on which everything is dropped in silence.
    pub fn swallow_what_goes_out(&self) {
        self.lan.ip(&format!("route add default via {} dev out", PROXY.ip()));
        // A machine with two networks is no router unless it was told to be; this one may have inherited that.
        let no_router = "echo 0 > /proc/sys/net/ipv4/ip_forward";
        success(&self.proxy.command("sh").args(["-c", no_router]).output().unwrap());
    }

    /// How many packets came that would have opened something at the device.
    pub fn inbound(&self) -> u64 {
        let listed = self.lan.command("nft").args(["list", "counter", "inet", "guard", "inbound"]).output();
        let listed = success(&listed.unwrap());
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        words.next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{listed}"))
    }

    /// Makes a name known in a namespace.
    pub fn name(&self, namespace: &Namespace, name: &str, address: IpAddr) {
        let path = namespace.etc().join("hosts");
        let hosts = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{hosts}{address} {name}\n")).unwrap();
    }

    /// A tinyproxy on [`PROXY`] that connects to port 443 of whatever host, for `user` only if there is one, such as
    /// `press swordfish`. Names are resolved as they are known in its namespace now.
    pub fn tinyproxy(&self, field: &Field, user: Option<&str>) -> Tinyproxy {
        let log = field.path().join("tinyproxy.log");
        let config = field.path().join("tinyproxy.conf");
        let user = user.map_or(String::new(), |user| format!("BasicAuth {user}\n"));
        let text = format!(
            "Port {}\nListen {}\nTimeout 600\nMaxClients 100\nLogFile \"{}\"\nLogLevel Connect\nConnectPort 443\n{user}",
            PROXY.port(),
            PROXY.ip(),
            log.display(),
        );
        fs::write(&config, text).unwrap();
        let running = Running::start(self.proxy.command("tinyproxy").arg("-d").arg("-c").arg(&config));
        until("tinyproxy listens", || running.sockets("tcp").iter().any(|socket| socket.listens()));
        Tinyproxy { running, log }
    }
}

/// A real proxy.
pub struct Tinyproxy {
    pub running: Running,
    log: PathBuf,
}

impl Tinyproxy {
    /// How many times it was asked for a connection.
    pub fn requests(&self) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("Request (file descriptor")).count()
    }
}

/// A line of /proc/net/tcp, or of its likes.
#[derive(Clone, Debug)]
pub struct SocketLine {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    state: u8,
    inode: u64,
}

impl SocketLine {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace().skip(1);
        let mut next = || words.next().unwrap_or_else(|| panic!("{line}"));
        let (local, remote) = (parse_address(next()), parse_address(next()));
        let state = u8::from_str_radix(next(), 16).unwrap();
        // After the queues, the timer, the retransmits, the user and the timeout.
        let inode = words.nth(5).and_then(|inode| inode.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        Self { local, remote, state, inode }
    }

    /// TCP_LISTEN. For a socket of UDP it means nothing.
    pub fn listens(&self) -> bool {
        self.state == 0x0a
    }
}

/// Reads `0100007F:1F90`, or the same of IPv6: words of 32 bits, in this machine's order.
fn parse_address(text: &str) -> SocketAddr {
    let (host, port) = text.split_once(':').unwrap();
    let words = host.as_bytes().chunks(8).map(|word| std::str::from_utf8(word).unwrap());
    let bytes: Vec<u8> =
        words.flat_map(|word| u32::from_str_radix(word, 16).unwrap().to_ne_bytes()).collect();
    let host = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).unwrap()),
    };
    SocketAddr::new(host.to_canonical(), u16::from_str_radix(port, 16).unwrap())
}

impl Running {
    /// All sockets of the namespace in which it runs, of one kind: `tcp` or `udp`, of IPv4 and IPv6.
    pub fn sockets(&self, kind: &str) -> Vec<SocketLine> {
        let table = |name: String| fs::read_to_string(format!("/proc/{}/net/{name}", self.pid()));
        // Where there is no IPv6, there is no table of its sockets.
        let tables = [table(kind.to_owned()).unwrap(), table(format!("{kind}6")).unwrap_or_default()];
        tables.iter().flat_map(|table| table.lines().skip(1)).map(SocketLine::parse).collect()
    }

    /// Those that are its own.
    pub fn own_sockets(&self, kind: &str) -> Vec<SocketLine> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
        let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let inodes: BTreeSet<u64> = open
            .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
            .collect();
        self.sockets(kind).into_iter().filter(|socket| inodes.contains(&socket.inode)).collect()
    }
}
