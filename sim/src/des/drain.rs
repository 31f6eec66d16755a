//! The drain of a session: a device ends it gently, and what came too late goes on in another one.
//!
//! In: a fault at the device, the news of it at the service, and refusals of streams. Out: new sessions, and streams that are
//! begun again.

use std::time::Duration;

use towline_engine::{Code, StreamId};

use super::world::{StreamState, World};
use crate::event::What;

/// How long streams have to finish once a device has begun to drain its sessions.
const DRAIN: Duration = Duration::from_secs(45);

impl World<'_> {
    /// The device ends its sessions gently.
    pub(super) fn drain_sessions(&mut self, host: usize) {
        let now = self.clock(host);
        for end in self.sessions_of(host) {
            self.ends[end].session.drain(now, DRAIN, Duration::ZERO);
            self.ends[end].drains = true;
            self.dirty.insert(end);
        }
    }

    /// The service hears that the device is ending the session. What comes now belongs on another one.
    pub(super) fn peer_drains(&mut self, end: usize) {
        self.ends[end].has_heard_drain = true;
        let pair = self.ends[end].pair;
        if self.pairs[pair].end == Some(end) {
            self.pairs[pair].end = None;
            self.pairs[pair].draining.push(end);
            if !self.pairs[pair].ready.is_empty() {
                self.begin_session(pair);
            }
        }
        let host = self.ends[end].host;
        let text = format!("{} is being drained", self.ends[end].name);
        self.emit(host, What::Note { text });
    }

    /// A session that drains has refused the stream: it is tried again in another. Returns whether that is so.
    pub(super) fn refused(&mut self, end: usize, id: StreamId) -> bool {
        let Some(app) = self.ends[end].apps.get_mut(&id) else { return false };
        let stream = app.stream;
        if !app.take_back() {
            return false;
        }
        self.look_at_refused_stream(end, stream);
        self.sink.sometimes("stream_refused_by_a_drain", true);
        self.ends[end].session.release(id, Code::REFUSED);
        self.ends[end].ids.remove(&id);
        let StreamState { pair, refusals, .. } = self.streams[stream];
        self.streams[stream] = StreamState { pair, refusals: refusals + 1, ..StreamState::default() };
        self.pairs[pair].ready.push_back(stream);
        match self.pairs[pair].end {
            Some(present) if present != end => self.open_ready(present),
            // Before it hears of the drain the session is all there is.
            Some(_) => {}
            None => self.begin_session(pair),
        }
        true
    }
}
