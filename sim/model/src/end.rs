//! One end of a world: a session that costs nothing to copy until it changes.
//!
//! Who walks every interleaving copies worlds by the million, and most steps change one end.

use std::sync::Arc;

use towline_engine::{Instant, Session};

/// The end.
#[derive(Clone, Debug)]
pub(crate) struct End {
    session: Arc<Session>,
    /// What the fingerprint was when it was last asked for, if nothing has changed since.
    fingerprint: Option<(Instant, u128)>,
    /// Whether anything may have changed since somebody looked.
    is_touched: bool,
}

impl End {
    pub(crate) fn new(session: Session) -> Self {
        Self { session: Arc::new(session), fingerprint: None, is_touched: true }
    }

    pub(crate) fn get(&self) -> &Session {
        &self.session
    }

    pub(crate) fn get_mut(&mut self) -> &mut Session {
        self.fingerprint = None;
        self.is_touched = true;
        Arc::make_mut(&mut self.session)
    }

    /// Whether anything may have changed since this was last asked.
    pub(crate) fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.is_touched)
    }

    pub(crate) fn fingerprint(&mut self, now: Instant) -> u128 {
        match self.fingerprint {
            Some((then, fingerprint)) if then == now => fingerprint,
            _ => self.fingerprint.insert((now, self.session.fingerprint(now))).1,
        }
    }
}
