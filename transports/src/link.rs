//! A link: what streams open on.

use std::sync::Arc;
use std::time::Duration;

use towline_engine::{Code, Config, Dir, OpenError, Session, Side, StreamId};

use crate::error::LinkClosed;
use crate::shared::{Shared, index};
use crate::stream::{Held, RecvStream, SendStream};
use crate::{Pipe, driver};

/// A connection to a peer, on which both ends open streams. Cloning it gives another handle to the same link.
///
/// When the last handle and the last stream are dropped, the link closes with code 0 once everything that was
/// accepted has gone out.
#[derive(Clone, Debug)]
pub struct Link {
    owner: Arc<Owner>,
}

/// Those who use the link; when there is nobody left, it closes.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close(Code::default(), b"");
    }
}

/// A handle to a link that does not keep it open.
#[derive(Clone, Debug)]
pub struct WeakLink {
    shared: Arc<Shared>,
}

impl WeakLink {
    /// As [`Link::close`].
    pub fn close(&self, code: Code, reason: &str) {
        self.shared.close(code, reason.as_bytes());
    }

    /// As [`Link::closed`].
    pub async fn closed(&self) -> LinkClosed {
        self.shared.closed().await
    }
}

/// What has passed through a link since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Bytes that came from the connection.
    pub bytes_received: u64,
    /// Bytes that were handed to the connection.
    pub bytes_sent: u64,
    /// Streams that are open, or ended and not yet dropped.
    pub open_streams: usize,
}

impl Link {
    /// Starts a session over `pipe`, of which this end is `side`. It runs in a task of its own, on the runtime
    /// that this is called in.
    pub fn start(pipe: impl Pipe, side: Side, config: Config) -> Self {
        let shared = Arc::new(Shared::new(Session::new(side, config)));
        tokio::spawn(driver::run(shared.clone(), pipe));
        Self { owner: Arc::new(Owner { shared }) }
    }

    /// Opens a stream that carries bytes both ways; waits while the peer allows no more. The peer learns of it
    /// with the first byte. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        Ok(self.both(self.open(Dir::Bi).await?))
    }

    /// Opens a stream that carries bytes to the peer; waits while the peer allows no more. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn open_uni(&self) -> Result<SendStream, LinkClosed> {
        Ok(SendStream::new(self.hold(self.open(Dir::Uni).await?)))
    }

    /// The next stream of the peer's that carries bytes both ways. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        Ok(self.both(self.accept(Dir::Bi).await?))
    }

    /// The next stream of the peer's that carries bytes to this end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn accept_uni(&self) -> Result<RecvStream, LinkClosed> {
        Ok(RecvStream::new(self.hold(self.accept(Dir::Uni).await?)))
    }

    /// Ends the link once everything that was accepted before has gone out. `reason` is for the peer's eyes.
    /// Without effect on a link that is over.
    pub fn close(&self, code: Code, reason: &str) {
        self.owner.shared.close(code, reason.as_bytes());
    }

    /// Waits until the link is over and its connection is closed. Cancel-safe.
    pub async fn closed(&self) -> LinkClosed {
        self.owner.shared.closed().await
    }

    /// A handle to the same link that does not keep it open.
    pub fn downgrade(&self) -> WeakLink {
        WeakLink { shared: self.owner.shared.clone() }
    }

    /// Whether the link is over. It may be over soon after it was not.
    pub fn is_closed(&self) -> bool {
        self.owner.shared.lock().session.is_closed()
    }

    /// The round-trip time to the peer, smoothed. `None` until it was measured for the first time.
    pub fn rtt(&self) -> Option<Duration> {
        Some(self.owner.shared.lock().session.rtt()?.smoothed)
    }

    /// What has passed through so far.
    pub fn stats(&self) -> LinkStats {
        let state = self.owner.shared.lock();
        let stats = state.session.stats();
        LinkStats {
            bytes_received: stats.bytes_received,
            bytes_sent: stats.bytes_sent,
            open_streams: state.session.open_streams(),
        }
    }

    fn hold(&self, id: StreamId) -> Arc<Held> {
        Arc::new(Held::new(id, self.owner.clone()))
    }

    fn both(&self, id: StreamId) -> (SendStream, RecvStream) {
        let held = self.hold(id);
        (SendStream::new(held.clone()), RecvStream::new(held))
    }

    async fn open(&self, dir: Dir) -> Result<StreamId, LinkClosed> {
        let shared = &self.owner.shared;
        loop {
            let openable = shared.openable[index(dir)].notified();
            let opened = shared.with(|state| match state.session.open(dir) {
                Ok(id) => Some(Ok(id)),
                Err(OpenError::Blocked(_)) => None,
                Err(_) => Some(Err(state.why_closed())),
            });
            match opened {
                Some(outcome) => return outcome,
                None => openable.await,
            }
        }
    }

    async fn accept(&self, dir: Dir) -> Result<StreamId, LinkClosed> {
        let shared = &self.owner.shared;
        loop {
            let incoming = shared.incoming[index(dir)].notified();
            {
                let mut state = shared.lock();
                if let Some(id) = state.session.accept(dir) {
                    return Ok(id);
                }
                if state.closed.is_some() {
                    return Err(state.why_closed());
                }
            }
            incoming.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who waits is on record only while they wait: a stream that is gone leaves no waker.
    #[tokio::test(start_paused = true)]
    async fn no_residue() {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let service = Link::start(ours, Side::Client, Config::default());
        let device = Link::start(theirs, Side::Server, Config::default());
        for _ in 0..50 {
            let (mut send, mut recv) = service.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let (answer, mut question) = device.accept_bi().await.unwrap();
            let waits = tokio::spawn(async move { recv.read_chunk(1).await.is_err() });
            let reads = async {
                question.read_chunk(1).await.unwrap();
                tokio::task::yield_now().await;
            };
            reads.await;
            drop((answer, question, send));
            assert!(waits.await.unwrap(), "a dropped stream is a reset");
        }
        for link in [&service, &device] {
            assert_eq!(link.owner.shared.lock().waiting(), 0);
        }
    }
}
