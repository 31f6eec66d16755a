//! The sending half of a stream.
//!
//! In: the application's bytes, finish and reset; the peer's credit, stop and acknowledgement. Out: STREAM and
//! RESET_STREAM. Keeps: what was written and has not gone out, or on a session that can resume is not acknowledged;
//! within the peer's credit and the send buffer. Spec: RFC 9000 §3.1, PROTOCOL §4.1 and §6.

use crate::chunks::Queue;
use crate::flow::SendCredit;
use crate::id::Code;
use crate::offers::Offer;

/// RFC 9000 §3.1, without Ready: a stream has its id from the start.
///
/// QMux counts data as acknowledged once the pipe has taken it (draft-02 §4); a session that can resume, once the
/// peer's STREAM_ACK says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendState {
    /// The application may write.
    Send,
    /// It has finished; bytes or the FIN are still to go out.
    DataSent,
    /// The stream is abandoned; the RESET_STREAM is still to go out.
    ResetSent,
    /// Everything went out.
    DataRecvd,
    /// The RESET_STREAM went out.
    ResetRecvd,
}

/// What can happen to a sending half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendInput {
    /// The application has no more to send.
    Finish,
    /// The application abandons the stream, or the peer asked us to stop.
    Reset,
    /// The pipe took the FIN or the RESET_STREAM; or, on a session that can resume, the peer has it.
    Acknowledged,
}

impl SendState {
    /// The next state, or `None` where the input has no effect (PROTOCOL §4.1).
    pub(crate) fn on(self, input: SendInput) -> Option<Self> {
        use SendInput::{Acknowledged, Finish, Reset};
        match (self, input) {
            (Self::Send, Finish) => Some(Self::DataSent),
            (Self::Send | Self::DataSent, Reset) => Some(Self::ResetSent),
            (Self::DataSent, Acknowledged) => Some(Self::DataRecvd),
            (Self::ResetSent, Acknowledged) => Some(Self::ResetRecvd),
            (Self::Send, Acknowledged) => None, // nothing that ends the stream has gone out
            (Self::DataSent | Self::DataRecvd, Finish) => None, // once is enough
            (Self::ResetSent | Self::ResetRecvd, Finish | Reset) => None, // the first code counts
            (Self::DataRecvd, Reset) => None,   // too late: the peer has it all
            (Self::DataRecvd | Self::ResetRecvd, Acknowledged) => None,
        }
    }

    /// Whether the half needs nothing more from anybody.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::DataRecvd | Self::ResetRecvd)
    }
}

/// The half. The session counts its bytes against its own credit and its send buffer.
///
/// Offsets lie in this order: `acked`, `sent`, `high`, what the application wrote. On a session that cannot resume
/// the first three are one: what the pipe took is as good as delivered.
#[derive(Clone, Debug)]
pub(crate) struct Send {
    pub(crate) state: SendState,
    /// What the peer promised us for this stream, and what the application used of it.
    pub(crate) credit: SendCredit,
    /// The first offset that the peer's engine does not have, as far as we know.
    pub(crate) acked: u64,
    /// The first offset that has not gone out on this pipe.
    pub(crate) sent: u64,
    /// The first offset that has not gone out on any pipe. A reset says it as the final size.
    pub(crate) high: u64,
    /// The bytes from `acked` to `sent`: they may have to go out again.
    pub(crate) unacked: Queue,
    /// The bytes from `sent` to what the application wrote.
    pub(crate) queue: Queue,
    /// Whether the FIN or the RESET_STREAM has gone out.
    pub(crate) end: End,
    /// The code of the reset: the application's, or the one that the peer stopped us with.
    pub(crate) code: Code,
    /// Whether it was the peer who asked for the reset.
    pub(crate) stopped: bool,
    /// The stream is finished, but ends with a reset: once everything that was written has gone out.
    pub(crate) resets_when_sent: bool,
    /// A write was refused or shortened; the application waits to hear that there is room.
    pub(crate) waiting: bool,
    /// The session has no room for this stream, which stands in the queue of those who wait for some.
    pub(crate) in_room_queue: bool,
    /// How much of the session's room was offered to the application, for its next write.
    pub(crate) offer: Offer,
    /// The peer shall know that its limit holds us up (RFC 9000 §4.1).
    pub(crate) blocked_owed: bool,
}

/// Where the end of a sending half is: its FIN or RESET_STREAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It has not gone out.
    Unsent,
    /// It went out on an earlier pipe, and may have been lost with it.
    SentBefore,
    /// It went out on this pipe.
    Sent,
}

