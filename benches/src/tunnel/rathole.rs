//! rathole, which is one leg: its server listens for clients next to itself, and the device's side connects outward to it
//! with TLS.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::chain::{Chain, free_ports};
use super::keys;
use anyhow::{Context, ensure};

/// What keeps the keys' file shut; there is no file without.
const PASSWORD: &str = "bench";

/// A rathole server, and a client whose service is the target.
pub(crate) fn start(target: SocketAddr) -> anyhow::Result<Chain> {
    let [near, server] = free_ports()?;
    let mut chain = Chain::new(near, false)?;
    let folder = chain.folder().to_owned();
    let dir = folder.display();
    keys::write(&folder)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}")]);
    openssl.arg("-in").arg(folder.join(keys::LISTENS)).arg("-out").arg(folder.join("keys.pfx"));
    ensure!(openssl.status().context("openssl does not start")?.success(), "openssl makes no keys.pfx");
    let name = "[server.services.target]";
    fs::write(
        folder.join("server.toml"),
        format!(
            "[server]\nbind_addr = \"127.0.0.1:{server}\"\ndefault_token = \"bench\"\n\
             [server.transport]\ntype = \"tls\"\n[server.transport.tls]\n\
             pkcs12 = \"{dir}/keys.pfx\"\npkcs12_password = \"{PASSWORD}\"\n\
             {name}\nbind_addr = \"127.0.0.1:{near}\"\n"
        ),
    )?;
    fs::write(
        folder.join("client.toml"),
        format!(
            "[client]\nremote_addr = \"127.0.0.1:{server}\"\ndefault_token = \"bench\"\n\
             [client.transport]\ntype = \"tls\"\n[client.transport.tls]\n\
             trusted_root = \"{dir}/{}\"\nhostname = \"127.0.0.1\"\n\
             {}\nlocal_addr = \"{target}\"\n",
            keys::ROOT,
            name.replace("server", "client"),
        ),
    )?;
    for side in ["server", "client"] {
        let mut rathole = Command::new("rathole");
        rathole.env("RUST_LOG", "error").arg(format!("--{side}")).arg(folder.join(format!("{side}.toml")));
        chain.start(&mut rathole)?;
    }
    chain.wait_until_ready()
}
