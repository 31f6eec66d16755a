//! quinn as it comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};

use super::{Connect, Listen, Transport, Use};
use crate::muxer::{Accept, Open, Stream, UP};
use crate::transports::trust::{HOST, Trust};

/// It, in one of two settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quinn {
    pub(crate) used: Use,
    /// No discovery of the MTU, no datagrams, and when idle room for 16 streams.
    pub(crate) tuned: bool,
}

impl Quinn {
    fn transport(self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        transport.congestion_controller_factory(Arc::new(CubicConfig::default()));
        if self.used == Use::Idle {
            // Nobody says anything, and that must not be the end.
            transport.max_idle_timeout(None);
        }
        if self.tuned {
            transport.mtu_discovery_config(None).datagram_receive_buffer_size(None);
            if self.used == Use::Idle {
                // For each stream that may be there is an entry in a table.
                transport.max_concurrent_bidi_streams(16_u32.into()).max_concurrent_uni_streams(0_u32.into());
            }
        }
        Arc::new(transport)
    }
}

#[derive(Clone)]
pub(crate) struct Connector {
    endpoint: Endpoint,
    address: SocketAddr,
}

pub(crate) struct Listener(Endpoint);

#[derive(Clone)]
pub(crate) struct Opener(Connection);

pub(crate) struct Acceptor(Connection);

pub(crate) struct QuicStream(SendStream, RecvStream);

impl Transport for Quinn {
    type Connector = Connector;
    type Listener = Listener;

    async fn listen(self, trust: &Trust) -> anyhow::Result<(Listener, SocketAddr)> {
        let crypto = QuicServerConfig::try_from(trust.server_config()?)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(self.transport());
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
        let address = endpoint.local_addr()?;
        Ok((Listener(endpoint), address))
    }

    fn connector(self, trust: &Trust, address: SocketAddr) -> anyhow::Result<Connector> {
        let crypto = QuicClientConfig::try_from(trust.client_config()?)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport());
        let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        endpoint.set_default_client_config(config);
        Ok(Connector { endpoint, address })
    }
}

impl Connect for Connector {
    type Opener = Opener;

    async fn connect(&self) -> Opener {
        Opener(self.endpoint.connect(self.address, HOST).expect(UP).await.expect(UP))
    }
}

impl Listen for Listener {
    type Acceptor = Acceptor;

    async fn accept(&mut self) -> BoxFuture<'static, Acceptor> {
        let incoming = self.0.accept().await.expect(UP);
        Box::pin(async move { Acceptor(incoming.await.expect(UP)) })
    }
}

impl Open for Opener {
    type Stream = QuicStream;

    async fn open(&self) -> QuicStream {
        let (send, recv) = self.0.open_bi().await.expect(UP);
        QuicStream(send, recv)
    }
}

impl Accept for Acceptor {
    type Stream = QuicStream;

    async fn accept(&mut self) -> Option<QuicStream> {
        let (send, recv) = self.0.accept_bi().await.ok()?;
        Some(QuicStream(send, recv))
    }
}

impl Stream for QuicStream {
    async fn write(&mut self, data: Bytes) {
        self.0.write_chunk(data).await.expect(UP);
    }

    async fn read(&mut self, mut look: impl FnMut(&[u8]) + Send) -> usize {
        let Some(chunk) = self.1.read_chunk(usize::MAX, true).await.expect(UP) else { return 0 };
        look(&chunk.bytes);
        chunk.bytes.len()
    }

    async fn finish(&mut self) {
        self.0.finish().expect(UP);
    }
}
