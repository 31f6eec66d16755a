//! A device in a factory: its network reaches the world through an HTTP proxy and in no other way. The networks are
//! namespaces of this machine, the proxy is a real tinyproxy, and hub, device and service are the real program. Where
//! that cannot be, a test is skipped with a word; `TOWLINE_REQUIRE_CLIENTS=1` makes it fail instead.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/factory.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod factory;
#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Barrier;

use factory::{DEVICE, Factory, PROXY, Tinyproxy, WORLD};
use field::{Field, Running, digest_of, find, find_nc, until};

/// What the hub is called.
const HUB: &str = "hub.factory.test:443";
const HUB_NAME: &str = "hub.factory.test";
const HUB_ADDRESS: SocketAddr = SocketAddr::new(WORLD, 443);

/// The desktop of a machine in the factory, which only that machine itself can reach.
const DESKTOP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3389);

const MEBIBYTES: usize = 100;
const HALF: usize = MEBIBYTES << 19;

/// A factory with a hub outside, whose name is known to the proxy and in the world, and not to the device.
struct Site {
    // In the order in which they end: what runs, before that in which it runs.
    _hub: Running,
    proxy: Tinyproxy,
    field: Field,
    factory: Factory,
}

impl Site {
    fn new(user: Option<&str>) -> Option<Self> {
        let factory = Factory::new()?;
        let field = Field::with_hub_names(&[HUB_NAME, &WORLD.to_string()]);
        factory.name(&factory.proxy, HUB_NAME, WORLD);
        factory.name(&factory.world, HUB_NAME, WORLD);
        let proxy = factory.tinyproxy(&field, user);
        let mut hub = field.towline("hub");
        hub.args(["--quiet", "--listen", &HUB_ADDRESS.to_string()]);
        let (hub, _) = Running::start(factory.world.inside(&hub).stdout(Stdio::piped())).listening();
        Some(Self { _hub: hub, proxy, field, factory })
    }

    /// A device that knows the hub as `hub` and whose environment names the proxy. It offers its desktop, and is online.
    fn device(&self, hub: &str) -> Running {
        let mut device = self.field.towline("device");
        device.args(["--quiet", "--hub", hub, "--service", &format!("rdp={DESKTOP}")]);
        device.env("HTTPS_PROXY", format!("http://{PROXY}"));
        let device = Running::start(&mut self.factory.lan.inside(&device));
        until("press-7 is online", || {
            let mut devices = self.field.towline("devices");
            let listed = self.factory.world.inside(devices.args(["--json", "--hub", HUB])).output().unwrap();
            String::from_utf8_lossy(&listed.stdout).contains("\"online\": true")
        });
        device
    }

    /// `towline why HUB` at the device, with this for its proxy and what is reached without one.
    fn why(&self, proxy: &str, no_proxy: &str) -> Output {
        let mut why = self.field.towline("why");
        why.args([HUB, "--as", "device"]).env("HTTPS_PROXY", proxy).env("NO_PROXY", no_proxy);
        self.factory.lan.inside(&why).output().unwrap()
    }
}

/// A server that sends one file to whoever comes, and keeps what it gets in another.
fn desktop(site: &Site, sends: &Path, gets: &Path) -> Running {
    let mut socat = site.factory.lan.command("socat");
    // Who has heard an end goes on with the other direction.
    socat.args(["-t", "60"]);
    socat.arg(format!("TCP-LISTEN:{},bind={}", DESKTOP.port(), DESKTOP.ip()));
    socat.arg(format!("OPEN:{},rdonly!!CREATE:{}", sends.display(), gets.display()));
    let desktop = Running::start(&mut socat);
    until("the desktop listens", || desktop.sockets("tcp").iter().any(|socket| socket.listens()));
    desktop
}

/// Nothing at the device waits for somebody to come, but the desktop, for this machine itself; and what goes over the
/// wire goes to the proxy.
fn nothing_is_open_towards(device: &Running) {
    let listening = |sockets: Vec<factory::SocketLine>| {
        sockets.into_iter().filter(|socket| socket.listens()).map(|socket| socket.local).collect::<Vec<_>>()
    };
    assert_eq!(listening(device.own_sockets("tcp")), [], "the agent listens on nothing");
    let others = listening(device.sockets("tcp"));
    assert!(others.iter().all(|local| *local == DESKTOP), "{others:?}");
    until("no socket of UDP is left of the ways that led nowhere", || device.sockets("udp").is_empty());
    let abroad = device.sockets("tcp").into_iter().filter(|socket| !socket.listens());
    let abroad: Vec<_> = abroad.filter(|socket| !socket.local.ip().is_loopback()).collect();
    assert!(!abroad.is_empty(), "the link, at least");
    for socket in abroad {
        assert!(socket.remote == PROXY && socket.local.ip() == DEVICE, "{socket:?}");
    }
}

