//! bore: a server at the near end with a port for whoever calls, and the target's side, which connects to it. Nothing is
//! encrypted.

use std::net::SocketAddr;
use std::process::Command;

use super::chain::{Chain, End, Site};
use crate::process::Needs;

/// What it takes.
pub(crate) const NEEDS: Needs = Needs { programs: &["bore"], install: "cargo install bore-cli" };

/// Where its server listens for clients. It cannot be told to do so elsewhere.
const CONTROL: u16 = 7835;

/// A bore server at the near end, and a client at the far one that shares the target.
pub(crate) fn start(site: &Site, target: SocketAddr) -> anyhow::Result<Chain> {
    let mut chain = Chain::new(site, false)?;
    let (server, near) = (site.address(End::Near), chain.address);
    let mut bore = Command::new("bore");
    bore.args(["server", "--bind-addr", &server.to_string(), "--bind-tunnels", &near.ip().to_string()]);
    chain.start(End::Near, &mut bore)?;
    chain.wait_until_listening(End::Near, (server, CONTROL).into())?;
    let mut bore = Command::new("bore");
    bore.args(["local", &target.port().to_string(), "--local-host", &target.ip().to_string()]);
    bore.args(["--to", &server.to_string(), "--port", &near.port().to_string()]);
    chain.start(End::Far, &mut bore)?;
    chain.wait_until_ready()
}
