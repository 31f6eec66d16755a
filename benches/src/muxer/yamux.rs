//! The crate yamux, of rust-libp2p, in two versions that differ in nothing that is used here.
//!
//! A connection works while it is asked for inbound streams. The acceptor asks anyway; at the opener a task does, and
//! streams are opened through a lock that they share, so that no message has to go from task to task.

macro_rules! yamux {
    ($module:ident, $muxer:ident) => {
        mod $module {
            use std::future::poll_fn;
            use std::sync::{Arc, Mutex};
            use std::task::Waker;

            use bytes::Bytes;
            use futures_util::{AsyncWriteExt, StreamExt};
            use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
            use $module::{Config, Connection, Mode};

            use towline_transports::Pipe;

            use crate::muxer::{Accept, Muxer, Open, Stream, UP};

            type Shared<P> = Arc<Mutex<(Connection<Compat<P>>, Option<Waker>)>>;

            /// It, with its defaults.
            #[derive(Clone, Copy, Debug)]
            pub(crate) struct $muxer;

            pub(crate) struct Opener<P>(Shared<P>);

            impl<P> Clone for Opener<P> {
                fn clone(&self) -> Self {
                    Self(self.0.clone())
                }
            }

            pub(crate) struct Acceptor<P>(Connection<Compat<P>>);

            pub(crate) struct YamuxStream($module::Stream);

            impl<P: Pipe> Muxer<P> for $muxer {
                type Opener = Opener<P>;
                type Acceptor = Acceptor<P>;

                async fn opener(self, pipe: P) -> Opener<P> {
                    let ours = Connection::new(pipe.compat(), Config::default(), Mode::Client);
                    let shared: Shared<P> = Arc::new(Mutex::new((ours, None)));
                    let driven = shared.clone();
                    tokio::spawn(poll_fn(move |context| {
                        let (connection, waker) = &mut *driven.lock().expect(UP);
                        *waker = Some(context.waker().clone());
                        connection.poll_next_inbound(context).map(|_| ())
                    }));
                    Opener(shared)
                }

                async fn acceptor(self, pipe: P) -> Acceptor<P> {
                    Acceptor(Connection::new(pipe.compat(), Config::default(), Mode::Server))
                }
            }

            impl<P: Pipe> Open for Opener<P> {
                type Stream = YamuxStream;

                async fn open(&self) -> YamuxStream {
                    let stream = poll_fn(|context| {
                        let (connection, waker) = &mut *self.0.lock().expect(UP);
                        let stream = connection.poll_new_outbound(context);
                        // The task must look after a stream that it has not seen.
                        waker.as_ref().map(Waker::wake_by_ref);
                        stream
                    });
                    YamuxStream(stream.await.expect(UP))
                }
            }

            impl<P: Pipe> Accept for Acceptor<P> {
                type Stream = YamuxStream;

                async fn accept(&mut self) -> Option<YamuxStream> {
                    let stream = poll_fn(|context| self.0.poll_next_inbound(context)).await;
                    stream?.ok().map(YamuxStream)
                }
            }

            impl Stream for YamuxStream {
                async fn write(&mut self, data: Bytes) {
                    self.0.write_all(&data).await.expect(UP);
                }

                async fn read(&mut self, mut look: impl FnMut(&[u8]) + Send) -> usize {
                    let Some(packet) = self.0.next().await else { return 0 };
                    let packet = packet.expect(UP);
                    look(packet.as_ref());
                    packet.as_ref().len()
                }

                async fn finish(&mut self) {
                    self.0.close().await.expect(UP);
                }
            }
        }

        pub(crate) use $module::$muxer;
    };
}

yamux!(yamux13, Yamux13);
yamux!(yamux14, Yamux14);
