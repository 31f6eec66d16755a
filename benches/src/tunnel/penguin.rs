//! Penguin, which is one leg: its client has a local port, and a WebSocket over TLS to its server, which connects to the
//! target.

use std::net::SocketAddr;
use std::process::Command;

use super::chain::{Chain, End, Site};
use super::keys;
use crate::process::Needs;

/// What it takes.
pub(crate) const NEEDS: Needs = Needs { programs: &["penguin"], install: "cargo install rusty-penguin" };

/// A penguin server at the far end, and a client at the near one.
pub(crate) fn start(site: &Site, target: SocketAddr) -> anyhow::Result<Chain> {
    let server = SocketAddr::from((site.address(End::Far), site.free_port(End::Far)?));
    let mut chain = Chain::new(site, false)?;
    let folder = chain.folder().to_owned();
    keys::write(&folder, site.address(End::Far))?;
    let mut penguin = Command::new("penguin");
    penguin.args(["server", "--host", &server.ip().to_string(), "--port", &server.port().to_string()]);
    penguin.arg("--tls-cert").arg(folder.join(keys::LISTENS_CERTIFICATE));
    penguin.arg("--tls-key").arg(folder.join(keys::LISTENS_KEY));
    chain.start(End::Far, &mut penguin)?;
    chain.wait_until_listening(End::Far, server)?;
    let mut penguin = Command::new("penguin");
    penguin.arg("client").arg("--tls-ca").arg(folder.join(keys::ROOT));
    penguin.args([format!("wss://{server}/ws"), format!("{}:{target}", chain.address)]);
    chain.start(End::Near, &mut penguin)?;
    chain.wait_until_ready()
}
