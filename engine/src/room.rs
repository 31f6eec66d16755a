//! Who may write how much.
//!
//! What an application writes must have credit, so that it can go out as soon as the pipe takes it: the
//! stream's and the session's. It must also fit the send buffer, of which no stream may fill more than its
//! share and only interactive ones the last part. Where the send buffer holds what is on its way as well, only
//! interactive ones may fill more of it than the path takes: nothing overtakes what is on its way. Spec: PROTOCOL §6.2.

use alloc::boxed::Box;
use core::time::Duration;

use crate::id::StreamId;
use crate::liveness::in_nanos;
use crate::offers::{Rest, WORTH_A_CALL, in_bytes};
use crate::session::Session;
use crate::standing_queue::StandingQueue;
use crate::stream::Send;
use crate::time::Instant;
use crate::turns::Urgency;

/// How many unsent bytes one stream may have, so that it leaves room for others in the session's send buffer.
///
/// Eight full records: enough that a pipe never waits for a writer to be woken.
pub(crate) const STREAM_SHARE: u64 = 128 << 10;

/// How fast a path is taken to be at most, in bytes a second. A session end to end is encrypted on three ways, which takes
/// all of a processor by about then.
const FASTEST: u64 = 256 << 20;

/// What every path is taken to hold while somebody types beside bulk: four acknowledgements' worth. With less, each of them
/// would be waited for.
const SHORT_PATH: u64 = 256 << 10;

/// What part of the send buffer every path is taken to hold while nobody does, if that is more. Where a round trip takes less
/// than a millisecond, processors are what is slow, and whoever is woken for little does not do much each time.
const UNHURRIED_PART: u64 = 4;

/// Of how many parts of the send buffer the last is kept for interactive streams; and of credit, [once they waited for
/// it](crate::kept_credit::KeptCredit).
pub(crate) const INTERACTIVE_PART: u64 = 8;

/// How many bytes the application wrote that are kept, on all streams together: until the pipe has taken them, or, if the
/// session can resume, until the peer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    all: u64,
    /// Those of interactive streams.
    urgent: u64,
    /// Those of the others that the pipe has taken.
    sent: u64,
}

impl Held {
    pub(crate) fn add(&mut self, urgency: Urgency, count: u64) {
        self.all += count;
        self.urgent += if urgency == Urgency::Interactive { count } else { 0 };
    }

    /// Lets go of `count` bytes, of which the pipe had taken `sent`.
    pub(crate) fn remove(&mut self, urgency: Urgency, count: u64, sent: u64) {
        self.all -= count;
        if urgency == Urgency::Interactive {
            self.urgent -= count;
        } else {
            self.sent -= sent;
        }
    }

    /// The pipe takes so many of them, which are kept all the same.
    pub(crate) fn send(&mut self, urgency: Urgency, count: u64) {
        self.sent += if urgency == Urgency::Interactive { 0 } else { count };
    }

    /// All of them are to go out again.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    pub(crate) fn is_empty(self) -> bool {
        self.all == 0
    }

    pub(crate) fn all(self) -> u64 {
        self.all
    }

    /// Those of streams that are not interactive.
    pub(crate) fn patient(self) -> u64 {
        self.all - self.urgent
    }

    /// Those of these that are on their way.
    pub(crate) fn patient_on_its_way(self) -> u64 {
        self.sent
    }
}

