//! The end that accepts: a thread with a runtime of its own, so that what it costs can be told from the other end's.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};

use super::contender::{Listen, Transport};
use super::trust::Trust;
use crate::clock;
use crate::muxer::{Accept, Stream};

/// The first byte of a stream whose bytes are to be taken. That there is such a stream, and how many bytes came on it,
/// is answered; every other stream gets back what it sends.
pub(crate) const BULK: u8 = b'b';

/// How many bytes the number has that says how many came.
pub(crate) const COUNT: usize = 8;

/// The far end, which lasts until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Far {
    pub(crate) address: SocketAddr,
    questions: Option<mpsc::UnboundedSender<oneshot::Sender<Duration>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Far {
    pub(crate) fn start(transport: impl Transport, trust: Trust) -> anyhow::Result<Self> {
        let (questions, asked) = mpsc::unbounded_channel();
        let (tell, told) = std::sync::mpsc::channel();
        let run = async move || match transport.listen(&trust).await {
            Ok((listener, address)) => {
                // Whoever starts it waits for this.
                let _ = tell.send(Ok(address));
                run(listener, asked).await;
            }
            Err(error) => _ = tell.send(Err(error)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("far".into()).spawn(move || runtime.block_on(run()))?;
        let address = told.recv().context("the far end has not started")??;
        Ok(Self { address, questions: Some(questions), thread: Some(thread) })
    }

    /// The CPU time that its thread has used.
    pub(crate) async fn cpu(&self) -> Duration {
        let (answer, cpu) = oneshot::channel();
        let asked = self.questions.as_ref().and_then(|questions| questions.send(answer).ok());
        asked.expect("the far end is there");
        cpu.await.expect("the far end is there")
    }

    /// Ends it, with all of its connections. Waits until they are gone: so whoever still has the other ends does not
    /// talk to it any more.
    pub(crate) fn stop(&mut self) {
        self.questions = None;
        // If it has panicked, somebody has noticed.
        self.thread.take().map(thread::JoinHandle::join);
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run(mut listener: impl Listen, mut asked: mpsc::UnboundedReceiver<oneshot::Sender<Duration>>) {
    loop {
        tokio::select! {
            biased;
            question = asked.recv() => match question {
                // Who does not want the answer any more goes without it.
                Some(question) => _ = question.send(clock::thread_cpu()),
                None => return,
            },
            handshake = listener.accept() => {
                tokio::spawn(async move { serve(handshake.await).await });
            }
        }
    }
}

/// Serves every stream of a connection.
pub(crate) async fn serve(mut acceptor: impl Accept) {
    while let Some(stream) = acceptor.accept().await {
        tokio::spawn(serve_stream(stream));
    }
}

async fn serve_stream(mut stream: impl Stream) {
    let mut bytes = BytesMut::new();
    let mut count = stream.read(|read| bytes.extend_from_slice(read)).await as u64;
    if bytes.first() == Some(&BULK) {
        stream.write(bytes.split_to(1).freeze()).await;
        drop(bytes);
        while let more @ 1.. = stream.read(|_| ()).await {
            count += more as u64;
        }
        stream.write(count.to_be_bytes().to_vec().into()).await;
    } else {
        while !bytes.is_empty() {
            stream.write(bytes.split().freeze()).await;
            stream.read(|read| bytes.extend_from_slice(read)).await;
        }
    }
    stream.finish().await;
}
