//! The receiving half of a stream.
//!
//! In: STREAM and RESET_STREAM from the peer; the application's reads and its stop. Out: bytes, an end, or a
//! reset; MAX_STREAM_DATA, STOP_SENDING and STREAM_ACK. Keeps: what was received and not read, covered by credit
//! that we gave. Spec: RFC 9000 §3.2, PROTOCOL §4.2 and §6.

use crate::chunks::Queue;
use crate::error::Violation;
use crate::flow::ReceiveWindow;
use crate::id::Code;
use crate::record::Piece;

/// RFC 9000 §3.2, without Size Known: data comes in order, so the FIN comes when all data has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvState {
    /// More may come.
    Recv,
    /// All bytes and the FIN are here; some are unread.
    DataRecvd,
    /// The peer abandoned the stream; the application does not know yet, and may first read what came before.
    ResetRecvd(Code),
    /// The application has read to the end, or reads no more and the end is known.
    DataRead,
    /// The application knows of the reset, or reads no more.
    ResetRead(Code),
}

/// What can happen to a receiving half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvInput {
    /// The FIN came.
    Fin,
    /// RESET_STREAM came.
    Reset(Code),
    /// The application learned of the end or of the reset, or reads no more.
    Read,
}

impl RecvState {
    /// The next state, or `None` where the input has no effect (PROTOCOL §4.2).
    pub(crate) fn on(self, input: RecvInput) -> Option<Self> {
        use RecvInput::{Fin, Read, Reset};
        match (self, input) {
            (Self::DataRecvd, Reset(code)) if sabotaged!(LateResetTakesBack) => Some(Self::ResetRecvd(code)),
            (Self::Recv, Fin) => Some(Self::DataRecvd),
            (Self::Recv, Reset(code)) => Some(Self::ResetRecvd(code)),
            (Self::Recv, Read) => None, // there is no end yet to learn of
            (Self::DataRecvd, Read) => Some(Self::DataRead),
            (Self::ResetRecvd(code), Read) => Some(Self::ResetRead(code)),
            (Self::DataRecvd | Self::DataRead, Fin | Reset(_)) => None, // a late reset takes nothing back
            (Self::ResetRecvd(_) | Self::ResetRead(_), Fin | Reset(_)) => None, // the first code counts
            (Self::DataRead | Self::ResetRead(_), Read) => None,
        }
    }

    /// Whether the stream's final size is known.
    pub(crate) fn has_ended(self) -> bool {
        !matches!(self, Self::Recv)
    }

    /// Whether the half needs nothing more from anybody.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::DataRead | Self::ResetRead(_))
    }
}

/// The half.
#[derive(Clone, Debug)]
pub(crate) struct Recv {
    pub(crate) state: RecvState,
    /// Once the stream has ended, `received` is its final size.
    pub(crate) window: ReceiveWindow,
    /// The least offset that may come next on this pipe. It lies below what was received only after a change of
    /// pipe, when the peer sends again what it does not know to have arrived.
    pub(crate) next: u64,
    /// What the peer was told to have arrived, as [`progress`](Self::progress) counts.
    pub(crate) acked: u64,
    /// What was received and not read.
    pub(crate) queue: Queue,
    /// The application reads no more.
    pub(crate) stop: Option<Code>,
    /// The STOP_SENDING is still to go out.
    pub(crate) stop_owed: bool,
    /// A read found nothing; the application waits to hear that there is something.
    pub(crate) waiting: bool,
}

impl Recv {
    pub(crate) fn new(window: u64) -> Self {
        Self {
            state: RecvState::Recv,
            window: ReceiveWindow::new(window),
            next: 0,
            acked: 0,
            queue: Queue::default(),
            stop: None,
            stop_owed: false,
            waiting: false,
        }
    }

    /// Checks a piece of a STREAM frame, and returns how many bytes the whole of what is left of the frame adds
    /// to flow control.
    ///
    /// # Errors
    ///
    /// [`Violation::FinalSize`] for data past the end, or an end that moves (RFC 9000 §4.5);
    /// [`Violation::NotInOrder`] for data that does not follow on (draft-02 §4.1), which after a change of pipe
    /// means on any offset that was received before (PROTOCOL §6.5);
    /// [`Violation::FlowControl`] for data past the limit (RFC 9000 §4.1).
    pub(crate) fn check(&self, piece: &Piece) -> Result<u64, Violation> {
        let end = piece.offset + piece.data.len() as u64 + piece.rest;
        let received = self.window.received();
        if self.state.has_ended() && (end > received || piece.fin && end != received) {
            return Err(Violation::FinalSize);
        }
        if piece.offset < self.next || piece.offset > received {
            return Err(Violation::NotInOrder);
        }
        self.window.check(end)?;
        Ok(end.saturating_sub(received))
    }

    /// How many bytes, from the front, of a piece that passed [`check`](Self::check) were received before.
    pub(crate) fn overlap(&self, piece: &Piece) -> usize {
        let before = self.window.received() - piece.offset;
        usize::try_from(before).unwrap_or(usize::MAX).min(piece.data.len())
    }

    /// How far the peer's sending half has come here: the bytes, and one more for the end (PROTOCOL §6.2).
    pub(crate) fn progress(&self) -> u64 {
        self.window.received() + u64::from(self.state.has_ended())
    }

    /// Whether the peer is still to be told how far it has come.
    pub(crate) fn ack_owed(&self) -> bool {
        self.acked < self.progress()
    }

