//! Real programs through the real program: ssh, scp, sftp, curl, tar and nc, over a hub and a device that run as
//! processes of their own. A program that is missing skips its test with a word; `TOWLINE_REQUIRE_CLIENTS=1`
//! makes it fail instead.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

#[path = "common/field.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
mod field;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use field::{Field, Running, Sshd, digest_of, find, find_nc, free_port, success, until, user};

/// Real programs are heavy, and the machine small: one test at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn ssh_keeps_exit_status_and_both_outputs_and_leaves_nothing_running() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let Some(sshd) = Sshd::start(&field) else { return };
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("ssh", sshd.address)]);
    let target = format!("{}@press-7", user());
    let output = sshd
        .client("ssh", &field, hub)
        .args([&target, "echo to the output; echo to the error >&2; exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "to the output\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "to the error\n");
    until("the ProxyCommand has ended", || connects_in(field.path()) == 0);

    // Input that ends, and output after that.
    let mut sort = sshd
        .client("ssh", &field, hub)
        .args([&target, "sort"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sort.stdin.take().unwrap().write_all(b"b\nc\na\n").unwrap();
    assert_eq!(success(&sort.wait_with_output().unwrap()), "a\nb\nc\n");
}

/// How many `towline connect` of this field run.
fn connects_in(folder: &Path) -> usize {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains("\0connect\0") && line.contains(&folder)).count()
}

#[test]
fn scp_and_sftp_of_256_mib_both_ways() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let Some(sshd) = Sshd::start(&field) else { return };
    if find("scp").is_none() || find("sftp").is_none() {
        return;
    }
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("ssh", sshd.address)]);
    let (file, digest) = field.file("file", 256);
    let remote = |name: &str| format!("{}@press-7:{}", user(), field.path().join(name).display());
    let there = field.path().join("there");
    let back = field.path().join("back");

    // `-O`: the old protocol, which is not sftp.
    let scp = |from: &str, to: &str| {
        success(&sshd.client("scp", &field, hub).args(["-O", "-q", from, to]).output().unwrap());
    };
    scp(file.to_str().unwrap(), &remote("there"));
    assert_eq!(digest_of(&there), digest);
    scp(&remote("there"), back.to_str().unwrap());
    assert_eq!(digest_of(&back), digest);

    for path in [&there, &back] {
        std::fs::remove_file(path).unwrap();
    }
    let batch = field.path().join("batch");
    let commands =
        format!("put {} {}\nget {} {}\n", file.display(), there.display(), there.display(), back.display());
    std::fs::write(&batch, commands).unwrap();
    let mut sftp = sshd.client("sftp", &field, hub);
    success(&sftp.arg("-q").arg("-b").arg(&batch).arg(format!("{}@press-7", user())).output().unwrap());
    assert_eq!(digest_of(&there), digest);
    assert_eq!(digest_of(&back), digest);
}

/// A real web server that takes uploads.
fn nginx(field: &Field) -> Option<(Running, SocketAddr)> {
    let nginx = find("nginx")?;
    let port = free_port();
    let dir = field.path().display();
    std::fs::create_dir_all(field.path().join("www")).unwrap();
    let config = field.path().join("nginx.conf");
    // The whole machine's user may be root, whose files another user could not write.
    let text = format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n access_log off;\n client_body_temp_path {dir}/tmp;\n proxy_temp_path {dir}/p;\n\
         fastcgi_temp_path {dir}/f;\n uwsgi_temp_path {dir}/u;\n scgi_temp_path {dir}/s;\n\
         server {{ listen 127.0.0.1:{port}; root {dir}/www; client_max_body_size 1g; \
         location / {{ dav_methods PUT DELETE; }} }}\n}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(nginx);
    let log = field.path().join("nginx.log");
    let running = Running::start(command.arg("-e").arg(&log).arg("-c").arg(&config).stderr(Stdio::null()));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("nginx listens", || TcpStream::connect(address).is_ok());
    Some((running, address))
}

