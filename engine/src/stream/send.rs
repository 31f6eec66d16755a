//! The sending half of a stream.
//!
//! In: the application's bytes, finish and reset; the peer's credit and stop. Out: STREAM and RESET_STREAM.
//! Keeps: what was written and has not gone out, within the peer's credit. Spec: RFC 9000 §3.1.

use crate::chunks::Queue;
use crate::flow::SendCredit;
use crate::id::Code;

/// RFC 9000 §3.1, without Ready: a stream has its id from the start.
///
/// QMux counts data as acknowledged once the pipe has taken it (draft-02 §4).
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
    /// The pipe took the FIN or the RESET_STREAM.
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
#[derive(Clone, Debug)]
pub(crate) struct Send {
    pub(crate) state: SendState,
    /// What the peer promised us for this stream, and what the application used of it.
    pub(crate) credit: SendCredit,
    /// The first offset that has not gone out.
    pub(crate) sent: u64,
    /// The bytes from `sent` to what the application wrote.
    pub(crate) queue: Queue,
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
    /// The peer shall know that its limit holds us up (RFC 9000 §4.1).
    pub(crate) blocked_owed: bool,
}

impl Send {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            state: SendState::Send,
            credit: SendCredit::new(limit),
            sent: 0,
            queue: Queue::default(),
            code: Code::default(),
            stopped: false,
            resets_when_sent: false,
            waiting: false,
            in_room_queue: false,
            blocked_owed: false,
        }
    }

    /// How many bytes wait to go out.
    pub(crate) fn queued(&self) -> u64 {
        self.credit.used() - self.sent
    }

    /// Whether STREAM frames are still to go out: bytes, or a FIN.
    pub(crate) fn wants_data(&self) -> bool {
        match self.state {
            SendState::Send => self.queued() > 0,
            SendState::DataSent => true,
            SendState::ResetSent | SendState::DataRecvd | SendState::ResetRecvd => false,
        }
    }

    /// Abandons the stream with `code`, and returns how many written bytes will not be sent, or `None` if it
    /// is too late. The caller clears the queue.
    pub(crate) fn reset(&mut self, code: Code) -> Option<u64> {
        self.state = self.state.on(SendInput::Reset)?;
        self.code = code;
        self.waiting = false;
        self.blocked_owed = false;
        self.resets_when_sent = false;
        let unsent = self.queued();
        self.credit.give_back(unsent);
        Some(unsent)
    }

    /// Nothing more will be sent: the session is over.
    pub(crate) fn give_up(&mut self) {
        self.credit.give_back(self.queued());
        self.waiting = false;
        self.blocked_owed = false;
        self.resets_when_sent = false;
    }

    pub(crate) fn invariants(&self) {
        self.credit.invariants();
        assert!(self.sent <= self.credit.used());
        match self.state {
            SendState::Send => assert!(!self.stopped),
            SendState::DataSent => {
                assert!(!self.waiting);
                assert!(!self.resets_when_sent || self.queued() > 0, "nothing holds the reset up");
            }
            SendState::ResetSent | SendState::DataRecvd | SendState::ResetRecvd => {
                assert!(self.queued() == 0 && self.queue.is_empty() && !self.waiting);
            }
        }
    }
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
        half.sent = 30;
        assert_eq!(half.reset(Code::from(1)), Some(40));
        assert_eq!((half.sent, half.credit.available()), (30, 70));
        assert_eq!(half.reset(Code::from(2)), None, "the first code counts");
        assert_eq!(half.code, Code::from(1));
    }
}
