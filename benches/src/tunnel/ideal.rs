//! The least that a tunnel of two encrypted legs can be with this library: TLS at each leg, certificates on both sides, and
//! bytes that are copied from one to the other. No devices, no flow control, no second connection on a leg.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::part::Parts;
use super::target::PIECE;
use crate::transports::contender::tcp;
use crate::transports::contender::unbuffered::{Records, splice};
use crate::transports::trust::{self, Trust};

/// What the middle is made of. The ends are tokio-rustls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Middle {
    /// tokio-rustls, and a buffer of 64 KiB each way.
    Buffered,
    /// rustls through its unbuffered interface: what is opened in one buffer is sealed into the other, and nothing is copied.
    Unbuffered,
}

/// It. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Ideal {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    pub(crate) parts: Parts,
    pub(crate) middle: Middle,
}

/// The TLS configurations of all.
#[derive(Clone)]
struct Configs {
    connects: Arc<ClientConfig>,
    listens: Arc<ServerConfig>,
}

impl Ideal {
    /// One that leads to `target`.
    pub(crate) async fn start(target: SocketAddr, middle: Middle) -> anyhow::Result<Self> {
        let (parts, trust) = (Parts::start()?, Trust::new()?);
        let configs = Configs { connects: trust.client_config()?, listens: trust.server_config()? };
        let own = configs.clone();
        let far = parts.far.run(listen(move |socket| far(socket, own.clone(), target))).await?;
        let own = configs.clone();
        let hub = parts.middle.run(listen(move |socket| hub(socket, own.clone(), far, middle))).await?;
        let address = parts.near.run(listen(move |socket| near(socket, configs.clone(), hub))).await?;
        Ok(Self { address, parts, middle })
    }
}

/// Listens at a port, and has `serve` for each who comes. Who leaves early measures nothing.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> anyhow::Result<SocketAddr>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (listener, address) = tcp::listen().await?;
    tokio::spawn(async move {
        loop {
            let socket = tcp::take(&listener).await;
            tokio::spawn(serve(socket));
        }
    });
    Ok(address)
}

async fn near(socket: TcpStream, configs: Configs, hub: SocketAddr) -> anyhow::Result<()> {
    let leg = tcp::dial(hub).await;
    let leg = TlsConnector::from(configs.connects).connect(trust::name(), leg).await?;
    copy(socket, leg).await
}

async fn hub(socket: TcpStream, configs: Configs, far: SocketAddr, middle: Middle) -> anyhow::Result<()> {
    let onward = tcp::dial(far).await;
    let Configs { connects, listens } = configs;
    match middle {
        Middle::Buffered => {
            let socket = TlsAcceptor::from(listens).accept(socket).await?;
            let onward = TlsConnector::from(connects).connect(trust::name(), onward).await?;
            copy(socket, onward).await
        }
        Middle::Unbuffered => {
            let accepted = UnbufferedServerConnection::new(listens)?;
            let dialled = UnbufferedClientConnection::new(connects, trust::name())?;
            let accepted = Records::shake_hands(socket, accepted).await;
            splice(accepted, Records::shake_hands(onward, dialled).await).await;
            Ok(())
        }
    }
}

async fn far(socket: TcpStream, configs: Configs, target: SocketAddr) -> anyhow::Result<()> {
    let socket = TlsAcceptor::from(configs.listens).accept(socket).await?;
    copy(socket, tcp::dial(target).await).await
}

async fn copy(
    mut one: impl AsyncRead + AsyncWrite + Unpin,
    mut other: impl AsyncRead + AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    copy_bidirectional_with_sizes(&mut one, &mut other, PIECE, PIECE).await?;
    Ok(())
}
