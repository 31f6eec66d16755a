//! The crate qmux: another implementation of the protocol that ours speaks.

use ::qmux::transport;
use ::qmux::{Config, RecvStream, SendStream, Session, Version};
use bytes::Bytes;
use web_transport_trait::{RecvStream as _, SendStream as _, Session as _};

use towline_transports::Pipe;

use super::{Accept, BIG_SESSION, BIG_STREAM, Muxer, Open, Stream, UP, Windows};

/// It, with these windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Qmux(pub(crate) Windows);

#[derive(Clone)]
pub(crate) struct Opener(Session);

pub(crate) struct Acceptor(Session);

pub(crate) struct QmuxStream(SendStream, RecvStream);

impl Qmux {
    fn config(self) -> Config {
        let mut config = Config::new(Version::QMux02);
        if self.0 == Windows::Big {
            config.max_data = BIG_SESSION.into();
            config.max_stream_data_bidi_local = BIG_STREAM.into();
            config.max_stream_data_bidi_remote = BIG_STREAM.into();
        }
        config
    }
}

impl<P: Pipe> Muxer<P> for Qmux {
    type Opener = Opener;
    type Acceptor = Acceptor;

    async fn opener(self, pipe: P) -> Opener {
        let config = self.config();
        let transport = transport::Stream::new(pipe, config.version, config.max_record_size);
        Opener(Session::connect(transport, config).await.expect(UP))
    }

    async fn acceptor(self, pipe: P) -> Acceptor {
        let config = self.config();
        let transport = transport::Stream::new(pipe, config.version, config.max_record_size);
        Acceptor(Session::accept(transport, config).await.expect(UP))
    }
}

impl Open for Opener {
    type Stream = QmuxStream;

    async fn open(&self) -> QmuxStream {
        let (send, recv) = self.0.open_bi().await.expect(UP);
        QmuxStream(send, recv)
    }
}

impl Accept for Acceptor {
    type Stream = QmuxStream;

    async fn accept(&mut self) -> Option<QmuxStream> {
        let (send, recv) = self.0.accept_bi().await.ok()?;
        Some(QmuxStream(send, recv))
    }
}

impl Stream for QmuxStream {
    async fn write(&mut self, data: Bytes) {
        self.0.write_chunk(data).await.expect(UP);
    }

    async fn read(&mut self, mut look: impl FnMut(&[u8]) + Send) -> usize {
        let Some(chunk) = self.1.read_chunk(usize::MAX).await.expect(UP) else { return 0 };
        look(&chunk);
        chunk.len()
    }

    async fn finish(&mut self) {
        self.0.finish().expect(UP);
    }
}