/// The case of the original announcement: a device on a LAN that reaches the world through an HTTP proxy only, the hub on
/// 443, and a service that opens the device's port 3389.
#[test]
fn factory() {
    if find_nc().is_none() || find("socat").is_none() {
        return;
    }
    let Some(site) = Site::new(None) else { return };
    let Site { field, factory, .. } = &site;
    // The proxy's machine and the world reach the hub, the device does not, by whatever name.
    assert!(factory.world.connects(HUB_ADDRESS) && factory.proxy.connects(HUB_ADDRESS));
    assert!(!factory.lan.connects(HUB_ADDRESS) && factory.lan.connects(PROXY));

    let (there, digest_there) = field.file("there", MEBIBYTES);
    let (back, digest_back) = field.file("back", MEBIBYTES);
    assert_ne!(digest_there, digest_back);
    let (got_there, got_back) = (field.path().join("got-there"), field.path().join("got-back"));
    let mut desktop = desktop(&site, &back, &got_there);
    let device = site.device(HUB);
    nothing_is_open_towards(&device);

    let mut connect = field.towline("connect");
    let connect = connect.args(["press-7", "rdp", "--hub", HUB]);
    let mut connect =
        factory.world.inside(connect).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (connect.stdin.take().unwrap(), connect.stdout.take().unwrap());
    // Both directions stop half way, until both are there and we have looked.
    let half_way = Barrier::new(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::open(&there).unwrap();
            std::io::copy(&mut (&mut file).take(HALF as u64), &mut stdin).unwrap();
            half_way.wait();
            half_way.wait();
            std::io::copy(&mut file, &mut stdin).unwrap();
            stdin.flush().unwrap();
            drop(stdin);
        });
        scope.spawn(|| {
            let mut file = File::create(&got_back).unwrap();
            std::io::copy(&mut (&mut stdout).take(HALF as u64), &mut file).unwrap();
            half_way.wait();
            half_way.wait();
            std::io::copy(&mut stdout, &mut file).unwrap();
        });
        half_way.wait();
        nothing_is_open_towards(&device);
        half_way.wait();
    });
    assert!(connect.wait().unwrap().success());
    assert!(desktop.ended().success());
    assert_eq!(digest_of(&got_there), digest_there, "from the service to the device");
    assert_eq!(digest_of(&got_back), digest_back, "from the device to the service");

    nothing_is_open_towards(&device);
    assert_eq!(factory.inbound(), 0, "nobody opened anything towards the device");
    // If somebody had, it would have been seen.
    assert!(!factory.proxy.connects(SocketAddr::new(DEVICE, DESKTOP.port())));
    assert_ne!(factory.inbound(), 0);
}

/// Most firewalls say nothing of what they drop: then no direct way fails before the one through the proxy has its turn.
#[test]
fn a_firewall_that_drops_in_silence_keeps_nobody_from_the_proxy() {
    let Some(site) = Site::new(None) else { return };
    site.factory.swallow_what_goes_out();
    // By an address, which is known without asking anybody.
    let device = site.device(&HUB_ADDRESS.to_string());
    nothing_is_open_towards(&device);
    assert_eq!(site.factory.inbound(), 0);
}

/// What `why` prints: a line for each attempt, and the exit status.
fn printed(output: &Output) -> (Vec<String>, i32) {
    let lines = String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect();
    (lines, output.status.code().unwrap())
}

/// Each line says which way, how far it got, how long that took, and, if it fails, why and what to do.
fn assert_lines(lines: &[String], expected: &[(&str, &str, &str)]) {
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (way, how_far, why)) in lines.iter().zip(expected) {
        let rest = line.strip_prefix(way).map(str::trim_start).unwrap_or_else(|| panic!("{way}: {line}"));
        assert!(rest.starts_with(how_far) && rest.contains(" ms") && rest.contains(why), "{line}");
    }
}

const NO_SUCH_NAME: &str = "check the host's name in --hub, and this machine's DNS";

