//! The hub's door: one port, and what a connection to it turns out to be.
//!
//! In: a socket. Out: a link, or an answer that tells a person what is here. Keeps: the keys.
//!
//! A TLS client names what it speaks before it is asked for anything, so that a browser sees no dialogue about
//! certificates: [`ALPN_LINK`] gets a link, whose certificates are for both sides; everything else gets HTTP, in which
//! there is a WebSocket, in which there is the TLS of a link once more. So whoever comes through a proxy that ends the
//! outer TLS is asked for the same certificate as everybody else. Spec: PROTOCOL §2.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towline_transports::tls::{self, ALPN_LINK, ConfigError, Credentials, HandshakeError, Hello, TlsPipe};
use towline_transports::websocket::{self, Answer, SUBPROTOCOL_LINK};
use towline_transports::{Config, Link, Pipe, Side, Socket, quic};

use crate::identity::{BadIdentity, Identity};
use crate::places::Places;

/// Where the WebSocket is.
pub(crate) const PATH: &str = "/towline";

/// The first byte of a TLS connection: a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// What those are told who speak HTTP without TLS.
const NO_TLS: &str = "This is a Towline hub. It speaks TLS: try https://\n";

/// What those see who come with a browser.
const GREETING: &str = "This is a Towline hub. Devices and services reach it with `towline`.\n";

/// The door.
#[derive(Debug)]
pub(crate) struct Door {
    keys: Mutex<Keys>,
    /// Places for those who have a WebSocket and have not shown who they are: each may make us keep a message.
    websockets: Places,
}

/// Who the hub is, and whom it lets in.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// For links.
    link: Arc<ServerConfig>,
    /// For everybody else.
    web: Arc<ServerConfig>,
}

impl Keys {
    pub(crate) fn new(credentials: Credentials, environment: &tls::Environment) -> Result<Self, ConfigError> {
        let (chain, key) = (credentials.chain.clone(), credentials.key.clone_key());
        let web = websocket::outer_server_config(chain, key, environment)?;
        let link = tls::server_config(credentials, &[ALPN_LINK], environment)?;
        Ok(Self { link, web })
    }
}

/// How many of those there are at a time: 64 times 768 KiB is 48 MiB. For one more, the oldest goes.
const WEBSOCKETS: usize = 64;

/// Which way a link came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Tls,
    WebSocket,
    Quic,
}

/// Somebody who is in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) link: Link,
    /// Who the certificate says it is.
    pub(crate) identity: Option<Result<Identity, BadIdentity>>,
    pub(crate) way: Way,
}

