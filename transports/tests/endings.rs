//! How a link ends when its pipe does not play along: it is stuck, or fails in the middle of a record. The test is
//! the peer, byte by byte.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use common::pattern;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::timeout;
use towline_transports::{Code, Config, Link, LinkClosed, SendStream, Side};

/// The first record of an end with the default limits (docs/PROTOCOL.md, appendix A.1).
const PARAMETERS: &[u8] = b"\x2d\xff\x51\x53\x30\x0d\x0a\x0d\x0a\x24\x01\x02\x7a\x98\
    \x04\x04\x81\x00\x00\x00\x05\x04\x80\x04\x00\x00\x06\x04\x80\x04\x00\x00\x07\x04\x80\x04\x00\x00\
    \x08\x02\x40\x80\x09\x02\x40\x80";

/// A record with a PING of QUIC's, which is prohibited.
const PROHIBITED: &[u8] = b"\x01\x01";

/// A pipe that can be made to fail, and that nobody may ask over and over again once it has.
struct Failing {
    pipe: DuplexStream,
    reads_fail: Arc<AtomicBool>,
    writes_fail: Arc<AtomicBool>,
    asked_in_vain: usize,
}

impl Failing {
    fn ended(&mut self) {
        self.asked_in_vain += 1;
        assert!(self.asked_in_vain < 50, "a busy loop over a pipe that is gone");
    }
}

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(context, buffer);
        if read.is_ready() && buffer.filled().len() == before {
            self.ended();
            if self.reads_fail.load(Ordering::SeqCst) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Failing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writes_fail.load(Ordering::SeqCst) {
            self.ended();
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

/// A link that has filled its pipe: its peer has stopped reading.
struct Stuck {
    link: Link,
    _stream: SendStream,
    peer: DuplexStream,
    reads_fail: Arc<AtomicBool>,
    writes_fail: Arc<AtomicBool>,
}

async fn stuck() -> Stuck {
    let (ours, mut peer) = tokio::io::duplex(1 << 10);
    let (reads_fail, writes_fail) = Default::default();
    let (reads, writes) = (Arc::clone(&reads_fail), Arc::clone(&writes_fail));
    let pipe = Failing { pipe: ours, reads_fail: reads, writes_fail: writes, asked_in_vain: 0 };
    let link = Link::start(pipe, Side::Client, Config::default());
    peer.write_all(PARAMETERS).await.unwrap();
    let (mut stream, _) = link.open_bi().await.unwrap();
    stream.write_all(&pattern(100_000)).await.unwrap();
    // The driver does all that it can.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    Stuck { link, _stream: stream, peer, reads_fail, writes_fail }
}

/// Why the link ended; it must.
async fn closed(link: &Link) -> LinkClosed {
    timeout(Duration::from_secs(3600), link.closed()).await.expect("the link ends")
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanished_in_the_middle_of_bulk_is_given_up() {
    let Stuck { link, mut peer, _stream, .. } = stuck().await;
    assert!(matches!(closed(&link).await, LinkClosed::TimedOut));
    peer.read_to_end(&mut Vec::new()).await.expect("the pipe is closed");
}

#[tokio::test(start_paused = true)]
async fn a_close_that_cannot_get_out_is_given_up() {
    let Stuck { link, mut peer, _stream, .. } = stuck().await;
    let talks = tokio::spawn(async move {
        // It is alive, and does not read. What it says is a record of padding.
        while peer.write_all(b"\x01\x00").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    link.close(Code::from(7), "enough");
    assert!(matches!(closed(&link).await, LinkClosed::Unflushed(code) if code == Code::from(7)));
    talks.await.expect("the pipe is closed");
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_is_lost_while_a_write_is_stuck_ends_the_link_at_once() {
    for how in ["it ends", "reading fails", "writing fails"] {
        let Stuck { link, mut peer, _stream, reads_fail, writes_fail } = stuck().await;
        match how {
            "it ends" => peer.shutdown().await.unwrap(),
            "reading fails" => {
                reads_fail.store(true, Ordering::SeqCst);
                peer.shutdown().await.unwrap();
            }
            _ => {
                writes_fail.store(true, Ordering::SeqCst);
                // There is room again: the pipe is tried.
                peer.read_exact(&mut [0; 1 << 10]).await.unwrap();
            }
        }
        let closed = closed(&link).await;
        let LinkClosed::Lost(error) = closed else { panic!("{how}: {closed}") };
        let kind = match how {
            "it ends" => io::ErrorKind::UnexpectedEof,
            "reading fails" => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::BrokenPipe,
        };
        assert_eq!(error.kind(), kind, "{how}");
        peer.read_to_end(&mut Vec::new()).await.expect("the pipe is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn last_words_wait_a_while_for_a_pipe_that_is_stuck() {
    for half_closed in [false, true] {
        let Stuck { link, mut peer, _stream, .. } = stuck().await;
        peer.write_all(PROHIBITED).await.unwrap();
        if half_closed {
            peer.shutdown().await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut said = Vec::new();
        peer.read_to_end(&mut said).await.unwrap();
        let last = b"a frame of a type that is prohibited or was not negotiated";
        assert!(said.ends_with(last), "the peer is told what it did wrong");
        assert!(matches!(closed(&link).await, LinkClosed::Protocol(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn last_words_that_nobody_takes_are_given_up() {
    let Stuck { link, mut peer, _stream, .. } = stuck().await;
    peer.write_all(PROHIBITED).await.unwrap();
    assert!(matches!(closed(&link).await, LinkClosed::Protocol(_)));
    peer.read_to_end(&mut Vec::new()).await.expect("the pipe is closed");
}

/// A pipe that always has padding to give and takes nothing after the first record.
struct Flood {
    head: Vec<u8>,
    takes: bool,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            // A record of 64 bytes of PADDING, again and again.
            self.head = [&[0x40, 0x40][..], &[0; 64]].concat().repeat(100);
        }
        let count = self.head.len().min(buffer.remaining());
        buffer.put_slice(&self.head.drain(..count).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.takes) { Poll::Ready(Ok(bytes.len())) } else { Poll::Pending }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// A peer that never leaves the driver a moment's rest cannot put the close off.
#[tokio::test(start_paused = true)]
async fn a_busy_pipe_puts_no_deadline_off() {
    let pipe = Flood { head: PARAMETERS.to_vec(), takes: true };
    let link = Link::start(pipe, Side::Client, Config::default());
    let (mut send, _recv) = link.open_bi().await.unwrap();
    send.write_all(b"never to go out").await.unwrap();
    link.close(Code::from(5), "");
    tokio::time::advance(Duration::from_secs(11)).await;
    let closed = tokio::select! {
        closed = link.closed() => closed,
        () = yield_for_long() => panic!("the link goes on"),
    };
    assert!(matches!(closed, LinkClosed::Unflushed(code) if code == Code::from(5)), "{closed}");
}

/// As many turns as the runtime's scheduler has for everybody before a link must be over; the lingering needs some time.
async fn yield_for_long() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(4)).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}
