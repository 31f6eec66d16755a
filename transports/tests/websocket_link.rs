//! Links over WebSocket: TLS with certificates on both sides, inside of messages, inside of whatever carries those.
//! Whoever stands between, such as a real nginx, carries them and no more.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/programs.rs"]
mod programs;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::BytesMut;
use common::{Authority, environment, pattern};
use http::StatusCode;
use programs::{Running, find, free_port};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use towline_transports::tls::{self, ALPN_HTTP, ALPN_LINK, Credentials, Hello, TlsPipe};
use towline_transports::websocket::{self, SUBPROTOCOL_LINK, UpgradeError, WebSocketPipe};
use towline_transports::{Code, Config, Link, LinkClosed, Network, Pipe, Side, TcpNetwork};

const PATH: &str = "/link";

/// Both ends of a WebSocket.
async fn pair() -> (WebSocketPipe<DuplexStream>, WebSocketPipe<DuplexStream>) {
    let (ours, theirs) = duplex(64 << 10);
    let (ours, theirs) = tokio::join!(
        websocket::connect(ours, "hub.test", PATH, SUBPROTOCOL_LINK),
        websocket::accept(theirs, PATH, &[SUBPROTOCOL_LINK])
    );
    (ours.unwrap(), theirs.unwrap())
}

/// Outer TLS as any web server has it: nobody is asked for a certificate.
fn outer(authority: &Authority) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let Credentials { chain, key, roots } = authority.issue("hub.test");
    let server = websocket::outer_server_config(chain, key, &environment()).unwrap();
    (server, websocket::outer_client_config(roots, &environment()).unwrap())
}

/// The hub's end of a link inside `pipe`, which carries a WebSocket.
async fn accept_inside(
    pipe: impl Pipe,
    hub: Arc<ServerConfig>,
) -> Result<TlsPipe<impl Pipe>, tls::HandshakeError> {
    let pipe = websocket::accept(pipe, PATH, &[SUBPROTOCOL_LINK]).await.unwrap();
    tls::accept(pipe, hub).await
}

/// The device's end.
async fn connect_inside(
    pipe: impl Pipe,
    device: Arc<ClientConfig>,
) -> Result<TlsPipe<impl Pipe>, tls::HandshakeError> {
    let pipe = websocket::connect(pipe, "hub.test", PATH, SUBPROTOCOL_LINK).await.unwrap();
    tls::connect(pipe, "hub.test".try_into().unwrap(), device).await
}

fn inner(authority: &Authority) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let hub = tls::server_config(authority.issue("hub.test"), &[ALPN_LINK], &environment()).unwrap();
    let device = tls::client_config(authority.issue("device"), &[ALPN_LINK], &environment()).unwrap();
    (hub, device)
}

