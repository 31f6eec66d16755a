//! rathole, which is one leg: its server listens for clients next to itself, and the device's side connects outward to it
//! with TLS.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};

use super::chain::{Chain, End, Site};
use super::keys;
use crate::process::Needs;

/// What it takes.
pub(crate) const NEEDS: Needs = Needs {
    programs: &["rathole", "openssl"],
    install: "apt install openssl libssl-dev pkg-config; cargo install rathole",
};

/// What keeps the keys' file shut; there is no file without.
const PASSWORD: &str = "bench";

/// A rathole server at the near end, and a client at the far one whose service is the target.
pub(crate) fn start(site: &Site, target: SocketAddr) -> anyhow::Result<Chain> {
    let host = site.address(End::Near);
    let server = SocketAddr::from((host, site.free_port(End::Near)?));
    let mut chain = Chain::new(site, false)?;
    let (folder, near) = (chain.folder().to_owned(), chain.address);
    let dir = folder.display();
    keys::write(&folder, host)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}")]);
    openssl.arg("-in").arg(folder.join(keys::LISTENS)).arg("-out").arg(folder.join("keys.pfx"));
    ensure!(openssl.status().context("openssl does not start")?.success(), "openssl makes no keys.pfx");
    let name = "[server.services.target]";
    fs::write(
        folder.join("server.toml"),
        format!(
            "[server]\nbind_addr = \"{server}\"\ndefault_token = \"bench\"\n\
             [server.transport]\ntype = \"tls\"\n[server.transport.tls]\n\
             pkcs12 = \"{dir}/keys.pfx\"\npkcs12_password = \"{PASSWORD}\"\n\
             {name}\nbind_addr = \"{near}\"\n"
        ),
    )?;
    fs::write(
        folder.join("client.toml"),
        format!(
            "[client]\nremote_addr = \"{server}\"\ndefault_token = \"bench\"\n\
             [client.transport]\ntype = \"tls\"\n[client.transport.tls]\n\
             trusted_root = \"{dir}/{}\"\nhostname = \"{host}\"\n\
             {}\nlocal_addr = \"{target}\"\n",
            keys::ROOT,
            name.replace("server", "client"),
        ),
    )?;
    for (side, end) in [("server", End::Near), ("client", End::Far)] {
        let mut rathole = Command::new("rathole");
        rathole.env("RUST_LOG", "error").arg(format!("--{side}")).arg(folder.join(format!("{side}.toml")));
        chain.start(end, &mut rathole)?;
        if side == "server" {
            chain.wait_until_listening(End::Near, server)?;
        }
    }
    chain.wait_until_ready()
}
