//! The way out through an HTTP proxy: which one, what it is asked, and what bad answers lead to. Against proxies with a
//! script, and a real tinyproxy.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/programs.rs"]
mod programs;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::{Authority, environment, pattern};
use programs::{Running, find, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use towline_transports::proxy::{
    self, MAX_HEAD, Proxy, ProxyError, ProxyNetwork, ProxySettings, ProxyUrlError,
};
use towline_transports::tls::{self, ALPN_LINK};
use towline_transports::{Config, Link, Listener, Network, Side, Socket, TcpNetwork};

// Which proxy.

fn chosen(variables: &[(&str, &str)], target: &str) -> Option<String> {
    let settings = ProxySettings::from_environment(variables.iter().copied()).unwrap();
    settings.proxy_for(target).map(Proxy::to_string)
}

#[test]
fn the_first_variable_that_is_set_names_the_proxy() {
    let one = |variables: &[(&str, &str)]| chosen(variables, "hub.test:443");
    assert_eq!(one(&[]), None);
    assert_eq!(one(&[("HTTPS_PROXY", "http://a:1")]).as_deref(), Some("a:1"));
    assert_eq!(one(&[("https_proxy", "http://a:1")]).as_deref(), Some("a:1"));
    assert_eq!(one(&[("all_proxy", "http://a:1")]).as_deref(), Some("a:1"));
    let all = [("all_proxy", "d:4"), ("ALL_PROXY", "c:3"), ("https_proxy", "b:2"), ("HTTPS_PROXY", "a:1")];
    for (skipped, expected) in ["d:4", "c:3", "b:2", "a:1"].iter().enumerate() {
        assert_eq!(one(&all[..=skipped]).as_deref(), Some(*expected));
    }
    assert_eq!(one(&[("HTTPS_PROXY", ""), ("ALL_PROXY", "a:1")]).as_deref(), Some("a:1"), "empty is unset");
    assert_eq!(one(&[("HTTP_PROXY", "a:1"), ("http_proxy", "a:1")]), None, "those are for http:// only");
}

#[test]
fn no_proxy_says_what_is_reached_without_it() {
    let direct = |list: &str, target: &str| {
        chosen(&[("HTTPS_PROXY", "http://a:1"), ("no_proxy", list)], target).is_none()
    };
    assert!(!direct("", "hub.test:443"));
    assert!(direct("*", "hub.test:443"));
    assert!(direct("other.test, hub.test", "hub.test:443"));
    assert!(direct("HUB.test", "hub.TEST:443"));
    assert!(direct("hub.test", "a.hub.test:443") && direct(".hub.test", "a.hub.test:443"));
    assert!(direct(".hub.test", "hub.test:443"));
    assert!(!direct("hub.test", "nothub.test:443") && !direct("hub.test", "hub.test.evil:443"));
    assert!(direct("127.0.0.0/8,::1", "127.1.2.3:443") && direct("127.0.0.0/8,::1", "[::1]:443"));
    assert!(!direct("127.0.0.0/8", "128.0.0.1:443") && !direct("127.0.0.1", "127.0.0.1.test:443"));
    // The capitals count, if both are there.
    let both = [("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "x.test"), ("no_proxy", "hub.test")];
    assert_eq!(chosen(&both, "hub.test:443").as_deref(), Some("a:1"));
    assert_eq!(chosen(&both, "x.test:443"), None);
}

#[test]
fn flags_say_direct_or_a_proxy_for_everything() {
    assert!(ProxySettings::direct().proxy_for("hub.test:443").is_none());
    let settings = ProxySettings::through("http://proxy.test:3128".parse().unwrap());
    assert_eq!(settings.proxy_for("127.0.0.1:443").unwrap().to_string(), "proxy.test:3128");
}

#[test]
fn a_proxys_url_is_http_with_a_host() {
    for (url, address) in [
        ("http://proxy.test:3128", "proxy.test:3128"),
        ("HTTP://proxy.test:3128/", "proxy.test:3128"),
        ("proxy.test:3128", "proxy.test:3128"),
        ("http://proxy.test", "proxy.test:80"),
        (" http://[::1]:3128 ", "[::1]:3128"),
        ("http://user:p%40ss@proxy.test:3128", "proxy.test:3128"),
    ] {
        let proxy: Proxy = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(proxy.to_string(), address, "{url}");
    }
    for url in [
        "",
        "http://",
        "http://:3128",
        "http://a b",
        "http://proxy.test:99999",
        "http://user:p#ss@proxy.test",
        "/x",
    ] {
        assert!(matches!(url.parse::<Proxy>(), Err(ProxyUrlError::Malformed { .. })), "{url:?}");
    }
    for kind in ["https", "socks5", "socks5h", "socks4a", "ftp"] {
        let error = format!("{kind}://proxy.test:1").parse::<Proxy>().unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "the proxy's URL is for a proxy of kind {kind}, which is not supported: give an HTTP proxy, http://HOST:PORT"
            )
        );
    }
}

/// Nobody should go around a proxy because its URL has a typing error; and nobody should read the password in the
/// message.
#[test]
fn a_variable_that_names_no_proxy_is_an_error_that_keeps_the_password() {
    let settings = |url: &str| ProxySettings::from_environment([("https_proxy", url)]);
    let error = settings("http://user:secret@pro xy:1").unwrap_err().to_string();
    assert_eq!(error, "https_proxy is not http://[USER:PASSWORD@]HOST:PORT");
    let error = settings("socks5://user:secret@proxy:1").unwrap_err().to_string();
    assert!(error.starts_with("https_proxy is for a proxy of kind socks5,"), "{error}");
    let shown = format!("{:?}", settings("http://user:secret@proxy:1").unwrap());
    assert!(!shown.contains("secret") && !shown.contains("dXNlcjpzZWNyZXQ="), "{shown}");
}

// What it is asked, and what it answers.

const TARGET: &str = "hub.behind.test:443";

/// A proxy that reads a request, writes `answer` and then closes (or waits for the other end to, if it `stays`). It
/// returns the request, and what came after it.
async fn scripted(answer: Vec<u8>, stays: bool) -> (String, JoinHandle<(String, Vec<u8>)>) {
    let mut listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.unwrap());
        }
        // Who has heard enough may hang up.
        let _ = socket.write_all(&answer).await;
        let mut rest = Vec::new();
        if stays {
            let _ = socket.read_to_end(&mut rest).await;
        }
        (String::from_utf8(request).unwrap(), rest)
    });
    (address, task)
}

