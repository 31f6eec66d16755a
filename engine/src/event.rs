//! What the application must know, and has yet to hear.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::CloseReason;
use crate::id::{ByDir, Code, Dir, Epoch, StreamId};
use crate::resume::Detached;
use crate::session::{Phase, Session};

/// News from a session.
///
/// `Readable`, `Writable`, `Openable` and `Incoming` come to who asked: once, after a verb of this end found
/// nothing and said `Blocked`. (Before the first [`accept`](crate::Session::accept), one is taken as asked.)
/// The others come by themselves, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer on this pipe has declared itself, and streams can be opened; or a session that was resumed goes on.
    Attached(Epoch),
    /// The session is without a pipe, and waits for one. Streams pause.
    Detached(Detached),
    /// The peer is ending the session gently. New streams belong on another one.
    Draining {
        /// How long the streams that are open have to finish.
        deadline: Duration,
        /// After how long to come back.
        retry_after: Duration,
    },
    /// A stream of the peer's waits in [`accept`](crate::Session::accept).
    Incoming(Dir),
    /// A stream that could not be opened can be now.
    Openable(Dir),
    /// There is something to read, or the stream has ended.
    Readable(StreamId),
    /// There is room to write.
    Writable(StreamId),
    /// The peer reads no more; what it had not received was dropped, and writes say so.
    Stopped(StreamId, Code),
    /// Everything that was written went out, and the end with it; if the session can resume, the peer has it.
    Finished(StreamId),
    /// The session is over. The last event. What had been received can still be read.
    Closed(CloseReason),
}

/// What the application has yet to hear of the session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionNews {
    /// The present pipe was attached.
    pub(crate) attached: bool,
    pub(crate) detached: Option<Detached>,
    /// The deadline and the time to come back, in milliseconds.
    pub(crate) draining: Option<Box<(u64, u64)>>,
    pub(crate) incoming: ByDir<bool>,
    pub(crate) openable: ByDir<bool>,
}

impl Session {
    /// Whether [`poll_event`](Self::poll_event) has something to tell of a stream: a verb of one may leave something for
    /// another.
    pub fn has_stream_events(&self) -> bool {
        self.streams.has_news()
    }

    /// The next thing that the application must know.
    pub fn poll_event(&mut self) -> Option<Event> {
        // A stream that is accepted afterwards may still have something to tell, which its verbs tell as well.
        if matches!(&self.phase, Phase::Closed(closed) if closed.told) {
            return None;
        }
        if let Some(how) = self.news.detached.take() {
            return Some(Event::Detached(how));
        }
        if core::mem::take(&mut self.news.attached)
            && let Some(epoch) = self.epoch
        {
            return Some(Event::Attached(epoch));
        }
        if let Some(event) = self.take_drain_news() {
            return Some(event);
        }
        for dir in [Dir::Bi, Dir::Uni] {
            if core::mem::take(self.news.incoming.get_mut(dir)) {
                return Some(Event::Incoming(dir));
            }
            if core::mem::take(self.news.openable.get_mut(dir)) {
                return Some(Event::Openable(dir));
            }
        }
        if let Some((id, mut news, code)) = self.streams.pop_news() {
            let event = if core::mem::take(&mut news.stopped) {
                Event::Stopped(id, code)
            } else if core::mem::take(&mut news.finished) {
                Event::Finished(id)
            } else if core::mem::take(&mut news.readable) {
                Event::Readable(id)
            } else {
                news.writable = false;
                Event::Writable(id)
            };
            if news.any() {
                self.streams.tell(id, |rest| *rest = news);
            }
            return Some(event);
        }
        match &mut self.phase {
            Phase::Closed(closed) => {
                let is_told = core::mem::replace(&mut closed.told, true);
                (!is_told).then(|| Event::Closed(closed.why.clone()))
            }
            Phase::Open | Phase::Closing(_) => None,
        }
    }

    /// Wakes everybody who waits, to learn that there is no pipe.
    pub(crate) fn wake_all(&mut self) {
        let ids: Vec<_> = self.streams.iter().map(|(id, _)| id).collect();
        for id in ids {
            let entry = self.streams.get_mut(id).expect("it was just there");
            let reads = entry.recv.as_mut().is_some_and(|recv| core::mem::take(&mut recv.waiting));
            let writes = entry.send.as_mut().is_some_and(|send| core::mem::take(&mut send.waiting));
            self.streams.tell(id, |news| {
                news.readable |= reads;
                news.writable |= writes;
            });
        }
        for dir in [Dir::Bi, Dir::Uni] {
            *self.news.openable.get_mut(dir) |= self.streams.stop_waiting_to_open(dir);
        }
    }
}
