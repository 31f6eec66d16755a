//! A QUIC connection as a link.
//!
//! quinn's tasks carry the bytes, and its handles are used as they are. What is added is the end: a link closes when
//! what was accepted has arrived, where QUIC would drop it. One task for each link waits for that.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::{ConnectionError, Dir, VarInt};
use tokio::runtime::Handle;
use tokio::sync::{Notify, SetOnce};
use tokio::time::{sleep, timeout};
use towline_engine::{Code, Config};

use super::config::{STREAMS_AT_FIRST, varint};
use super::error::{link_closed, varint_of};
use super::parting::Parting;
use super::silence;
use super::stream::{Held, RecvStream, SendStream};

use crate::LinkStats;
use crate::error::LinkClosed;

/// How often it is looked at whether what was accepted has arrived. quinn tells nobody.
const TICK: Duration = Duration::from_millis(2);

/// How long the last packet may take to get to the socket.
const LINGER: Duration = Duration::from_millis(100);

/// A handle to a QUIC connection, as [`crate::Link`].
#[derive(Clone, Debug)]
pub(crate) struct Link {
    owner: Arc<Owner>,
}

/// Those who use the link; when there is nobody left, it closes.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close(Code::default(), "");
    }
}

/// As [`crate::WeakLink`].
#[derive(Clone, Debug)]
pub(crate) struct WeakLink {
    shared: Arc<Shared>,
}

impl WeakLink {
    pub(crate) fn close(&self, code: Code, reason: &str) {
        self.shared.close(code, reason);
    }

    pub(crate) async fn closed(&self) -> LinkClosed {
        self.shared.closed().await
    }

    pub(crate) fn went_dark(&self) -> bool {
        self.shared.is_dark.load(Ordering::Acquire)
    }
}

impl Link {
    /// `promised` are the limits that the peer was told in the handshake. `watched` is how many streams the link has at
    /// rest, if it is to be watched: see [`ClientConfig::watched`](super::ClientConfig::watched).
    pub(crate) fn start(
        connection: quinn::Connection,
        promised: &Config,
        limits: &Config,
        watched: Option<usize>,
    ) -> Self {
        let bidi = Places::new(promised.max_streams_bidi, limits.max_streams_bidi);
        let uni = Places::new(promised.max_streams_uni, limits.max_streams_uni);
        connection.set_max_concurrent_bi_streams(varint(bidi.allowed.load(Ordering::Relaxed)));
        connection.set_max_concurrent_uni_streams(varint(uni.allowed.load(Ordering::Relaxed)));
        if limits.session_window > promised.session_window {
            connection.set_receive_window(varint(limits.session_window));
        }
        let shared = Arc::new(Shared {
            connection,
            receive_window: promised.session_window.max(limits.session_window),
            runtime: Handle::current(),
            asked: OnceLock::new(),
            asks: Notify::new(),
            ended: SetOnce::new(),
            parting: Mutex::default(),
            open_streams: 0.into(),
            comes_into_use: Notify::new(),
            is_dark: false.into(),
            places: [bidi, uni],
        });
        let watched = watched.map(|at_rest| (at_rest, limits.keep_alive));
        tokio::spawn(run(shared.clone(), limits.close_timeout, watched));
        Self { owner: Arc::new(Owner { shared }) }
    }

    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        let shared = &self.owner.shared;
        shared.check_open()?;
        let (send, recv) = shared.connection.open_bi().await.map_err(|_| shared.why_closed())?;
        Ok(self.both(None, send, recv))
    }

    pub(crate) async fn open_uni(&self) -> Result<SendStream, LinkClosed> {
        let shared = &self.owner.shared;
        shared.check_open()?;
        let send = shared.connection.open_uni().await.map_err(|_| shared.why_closed())?;
        Ok(SendStream::new(send, Held::new(self.owner.clone(), None)))
    }

    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LinkClosed> {
        let shared = &self.owner.shared;
        let (send, recv) = shared.connection.accept_bi().await.map_err(|_| shared.why_closed())?;
        Ok(self.both(Some(Dir::Bi), send, recv))
    }

    pub(crate) async fn accept_uni(&self) -> Result<RecvStream, LinkClosed> {
        let shared = &self.owner.shared;
        let recv = shared.connection.accept_uni().await.map_err(|_| shared.why_closed())?;
        Ok(RecvStream::new(recv, Held::new(self.owner.clone(), Some(Dir::Uni))))
    }

    pub(crate) fn close(&self, code: Code, reason: &str) {
        self.owner.shared.close(code, reason);
    }

    pub(crate) async fn closed(&self) -> LinkClosed {
        self.owner.shared.closed().await
    }

    pub(crate) fn downgrade(&self) -> WeakLink {
        WeakLink { shared: self.owner.shared.clone() }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.owner.shared.connection.close_reason().is_some()
    }

    /// Measured by the handshake.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        Some(self.owner.shared.connection.rtt())
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let shared = &self.owner.shared;
        let stats = shared.connection.stats();
        LinkStats {
            bytes_received: stats.udp_rx.bytes,
            bytes_sent: stats.udp_tx.bytes,
            open_streams: shared.open_streams.load(Ordering::Relaxed),
        }
    }

    fn both(
        &self,
        accepted: Option<Dir>,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> (SendStream, RecvStream) {
        let held = Held::new(self.owner.clone(), accepted);
        (SendStream::new(send, held.clone()), RecvStream::new(recv, held))
    }
}

