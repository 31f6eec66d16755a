//! A session as a link.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use towline_engine::{Code, Config, Dir, Epoch, OpenError, Side, StreamId};

use super::carrier::Carrier;
use super::doubt::Doubt;
use super::driver::Driver;
use super::shared::{FIRST, Shared, index};
use super::stream::{Held, RecvStream, SendStream};
use super::successive::{Pipes, Successive};
use crate::error::LinkClosed;
use crate::link::{Occasion, Reconnect};
use crate::tls::TlsPipe;
use crate::{LinkStats, Pipe};

/// A handle to a session, as [`crate::Link`].
#[derive(Clone, Debug)]
pub(crate) struct Link {
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

/// As [`crate::WeakLink`].
#[derive(Clone, Debug)]
pub(crate) struct WeakLink {
    shared: Arc<Shared>,
}

impl WeakLink {
    pub(crate) fn renew(&self) {
        self.shared.renewal.notify_one();
    }

    pub(crate) fn close(&self, code: Code, reason: &str) {
        self.shared.close(code, reason.as_bytes());
    }

    pub(crate) async fn closed(&self) -> LinkClosed {
        self.shared.closed().await
    }
}

impl Link {
    pub(crate) fn start(pipe: impl Carrier, side: Side, config: Config) -> Self {
        let shared = Arc::new(Shared::new(side, config, "link"));
        // Before the driver's first turn, the application may have closed it.
        shared.lock().session.attach(shared.now(), FIRST).expect("a new session takes a pipe");
        tokio::spawn(Box::new(Driver::new(shared.clone(), pipe)).run());
        Self { owner: Arc::new(Owner { shared }) }
    }

    /// A session that goes on over other pipes, which `connect` opens, until it is over. It is the end that opens them.
    pub(crate) fn resumable<P: Pipe>(
        first: TlsPipe<P>,
        config: Config,
        reconnect: impl Reconnect<P>,
    ) -> Self {
        let shared = Arc::new(Shared::new(Side::Client, config, "session"));
        shared.lock().session.attach(shared.now(), FIRST).expect("a new session takes a pipe");
        let (pipes, next) = Successive::new(first);
        tokio::spawn(Box::new(Driver::new(shared.clone(), pipes)).run());
        tokio::spawn(keep_connected(shared.clone(), next, reconnect));
        Self { owner: Arc::new(Owner { shared }) }
    }

    /// The other end of one: its session has its first pipe, and is handed the next ones.
    pub(crate) fn accepted<C: Carrier>(shared: Arc<Shared>, first: C) -> (Self, Pipes<C>) {
        let (pipes, next) = Successive::new(first);
        tokio::spawn(Box::new(Driver::new(shared.clone(), pipes)).run());
        (Self { owner: Arc::new(Owner { shared }) }, next)
    }

    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        Ok(self.both(self.open(Dir::Bi).await?))
    }

    pub(crate) async fn open_uni(&self) -> Result<SendStream, LinkClosed> {
        Ok(SendStream::new(self.hold(self.open(Dir::Uni).await?)))
    }

    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        Ok(self.both(self.accept(Dir::Bi).await?))
    }

    pub(crate) async fn accept_uni(&self) -> Result<RecvStream, LinkClosed> {
        Ok(RecvStream::new(self.hold(self.accept(Dir::Uni).await?)))
    }

    pub(crate) fn close(&self, code: Code, reason: &str) {
        self.owner.shared.close(code, reason.as_bytes());
    }

    pub(crate) async fn closed(&self) -> LinkClosed {
        self.owner.shared.closed().await
    }

    pub(crate) fn renew(&self) {
        self.owner.shared.renewal.notify_one();
    }

    pub(crate) fn downgrade(&self) -> WeakLink {
        WeakLink { shared: self.owner.shared.clone() }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.owner.shared.lock().session.is_closed()
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        Some(self.owner.shared.lock().session.rtt()?.smoothed)
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let state = self.owner.shared.lock();
        let stats = state.session.stats();
        LinkStats {
            bytes_received: stats.bytes_received,
            bytes_sent: stats.bytes_sent,
            open_streams: state.session.open_streams(),
        }
    }

    /// How many streams somebody waits on.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.owner.shared.lock().waiting()
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
                Some(outcome) => {
                    shared.opened.notify_waiters();
                    return outcome;
                }
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

/// Brings a session its next pipe whenever it has none, is to have another one, or has one that is in doubt; until it is over.
async fn keep_connected<P: Pipe>(
    shared: Arc<Shared>,
    pipes: Pipes<TlsPipe<P>>,
    mut reconnect: impl Reconnect<P>,
) {
    let mut closed = pin!(shared.closed());
    let mut newest = FIRST;
    let mut told = None;
    let mut doubt = Doubt::default();
    loop {
        let occasion = tokio::select! {
            biased;
            _ = &mut closed => return,
            () = shared.pipe_news.notified() => {
                let news = shared.lock().pipes;
                if news.gone_on_over == Some(newest) && told != Some(newest) {
                    told = Some(newest);
                    reconnect.has_gone_on();
                }
                // What is lost may be an older one: the newest is on its way to the driver then.
                if news.lost != Some(newest) {
                    continue;
                }
                Occasion::Lost(shared.lock().pipe_error.clone())
            }
            () = shared.renewal.notified() => {
                // Before both ends have agreed on that, it has no other pipe than its first.
                if shared.lock().session.id().is_none() {
                    continue;
                }
                Occasion::Renewal
            }
            () = doubt.until_arisen(&shared) => Occasion::Doubt,
        };
        let is_in_doubt = matches!(occasion, Occasion::Doubt);
        let pipe = tokio::select! {
            biased;
            _ = &mut closed => return,
            pipe = reconnect.connect(occasion) => pipe,
            () = doubt.until_dispelled(&shared), if is_in_doubt => {
                reconnect.is_needless();
                continue;
            }
        };
        match pipe {
            Ok(pipe) => {
                newest = Epoch(newest.0 + 1);
                if is_in_doubt {
                    doubt.there_is_another_pipe(&shared);
                } else {
                    doubt.begin_anew();
                }
                // The driver is gone if the session is over.
                if pipes.send(Box::new((newest, pipe))).is_err() {
                    return;
                }
            }
            Err(why) => shared.give_up(why),
        }
    }
}
