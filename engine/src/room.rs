//! Who may write how much, and who hears of it when there is more.
//!
//! What an application writes must have credit, so that it can go out as soon as the pipe takes it: the
//! stream's and the session's. It must also fit the send buffer, of which no stream may fill more than its
//! share and only interactive ones the last part. Where the send buffer holds what is on its way as well, only
//! interactive ones may fill more of it than the path takes: nothing overtakes what is on its way. Spec: PROTOCOL §6.2.

use core::time::Duration;

use crate::id::StreamId;
use crate::session::Session;
use crate::stream::Send;
use crate::time::Instant;
use crate::turns::Urgency;

/// How many unsent bytes one stream may have, so that it leaves room for others in the session's send buffer.
///
/// Eight full records: enough that a pipe never waits for a writer to be woken.
const STREAM_SHARE: u64 = 128 << 10;

/// How fast a path is taken to be at most, in bytes a second. A session end to end is encrypted on three ways, which takes
/// all of a processor by about then.
const FASTEST: u64 = 256 << 20;

/// What every path is taken to hold: four acknowledgements' worth. With less, each of them would be waited for.
const SHORT_PATH: u64 = 256 << 10;

/// A round-trip time that limits who writes is measured again when it is so old: the path may have become longer.
const MEASURE_AGAIN: Duration = Duration::from_secs(1);

/// Of how many parts of the send buffer the last is kept for interactive streams.
const INTERACTIVE_PART: u64 = 8;

impl Session {
    /// Lets the stream's writer add as many of `wanted` bytes as there is room for. Returns how many.
    pub(crate) fn use_room(&mut self, id: StreamId, wanted: u64) -> u64 {
        let (credit, useful, held) = (self.credit.available(), self.useful_buffer(), self.held);
        let all = self.config.send_buffer;
        let Some(entry) = self.streams.get_mut(id) else { return 0 };
        let Some(send) = &mut entry.send else { return 0 };
        let room = part_of(all, useful, entry.urgency).saturating_sub(held);
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
    ///
    /// While others wait for the session, so does this one: those whose own windows hold them up would otherwise pass on
    /// the session's room to each other, and who had to wait for it once would wait for ever. What is kept for interactive
    /// streams, the others do not wait for.
    pub(crate) fn offer_room_to(&mut self, id: StreamId) {
        let Some((send, urgency)) = self.sender(id) else { return };
        if !send.waiting || stream_room(send) == 0 {
            return;
        }
        let comes_late = urgency != Urgency::Interactive && self.streams.anybody_waits_for_room();
        if comes_late || self.session_room(urgency) == 0 {
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
        if self.held <= self.useful_buffer() / 2 && self.credit.available() > 0 {
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

    /// Asks for the round-trip time to be measured again if it is old and somebody waits because of it.
    pub(crate) fn measure_path(&mut self, now: Instant) {
        let useful = self.useful_buffer();
        if useful == self.config.send_buffer
            || self.held <= useful / 2
            || !self.streams.anybody_waits_for_room()
        {
            return;
        }
        if let Some(pipe) = &mut self.pipe {
            pipe.liveness.ask_if_older(now, MEASURE_AGAIN);
        }
    }

    /// How much of the send buffer is of use: for what is kept until it is acknowledged, what the path takes.
    pub(crate) fn useful_buffer(&self) -> u64 {
        let all = self.config.send_buffer;
        let pipe = self.pipe.as_ref().filter(|_| self.resume.is_some());
        pipe.and_then(|pipe| pipe.liveness.recent()).map_or(all, |round_trip| all.min(path_room(round_trip)))
    }

    fn sender(&self, id: StreamId) -> Option<(&Send, Urgency)> {
        let entry = self.streams.get(id)?;
        Some((entry.send.as_ref()?, entry.urgency))
    }

    fn session_room(&self, urgency: Urgency) -> u64 {
        let part = part_of(self.config.send_buffer, self.useful_buffer(), urgency);
        self.credit.available().min(part.saturating_sub(self.held))
    }
}

/// How much of the send buffer, of which a part is `useful`, streams of this urgency may fill.
fn part_of(buffer: u64, useful: u64, urgency: Urgency) -> u64 {
    match urgency {
        Urgency::Interactive => buffer,
        Urgency::Normal | Urgency::Bulk => useful.min(buffer - buffer / INTERACTIVE_PART),
    }
}

/// How much a path with this round-trip time may hold.
fn path_room(round_trip: Duration) -> u64 {
    let fastest = u128::from(FASTEST) * round_trip.as_nanos() / 1_000_000_000;
    u64::try_from(fastest).unwrap_or(u64::MAX).max(SHORT_PATH)
}

fn stream_room(send: &Send) -> u64 {
    send.credit.available().min(STREAM_SHARE.saturating_sub(send.queued()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_follows_the_path() {
        let room = |micros| path_room(Duration::from_micros(micros));
        assert_eq!((room(0), room(100), room(1000), room(2000)), (256 << 10, 256 << 10, 268_435, 536_870));
        assert_eq!(path_room(Duration::MAX), u64::MAX);
    }
}
