//! Connections that outlive what carries them: the real program, in processes that are killed, stopped and replaced.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;
#[path = "common/wire.rs"]
#[allow(unreachable_pub, reason = "as above")]
mod wire;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use field::{Field, Running, Sshd, digest_of, find, free_port, signal, until, user};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use towline_transports::{Network, TcpNetwork};
use wire::Wire;

/// Longer than anything here takes; a hang is a failure, and not a wait for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many bytes each connection carries each way, in two parts.
const PART: usize = 32 << 10;

/// Gives back what it gets, on each connection.
async fn echo() -> SocketAddr {
    // Not tokio's own listener: a thousand come before the first is accepted.
    let mut listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(socket);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    address
}

/// What connection `number` says in both of its parts: no two say the same.
fn words(number: usize) -> Vec<u8> {
    (0..2 * PART).map(|at| ((at * 31 + number * 7 + at / 251) % 256).try_into().unwrap()).collect()
}

/// A connection in the middle of a transfer: half of what it says was said, and half of that has come back.
struct HalfWay {
    socket: TcpStream,
    words: Vec<u8>,
    heard: Vec<u8>,
}

impl HalfWay {
    async fn begin(local: SocketAddr, number: usize) -> Self {
        let mut socket = TcpStream::connect(local).await.unwrap();
        let words = words(number);
        socket.write_all(&words[..PART]).await.unwrap();
        let mut heard = vec![0; PART / 2];
        socket.read_exact(&mut heard).await.unwrap();
        Self { socket, words, heard }
    }

    /// Says and hears the rest.
    async fn end(self) {
        let Self { mut socket, words, mut heard } = self;
        let (mut reader, mut writer) = socket.split();
        let say = async {
            writer.write_all(&words[PART..]).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let hear = reader.read_to_end(&mut heard);
        let ((), heard_to_the_end) = tokio::join!(say, hear);
        heard_to_the_end.unwrap();
        assert!(heard == words, "what comes back is not what was said");
    }
}

/// `count` connections to local ports, all of them half way.
async fn half_way(locals: &[SocketAddr], count: usize) -> Vec<HalfWay> {
    let mut beginning = JoinSet::new();
    for number in 0..count {
        beginning.spawn(HalfWay::begin(locals[number % locals.len()], number));
    }
    timeout(PATIENCE, beginning.join_all()).await.expect("all get half way")
}

async fn all_end(connections: Vec<HalfWay>) {
    let ending: JoinSet<()> = connections.into_iter().map(HalfWay::end).collect();
    timeout(PATIENCE, ending.join_all()).await.expect("all go on to their end");
}

/// A connection that says a piece after another and hears each back, until it is told to end.
struct Talk {
    heard: Arc<AtomicU64>,
    is_enough: watch::Sender<bool>,
    talking: tokio::task::JoinHandle<()>,
}

impl Talk {
    fn begin(local: SocketAddr, number: usize) -> Self {
        let (heard, (is_enough, enough)) = (Arc::<AtomicU64>::default(), watch::channel(false));
        let talking = tokio::spawn({
            let heard = heard.clone();
            async move {
                let mut socket = TcpStream::connect(local).await.unwrap();
                for round in 0.. {
                    let said: Vec<u8> = words(number + round).into_iter().take(4 << 10).collect();
                    socket.write_all(&said).await.unwrap();
                    let mut piece = vec![0; said.len()];
                    socket.read_exact(&mut piece).await.unwrap();
                    assert!(piece == said, "what comes back is not what was said");
                    heard.fetch_add(1, Ordering::Relaxed);
                    if *enough.borrow() {
                        break;
                    }
                }
                socket.shutdown().await.unwrap();
                assert_eq!(socket.read_to_end(&mut Vec::new()).await.unwrap(), 0);
            }
        });
        Self { heard, is_enough, talking }
    }

