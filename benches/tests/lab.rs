//! Lines between two networks of this machine: what passes, what does not, and what the program says.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use towline_bench::lab::Lab;
use towline_sim::profile::{self, Profile};
use towline_sim::scenario::Span;

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A line of 10 ms each way, or why there is none here. Where real programs are required, so is this.
fn line(change: impl FnOnce(&mut Profile)) -> Option<Lab> {
    let mut profile = profile::named("office").unwrap();
    (profile.up.delay, profile.down.delay) = (Span::millis(10), Span::millis(10));
    change(&mut profile);
    match Lab::start(&profile, 7) {
        Ok(lab) => Some(lab),
        Err(error) if std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_none() => {
            eprintln!("not tested: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

/// Connects and gets four bytes back. Returns how long that took.
fn echo(lab: &Lab) -> Duration {
    let listener = lab.ends().far.run(|| Ok(TcpListener::bind((Lab::FAR, 0))?)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut word = [0; 4];
            socket.read_exact(&mut word).unwrap();
            socket.write_all(&word).unwrap();
        });
        let talk = || {
            let start = Instant::now();
            let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.write_all(b"fine")?;
            let mut word = [0; 4];
            socket.read_exact(&mut word)?;
            assert_eq!(&word, b"fine");
            Ok(start.elapsed())
        };
        lab.ends().near.run(talk).unwrap()
    })
}

#[test]
fn a_line_takes_its_time_and_counts_what_passes() {
    let Some(lab) = line(|_| ()) else { return };
    assert!(echo(&lab) >= Duration::from_millis(40), "two round trips");
    let report = lab.stop().unwrap();
    assert!(report.up.carried >= 3 && report.down.carried >= 2, "{report:?}");
    assert_eq!((report.up.lost, report.up.overflowed), (0, 0));
}

#[test]
fn an_office_lets_no_datagram_through() {
    for blocks_udp in [true, false] {
        let Some(lab) = line(|profile| profile.blocks_udp = blocks_udp) else { return };
        echo(&lab);
        let far = lab.ends().far.run(|| Ok(UdpSocket::bind((Lab::FAR, 0))?)).unwrap();
        let address = far.local_addr().unwrap();
        let send = || Ok(UdpSocket::bind((Lab::NEAR, 0))?.send_to(b"fine", address)?);
        assert_eq!(lab.ends().near.run(send).unwrap(), 4);
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        if !blocks_udp {
            assert_eq!(far.recv(&mut [0; 10]).unwrap(), 4);
        }
        // What was sent after the datagram has come, so it would have as well.
        echo(&lab);
        far.set_nonblocking(true).unwrap();
        assert!(far.recv(&mut [0; 10]).is_err());
        assert_eq!(lab.stop().unwrap().up.refused, u64::from(blocks_udp));
    }
}

#[test]
fn a_line_that_is_too_fast_is_refused() {
    let mut profile = profile::named("lan").unwrap();
    profile.up.rate = Some(towline_sim::scenario::Rate(1_000_000_000));
    let error = Lab::start(&profile, 7).unwrap_err();
    assert!(error.to_string().contains("200 Mbit/s at most"), "{error}");
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_towline-bench")).args(arguments).output().unwrap()
}

#[test]
fn what_there_is_not_is_named() {
    for (arguments, words) in [
        (&["over", "--profile", "telegraph"][..], "there is no profile \"telegraph\": there are lan, dsl"),
        (&["over", "--transport", "pigeon"], "there is no transport \"pigeon\": there are tls, quic, wss"),
    ] {
        let output = bench(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{error}");
    }
}
