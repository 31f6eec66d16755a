//! Muxers of others, or none, over TCP or tokio-rustls.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use towline_transports::Pipe;

use super::{Connect, Listen, Transport};
use crate::muxer::{Muxer, UP};
use crate::transports::trust::{self, HOST, Trust};

/// A pipe of `S`, with `M` in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTcp<S, M>(pub(crate) S, pub(crate) M);

/// What is around a TCP connection.
pub(crate) trait Secure: Copy + Send + Sync + 'static {
    type Client: Clone + Send + Sync + 'static;
    type Server: Clone + Send + Sync + 'static;
    type Pipe: Pipe;

    fn client(trust: &Trust) -> anyhow::Result<Self::Client>;

    fn server(trust: &Trust) -> anyhow::Result<Self::Server>;

    fn connect(config: Self::Client, socket: TcpStream) -> impl Future<Output = Self::Pipe> + Send;

    fn accept(config: Self::Server, socket: TcpStream) -> impl Future<Output = Self::Pipe> + Send;
}

/// Nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

impl Secure for Plain {
    type Client = ();
    type Server = ();
    type Pipe = TcpStream;

    fn client(_: &Trust) -> anyhow::Result<()> {
        Ok(())
    }

    fn server(_: &Trust) -> anyhow::Result<()> {
        Ok(())
    }

    async fn connect((): (), socket: TcpStream) -> TcpStream {
        socket
    }

    async fn accept((): (), socket: TcpStream) -> TcpStream {
        socket
    }
}

/// tokio-rustls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tls;

impl Secure for Tls {
    type Client = Arc<ClientConfig>;
    type Server = Arc<ServerConfig>;
    type Pipe = TlsStream<TcpStream>;

    fn client(trust: &Trust) -> anyhow::Result<Self::Client> {
        trust.client_config()
    }

    fn server(trust: &Trust) -> anyhow::Result<Self::Server> {
        trust.server_config()
    }

    async fn connect(config: Self::Client, socket: TcpStream) -> Self::Pipe {
        TlsConnector::from(config).connect(trust::name(), socket).await.expect(UP).into()
    }

    async fn accept(config: Self::Server, socket: TcpStream) -> Self::Pipe {
        TlsAcceptor::from(config).accept(socket).await.expect(UP).into()
    }
}

#[derive(Clone)]
pub(crate) struct Connector<S: Secure, M> {
    muxer: M,
    config: S::Client,
    address: SocketAddr,
}

pub(crate) struct Listener<S: Secure, M> {
    muxer: M,
    config: S::Server,
    inner: TcpListener,
}

/// A listening socket, and where it is.
pub(crate) async fn listen() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((HOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A connection, which does not wait to coalesce small writes.
pub(crate) async fn dial(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).await.expect(UP);
    socket.set_nodelay(true).expect(UP);
    socket
}

/// The same, at the other end.
pub(crate) async fn take(listener: &TcpListener) -> TcpStream {
    let (socket, _) = listener.accept().await.expect(UP);
    socket.set_nodelay(true).expect(UP);
    socket
}

impl<S: Secure, M: Muxer<S::Pipe>> Transport for OverTcp<S, M> {
    type Connector = Connector<S, M>;
    type Listener = Listener<S, M>;

    async fn listen(self, trust: &Trust) -> anyhow::Result<(Self::Listener, SocketAddr)> {
        let (inner, address) = listen().await?;
        Ok((Listener { muxer: self.1, config: S::server(trust)?, inner }, address))
    }

    fn connector(self, trust: &Trust, address: SocketAddr) -> anyhow::Result<Self::Connector> {
        Ok(Connector { muxer: self.1, config: S::client(trust)?, address })
    }
}

impl<S: Secure, M: Muxer<S::Pipe>> Connect for Connector<S, M> {
    type Opener = M::Opener;

    async fn connect(&self) -> M::Opener {
        let socket = dial(self.address).await;
        self.muxer.opener(S::connect(self.config.clone(), socket).await).await
    }
}

impl<S: Secure, M: Muxer<S::Pipe>> Listen for Listener<S, M> {
    type Acceptor = M::Acceptor;

    async fn accept(&mut self) -> BoxFuture<'static, M::Acceptor> {
        let socket = take(&self.inner).await;
        let (muxer, config) = (self.muxer, self.config.clone());
        Box::pin(async move { muxer.acceptor(S::accept(config, socket).await).await })
    }
}
