//! One stream among all: its halves, whether the application knows it, and where it stands in line.
//!
//! Keeps: what the queues of [`Streams`](crate::streams::Streams) need to know of it, so that it stands in none twice. Spec:
//! RFC 9000 §2.1, §3.

use crate::stream::{Recv, Send};
use crate::turns::Urgency;

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) send: Option<Send>,
    pub(crate) recv: Option<Recv>,
    pub(crate) urgency: Urgency,
    pub(crate) surfaced: Surfaced,
    /// The application is done with it.
    pub(crate) released: bool,
    pub(crate) news: News,
    pub(crate) queued: Queued,
}

/// Whether the application knows a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surfaced {
    /// Not yet: the peer has named it, and sent no data on it.
    Hidden,
    /// It waits in the accept queue.
    Offered,
    /// The application opened or accepted it.
    Known,
}

/// What the application has yet to hear of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) stopped: bool,
    pub(crate) finished: bool,
}

impl News {
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

/// Which of the queues hold the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queued {
    pub(crate) control: bool,
    pub(crate) ack: bool,
    pub(crate) data: bool,
    pub(crate) news: bool,
}

impl Entry {
    /// Whether nobody needs the entry any more.
    pub(crate) fn is_over(&self, acknowledges: bool) -> bool {
        self.released && self.has_ended(acknowledges)
    }

    /// Whether both halves have, and both ends know.
    pub(crate) fn has_ended(&self, acknowledges: bool) -> bool {
        let is_told = |recv: &Recv| !acknowledges || !recv.ack_owed();
        self.send.as_ref().is_none_or(|send| send.state.is_terminal())
            && self.recv.as_ref().is_none_or(|recv| recv.state.is_terminal() && is_told(recv))
    }

    /// In how many queues it stands.
    pub(crate) fn places(&self) -> u32 {
        let Queued { control, ack, data, news } = self.queued;
        let waits_for_room = self.send.as_ref().is_some_and(|send| send.in_room_queue);
        [control, ack, data, news, waits_for_room].into_iter().map(u32::from).sum()
    }

    pub(crate) fn wants_control(&self) -> bool {
        let send = self.send.as_ref().is_some_and(|send| send.wants_reset() || send.blocked_owed);
        let recv = self.recv.as_ref().is_some_and(|recv| recv.stop_owed || recv.credit_owed());
        send || recv
    }

    pub(crate) fn invariants(&self, acknowledges: bool) {
        if let Some(send) = &self.send {
            send.invariants();
            assert!(!send.wants_data() || self.queued.data, "who has data is in the queue");
        }
        if let Some(recv) = &self.recv {
            recv.invariants();
        }
        assert!(!self.wants_control() || self.queued.control, "who owes a frame is in the queue");
        assert!(!self.news.any() || self.queued.news);
        assert!(!self.is_over(acknowledges), "what is over is removed");
        let owes_ack = acknowledges && self.recv.as_ref().is_some_and(Recv::ack_owed);
        assert!(!owes_ack || self.queued.ack, "who owes an acknowledgement is in the queue");
        assert!(
            !self.news.any() || self.surfaced == Surfaced::Known && !self.released,
            "there is who to tell"
        );
    }
}
