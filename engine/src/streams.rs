//! All streams of a session: which exist, which may, and which have something to do.
//!
//! Keeps: an entry for each stream that is open or not released, which the peer can only make for as many as
//! we allow. A stream that is allowed and not open costs nothing. Spec: RFC 9000 §2.1, §3, §4.6.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::ops::RangeBounds;

use crate::entry::{Entry, News, Queued, Surfaced};
use crate::error::Violation;
use crate::id::{ByDir, Code, Dir, MAX_STREAMS, Side, StreamId};
use crate::line::Line;
use crate::offers::Offer;
use crate::stream::{Recv, Send};
use crate::turns::{Turn, Turns, Urgency};

/// The streams that this end opens in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Local {
    /// How many were opened; the index of the next one.
    opened: u64,
    /// How many the peer allows.
    limit: u64,
    /// An open was refused; the application waits to hear that there is room.
    waiting: bool,
    /// The peer shall know that its limit holds us up (RFC 9000 §4.6).
    blocked_owed: bool,
}

/// The streams that the peer opens in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Remote {
    /// How many it has opened, by using this one or a higher index.
    opened: u64,
    /// How many may be open at a time.
    concurrent: u64,
    /// How many we allow in all: the last limit that we announced.
    limit: u64,
    /// How many are over.
    closed: u64,
    /// An accept found nothing; the application waits to hear of one.
    waiting: bool,
}

impl Remote {
    /// The limit to announce, once the peer has used up half of what it may have open.
    fn update_owed(&self) -> Option<u64> {
        let limit = (self.closed + self.concurrent).min(MAX_STREAMS);
        (limit > self.limit && self.limit - self.opened <= self.concurrent / 2).then_some(limit)
    }
}

/// Where a frame's stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has an entry.
    Here,
    /// It is over, and both ends knew when this end forgot it.
    Gone,
}

/// The streams.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    side: Side,
    /// Boxed, so that a half-empty node of the tree costs eight bytes a stream and not the stream.
    entries: BTreeMap<StreamId, Box<Entry>>,
    local: ByDir<Local>,
    remote: ByDir<Remote>,
    /// Streams that wait to be accepted.
    incoming: ByDir<Line>,
    /// Streams that owe RESET_STREAM, STOP_SENDING, MAX_STREAM_DATA or STREAM_DATA_BLOCKED.
    control: Line,
    /// Streams of which something has arrived that was not acknowledged.
    acks: Line,
    /// The session can resume: a stream is needed until both ends know that the other is done with it.
    pub(crate) acknowledges: bool,
    /// Streams that have data or an end to send.
    data: Turns,
    /// Streams that the application has yet to hear of.
    news: Line,
    /// Streams whose writers wait for the session's credit or send buffer.
    room: Line,
    /// How much room was offered to streams that have not written since: so many full records.
    offered: u32,
    /// How many places in queues belong to streams that are gone.
    gone: u32,
}

