//! The sessions of an end that accepts pipes: which of them a pipe is for.
//!
//! In: pipes, and of whom they are. Out: links; a pipe for a session that is there goes to its driver. Keeps: each session
//! that may be resumed, under its peer and its name; and of one that is over, for a while, what to say to who comes late.

use std::collections::{BTreeMap, btree_map};
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use towline_engine::{
    Acceptor, Arrival, Code, Config, Epoch, Refused, Resumption, Secret, SessionId, Side, Tombstone,
};

use super::Link;
use super::carrier::{Batch, Carrier};
use super::shared::{FIRST, Shared};
use super::successive::Pipes;
use crate::Pipe;
use crate::error::LinkClosed;
use crate::tls::TlsPipe;

/// How many sessions a peer may have; and how many that are over are remembered, besides.
const SESSIONS_PER_PEER: usize = 256;

/// The most that is sent to who is refused.
const ANSWER: usize = 16 << 10;

/// The sessions of an end that accepts pipes, of any number of peers. Cloning gives another handle to the same.
#[derive(Debug)]
pub struct Sessions<P> {
    known: Arc<Mutex<Known<P>>>,
    config: Arc<Config>,
}

#[derive(Debug)]
struct Known<P> {
    sessions: BTreeMap<Key, Entry<P>>,
    /// No other session begins.
    is_closed: bool,
}

/// Whose session it is, and which of theirs.
type Key = (String, Label);

/// What tells a peer's sessions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// The name that the peer has chosen, to come back under.
    Named(SessionId),
    /// A number of ours, for one that cannot be resumed. It counts, and is closed, like the others.
    Nameless(u64),
}

#[derive(Debug)]
enum Entry<P> {
    Live { shared: Arc<Shared>, pipes: Pipes<TlsPipe<P>> },
    Over(Option<Tombstone>),
}

impl<P> Clone for Sessions<P> {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), config: self.config.clone() }
    }
}

/// What a pipe turned out to be.
#[derive(Debug)]
pub enum Accepted {
    /// The first one of a session.
    New(crate::Link),
    /// A later one, of a session that goes on.
    Resumed,
}

/// Why a pipe carries no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// It ended before it had said what it is.
    #[error("the connection ended before it had said which session it is for: {0}")]
    Io(#[from] io::Error),
    /// The session that it asks for does not take it. The peer was told.
    #[error("a session was not resumed: {0}")]
    Refused(Refused),
    /// The peer has too many sessions. It was told.
    #[error("there are {SESSIONS_PER_PEER} sessions of this peer already; some must end first")]
    TooMany,
    /// This end has closed all sessions. The peer was told.
    #[error("this end has no sessions any more")]
    Closed,
    /// The peer has, or had a moment ago, a session of the name that it would begin one under. It was told.
    #[error("there is a session of this name already")]
    NameTaken,
}

impl<P: Pipe> Sessions<P> {
    /// Sessions with these limits, each of which may outlive its pipes for the time that `config` says.
    pub fn new(mut config: Config) -> Self {
        config.resumption = Resumption::Accept;
        let known = Known { sessions: BTreeMap::new(), is_closed: false };
        Self { known: Arc::new(Mutex::new(known)), config: Arc::new(config) }
    }

    /// The same sessions, in which those that begin from now on have other limits.
    #[must_use]
    pub fn with(&self, mut config: Config) -> Self {
        config.resumption = Resumption::Accept;
        Self { known: self.known.clone(), config: Arc::new(config) }
    }

    /// Reads the beginning of `pipe`, of a peer that has shown to be `peer`, and gives it to the session that it is for.
    /// To be cancelled by a deadline of the caller's; that closes the pipe.
    ///
    /// # Errors
    ///
    /// Why it is for none.
    pub async fn accept(&self, peer: &str, mut pipe: TlsPipe<P>) -> Result<Accepted, AcceptError> {
        let mut acceptor = Acceptor::new(&self.config);
        match listen(&mut pipe, &mut acceptor).await? {
            Arrival::Resume { session, epoch, proof } => {
                self.resume((peer.to_owned(), Label::Named(session)), epoch, &proof, acceptor, pipe).await
            }
            Arrival::New(name) => self.begin(peer, name, acceptor, pipe),
            _ => Err(AcceptError::Refused(Refused::Unknown)),
        }
    }

