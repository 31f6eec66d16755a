//! The usual way to a machine behind a firewall: `ssh -R`. The device's side connects outward to an ssh server, which
//! listens for it on a port.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};

use super::chain::{Chain, find, free_ports};

/// An ssh server, and a client with a port there that leads to the target.
pub(crate) fn start(target: SocketAddr) -> anyhow::Result<Chain> {
    let [near, server] = free_ports()?;
    let mut chain = Chain::new(near, false)?;
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
        "Port {server}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nPidFile {dir}/pid\n\
         AuthorizedKeysFile {dir}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel ERROR\n"
    );
    fs::write(&config, text)?;
    let sshd = find("sshd").context("there is no sshd")?;
    chain.start(Command::new(sshd).arg("-D").arg("-e").arg("-f").arg(&config))?;
    let user = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?;
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-N",
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "ConnectionAttempts=50",
    ]);
    ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    ssh.arg("-i").arg(folder.join("user")).args(["-p", &server.to_string()]);
    ssh.args(["-R", &format!("127.0.0.1:{near}:{target}"), &format!("{}@127.0.0.1", user.trim())]);
    chain.start(&mut ssh)?;
    chain.wait_until_ready()
}
