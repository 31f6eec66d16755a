//! What the applications at both ends may expect.
//!
//! Nothing here knows of frames, credit or pipes: what was accepted arrives, in order and once, and ends as its
//! writer said.

use std::collections::{BTreeMap, BTreeSet};

use towline_engine::{CloseReason, Code, Dir, ReadError, Refused, Side, StreamId, WriteError};

use crate::world::{BOTH, index, pattern};

/// One direction of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Half {
    /// How many bytes were accepted from the writer.
    pub written: u64,
    /// How many the reader has had.
    pub read: u64,
    /// The writer has said that there will be no more.
    pub finished: bool,
    /// The writer has abandoned it, or was stopped, with this code.
    pub reset: Option<Code>,
    /// The reset comes after everything that was written.
    pub last_words: bool,
    /// The reader wants no more.
    pub stopped: Option<Code>,
    /// The reader knows the end.
    pub saw_end: bool,
    /// The writer was told that all has arrived, or that it was stopped.
    pub was_told: bool,
}

impl Half {
    /// Whether the writer can say no more.
    pub fn has_ended(&self) -> bool {
        self.finished || self.reset.is_some()
    }
}

/// All streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Model {
    /// By stream and by who sends.
    halves: BTreeMap<(StreamId, Side), Half>,
    /// The streams that each end's application has.
    held: [Vec<StreamId>; 2],
    /// The streams that were ever accepted.
    accepted: BTreeSet<StreamId>,
    /// Which end has begun a drain.
    drained: [bool; 2],
    /// Which end has heard of one.
    heard_drain: [bool; 2],
    /// Which end wants the session to end once everything has arrived.
    closing: [bool; 2],
    /// At which end the session is over.
    over: [bool; 2],
}

/// The code that sessions are closed with.
pub(crate) const CLOSED: Code = Code::new(77).unwrap();

impl Model {
    /// One of the streams that the application on `side` has.
    pub fn pick(&self, side: Side, number: u8) -> Option<StreamId> {
        let held = self.held(side);
        (!held.is_empty()).then(|| held[usize::from(number) % held.len()])
    }

    /// The streams that the application on `side` has.
    pub fn held(&self, side: Side) -> &[StreamId] {
        &self.held[index(side)]
    }

    /// The direction of `id` in which `sender` sends.
    pub fn half(&mut self, id: StreamId, sender: Side) -> &mut Half {
        self.halves.entry((id, sender)).or_default()
    }

    /// The direction of `id` in which `sender` sends, as it stands.
    pub fn seen(&self, id: StreamId, sender: Side) -> Half {
        self.halves.get(&(id, sender)).copied().unwrap_or_default()
    }

    /// All directions of all streams.
    pub fn halves(&self) -> impl Iterator<Item = (StreamId, Side, &Half)> {
        let there_are = self.halves.iter().filter(|((id, sender), _)| sends(*id, *sender));
        there_are.map(|(&(id, sender), half)| (id, sender, half))
    }

    /// The application on `side` opened `id`.
    pub fn on_opened(&mut self, side: Side, id: StreamId) {
        assert!(self.held.iter().flatten().all(|&held| held != id), "ids_monotone_unique: {id:?}");
        self.held[index(side)].push(id);
    }

    /// The application on `side` accepted `id`.
    pub fn on_accepted(&mut self, side: Side, id: StreamId) {
        assert!(self.accepted.insert(id), "surfaced_once: {id:?} again");
        self.held[index(side)].push(id);
    }

    /// The application on `side` wants the session to end.
    pub fn on_drain(&mut self, side: Side) {
        self.drained[index(side)] = true;
    }

    /// The application on `side` wants the session to end once everything has arrived.
    pub fn on_close(&mut self, side: Side) {
        self.closing[index(side)] = true;
    }

    /// Whether the application on `side` wants the session to end once everything has arrived.
    pub fn is_closing(&self, side: Side) -> bool {
        self.closing[index(side)]
    }

    /// Whether the session is over at `side`.
    pub fn is_over(&self, side: Side) -> bool {
        self.over[index(side)]
    }

    /// The session is over at `side`.
    pub fn on_over(&mut self, side: Side) {
        let was_over = std::mem::replace(&mut self.over[index(side)], true);
        assert!(!was_over, "one_terminal_event: {side:?}");
    }

