//! The same as handles over a pipe: the heap of links and of their streams, with the tasks that drive them.

use towline_transports::{Link, RecvStream, SendStream, Side};

use super::{Before, Figure, config};

/// How many bytes a pipe holds. What it has on the heap is counted apart.
const PIPE: usize = 4 << 10;

/// Links and their streams, over pipes in memory.
pub(crate) fn figures(count: usize) -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without sockets needs nothing").block_on(async { measure(count).await })
}

async fn measure(count: usize) -> Vec<Figure> {
    let mut links = Vec::with_capacity(count);
    let mut pipes = Vec::with_capacity(count);
    let before = Before::now();
    pipes.extend((0..count).map(|_| tokio::io::duplex(PIPE)));
    let mut of_pipes = before.figure("pipe in memory, an end", "part of the links below", count * 2);
    let before = Before::now();
    for (ours, theirs) in pipes.drain(..) {
        let opener = Link::start(ours, Side::Client, config(count));
        let acceptor = Link::start(theirs, Side::Server, config(count));
        let (mut send, mut recv, mut answer, mut question) = stream(&opener, &acceptor).await;
        send.finish().expect("the stream is open");
        answer.finish().expect("the stream is open");
        assert_eq!(question.read_chunk(1).await.expect("the stream is open"), None);
        assert_eq!(recv.read_chunk(1).await.expect("the stream is open"), None);
        links.push((opener, acceptor));
    }
    settle().await;
    let of_links =
        before.figure("idle link, an end", "with its task and read buffer, after a stream", count * 2);
    let of_streams = streams(count, &links[0]).await;
    of_pipes.made_of.clear();
    vec![of_pipes, of_links, of_streams]
}

async fn streams(count: usize, (opener, acceptor): &(Link, Link)) -> Figure {
    let mut streams = Vec::with_capacity(count);
    let before = Before::now();
    for _ in 0..count {
        streams.push(stream(opener, acceptor).await);
    }
    settle().await;
    before.figure("idle stream of a link, an end", "after 1 B each way", count * 2)
}

/// A stream that both ends know: one byte has gone each way.
async fn stream(opener: &Link, acceptor: &Link) -> (SendStream, RecvStream, SendStream, RecvStream) {
    let (mut send, mut recv) = opener.open_bi().await.expect("the link is up");
    send.write_all(b"?").await.expect("the link is up");
    let (mut answer, mut question) = acceptor.accept_bi().await.expect("the link is up");
    question.read_chunk(1).await.expect("the link is up");
    answer.write_all(b"!").await.expect("the link is up");
    recv.read_chunk(1).await.expect("the link is up");
    (send, recv, answer, question)
}

/// Lets the tasks do what is left to do.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
