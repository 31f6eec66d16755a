//! The same shape made of socat: a local port, TLS to a meeting point, TLS to the far end, the target.
//!
//! Three processes, each in the part that the service, the hub and the device have; certificates on both sides, as
//! there.

use std::net::SocketAddr;
use std::process::Command;

use super::chain::{Chain, End, Site};
use super::keys;
use super::target::PIECE;
use crate::process::Needs;

/// What it takes.
pub(crate) const NEEDS: Needs = Needs { programs: &["socat"], install: "apt install socat" };

/// What it is called.
pub(crate) const NAME: &str = "socat";

/// Three socats in a row: one at the near end, and two at the far one.
pub(crate) fn start(site: &Site, target: SocketAddr) -> anyhow::Result<Chain> {
    let host = site.address(End::Far);
    let [middle, far] = [site.free_port(End::Far)?, site.free_port(End::Far)?];
    let mut chain = Chain::new(site, true)?;
    let (folder, near) = (chain.folder().to_owned(), chain.address.port());
    keys::write(&folder, host)?;
    let options = |name| {
        let (keys, root) = (folder.join(name), folder.join(keys::ROOT));
        let (keys, root) = (keys.display(), root.display());
        format!("cert={keys},cafile={root},verify=1,openssl-min-proto-version=TLS1.3,nodelay")
    };
    let [listens, connects] = [keys::LISTENS, keys::CONNECTS].map(options);
    let listen = |port| format!("OPENSSL-LISTEN:{port},bind={host},reuseaddr,fork,{listens}");
    let connect = |port| format!("OPENSSL:{host}:{port},{connects}");
    let tcp = "bind=127.0.0.1,reuseaddr,fork,nodelay";
    let socat = |from: String, to: String| {
        let mut socat = Command::new(NAME);
        socat.arg("-b").arg(PIECE.to_string()).args([from, to]);
        socat
    };
    chain.start(End::Far, &mut socat(listen(far), format!("TCP:{target},nodelay")))?;
    chain.wait_until_listening(End::Far, (host, far).into())?;
    chain.start_middle(&mut socat(listen(middle), connect(far)))?;
    chain.wait_until_listening(End::Far, (host, middle).into())?;
    chain.start(End::Near, &mut socat(format!("TCP-LISTEN:{near},{tcp}"), connect(middle)))?;
    chain.wait_until_ready()
}
