//! The program as its user meets it: files, messages, exit statuses.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use field::{Field, Running, TOWLINE, failed, help_of, success, tells, until};

#[test]
fn help_tells_the_exit_statuses_of_each_command() {
    let trouble = [0, 64, 70, 74, 78];
    let refusals: Vec<_> = (20..=33).chain([69, 77]).collect();
    for (command, statuses) in [
        (&[][..], &[&refusals[..], &[71, 73, 129, 130, 143]].concat()[..]),
        (&["connect"], &[&refusals[..], &[129, 130, 143]].concat()),
        (&["devices"], &refusals),
        (&["forward"], &[71]),
        (&["hub"], &[71]),
        (&["device"], &[]),
        (&["demo"], &[]),
        (&["identity"], &[73]),
        (&["identity", "init"], &[73]),
        (&["identity", "device"], &[73]),
    ] {
        let help = help_of(command);
        for status in trouble.iter().chain(statuses) {
            assert!(tells(&help, *status), "{command:?} {status}: {help}");
        }
    }
}

#[test]
fn help_is_help_and_nonsense_is_usage() {
    for args in [
        &["--help"][..],
        &["hub", "--help"],
        &["connect", "--help"],
        &["--version"],
        &["identity", "init", "--help"],
    ] {
        let output = Command::new(TOWLINE).args(args).output().unwrap();
        assert!(!success(&output).is_empty());
    }
    let help = Command::new(TOWLINE).args(["hub", "--help"]).output().unwrap();
    let help = success(&help);
    for limit in ["--opens-per-second", "--tunnels-per-device", "--unauthenticated", "[default: 1000]"] {
        assert!(help.contains(limit), "{limit}");
    }
    for args in [
        &[][..],
        &["nonsense"],
        &["device"],
        &["device", "--service", "ssh"],
        &["device", "--service", "ssh=localhost"],
        &["connect", "press-7"],
        &["hub", "--allow", "everything"],
        &["connect", "a", "b", "--deadline", "61"],
        &["connect", "a", "b", "--wait", "11m"],
        &["connect", "a", "b", "--wait", "half an hour"],
        &["device", "--service", "ssh=h:22", "--grace", "0"],
        &["hub", "--drain", "2d"],
        &["device", "--service", "ssh=h:22", "--service", "ssh=h:2222"],
        &["identity", "init", "--hub-name", "hub.example.com:443"],
        &["identity", "init", "--hub-name", "a hub"],
        &["identity", "init", "--trust-domain", "Factory"],
        &["connect", "a/b", "ssh"],
        &["forward", "press-7", "a b"],
    ] {
        let output = Command::new(TOWLINE).args(args).env("TOWLINE_DIR", "/proc/nowhere").output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?}");
    }
}

/// An output on which there is no room.
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// An output that nobody reads any more.
fn abandoned() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn an_output_that_is_full_is_named_and_one_that_nobody_reads_ends_the_program_quietly() {
    let field = Field::new();
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let hub = hub.to_string();
    for command in [
        &["--help"][..],
        &["--version"],
        &["identity", "init", "--force"],
        &["identity", "service", "me", "--force"],
        &["hub", "--listen", "127.0.0.1:0"],
        &["devices", "--hub", &hub],
        &["devices", "--hub", &hub, "--json"],
        &["forward", "press-7", "ssh", "--hub", &hub],
        &["demo", "--once"],
    ] {
        // A folder of its own: with a new authority, the hub would not be trusted any more.
        let apart = Field::new();
        let folder = if command[0] == "identity" { &apart } else { &field };
        let towline = || {
            let mut towline = folder.towline(command[0]);
            towline.args(&command[1..]).arg("--quiet");
            towline
        };
        let (status, why) = failed(&towline().stdout(full()).output().unwrap());
        assert_eq!(status, 74, "{command:?}");
        assert!(why.starts_with("cannot write to the standard output: No space left"), "{command:?}: {why}");
        let output = towline().stdout(abandoned()).output().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{command:?}");
    }
}

/// A journal that is started again takes no more of the lines of those who run.
#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    for log in [Stdio::from(full()), Stdio::from(abandoned())] {
        let field = Field::new();
        let mut command = field.towline("hub");
        command.args(["-vv", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(log);
        let (_hub, hub) = Running::start(&mut command).listening();
        let _device = field.device(hub, &[("x", hub)]);
    }
}

