//! A UDP socket in the middle of which a test sits.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::Runtime;
use quinn::udp::{RecvMeta, Transmit};
use towline_transports::quic::AsyncUdpSocket;

use super::socket;

/// A socket on which somebody sees what is sent, and says whether it is.
pub struct Tapped<F> {
    socket: Arc<dyn AsyncUdpSocket>,
    tap: F,
}

impl<F: Fn(&Transmit<'_>) -> bool> Tapped<F> {
    pub fn new(tap: F) -> Arc<Self> {
        Arc::new(Self { socket: quinn::TokioRuntime.wrap_udp_socket(socket()).unwrap(), tap })
    }
}

impl<F> fmt::Debug for Tapped<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl<F: Fn(&Transmit<'_>) -> bool + Send + Sync + 'static> AsyncUdpSocket for Tapped<F> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if (self.tap)(transmit) { self.socket.try_send(transmit) } else { Ok(()) }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