    async fn end(self) {
        self.is_enough.send_replace(true);
        self.talking.await.unwrap();
    }
}

/// Waits until each of them has heard some more.
async fn all_go_on(talks: &[Talk]) {
    let now = || talks.iter().map(|talk| talk.heard.load(Ordering::Relaxed));
    let before: Vec<_> = now().collect();
    let have_gone_on = async {
        while now().zip(&before).any(|(now, before)| now < before + 2) {
            assert!(talks.iter().all(|talk| !talk.talking.is_finished()), "one has ended early: see above");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, have_gone_on).await.expect("all go on");
}

/// `press-7`, which offers `x` and is online at each of these hubs.
fn device_of(field: &Field, hubs: &[SocketAddr], target: SocketAddr) -> Running {
    let mut command = field.towline("device");
    command.args(["--quiet", "--service", &format!("x={target}")]);
    let device =
        Running::start(command.args(hubs.iter().flat_map(|hub| ["--hub".to_owned(), hub.to_string()])));
    for &hub in hubs {
        field.wait_until_online(hub);
    }
    device
}

/// A local port that leads to `x`, by the first of these hubs that does, and where it logs.
fn forward_of(field: &Field, hubs: &[SocketAddr], more: &[&str], log: &Path) -> (Running, SocketAddr) {
    let mut command = field.towline("forward");
    command.args(["press-7", "x"]).args(more).stdout(Stdio::piped()).stderr(File::create(log).unwrap());
    command.args(hubs.iter().flat_map(|hub| ["--hub".to_owned(), hub.to_string()]));
    let mut forward = Running::start(&mut command);
    let line = forward.line();
    let address = line.split(' ').next().and_then(|address| address.parse().ok());
    (forward, address.unwrap_or_else(|| panic!("the forward said {line:?}")))
}

/// What a log says so far.
fn log_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_outlive_a_hub_that_is_killed() {
    const COUNT: usize = 1000;
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    if limit < 6_000 {
        return field::skip(&format!("6,000 open files are needed, and {limit} allowed (ulimit -Hn)"));
    }
    let field = Field::new();
    let (hub, address) = field.hub("127.0.0.1:0");
    let _device = device_of(&field, &[address], echo().await);
    let (_forward, local) = field.forward(address, "x");
    let ending = tokio::spawn(all_end(half_way(&[local], COUNT).await));
    hub.kill();
    let _hub = field.hub(&address.to_string());
    ending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hub_carried_goes_on_through_another_when_it_is_killed() {
    let field = Field::new();
    let hubs = [field.hub("127.0.0.1:0"), field.hub("127.0.0.1:0")];
    let addresses = [hubs[0].1, hubs[1].1];
    let _device = device_of(&field, &addresses, echo().await);
    let (_forward, local) = forward_of(&field, &addresses, &[], &field.path().join("forward.log"));
    let connections = half_way(&[local], 20).await;
    let [(first, _), _second] = hubs;
    // For good: nobody takes its place.
    first.kill();
    all_end(connections).await;
}

/// A hub that is stopped sends its sessions to the other one, and has nothing to wait for any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_over_two_hubs_outlive_the_drain_of_one() {
    let field = Field::new();
    // It would wait for its tunnels for longer than this test.
    let hubs = [(); 2].map(|()| {
        let mut hub = field.towline("hub");
        hub.args(["--quiet", "--listen", "127.0.0.1:0", "--drain", "300"]).stdout(Stdio::piped());
        Running::start(&mut hub).listening()
    });
    let addresses = [hubs[0].1, hubs[1].1];
    let _device = device_of(&field, &addresses, echo().await);
    let others = [addresses[1], addresses[0]];
    let forwards: Vec<_> = [addresses, others, addresses, others]
        .iter()
        .enumerate()
        .map(|(number, hubs)| forward_of(&field, hubs, &[], &field.path().join(format!("{number}.log"))))
        .collect();
    let locals: Vec<_> = forwards.iter().map(|(_, local)| *local).collect();
    let talks: Vec<_> = (0..200).map(|number| Talk::begin(locals[number % locals.len()], number)).collect();
    // In the middle of it when the signal comes, and after the hub is gone: they have moved.
    all_go_on(&talks).await;
    let [(mut first, _), (_second, _)] = hubs;
    signal(first.pid(), "TERM");
    let first = tokio::task::spawn_blocking(move || first.ended());
    assert_eq!(first.await.unwrap().code(), Some(0));
    all_go_on(&talks).await;
    let ending: JoinSet<()> = talks.into_iter().map(Talk::end).collect();
    timeout(PATIENCE, ending.join_all()).await.expect("all go on to their end");
}

/// Who writes while there is no way waits, with the socket open, and goes on when there is one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_while_the_hub_is_gone_waits_until_it_is_back() {
    /// More than all buffers on the way hold, the kernel's included.
    const ALL: usize = 64 << 20;
    let field = Field::new();
    let (hub, address) = field.hub("127.0.0.1:0");
    let _device = device_of(&field, &[address], echo().await);
    let (_forward, local) = field.forward(address, "x");
    let mut socket = TcpStream::connect(local).await.unwrap();
    socket.write_all(b"words").await.unwrap();
    socket.read_exact(&mut [0; 5]).await.unwrap();
    hub.kill();
    let (mut reader, mut writer) = socket.into_split();
    let written = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn({
        let written = written.clone();
        async move {
            for number in 0..ALL / (2 * PART) {
                writer.write_all(&words(number)).await.unwrap();
                written.fetch_add(2 * PART as u64, Ordering::Relaxed);
            }
        }
    });
    let mut before = u64::MAX;
    until("it waits", || {
        let so_far = written.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, so_far) == so_far && so_far > 0
    });
    assert!(
        (1..ALL as u64 / 2).contains(&before),
        "{before} bytes were taken by a session that has no way to its peer"
    );
    assert!(!writing.is_finished());
    let _hub = field.hub(&address.to_string());
    let mut heard = vec![0; 2 * PART];
    for number in 0..ALL / (2 * PART) {
        timeout(PATIENCE, reader.read_exact(&mut heard)).await.expect("it goes on").unwrap();
        assert!(heard == words(number), "what comes back is not what was said");
    }
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_grace_period_a_connection_is_reset_and_it_is_said_what_was_delivered() {
    let field = Field::new();
    let (hub, address) = field.hub("127.0.0.1:0");
    let _device = device_of(&field, &[address], echo().await);
    let log = field.path().join("forward.log");
    let (_forward, local) = forward_of(&field, &[address], &["--grace", "1"], &log);
    let mut socket = TcpStream::connect(local).await.unwrap();
    socket.write_all(b"words").await.unwrap();
    socket.read_exact(&mut [0; 5]).await.unwrap();
    hub.kill();
    let error = timeout(PATIENCE, socket.read_exact(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    until("the forward says so", || log_of(&log).contains("bytes at least had been delivered"));
    assert!(
        log_of(&log).contains("the session with press-7 is over: there was no way to the peer"),
        "{}",
        log_of(&log)
    );
}

/// Whether those who sleep do so for as long as laptops do: 45 s, and ten minutes. `TOWLINE_LONG=1` asks for that; without it,
/// they sleep for as long as it takes until they are missed.
fn sleep_is_long() -> bool {
    std::env::var_os("TOWLINE_LONG").is_some()
}

/// A laptop that sleeps: its process does not run for a while, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_sleeps_goes_on_where_it_was() {
    let field = Field::new();
    let (_hub, address, hub_log) = field.logging_hub();
    let _device = device_of(&field, &[address], echo().await);
    let (forward, local) = field.forward(address, "x");
    let connections = half_way(&[local], 5).await;
    signal(forward.pid(), "STOP");
    if sleep_is_long() {
        tokio::time::sleep(Duration::from_secs(45)).await;
    }
    until("the hub misses it", || log_of(&hub_log).contains("tunnel closed"));
    signal(forward.pid(), "CONT");
    all_end(connections).await;
}

/// It sleeps for too long: the device has given the session up, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_sleeps_for_too_long_hears_so_at_once() {
    let field = Field::new();
    let (_hub, address) = field.hub("127.0.0.1:0");
    let log = field.path().join("device.log");
    let mut device = field.towline("device");
    device.args(["--hub", &address.to_string()]);
    if !sleep_is_long() {
        device.args(["--grace", "1"]);
    }
    device.args(["--service", &format!("x={}", echo().await)]).stderr(File::create(&log).unwrap());
    let _device = Running::start(&mut device);
    field.wait_until_online(address);
    let forward_log = field.path().join("forward.log");
    let (forward, local) = forward_of(&field, &[address], &[], &forward_log);
    let mut socket = TcpStream::connect(local).await.unwrap();
    socket.write_all(b"words").await.unwrap();
    socket.read_exact(&mut [0; 5]).await.unwrap();
    signal(forward.pid(), "STOP");
    if sleep_is_long() {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    // It keeps sessions for its grace period and two idle timeouts more, so as not to be the first to forget.
    timeout(PATIENCE, async {
        while !log_of(&log).contains("session over") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the device gives the session up");
    signal(forward.pid(), "CONT");
    let error = timeout(PATIENCE, socket.read_exact(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // After ten minutes the device remembers nothing that it could say.
    let why =
        if sleep_is_long() { "does not know the session" } else { "5 bytes at least had been delivered" };
    until("the forward says so", || log_of(&forward_log).contains(why));
    // The next connection begins another session.
    let mut socket = TcpStream::connect(local).await.unwrap();
    socket.write_all(b"words").await.unwrap();
    timeout(PATIENCE, socket.read_exact(&mut [0; 5])).await.unwrap().unwrap();
}

/// One scp, and a hub that is killed whenever some more of the file is there.
#[test]
fn scp_of_a_gibibyte_outlives_twenty_hubs() {
    const MEBIBYTES: usize = 1024;
    const KILLS: u64 = 20;
    let field = Field::new();
    let Some(sshd) = Sshd::start(&field) else { return };
    if find("scp").is_none() {
        return;
    }
    let listen = format!("127.0.0.1:{}", free_port());
    let (mut hub, address) = field.hub(&listen);
    let _device = field.device(address, &[("ssh", sshd.address)]);
    let (file, digest) = field.file("file", MEBIBYTES);
    let there = field.path().join("there");
    let remote = format!("{}@press-7:{}", user(), there.display());
    // `-l`: so many kbit/s, so that it takes a while.
    let mut scp = sshd.client("scp", &field, address);
    let mut scp = scp.args(["-O", "-q", "-l", "800000"]).arg(&file).arg(remote).spawn().unwrap();
    let size = || std::fs::metadata(&there).map_or(0, |there| there.len());
    let (mut kills, step) = (0, (MEBIBYTES << 20) as u64 / (KILLS + 4));
    while scp.try_wait().unwrap().is_none() {
        if size() < (kills + 1) * step {
            std::thread::park_timeout(Duration::from_millis(5));
            continue;
        }
        hub.kill();
        (hub, _) = field.hub(&listen);
        kills += 1;
    }
    assert!(scp.wait().unwrap().success(), "after {kills} kills");
    assert!(kills >= KILLS, "the hub was killed {kills} times only");
    assert_eq!(digest_of(&there), digest);
    drop(hub);
}

/// Who asks for a device that is away may wait for it, and may think better of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_device_is_connected_when_it_comes() {
    let field = Field::new();
    let (_hub, address, hub_log) = field.logging_hub();
    let connect = |wait: &str| {
        let mut connect = field.towline("connect");
        connect.args(["press-7", "x", "--hub", &address.to_string(), "--wait", wait]);
        connect.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let too_short = connect("1").wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&too_short.stderr).into_owned();
    assert_eq!(too_short.status.code(), Some(22), "{why}");
    assert!(why.contains("press-7 has not come in the time that the service would wait"), "{why}");

    let [mut patient, mut impatient] = ["60", "60"].map(connect);
    until("all have waited", || log_of(&hub_log).matches("waiting for the device").count() == 3);
    signal(impatient.id(), "INT");
    assert_eq!(impatient.wait().unwrap().code(), Some(130));
    until("the hub lets it go", || log_of(&hub_log).contains("the service left"));
    let _device = device_of(&field, &[address], echo().await);
    std::io::Write::write_all(&mut patient.stdin.take().unwrap(), b"words").unwrap();
    let output = patient.wait_with_output().unwrap();
    assert_eq!(field::success(&output), "words");
}

/// What a process has at rest.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    descriptors: usize,
    threads: usize,
    resident: u64,
}

impl Footprint {
    fn of(process: &Running) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().count();
        Self { descriptors: process.descriptors(), threads, resident: process.resident() }
    }

    /// Whether it is no more than `before`, as far as allocators and pools let one say so.
    fn is_like(&self, before: Self) -> bool {
        self.descriptors <= before.descriptors + 4
            && self.threads <= before.threads + 4
            && self.resident <= before.resident + (16 << 20)
    }
}

/// Draws a number below `below`: the same for the same seed.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

/// Random kills, cuts, sleeps and connections, some of which are dropped half way: all others go on to their end, and at the
/// end no process has more than it had near the beginning, a hub near its own. `TOWLINE_SOAK_MINUTES` says for how long; without it, it is 12 rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    let field = Field::new();
    let listen = format!("127.0.0.1:{}", free_port());
    let (mut hub, address) = field.hub(&listen);
    let wires = [Wire::to(address).await, Wire::to(address).await];
    let device = device_of(&field, &[wires[0].address], echo().await);
    let (forward, local) = field.forward(wires[1].address, "x");
    let minutes = std::env::var("TOWLINE_SOAK_MINUTES").ok().map(|minutes| minutes.parse::<u64>().unwrap());
    let until_time = minutes.map(|minutes| tokio::time::Instant::now() + Duration::from_secs(60 * minutes));
    let seed = std::env::var("TOWLINE_SEED").map_or(3, |seed| seed.parse::<u64>().unwrap().max(1));
    println!("TOWLINE_SEED={seed}");
    let mut random = seed;
    let (mut rounds, mut kills, mut cuts, mut before, mut hub_before) = (0_u64, 0, 0, None, None);
    while until_time.map_or(rounds < 12, |until| tokio::time::Instant::now() < until) {
        let mut connections = half_way(&[local], 40).await;
        connections.truncate(40 - usize::try_from(draw(&mut random, 20)).unwrap());
        let lasts = |random: &mut u64| Duration::from_millis(50 + draw(random, 450));
        match draw(&mut random, 5) {
            0 => {
                hub.kill();
                (hub, _) = field.hub(&listen);
                (kills, hub_before) = (kills + 1, None);
            }
            1 => {
                let wire = &wires[usize::try_from(draw(&mut random, 2)).unwrap()];
                wire.cut();
                tokio::time::sleep(lasts(&mut random)).await;
                wire.mend();
                cuts += 1;
            }
            kind => {
                let who = [&hub, &device, &forward][usize::try_from(kind).unwrap() - 2].pid();
                signal(who, "STOP");
                tokio::time::sleep(lasts(&mut random)).await;
                signal(who, "CONT");
            }
        }
        all_end(connections).await;
        rounds += 1;
        hub_before = hub_before.or(Some(Footprint::of(&hub)));
        if rounds == 6 {
            before = Some([&device, &forward].map(Footprint::of));
        }
    }
    until("the hub has no more than a link for each", || hub.descriptors() < 40);
    let [device_before, forward_before] = before.expect("there were rounds");
    let hub_before = hub_before.expect("there was a round");
    for (who, process, before) in
        [("device", &device, device_before), ("forward", &forward, forward_before), ("hub", &hub, hub_before)]
    {
        until(&format!("{who}: {before:?} before, {:?} now", Footprint::of(process)), || {
            Footprint::of(process).is_like(before)
        });
        println!("{who}: {before:?} near the beginning, {:?} after {rounds} rounds", Footprint::of(process));
    }
    assert!(kills > 0 && cuts > 0, "{kills} kills and {cuts} cuts show little; take another TOWLINE_SEED");
    println!("{rounds} rounds, the hub was killed {kills} times, and a way to it cut {cuts} times");
}
