//! Our links.

use std::pin::Pin;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use towline_transports::{Config, Link, Pipe, RecvStream, SendStream, Side};

use super::{Accept, BIG_FRAME, BIG_SESSION, BIG_STREAM, Muxer, Open, Stream, UP, Windows};

/// How many streams may be open at a time.
const STREAMS: u64 = 1 << 16;

/// Links, in one of three ways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Towline {
    pub(crate) windows: Windows,
    /// Copy bytes in and out, instead of handing slices over.
    pub(crate) copies: bool,
}

#[derive(Clone)]
pub(crate) struct Opener(Link, bool);

pub(crate) struct Acceptor(Link, bool);

pub(crate) struct LinkStream {
    send: SendStream,
    recv: RecvStream,
    copies: bool,
}

impl Opener {
    /// The opener of a link, with slices in and out.
    pub(crate) fn of(link: Link) -> Self {
        Self(link, false)
    }
}

impl Acceptor {
    /// The acceptor of a link, with slices in and out.
    pub(crate) fn of(link: Link) -> Self {
        Self(link, false)
    }
}

/// What a session of ours is told.
pub(crate) fn config(windows: Windows) -> Config {
    let mut config = Config::default();
    config.max_streams_bidi = STREAMS;
    if windows == Windows::Big {
        config.stream_window = BIG_STREAM.into();
        config.session_window = BIG_SESSION.into();
        config.send_buffer = BIG_STREAM.into();
        config.max_record_size = BIG_FRAME.into();
    }
    config
}

impl<P: Pipe> Muxer<P> for Towline {
    type Opener = Opener;
    type Acceptor = Acceptor;

    async fn opener(self, pipe: P) -> Opener {
        Opener(Link::start(pipe, Side::Client, config(self.windows)), self.copies)
    }

    async fn acceptor(self, pipe: P) -> Acceptor {
        Acceptor(Link::start(pipe, Side::Server, config(self.windows)), self.copies)
    }
}

impl Open for Opener {
    type Stream = LinkStream;

    async fn open(&self) -> LinkStream {
        let (send, recv) = self.0.open_bi().await.expect(UP);
        LinkStream { send, recv, copies: self.1 }
    }
}

impl Accept for Acceptor {
    type Stream = LinkStream;

    async fn accept(&mut self) -> Option<LinkStream> {
        let (send, recv) = self.0.accept_bi().await.ok()?;
        Some(LinkStream { send, recv, copies: self.1 })
    }
}

impl Stream for LinkStream {
    async fn write(&mut self, mut data: Bytes) {
        if self.copies {
            AsyncWriteExt::write_all(&mut self.send, &data).await.expect(UP);
        } else {
            self.send.write_chunk(&mut data).await.expect(UP);
        }
    }

    async fn read(&mut self, mut look: impl FnMut(&[u8]) + Send) -> usize {
        if self.copies {
            return super::scratch::read(Pin::new(&mut self.recv), look).await;
        }
        let Some(chunk) = self.recv.read_chunk(usize::MAX).await.expect(UP) else { return 0 };
        look(&chunk);
        chunk.len()
    }

    async fn finish(&mut self) {
        self.send.finish().expect(UP);
    }
}