/// Streams both ways at once, and a close that is understood.
async fn works(device: Link, hub: Link) {
    let mut tasks = tokio::task::JoinSet::new();
    for (from, to) in [(device.clone(), hub.clone()), (hub.clone(), device.clone())] {
        tasks.spawn(async move {
            let (mut send, mut recv) = from.open_bi().await.unwrap();
            let write = async {
                send.write_all(&pattern(2 << 20)).await.unwrap();
                send.finish().unwrap();
            };
            let (answer, ()) = tokio::join!(recv.read_to_end(4 << 20), write);
            assert!(answer.unwrap() == pattern(2 << 20));
        });
        tasks.spawn(async move {
            let (mut send, mut recv) = to.accept_bi().await.unwrap();
            while let Some(mut chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
                send.write_chunk(&mut chunk).await.unwrap();
            }
            send.finish().unwrap();
        });
    }
    tasks.join_all().await;
    device.close(Code::from(7), "done");
    assert!(matches!(hub.closed().await, LinkClosed::Peer { .. }));
    assert!(matches!(device.closed().await, LinkClosed::Local(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_runs_over_tls_in_websocket_in_tls() {
    let authority = Authority::new();
    let (outer_server, outer_client) = outer(&authority);
    let (hub, device) = inner(&authority);
    let (ours, theirs) = duplex(64 << 10);
    let connect = async {
        let name = "hub.test".try_into().unwrap();
        let pipe = websocket::connect_outer(ours, name, outer_client).await.unwrap();
        connect_inside(pipe, device).await.unwrap()
    };
    let accept = async {
        let hello = Hello::read(theirs, BytesMut::new()).await.unwrap();
        let pipe = websocket::accept_outer(hello, outer_server).await.unwrap();
        accept_inside(pipe, hub).await.unwrap()
    };
    let (device, hub) = tokio::join!(connect, accept);
    assert_eq!((hub.alpn(), hub.peer_certificates().len()), (Some(ALPN_LINK), 1));
    works(
        Link::over_tls(device, Side::Client, Config::default()),
        Link::over_tls(hub, Side::Server, Config::default()),
    )
    .await;
}

/// Proxies that end TLS are often older than TLS 1.3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outer_tls_may_be_an_old_one() {
    let authority = Authority::new();
    let (outer_server, outer_client) = outer(&authority);
    let (hub, device) = inner(&authority);
    let (ours, theirs) = duplex(64 << 10);
    let environment = environment();
    let mut old = ClientConfig::builder_with_details(environment.provider, environment.time)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(authority.issue("x").roots)
        .with_no_client_auth();
    old.alpn_protocols.clone_from(&outer_client.alpn_protocols);
    let connect = async {
        let name = "hub.test".try_into().unwrap();
        connect_inside(websocket::connect_outer(ours, name, Arc::new(old)).await.unwrap(), device).await
    };
    let accept = async {
        let hello = Hello::read(theirs, BytesMut::new()).await.unwrap();
        accept_inside(websocket::accept_outer(hello, outer_server).await.unwrap(), hub).await
    };
    let (device, hub) = tokio::join!(connect, accept);
    works(
        Link::over_tls(device.unwrap(), Side::Client, Config::default()),
        Link::over_tls(hub.unwrap(), Side::Server, Config::default()),
    )
    .await;
}

/// What a client offers is known before it is asked for anything.
#[tokio::test]
async fn a_hello_tells_what_the_client_speaks() {
    let authority = Authority::new();
    let (outer_server, outer_client) = outer(&authority);
    let mut nameless = (*outer_client).clone();
    nameless.alpn_protocols.clear();
    for (client, is_http) in [((*outer_client).clone(), true), (nameless, false)] {
        let (ours, theirs) = duplex(64 << 10);
        let connect = websocket::connect_outer(ours, "hub.test".try_into().unwrap(), Arc::new(client));
        let accept = async {
            let hello = Hello::read(theirs, BytesMut::new()).await.unwrap();
            assert_eq!((hello.offers(ALPN_HTTP), hello.offers(ALPN_LINK)), (is_http, false));
            websocket::accept_outer(hello, outer_server.clone()).await
        };
        let (ours, theirs) = tokio::join!(connect, accept);
        assert!(ours.is_ok() && theirs.is_ok());
    }
    // What is no TLS at all.
    let (mut ours, theirs) = duplex(64 << 10);
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(Hello::read(theirs, BytesMut::new()).await, Err(tls::HandshakeError::Tls(_))));
}

/// Carries what is in the messages from one WebSocket to the other; `change` sees it on its way.
async fn middle(
    from: WebSocketPipe<DuplexStream>,
    to: WebSocketPipe<DuplexStream>,
    mut change: impl FnMut(&mut [u8]),
) {
    let (mut up, mut back) = tokio::io::split(from);
    let (mut down, mut forth) = tokio::io::split(to);
    let forth = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = up.read(&mut buffer).await?;
            if count == 0 {
                return forth.shutdown().await;
            }
            change(&mut buffer[..count]);
            forth.write_all(&buffer[..count]).await?;
            forth.flush().await?;
        }
    };
    let back = async {
        tokio::io::copy(&mut down, &mut back).await?;
        back.shutdown().await
    };
    let _: io::Result<_> = tokio::try_join!(forth, back);
}