async fn through(answer: impl AsRef<[u8]>, user: &str) -> Result<Box<dyn Socket>, ProxyError> {
    let (address, _task) = scripted(answer.as_ref().to_vec(), true).await;
    proxy::connect(&TcpNetwork, &format!("http://{user}{address}").parse().unwrap(), TARGET).await
}

/// The error that `answer` leads to, with the proxy's port left out.
async fn error_of(answer: impl AsRef<[u8]>, user: &str) -> String {
    let error = through(answer, user).await.unwrap_err().to_string();
    let mut parts = error.split("127.0.0.1:");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text.push_str("PROXY");
        text.push_str(part.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    }
    text
}

#[tokio::test]
async fn the_proxy_is_asked_for_the_target_by_name() {
    let (address, task) = scripted(b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec(), true).await;
    let mut socket = proxy::connect(&TcpNetwork, &address.parse().unwrap(), TARGET).await.unwrap();
    socket.write_all(b"what follows").await.unwrap();
    socket.shutdown().await.unwrap();
    let (request, rest) = task.await.unwrap();
    assert_eq!(request, "CONNECT hub.behind.test:443 HTTP/1.1\r\nHost: hub.behind.test:443\r\n\r\n");
    assert_eq!(rest, b"what follows");
}

#[tokio::test]
async fn user_and_password_go_to_the_proxy() {
    for (user, word) in [
        ("Aladdin:opensesame", "QWxhZGRpbjpvcGVuc2VzYW1l"),
        ("user:p%40s%3As", "dXNlcjpwQHM6cw=="),
        ("user", "dXNlcjo="),
        ("user:%0d%0aX:y", "dXNlcjoNClg6eQ=="),
    ] {
        let (address, task) = scripted(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), true).await;
        let proxy = format!("http://{user}@{address}").parse().unwrap();
        drop(proxy::connect(&TcpNetwork, &proxy, TARGET).await.unwrap());
        let (request, _) = task.await.unwrap();
        assert!(request.contains(&format!("\r\nProxy-Authorization: Basic {word}\r\n\r\n")), "{request}");
    }
}

#[tokio::test]
async fn every_answer_that_agrees_is_taken_with_what_comes_behind_it() {
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        // RFC 9110 §9.3.6: neither of these headers counts.
        "HTTP/1.1 204 Fine\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut socket = through([answer.as_bytes(), b"the target speaks first"].concat(), "").await.unwrap();
        let mut first = [0; 10];
        socket.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"the target");
        let mut rest = [0; 13];
        socket.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b" speaks first");
    }
}

