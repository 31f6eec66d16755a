//! Places for those who may cost much before they have shown who they are.
//!
//! In: whoever comes. Out: a place, which the oldest gives up for the newest when there is no other. Keeps: a token for
//! each who has one. To let the newest wait would let a few who say nothing keep everybody else out.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::core::{Lobby, Visitor};

/// So many places.
#[derive(Debug)]
pub(crate) struct Places {
    taken: Mutex<Taken>,
    /// Who was told to go may not have gone yet.
    room: Semaphore,
}

#[derive(Debug)]
struct Taken {
    lobby: Lobby,
    tokens: BTreeMap<Visitor, CancellationToken>,
}

/// A place, until this is dropped.
struct Place<'a> {
    places: &'a Places,
    visitor: Visitor,
    goes: CancellationToken,
}

impl Places {
    /// `count` places, at least one.
    pub(crate) fn new(count: usize) -> Self {
        let taken = Taken { lobby: Lobby::new(count), tokens: BTreeMap::new() };
        Self { taken: Mutex::new(taken), room: Semaphore::new(count.max(1)) }
    }

    /// What comes of a visit, or `None` if it had to end for a newer one. Cancelling it ends the visit.
    pub(crate) async fn visit<T>(&self, visit: impl Future<Output = T>) -> Option<T> {
        let place = self.take();
        let visit = async {
            let _room = self.room.acquire().await.expect("it is never closed");
            visit.await
        };
        tokio::select! {
            biased;
            () = place.goes.cancelled() => None,
            outcome = visit => Some(outcome),
        }
    }

    fn take(&self) -> Place<'_> {
        let mut taken = self.lock();
        let (visitor, oldest) = taken.lobby.arrive();
        if let Some(token) = oldest.and_then(|oldest| taken.tokens.remove(&oldest)) {
            token.cancel();
        }
        let goes = CancellationToken::new();
        taken.tokens.insert(visitor, goes.clone());
        Place { places: self, visitor, goes }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nothing panics while it holds the lock")
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.lobby.leave(self.visitor);
        taken.tokens.remove(&self.visitor);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_for_the_newest_and_nobody_else_does() {
        let places = Arc::new(Places::new(2));
        let mut visits = Vec::new();
        for _ in 0..3 {
            let places = places.clone();
            visits.push(tokio::spawn(async move { places.visit(pending::<()>()).await }));
            tokio::task::yield_now().await;
        }
        assert_eq!(visits.remove(0).await.unwrap(), None);
        assert_eq!(places.visit(ready(7)).await, Some(7), "for which the second one goes");
        assert_eq!(visits.remove(0).await.unwrap(), None);
        // One is left, so there is a place.
        assert_eq!(places.visit(ready(8)).await, Some(8));
        assert!(!visits[0].is_finished());
        visits[0].abort();
        let _ = visits.remove(0).await;
        let taken = places.lock();
        assert!(taken.lobby.is_empty() && taken.tokens.is_empty());
    }
}
