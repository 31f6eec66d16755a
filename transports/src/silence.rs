//! How long a peer has been silent, and what follows from that.
//!
//! In: how much has come so far, looked at now and then. Out: the wish to ask for a sign of life, or the verdict that there was
//! none. Keeps: a count and two times.

use std::time::Duration;

/// How closely a peer is watched.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often it is looked at.
    pub look: Duration,
    /// How long nothing may have come before the peer is asked for a sign of life.
    pub quiet: Duration,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something has come, or there is time.
    Fine,
    /// It is time to ask.
    Ask,
    /// There was no answer.
    Dark,
}

/// How long nothing has come.
///
/// It adds up the times between looks and does not ask the clock: who was suspended, or had no processor, looks once when
/// it goes on, and so does not take its own absence for the peer's.
#[derive(Debug)]
pub struct Silence {
    received: u64,
    lasts: Duration,
    /// How long it had lasted when the peer was asked.
    asked: Option<Duration>,
}

impl Silence {
    /// A silence that begins now, when so much has come.
    pub fn since(received: u64) -> Self {
        Self { received, lasts: Duration::ZERO, asked: None }
    }

    /// Whether the peer was asked for a sign of life.
    pub(crate) fn has_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// How much had come when it began.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// One look later: so much has come, and an answer may take `patience`.
    pub fn look(&mut self, received: u64, pace: Pace, patience: Duration) -> Verdict {
        if received != self.received {
            *self = Self::since(received);
            return Verdict::Fine;
        }
        self.lasts += pace.look;
        match self.asked {
            None if self.lasts >= pace.quiet => {
                self.asked = Some(self.lasts);
                Verdict::Ask
            }
            Some(asked) if self.lasts >= asked + patience => Verdict::Dark,
            None | Some(_) => Verdict::Fine,
        }
    }
}
