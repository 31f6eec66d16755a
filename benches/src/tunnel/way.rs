//! The ways from a client to the target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tokio::task::block_in_place;
use towline::{Environment, Service};

use super::chain::{Chain, Site};
use super::ideal::{Ideal, Middle};
use super::part::{Cpu, Part};
use super::peers::Peer;
use super::product::{self, Apart};
use super::target;

/// Those that need no program of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// No tunnel: what the load can do
    None,
    /// The product, used as a library
    Library,
    /// The product's tunnels, through a local port
    Tunnels,
    /// The product's session end to end, through a local port
    EndToEnd,
    /// The least that two legs of TLS are with tokio-rustls: bytes that are copied, with 64 KiB each way
    Splice,
    /// The same, whose middle opens bytes in one buffer and seals them into another: for transfers only
    SpliceUnbuffered,
}

impl Which {
    /// What it is called in results.
    fn name(self) -> &'static str {
        match self {
            Self::None => "no tunnel",
            Self::Library => "towline, as a library",
            Self::Tunnels => "towline, tunnels",
            Self::EndToEnd => "towline, end to end",
            Self::Splice => "splice",
            Self::SpliceUnbuffered => "splice, unbuffered",
        }
    }

    fn legs(self) -> u8 {
        match self {
            Self::None => 0,
            _ => 2,
        }
    }
}

/// One of them.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// How many legs of it are encrypted.
    pub(crate) legs: u8,
    entry: Entry,
    made_of: MadeOf,
}

/// Where a way begins.
enum Entry {
    /// At a local port.
    Port(SocketAddr),
    /// In a program that uses the product as a library, in its near end.
    Library(Arc<Part>, Service),
}

/// What it costs CPU time of, beside the load.
enum MadeOf {
    Nothing,
    Product(Arc<Apart>),
    Ideal(Ideal),
    Peer(Chain),
}

impl Way {
    /// Those of `which`, in its order; the product is the same one for all.
    pub(crate) async fn ours(target: SocketAddr, which: &[Which]) -> anyhow::Result<Vec<Self>> {
        let mut product = None;
        let mut ways = Vec::with_capacity(which.len());
        for which in which {
            let (entry, made_of) = match which {
                Which::None => (Entry::Port(target), MadeOf::Nothing),
                Which::Library | Which::Tunnels | Which::EndToEnd => {
                    let product: &Arc<Apart> = match &mut product {
                        Some(product) => product,
                        none => none.insert(Apart::start(target, &Environment::system()).await?.into()),
                    };
                    let near = &product.near;
                    let entry = match which {
                        Which::Tunnels => Entry::Port(near.forward),
                        Which::EndToEnd => Entry::Port(near.session),
                        _ => Entry::Library(product.parts.near.clone(), near.service.clone()),
                    };
                    (entry, MadeOf::Product(product.clone()))
                }
                Which::Splice | Which::SpliceUnbuffered => {
                    let is_buffered = matches!(which, Which::Splice);
                    let middle = if is_buffered { Middle::Buffered } else { Middle::Unbuffered };
                    let ideal = Ideal::start(target, middle).await?;
                    (Entry::Port(ideal.address), MadeOf::Ideal(ideal))
                }
            };
            ways.push(Self { name: which.name(), legs: which.legs(), entry, made_of });
        }
        Ok(ways)
    }

    /// Another product.
    pub(crate) fn peer(target: SocketAddr, peer: &Peer) -> anyhow::Result<Self> {
        let chain = block_in_place(|| (peer.start)(&Site::loopback(), target))?;
        let entry = Entry::Port(chain.address);
        Ok(Self { name: peer.name, legs: peer.legs, entry, made_of: MadeOf::Peer(chain) })
    }

    /// Where a client connects, if it does not use the product as a library.
    pub(crate) fn port(&self) -> Option<SocketAddr> {
        match self.entry {
            Entry::Port(port) => Some(port),
            Entry::Library(..) => None,
        }
    }

    /// Whether it is there for transfers alone: what is not made for connections that are reset.
    pub(crate) fn only_transfers(&self) -> bool {
        matches!(&self.made_of, MadeOf::Ideal(ideal) if ideal.middle == Middle::Unbuffered)
    }

    /// The CPU time of all that it is made of. The load is not in it, but for that of the library's user.
    pub(crate) fn cpu(&self) -> anyhow::Result<Option<Cpu>> {
        match &self.made_of {
            MadeOf::Nothing => Ok(None),
            MadeOf::Product(product) => Ok(Some(product.parts.cpu())),
            MadeOf::Ideal(ideal) => Ok(Some(ideal.parts.cpu())),
            MadeOf::Peer(chain) => block_in_place(|| chain.cpu()).map(Some),
        }
    }

    pub(crate) async fn upload(&self, bytes: u64) -> anyhow::Result<Duration> {
        match &self.entry {
            Entry::Port(port) => Ok(block_in_place(|| target::upload(*port, bytes))?),
            Entry::Library(near, service) => near.run(product::upload(service.clone(), bytes)).await,
        }
    }

    pub(crate) async fn download(&self, bytes: u64) -> anyhow::Result<Duration> {
        match &self.entry {
            Entry::Port(port) => Ok(block_in_place(|| target::download(*port, bytes))?),
            Entry::Library(near, service) => near.run(product::download(service.clone(), bytes)).await,
        }
    }

    /// Makes `count` requests, one after the other. Returns how long each took until there was a tunnel, where that
    /// can be seen, and until all was done.
    pub(crate) async fn requests(&self, count: usize) -> anyhow::Result<[Vec<Duration>; 2]> {
        match &self.entry {
            Entry::Port(port) => {
                let requests = || (0..count).map(|_| target::request(*port)).collect::<Result<_, _>>();
                Ok([Vec::new(), block_in_place(requests)?])
            }
            Entry::Library(near, service) => near.run(product::requests(service.clone(), count)).await,
        }
    }
}