/// Who ends the outer TLS, as a proxy does, sees what is in the messages: nothing to read, and what they change is
/// found.
#[tokio::test]
async fn who_stands_between_can_neither_read_nor_forge() {
    for forges in [false, true] {
        let authority = Authority::new();
        let (hub, device) = inner(&authority);
        let (ours, left) = pair().await;
        let (right, theirs) = pair().await;
        let (seen_in, mut seen) = mpsc::unbounded_channel();
        let (armed_in, armed) = tokio::sync::watch::channel(false);
        let between = tokio::spawn(middle(left, right, move |bytes| {
            if forges && *armed.borrow() {
                bytes[bytes.len() / 2] ^= 1;
            }
            let _ = seen_in.send(bytes.to_vec());
        }));
        let (device, hub) = tokio::join!(
            tls::connect(ours, "hub.test".try_into().unwrap(), device),
            tls::accept(theirs, hub)
        );
        let device = Link::start(device.unwrap(), Side::Client, Config::default());
        let hub = Link::start(hub.unwrap(), Side::Server, Config::default());
        const SECRET: &[u8] = b"the password is swordfish";
        let (mut send, _recv) = device.open_bi().await.unwrap();
        send.write_all(SECRET).await.unwrap();
        let (_answer, mut recv) = hub.accept_bi().await.unwrap();
        assert_eq!(recv.read_chunk(usize::MAX).await.unwrap().unwrap(), SECRET);
        if forges {
            armed_in.send(true).unwrap();
            send.write_all(b"pay 100").await.unwrap();
            match hub.closed().await {
                LinkClosed::Lost(error) => {
                    assert_eq!(tls::as_tls(&error), Some(&rustls::Error::DecryptError));
                }
                closed => panic!("{closed}"),
            }
        }
        drop((device, hub, send, recv));
        between.abort();
        let mut all = Vec::new();
        while let Some(bytes) = seen.recv().await {
            all.extend(bytes);
        }
        assert!(!all.is_empty() && !all.windows(9).any(|part| part == b"swordfish"));
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_inside() {
    let authority = Authority::new();
    let (hub, _) = inner(&authority);
    // It is as good as let in by the outer TLS.
    let (_, stranger) = outer(&authority);
    let mut stranger = (*stranger).clone();
    stranger.alpn_protocols = vec![ALPN_LINK.to_vec()];
    let (ours, theirs) = pair().await;
    let connect = async {
        let mut pipe = tls::connect(ours, "hub.test".try_into().unwrap(), Arc::new(stranger)).await?;
        pipe.read_exact(&mut [0]).await?;
        Ok::<_, tls::HandshakeError>(())
    };
    let (stranger, hub) = tokio::join!(connect, tls::accept(theirs, hub));
    assert!(matches!(hub, Err(tls::HandshakeError::Tls(rustls::Error::NoCertificatesPresented))));
    assert!(stranger.is_err());
}

/// A real web server that ends the outer TLS on `port`, and passes what comes for [`PATH`] on to `hub`.
fn nginx(folder: &Path, authority: &Authority, port: u16, hub: SocketAddr) -> Option<Running> {
    let nginx = find("nginx")?;
    let dir = folder.display();
    let (certificate, key) = authority.issue_pem("hub.test");
    std::fs::write(folder.join("certificate.pem"), certificate).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n access_log off;\n client_body_temp_path {dir}/c;\n proxy_temp_path {dir}/p;\n\
         fastcgi_temp_path {dir}/f;\n uwsgi_temp_path {dir}/u;\n scgi_temp_path {dir}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3;\n\
         ssl_certificate {dir}/certificate.pem; ssl_certificate_key {dir}/key.pem;\n\
         location {PATH} {{ proxy_pass http://{hub}; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
         proxy_read_timeout 1h; }}\n}}\n}}\n"
    );
    let (config, log) = (folder.join("nginx.conf"), folder.join("nginx.log"));
    std::fs::write(&config, text).unwrap();
    Some(Running::start(Command::new(nginx).arg("-e").arg(&log).arg("-c").arg(&config), port, &log))
}