#[test]
fn a_device_logs_each_failed_attempt_once() {
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = field.path().join("log");
    let mut device = field.towline("device");
    device.args(["--service", "x=127.0.0.1:1", "--hub", &server.local_addr().unwrap().to_string()]);
    device.args(["--transport", "tls"]);
    let _device = Running::start(device.stderr(std::fs::File::create(&log).unwrap()));
    for _ in 0..3 {
        drop(server.accept().unwrap());
    }
    // It has logged two failures, and begun, or done, with the third.
    let log = std::fs::read_to_string(&log).unwrap();
    let failures = log.lines().filter(|line| line.contains("during the TLS handshake")).count();
    assert!((2..=3).contains(&failures), "{log}");
}

/// The lines of a log that contain `what`, once there is one.
fn lines_with(log: &Path, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    until(what, || {
        let text = std::fs::read_to_string(log).unwrap();
        found = text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect();
        !found.is_empty()
    });
    found
}

/// ssh ends its ProxyCommand with SIGHUP.
#[test]
fn an_ssh_session_ends_in_good_order_in_the_hubs_log() {
    let field = Field::new();
    let Some(sshd) = field::Sshd::start(&field) else { return };
    let (_hub, hub, log) = field.logging_hub();
    let _device = field.device(hub, &[("ssh", sshd.address)]);
    let target = format!("{}@press-7", field::user());
    for n in 1..=5 {
        success(&sshd.client("ssh", &field, hub).args([&target, "true"]).output().unwrap());
        until("the tunnel is over", || lines_with(&log, "tunnel closed").len() == n);
    }
    for line in lines_with(&log, "tunnel closed") {
        assert!(line.contains("ended=[Finished, Finished]"), "{line}");
    }
    until("all are offline", || lines_with(&log, "offline").len() + 1 >= lines_with(&log, "online").len());
    for line in lines_with(&log, "offline") {
        assert!(line.contains("closed by the peer with code 0x0"), "{line}");
    }
}

#[test]
fn a_signal_ends_connect_soon_and_resets_a_tunnel_that_is_not_done() {
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_hub, hub, log) = field.logging_hub();
    let _device = field.device(hub, &[("x", server.local_addr().unwrap())]);
    // Where nohup runs the tests, SIGHUP is ignored by all that they start; the mask's lowest bit says so.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let hangup = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 0;
    let signals = [("HUP", 129), ("INT", 130), ("TERM", 143)];
    for (n, (signal, status)) in signals[usize::from(!hangup)..].iter().copied().enumerate() {
        let mut connect = field.towline("connect");
        connect.args(["press-7", "x", "--hub", &hub.to_string()]);
        let mut connect = connect.stdin(Stdio::piped()).spawn().unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        std::io::Write::write_all(connect.stdin.as_mut().unwrap(), b"half").unwrap();
        std::io::Read::read_exact(&mut accepted, &mut [0; 4]).unwrap();
        let start = tokio::time::Instant::now();
        field::signal(connect.id(), signal);
        until("connect has ended", || connect.try_wait().unwrap().is_some());
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(connect.wait().unwrap().code(), Some(status));
        let read = std::io::Read::read(&mut accepted, &mut [0]).map_err(|error| error.kind());
        assert_eq!(read, Err(std::io::ErrorKind::ConnectionReset), "half of something is not all of it");
        until("the hub knows", || lines_with(&log, "tunnel closed").len() == n + 1);
        for line in lines_with(&log, "tunnel closed") {
            assert!(line.contains("ended=[Finished, Finished]"), "the session says goodbye: {line}");
        }
        for line in lines_with(&log, "offline") {
            assert!(line.contains("closed by the peer with code 0x0"), "{line}");
        }
    }
}

/// Half of something must not look like all of it, whoever is stopped.
#[test]
fn who_is_stopped_resets_its_tunnels_at_both_ends() {
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_hub, hub, log) = field.logging_hub();
    for who in ["forward", "device"] {
        let mut device = field.device(hub, &[("x", server.local_addr().unwrap())]);
        let (mut forward, local) = field.forward(hub, "x");
        let mut ends: Vec<_> = (0..20)
            .flat_map(|_| {
                let mut client = TcpStream::connect(local).unwrap();
                std::io::Write::write_all(&mut client, b"half").unwrap();
                let (mut accepted, _) = server.accept().unwrap();
                std::io::Read::read_exact(&mut accepted, &mut [0; 4]).unwrap();
                [client, accepted]
            })
            .collect();
        field::signal(if who == "forward" { forward.pid() } else { device.pid() }, "TERM");
        for end in &mut ends {
            let read = std::io::Read::read(end, &mut [0]).map_err(|error| error.kind());
            assert_eq!(read, Err(std::io::ErrorKind::ConnectionReset), "{who}");
        }
        for running in [&mut forward, &mut device] {
            let _ = Command::new("kill").arg(running.pid().to_string()).stderr(Stdio::null()).status();
            assert_eq!(running.ended().code(), Some(0));
        }
    }
    for line in lines_with(&log, "offline") {
        assert!(line.contains("closed by the peer with code 0x0"), "{line}");
    }
}

