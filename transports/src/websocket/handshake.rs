//! How a connection becomes a WebSocket: the one request and its answer.
//!
//! Steps that happen once and in order, each a plain `async fn`; the deadline is the caller's.

use std::io;

use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL, SERVER, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use super::{WebSocketPipe, settings};
use crate::Pipe;

/// How much of what a server says about a refusal is passed on.
const MAX_SAID: usize = 200;

/// Why a connection did not become a WebSocket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The connection ended, or it failed.
    #[error("the connection ended during the WebSocket handshake: {0}")]
    Io(io::Error),
    /// The server, or a proxy before it, refused.
    #[error(
        "{} answered the request for a WebSocket with {status}{}",
        .server.as_deref().unwrap_or("the server"),
        .said.as_deref().map_or(String::new(), |said| format!(": {said}"))
    )]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// What it calls itself; control characters are escaped.
        server: Option<String>,
        /// The first line of its answer, if that is plain text; control characters are escaped.
        said: Option<String>,
    },
    /// The server speaks WebSocket, and none of the subprotocols that were offered.
    #[error("the server does not speak {0} over WebSocket")]
    Subprotocol(String),
    /// This end refused the peer's request, and has told it so.
    #[error("the request was answered with {status}: {why}")]
    Unacceptable {
        /// The status of the answer.
        status: StatusCode,
        /// What the peer was told.
        why: String,
    },
    /// The peer speaks something else.
    #[error("the peer does not speak WebSocket: {0}")]
    Protocol(String),
    /// The host, the path or the subprotocol cannot stand in a request.
    #[error("there can be no such request: {0}")]
    Request(String),
}

/// Asks the server at the other end of `pipe` for a WebSocket at `path`. `host` is what the server is known by, with a
/// port if it is not the usual one; `path` begins with a slash. Cancelling it closes the pipe.
///
/// # Errors
///
/// The server refuses, is none of WebSocket, or does not speak `subprotocol`.
pub fn connect<P: Pipe>(
    pipe: P,
    host: &str,
    path: &str,
    subprotocol: &str,
) -> impl Future<Output = Result<WebSocketPipe<P>, UpgradeError>> + Send + use<P> {
    let request = request(host, path, subprotocol);
    let subprotocol = subprotocol.to_owned();
    async move { ask(pipe, request?, subprotocol).await }
}

fn request(host: &str, path: &str, subprotocol: &str) -> Result<Request<()>, UpgradeError> {
    let impossible = |error: &dyn std::fmt::Display| UpgradeError::Request(error.to_string());
    if !path.starts_with('/') {
        return Err(impossible(&"its path does not begin with a slash"));
    }
    let mut request =
        format!("ws://{host}{path}").into_client_request().map_err(|error| impossible(&error))?;
    let offer = HeaderValue::from_str(subprotocol).map_err(|error| impossible(&error))?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offer);
    Ok(request)
}