/// What a link's handles and its task share.
pub(super) struct Shared {
    connection: quinn::Connection,
    /// How many bytes the peer may send ahead of the readers of all streams.
    receive_window: u64,
    /// Where resets that are held back wait; handles may be used outside of any runtime.
    pub(super) runtime: Handle,
    /// What this end wants to close with.
    asked: OnceLock<(Code, String)>,
    /// Wakes the task once it is asked.
    asks: Notify,
    /// Why the link is over, once its task has ended. Not a `watch`, which wakes who waits in no order that comes again.
    ended: SetOnce<LinkClosed>,
    parting: Mutex<Parting>,
    /// Streams of which somebody holds a half.
    pub(super) open_streams: AtomicUsize,
    /// Wakes the task when there is one more.
    comes_into_use: Notify,
    /// Nothing comes back any more.
    is_dark: AtomicBool,
    /// How many streams the peer may have open, of each direction.
    places: [Places; 2],
}

/// How many streams of a kind the peer may have open: twice as many whenever half of them are in use.
struct Places {
    most: u64,
    allowed: AtomicU64,
    /// How many of them the application holds.
    taken: AtomicU64,
}

impl Places {
    fn new(promised: u64, most: u64) -> Self {
        let most = most.max(promised.min(STREAMS_AT_FIRST));
        Self { most, allowed: most.min(STREAMS_AT_FIRST).into(), taken: 0.into() }
    }

    /// Takes a place. Returns how many the peer may have from now on, if that changes.
    fn take(&self) -> Option<u64> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let allowed = self.allowed.load(Ordering::Relaxed);
        let more = allowed.saturating_mul(2).min(self.most);
        if taken < allowed / 2 || more <= allowed {
            return None;
        }
        // Somebody else may have done it just now.
        let change = self.allowed.compare_exchange(allowed, more, Ordering::Relaxed, Ordering::Relaxed);
        change.ok().map(|_| more)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.connection.stable_id();
        f.debug_struct("Shared").field("connection", &id).field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn parting(&self) -> MutexGuard<'_, Parting> {
        self.parting.lock().expect("nothing panics while it holds the lock")
    }

    /// Keeps a stream that has ended until its end has arrived.
    pub(super) fn part(&self, stream: quinn::SendStream) {
        let mut parting = self.parting();
        // Once the connection is over, nothing arrives any more.
        if self.connection.close_reason().is_none() {
            parting.add(stream);
        }
    }

    /// Keeps a stream that has not ended, and now will not, until the connection is over.
    pub(super) fn leave(&self, stream: quinn::SendStream) {
        let mut parting = self.parting();
        if self.connection.close_reason().is_none() {
            parting.leave(stream);
        }
    }

    pub(super) fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Ends the link once everything that was accepted before has arrived. The first to ask decides the code.
    fn close(&self, code: Code, reason: &str) {
        if self.asked.set((code, reason.to_owned())).is_ok() {
            self.asks.notify_one();
        }
    }

    /// Nothing new begins on a link that is closing.
    pub(super) fn check_open(&self) -> Result<(), LinkClosed> {
        if self.asked.get().is_some() { Err(self.why_closed()) } else { Ok(()) }
    }

    /// Why the link is over, for a verb that was refused because of that.
    pub(super) fn why_closed(&self) -> LinkClosed {
        let asked = self.asked.get().map(|(code, _)| *code);
        match self.connection.close_reason() {
            Some(ConnectionError::LocallyClosed) if self.is_dark.load(Ordering::Acquire) => LinkClosed::Dark,
            Some(error) => link_closed(error, asked),
            // Closing: it is this end that asked for it.
            None => LinkClosed::Local(asked.unwrap_or_default()),
        }
    }

    async fn closed(&self) -> LinkClosed {
        self.ended.wait().await.clone()
    }

    /// A stream comes into somebody's hands. `accepted` if it is the peer's.
    pub(super) fn hold(&self, accepted: Option<Dir>) {
        self.open_streams.fetch_add(1, Ordering::Relaxed);
        self.comes_into_use.notify_one();
        match accepted {
            Some(Dir::Bi) => {
                let more = self.places[0].take();
                more.into_iter().for_each(|more| self.connection.set_max_concurrent_bi_streams(varint(more)));
            }
            Some(Dir::Uni) => {
                let more = self.places[1].take();
                more.into_iter()
                    .for_each(|more| self.connection.set_max_concurrent_uni_streams(varint(more)));
            }
            None => {}
        }
    }

    /// Nobody holds the stream any more.
    pub(super) fn release(&self, accepted: Option<Dir>) {
        self.open_streams.fetch_sub(1, Ordering::Relaxed);
        let places = match accepted {
            Some(Dir::Bi) => &self.places[0],
            Some(Dir::Uni) => &self.places[1],
            None => return,
        };
        places.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until it has more streams than that.
    pub(super) async fn more_streams_than(&self, at_rest: usize) {
        while self.open_streams.load(Ordering::Relaxed) <= at_rest {
            self.comes_into_use.notified().await;
        }
    }

    /// How many datagrams have come.
    pub(super) fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Makes the peer say something.
    ///
    /// quinn sends a PING by its own clock only. But a window that widens is told to the peer at once, which has to
    /// acknowledge it. It is narrowed by one byte before: that byte is taken off what is given back for the next byte
    /// that somebody reads, so that the window stays what it is.
    pub(super) fn ask_for_a_sign_of_life(&self) {
        self.connection.set_receive_window(varint(self.receive_window.saturating_sub(1)));
        self.connection.set_receive_window(varint(self.receive_window));
    }

    /// Gives the link up at once: what was accepted will not arrive.
    fn give_up(&self) {
        self.is_dark.store(true, Ordering::Release);
        // It may be that the peer still hears this end.
        self.connection.close(VarInt::from_u32(0), b"nothing comes back over UDP");
    }

    /// Waits until the peer has acknowledged everything.
    ///
    /// quinn tells of the end of a stream, and of nothing else. But with a window of one byte a stream can be written
    /// to only when no byte of any stream is unacknowledged; and there is a stream that one can ask, as long as the
    /// peer allows one more. It is returned unused, and to be dropped when the connection is closed, so that the peer
    /// does not hear of it.
    async fn flush(&self) -> impl Sized {
        while !self.parting().is_over() {
            sleep(TICK).await;
        }
        self.connection.set_send_window(1);
        let Poll::Ready(Ok((mut probe, recv))) = poll_once(self.connection.open_bi()) else { return None };
        while poll_once(probe.write(&[])).is_pending() {
            sleep(TICK).await;
        }
        Some((probe, recv))
    }

    /// Waits until everything has arrived, closes the connection, and waits until that went out.
    async fn hang_up(&self, close_timeout: Duration) {
        let probe = tokio::select! {
            biased;
            _ = self.connection.closed() => return,
            probe = timeout(close_timeout, self.flush()) => probe,
        };
        let sent = || self.connection.stats().udp_tx.datagrams;
        let before = sent();
        let (code, reason) = self.asked.get().expect("this end wants to close");
        self.connection.close(varint_of(*code), reason.as_bytes());
        drop(probe);
        let goodbye = async {
            while sent() == before {
                sleep(TICK).await;
            }
        };
        let _ = timeout(LINGER, goodbye).await;
    }
}