#[test]
fn a_signal_that_nohup_ignores_stays_ignored() {
    let field = Field::new();
    let silent_hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connect = Command::new("sh");
    connect.args(["-c", "trap '' HUP; exec \"$0\" connect press-7 x --hub \"$1\"", TOWLINE]);
    connect.arg(silent_hub.local_addr().unwrap().to_string()).env("TOWLINE_DIR", field.path());
    let mut connect = Running::start(&mut connect);
    let _accepted = silent_hub.accept().unwrap();
    field::signal(connect.pid(), "HUP");
    field::signal(connect.pid(), "TERM");
    assert_eq!(connect.ended().code(), Some(143), "128 and SIGTERM's number");
}

/// What a tunnel brought and could not be written must not look like all of it.
#[test]
fn a_tunnel_whose_output_is_full_or_whose_input_cannot_be_read_is_no_success() {
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("x", server.local_addr().unwrap())]);
    std::thread::spawn(move || {
        for socket in server.incoming() {
            let _ = std::io::Write::write_all(&mut socket.unwrap(), b"much");
        }
    });
    let connect = || {
        let mut connect = field.towline("connect");
        connect.args(["press-7", "x", "--hub", &hub.to_string()]);
        connect
    };
    let (status, why) = failed(&connect().stdin(Stdio::null()).stdout(full()).output().unwrap());
    assert_eq!(status, 74);
    assert!(why.starts_with("cannot write to the standard output: No space left"), "{why}");
    let output = connect().stdin(Stdio::null()).stdout(abandoned()).output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
    // A folder cannot be read.
    let folder = std::fs::File::open(field.path()).unwrap();
    let output = connect().stdin(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(said.starts_with("towline: cannot read the standard input: Is a directory"), "{said}");
}

/// ssh waits for its ProxyCommand to say something or to end, and holds its input open all the while.
#[test]
fn a_refusal_ends_connect_while_its_input_is_open() {
    let field = Field::new();
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let mut connect = field.towline("connect");
    connect.args(["press-7", "ssh", "--hub", &hub.to_string()]).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut connect = connect.spawn().unwrap();
    until("connect has ended", || connect.try_wait().unwrap().is_some());
    assert_eq!(connect.wait().unwrap().code(), Some(21));
}

#[test]
fn a_reader_who_begins_when_the_tunnel_is_over_gets_all_of_it() {
    // More than a pipe takes, 64 KiB, and less than half a stream's first window more: nobody is promised the other half
    // before the first was read.
    const COUNT: usize = 90_000;
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("x", server.local_addr().unwrap())]);
    let serve = move || std::io::Write::write_all(&mut server.accept().unwrap().0, &[1; COUNT]).unwrap();
    let served = std::thread::spawn(serve);
    let mut connect = field.towline("connect");
    connect.args(["press-7", "x", "--strict", "--hub", &hub.to_string()]);
    let mut connect = connect.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = connect.stdin.take();
    served.join().unwrap();
    until("the tunnel is over", || {
        let list = field.towline("devices").args(["--json", "--hub", &hub.to_string()]).output().unwrap();
        success(&list).contains("\"tunnels\": 0")
    });
    let output = connect.wait_with_output().unwrap();
    success(&output);
    assert_eq!(output.stdout.len(), COUNT);
    drop(input);
}