async fn ask<P: Pipe>(
    pipe: P,
    request: Request<()>,
    subprotocol: String,
) -> Result<WebSocketPipe<P>, UpgradeError> {
    match client_async_with_config(request, pipe, Some(settings())).await {
        Ok((stream, _)) => Ok(WebSocketPipe::new(stream, subprotocol)),
        Err(Error::Http(response)) => Err(UpgradeError::Refused {
            status: response.status(),
            server: response.headers().get(SERVER).map(|server| readable(server.as_bytes())),
            said: first_line(response.headers(), response.body().as_deref().unwrap_or_default()),
        }),
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {
            Err(UpgradeError::Subprotocol(subprotocol))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Takes the peer's request for a WebSocket at `path` that speaks one of `subprotocols`, of which the first that the
/// peer offers counts. For a connection that carries nothing else; behind an HTTP server, use [`answer`] and
/// [`from_upgraded`]. Cancelling it closes the pipe.
///
/// # Errors
///
/// The peer sends no such request. One for something else is answered, and one for no WebSocket at all is not.
pub async fn accept<P: Pipe>(
    pipe: P,
    path: &str,
    subprotocols: &[&str],
) -> Result<WebSocketPipe<P>, UpgradeError> {
    let mut agreed = None;
    let mut refused = None;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let decide = |request: &server::Request, _: server::Response| {
        let Answer { response, subprotocol } = answer(request, path, subprotocols);
        agreed = subprotocol;
        if agreed.is_some() {
            return Ok(response.map(|_| ()));
        }
        refused = Some((response.status(), response.body().clone()));
        Err(response.map(Some))
    };
    match accept_hdr_async_with_config(pipe, decide, Some(settings())).await {
        Ok(stream) => {
            let subprotocol = agreed.expect("a request without a subprotocol was refused");
            Ok(WebSocketPipe::new(stream, subprotocol))
        }
        Err(error) => Err(match refused {
            Some((status, why)) => UpgradeError::Unacceptable { status, why: why.trim_end().to_owned() },
            None => failed(error),
        }),
    }
}

/// What an HTTP server says to a request.
#[derive(Debug)]
pub struct Answer {
    /// The answer. Its body is text for whoever asked.
    pub response: Response<String>,
    /// The subprotocol, if the answer is 101: then the connection becomes a WebSocket.
    pub subprotocol: Option<String>,
}

/// Decides about a request for a WebSocket at `path` that speaks one of `subprotocols`, of which the first that the
/// peer offers counts.
///
/// ```
/// use http::Request;
/// use towline_transports::websocket::{SUBPROTOCOL_LINK, answer};
///
/// let request = Request::get("/link")
///     .header("Connection", "Upgrade")
///     .header("Upgrade", "websocket")
///     .header("Sec-WebSocket-Version", "13")
///     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
///     .header("Sec-WebSocket-Protocol", "other, qmux-02.towline");
/// let answer = answer(&request.body(()).unwrap(), "/link", &[SUBPROTOCOL_LINK]);
/// assert_eq!(answer.response.status(), 101);
/// assert_eq!(answer.subprotocol.as_deref(), Some(SUBPROTOCOL_LINK));
/// ```
pub fn answer<B>(request: &Request<B>, path: &str, subprotocols: &[&str]) -> Answer {
    if request.uri().path() != path {
        return refuse(StatusCode::NOT_FOUND, "there is nothing here");
    }
    let mut response = match server::create_response_with_body(request, String::new) {
        Ok(response) => response,
        Err(error) => {
            let mut answer =
                refuse(StatusCode::UPGRADE_REQUIRED, &format!("here is a WebSocket only: {error}"));
            let headers = answer.response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            return answer;
        }
    };
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let offered = offered.map(str::trim).collect::<Vec<_>>();
    let Some(agreed) = subprotocols.iter().find(|name| offered.contains(name)) else {
        let spoken = subprotocols.join(" or ");
        return refuse(StatusCode::BAD_REQUEST, &format!("the subprotocol here is {spoken}"));
    };
    let value = HeaderValue::from_str(agreed).expect("what the peer offered can stand in a header");
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    Answer { response, subprotocol: Some((*agreed).to_owned()) }
}

fn refuse(status: StatusCode, why: &str) -> Answer {
    let mut response = Response::new(format!("{why}\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Answer { response, subprotocol: None }
}

/// The server's end of a WebSocket over a connection that an HTTP server has given up after [`answer`] said so: with
/// hyper, what `hyper::upgrade::on` gives, in a `TokioIo`.
pub async fn from_upgraded<P: Pipe>(pipe: P, subprotocol: String) -> WebSocketPipe<P> {
    let stream = WebSocketStream::from_raw_socket(pipe, Role::Server, Some(settings())).await;
    WebSocketPipe::new(stream, subprotocol)
}

fn failed(error: Error) -> UpgradeError {
    match error {
        Error::Io(error) => UpgradeError::Io(error),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            UpgradeError::Io(io::ErrorKind::UnexpectedEof.into())
        }
        other => UpgradeError::Protocol(other.to_string()),
    }
}

/// The first line of a body, if it is meant to be read by people as it is.
fn first_line(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    if !kind.starts_with("text/plain") {
        return None;
    }
    let line = body.split(|byte| *byte == b'\n').next()?.trim_ascii();
    (!line.is_empty()).then(|| readable(line))
}

fn readable(text: &[u8]) -> String {
    text[..text.len().min(MAX_SAID)].escape_ascii().to_string()
}
