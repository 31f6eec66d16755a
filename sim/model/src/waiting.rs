//! Who waits to be told, and has not been: a wake-up that is lost is a stall.
//!
//! In: verbs that found nothing, or no room; events. Keeps: who has yet to hear.

use std::collections::BTreeSet;

use towline_engine::{Dir, Event, ReadError, Session, Side, StreamId};

/// Who waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting(BTreeSet<(Side, What)>);

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// A stream to accept.
    Accept(Dir),
    /// Leave to open one.
    Open(Dir),
    /// Something to read.
    Read(StreamId),
    /// Room to write.
    Write(StreamId),
}

impl Waiting {
    pub(crate) fn add(&mut self, side: Side, what: What) {
        self.0.insert((side, what));
    }

    /// It no longer waits, for whatever reason.
    pub(crate) fn remove(&mut self, side: Side, what: What) {
        self.0.remove(&(side, what));
    }

    /// The application is done with the stream.
    pub(crate) fn remove_stream(&mut self, side: Side, id: StreamId) {
        self.remove(side, What::Read(id));
        self.remove(side, What::Write(id));
    }

    pub(crate) fn on_event(&mut self, side: Side, event: &Event) {
        match *event {
            Event::Incoming(dir) => self.remove(side, What::Accept(dir)),
            Event::Openable(dir) => self.remove(side, What::Open(dir)),
            Event::Readable(id) => self.remove(side, What::Read(id)),
            Event::Writable(id) | Event::Stopped(id, _) => self.remove(side, What::Write(id)),
            // There is no use in opening any more.
            Event::Draining { .. } => {
                self.0.retain(|wait| !matches!(*wait, (at, What::Open(_)) if at == side));
            }
            // It concerns everybody.
            Event::Closed(_) => self.0.retain(|(waiting, _)| *waiting != side),
            _ => {}
        }
    }

    /// Checks that nobody on `side` waits who need not.
    ///
    /// # Panics
    ///
    /// If somebody does.
    pub(crate) fn check(&self, side: Side, session: &Session) {
        for (_, what) in self.0.iter().filter(|(waiting, _)| *waiting == side) {
            let mut session = session.clone();
            let waits = match *what {
                What::Accept(dir) => session.accept(dir).is_none(),
                What::Read(id) => session.stream(id).is_ok_and(|mut s| s.read(1) == Err(ReadError::Blocked)),
                What::Open(_) | What::Write(_) => true,
            };
            assert!(waits, "no_stall: {side:?} waits for {what:?} and has not heard of it");
        }
    }

    /// Checks that nobody waits whom only the other end's application could hold up, once that has read everything,
    /// or released it.
    ///
    /// # Panics
    ///
    /// If somebody does.
    pub(crate) fn check_nobody(&self, may_wait: impl Fn(What) -> bool) {
        for (side, what) in &self.0 {
            assert!(may_wait(*what), "no_stall: {side:?} waits for {what:?} for ever");
        }
    }
}
