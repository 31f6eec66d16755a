//! Who may write how much, and who hears of it when there is more.
//!
//! What an application writes must have credit, so that it can go out as soon as the pipe takes it: the
//! stream's and the session's. It must also fit the send buffer, of which no stream may fill more than its
//! share and only interactive ones the last part.

use crate::id::StreamId;
use crate::session::Session;
use crate::stream::Send;
use crate::turns::Urgency;

/// How many unsent bytes one stream may have, so that it leaves room for others in the session's send buffer.
///
/// Eight full records: enough that a pipe never waits for a writer to be woken.
const STREAM_SHARE: u64 = 128 << 10;

/// Of how many parts of the send buffer the last is kept for interactive streams.
const INTERACTIVE_PART: u64 = 8;

impl Session {
    /// Lets the stream's writer add as many of `wanted` bytes as there is room for. Returns how many.
    pub(crate) fn use_room(&mut self, id: StreamId, wanted: u64) -> u64 {
        let (credit, buffer, held) = (self.credit.available(), self.config.send_buffer, self.held);
        let Some(entry) = self.streams.get_mut(id) else { return 0 };
        let Some(send) = &mut entry.send else { return 0 };
        let room = part_of(buffer, entry.urgency).saturating_sub(held);
        let count = wanted.min(stream_room(send)).min(credit).min(room);
        send.credit.take(count);
        self.credit.take(count);
        self.held += count;
        count
    }

    /// Notes that the stream's writer got less than it wanted, and what for.
    pub(crate) fn wait_to_write(&mut self, id: StreamId) {
        let session_credit = self.credit.available();
        let Some(send) = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut()) else { return };
        if core::mem::replace(&mut send.waiting, true) {
            return; // and the peer was told the first time
        }
        if send.credit.available() == 0 {
            send.blocked_owed = true;
            self.streams.schedule(id);
        } else if session_credit == 0
            && let Some(pipe) = &mut self.pipe
        {
            pipe.data_blocked_owed = true;
        }
        self.offer_room_to(id);
    }

    /// Tells the stream's writer, if it waits, that there is room; or lets it wait for the session to have some.
    /// A stream that has no room of its own hears when the peer gives credit or its bytes go out.
    pub(crate) fn offer_room_to(&mut self, id: StreamId) {
        let Some((send, urgency)) = self.sender(id) else { return };
        if !send.waiting || stream_room(send) == 0 {
            return;
        }
        if self.session_room(urgency) == 0 {
            return self.streams.wait_for_room(id);
        }
        if let Some(send) = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut()) {
            send.waiting = false;
        }
        self.streams.tell(id, |news| news.writable = true);
    }

    /// Tells everybody who waits for the session that it has room again, once it is half empty: so each
    /// hears for every half a buffer that goes out, and not for every record.
    pub(crate) fn offer_room(&mut self) {
        if !self.streams.anybody_waits_for_room() {
            return;
        }
        if self.held <= self.config.send_buffer / 2 && self.credit.available() > 0 {
            for id in self.streams.take_room_queue().iter() {
                self.offer_room_to(id);
            }
        }
    }

    /// Tells the stream's writer, if it waits, that half of the stream's share has gone out.
    pub(crate) fn offer_share(&mut self, id: StreamId) {
        if self.sender(id).is_some_and(|(send, _)| send.waiting && send.queued() <= STREAM_SHARE / 2) {
            self.offer_room_to(id);
        }
    }

    fn sender(&self, id: StreamId) -> Option<(&Send, Urgency)> {
        let entry = self.streams.get(id)?;
        Some((entry.send.as_ref()?, entry.urgency))
    }

    fn session_room(&self, urgency: Urgency) -> u64 {
        let room = part_of(self.config.send_buffer, urgency).saturating_sub(self.held);
        self.credit.available().min(room)
    }
}

/// How much of the send buffer streams of this urgency may fill.
fn part_of(buffer: u64, urgency: Urgency) -> u64 {
    match urgency {
        Urgency::Interactive => buffer,
        Urgency::Normal | Urgency::Bulk => buffer - buffer / INTERACTIVE_PART,
    }
}

fn stream_room(send: &Send) -> u64 {
    send.credit.available().min(STREAM_SHARE.saturating_sub(send.queued()))
}