    fn begin(
        &self,
        peer: &str,
        name: Option<SessionId>,
        acceptor: Acceptor,
        pipe: TlsPipe<P>,
    ) -> Result<Accepted, AcceptError> {
        let (shared, link, pipes) = self.session(acceptor, pipe);
        if let Err(error) = self.enter(peer, name, &shared, pipes) {
            link.close(Code::default(), &error.to_string());
            return Err(error);
        }
        Ok(Accepted::New(crate::Link::of_session(link)))
    }

    /// A session over its first pipe.
    fn session(&self, acceptor: Acceptor, pipe: TlsPipe<P>) -> (Arc<Shared>, Link, Pipes<TlsPipe<P>>) {
        let shared = Arc::new(Shared::new(Side::Server, self.config.clone(), "session"));
        let attached = shared.lock().session.attach_accepted(shared.now(), FIRST, acceptor);
        attached.expect("a new session takes a pipe");
        let (link, pipes) = Link::accepted(shared.clone(), pipe.forget_peer());
        (shared, link, pipes)
    }

    /// Gives a session its place among the peer's, which it has until it is over. No session takes the place of another,
    /// or a peer could have any number of them under one name.
    fn enter(
        &self,
        peer: &str,
        name: Option<SessionId>,
        shared: &Arc<Shared>,
        pipes: Pipes<TlsPipe<P>>,
    ) -> Result<(), AcceptError> {
        let mut known = self.known();
        if known.is_closed {
            return Err(AcceptError::Closed);
        }
        let known = &mut known.sessions;
        if count(known, peer, |entry| matches!(entry, Entry::Live { .. })) >= SESSIONS_PER_PEER {
            return Err(AcceptError::TooMany);
        }
        let label = name.map_or_else(|| free_label(known, peer), Label::Named);
        let key = (peer.to_owned(), label);
        let btree_map::Entry::Vacant(place) = known.entry(key.clone()) else {
            return Err(AcceptError::NameTaken);
        };
        place.insert(Entry::Live { shared: shared.clone(), pipes });
        tokio::spawn(self.clone().remember(key, shared.clone()));
        Ok(())
    }

    async fn resume(
        &self,
        key: Key,
        epoch: Epoch,
        proof: &Secret,
        mut acceptor: Acceptor,
        mut pipe: TlsPipe<P>,
    ) -> Result<Accepted, AcceptError> {
        let refused = {
            let known = self.known();
            match known.sessions.get(&key) {
                Some(Entry::Live { shared, pipes }) => {
                    let now = shared.now();
                    let mut resumed = Ok(());
                    shared.with_news(|state| {
                        resumed = state.session.resume(now, epoch, proof, &mut acceptor);
                        if resumed.is_ok() {
                            state.epoch = epoch;
                        }
                    });
                    match resumed {
                        Ok(()) => {
                            // If the driver is gone, so is the session, and the peer will see the pipe end.
                            let _ = pipes.send(Box::new((epoch, pipe.forget_peer())));
                            return Ok(Accepted::Resumed);
                        }
                        Err(refused) => refused,
                    }
                }
                Some(Entry::Over(Some(tombstone))) => tombstone.refuse(proof, &mut acceptor),
                Some(Entry::Over(None)) | None => acceptor.refuse(),
            }
        };
        // Who hangs up before it has heard all of that has been refused as well.
        if say(&mut pipe, &mut acceptor).await.is_ok() {
            let _ = poll_fn(|context| pipe.poll_close(context)).await;
        }
        Err(AcceptError::Refused(refused))
    }

