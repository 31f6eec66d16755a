//! The usual way to a machine behind a firewall: `ssh -R`. The device's side connects outward to an ssh server, which
//! listens for it on a port; whoever calls gets to that port with an `ssh -L` of their own.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};

use super::chain::{Chain, End, Site};
use crate::process::Needs;
use crate::process::find;

/// What it takes.
pub(crate) const NEEDS: Needs =
    Needs { programs: &["ssh", "sshd", "ssh-keygen"], install: "apt install openssh-client openssh-server" };

/// An ssh server at the far end, a client there with a port on it that leads to the target, and a client at the near end
/// whose port leads to that one: two legs.
pub(crate) fn start(site: &Site, target: SocketAddr) -> anyhow::Result<Chain> {
    let mut chain = Chain::new(site, false)?;
    let server = start_server(&mut chain, site)?;
    let middle = SocketAddr::from(([127, 0, 0, 1], site.free_port(End::Far)?));
    let mut device = client(&chain, server);
    device.args(["-R", &format!("{middle}:{target}")]);
    chain.start(End::Far, &mut address(device, server)?)?;
    chain.wait_until_listening(End::Far, middle)?;
    let mut caller = client(&chain, server);
    caller.args(["-L", &format!("{}:{middle}", chain.address)]);
    chain.start(End::Near, &mut address(caller, server)?)?;
    chain.wait_until_ready()
}

/// An ssh server at the far end, and keys for it.
fn start_server(chain: &mut Chain, site: &Site) -> anyhow::Result<SocketAddr> {
    let server = SocketAddr::from((site.address(End::Far), site.free_port(End::Far)?));
    let folder = chain.folder().to_owned();
    let dir = folder.display();
    for name in ["host", "user"] {
        let key = folder.join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key).status();
        ensure!(made.context("ssh-keygen does not start")?.success(), "ssh-keygen makes no key");
    }
    // Where Debian's sshd wants to be separated from its privileges; elsewhere it is not needed.
    let _ = fs::create_dir_all("/run/sshd");
    let config = folder.join("sshd_config");
    let text = format!(
        "Port {}\nListenAddress {}\nHostKey {dir}/host\nPidFile {dir}/pid\n\
         AuthorizedKeysFile {dir}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel ERROR\n",
        server.port(),
        server.ip(),
    );
    fs::write(&config, text)?;
    let sshd = find("sshd").context("there is no sshd")?;
    chain.start_middle(Command::new(sshd).arg("-D").arg("-e").arg("-f").arg(&config))?;
    chain.wait_until_listening(End::Far, server)?;
    Ok(server)
}

/// An ssh client that does nothing yet.
fn client(chain: &Chain, server: SocketAddr) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-N", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
    // The quickest one, as all peers are measured at their best.
    ssh.args(["-c", "aes128-gcm@openssh.com"]);
    ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    ssh.arg("-i").arg(chain.folder().join("user")).args(["-p", &server.port().to_string()]);
    ssh
}

/// Says whom it connects to.
fn address(mut ssh: Command, server: SocketAddr) -> anyhow::Result<Command> {
    let user = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?;
    ssh.arg(format!("{}@{}", user.trim(), server.ip()));
    Ok(ssh)
}