#[test]
fn curl_gets_puts_chunks_expects_and_does_a_hundred_things_at_once() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let Some((_nginx, web)) = nginx(&field) else { return };
    let Some(curl) = find("curl") else { return };
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("web", web)]);
    let (_forward, local) = field.forward(hub, "web");
    let (file, digest) = field.file("www/file", 32);
    let curl = |args: &[&str]| {
        let output = Command::new(&curl).args(["-sS", "--fail", "--max-time", "120"]).args(args).output();
        success(&output.unwrap())
    };
    let url = |path: &str| format!("http://{local}/{path}");
    let fetched = field.path().join("fetched");
    let file = file.to_str().unwrap();

    curl(&["-o", fetched.to_str().unwrap(), &url("file")]);
    assert_eq!(digest_of(&fetched), digest, "GET");

    curl(&["-T", file, &url("put")]);
    assert_eq!(digest_of(&field.path().join("www/put")), digest, "PUT");

    curl(&["-T", file, "-H", "Transfer-Encoding: chunked", "-H", "Expect:", &url("chunked")]);
    assert_eq!(digest_of(&field.path().join("www/chunked")), digest, "chunked");

    // curl waits for the 100 before it sends the body.
    let headers =
        curl(&["-T", file, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "-i", &url("expect")]);
    assert!(headers.starts_with("HTTP/1.1 100 Continue"), "{headers}");
    assert_eq!(digest_of(&field.path().join("www/expect")), digest, "Expect: 100-continue");

    // A hundred connections to one device at the same time, a connection for each.
    std::fs::write(field.path().join("www/small"), vec![b'x'; 200_000]).unwrap();
    let many = format!("{}?[1-100]", url("small"));
    let sizes = curl(&[
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        "100",
        "-H",
        "Connection: close",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download}\n",
        &many,
    ]);
    assert_eq!(sizes.lines().filter(|line| *line == "200 200000").count(), 100, "{sizes}");
}

/// `tar c | nc -N`: the client's end of file gets through while the server's answer is still to come.
#[test]
fn half_close_as_in_tar_to_nc() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let (Some(nc), Some(socat), Some(tar)) = (find_nc(), find("socat"), find("tar")) else { return };
    let port = free_port();
    let mut server = Command::new(socat);
    // Reads to the end of file, and only then answers.
    server.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork")).arg("EXEC:sha256sum");
    let _server = Running::start(&mut server);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("socat listens", || TcpStream::connect(address).is_ok());
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("sum", address)]);
    let (_forward, local) = field.forward(hub, "sum");

    field.file("payload", 40);
    let archive = field.path().join("archive");
    let mut made = Command::new(&tar);
    made.arg("cf").arg(&archive).arg("-C").arg(field.path()).arg("payload");
    success(&made.output().unwrap());
    let nc = Command::new(nc)
        .args(["-N", &local.ip().to_string(), &local.port().to_string()])
        .stdin(std::fs::File::open(&archive).unwrap())
        .output()
        .unwrap();
    assert_eq!(success(&nc).split(' ').next(), Some(&digest_of(&archive)[..]));

    // The same on standard input and output.
    let connect = field
        .towline("connect")
        .args(["press-7", "sum", "--hub", &hub.to_string()])
        .stdin(std::fs::File::open(&archive).unwrap())
        .output()
        .unwrap();
    assert_eq!(success(&connect).split(' ').next(), Some(&digest_of(&archive)[..]));
}

#[test]
fn a_rst_is_seen_as_a_rst_in_both_directions() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("x", server.local_addr().unwrap())]);
    let (_forward, local) = field.forward(hub, "x");

    // The server resets; the client must not take it for an end of file.
    let mut client = TcpStream::connect(local).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"hello").unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.read_exact(&mut [0; 5]).unwrap();
    accepted.write_all(b"bye").unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    reset(accepted);
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    // The client resets; so with the server.
    let mut client = TcpStream::connect(local).unwrap();
    client.write_all(b"hello").unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    accepted.read_exact(&mut [0; 5]).unwrap();
    reset(client);
    let error = accepted.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    // And an end is an end: both directions, one after the other.
    let mut client = TcpStream::connect(local).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    let mut question = Vec::new();
    accepted.read_to_end(&mut question).unwrap();
    accepted.write_all(b"answer").unwrap();
    drop(accepted);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!((&question[..], &answer[..]), (&b"question"[..], &b"answer"[..]));
}