impl Streams {
    /// No streams; the peer may open as many at a time as `concurrent` says, this end none yet.
    pub(crate) fn new(side: Side, concurrent: ByDir<u64>) -> Self {
        let remote =
            |concurrent| Remote { concurrent, limit: concurrent, waiting: true, ..Remote::default() };
        Self {
            side,
            entries: BTreeMap::new(),
            local: ByDir::default(),
            remote: ByDir { bi: remote(concurrent.bi), uni: remote(concurrent.uni) },
            incoming: ByDir::default(),
            control: Line::default(),
            acks: Line::default(),
            acknowledges: false,
            data: Turns::default(),
            news: Line::default(),
            room: Line::default(),
            offered: 0,
            gone: 0,
        }
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Entry> {
        self.entries.get(&id).map(|entry| &**entry)
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Entry> {
        self.entries.get_mut(&id).map(|entry| &mut **entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamId, &Entry)> {
        self.entries.iter().map(|(&id, entry)| (id, &**entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    // The ids.

    /// The id of the next stream that this end may open in direction `dir`, if the peer allows one.
    pub(crate) fn next_local(&mut self, dir: Dir) -> Option<StreamId> {
        let side = self.side;
        let local = self.local.get_mut(dir);
        if local.opened == local.limit {
            local.waiting = true;
            local.blocked_owed = true;
            return None;
        }
        local.opened += 1;
        Some(StreamId::new(side, dir, local.opened - 1).expect("the limit is at most 2^60"))
    }

    /// How many streams this end has opened.
    pub(crate) fn local_opened(&self, dir: Dir) -> u64 {
        self.local.get(dir).opened
    }

    /// How many streams the peer allows.
    pub(crate) fn local_limit(&self, dir: Dir) -> u64 {
        self.local.get(dir).limit
    }

    /// How many streams the peer has opened.
    pub(crate) fn remote_opened(&self) -> ByDir<u64> {
        ByDir { bi: self.remote.bi.opened, uni: self.remote.uni.opened }
    }

    /// How many streams the peer may open: the last limits that were announced.
    pub(crate) fn remote_limits(&self) -> ByDir<u64> {
        ByDir { bi: self.remote.bi.limit, uni: self.remote.uni.limit }
    }

    /// Whether there can be such a stream: this end has opened it, or the peer may.
    pub(crate) fn may_exist(&self, id: StreamId) -> bool {
        let dir = id.dir();
        let ours = id.opener() == self.side;
        id.index() < if ours { self.local.get(dir).opened } else { self.remote.get(dir).limit }
    }

    /// The first stream in `range`.
    pub(crate) fn range(&self, range: impl RangeBounds<StreamId>) -> Option<StreamId> {
        self.entries.range(range).next().map(|(&id, _)| id)
    }

    /// How far each stream that the peer sends on has come here.
    pub(crate) fn progress(&self) -> impl Iterator<Item = (StreamId, u64)> {
        self.iter().filter_map(|(id, entry)| Some((id, entry.recv.as_ref()?.progress())))
    }

    /// Nobody waits any more to open a stream. Returns whether somebody did.
    pub(crate) fn stop_waiting_to_open(&mut self, dir: Dir) -> bool {
        core::mem::take(&mut self.local.get_mut(dir).waiting)
    }

    /// Learns how many streams the peer allows. Returns whether somebody waits for that.
    pub(crate) fn raise_local_limit(&mut self, dir: Dir, limit: u64) -> bool {
        let local = self.local.get_mut(dir);
        local.limit = local.limit.max(limit);
        if local.opened == local.limit {
            return false;
        }
        local.blocked_owed = false;
        core::mem::take(&mut local.waiting)
    }

    /// Adds the entry of a stream that this end opens or the peer has opened.
    pub(crate) fn insert(&mut self, id: StreamId, send: Option<Send>, recv: Option<Recv>) {
        let surfaced = if id.opener() == self.side { Surfaced::Known } else { Surfaced::Hidden };
        let entry = Entry {
            send,
            recv,
            urgency: Urgency::default(),
            surfaced,
            released: false,
            news: News::default(),
            queued: Queued::default(),
        };
        self.entries.insert(id, Box::new(entry));
    }

    /// Finds the stream that a frame of the peer's is about. `open` makes the entries of the streams that
    /// the peer opens by naming this one: it, and all lower ones of its kind (RFC 9000 §2.1).
    ///
    /// # Errors
    ///
    /// [`Violation::StreamState`] for a stream of this end's that does not exist yet;
    /// [`Violation::StreamLimit`] for one of the peer's beyond what we allow.
    pub(crate) fn find(
        &mut self,
        id: StreamId,
        mut open: impl FnMut(StreamId) -> (Option<Send>, Option<Recv>),
    ) -> Result<Place, Violation> {
        if self.entries.contains_key(&id) {
            return Ok(Place::Here);
        }
        if id.opener() == self.side {
            let opened = self.local.get(id.dir()).opened;
            return if id.index() < opened { Ok(Place::Gone) } else { Err(Violation::StreamState) };
        }
        let Remote { opened, limit, .. } = *self.remote.get(id.dir());
        if id.index() >= limit {
            return Err(Violation::StreamLimit);
        }
        if id.index() < opened {
            return Ok(Place::Gone);
        }
        for index in opened..=id.index() {
            let id = StreamId::new(id.opener(), id.dir(), index).expect("below an id that exists");
            let (send, recv) = open(id);
            self.insert(id, send, recv);
        }
        self.remote.get_mut(id.dir()).opened = id.index() + 1;
        Ok(Place::Here)
    }

    /// Shows a stream of the peer's to the application. Returns whether somebody waits for that.
    pub(crate) fn surface(&mut self, id: StreamId) -> bool {
        let entry = self.entries.get_mut(&id).expect("only a live stream is surfaced");
        if entry.surfaced != Surfaced::Hidden {
            return false;
        }
        entry.surfaced = Surfaced::Offered;
        self.incoming.get_mut(id.dir()).push_back(id);
        core::mem::take(&mut self.remote.get_mut(id.dir()).waiting)
    }

    /// Takes the next stream that the application has not accepted.
    pub(crate) fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let Some(id) = self.incoming.get_mut(dir).pop_front() else {
            self.remote.get_mut(dir).waiting = true;
            return None;
        };
        let entry = self.entries.get_mut(&id).expect("an offered stream is live");
        entry.surfaced = Surfaced::Known;
        if entry.send.as_ref().is_some_and(|send| send.stopped) {
            self.tell(id, |news| news.stopped = true);
        }
        Some(id)
    }

    /// Removes the entry if nobody needs it any more, and frees its place in the peer's limit.
    pub(crate) fn retire(&mut self, id: StreamId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let is_early = sabotaged!(SlotReturnedEarly) && entry.has_ended(self.acknowledges);
        if entry.is_over(self.acknowledges) || is_early {
            self.remove(id);
        }
    }

    /// Removes the entry whatever its state. For a session that is over.
    pub(crate) fn remove(&mut self, id: StreamId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        // Where it still stands in a queue it is passed over.
        self.gone += entry.places();
        self.offered -= entry.send.map_or(0, |send| send.offer.records().into());
        self.pass_over();
        if id.opener() != self.side {
            self.remote.get_mut(id.dir()).closed += 1;
        }
    }

    /// Sees to it that who is at the front of a queue is there.
    fn pass_over(&mut self) {
        if self.gone == 0 {
            return;
        }
        let Self { entries, control, acks, data, news, room, gone, .. } = self;
        let is_gone = |id: StreamId| !entries.contains_key(&id);
        let passed: u32 = [control, acks, news, room].into_iter().map(|queue| queue.pass_over(is_gone)).sum();
        *gone -= passed + data.pass_over(is_gone);
    }

    // The frames that are owed for all streams of a kind.

    /// The MAX_STREAMS limit to announce, if one is worth a frame.
    pub(crate) fn max_streams_owed(&self, dir: Dir) -> Option<u64> {
        self.remote.get(dir).update_owed()
    }

    pub(crate) fn announce_max_streams(&mut self, dir: Dir, limit: u64) {
        self.remote.get_mut(dir).limit = limit;
    }

    /// The limit that holds up an open, if the peer shall know.
    pub(crate) fn streams_blocked_owed(&self, dir: Dir) -> Option<u64> {
        let local = self.local.get(dir);
        local.blocked_owed.then_some(local.limit)
    }

    pub(crate) fn streams_blocked_told(&mut self, dir: Dir) {
        self.local.get_mut(dir).blocked_owed = false;
    }

    // The queues. An entry stands in each at most once.

    /// Puts the stream wherever it has something to do.
    pub(crate) fn schedule(&mut self, id: StreamId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.wants_control() && !core::mem::replace(&mut entry.queued.control, true) {
            self.control.push_back(id);
        }
        let wants_data = entry.send.as_ref().is_some_and(Send::wants_data);
        if wants_data && !core::mem::replace(&mut entry.queued.data, true) {
            self.data.push(entry.urgency, id);
        }
    }

    /// Tells the application something about the stream, unless it does not know it yet or is done with it.
    pub(crate) fn tell(&mut self, id: StreamId, what: impl FnOnce(&mut News)) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.surfaced != Surfaced::Known || entry.released {
            return;
        }
        what(&mut entry.news);
        if entry.news.any() && !core::mem::replace(&mut entry.queued.news, true) {
            self.news.push_back(id);
        }
    }

    /// Whether the application has yet to hear of a stream.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The next stream that the application has yet to hear of, and what; `None` when it has heard all.
    pub(crate) fn pop_news(&mut self) -> Option<(StreamId, News, Code)> {
        loop {
            let id = self.news.pop_front()?;
            let entry = self.entries.get_mut(&id).expect("who is at the front is there");
            entry.queued.news = false;
            let news = core::mem::take(&mut entry.news);
            let code = entry.send.as_ref().map_or(Code::default(), |send| send.code);
            self.pass_over();
            if news.any() {
                return Some((id, news, code));
            }
        }
    }

    /// The next stream that owes a control frame.
    pub(crate) fn next_control(&self) -> Option<StreamId> {
        self.control.front()
    }

    /// Takes that stream out of the queue.
    pub(crate) fn pop_control(&mut self) {
        if let Some(id) = self.control.pop_front() {
            self.entries.get_mut(&id).expect("who is at the front is there").queued.control = false;
            self.pass_over();
        }
    }

    /// Something of the stream has arrived that is to be acknowledged.
    pub(crate) fn queue_ack(&mut self, id: StreamId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if !core::mem::replace(&mut entry.queued.ack, true) {
            self.acks.push_back(id);
        }
    }

    /// Takes the next stream that is to be acknowledged.
    pub(crate) fn pop_ack(&mut self) -> Option<StreamId> {
        let id = self.acks.pop_front()?;
        self.entries.get_mut(&id).expect("who is at the front is there").queued.ack = false;
        self.pass_over();
        Some(id)
    }

    /// Whose turn it is to send data, if a turn is `quantum` bytes.
    pub(crate) fn next_data(&self, quantum: u64) -> Option<Turn> {
        self.data.next(quantum)
    }

    /// Whether any stream has data to send.
    pub(crate) fn has_data(&self) -> bool {
        !self.data.is_empty()
    }

    /// Whether a stream besides the one whose turn it is has data to send.
    pub(crate) fn has_more_data(&self) -> bool {
        self.data.len() > 1
    }

    /// The stream whose turn it is has sent `count` bytes of data.
    pub(crate) fn spend_data(&mut self, turn: Turn, quantum: u64, count: u64) {
        let id = turn.id;
        let entry = self.entries.get_mut(&id);
        let has_more = entry.as_ref().is_some_and(|entry| entry.send.as_ref().is_some_and(Send::wants_data));
        if !self.data.spend(turn, quantum, count, has_more) {
            return;
        }
        if let Some(entry) = entry {
            entry.queued.data = has_more;
            if has_more {
                self.data.push(entry.urgency, id);
            }
        }
        self.pass_over();
    }

    /// Changes a stream's urgency; its turn comes at the end of the new class.
    pub(crate) fn set_urgency(&mut self, id: StreamId, urgency: Urgency) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let old = core::mem::replace(&mut entry.urgency, urgency);
        if core::mem::replace(&mut entry.queued.data, false) {
            self.data.remove(old, id);
            self.schedule(id);
            self.pass_over();
        }
    }

    /// Lets the stream's writer wait for the session's credit or send buffer: behind all others, or before them.
    pub(crate) fn wait_for_room(&mut self, id: StreamId, is_first: bool) {
        let Some(send) = self.get_mut(id).and_then(|entry| entry.send.as_mut()) else { return };
        if !core::mem::replace(&mut send.in_room_queue, true) {
            if is_first { self.room.push_front(id) } else { self.room.push_back(id) }
        }
    }

    /// How many wait for room, those included that are gone.
    pub(crate) fn waiting_for_room(&self) -> usize {
        self.room.len()
    }

    /// How urgent whoever is the first to wait for room is.
    pub(crate) fn first_for_room(&self) -> Option<Urgency> {
        Some(self.get(self.room.front()?)?.urgency)
    }

    /// Takes whoever is the first to wait for room.
    pub(crate) fn next_for_room(&mut self) -> Option<StreamId> {
        let id = self.room.pop_front()?;
        let send = self.get_mut(id).and_then(|entry| entry.send.as_mut());
        send.expect("who is at the front is there").in_room_queue = false;
        self.pass_over();
        Some(id)
    }

    /// Takes all who wait for room, to be put back at once.
    pub(crate) fn take_room_queue(&mut self) -> Line {
        core::mem::take(&mut self.room)
    }

    pub(crate) fn put_back_room_queue(&mut self, room: Line) {
        self.room = room;
    }

    /// Offers the stream's writer room for so many full records, for its next write, and none of what it had before.
    pub(crate) fn offer(&mut self, id: StreamId, records: u8) {
        let Some(send) = self.get_mut(id).and_then(|entry| entry.send.as_mut()) else { return };
        let before = core::mem::replace(&mut send.offer, Offer::new(records));
        self.offered = self.offered - u32::from(before.records()) + u32::from(records);
    }

    /// Nothing is on its way: what was offered before the last time that this was so is taken back.
    pub(crate) fn age_offers(&mut self) {
        if core::mem::take(&mut self.offered) > 0 {
            for send in self.entries.values_mut().filter_map(|entry| entry.send.as_mut()) {
                send.offer = send.offer.age();
                self.offered += u32::from(send.offer.records());
            }
        }
    }

    /// How much room is offered to all of them: so many full records.
    pub(crate) fn offered(&self) -> u32 {
        self.offered
    }

    /// Gives back what empty queues have kept for the next time.
    pub(crate) fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.entries = BTreeMap::new(); // an empty one keeps a node
        }
        let queues = [&mut self.incoming.bi, &mut self.incoming.uni, &mut self.control, &mut self.acks];
        queues.into_iter().chain([&mut self.news, &mut self.room]).for_each(Line::shrink);
        self.data.shrink();
    }

    /// Whether any stream has a frame to send.
    pub(crate) fn wants_transmit(&self) -> bool {
        !self.control.is_empty()
            || self.has_data()
            || [Dir::Bi, Dir::Uni]
                .into_iter()
                .any(|dir| self.max_streams_owed(dir).is_some() || self.streams_blocked_owed(dir).is_some())
    }

    /// Feeds everything but the entries' own state to `digest`.
    pub(crate) fn digest(&self, digest: &mut crate::fingerprint::Digest) {
        for dir in [Dir::Bi, Dir::Uni] {
            let (local, remote) = (self.local.get(dir), self.remote.get(dir));
            digest.numbers(&[
                local.opened,
                local.limit,
                u64::from(local.waiting),
                u64::from(local.blocked_owed),
            ]);
            digest.numbers(&[remote.opened, remote.limit, remote.closed, u64::from(remote.waiting)]);
        }
        let queues =
            [&self.incoming.bi, &self.incoming.uni, &self.control, &self.acks, &self.news, &self.room];
        let is_gone = |id: StreamId| !self.entries.contains_key(&id);
        self.data.digest(digest, is_gone);
        for queue in queues {
            queue.digest(digest, is_gone);
        }
        digest.numbers(&[self.offered.into(), self.waiting_for_room() as u64]);
    }

    pub(crate) fn invariants(&self) {
        let mut open = ByDir::<u64>::default();
        for (id, entry) in self.iter() {
            entry.invariants(self.acknowledges);
            assert_eq!(entry.send.is_some(), id.sends(self.side));
            assert_eq!(entry.recv.is_some(), id.receives(self.side));
            if id.opener() == self.side {
                assert!(id.index() < self.local.get(id.dir()).opened);
            } else {
                *open.get_mut(id.dir()) += 1;
            }
        }
        for dir in [Dir::Bi, Dir::Uni] {
            let (local, remote) = (self.local.get(dir), self.remote.get(dir));
            assert!(local.opened <= local.limit);
            assert!(remote.opened <= remote.limit);
            assert_eq!(remote.opened - remote.closed, *open.get(dir), "each slot is held by a stream");
            assert!(*open.get(dir) <= remote.concurrent, "no more at a time than allowed");
        }
        let offered =
            self.iter().filter_map(|(_, entry)| Some(u32::from(entry.send.as_ref()?.offer.records())));
        assert_eq!(self.offered, offered.sum::<u32>(), "what was offered is counted");
        for queue in [&self.incoming.bi, &self.incoming.uni] {
            assert!(queue.iter().all(|id| self.get(id).is_some_and(|e| e.surfaced == Surfaced::Offered)));
        }
        let is_here = |id: &StreamId| self.entries.contains_key(id);
        assert!(self.data.iter().filter(is_here).count() <= self.entries.len(), "nobody is in a queue twice");
        let places = [&self.control, &self.acks, &self.news, &self.room].into_iter().flat_map(Line::iter);
        let gone = places.chain(self.data.iter()).filter(|id| !is_here(id)).count();
        assert_eq!(self.gone as usize, gone, "each place of a stream that is gone is counted");
        assert!(self.data.fronts().all(|id| is_here(&id)), "who is at the front is there");
        for queue in [&self.control, &self.acks, &self.news, &self.room] {
            assert!(queue.front().is_none_or(|id| is_here(&id)), "who is at the front is there");
            assert!(queue.iter().filter(is_here).count() <= self.entries.len(), "nobody is in a queue twice");
        }
    }
}
