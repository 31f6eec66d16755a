//! Real programs that a test talks to. One that is missing skips its test with a word; `TOWLINE_REQUIRE_CLIENTS=1`
//! makes it fail instead.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where a program is, or `None` after saying that the test is skipped for want of it.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        let must = std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_some();
        assert!(!must, "no test may be skipped, but {program} is not installed");
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program that is ended when this is dropped.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts `command`, and waits until it listens on `port` of loopback. What it has to say is in `log`.
    pub fn start(command: &mut Command, port: u16, log: &Path) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut this = Self { child: quiet.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")) };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..1500 {
            if TcpStream::connect(address).is_ok() {
                return this;
            }
            if let Some(status) = this.child.try_wait().unwrap() {
                panic!("{command:?}: {status}: {}", std::fs::read_to_string(log).unwrap_or_default());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        panic!("{command:?} does not listen on {address} within 30 s");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