    /// Why the session is over at `side`: a reason that can be. Returns whether it promises that everything has
    /// arrived.
    pub fn has_flushed(&self, side: Side, why: &CloseReason) -> bool {
        let ends = |side: Side| self.closing[index(side)] || self.drained[index(side)];
        match why {
            CloseReason::Local(code) => {
                assert!(ends(side), "no_violation: nobody closes {side:?}");
                return self.closing[index(side)] && *code == CLOSED;
            }
            CloseReason::LocalUnflushed(_) => assert!(ends(side), "no_violation: nobody closes {side:?}"),
            CloseReason::Peer { .. } => {
                assert!(ends(side.peer()), "no_violation: nobody closes {:?}", side.peer());
            }
            CloseReason::Expired => {}
            CloseReason::ResumeRefused(Refused::Expired | Refused::Closed(_)) => {
                assert!(self.over[index(side.peer())], "closed_truth: {why}");
            }
            CloseReason::Violation(violation) => panic!("no_violation: {side:?} says that {violation}"),
            why => panic!("no_violation: {side:?} says that {why}"),
        }
        false
    }

    /// The application on `side` was told how its half of `id` ended.
    pub fn on_told(&mut self, side: Side, id: StreamId) {
        let was_told = std::mem::replace(&mut self.half(id, side).was_told, true);
        assert!(!was_told, "one_terminal_event: {id:?} at {side:?}");
    }

    /// The application on `side` was told that the other wants the session to end.
    pub fn on_drain_heard(&mut self, side: Side) {
        assert!(self.drained[index(side.peer())], "drain_partition: nobody drains {:?}", side.peer());
        let was_heard = std::mem::replace(&mut self.heard_drain[index(side)], true);
        assert!(!was_heard, "idempotent_frames: {side:?} hears of a drain twice");
    }

    /// Who drains is heard.
    pub fn check_drains_heard(&self) {
        for side in BOTH {
            let is_heard = self.heard_drain[index(side.peer())];
            assert_eq!(self.drained[index(side)], is_heard, "drain_partition: {side:?} drains");
        }
    }

    /// The peer wants no more of what `side` writes to `id`.
    pub fn on_stopped_by_peer(&mut self, side: Side, id: StreamId, code: Code) {
        let is_late = code == Code::REFUSED && self.drained[index(side.peer())];
        let half = self.half(id, side);
        assert!(half.stopped == Some(code) || is_late, "halves_independent: {id:?} was stopped by nobody");
        (half.reset, half.last_words) = (Some(code), false);
    }

    /// The peer has everything that `side` wrote to `id`.
    pub fn on_all_arrived(&mut self, side: Side, id: StreamId) {
        let half = self.half(id, side);
        assert!(half.finished && half.reset.is_none(), "accepted_means_owed: {id:?}, {half:?}");
    }

