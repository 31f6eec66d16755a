//! HTTP/2: a request per stream, with a body each way.

use std::future::poll_fn;

use ::h2::client::{self, ResponseFuture, SendRequest};
use ::h2::server;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{Method, Request, Response, Uri};

use towline_transports::Pipe;

use super::{Accept, BIG_FRAME, BIG_SESSION, BIG_STREAM, Muxer, Open, Stream, UP, Windows};

/// It, with these windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct H2(pub(crate) Windows);

#[derive(Clone)]
pub(crate) struct Opener {
    requests: SendRequest<Bytes>,
    uri: Uri,
}

pub(crate) struct Acceptor<P>(server::Connection<P, Bytes>);

pub(crate) struct H2Stream {
    send: SendStream<Bytes>,
    recv: Receiving,
}

/// The opener's receiving half begins when the response does.
enum Receiving {
    Waits(ResponseFuture),
    Is(RecvStream),
}

impl<P: Pipe> Muxer<P> for H2 {
    type Opener = Opener;
    type Acceptor = Acceptor<P>;

    async fn opener(self, pipe: P) -> Opener {
        let mut client = client::Builder::new();
        if self.0 == Windows::Big {
            client.initial_window_size(BIG_STREAM).initial_connection_window_size(BIG_SESSION);
            client.max_frame_size(BIG_FRAME).max_send_buffer_size(BIG_STREAM as usize);
        }
        let (requests, connection) = client.handshake(pipe).await.expect(UP);
        // It may be that the other end leaves first.
        tokio::spawn(async move { _ = connection.await });
        Opener { requests, uri: Uri::from_static("http://bench/") }
    }

    async fn acceptor(self, pipe: P) -> Acceptor<P> {
        let mut server = server::Builder::new();
        if self.0 == Windows::Big {
            server.initial_window_size(BIG_STREAM).initial_connection_window_size(BIG_SESSION);
            server.max_frame_size(BIG_FRAME).max_send_buffer_size(BIG_STREAM as usize);
        }
        Acceptor(server.handshake(pipe).await.expect(UP))
    }
}

impl Open for Opener {
    type Stream = H2Stream;

    async fn open(&self) -> H2Stream {
        let mut requests = self.requests.clone().ready().await.expect(UP);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let (response, send) = requests.send_request(request, false).expect(UP);
        H2Stream { send, recv: Receiving::Waits(response) }
    }
}

impl<P: Pipe> Accept for Acceptor<P> {
    type Stream = H2Stream;

    async fn accept(&mut self) -> Option<H2Stream> {
        let (request, mut respond) = self.0.accept().await?.ok()?;
        let send = respond.send_response(Response::new(()), false).expect(UP);
        Some(H2Stream { send, recv: Receiving::Is(request.into_body()) })
    }
}

impl Stream for H2Stream {
    async fn write(&mut self, mut data: Bytes) {
        self.send.reserve_capacity(data.len());
        while !data.is_empty() {
            let room = poll_fn(|context| self.send.poll_capacity(context)).await;
            let room = room.expect(UP).expect(UP).min(data.len());
            self.send.send_data(data.split_to(room), false).expect(UP);
        }
    }

    async fn read(&mut self, mut look: impl FnMut(&[u8]) + Send) -> usize {
        if let Receiving::Waits(response) = &mut self.recv {
            self.recv = Receiving::Is(response.await.expect(UP).into_body());
        }
        let Receiving::Is(body) = &mut self.recv else { unreachable!("it was just set") };
        let Some(data) = body.data().await else { return 0 };
        let data = data.expect(UP);
        look(&data);
        let count = data.len();
        body.flow_control().release_capacity(count).expect(UP);
        count
    }

    async fn finish(&mut self) {
        self.send.send_data(Bytes::new(), true).expect(UP);
    }
}
