//! A tunnel: bytes both ways between a service and a device, through the hub.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towline_transports::{Code, RecvStream, SendStream, Urgency};

use crate::message::Profile;
use crate::relay::StreamLeg;

/// An open tunnel. Reading gives what the other side wrote; shutting down the writing half is an end of file there.
///
/// The end of file comes only from the other side; if the tunnel is lost, reading and writing fail. Dropping it
/// before both halves have ended resets it.
#[derive(Debug)]
pub struct Tunnel {
    /// Its number at the hub, as it stands in the hub's log, if the hub said so.
    pub id: Option<u64>,
    /// How it ends.
    pub profile: Profile,
    send: SendStream,
    recv: RecvStream,
}

impl Tunnel {
    pub(crate) fn new(id: Option<u64>, profile: Profile, mut send: SendStream, recv: RecvStream) -> Self {
        // The request, or the answer, was urgent; what follows is as urgent as its owner says.
        send.set_urgency(Urgency::default());
        Self { id, profile, send, recv }
    }

    /// Its two halves, for those who read and write in different places, or without copies.
    pub fn into_split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    /// Ends it at once: the other side sees a reset, not an end of file.
    pub fn reset(mut self, code: Code) {
        self.send.reset(code);
        self.recv.stop(code);
    }

    /// It as one side of a [`relay`](crate::relay::relay).
    pub fn into_leg(self) -> StreamLeg {
        StreamLeg::new(self.send, self.recv)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(context)
    }
}
