//! The pipe alone: one stream, which is the pipe.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use towline_transports::Pipe;

use super::{Accept, Muxer, Open, Stream, UP};

/// No muxer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    /// How much is read at a time, in bytes.
    pub(crate) buffer: usize,
}

impl Default for Bare {
    fn default() -> Self {
        Self { buffer: 64 << 10 }
    }
}

/// Something that is opened once: the one stream of what carries one.
pub(crate) struct OpenOnce<S>(Arc<Mutex<Option<S>>>);

impl<S> OpenOnce<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }
}

impl<S> Clone for OpenOnce<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The same, at the other end.
pub(crate) struct AcceptOnce<S>(pub(crate) Option<S>);

pub(crate) struct BareStream<P> {
    pipe: P,
    buffer: Vec<u8>,
}

impl Bare {
    fn stream<P>(self, pipe: P) -> BareStream<P> {
        BareStream { pipe, buffer: vec![0; self.buffer] }
    }
}

impl<P: Pipe> Muxer<P> for Bare {
    type Opener = OpenOnce<BareStream<P>>;
    type Acceptor = AcceptOnce<BareStream<P>>;

    async fn opener(self, pipe: P) -> Self::Opener {
        OpenOnce::new(self.stream(pipe))
    }

    async fn acceptor(self, pipe: P) -> Self::Acceptor {
        AcceptOnce(Some(self.stream(pipe)))
    }
}

impl<S: Stream> Open for OpenOnce<S> {
    type Stream = S;

    async fn open(&self) -> S {
        self.0.lock().expect(UP).take().expect("a pipe carries one stream")
    }
}

impl<S: Stream> Accept for AcceptOnce<S> {
    type Stream = S;

    async fn accept(&mut self) -> Option<S> {
        self.0.take()
    }
}

impl<P: Pipe> Stream for BareStream<P> {
    async fn write(&mut self, data: Bytes) {
        self.pipe.write_all(&data).await.expect(UP);
        self.pipe.flush().await.expect(UP);
    }

    async fn read(&mut self, mut look: impl FnMut(&[u8]) + Send) -> usize {
        let count = self.pipe.read(&mut self.buffer).await.expect(UP);
        look(&self.buffer[..count]);
        count
    }

    async fn finish(&mut self) {
        self.pipe.shutdown().await.expect(UP);
    }
}
