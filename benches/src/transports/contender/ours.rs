//! Our links, with the limits that a hub and its endpoints give them, over sockets of the product's network.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use rustls::{ClientConfig, ServerConfig};
use towline::link_config;
use towline_transports::tls::{self, ALPN_LINK, Hello};
use towline_transports::websocket::{self, SUBPROTOCOL_LINK};
use towline_transports::{Link, Network, Side, TcpNetwork, quic};

use super::{Connect, Listen, Transport};
use crate::muxer::UP;
use crate::muxer::towline::{Acceptor, Opener};
use crate::transports::trust::{self, HOST, Trust};

/// Where the WebSocket is.
const PATH: &str = "/towline";

/// What is beneath the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    Tcp,
    Tls,
    WebSocket,
    Quic,
}

#[derive(Clone)]
pub(crate) enum Connector {
    Tcp(SocketAddr),
    Tls(SocketAddr, Arc<ClientConfig>),
    WebSocket { address: SocketAddr, link: Arc<ClientConfig>, outer: Arc<ClientConfig> },
    Quic { address: SocketAddr, endpoint: quic::Endpoint, config: Box<quic::ClientConfig> },
}

pub(crate) enum Listener {
    Tcp(Box<dyn towline_transports::Listener>),
    Tls(Box<dyn towline_transports::Listener>, Arc<ServerConfig>),
    WebSocket {
        listener: Box<dyn towline_transports::Listener>,
        link: Arc<ServerConfig>,
        outer: Arc<ServerConfig>,
    },
    Quic(quic::Endpoint),
}

impl Transport for Ours {
    type Connector = Connector;
    type Listener = Listener;

    async fn listen(self, trust: &Trust) -> anyhow::Result<(Listener, SocketAddr)> {
        let (environment, credentials) = (trust::environment(), trust.far()?);
        if self == Self::Quic {
            let config = quic::server_config(credentials, &environment, link_config(Side::Server))?;
            let endpoint = quic::Endpoint::new(UdpSocket::bind((HOST, 0))?, Some(config), &environment)?;
            // Nobody here is a stranger.
            let endpoint = endpoint.retry_from(usize::MAX).over(Arc::new(TcpNetwork));
            let address = endpoint.local_addr()?;
            return Ok((Listener::Quic(endpoint), address));
        }
        let listener = TcpNetwork.listen(&format!("{HOST}:0")).await?;
        let address = listener.local_addr()?;
        let outer = websocket::outer_server_config(
            credentials.chain.clone(),
            credentials.key.clone_key(),
            &environment,
        )?;
        let link = tls::server_config(credentials, &[ALPN_LINK], &environment)?;
        let listener = match self {
            Self::Tcp => Listener::Tcp(listener),
            Self::WebSocket => Listener::WebSocket { listener, link, outer },
            Self::Tls | Self::Quic => Listener::Tls(listener, link),
        };
        Ok((listener, address))
    }

    fn connector(self, trust: &Trust, address: SocketAddr) -> anyhow::Result<Connector> {
        let (environment, credentials) = (trust::environment(), trust.near()?);
        Ok(match self {
            Self::Tcp => Connector::Tcp(address),
            Self::Tls => {
                Connector::Tls(address, tls::client_config(credentials, &[ALPN_LINK], &environment)?)
            }
            Self::WebSocket => {
                let outer = websocket::outer_client_config(credentials.roots.clone(), &environment)?;
                let link = tls::client_config(credentials, &[ALPN_LINK], &environment)?;
                Connector::WebSocket { address, link, outer }
            }
            Self::Quic => {
                let config = quic::client_config(credentials, &environment, link_config(Side::Client))?;
                let endpoint = quic::Endpoint::towards(Arc::new(TcpNetwork), address, &environment)?;
                Connector::Quic { address, endpoint, config: Box::new(config) }
            }
        })
    }
}

impl Connect for Connector {
    type Opener = Opener;

    async fn connect(&self) -> Opener {
        let dial = async |address: &SocketAddr| TcpNetwork.connect(&address.to_string()).await.expect(UP);
        let limits = link_config(Side::Client);
        Opener::of(match self {
            Self::Tcp(address) => Link::start(dial(address).await, Side::Client, limits),
            Self::Tls(address, config) => {
                let pipe = tls::connect(dial(address).await, trust::name(), config.clone()).await;
                Link::over_tls(pipe.expect(UP), Side::Client, limits)
            }
            Self::WebSocket { address, link, outer } => {
                let socket = dial(address).await;
                let pipe = websocket::connect_outer(socket, trust::name(), outer.clone()).await.expect(UP);
                let pipe = websocket::connect(pipe, &address.to_string(), PATH, SUBPROTOCOL_LINK).await;
                let pipe = tls::connect(pipe.expect(UP), trust::name(), link.clone()).await;
                Link::over_tls(pipe.expect(UP), Side::Client, limits)
            }
            Self::Quic { address, endpoint, config } => {
                endpoint.connect(*address, HOST, config).await.expect(UP).start()
            }
        })
    }
}

impl Listen for Listener {
    type Acceptor = Acceptor;

    async fn accept(&mut self) -> BoxFuture<'static, Acceptor> {
        let limits = link_config(Side::Server);
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await.expect(UP);
                Box::pin(async move { Acceptor::of(Link::start(socket, Side::Server, limits)) })
            }
            Self::Tls(listener, config) => {
                let (socket, _) = listener.accept().await.expect(UP);
                let config = config.clone();
                Box::pin(async move {
                    let pipe = tls::accept(socket, config).await.expect(UP);
                    Acceptor::of(Link::over_tls(pipe, Side::Server, limits))
                })
            }
            Self::WebSocket { listener, link, outer } => {
                let (socket, _) = listener.accept().await.expect(UP);
                let (link, outer) = (link.clone(), outer.clone());
                Box::pin(async move {
                    let hello = Hello::read(socket, BytesMut::new()).await.expect(UP);
                    let pipe = websocket::accept_outer(hello, outer).await.expect(UP);
                    let pipe = websocket::accept(pipe, PATH, &[SUBPROTOCOL_LINK]).await.expect(UP);
                    let pipe = tls::accept(pipe, link).await.expect(UP);
                    Acceptor::of(Link::over_tls(pipe, Side::Server, limits))
                })
            }
            Self::Quic(endpoint) => {
                let incoming = endpoint.accept().await.expect(UP);
                Box::pin(async move { Acceptor::of(incoming.handshake().await.expect(UP).start()) })
            }
        }
    }
}
