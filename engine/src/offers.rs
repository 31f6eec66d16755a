//! Who hears that there is room again: those who have waited longest, each of a part of it.
//!
//! In: that room has become free, who waits for some, the clock. Out: news that there is room, and how much of it is whose.
//! Keeps: a byte for each stream, the sum of them, and since when nothing is held though some wait.

use core::time::Duration;

use crate::id::StreamId;
use crate::room::{STREAM_SHARE, stream_room};
use crate::session::Session;
use crate::stream::SendState;
use crate::time::Instant;
use crate::turns::Urgency;

/// What a full record carries: what is offered to a writer of the session's room are so many of these. What is left over would
/// be a frame of its own.
const FULL_RECORD: u64 = (16 << 10) - 64;

/// The most of these that a writer is offered: what is its share.
const MOST_RECORDS: u64 = STREAM_SHARE / FULL_RECORD;

/// How much room it is worth to tell a writer of, where there is hardly any. Who finds no more has not had its turn.
pub(crate) const WORTH_A_CALL: u64 = 1 << 10;

/// How many are all told at once when nothing is held. To wake more of them, of whom most find nothing, would cost more than
/// what there is to write.
const FEW: usize = 16;

/// How long nothing is held, though more than [`FEW`] wait, before all of them are told as well; and how long credit is kept for
/// who was told of it. Many times what it takes for somebody who was woken to write.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// Whether those who were told of room come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They do; or only few wait, if anybody; or there is no room.
    #[default]
    None,
    /// Nothing was held then but what is interactive, though many waited, and none of them has come since.
    Since(Instant),
    /// That took too long, and so all were told.
    AllTold,
}

impl Rest {
    /// When all are to be told.
    pub(crate) fn is_over_at(self) -> Option<Instant> {
        if let Self::Since(since) = self { Some(since + PATIENCE) } else { None }
    }
}

/// What was offered of the session's room: so many full records. One byte, as there is one for each idle stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer(u8);

impl Offer {
    /// Nothing has been on its way since it was made.
    const OLD: u8 = 1 << 7;

    /// At most 127 records.
    pub(crate) fn new(records: u8) -> Self {
        Self(records & !Self::OLD)
    }

    pub(crate) fn records(self) -> u8 {
        self.0 & !Self::OLD
    }

    /// Whether the application was told of room and has not written since, though there may be no record left of it.
    pub(crate) fn is_open(self) -> bool {
        self.0 > 0
    }

    /// Nothing is on its way: makes it an old one. Of one that is old already no record is left.
    pub(crate) fn age(self) -> Self {
        match self.0 {
            0 => self,
            fresh if fresh & Self::OLD == 0 => Self(fresh | Self::OLD),
            _ => Self(Self::OLD),
        }
    }

    pub(crate) fn digest(self) -> u64 {
        self.0.into()
    }
}

impl Session {
    /// Tells the stream's writer, if it waits, that there is room; or lets it wait for the session to have some.
    /// A stream that has no room of its own hears when the peer gives credit or its bytes go out.
    pub(crate) fn offer_room_to(&mut self, id: StreamId) {
        let Some((send, urgency)) = self.sender(id) else { return };
        if !send.waiting || stream_room(send) == 0 {
            return;
        }
        if self.session_room(urgency, send.offer.records()) > 0 {
            return self.tell_of_room(id);
        }
        // Who was told, and came too late, is not to wait for all others once more.
        let is_first = urgency == Urgency::Interactive || send.offer.is_open();
        if urgency == Urgency::Interactive && self.credit.available() == 0 {
            self.kept_credit.want();
        }
        if self.rest == Rest::AllTold {
            self.rest = Rest::None; // this one is to be told again
        }
        self.streams.wait_for_room(id, is_first);
        self.withdraw_offer(id);
    }

    /// Tells those who wait for the session that it has room again, once half of it is empty, and not with every record. They
    /// hear in the order in which they came, each of its part, and only as many as there is room for, so that whoever is woken
    /// finds some. Where bulk gives way, half would be less than the path takes, so an eighth is enough. Interactive streams
    /// for which credit is kept hear at once: it is not kept for long.
    ///
    /// Who was told may never write, as its write was cancelled. So all hear once nothing is held that is not interactive, and
    /// what was offered lapses when nothing is held here for the second time; where many wait, once that has [taken
    /// long](Self::watch_rest).
    pub(crate) fn offer_room(&mut self) {
        let is_early = self.held.all() > self.config.send_buffer / 2;
        if self.streams.waiting_for_room() == 0 || is_early && self.kept_credit.bytes() == 0 {
            return;
        }
        while self.session_room(Urgency::Interactive, 0) > 0
            && self.streams.first_for_room() == Some(Urgency::Interactive)
        {
            self.offer_next(MOST_RECORDS);
        }
        if is_early {
            return;
        }
        let (is_at_rest, useful) = (self.held.patient() == 0, self.useful_buffer());
        if is_at_rest && !self.do_many_wait() {
            self.streams.age_offers();
        }
        let enough = if self.queue_limit() < u64::MAX { (useful / 8).max(WORTH_A_CALL) } else { u64::MAX };
        let offered = in_bytes(self.streams.offered());
        let free = self.free();
        if useful.saturating_sub(self.held.patient() + offered) >= enough.min(useful / 2) {
            self.offer_in_turn(free.saturating_sub(offered));
        }
        if is_at_rest && free > 0 && !self.do_many_wait() {
            self.tell_all_of_room();
        }
    }