/// Waits for the end of the link, and brings it about if this end wants it.
async fn run(shared: Arc<Shared>, close_timeout: Duration, watched: Option<(usize, Option<Duration>)>) {
    let dark = async {
        match watched {
            Some((at_rest, keep_alive)) => silence::until_dark(&shared, at_rest, keep_alive).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = shared.connection.closed() => {}
        () = shared.asks.notified() => shared.hang_up(close_timeout).await,
        () = dark => shared.give_up(),
    }
    shared.parting().clear();
    let closed = shared.why_closed();
    tracing::debug!(reason = %closed, "link over");
    shared.ended.set(closed).expect("there is one task, and it ends once");
}

/// Polls a future once. What it would be woken for is asked again.
pub(super) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[cfg(test)]
mod tests {
    use crate::link::Kind;
    use crate::quic::{Endpoint, client_config, server_config};
    use crate::testing::{credentials, environment};
    use crate::{Code, Config};

    /// However streams end, little is remembered of them.
    #[tokio::test]
    async fn no_residue() {
        let (environment, credentials) = (environment(), credentials());
        let socket = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = server_config(credentials.clone(), &environment, Config::default()).unwrap();
        let server = Endpoint::new(socket(), Some(server), &environment).unwrap();
        let client = Endpoint::new(socket(), None, &environment).unwrap();
        let limits = client_config(credentials, &environment, Config::default()).unwrap();
        let connect = client.connect(server.local_addr().unwrap(), "hub.test", &limits);
        let (ours, theirs) =
            tokio::join!(connect, async { server.accept().await.unwrap().handshake().await });
        let (service, device) = (ours.unwrap().start(), theirs.unwrap().start());
        for number in 0..500 {
            let (mut send, mut recv) = service.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let (mut answer, mut question) = device.accept_bi().await.unwrap();
            question.read_chunk(1).await.unwrap();
            match number % 4 {
                0 => send.finish().unwrap(),
                1 => send.reset(Code::from(5)),
                2 => question.stop(Code::from(6)),
                _ => drop(send),
            }
            let _ = question.read_chunk(1).await;
            answer.finish().unwrap();
            recv.read_chunk(1).await.unwrap();
        }
        for link in [&service, &device] {
            let Kind::Quic(link) = &link.kind else { panic!("it is QUIC") };
            let remembered = link.owner.shared.parting().len();
            assert!(remembered < 20, "{remembered}");
            assert_eq!(link.stats().open_streams, 0);
        }
    }
}