    /// Keeps what is left of a session that is over for as long as the session would have been kept. Not of one that the
    /// peer has closed: it knows. Nor of one without a name, for which nobody can come. Nor if too much is kept for the peer
    /// already: it is told what a stranger would be.
    async fn remember(self, key: Key, shared: Arc<Shared>) {
        let closed = shared.closed().await;
        let tombstone = shared.lock().session.tombstone();
        {
            let known = &mut self.known().sessions;
            let is_ours =
                |entry: &_| matches!(entry, Entry::Live { shared: its, .. } if Arc::ptr_eq(its, &shared));
            if !known.get(&key).is_some_and(is_ours) {
                return;
            }
            let is_over = |entry: &_| matches!(entry, Entry::Over(_));
            if matches!(closed, LinkClosed::Peer { .. })
                || matches!(key.1, Label::Nameless(_))
                || count(known, &key.0, is_over) >= SESSIONS_PER_PEER
            {
                known.remove(&key);
                return;
            }
            known.insert(key.clone(), Entry::Over(tombstone));
        }
        drop(shared);
        sleep_until(Instant::now() + self.time_to_live()).await;
        self.known().sessions.remove(&key);
    }

    /// How long who comes late is told how it ended.
    fn time_to_live(&self) -> Duration {
        self.config.grace + 2 * self.config.idle_timeout
    }

    /// Closes all sessions that go on, and waits until they are over. From now on none begins, and no pipe is waited for: one
    /// that has none ends at once. `reason` is for the peers' eyes. Cancel-safe.
    pub async fn close(&self, code: Code, reason: &str) {
        for shared in self.begin_close(code, reason) {
            shared.closed().await;
        }
    }

    /// As [`close`](Self::close), without waiting.
    pub fn abandon(&self, code: Code, reason: &str) {
        self.begin_close(code, reason);
    }

    fn begin_close(&self, code: Code, reason: &str) -> Vec<Arc<Shared>> {
        let mut known = self.known();
        known.is_closed = true;
        let live = |entry: &Entry<P>| match entry {
            Entry::Live { shared, .. } => Some(shared.clone()),
            Entry::Over(_) => None,
        };
        let live: Vec<_> = known.sessions.values().filter_map(live).collect();
        drop(known);
        for shared in &live {
            shared.close(code, reason.as_bytes());
            shared.do_without_pipes(Arc::new(io::Error::other("this end has closed its sessions")));
        }
        live
    }

    fn known(&self) -> MutexGuard<'_, Known<P>> {
        self.known.lock().expect("nothing panics while it holds the lock")
    }

    /// How many sessions there are, with those that are over and remembered.
    pub fn count(&self) -> usize {
        self.known().sessions.len()
    }
}

/// How many of a peer's sessions are so.
fn count<P>(known: &BTreeMap<Key, Entry<P>>, peer: &str, is_so: impl Fn(&Entry<P>) -> bool) -> usize {
    let from = (peer.to_owned(), Label::Named(SessionId([0; SessionId::LEN])));
    known.range(from..).take_while(|((whose, _), _)| whose == peer).filter(|(_, entry)| is_so(entry)).count()
}

/// A label for a session of the peer's that has no name.
fn free_label<P>(known: &BTreeMap<Key, Entry<P>>, peer: &str) -> Label {
    let nameless = |number| (peer.to_owned(), Label::Nameless(number));
    match known.range(nameless(0)..=nameless(u64::MAX)).next_back() {
        Some(((_, Label::Nameless(last)), _)) => Label::Nameless(last + 1),
        _ => Label::Nameless(0),
    }
}

/// Reads until it is known what the pipe is, and says what is to be said before that.
async fn listen(pipe: &mut impl Carrier, acceptor: &mut Acceptor) -> io::Result<Arrival> {
    let (mut pieces, mut arrival) = (Vec::new(), None);
    loop {
        say(pipe, acceptor).await?;
        if let Some(arrival) = arrival {
            return Ok(arrival);
        }
        poll_fn(|context| pipe.poll_receive(context, &mut pieces)).await?;
        if pieces.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for piece in pieces.drain(..) {
            arrival = acceptor.handle_input(piece).or(arrival);
        }
        pipe.make_room(0, || ());
    }
}

/// Says what the acceptor has to say.
async fn say(pipe: &mut impl Carrier, acceptor: &mut Acceptor) -> io::Result<()> {
    let mut batch = Batch::default();
    while acceptor.wants_transmit() {
        acceptor.poll_transmit(ANSWER, &mut batch.slices);
        batch.ends.push(batch.slices.len());
        pipe.send(&mut batch);
        poll_fn(|context| pipe.poll_flush(context)).await?;
    }
    Ok(())
}