#[test]
fn a_log_for_machines_is_json_to_its_last_line() {
    let field = Field::new();
    let mut devices = field.towline("devices");
    let output = devices.args(["--hub", "127.0.0.1:1", "--log-format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    let line: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(line["fields"]["message"].as_str().unwrap().starts_with("cannot reach the hub at"), "{line}");
}

#[test]
fn an_error_that_cannot_be_told_has_its_status_all_the_same() {
    for stderr in [Stdio::from(full()), Stdio::from(abandoned())] {
        let mut towline = Command::new(TOWLINE);
        towline.args(["identity", "init", "--dir", "/proc/nowhere"]).stderr(stderr);
        assert_eq!(towline.status().unwrap().code(), Some(73));
    }
}

#[test]
fn a_port_in_use_is_named() {
    let field = Field::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in [&["hub"][..], &["forward", "press-7", "ssh"]] {
        let mut towline = field.towline(command[0]);
        let output = towline.args(&command[1..]).args(["--listen", &address]).output().unwrap();
        let (status, why) = failed(&output);
        assert_eq!(status, 71);
        assert!(why.starts_with(&format!("cannot listen on {address}:")), "{why}");
        assert!(why.contains("another program listens there"), "{why}");
    }
}

#[test]
fn a_hub_without_rules_says_so() {
    let field = Field::new();
    for (rules, told) in [(&[][..], 1), (&["--allow", "ops:*:ssh"], 0)] {
        let log = field.path().join("log");
        let mut hub = field.towline("hub");
        hub.args(["--listen", "127.0.0.1:0", "--drain", "0"]).args(rules).stdout(Stdio::piped());
        let (mut hub, _) = Running::start(hub.stderr(std::fs::File::create(&log).unwrap())).listening();
        field::signal(hub.pid(), "TERM");
        assert_eq!(hub.ended().code(), Some(0));
        let lines = lines_with(&log, "INFO");
        let lines =
            lines.iter().filter(|line| line.contains("may open everything") && line.contains("--allow"));
        assert_eq!(lines.count(), told, "{rules:?}");
    }
}

#[test]
fn where_to_listen_must_be_an_address() {
    let field = Field::new();
    for command in [&["hub"][..], &["forward", "press-7", "ssh"]] {
        for (listen, remedy) in [
            (":443", "there is no host: write 0.0.0.0:443, or [::]:443 for IPv6 as well"),
            ("443", "there is no port: write HOST:PORT, such as 127.0.0.1:4433"),
            ("127.0.0.1", "there is no port: write HOST:PORT, such as 127.0.0.1:4433"),
            ("127.0.0.1:https", "the port is no number from 0 to 65535"),
        ] {
            let mut towline = field.towline(command[0]);
            let output = towline.args(&command[1..]).args(["--listen", listen]).output().unwrap();
            assert_eq!(output.status.code(), Some(64), "{command:?} {listen}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(remedy), "{said}");
        }
        let mut towline = field.towline(command[0]);
        let output = towline.args(&command[1..]).args(["--listen", "hub.invalid:443"]).output().unwrap();
        let (status, why) = failed(&output);
        assert_eq!(status, 71);
        assert!(why.ends_with("; check the host's name in --listen, or write an address"), "{why}");
    }
}

#[test]
fn every_outcome_of_connect_has_its_status_and_remedy() {
    let field = Field::new();
    let connect = |hub: SocketAddr, device: &str, service: &str| {
        let mut towline = field.towline("connect");
        failed(&towline.args([device, service, "--hub", &hub.to_string()]).output().unwrap())
    };
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let (status, why) = connect(nowhere, "press-7", "ssh");
    assert_eq!(status, 69);
    assert!(
        why.contains("cannot reach the hub at 127.0.0.1:1") && why.contains("start `towline hub`"),
        "{why}"
    );

    let (hub_process, hub) = field.hub("127.0.0.1:0");
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let device = field.device(hub, &[("ssh", closed)]);
    for (who, name, status, what) in [
        ("press-8", "ssh", 21, "device unknown: no device press-8"),
        ("press-7", "web", 25, "service unknown: the device offers no service web"),
        ("press-7", "ssh", 26, "target refused: ssh is 127.0.0.1:1 there"),
    ] {
        let (got, why) = connect(hub, who, name);
        assert_eq!(got, status, "{why}");
        assert!(why.starts_with(what) && why.contains("; "), "{why}");
    }
    drop(device);
    let (status, why) = connect(hub, "press-7", "ssh");
    assert_eq!(status, 22, "{why}");
    drop(hub_process);

    let mut command = field.towline("hub");
    command.args(["--quiet", "--listen", "127.0.0.1:0", "--allow", "ops:*:ssh"]).stdout(Stdio::piped());
    let (_hub, address) = Running::start(&mut command).listening();
    let (status, why) = connect(address, "press-7", "ssh");
    assert_eq!(status, 23);
    assert!(why.starts_with("forbidden: me may not open ssh of press-7;"), "{why}");
}

#[test]
fn a_hub_that_cannot_be_reached_is_told_with_the_remedy_that_fits() {
    let field = Field::new();
    let devices = |hub: &str| failed(&field.towline("devices").args(["--hub", hub]).output().unwrap());
    // By RFC 6761 there is no such name.
    let (status, why) = devices("hub.invalid:443");
    assert_eq!(status, 69);
    assert!(why.starts_with("cannot reach the hub at hub.invalid:443: ") && !why.contains("start"), "{why}");
    assert!(why.ends_with("; check the host's name in --hub, and this machine's DNS"), "{why}");
    let (status, why) = devices("127.0.0.1:1");
    assert_eq!(status, 69);
    assert!(why.ends_with("; start `towline hub` there, or name another with --hub"), "{why}");

    // Somebody answers and hangs up: no matter of trust.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || server.incoming().for_each(drop));
    let (status, why) = devices(&address.to_string());
    assert_eq!(status, 69, "{why}");
    assert!(why.ends_with("; check that a hub listens there, and try again"), "{why}");

    // A hub whose certificate is for other names.
    let (_hub, hub) = field.hub("127.0.0.2:0");
    let (status, why) = devices(&hub.to_string());
    assert_eq!(status, 77);
    assert!(why.contains("not valid for name") && why.contains("--hub-name"), "{why}");
}

#[test]
fn an_authority_that_does_not_vouch_is_named_at_both_ends() {
    let (field, stranger) = (Field::new(), Field::new());
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let connect = |field: &Field| {
        let mut towline = field.towline("connect");
        failed(&towline.args(["press-7", "ssh", "--hub", &hub.to_string()]).output().unwrap())
    };
    let (status, why) = connect(&stranger);
    assert_eq!(status, 77);
    assert!(why.contains("is not a hub that this end trusts"), "{why}");
    // The stranger learns to trust the hub, but the hub does not trust the stranger.
    std::fs::copy(field.path().join("ca.pem"), stranger.path().join("ca.pem")).unwrap();
    let (status, why) = connect(&stranger);
    assert_eq!(status, 77);
    assert!(
        why.contains("refuses this end: the certificate is of an authority that it does not trust"),
        "{why}"
    );
}

#[test]
fn a_server_that_is_no_hub_is_named() {
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let answer = std::thread::spawn(move || {
        let (mut socket, _) = server.accept().unwrap();
        std::io::Write::write_all(&mut socket, b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let _ = std::io::Read::read(&mut socket, &mut [0; 1000]);
    });
    let output = field.towline("devices").args(["--hub", &address.to_string()]).output().unwrap();
    let (status, why) = failed(&output);
    assert_eq!(status, 77);
    assert!(why.contains("is not a hub that this end trusts") && why.contains("check --hub"), "{why}");
    answer.join().unwrap();
}

/// Ten thousand connections that never finish TLS: bounded memory, and the devices stay served.
#[test]
fn ten_thousand_connections_that_never_finish_tls_disturb_nobody() {
    const VISITORS: usize = 10_000;
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    if limit < 12_000 {
        return field::skip(&format!("12,000 open files are needed, and {limit} allowed (ulimit -Hn)"));
    }
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (hub, address) = field.hub("127.0.0.1:0");
    let _device = field.device(address, &[("x", server.local_addr().unwrap())]);
    let (_forward, local) = field.forward(address, "x");
    let works = || {
        let mut client = TcpStream::connect(local).unwrap();
        std::io::Write::write_all(&mut client, b"ping").unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let mut four = [0; 4];
        std::io::Read::read_exact(&mut accepted, &mut four).unwrap();
        assert_eq!(&four, b"ping");
    };
    works();
    let (memory, descriptors) = (hub.resident(), hub.descriptors());
    let mut visitors = Vec::with_capacity(VISITORS);
    for n in 0..VISITORS {
        let mut visitor = TcpStream::connect(address).unwrap();
        // Half of them begin TLS and go no further.
        if n % 2 == 0 {
            let _ = std::io::Write::write_all(&mut visitor, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
        }
        visitors.push(visitor);
        if n % 1000 == 999 {
            works();
        }
    }
    let more = hub.descriptors() - descriptors;
    assert!(more <= 1_010, "{more} descriptors for a thousand visitors");
    let grown = hub.resident().saturating_sub(memory);
    assert!(grown < 64 << 20, "{} MiB more than before", grown >> 20);
    works();
    drop(visitors);
    until("the visitors are gone", || hub.descriptors() <= descriptors + 5);
    works();
}