#[tokio::test]
async fn an_answer_may_come_in_pieces() {
    let answer = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    let mut listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for byte in answer.iter().chain(b"x") {
            socket.write_u8(*byte).await.unwrap();
            socket.flush().await.unwrap();
        }
        socket.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let mut socket = proxy::connect(&TcpNetwork, &address.parse().unwrap(), TARGET).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_proxy_that_asks_who_it_is_says_what_to_do() {
    let basic = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    assert_eq!(
        error_of(basic, "").await,
        "the proxy PROXY asks for authentication (407): give a user and password in its URL, http://USER:PASSWORD@PROXY"
    );
    assert_eq!(
        error_of(basic, "user:wrong@").await,
        "the proxy PROXY does not take the user and password in its URL (407)"
    );
    let others =
        "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM\x1b abc\r\n\r\n";
    // A control character makes it no answer at all.
    assert_eq!(error_of(others, "").await, "the proxy PROXY does not answer as an HTTP proxy");
    assert_eq!(
        error_of(others.replace('\x1b', ""), "user:x@").await,
        "the proxy PROXY asks for authentication by Negotiate, NTLM (407), and only Basic is supported"
    );
}

#[tokio::test]
async fn a_refusal_is_passed_on() {
    for (answer, said) in [
        ("HTTP/1.1 403 Access violation\r\n\r\n", "403 Access violation"),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>", "502 Bad Gateway"),
        ("HTTP/1.0 503 \r\n\r\n", "503 "),
        ("HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\n\r\n", "302 Found"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "101 Switching Protocols"),
    ] {
        let text = format!("the proxy PROXY does not connect to {TARGET}: it answered {said}");
        assert_eq!(error_of(answer, "").await, text);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let no_http = "the proxy PROXY does not answer as an HTTP proxy";
    let answers: [&[u8]; 8] = [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        &[0; 100],
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"<html><body>Welcome to our wireless network</body></html>",
    ];
    for answer in answers {
        assert_eq!(error_of(answer, "").await, no_http, "{}", answer.escape_ascii());
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert_eq!(error_of(many, "").await, no_http);
}

#[tokio::test]
async fn the_head_of_an_answer_is_bounded() {
    let fits = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(MAX_HEAD - 24));
    assert_eq!(fits.len(), MAX_HEAD);
    let mut socket = through(format!("{fits}x"), "").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(4 * MAX_HEAD));
    assert_eq!(
        error_of(endless, "").await,
        "the head of the proxy PROXY's answer is longer than 16384 bytes"
    );
}

#[tokio::test]
async fn a_proxy_that_closes_before_it_has_answered_is_told_apart() {
    let answer = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    for cut in 0..answer.len() {
        let (address, _task) = scripted(answer[..cut].to_vec(), false).await;
        let error = proxy::connect(&TcpNetwork, &address.parse().unwrap(), TARGET).await.unwrap_err();
        assert!(matches!(error, ProxyError::Lost { .. }), "cut at {cut}: {error}");
    }
}

#[tokio::test]
async fn who_does_not_wait_for_a_proxy_that_hangs_closes_the_connection() {
    let mut listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let proxy: Proxy = listener.local_addr().unwrap().to_string().parse().unwrap();
    let waits = tokio::spawn(async move { proxy::connect(&TcpNetwork, &proxy, TARGET).await });
    let (mut socket, _) = listener.accept().await.unwrap();
    socket.read_exact(&mut [0; 8]).await.unwrap();
    socket.write_all(b"HTTP/1.1 200 O").await.unwrap();
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    // An end or a reset, which depends on what was still unread.
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let address = format!("127.0.0.1:{}", free_port());
    let error = proxy::connect(&TcpNetwork, &address.parse().unwrap(), TARGET).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("the proxy {address} cannot be reached: ")), "{text}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_target_is_a_host_and_a_port_and_nothing_else() {
    let nobody: Proxy = "127.0.0.1:9".parse().unwrap();
    for target in [
        "",
        "hub.test",
        ":443",
        "hub.test:",
        "a@hub.test:443",
        "hub.test:443/x",
        "hub.test:443\r\nX: y",
        "hub test:443",
    ] {
        let error = proxy::connect(&TcpNetwork, &nobody, target).await.unwrap_err();
        assert!(matches!(error, ProxyError::Target(_)), "{target:?}: {error}");
    }
}

// As a network.

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// TCP that remembers what it was asked for.
#[derive(Clone, Debug, Default)]
struct Watched {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Network for Watched {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        self.asked.lock().unwrap().push(address.to_owned());
        TcpNetwork.connect(address)
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        TcpNetwork.listen(address)
    }
}

