//! A network in memory, for a clock that stands still whenever somebody works: what takes ten seconds there takes none
//! here, and always the same.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::{Mutex, mpsc};
use towline_transports::{Listener, Network, Socket};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One end of a connection.
#[derive(Debug)]
pub struct MemorySocket(DuplexStream);

/// A connection, and the address that was asked for.
type Asked = (String, MemorySocket);

/// Everybody who connects gets to the one who listens, by whatever address. There is no UDP.
#[derive(Debug)]
pub struct MemoryNetwork {
    connects: mpsc::UnboundedSender<Asked>,
    listens: Arc<Mutex<mpsc::UnboundedReceiver<Asked>>>,
}

impl MemoryNetwork {
    pub fn new() -> Self {
        let (connects, listens) = mpsc::unbounded_channel();
        Self { connects, listens: Arc::new(Mutex::new(listens)) }
    }

    /// The next connection, and the address that it should lead to.
    pub async fn accept(&self) -> Asked {
        self.listens.lock().await.recv().await.expect("the network is here")
    }
}

impl Network for MemoryNetwork {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        let (ours, theirs) = duplex(64 << 10);
        let taken = self.connects.send((address.to_owned(), MemorySocket(theirs)));
        let taken = taken.map_err(|_| io::ErrorKind::ConnectionRefused.into());
        Box::pin(std::future::ready(taken.map(|()| Box::new(MemorySocket(ours)) as Box<dyn Socket>)))
    }

    fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let listener = MemoryListener(self.listens.clone());
        Box::pin(std::future::ready(Ok(Box::new(listener) as Box<dyn Listener>)))
    }
}

/// Whoever listens.
#[derive(Debug)]
struct MemoryListener(Arc<Mutex<mpsc::UnboundedReceiver<Asked>>>);

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>> {
        Box::pin(async {
            let (_, socket) = self.0.lock().await.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
            Ok((Box::new(socket) as Box<dyn Socket>, address()))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address())
    }
}

/// A name that certificates of a [`World`](super::World) are for.
fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 443))
}

impl Socket for MemorySocket {
    fn abort(&mut self) {}
}

impl AsyncRead for MemorySocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for MemorySocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