/// A hub that listens for WebSockets, without any TLS around them, and what came of each connection.
async fn plain_hub(
    config: Arc<ServerConfig>,
) -> (SocketAddr, mpsc::UnboundedReceiver<Result<Link, tls::HandshakeError>>) {
    let mut listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (results_in, results) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let outcome = accept_inside(socket, config.clone()).await;
            let outcome = outcome.map(|pipe| {
                assert_eq!(pipe.peer_certificates().len(), 1);
                Link::start(pipe, Side::Server, Config::default())
            });
            if results_in.send(outcome).is_err() {
                return;
            }
        }
    });
    (address, results)
}

/// A connection to nginx, inside TLS.
async fn dial(port: u16, outer: Arc<ClientConfig>) -> impl Pipe {
    let socket = TcpNetwork.connect(&format!("127.0.0.1:{port}")).await.unwrap();
    websocket::connect_outer(socket, "hub.test".try_into().unwrap(), outer).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_runs_through_a_real_nginx_that_ends_the_outer_tls() {
    // The web server's certificate is of another authority than the hub's and the device's.
    let (authority, of_the_web) = (Authority::new(), Authority::new());
    let (_, outer) = outer(&of_the_web);
    let (hub, device) = inner(&authority);
    let (address, mut links) = plain_hub(hub).await;
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let Some(nginx) = nginx(folder.path(), &of_the_web, port, address) else { return };

    let pipe = connect_inside(dial(port, outer.clone()).await, device.clone()).await.unwrap();
    let link = Link::start(pipe, Side::Client, Config::default());
    works(link, links.recv().await.unwrap().unwrap()).await;

    // Who has no certificate of the inner authority is not let in, whatever nginx thinks of them.
    let (_, stranger) = inner(&of_the_web);
    let refused = connect_inside(dial(port, outer.clone()).await, stranger).await;
    assert!(matches!(refused, Err(tls::HandshakeError::Tls(rustls::Error::InvalidCertificate(_)))));
    assert!(links.recv().await.unwrap().is_err());

    // What nginx itself has to say.
    let pipe = dial(port, outer.clone()).await;
    let error = websocket::connect(pipe, "hub.test", "/elsewhere", SUBPROTOCOL_LINK).await.err().unwrap();
    let is_not_found = matches!(&error, UpgradeError::Refused { status, server: Some(server), .. }
        if *status == StatusCode::NOT_FOUND && server.starts_with("nginx"));
    assert!(is_not_found, "{error}");

    // When it goes, the link is lost, and both ends learn of it.
    let pipe = connect_inside(dial(port, outer).await, device).await.unwrap();
    let link = Link::start(pipe, Side::Client, Config::default());
    let other = links.recv().await.unwrap().unwrap();
    let (mut send, _recv) = link.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let _stream = other.accept_bi().await.unwrap();
    drop(nginx);
    assert!(matches!(link.closed().await, LinkClosed::Lost(_)));
    assert!(matches!(other.closed().await, LinkClosed::Lost(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_nginx_without_a_hub_behind_it_is_a_bad_gateway() {
    let authority = Authority::new();
    let (_, outer) = outer(&authority);
    let folder = tempfile::tempdir().unwrap();
    let (port, nobody) = (free_port(), SocketAddr::from(([127, 0, 0, 1], free_port())));
    let Some(_nginx) = nginx(folder.path(), &authority, port, nobody) else { return };
    let error = websocket::connect(dial(port, outer).await, "hub.test", PATH, SUBPROTOCOL_LINK).await;
    let error = error.err().unwrap();
    let is_bad_gateway = matches!(error, UpgradeError::Refused { status: StatusCode::BAD_GATEWAY, .. });
    assert!(is_bad_gateway, "{error}");
}