/// A server that answers and hangs up while the client still sends, as web servers do with a body that is too
/// large: the answer arrives before the RST.
#[test]
fn an_answer_before_a_rst_arrives() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("x", server.local_addr().unwrap())]);
    let (_forward, local) = field.forward(hub, "x");
    let mut client = TcpStream::connect(local).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut upload = client.try_clone().unwrap();
    let upload = std::thread::spawn(move || {
        loop {
            if let Err(error) = upload.write_all(&[1; 64 << 10]) {
                break error.kind();
            }
        }
    });
    let (mut accepted, _) = server.accept().unwrap();
    accepted.read_exact(&mut [0; 1000]).unwrap();
    accepted.write_all(b"413 too much").unwrap();
    drop(accepted); // with much unread: the system sends a RST
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"413 too much");
    // The system tells of a RST once: to the writer or to the reader.
    let read = client.read(&mut [0]).map_err(|error| error.kind());
    let wrote = upload.join().unwrap();
    let reset = std::io::ErrorKind::ConnectionReset;
    assert!(read == Err(reset) || wrote == reset, "a RST, not an end of file: {read:?}, {wrote:?}");
}

/// A client that only writes, to a server that echoes, until nothing moves any more; and then resets. The server is
/// set free, though it would never have read again.
#[test]
fn a_server_that_nobody_reads_is_set_free_by_the_clients_rst() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_hub, hub) = field.hub("127.0.0.1:0");
    let _device = field.device(hub, &[("x", server.local_addr().unwrap())]);
    let (_forward, local) = field.forward(hub, "x");
    let mut client = TcpStream::connect(local).unwrap();
    let (mut reader, _) = server.accept().unwrap();
    let (free, freed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut writer = reader.try_clone().unwrap();
        free.send(std::io::copy(&mut reader, &mut writer).map_err(|error| error.kind())).unwrap();
    });
    client.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    while client.write(&[1; 64 << 10]).is_ok() {}
    reset(client);
    let ended = freed.recv_timeout(Duration::from_secs(20)).expect("the server still waits");
    assert!(ended.is_err(), "a RST, not an end of file");
}

/// Closes a socket with a RST.
fn reset(socket: TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _guard = runtime.enter();
    socket.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(socket).unwrap().set_zero_linger().unwrap();
}

#[test]
fn a_hub_that_is_killed_and_started_again_has_its_devices_back_within_12_seconds() {
    let _turn = one_at_a_time();
    let field = Field::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (hub, address) = field.hub("127.0.0.1:0");
    let _device = field.device(address, &[("x", server.local_addr().unwrap())]);
    let (_forward, local) = field.forward(address, "x");
    for _ in 0..2 {
        hub_works(local, &server);
    }
    hub.kill();
    // Down for long enough that the device waits as long as it ever does.
    std::thread::park_timeout(Duration::from_secs(3));
    let (_hub, address) = field.hub(&address.to_string());
    let took = field.wait_until_online(address);
    assert!(took < Duration::from_secs(12), "{took:?}");
    hub_works(local, &server);
}

fn hub_works(local: SocketAddr, server: &TcpListener) {
    let mut client = TcpStream::connect(local).unwrap();
    client.write_all(b"ping").unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    let mut four = [0; 4];
    accepted.read_exact(&mut four).unwrap();
    accepted.write_all(&four).unwrap();
    client.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"ping");
}

#[test]
fn the_demo_checks_itself() {
    let _turn = one_at_a_time();
    let output = Command::new(field::TOWLINE).args(["demo", "--once"]).output().unwrap();
    let printed = success(&output);
    assert!(printed.contains("SHA-256") && printed.ends_with("all as it should be\n"), "{printed}");
}