    /// Whether so many wait for room that not all are told of it when nothing is held.
    fn do_many_wait(&self) -> bool {
        self.streams.waiting_for_room() > FEW
    }

    /// Looks for how long none of those who were told of room has come, where many others wait. To be called with the time
    /// whenever that may have begun.
    pub(crate) fn watch_rest(&mut self, now: Instant) {
        self.rest = match self.rest {
            _ if self.streams.waiting_for_room() == 0 => Rest::None,
            Rest::None if self.is_at_rest() && self.do_many_wait() => Rest::Since(now),
            watched => watched,
        };
    }

    /// Whether nothing is held but what is interactive, and there is room.
    fn is_at_rest(&self) -> bool {
        self.held.patient() == 0 && self.free() > 0
    }

    /// When it is long enough ago that somebody was told of room, or of credit.
    pub(crate) fn waits_end_at(&self) -> Option<Instant> {
        [self.rest.is_over_at(), self.kept_credit.lapses_at()].into_iter().flatten().min()
    }

    /// That [time](Self::waits_end_at) has come.
    pub(crate) fn end_waits(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.kept_credit.lapses_at()) {
            self.let_go_of_credit();
        }
        if is_due(self.rest.is_over_at()) {
            self.end_rest();
        }
        self.watch_rest(now);
    }

    /// What was kept of the credit is for all.
    pub(crate) fn let_go_of_credit(&mut self) {
        if self.kept_credit.let_go() > 0 {
            self.offer_room();
        }
    }

    /// That was long enough: nothing is offered any more, and all are told; or the next, if others hold something meanwhile.
    fn end_rest(&mut self) {
        while self.streams.offered() > 0 {
            self.streams.age_offers();
        }
        if self.is_at_rest() {
            self.rest = Rest::AllTold;
            self.tell_all_of_room();
        } else {
            self.rest = Rest::None;
            self.offer_room();
        }
    }

    /// Tells all who wait, and leaves them where they stand: who comes, and is refused, has kept its place.
    fn tell_all_of_room(&mut self) {
        let waiting = self.streams.take_room_queue();
        for id in waiting.iter() {
            if self.sender(id).is_some_and(|(send, _)| stream_room(send) > 0) {
                self.tell_of_room(id);
            }
        }
        self.streams.put_back_room_queue(waiting);
    }

    /// Tells those who have waited longest, each of its part, until all of `room` is offered.
    fn offer_in_turn(&mut self, mut room: u64) {
        if room == 0 {
            return;
        }
        let waiting = self.streams.waiting_for_room().max(1) as u64;
        let records = ((room / waiting).max(self.least_offer()) / FULL_RECORD).clamp(1, MOST_RECORDS);
        let part = room.min(in_bytes(records));
        while room >= part
            && let Some(taken) = self.offer_next(records)
        {
            room = room.saturating_sub(taken);
        }
    }

    /// How much is offered to a writer at least, if there is that much: what the pipe takes in some 40 ms.
    fn least_offer(&self) -> u64 {
        (self.record_limit() as u64).saturating_mul(2)
    }

    /// Tells the writer who is the first to wait that there is room: for so many records, which are kept for its next write,
    /// or for as much as it may write. Returns how much that is, or `None` if nobody waits.
    fn offer_next(&mut self, most: u64) -> Option<u64> {
        let id = self.streams.next_for_room()?;
        let (send, urgency) = self.sender(id)?;
        let records = stream_room(send).div_ceil(FULL_RECORD).min(most);
        // Who does not wait, but stands here, was told when all were, and has yet to come.
        if send.state != SendState::Send || records == 0 {
            return Some(0);
        }
        self.tell_of_room(id);
        if urgency == Urgency::Interactive {
            return Some(0); // it has room of its own
        }
        self.streams.offer(id, u8::try_from(records).expect("no more than a stream's share"));
        Some(in_bytes(records))
    }

    fn tell_of_room(&mut self, id: StreamId) {
        let send = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut());
        if send.is_some_and(|send| core::mem::take(&mut send.waiting)) {
            self.streams.tell(id, |news| news.writable = true);
        }
    }

    /// The stream's writer needs no room any more: what it was offered is there for others.
    pub(crate) fn withdraw_offer(&mut self, id: StreamId) {
        self.streams.offer(id, 0);
        self.offer_room();
    }

    /// Tells the stream's writer, if it waits, that half of the stream's share has gone out.
    pub(crate) fn offer_share(&mut self, id: StreamId) {
        if self.sender(id).is_some_and(|(send, _)| send.waiting && send.queued() <= STREAM_SHARE / 2) {
            self.offer_room_to(id);
        }
    }
}

/// How much so many records are.
pub(crate) fn in_bytes(records: impl Into<u64>) -> u64 {
    records.into() * FULL_RECORD
}
