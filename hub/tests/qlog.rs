//! `--qlog`: each session has an event log of its own, which says nothing of what was said.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use field::{Field, Running, TOWLINE};
use towline_transports::qlog::{Event, Head, parse};

const MARKER: &[u8] = b"attack at dawn";

/// A TCP service that says everything back, to one caller.
#[allow(clippy::disallowed_methods, reason = "this is a real service")]
fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        caller.read_to_end(&mut said).unwrap();
        caller.write_all(&said).unwrap();
    });
    address
}

/// The head and the events of each log in a folder, by the name of its file.
fn logs(folder: &Path) -> Vec<(String, Head, Vec<Event>)> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!text.contains(std::str::from_utf8(MARKER).unwrap()));
        let mut lines = text.lines().map(|line| line.strip_prefix('\u{1e}').unwrap());
        let head = serde_json::from_str(lines.next().unwrap()).unwrap();
        let events = lines.map(|line| parse(line).unwrap().1).collect();
        logs.push((entry.file_name().into_string().unwrap(), head, events));
    }
    logs
}

#[test]
fn each_session_has_a_log_that_only_its_owner_may_read_without_the_payload() {
    let field = Field::new();
    let folder = |name: &str| field.path().join(name);
    let mut hub = field.towline("hub");
    hub.args(["--quiet", "--listen", "127.0.0.1:0", "--qlog"]).arg(folder("hub-logs")).stdout(Stdio::piped());
    let (_hub, address) = Running::start(&mut hub).listening();
    // As the environment says, at the other two ends.
    let mut device = field.towline("device");
    device.args(["--quiet", "--hub", &address.to_string(), "--service", &format!("echo={}", echo())]);
    let device = Running::start(device.env("TOWLINE_QLOG", folder("device-logs")));
    field.wait_until_online(address);

    let mut connect = field.towline("connect");
    connect.args(["-vv", "press-7", "echo", "--hub", &address.to_string(), "--qlog"]).arg(folder("logs"));
    let said = folder("said");
    connect.stderr(std::fs::File::create(&said).unwrap());
    let mut connect = connect.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    connect.stdin.take().unwrap().write_all(&MARKER.repeat(1_000)).unwrap();
    let mut heard = Vec::new();
    connect.stdout.take().unwrap().read_to_end(&mut heard).unwrap();
    assert_eq!(heard, MARKER.repeat(1_000));
    assert!(connect.wait().unwrap().success());
    drop(device);
    let said = std::fs::read_to_string(said).unwrap();
    assert!(
        said.contains("link over") && !said.contains("towline:transmit"),
        "for people it is too much: {said}"
    );

    for (name, side) in [("logs", "client"), ("device-logs", "client"), ("hub-logs", "server")] {
        let logs = logs(&folder(name));
        assert!(!logs.is_empty(), "{name}");
        let of_bytes = |event: &Event| matches!(event, Event::PacketSent(_) | Event::PacketReceived(_));
        for (file, head, events) in &logs {
            assert!(file.ends_with(".sqlog"), "{file}");
            assert!(head.trace.common_fields.reference_time > 1_600_000_000_000, "{head:?}");
            assert!(events.iter().any(of_bytes), "{file}");
        }
        assert!(logs.iter().any(|(_, head, _)| head.trace.vantage_point.kind == side), "{name}");
    }
}

#[test]
fn a_log_that_cannot_be_written_any_more_is_told_and_the_session_goes_on() {
    let field = Field::new();
    let (logs, said) = (field.path().join("logs"), field.path().join("said"));
    let mut hub = field.towline("hub");
    hub.args(["--listen", "127.0.0.1:0", "--qlog"]).arg(&logs).stdout(Stdio::piped());
    let (_hub, address) = Running::start(hub.stderr(std::fs::File::create(&said).unwrap())).listening();
    std::fs::remove_dir_all(&logs).unwrap();
    let _device = field.device(address, &[("echo", echo())]);
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("a session goes on without its event log"), "{said}");
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named_before_anything_is_done() {
    let field = Field::new();
    for command in [&["hub"][..], &["device", "--service", "ssh=127.0.0.1:1"], &["connect", "press-7", "ssh"]]
    {
        let mut towline = field.towline(command[0]);
        let output = towline.args(&command[1..]).args(["--qlog", "/proc/nowhere"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(73), "{said}");
        assert!(said.starts_with("towline: --qlog: cannot write to /proc/nowhere: "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let output = Command::new(TOWLINE).args(["hub", "--help"]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("TOWLINE_QLOG"));
}