impl Send {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            state: SendState::Send,
            credit: SendCredit::new(limit),
            acked: 0,
            sent: 0,
            high: 0,
            unacked: Queue::default(),
            queue: Queue::default(),
            end: End::Unsent,
            code: Code::default(),
            stopped: false,
            resets_when_sent: false,
            waiting: false,
            in_room_queue: false,
            offer: Offer::default(),
            blocked_owed: false,
        }
    }

    /// How many bytes wait to go out.
    pub(crate) fn queued(&self) -> u64 {
        if self.is_reset() { 0 } else { self.credit.used() - self.sent }
    }

    /// How many bytes are kept: those that wait to go out, and those that may have to go out again.
    pub(crate) fn held(&self) -> u64 {
        if self.is_reset() { 0 } else { self.credit.used() - self.acked }
    }

    /// How many of these the pipe has taken.
    pub(crate) fn on_its_way(&self) -> u64 {
        self.held() - self.queued()
    }

    fn is_reset(&self) -> bool {
        matches!(self.state, SendState::ResetSent | SendState::ResetRecvd)
    }

    /// Whether STREAM frames, or the reset that follows them, are still to go out.
    pub(crate) fn wants_data(&self) -> bool {
        match self.state {
            SendState::Send => self.queued() > 0,
            SendState::DataSent => self.queued() > 0 || self.end != End::Sent,
            SendState::ResetSent | SendState::DataRecvd | SendState::ResetRecvd => false,
        }
    }

    /// Whether a RESET_STREAM is still to go out that waits for nothing.
    pub(crate) fn wants_reset(&self) -> bool {
        self.state == SendState::ResetSent && self.end != End::Sent
    }

    /// Abandons the stream with `code`, and returns what was kept, or `None` if it is too late. The caller clears the queues.
    pub(crate) fn reset(&mut self, code: Code) -> Option<Dropped> {
        if self.resets_when_sent && self.end != End::Unsent {
            return None; // the first code counts, and the peer may have it
        }
        let (held, on_its_way) = (self.held(), self.on_its_way());
        self.state = self.state.on(SendInput::Reset)?;
        self.code = code;
        self.waiting = false;
        self.blocked_owed = false;
        self.resets_when_sent = false;
        // A FIN that went out says nothing about the RESET_STREAM that follows it.
        if self.end == End::Sent {
            self.end = End::SentBefore;
        }
        let unsent = self.credit.used() - self.high;
        self.credit.give_back(unsent);
        Some(Dropped { held, on_its_way, unsent })
    }

    /// How far the peer may say that it has received: one past the final size means the end as well.
    pub(crate) fn most_acked(&self) -> u64 {
        if self.end == End::Unsent { self.high } else { self.high + 1 }
    }

    /// Whether it ends well once its end is acknowledged.
    pub(crate) fn is_finished_by_ack(&self) -> bool {
        self.state == SendState::DataSent && !self.resets_when_sent
    }

    /// There is a new pipe: everything that was not acknowledged goes out again. The caller moves the bytes.
    pub(crate) fn rewind(&mut self) {
        let is_forgotten =
            sabotaged!(FinLostAtDetach) && self.state == SendState::DataSent && self.held() == 0;
        if self.end == End::Sent && !is_forgotten {
            self.end = End::SentBefore;
        }
        if !self.is_reset() {
            self.sent = self.acked;
        }
        self.blocked_owed = false;
    }

    /// Nothing more will be sent: the session is over.
    pub(crate) fn give_up(&mut self) {
        self.credit.give_back(self.credit.used() - self.high);
        self.waiting = false;
        self.blocked_owed = false;
        self.resets_when_sent = false;
    }

    pub(crate) fn invariants(&self) {
        self.credit.invariants();
        assert!(self.acked <= self.high && self.high <= self.credit.used());
        match self.state {
            SendState::Send => assert!(!self.stopped && self.end == End::Unsent),
            SendState::DataSent => {
                assert!(!self.waiting);
                assert!(self.end != End::Sent || self.queued() == 0, "the end goes out last");
                assert!(self.end == End::Unsent || self.high == self.credit.used());
            }
            SendState::ResetSent | SendState::DataRecvd | SendState::ResetRecvd => {
                assert!(
                    self.held() == 0 && self.queue.is_empty() && self.unacked.is_empty() && !self.waiting
                );
            }
        }
        if !self.is_reset() {
            assert!(self.acked <= self.sent && self.sent <= self.high.max(self.acked));
        }
    }
}

/// What a reset dropped, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// What was kept.
    pub(crate) held: u64,
    /// What of it the pipe had taken.
    pub(crate) on_its_way: u64,
    /// What of it had not gone out on any pipe, so that its credit was given back.
    pub(crate) unsent: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use SendInput::{Acknowledged, Finish, Reset};
    use SendState::{DataRecvd, DataSent, ResetRecvd, ResetSent, Send};

    #[test]
    fn all_pairs_are_those_of_the_protocol() {
        let table = [
            // state       Finish          Reset            Acknowledged
            (Send, Some(DataSent), Some(ResetSent), None),
            (DataSent, None, Some(ResetSent), Some(DataRecvd)),
            (ResetSent, None, None, Some(ResetRecvd)),
            (DataRecvd, None, None, None),
            (ResetRecvd, None, None, None),
        ];
        for (state, finish, reset, acknowledged) in table {
            assert_eq!(state.on(Finish), finish, "{state:?}");
            assert_eq!(state.on(Reset), reset, "{state:?}");
            assert_eq!(state.on(Acknowledged), acknowledged, "{state:?}");
        }
    }

    #[test]
    fn a_reset_gives_back_the_credit_of_what_was_not_sent() {
        let mut half = super::Send::new(100);
        half.credit.take(70);
        (half.acked, half.sent, half.high) = (10, 20, 30);
        assert_eq!(half.reset(Code::from(1)), Some(Dropped { held: 60, on_its_way: 10, unsent: 40 }));
        assert_eq!((half.high, half.credit.available(), half.held()), (30, 70, 0));
        assert_eq!(half.reset(Code::from(2)), None, "the first code counts");
        assert_eq!(half.code, Code::from(1));
    }
}
