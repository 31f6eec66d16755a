//! Memory that the sessions of a process share for what they promise beyond their first windows.
//!
//! A promise cannot be taken back, so a budget counts what is promised and not what is used. A session that finds
//! it spent goes on with its first window. Spec: PROTOCOL §4.6.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes for many sessions. Cloning it gives another handle to the same.
///
/// It says how far sessions may let their windows grow, all together: a session promises
/// [`initial_session_window`](crate::Config::initial_session_window) anyway, and everything beyond is taken from here.
///
/// ```
/// use towline_engine::{Budget, Config};
///
/// let budget = Budget::new(256 << 20);
/// let mut config = Config::default();
/// config.budget = Some(budget.clone());
/// assert_eq!(budget.left(), 256 << 20, "a session takes of it when it needs it");
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicUsize>,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// How many bytes of it are left now.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

impl PartialEq for Budget {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.left, &other.left)
    }
}

impl Eq for Budget {}

/// A session's part of a budget. Gives it back when it is dropped; a clone takes as much again.
#[derive(Debug, Default)]
pub(crate) struct Share {
    budget: Option<Budget>,
    taken: usize,
}

impl Share {
    pub(crate) fn new(budget: Option<Budget>) -> Self {
        Self { budget, taken: 0 }
    }

    /// How much it could hold now.
    pub(crate) fn most(&self) -> u64 {
        match &self.budget {
            Some(budget) => (self.taken + budget.left()) as u64,
            None => u64::MAX,
        }
    }

    /// Changes it to hold `wanted`, or as much of that as there is. Returns how much it holds.
    pub(crate) fn resize(&mut self, wanted: u64) -> u64 {
        let Some(budget) = &self.budget else { return wanted };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if wanted > self.taken {
            let more = wanted - self.taken;
            let take = |left: usize| Some(left - left.min(more));
            let before = budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            self.taken += before.expect("take always gives a value").min(more);
        } else {
            budget.left.fetch_add(self.taken - wanted, Ordering::Relaxed);
            self.taken = wanted;
        }
        self.taken as u64
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        let mut clone = Self { budget: self.budget.clone(), taken: 0 };
        clone.resize(self.taken as u64);
        clone
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_and_give_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (Share::new(Some(budget.clone())), Share::new(Some(budget.clone())));
        assert_eq!((one.resize(70), two.resize(70)), (70, 30), "there is no more");
        assert_eq!((budget.left(), two.most()), (0, 30));
        assert_eq!(one.resize(10), 10);
        assert_eq!(two.resize(70), 70);
        drop(one);
        let clone = two.clone();
        assert_eq!((budget.left(), clone.taken), (0, 30));
        drop((two, clone));
        assert_eq!(budget.left(), 100);
        assert_eq!(Share::new(None).resize(u64::MAX), u64::MAX);
    }
}
