//! What is called on the sessions of a run, in order.

use std::sync::{Arc, Mutex};

use towline_engine::{Config, Instant, Resumption, Side};
use towline_transports::qlog::{Event, Recorded, Sink, Stamp};

/// Hears the calls of a run's sessions. Cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    heard: Arc<Mutex<Heard>>,
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) sessions: Vec<Session>,
    /// Whose call, when in nanoseconds, and what.
    pub(super) events: Vec<(usize, u64, Event)>,
}

/// An end of a session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) side: Side,
    /// The same at both ends.
    pub(super) name: String,
    pub(super) resumable: bool,
    left: usize,
}

/// How many sessions of a run are listened to, both ends counted: more are more of the same.
const MOST_SESSIONS: usize = 32;

/// How many events of a session are heard: more do not fit an input.
const MOST_EVENTS: usize = 4_000;

impl Calls {
    /// A session that is listened to, unless there are many already.
    pub fn session(&self, side: Side, config: Config, name: &str) -> Recorded {
        let mut heard = self.heard.lock().expect("nobody panics with it");
        if heard.sessions.len() >= MOST_SESSIONS {
            return Recorded::unheard(side, config);
        }
        let resumable = config.resumption != Resumption::Off;
        heard.sessions.push(Session { side, name: name.to_owned(), resumable, left: MOST_EVENTS });
        let listener = Listener { session: heard.sessions.len() - 1, calls: self.clone(), time: 0 };
        Recorded::with_sink(side, config, Box::new(listener))
    }

    /// What was heard so far.
    pub(super) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock().expect("nobody panics with it"))
    }
}

#[derive(Debug)]
struct Listener {
    session: usize,
    calls: Calls,
    time: u64,
}

impl Sink for Listener {
    /// The last time that is known: where the laboratory's clock stands, nobody tells.
    fn now(&self) -> Instant {
        Instant::from_nanos(self.time)
    }

    fn write(&mut self, stamp: Stamp, event: &Event) {
        self.time = stamp.time;
        let mut heard = self.calls.heard.lock().expect("nobody panics with it");
        // After the run, the sessions are dropped.
        let Some(session) = heard.sessions.get_mut(self.session) else { return };
        if session.left > 0 {
            session.left -= 1;
            heard.events.push((self.session, stamp.time, event.clone()));
        }
    }
}
