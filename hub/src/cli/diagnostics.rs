//! The small web page that the demo's device serves: what it is, and a file to fetch.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::Instant;
use towline_transports::crypto::digest;

/// How large the file is.
pub(crate) const FILE_SIZE: u64 = 64 << 20;

const BLOCK: usize = 64 << 10;

/// What the page tells.
#[derive(Debug)]
struct Page {
    device: String,
    hub: SocketAddr,
    start: Instant,
}

/// Serves the page on a free port of the loopback. Returns its address; it is served by a task of its own.
#[expect(clippy::disallowed_methods, reason = "the page is a local program, not a part of the network")]
pub(crate) async fn serve(device: String, hub: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let page = Arc::new(Page { device, hub, start: Instant::now() });
    let router = Router::new().route("/", get(index)).route("/file", get(file)).with_state(page);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn index(State(page): State<Arc<Page>>) -> Html<String> {
    let proc = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let load = proc("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    let memory = proc("/proc/meminfo");
    let memory = |field: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default();
        format!("{:.1} GiB", kib as f64 / f64::from(1 << 20))
    };
    let rows = [
        ("Device", page.device.clone()),
        ("Runs", towline::AGENT.to_owned()),
        ("System", format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("Host name", proc("/proc/sys/kernel/hostname").trim().to_owned()),
        ("Up for", format!("{} s", page.start.elapsed().as_secs())),
        ("Load", load),
        ("Memory", format!("{} of {} free", memory("MemAvailable:"), memory("MemTotal:"))),
        ("Its only connection", format!("outward, to the hub at {}", page.hub)),
    ];
    let rows: String = rows
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(value)))
        .collect();
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"5\">\n\
         <title>{device}</title>\n<style>{STYLE}</style>\n\
         <main>\n<h1>{device}</h1>\n<p>You see this page through a Towline tunnel. Nothing listens at the device's \
         side but on its own loopback; it was reached by its name.</p>\n<table>\n{rows}</table>\n\
         <p><a href=\"/file\">Fetch a file of {size} MiB</a> from it.</p>\n</main>\n</html>\n",
        device = escaped(&page.device),
        size = FILE_SIZE >> 20,
    ))
}

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1c2430}\
main{max-width:40rem;margin:3rem auto;padding:2rem;background:#fff;border-radius:12px;\
box-shadow:0 1px 4px #0002}\
h1{margin:0 0 .5rem;font-size:1.6rem}\
table{border-collapse:collapse;width:100%;margin:1.5rem 0}\
th,td{text-align:left;padding:.45rem .5rem;border-top:1px solid #e3e6ea}\
th{font-weight:600;color:#566;white-space:nowrap;padding-right:1.5rem}\
td{font-variant-numeric:tabular-nums}\
a{color:#0b62c4}\
@media(prefers-color-scheme:dark){body{background:#12161c;color:#d8dee6}main{background:#1b2129}\
th{color:#9ab}th,td{border-color:#2c343e}a{color:#6db0ff}}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

async fn file() -> Response {
    let blocks = Blocks::default().map(Ok::<_, io::Error>);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, FILE_SIZE.to_string()),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"towline-demo.bin\"".to_owned()),
    ];
    (StatusCode::OK, headers, Body::from_stream(tokio_stream::iter(blocks))).into_response()
}

/// The file's contents: the same bytes every time, which no compression makes smaller.
#[derive(Debug)]
struct Blocks {
    left: u64,
    /// xorshift64*, which needs no more than to look random.
    state: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { left: FILE_SIZE, state: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Iterator for Blocks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        self.left -= BLOCK as u64;
        let mut block = Vec::with_capacity(BLOCK);
        while block.len() < BLOCK {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            block.extend_from_slice(&self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        Some(block.into())
    }
}

/// The file's SHA-256, from its contents and not from what was fetched.
pub(crate) fn file_digest() -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    Blocks::default().for_each(|block| context.update(&block));
    context.finish()
}
