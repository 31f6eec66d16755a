//! The ways from the near end to the target, each of which is started anew whenever its turn has come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use towline::Transport;
use towline_sim::profile::Profile;

use crate::lab::stage::{BareQuic, Stage};
use crate::tunnel::chain::{Chain, Site};
use crate::tunnel::peers::Peer;
use crate::tunnel::product::NearEnd;
use crate::tunnel::target;

/// A way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// No tunnel at all.
    Direct,
    /// One QUIC connection to the other end, without a hub.
    BareQuic,
    /// The product: each connection is a tunnel.
    Tunnels(Transport),
    /// The product: all connections share a session end to end.
    EndToEnd(Transport),
    /// Another product.
    Peer(Peer),
}

/// A way that carries something. [`close`](Self::close) ends it.
pub(crate) struct Open {
    /// Where one connects, at the near end.
    pub(crate) address: SocketAddr,
    /// How long it took from the start of the part that dials over the line until a request was answered.
    pub(crate) cold: Duration,
    parts: Parts,
}

/// What has to go when it ends.
enum Parts {
    Nothing,
    BareQuic { _ends: BareQuic },
    Product(NearEnd),
    Peer(Chain),
}

impl Way {
    /// What it is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Direct => "no tunnel".into(),
            Self::BareQuic => BareQuic::NAME.into(),
            Self::Tunnels(transport) => format!("{transport}, tunnels"),
            Self::EndToEnd(transport) => format!("{transport}, end to end"),
            Self::Peer(peer) => peer.name.into(),
        }
    }

    /// How many legs between the near end and the target are encrypted.
    pub(crate) fn legs(&self) -> u8 {
        match self {
            Self::Direct => 0,
            Self::BareQuic => 1,
            Self::Tunnels(_) | Self::EndToEnd(_) => 2,
            Self::Peer(peer) => peer.legs,
        }
    }

    /// Why there is no such way over a line like this, if there is none.
    pub(crate) fn impossible(&self, line: &Profile) -> Option<&'static str> {
        let is_udp = match self {
            Self::BareQuic => true,
            Self::Tunnels(transport) | Self::EndToEnd(transport) => *transport == Transport::Quic,
            Self::Direct | Self::Peer(_) => false,
        };
        (is_udp && line.blocks_udp).then_some("QUIC needs UDP, which this line does not carry")
    }

    /// What it is made of.
    pub(crate) fn note(&self) -> &'static str {
        match self {
            Self::Direct => "TCP from the near end to the target, not encrypted",
            Self::BareQuic => {
                "quinn, with the same congestion controller and windows of 4 MiB: one connection from the near end to the far one, \
                 without a hub, whose streams are the connections"
            }
            Self::Tunnels(_) => {
                "the caller's link to the hub over this transport, and the device's to the hub over TLS; each connection is a \
                 tunnel, which is a stream of both"
            }
            Self::EndToEnd(_) => {
                "the same links; in one tunnel, a session between caller and device with encryption of its own, whose streams \
                 are the connections"
            }
            Self::Peer(peer) => peer.note,
        }
    }

    /// Starts it.
    pub(crate) fn open(&self, stage: &Stage) -> anyhow::Result<Open> {
        match self {
            Self::Direct => {
                let (address, start) = (stage.target, Instant::now());
                stage.near(|| Ok(target::request(address)?)).context("a request")?;
                Ok(Open { address, cold: start.elapsed(), parts: Parts::Nothing })
            }
            Self::BareQuic => {
                let ends = stage.bare_quic()?;
                let (address, start) = (ends.near.address, Instant::now());
                stage.near(|| Ok(target::request(address)?)).context("the first request")?;
                Ok(Open { address, cold: start.elapsed(), parts: Parts::BareQuic { _ends: ends } })
            }
            Self::Tunnels(transport) | Self::EndToEnd(transport) => {
                let start = Instant::now();
                let near = stage.near_end(*transport)?;
                let is_end_to_end = matches!(self, Self::EndToEnd(_));
                let address = if is_end_to_end { near.session } else { near.forward };
                if let Err(error) = stage.near(|| Ok(target::request(address)?)) {
                    stage.end(near);
                    return Err(error).context("the first request");
                }
                Ok(Open { address, cold: start.elapsed(), parts: Parts::Product(near) })
            }
            Self::Peer(peer) => {
                let chain = (peer.start)(&Site::of(&stage.lab), stage.target)?;
                Ok(Open { address: chain.address, cold: chain.cold, parts: Parts::Peer(chain) })
            }
        }
    }
}

impl Open {
    /// Ends it.
    pub(crate) fn close(self, stage: &Stage) {
        match self.parts {
            Parts::Nothing | Parts::BareQuic { .. } => {}
            Parts::Product(near) => stage.end(near),
            Parts::Peer(chain) => drop(chain),
        }
    }
}
