//! The crate tokio-yamux.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio_yamux::{Config, Control, Session, StreamHandle};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadBuf};

use towline_transports::Pipe;

use super::{Accept, BIG_STREAM, Muxer, Open, Stream, UP, Windows, scratch};

/// It, with these windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokioYamux(pub(crate) Windows);

#[derive(Clone)]
pub(crate) struct Opener(Control);

pub(crate) struct Acceptor<P>(Session<P>);

pub(crate) struct YamuxStream(StreamHandle);

impl TokioYamux {
    fn config(self) -> Config {
        let mut config = Config::default();
        if self.0 == Windows::Big {
            config.max_stream_window_size = BIG_STREAM;
        }
        config
    }
}

impl<P: Pipe> Muxer<P> for TokioYamux {
    type Opener = Opener;
    type Acceptor = Acceptor<P>;

    async fn opener(self, pipe: P) -> Opener {
        let mut session = Session::new_client(pipe, self.config());
        let control = session.control();
        tokio::spawn(async move { while session.next().await.is_some() {} });
        Opener(control)
    }

    async fn acceptor(self, pipe: P) -> Acceptor<P> {
        Acceptor(Session::new_server(pipe, self.config()))
    }
}

impl Open for Opener {
    type Stream = YamuxStream;

    async fn open(&self) -> YamuxStream {
        YamuxStream(self.0.clone().open_stream().await.expect(UP))
    }
}

impl<P: Pipe> Accept for Acceptor<P> {
    type Stream = YamuxStream;

    async fn accept(&mut self) -> Option<YamuxStream> {
        self.0.next().await?.ok().map(YamuxStream)
    }
}

impl YamuxStream {
    /// A stream learns that its window has grown only when it is read, so whoever waits to write must look.
    fn poll_write(&mut self, context: &mut Context<'_>, data: &[u8]) -> Poll<usize> {
        if let Poll::Ready(written) = Pin::new(&mut self.0).poll_write(context, data) {
            return Poll::Ready(written.expect(UP));
        }
        // Nothing is taken: there is no room to take it into.
        let _ = self.0.poll_peek(context, &mut ReadBuf::new(&mut []));
        Pin::new(&mut self.0).poll_write(context, data).map(|written| written.expect(UP))
    }
}

impl Stream for YamuxStream {
    async fn write(&mut self, data: Bytes) {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let count = poll_fn(|context| self.poll_write(context, rest)).await;
            rest = &rest[count..];
        }
    }

    async fn read(&mut self, look: impl FnMut(&[u8]) + Send) -> usize {
        scratch::read(Pin::new(&mut self.0), look).await
    }

    async fn finish(&mut self) {
        self.0.shutdown().await.expect(UP);
    }
}