#[tokio::test]
async fn a_network_goes_through_the_proxy_where_the_settings_say_so() {
    let (address, task) = scripted(b"HTTP/1.1 403 Filtered\r\n\r\n".to_vec(), true).await;
    let variables = [("HTTPS_PROXY", address.as_str()), ("NO_PROXY", "127.0.0.1")];
    let settings = ProxySettings::from_environment(variables).unwrap();
    let watched = Watched::default();
    let network = ProxyNetwork::new(Arc::new(watched.clone()), settings);
    let error = network.connect(TARGET).await.unwrap_err();
    let proxy_error = error.get_ref().and_then(|error| error.downcast_ref::<ProxyError>());
    assert!(matches!(proxy_error, Some(ProxyError::Refused { status: 403, .. })), "{error}");
    assert!(task.await.unwrap().0.starts_with("CONNECT hub.behind.test:443 "));

    let mut listener = network.listen("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap().to_string();
    let (_ours, _theirs) = tokio::join!(network.connect(&near), listener.accept());
    assert_eq!(*watched.asked.lock().unwrap(), [address, near]);
}

// A real proxy.

/// A tinyproxy that connects to `target_port` of whatever host.
fn tinyproxy(folder: &Path, port: u16, target_port: u16, user: Option<&str>) -> Option<Running> {
    let program = find("tinyproxy")?;
    let (config, log) = (folder.join("tinyproxy.conf"), folder.join("tinyproxy.log"));
    let user = user.map_or(String::new(), |user| format!("BasicAuth {user}\n"));
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nLogFile \"{}\"\nPidFile \"{}\"\n\
         ConnectPort {target_port}\n{user}",
        log.display(),
        folder.join("tinyproxy.pid").display()
    );
    std::fs::write(&config, text).unwrap();
    Some(Running::start(Command::new(program).arg("-d").arg("-c").arg(&config), port, &log))
}

/// A hub that echoes what comes on a stream, for as long as the test runs.
async fn hub(authority: &Authority) -> SocketAddr {
    let config = tls::server_config(authority.issue("localhost"), &[ALPN_LINK], &environment()).unwrap();
    let mut listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(pipe) = tls::accept(socket, config.clone()).await else { continue };
            let link = Link::start(pipe, Side::Server, Config::default());
            tokio::spawn(async move {
                while let Ok((mut send, mut recv)) = link.accept_bi().await {
                    let request = recv.read_to_end(4 << 20).await.unwrap();
                    send.write_all(&request).await.unwrap();
                    send.finish().unwrap();
                }
            });
        }
    });
    address
}

/// A link through `network` to the hub at `target`, with certificates on both sides.
async fn echoes(network: &dyn Network, target: &str, authority: &Authority) {
    let device = tls::client_config(authority.issue("device"), &[ALPN_LINK], &environment()).unwrap();
    let socket = network.connect(target).await.unwrap();
    let pipe = tls::connect(socket, "localhost".try_into().unwrap(), device).await.unwrap();
    let link = Link::start(pipe, Side::Client, Config::default());
    let (mut send, mut recv) = link.open_bi().await.unwrap();
    let write = async {
        send.write_all(&pattern(2 << 20)).await.unwrap();
        send.finish().unwrap();
    };
    let (answer, ()) = tokio::join!(recv.read_to_end(4 << 20), write);
    assert!(answer.unwrap() == pattern(2 << 20));
}

fn proxied(watched: &Watched, user: &str, port: u16) -> ProxyNetwork {
    let url = format!("http://{user}127.0.0.1:{port}");
    let settings = ProxySettings::from_environment([("HTTPS_PROXY", url)]).unwrap();
    ProxyNetwork::new(Arc::new(watched.clone()), settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_runs_through_a_real_tinyproxy_which_resolves_the_name() {
    let authority = Authority::new();
    let hub = hub(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let Some(_tinyproxy) = tinyproxy(folder.path(), port, hub.port(), None) else { return };
    let watched = Watched::default();
    let network = proxied(&watched, "", port);
    echoes(&network, &format!("localhost:{}", hub.port()), &authority).await;

    // A port that it does not connect to, and a name that does not exist.
    let error = network.connect("localhost:1").await.unwrap_err();
    assert!(error.to_string().contains("it answered 403 "), "{error}");
    let error = network.connect(&format!("nowhere.invalid:{}", hub.port())).await.unwrap_err();
    assert!(error.to_string().contains("does not connect to nowhere.invalid:"), "{error}");

    let proxy = format!("127.0.0.1:{port}");
    assert_eq!(*watched.asked.lock().unwrap(), [proxy.as_str(); 3], "nothing was resolved here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_runs_through_a_real_tinyproxy_with_user_and_password() {
    let authority = Authority::new();
    let hub = hub(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let user = Some("press swordfish");
    let Some(_tinyproxy) = tinyproxy(folder.path(), port, hub.port(), user) else { return };
    let (watched, target) = (Watched::default(), format!("localhost:{}", hub.port()));
    echoes(&proxied(&watched, "press:%73wordfish@", port), &target, &authority).await;

    let error = proxied(&watched, "", port).connect(&target).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("give a user and password in its URL"), "{error}");
    let error = proxied(&watched, "press:wrong@", port).connect(&target).await.unwrap_err();
    assert!(error.to_string().contains("does not take the user and password"), "{error}");
}
