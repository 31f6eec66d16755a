//! The pipe alone: one stream, which is the pipe.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Accept, Muxer, Open, Pipe, Stream, UP};

/// No muxer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare;

#[derive(Clone)]
pub(crate) struct Opener(Arc<Mutex<Option<BareStream>>>);

pub(crate) struct Acceptor(Option<BareStream>);

pub(crate) struct BareStream {
    pipe: Pipe,
    buffer: Vec<u8>,
}

impl Muxer for Bare {
    type Opener = Opener;
    type Acceptor = Acceptor;

    async fn start(self, ours: Pipe, theirs: Pipe) -> (Opener, Acceptor) {
        let stream = |pipe| Some(BareStream { pipe, buffer: vec![0; 64 << 10] });
        (Opener(Arc::new(Mutex::new(stream(ours)))), Acceptor(stream(theirs)))
    }
}

impl Open for Opener {
    type Stream = BareStream;

    async fn open(&self) -> BareStream {
        self.0.lock().expect(UP).take().expect("a pipe carries one stream")
    }
}

impl Accept for Acceptor {
    type Stream = BareStream;

    async fn accept(&mut self) -> Option<BareStream> {
        self.0.take()
    }
}

impl Stream for BareStream {
    async fn write(&mut self, data: Bytes) {
        self.pipe.write_all(&data).await.expect(UP);
    }

    async fn read(&mut self) -> usize {
        self.pipe.read(&mut self.buffer).await.expect(UP)
    }

    async fn finish(&mut self) {
        self.pipe.shutdown().await.expect(UP);
    }
}
