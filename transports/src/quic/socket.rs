//! A socket that asks for no larger receive buffers than what comes can fill.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// What the system hands over at once has at most as many bytes, be it one datagram or many as one (UDP GRO).
const LARGEST_RECEIVE: usize = 65_535;

/// quinn takes a buffer of the largest datagram times [`max_receive_segments`](AsyncUdpSocket::max_receive_segments)
/// for each of 32 receives. By the count alone, 64 on Linux, that is 13 MB an endpoint with datagrams of 6,500 bytes. Hardly
/// any of it is ever touched; but once that has been freed, glibc keeps up to twice as much in each of its arenas, for
/// good.
pub(super) struct Frugal {
    inner: Arc<dyn AsyncUdpSocket>,
    receive_segments: usize,
}

impl Frugal {
    /// A socket that takes datagrams of up to `max_udp_payload_size` bytes.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, max_udp_payload_size: u64) -> Self {
        let size = usize::try_from(max_udp_payload_size).map_or(LARGEST_RECEIVE, |size| size.max(1));
        let receive_segments = inner.max_receive_segments().min(LARGEST_RECEIVE.div_ceil(size));
        Self { inner, receive_segments }
    }
}

impl fmt::Debug for Frugal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncUdpSocket for Frugal {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::network::wrap_udp;

    /// Whatever the system hands over fits, and there is no room for more datagrams than that.
    #[tokio::test]
    async fn buffers_hold_what_comes_at_once_and_hardly_more() {
        let (socket, _runtime) = wrap_udp(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let offload = socket.max_receive_segments();
        for size in [1_200, 1_472, 6_500, 65_527_usize] {
            let segments = Frugal::new(socket.clone(), size as u64).max_receive_segments();
            assert!(segments <= offload);
            assert!(segments * size >= LARGEST_RECEIVE || segments == offload);
            assert!(segments * size < LARGEST_RECEIVE + size);
        }
        assert!(Frugal::new(socket, 0).max_receive_segments() <= offload);
    }
}