/// Why somebody is not in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoEntry {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the connection ended before it had begun: {0}")]
    Io(#[from] io::Error),
    #[error("HTTP without TLS, which was answered")]
    PlainHttp,
    #[error("what came is neither TLS nor HTTP")]
    Unknown,
    #[error("HTTP, and no link in it")]
    NoLink,
    #[error("too many WebSockets whose holders have not shown who they are; this is the oldest")]
    Displaced,
    #[error("bad HTTP: {0}")]
    Http(#[from] hyper::Error),
}

impl Door {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys: Mutex::new(keys), websockets: Places::for_the_newest(WEBSOCKETS) }
    }

    /// Has other keys for whoever comes from now on.
    pub(crate) fn set_keys(&self, keys: Keys) {
        *self.keys.lock().expect("nothing panics while it holds the lock") = keys;
    }

    fn keys(&self) -> Keys {
        self.keys.lock().expect("nothing panics while it holds the lock").clone()
    }

    /// Takes a connection in. `limits` are those of the link, given who is at its other end. Under the caller's deadline;
    /// cancelling it closes the connection.
    ///
    /// What each way needs is on the heap once it is taken, so that whoever waits at the door takes little.
    pub(crate) async fn enter(
        &self,
        mut socket: Box<dyn Socket>,
        limits: impl Fn(Option<&Identity>) -> Config,
    ) -> Result<Arrival, NoEntry> {
        let mut head = BytesMut::with_capacity(FIRST_READ);
        if (&mut socket).take(FIRST_READ as u64).read_buf(&mut head).await? == 0 {
            return Err(NoEntry::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        // The first letters of a method do not tell yet.
        while head.len() < SHORTEST_METHOD && head.iter().all(u8::is_ascii_uppercase) {
            if socket.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        if head[0] != HANDSHAKE {
            return Err(Box::pin(turn_away(socket, head)).await);
        }
        let hello = Hello::read(socket, head).await?;
        if hello.offers(ALPN_LINK) {
            return Ok(meet(Box::pin(hello.accept(self.keys().link)).await?, Way::Tls, limits));
        }
        Ok(meet(Box::pin(self.enter_through_http(hello)).await?, Way::WebSocket, limits))
    }

    async fn enter_through_http(
        &self,
        hello: Hello<Box<dyn Socket>>,
    ) -> Result<TlsPipe<impl Pipe + use<>>, NoEntry> {
        let outer = websocket::accept_outer(hello, self.keys().web).await.map_err(links_as_well)?;
        let upgrade = Box::pin(serve_http(outer)).await?;
        let place = self.websockets.take().await;
        let pipe = place.visit(self.meet_inside(upgrade)).await.ok_or(NoEntry::Displaced)??;
        place.pass();
        Ok(pipe)
    }

    /// Runs the TLS of a link inside of a WebSocket.
    async fn meet_inside(&self, upgrade: OnUpgrade) -> Result<TlsPipe<impl Pipe + use<>>, NoEntry> {
        let pipe = websocket::from_upgraded(TokioIo::new(upgrade.await?), SUBPROTOCOL_LINK.to_owned()).await;
        Ok(tls::accept(pipe, self.keys().link).await?)
    }
}

/// What the hub offers besides HTTP is a link.
fn links_as_well(mut error: HandshakeError) -> HandshakeError {
    if let HandshakeError::Protocol { ours, .. } = &mut error {
        ours.insert(0, ALPN_LINK.escape_ascii().to_string());
    }
    error
}

/// As much as a ClientHello takes, mostly.
const FIRST_READ: usize = 2048;

fn meet(pipe: TlsPipe<impl Pipe>, way: Way, limits: impl Fn(Option<&Identity>) -> Config) -> Arrival {
    let identity = pipe.peer_certificates().first().map(Identity::of_certificate);
    let config = limits(identity.as_ref().and_then(|identity| identity.as_ref().ok()));
    Arrival { link: Link::over_tls(pipe, Side::Server, config), identity, way }
}

/// As [`Door::enter`], of a QUIC connection, which has a door of its own.
pub(crate) async fn enter_quic(
    incoming: quic::Incoming,
    limits: impl Fn(Option<&Identity>) -> Config,
) -> Result<Arrival, NoEntry> {
    let connection = incoming.handshake().await?;
    let identity = connection.peer_certificates().first().map(Identity::of_certificate);
    let config = limits(identity.as_ref().and_then(|identity| identity.as_ref().ok()));
    Ok(Arrival { link: connection.start_with(&config), identity, way: Way::Quic })
}

/// Answers who does not speak TLS, if it speaks HTTP.
async fn turn_away(mut socket: Box<dyn Socket>, head: BytesMut) -> NoEntry {
    if !is_http(&head) {
        return NoEntry::Unknown;
    }
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{NO_TLS}",
        NO_TLS.len()
    );
    // Who does not take the answer goes without it.
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
    // What is unread when a socket is closed resets it, and the reset may overtake the answer.
    let mut rest = [0; 1024];
    while socket.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    NoEntry::PlainHttp
}

/// How many letters GET and PUT have.
const SHORTEST_METHOD: usize = 3;

/// Whether this is how a request begins (RFC 9112 §3): a method, in capitals, and a space.
fn is_http(head: &[u8]) -> bool {
    let method = head.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    (SHORTEST_METHOD..=7).contains(&method) && head.get(method).is_none_or(|byte| *byte == b' ')
}

/// Serves HTTP until somebody wants a link, or leaves.
async fn serve_http(pipe: impl Pipe) -> Result<OnUpgrade, NoEntry> {
    let wanted = Mutex::new(None);
    let service = service_fn(|mut request: Request<Incoming>| {
        let (response, is_link) = respond(&request);
        if is_link {
            *wanted.lock().expect("nothing panics here") = Some(hyper::upgrade::on(&mut request));
        }
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    // No timer: all of it is under the deadline of the handshake.
    let server = hyper::server::conn::http1::Builder::new()
        .max_buf_size(MAX_REQUEST)
        // The date is nothing that was handed in.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(pipe), service)
        .with_upgrades();
    server.await?;
    wanted.into_inner().expect("nothing panics here").ok_or(NoEntry::NoLink)
}

/// The most bytes of a request's head. hyper takes no less.
const MAX_REQUEST: usize = 8192;

/// The answer to a request, and whether the connection becomes a WebSocket with it.
fn respond(request: &Request<Incoming>) -> (Response<Full<Bytes>>, bool) {
    let Answer { response, subprotocol } = match request.uri().path() {
        "/" => Answer { response: greet(request.method()), subprotocol: None },
        _ => websocket::answer(request, PATH, &[SUBPROTOCOL_LINK]),
    };
    (response.map(|text| Full::new(text.into())), subprotocol.is_some())
}

fn greet(method: &Method) -> Response<String> {
    let mut response = Response::new(GREETING.to_owned());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if !matches!(*method, Method::GET | Method::HEAD) {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_a_request_is_one() {
        for head in ["GET / HTTP/1.1\r\n", "OPTIONS * ", "CONNECT hub:443", "GET"] {
            assert!(is_http(head.as_bytes()), "{head}");
        }
        for head in ["SSH-2.0-OpenSSH", "get /", "GE T", "\x03\0\0", "", "PROPPATCHES /"] {
            assert!(!is_http(head.as_bytes()), "{head}");
        }
    }
}
