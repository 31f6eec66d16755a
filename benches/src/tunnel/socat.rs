//! The same shape made of socat: a local port, TLS to a meeting point, TLS to the far end, the target.
//!
//! Three processes, each in the part that the service, the hub and the device have; certificates on both sides, as
//! there.

use std::net::SocketAddr;
use std::process::Command;

use super::chain::{Chain, free_ports};
use super::keys;
use super::target::PIECE;

/// What it is called.
pub(crate) const NAME: &str = "socat";

/// Three socats in a row.
pub(crate) fn start(target: SocketAddr) -> anyhow::Result<Chain> {
    let [near, middle, far] = free_ports()?;
    let mut chain = Chain::new(near, true)?;
    let folder = chain.folder();
    keys::write(folder)?;
    let options = |name| {
        let (keys, root) = (folder.join(name), folder.join(keys::ROOT));
        let (keys, root) = (keys.display(), root.display());
        format!("cert={keys},cafile={root},verify=1,openssl-min-proto-version=TLS1.3,nodelay")
    };
    let [listens, connects] = [keys::LISTENS, keys::CONNECTS].map(options);
    let listen = |port| format!("OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,{listens}");
    let connect = |port| format!("OPENSSL:127.0.0.1:{port},{connects}");
    let tcp = "bind=127.0.0.1,reuseaddr,fork,nodelay";
    for (from, to) in [
        (listen(far), format!("TCP:{target},nodelay")),
        (listen(middle), connect(far)),
        (format!("TCP-LISTEN:{near},{tcp}"), connect(middle)),
    ] {
        chain.start(Command::new("socat").arg("-b").arg(PIECE.to_string()).args([from, to]))?;
    }
    chain.wait_until_ready()
}