    /// What a write on `side` gave.
    pub fn on_write(&mut self, side: Side, id: StreamId, outcome: Result<u64, WriteError>) {
        let half = self.half(id, side);
        match outcome {
            Ok(accepted) => {
                assert!(!half.finished && half.reset.is_none(), "nothing is accepted after the end");
                half.written += accepted;
            }
            Err(WriteError::Stopped(code)) => self.on_stopped_by_peer(side, id, code),
            Err(WriteError::Finished) => assert!(half.has_ended()),
            Err(WriteError::Blocked | WriteError::ReceiveOnly) => {}
            Err(WriteError::Closed) => {
                assert!(
                    self.closing[index(side)] || self.over[index(side)],
                    "no_violation: {id:?} is closed by nobody"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The writer on `side` has finished.
    pub fn on_finished(&mut self, side: Side, id: StreamId) {
        self.half(id, side).finished = true;
    }

    /// The writer on `side` has abandoned the stream.
    pub fn on_reset(&mut self, side: Side, id: StreamId, code: Code, last_words: bool) {
        let half = self.half(id, side);
        (half.reset, half.last_words) = (Some(code), last_words);
    }

    /// The reader on `side` wants no more.
    pub fn on_stopped(&mut self, side: Side, id: StreamId, code: Code) {
        self.half(id, side.peer()).stopped.get_or_insert(code);
    }

    /// The application on `side` is done with the stream.
    pub fn on_released(&mut self, side: Side, id: StreamId) {
        self.held[index(side)].retain(|&held| held != id);
    }

    /// What a read of at most `most` bytes on `side` gave. Returns whether that was all there was.
    pub fn on_read(
        &mut self,
        side: Side,
        id: StreamId,
        most: u64,
        outcome: Result<Option<&[u8]>, ReadError>,
    ) -> bool {
        let half = self.halves.entry((id, side.peer())).or_default();
        match outcome {
            Ok(Some(bytes)) => {
                assert!(
                    !bytes.is_empty() && bytes.len() as u64 <= most,
                    "exact_prefix: as much as was asked for"
                );
                assert!(
                    half.stopped.is_none() && !half.saw_end,
                    "one_terminal_event: nothing comes after the end"
                );
                for &byte in bytes {
                    assert_eq!(byte, pattern(half.read), "exact_prefix: {id:?} at {}", half.read);
                    half.read += 1;
                }
                assert!(half.read <= half.written, "exact_prefix: {id:?}");
                return false;
            }
            Ok(None) => {
                assert!(half.finished && half.read == half.written, "eof_iff_fin: {id:?}, {half:?}");
                half.saw_end = true;
            }
            Err(ReadError::Reset(code)) => {
                half.saw_end = true;
                if half.reset != Some(code) {
                    self.on_refused(side, id, code);
                }
            }
            Err(ReadError::Stopped) => assert!(half.stopped.is_some()),
            Err(ReadError::Blocked) => assert!(!half.saw_end, "one_terminal_event: {id:?}"),
            Err(ReadError::SendOnly) => {}
            Err(ReadError::Closed) => {
                assert!(self.over[index(side)], "no_violation: {id:?} is closed by nobody");
            }
            Err(error) => panic!("{error}"),
        }
        true
    }

    /// A stream ended that its peer's application cannot have ended, for it has never seen it.
    fn on_refused(&mut self, side: Side, id: StreamId, code: Code) {
        let is_late = code == Code::REFUSED && self.drained[index(side.peer())];
        // It may have been abandoned by its opener before the peer's application could see it.
        let own = self.half(id, side).reset;
        assert!(is_late || own == Some(code), "halves_independent: {id:?} was reset by nobody");
        assert!(id.opener() == side && !self.accepted.contains(&id), "drain_partition: {id:?}");
        *self.half(id, side.peer()) = Half { reset: Some(code), saw_end: true, ..Half::default() };
    }

    /// Checks that everything that was promised has happened: all was read that could be read.
    ///
    /// # Panics
    ///
    /// If it has not.
    pub fn check_settled(&self) {
        for sender in BOTH {
            if let Err(why) = self.is_settled_from(sender) {
                panic!("{why}");
            }
        }
        for (id, sender, half) in self.halves() {
            let is_told = half.has_ended() || half.stopped.is_none() || !self.held(sender).contains(&id);
            assert!(is_told, "one_terminal_event: {sender:?} has not heard that {id:?} was stopped");
        }
    }

    /// Whether everything that was promised to who writes on `from` has happened.
    ///
    /// # Errors
    ///
    /// What has not.
    pub fn is_settled_from(&self, from: Side) -> Result<(), String> {
        for (id, sender, half) in self.halves().filter(|&(_, sender, _)| sender == from) {
            let is_seen = self.accepted.contains(&id) || half.written == 0 && !half.finished;
            let is_refused = half.reset.is_some() || self.drained[index(sender.peer())];
            if id.opener() == sender && !is_seen && !is_refused {
                return Err(format!("surfaced_once: {id:?} never was"));
            }
            if !self.held(sender.peer()).contains(&id) || half.stopped.is_some() {
                continue;
            }
            // Also what was finished by an application that has released the stream since.
            if half.read != half.written && (half.reset.is_none() || half.last_words) {
                return Err(format!("accepted_means_owed: {id:?} from {sender:?}, {half:?}"));
            }
            if half.saw_end != half.has_ended() {
                return Err(format!("one_terminal_event: {id:?} from {sender:?}, {half:?}"));
            }
        }
        Ok(())
    }
}

/// Whether `side` writes to `id`.
fn sends(id: StreamId, side: Side) -> bool {
    id.dir() == Dir::Bi || id.opener() == side
}