    /// There is a new pipe: the peer may send again what it does not know to have arrived.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
        self.stop_owed |= self.stop.is_some() && !self.state.has_ended() && !sabotaged!(StopLostAtDetach);
    }

    /// Checks a RESET_STREAM, and returns how many bytes its final size adds to flow control: 0 for a repeat.
    ///
    /// # Errors
    ///
    /// [`Violation::FinalSize`] if `final_size` is not the one that is known, or less than what was received
    /// (RFC 9000 §4.5); [`Violation::FlowControl`] if it is past the limit (RFC 9000 §4.5).
    pub(crate) fn check_reset(&self, final_size: u64) -> Result<u64, Violation> {
        let received = self.window.received();
        if final_size < received || self.state.has_ended() && final_size != received {
            return Err(Violation::FinalSize);
        }
        self.window.check(final_size)?;
        Ok(final_size - received)
    }

    /// The stream has ended, by FIN or reset. Returns whether that is news. Who has stopped reading need not
    /// learn of it, and the peer need not be asked to stop.
    pub(crate) fn end(&mut self, how: RecvInput) -> bool {
        let is_news = self.apply(how);
        self.stop_owed &= !is_news;
        if self.stop.is_some() {
            self.apply(RecvInput::Read);
        }
        is_news
    }

    /// Moves the state by `input` if that has an effect, and says whether it had.
    pub(crate) fn apply(&mut self, input: RecvInput) -> bool {
        match self.state.on(input) {
            Some(next) => {
                self.state = next;
                true
            }
            None => false,
        }
    }

    /// Whether a MAX_STREAM_DATA is worth a frame.
    pub(crate) fn credit_owed(&self) -> bool {
        !self.state.has_ended() && self.stop.is_none() && self.window.update_owed().is_some()
    }

    pub(crate) fn invariants(&self) {
        self.window.invariants();
        assert!(self.next <= self.window.received() && self.acked <= self.progress());
        assert!(!self.stop_owed || self.stop.is_some());
        match self.state {
            RecvState::Recv => {}
            RecvState::DataRecvd | RecvState::ResetRecvd(_) => {
                assert!(!self.stop_owed);
                assert!(self.stop.is_none(), "who has stopped reading does not wait for the end");
            }
            RecvState::DataRead | RecvState::ResetRead(_) => {
                assert!(!self.stop_owed);
                assert!(self.window.unread() == 0 && self.queue.is_empty());
            }
        }
        assert!(self.stop.is_none() || self.queue.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Dir, Side, StreamId};
    use RecvInput::{Fin, Read, Reset};
    use RecvState::{DataRead, DataRecvd, ResetRead, ResetRecvd};
    use bytes::Bytes;

    #[test]
    fn all_pairs_are_those_of_the_protocol() {
        let (first, second) = (Code::from(1), Code::from(2));
        let table = [
            // state                 Fin              Reset                       Read
            (RecvState::Recv, Some(DataRecvd), Some(ResetRecvd(second)), None),
            (DataRecvd, None, None, Some(DataRead)),
            (ResetRecvd(first), None, None, Some(ResetRead(first))),
            (DataRead, None, None, None),
            (ResetRead(first), None, None, None),
        ];
        for (state, fin, reset, read) in table {
            assert_eq!(state.on(Fin), fin, "{state:?}");
            assert_eq!(state.on(Reset(second)), reset, "{state:?}");
            assert_eq!(state.on(Read), read, "{state:?}");
        }
    }

    fn piece(offset: u64, length: u8, fin: bool) -> Piece {
        let id = StreamId::new(Side::Client, Dir::Bi, 0).unwrap();
        Piece { id, offset, data: Bytes::from(alloc::vec![0; length.into()]), rest: 0, fin }
    }

    #[test]
    fn data_follows_on_and_stays_below_the_limit() {
        let mut half = Recv::new(10);
        half.window.receive(4);
        half.next = 4;
        assert_eq!(half.check(&piece(4, 6, false)), Ok(6));
        assert_eq!(half.check(&piece(4, 7, false)), Err(Violation::FlowControl));
        assert_eq!(half.check(&piece(5, 1, false)), Err(Violation::NotInOrder), "a gap");
        assert_eq!(half.check(&piece(3, 1, false)), Err(Violation::NotInOrder), "an overlap");
        assert_eq!(half.check(&Piece { rest: 7, ..piece(4, 0, false) }), Err(Violation::FlowControl));
    }

    #[test]
    fn the_end_does_not_move() {
        let mut half = Recv::new(10);
        half.window.receive(4);
        half.next = 4;
        assert_eq!(half.check_reset(3), Err(Violation::FinalSize));
        assert_eq!(half.check_reset(11), Err(Violation::FlowControl));
        assert_eq!(half.check_reset(9), Ok(5), "the whole final size is charged");
        half.apply(Fin);
        assert_eq!(half.check(&piece(4, 0, true)), Ok(0), "said twice");
        assert_eq!(half.check(&piece(4, 1, false)), Err(Violation::FinalSize));
        assert_eq!(half.check(&piece(3, 0, true)), Err(Violation::FinalSize));
        assert_eq!(half.check(&piece(2, 2, false)), Err(Violation::NotInOrder));
        assert_eq!(half.check_reset(4), Ok(0), "late, and the same");
        assert_eq!(half.check_reset(5), Err(Violation::FinalSize));
    }
}
