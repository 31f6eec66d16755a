//! Bugs to be found: that a search finds nothing says little if it never finds anything.
//!
//! Each is a mistake that somebody has made in such a protocol. They exist under `--cfg towline_sabotage` only, which no
//! combination of features can set, and are armed one at a time, at run time, for the whole process. See
//! sim/README.md for who finds which.

use core::sync::atomic::{AtomicU8, Ordering};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bug {
    /// A reset does not give back the session's credit for what was never sent.
    CreditKeptOnReset = 1,
    /// The reader of a stream that was reset sees an end of file.
    EofOnReset,
    /// Bytes of an older pipe are taken for those of the present one.
    StaleEpochAccepted,
    /// What is sent again is not trimmed to what is new.
    OverlapNotTrimmed,
    /// A reset takes back an end that had arrived.
    LateResetTakesBack,
    /// A FIN that went out is not sent again on the next pipe, if all before it was acknowledged.
    FinLostAtDetach,
    /// A STOP_SENDING that went out is not sent again on the next pipe.
    StopLostAtDetach,
    /// A DRAIN that went out is not sent again on the next pipe.
    DrainLostAtDetach,
    /// A stream's place is free once both halves have ended, though the application still has it.
    SlotReturnedEarly,
    /// A pipe takes the session over before its proof is looked at.
    ResumeBeforeProof,
    /// A writer that finds no room drops what was sent and not acknowledged.
    UnackedEvicted,
    /// A stream that the peer has seen and tells nothing of is taken for one that goes on.
    AbsentGoesOn,
    /// The limit that a resumed session announces is none.
    LimitShrinksOnResume,
    /// A session that can resume closes once everything has gone out, not once it has arrived.
    CloseBeforeArrival,
    /// The end of a stream alone wakes no reader.
    ReaderNotWoken,
    /// New credit for a stream wakes no writer.
    WriterNotWoken,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::CreditKeptOnReset,
        Self::EofOnReset,
        Self::StaleEpochAccepted,
        Self::OverlapNotTrimmed,
        Self::LateResetTakesBack,
        Self::FinLostAtDetach,
        Self::StopLostAtDetach,
        Self::DrainLostAtDetach,
        Self::SlotReturnedEarly,
        Self::ResumeBeforeProof,
        Self::UnackedEvicted,
        Self::AbsentGoesOn,
        Self::LimitShrinksOnResume,
        Self::CloseBeforeArrival,
        Self::ReaderNotWoken,
        Self::WriterNotWoken,
    ];

    /// The bug with this name, in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| alloc::format!("{bug:?}").eq_ignore_ascii_case(name))
    }
}

static ARMED: AtomicU8 = AtomicU8::new(0);

/// From now on every session of this process has the bug, and no other.
pub fn arm(bug: Bug) {
    ARMED.store(bug as u8, Ordering::Relaxed);
}

pub(crate) fn is_armed(bug: Bug) -> bool {
    ARMED.load(Ordering::Relaxed) == bug as u8
}

/// Whether this bug is armed.
macro_rules! sabotaged {
    ($bug:ident) => {
        crate::sabotage::is_armed(crate::sabotage::Bug::$bug)
    };
}