impl Session {
    /// Lets the stream's writer add as many of `wanted` bytes as there is room for. Returns how many.
    pub(crate) fn use_room(&mut self, id: StreamId, wanted: u64) -> u64 {
        let Some((send, urgency)) = self.sender(id) else { return 0 };
        let (is_open, offered) = (send.offer.is_open(), send.offer.records());
        let room = self.session_room(urgency, offered);
        if let Some(pipe) = self.pipe.as_mut().filter(|_| self.held.is_empty()) {
            pipe.is_at_rest = true; // until it is given any of this
        }
        let Some(send) = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut()) else { return 0 };
        let could = wanted.min(stream_room(send));
        let count = could.min(room);
        // Who finds no more than what others have left keeps its place.
        let is_served = count > WORTH_A_CALL || count == could && count > 0;
        send.credit.take(count);
        self.credit.take(count);
        self.held.add(urgency, count);
        if is_open && is_served {
            self.rest = Rest::None;
            self.withdraw_offer(id); // what it has left
        }
        if urgency == Urgency::Interactive && count > 0 {
            self.let_go_of_credit();
        }
        count
    }

    /// The stream is of this urgency from now on, and what is kept of it.
    pub(crate) fn change_urgency(&mut self, id: StreamId, urgency: Urgency) {
        let Some(entry) = self.streams.get(id).filter(|entry| entry.urgency != urgency) else { return };
        // Of a session that is over, nothing is kept.
        let send = entry.send.as_ref().filter(|_| !self.is_closed());
        let (held, sent) = send.map_or((0, 0), |send| (send.held(), send.on_its_way()));
        self.held.remove(entry.urgency, held, sent);
        self.held.add(urgency, held);
        self.held.send(urgency, sent);
        self.streams.set_urgency(id, urgency);
        if urgency == Urgency::Interactive {
            self.streams.offer(id, 0);
        }
        // Another part of the send buffer is open to it, and one less to the others or one more.
        self.offer_room();
        self.offer_room_to(id);
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

    /// Asks for the length of the path to be measured again, if it is known for long and something is about to go out with
    /// nothing on its way: behind that, a ping would measure the queue.
    pub(crate) fn measure_path(&mut self, now: Instant) {
        let begins = self.resume.is_some() && self.streams.has_data();
        if let Some(pipe) = self.pipe.as_mut().filter(|pipe| begins && pipe.is_at_rest) {
            pipe.liveness.ask_for_path(now);
        }
    }

    /// The pipe takes so much of a stream, which is kept all the same. If somebody waits for it beside bulk, the queue matters.
    pub(crate) fn keep_sent(&mut self, now: Instant, urgency: Urgency, count: u64) {
        self.held.send(urgency, count);
        let waits = urgency == Urgency::Interactive && count > 0;
        let matters = waits && self.path_may_limit() && self.held.patient() > 0;
        if let Some(pipe) = self.pipe.as_mut().filter(|_| matters) {
            pipe.standing_queue.get_or_insert_with(|| Box::new(StandingQueue::UNKNOWN)).matters(now);
        }
    }

    /// Asks for the queue on the way to be measured, as long as somebody would wait in it.
    pub(crate) fn measure_queue(&mut self, now: Instant) {
        let (on_its_way, kept) = (self.held.patient_on_its_way(), self.held.patient());
        let Some(pipe) = &mut self.pipe else { return };
        pipe.standing_queue.take_if(|queue| queue.is_over(now));
        if pipe.standing_queue.as_ref().is_some_and(|queue| queue.may_ask(now, on_its_way, kept)) {
            pipe.liveness.ask_if_none_is_out();
        }
    }

    /// A ping has told how long the path is, with or without what waits on it.
    pub(crate) fn on_round_trip(&mut self, round_trip: Duration) {
        if let Some(pipe) = &mut self.pipe
            && let (Some(queue), Some(path)) = (&mut pipe.standing_queue, pipe.liveness.path())
        {
            queue.handle_pong(round_trip, path);
        }
        self.offer_room();
    }

    /// How much of the send buffer is of use: for what is kept until it is acknowledged, what the path takes; and while
    /// somebody types beside it, what does not wait on the way for long.
    pub(crate) fn useful_buffer(&self) -> u64 {
        let all = self.config.send_buffer;
        let Some(pipe) = self.pipe.as_ref().filter(|_| self.resume.is_some()) else { return all };
        let unhurried = if pipe.standing_queue.is_none() { all / UNHURRIED_PART } else { 0 };
        let path = pipe.liveness.path().map_or(u64::MAX, |path| path_room(path).max(unhurried));
        all.min(path).min(self.queue_limit())
    }

    /// How much bulk may be on its way, for the sake of whoever types beside it.
    pub(crate) fn queue_limit(&self) -> u64 {
        let queue = self.pipe.as_ref().and_then(|pipe| pipe.standing_queue.as_ref());
        queue.map_or(u64::MAX, |queue| queue.limit())
    }

    /// Whether [`useful_buffer`](Self::useful_buffer) depends on how long the path is.
    pub(crate) fn path_may_limit(&self) -> bool {
        self.resume.is_some() && self.config.send_buffer > SHORT_PATH
    }

    pub(crate) fn sender(&self, id: StreamId) -> Option<(&Send, Urgency)> {
        let entry = self.streams.get(id)?;
        Some((entry.send.as_ref()?, entry.urgency))
    }

    /// How much room the session has for a stream of this urgency, to which so many records were offered.
    ///
    /// While others wait for it, or were told that they may write, one that is not interactive has what it was offered and no
    /// more: streams whose own windows hold them up would otherwise pass it on to each other, and who had to wait for it once
    /// would wait for ever. Who was told may never write, so once nothing is held there is what was not offered.
    pub(crate) fn session_room(&self, urgency: Urgency, offered: u8) -> u64 {
        let others = in_bytes(self.streams.offered().saturating_sub(offered.into()));
        let is_contended = self.streams.waiting_for_room() > 0 || others > 0;
        let room = match urgency {
            Urgency::Interactive => self.config.send_buffer.saturating_sub(self.held.all),
            Urgency::Normal | Urgency::Bulk if !is_contended => self.free_room(),
            Urgency::Normal | Urgency::Bulk if offered > 0 => self.free_room().min(in_bytes(offered)),
            Urgency::Normal | Urgency::Bulk if self.held.patient() == 0 => {
                // Never nothing: who was told, and is refused, would be told again, without end.
                self.free_room().saturating_sub(others).max(self.free_room().min(WORTH_A_CALL))
            }
            Urgency::Normal | Urgency::Bulk => 0,
        };
        let kept = if urgency == Urgency::Interactive { 0 } else { self.kept_credit.bytes() };
        room.min(self.credit.available() - kept)
    }

    /// How much room there is for streams that are not interactive.
    fn free_room(&self) -> u64 {
        let all = self.config.send_buffer;
        let part = (all - all / INTERACTIVE_PART).saturating_sub(self.held.all);
        part.min(self.useful_buffer().saturating_sub(self.held.patient()))
    }

    /// How much of that has credit.
    pub(crate) fn free(&self) -> u64 {
        self.free_room().min(self.credit.available() - self.kept_credit.bytes())
    }
}

/// How much a path with this round-trip time may hold. None counts as longer than a minute, so that 64 bits are enough.
fn path_room(round_trip: Duration) -> u64 {
    let nanos = in_nanos(round_trip.min(Duration::from_secs(60)));
    (FASTEST * nanos / 1_000_000_000).max(SHORT_PATH)
}

/// How much room the stream has of its own.
pub(crate) fn stream_room(send: &Send) -> u64 {
    send.credit.available().min(STREAM_SHARE.saturating_sub(send.queued()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_follows_the_path() {
        let room = |micros| path_room(Duration::from_micros(micros));
        assert_eq!((room(0), room(100), room(1000), room(2000)), (256 << 10, 256 << 10, 268_435, 536_870));
        assert_eq!(path_room(Duration::MAX), 60 * FASTEST);
    }
}
