//! A link: what streams open on, whichever kind it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use towline_engine::{Code, Config, Resumption, Side};

use crate::error::{LinkClosed, NoWay};
use crate::session::carrier::Plain;
use crate::stream::{RecvStream, SendStream};
use crate::tls::TlsPipe;
use crate::{Pipe, quic, session};

/// One of the two kinds of link, or of a part of one. Which one it is shows nowhere outside of this crate.
#[derive(Clone, Debug)]
pub(crate) enum Kind<S, Q> {
    Session(S),
    Quic(Q),
}

/// Evaluates the same expression for whichever kind it is.
macro_rules! each {
    ($kind:expr, $it:ident => $value:expr) => {
        match $kind {
            $crate::link::Kind::Session($it) => $value,
            $crate::link::Kind::Quic($it) => $value,
        }
    };
}
pub(crate) use each;

/// A connection to a peer, on which both ends open streams. Cloning it gives another handle to the same link.
///
/// When the last handle and the last stream are dropped, the link closes with code 0 once everything that was
/// accepted has gone out.
///
/// It is a session of the engine over a pipe ([`start`](Self::start)), or a QUIC connection
/// ([`quic::Connection::start`]). The few things in which they differ are in docs/ARCHITECTURE.md, "Kinds of link".
#[derive(Clone, Debug)]
pub struct Link {
    pub(crate) kind: Kind<session::Link, quic::Link>,
}

/// A handle to a link that does not keep it open.
#[derive(Clone, Debug)]
pub struct WeakLink {
    kind: Kind<session::WeakLink, quic::WeakLink>,
}

impl WeakLink {
    /// As [`Link::close`].
    pub fn close(&self, code: Code, reason: &str) {
        each!(&self.kind, link => link.close(code, reason));
    }

    /// As [`Link::renew`].
    pub fn renew(&self) {
        if let Kind::Session(link) = &self.kind {
            link.renew();
        }
    }

    /// As [`Link::closed`].
    pub async fn closed(&self) -> LinkClosed {
        each!(&self.kind, link => link.closed().await)
    }

    /// Whether it has ended as [`LinkClosed::Dark`].
    pub fn went_dark(&self) -> bool {
        match &self.kind {
            // A pipe that nothing comes out of is given up after the idle timeout.
            Kind::Session(_) => false,
            Kind::Quic(link) => link.went_dark(),
        }
    }
}

/// Where the later pipes of a session come from, to the end that opens them.
///
/// A function that opens a pipe, however long that takes, is one as well.
pub trait Reconnect<P>: Send + 'static {
    /// Opens the next pipe, and takes the time that it takes: the session ends this if it ends itself, or if it was for
    /// [doubt](Occasion::Doubt) that is dispelled.
    ///
    /// # Errors
    ///
    /// There will be none: the session ends at once, unless it has a pipe still.
    fn connect(&mut self, occasion: Occasion) -> impl Future<Output = Result<TlsPipe<P>, NoWay>> + Send;

    /// The session has gone on over the pipe that was opened last, or has begun over its first.
    fn has_gone_on(&mut self) {}

    /// A [doubt](Occasion::Doubt) was dispelled: there is no need for the pipe that was being opened.
    fn is_needless(&mut self) {}
}

/// Why a session is to have another pipe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Occasion {
    /// It has none; and what the last one said when it failed, if it said anything.
    Lost(Option<Arc<io::Error>>),
    /// [`Link::renew`]: it is to go on over another one, before this one is lost.
    Renewal,
    /// Nothing comes from the peer, not even the answer to a ping: the pipe may be dead. The session gives it up only after
    /// the idle timeout, but another way would be welcome now.
    Doubt,
}

impl<P, F, C> Reconnect<P> for C
where
    P: Send,
    F: Future<Output = TlsPipe<P>> + Send,
    C: FnMut() -> F + Send + 'static,
{
    async fn connect(&mut self, _: Occasion) -> Result<TlsPipe<P>, NoWay> {
        Ok(self().await)
    }
}

/// What has passed through a link since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Bytes that came from the connection; over QUIC, those of its datagrams.
    pub bytes_received: u64,
    /// Bytes that were handed to the connection; over QUIC, those of its datagrams.
    pub bytes_sent: u64,
    /// Streams that are open, or ended and not yet dropped.
    pub open_streams: usize,
}

