//! Other products that carry bytes from a local port to a target, as processes at the two ends.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde::Serialize;

use super::chain::{Chain, Site};
use super::{bore, penguin, rathole, socat, ssh};
use crate::process::{self, Needs};
use crate::report;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// What it is called on the command line and in results.
    pub(crate) name: &'static str,
    /// What it takes.
    needs: Needs,
    /// How many legs between the near end and the target are encrypted.
    pub(crate) legs: u8,
    /// What it is made of.
    pub(crate) note: &'static str,
    /// How the first program tells its version, and what stands before that.
    version: (&'static str, &'static str),
    /// Starts it, and waits until it carries something.
    pub(crate) start: fn(&Site, SocketAddr) -> anyhow::Result<Chain>,
}

/// A peer that cannot be measured.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// Which.
    pub peer: &'static str,
    /// What there is not.
    pub program: &'static str,
    /// How one gets it.
    pub install: &'static str,
}

/// Those that are known.
pub(crate) const PEERS: [Peer; 5] = [
    Peer {
        name: socat::NAME,
        needs: socat::NEEDS,
        legs: 2,
        note: "TLS to a meeting point and TLS from there, certificates on both sides; each connection has one of its own \
               over the line, and processes of its own",
        version: ("-V", "socat version "),
        start: socat::start,
    },
    Peer {
        name: "ssh",
        needs: ssh::NEEDS,
        legs: 2,
        note: "ssh -L to an sshd at the meeting point, on which an ssh -R of the device has a port; all connections share one \
               TCP connection, with AES-128-GCM",
        version: ("-V", ""),
        start: ssh::start,
    },
    Peer {
        name: "rathole",
        needs: rathole::NEEDS,
        legs: 1,
        note: "TLS; its server is at the near end, since its callers get to it without encryption, and its client dials over the \
               line; connections are made in advance",
        version: ("--version", "Build Version:"),
        start: rathole::start,
    },
    Peer {
        name: "penguin",
        needs: penguin::NEEDS,
        legs: 1,
        note: "a WebSocket over TLS from its client to its server, which is beside the target; all connections share one TCP \
               connection",
        version: ("--version", ""),
        start: penguin::start,
    },
    Peer {
        name: "bore",
        needs: bore::NEEDS,
        legs: 0,
        note: "not encrypted at all; its server is at the near end, and its client dials over the line for each connection",
        version: ("--version", ""),
        start: bore::start,
    },
];

/// One word of a command line that says which.
#[derive(Clone, Debug)]
pub enum Peers {
    /// All that are known.
    All,
    /// None of them.
    None,
    /// This one.
    One(Peer),
}

impl Peers {
    /// What is called so on the command line.
    ///
    /// # Errors
    ///
    /// There is nothing; the error has what there is.
    pub fn named(name: &str) -> Result<Self, String> {
        let known = || PEERS.map(|peer| peer.name).join(", ");
        match name {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            name => match PEERS.into_iter().find(|peer| peer.name == name) {
                Some(peer) => Ok(Self::One(peer)),
                None => Err(format!("there is no peer {name:?}: there are all, none, {}", known())),
            },
        }
    }
}

/// Which peers these words mean: who is named twice is there once.
pub fn list(words: &[Peers]) -> Vec<Peer> {
    let each = |word: &Peers| match word {
        Peers::All => PEERS.to_vec(),
        Peers::None => Vec::new(),
        Peers::One(peer) => vec![*peer],
    };
    let mut peers = words.iter().flat_map(each).collect();
    report::once(&mut peers, |peer| peer.name);
    peers
}

impl Peer {
    /// What it lacks, if anything.
    fn missing(&self) -> Option<Missing> {
        let program = self.needs.missing()?;
        Some(Missing { peer: self.name, program, install: self.needs.install })
    }

    /// What it says of its version.
    pub(crate) fn version(&self) -> Option<String> {
        let (option, before) = self.version;
        let mut command = Command::new(process::find(self.needs.programs[0])?);
        let said = command.arg(option).stdin(Stdio::null()).output().ok()?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        said.lines().find_map(|line| Some(line.strip_prefix(before)?.trim().to_owned()))
    }
}

/// Those of `peers` that are installed, and what the others lack.
pub(crate) fn installed(peers: &[Peer]) -> (Vec<Peer>, Vec<Missing>) {
    let there = peers.iter().filter(|peer| peer.missing().is_none()).copied().collect();
    (there, peers.iter().filter_map(Peer::missing).collect())
}