#[test]
fn why_tells_of_each_way_out_of_the_factory() {
    let Some(site) = Site::new(None) else { return };
    let output = site.why(&format!("http://{PROXY}"), "");
    let (lines, status) = printed(&output);
    // The device does not know the hub's name; the proxy does.
    assert_lines(
        &lines,
        &[
            ("tls", "fails: nowhere, after ", NO_SUCH_NAME),
            ("quic", "fails: nowhere, after ", NO_SUCH_NAME),
            ("websocket", "fails: nowhere, after ", NO_SUCH_NAME),
            ("tls through the proxy", "works: authenticated in ", ""),
            ("websocket through the proxy", "works: authenticated in ", ""),
        ],
    );
    assert_eq!((status, site.proxy.requests()), (0, 2));
}

#[test]
fn no_proxy_is_kept_to_though_nothing_else_leads_out() {
    let Some(site) = Site::new(None) else { return };
    let direct = [
        ("tls", "fails: nowhere, after ", NO_SUCH_NAME),
        ("quic", "fails: nowhere, after ", NO_SUCH_NAME),
        ("websocket", "fails: nowhere, after ", NO_SUCH_NAME),
    ];
    for no_proxy in [HUB_NAME, ".factory.test", "other.test,factory.test", "*"] {
        let (lines, status) = printed(&site.why(&format!("http://{PROXY}"), no_proxy));
        assert_lines(&lines, &direct);
        assert_eq!((status, site.proxy.requests()), (69, 0), "{no_proxy}");
    }
    let (lines, status) = printed(&site.why(&format!("http://{PROXY}"), "other.test,test.factory"));
    assert_eq!((lines.len(), status, site.proxy.requests()), (5, 0, 2), "{lines:#?}");
}

#[test]
fn a_proxy_that_asks_who_it_is_gets_user_and_password_or_its_words_are_passed_on() {
    let Some(site) = Site::new(Some("press swordfish")) else { return };
    let ways = ["tls through the proxy", "websocket through the proxy"];
    let remedy = format!("(407): give a user and password in its URL, http://USER:PASSWORD@{PROXY}");
    // 407, says the standard; this proxy says 401.
    let wrong = "does not take the user and password in its URL (401)";
    for (user, how_far, why, expected) in [
        ("", "fails: the proxy reached, after ", &remedy[..], 69),
        ("press:wrong@", "fails: the proxy reached, after ", wrong, 69),
        ("press:%73wordfish@", "works: authenticated in ", "", 0),
    ] {
        let (lines, status) = printed(&site.why(&format!("http://{user}{PROXY}"), ""));
        assert_lines(&lines[3..], &ways.map(|way| (way, how_far, why)));
        let names_the_place = |line: &String| line.ends_with("; its URL is in --proxy or HTTPS_PROXY");
        assert!(status == 0 || lines[3..].iter().all(names_the_place), "{lines:#?}");
        assert_eq!(status, expected, "{user}");
    }
}

/// A proxy that does not know the hub's name, or does not connect to its port, says so.
#[test]
fn what_the_proxy_says_is_passed_on_with_what_to_do() {
    let Some(site) = Site::new(None) else { return };
    for (hub, status) in [("nobody.factory.test:443", "500 "), ("hub.factory.test:444", "403 ")] {
        let mut why = site.field.towline("why");
        why.args([hub, "--as", "device", "--proxy", &format!("http://{PROXY}")]);
        let (lines, _) = printed(&site.factory.lan.inside(&why).output().unwrap());
        let word = format!("does not connect to {hub}: it answered {status}");
        let remedy = "; check --hub, and ask whoever runs the proxy to let it through";
        for (line, way) in lines[3..].iter().zip(["tls through the proxy", "websocket through the proxy"]) {
            assert_lines(std::slice::from_ref(line), &[(way, "fails: the proxy reached, after ", &word)]);
            assert!(line.ends_with(remedy), "{line}");
        }
    }
}

/// A proxy that is not there is told from a hub that is not.
#[test]
fn a_proxy_that_is_not_there_is_named() {
    let Some(site) = Site::new(None) else { return };
    let nobody = SocketAddr::new(PROXY.ip(), 9);
    let (lines, status) = printed(&site.why(&format!("http://{nobody}"), ""));
    let remedy = "check the proxy in --proxy or HTTPS_PROXY, or do without: --proxy none";
    let word = format!("the proxy {nobody} cannot be reached: Connection refused (os error 111); {remedy}");
    let fails = "fails: nowhere, after ";
    assert_lines(
        &lines[3..],
        &[("tls through the proxy", fails, &word), ("websocket through the proxy", fails, &word)],
    );
    assert_eq!((status, site.proxy.requests()), (69, 0));
}