impl Link {
    /// Starts a session over `pipe`, of which this end is `side`. It runs in a task of its own, on the runtime
    /// that this is called in.
    pub fn start(pipe: impl Pipe, side: Side, config: Config) -> Self {
        Self { kind: Kind::Session(session::Link::start(Plain::new(pipe), side, config)) }
    }

    /// As [`start`](Self::start), over TLS: records of the session are opened where they lie, and sealed as they go out.
    pub fn over_tls(pipe: TlsPipe<impl Pipe>, side: Side, config: Config) -> Self {
        Self { kind: Kind::Session(session::Link::start(pipe.forget_peer(), side, config)) }
    }

    /// Starts a session over TLS that outlives its pipes: whenever it has none, `reconnect` opens the next one, until the
    /// session is over. [`Sessions::accept`](crate::Sessions::accept) is the other end.
    ///
    /// # Panics
    ///
    /// If `config` does not [offer](towline_engine::Resumption::Offer) to resume.
    pub fn resumable<P: Pipe>(first: TlsPipe<P>, config: Config, reconnect: impl Reconnect<P>) -> Self {
        let offers = matches!(config.resumption, Resumption::Offer(..));
        assert!(offers, "a session that outlives its pipes has a name and a secret");
        Self { kind: Kind::Session(session::Link::resumable(first, config, reconnect)) }
    }

    pub(crate) fn of_session(link: session::Link) -> Self {
        Self { kind: Kind::Session(link) }
    }

    pub(crate) fn over_quic(link: quic::Link) -> Self {
        Self { kind: Kind::Quic(link) }
    }

    /// Opens a stream that carries bytes both ways; waits while the peer allows no more. The peer learns of it
    /// with the first byte. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        each!(&self.kind, link => link.open_bi().await.map(|(send, recv)| (send.into(), recv.into())))
    }

    /// Opens a stream that carries bytes to the peer; waits while the peer allows no more. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn open_uni(&self) -> Result<SendStream, LinkClosed> {
        each!(&self.kind, link => link.open_uni().await.map(Into::into))
    }

    /// The next stream of the peer's that carries bytes both ways. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        each!(&self.kind, link => link.accept_bi().await.map(|(send, recv)| (send.into(), recv.into())))
    }

    /// The next stream of the peer's that carries bytes to this end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The link is over.
    pub async fn accept_uni(&self) -> Result<RecvStream, LinkClosed> {
        each!(&self.kind, link => link.accept_uni().await.map(Into::into))
    }

    /// Ends the link once everything that was accepted before has gone out. `reason` is for the peer's eyes.
    /// Without effect on a link that is over.
    pub fn close(&self, code: Code, reason: &str) {
        each!(&self.kind, link => link.close(code, reason));
    }

    /// Has a session that [outlives its pipes](Self::resumable) go on over another one as soon as there is one, before this
    /// one is lost. Without effect on other links.
    pub fn renew(&self) {
        if let Kind::Session(link) = &self.kind {
            link.renew();
        }
    }

    /// Waits until the link is over and its connection is closed. Cancel-safe.
    pub async fn closed(&self) -> LinkClosed {
        each!(&self.kind, link => link.closed().await)
    }

    /// A handle to the same link that does not keep it open.
    pub fn downgrade(&self) -> WeakLink {
        let kind = match &self.kind {
            Kind::Session(link) => Kind::Session(link.downgrade()),
            Kind::Quic(link) => Kind::Quic(link.downgrade()),
        };
        WeakLink { kind }
    }

    /// Whether the link is over. It may be over soon after it was not.
    pub fn is_closed(&self) -> bool {
        each!(&self.kind, link => link.is_closed())
    }

    /// The round-trip time to the peer, smoothed. `None` until it was measured for the first time.
    pub fn rtt(&self) -> Option<Duration> {
        each!(&self.kind, link => link.rtt())
    }

    /// What has passed through so far.
    pub fn stats(&self) -> LinkStats {
        each!(&self.kind, link => link.stats())
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
            let Kind::Session(link) = &link.kind else { panic!("it is a session") };
            assert_eq!(link.waiting(), 0);
        }
    }
}
