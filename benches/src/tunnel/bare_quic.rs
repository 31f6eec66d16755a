//! One QUIC connection from the near end to the far one, without a hub: each connection to a local port is a stream of it, and
//! at the other end a connection to the target. quinn, with our links' congestion controller and windows that hold nobody up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt,
};
use tokio::io::{copy_bidirectional_with_sizes, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::target::PIECE;
use crate::transports::trust::{HOST, Trust};

/// How many bytes may be on their way: as on our links, and more than any line of the laboratory holds.
const WINDOW: u32 = 4 << 20;

/// After how long a silence it is asked whether the other end is there: our links ask as often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How many streams may be open.
const STREAMS: u32 = 4096;

/// The end that accepts, and leads to the target. When it is dropped nobody new is accepted, and who is there stays until the
/// other end goes.
#[derive(Debug)]
pub(crate) struct FarEnd {
    address: SocketAddr,
    trust: Trust,
    task: JoinHandle<()>,
}

/// The end that connects. When it is dropped nobody new is accepted; it goes with the last connection to it.
#[derive(Debug)]
pub(crate) struct NearEnd {
    /// A local port, each connection to which is a stream.
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl FarEnd {
    /// One at `host`.
    pub(crate) async fn start(host: IpAddr, target: SocketAddr) -> anyhow::Result<Self> {
        let trust = Trust::new()?;
        let crypto = QuicServerConfig::try_from(trust.server_config()?)?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport());
        let endpoint = Endpoint::server(config, (host, 0).into())?;
        let address = endpoint.local_addr()?;
        let task = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(serve(incoming, target));
            }
        });
        Ok(Self { address, trust, task })
    }
}

impl NearEnd {
    /// One that leads to `far`. It connects when it is first used.
    pub(crate) async fn start(far: &FarEnd) -> anyhow::Result<Self> {
        let crypto = QuicClientConfig::try_from(far.trust.client_config()?)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport());
        let mut endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
        endpoint.set_default_client_config(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, to) = (listener.local_addr()?, far.address);
        let task = tokio::spawn(async move {
            let connection = Arc::new(OnceCell::new());
            while let Ok((socket, _)) = listener.accept().await {
                let (endpoint, connection) = (endpoint.clone(), connection.clone());
                // Who leaves early measures nothing.
                tokio::spawn(async move {
                    let connection: &Connection =
                        connection.get_or_try_init(|| connect(&endpoint, to)).await?;
                    let stream = connection.open_bi().await?;
                    copy(socket, stream).await
                });
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for NearEnd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(endpoint: &Endpoint, to: SocketAddr) -> anyhow::Result<Connection> {
    endpoint.connect(to, HOST)?.await.context("the far end does not answer")
}

async fn serve(incoming: quinn::Incoming, target: SocketAddr) -> anyhow::Result<()> {
    let connection = incoming.await?;
    loop {
        let stream = connection.accept_bi().await?;
        tokio::spawn(async move { copy(TcpStream::connect(target).await?, stream).await });
    }
}

async fn copy(mut socket: TcpStream, (send, recv): (SendStream, RecvStream)) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = join(recv, send);
    let copied = copy_bidirectional_with_sizes(&mut socket, &mut stream, PIECE, PIECE).await;
    if copied.is_err() {
        // What was accepted is not carried on, as it is not with ours.
        let _ = stream.into_inner().1.reset(VarInt::from_u32(0));
        socket.set_zero_linger()?;
    }
    copied?;
    Ok(())
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS));
    Arc::new(transport)
}
