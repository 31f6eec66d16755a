//! Places for those who may cost much before they have shown who they are.
//!
//! In: whoever comes. Out: a place, once there is one, for which somebody else may have to go: the [`Lobby`] decides. Keeps: a
//! token for each who has one.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::core::{Lobby, Visitor};

/// So many places.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    taken: Mutex<Taken>,
    /// Who was told to go may not have gone yet: nobody is let in before there is room for what it costs.
    room: Arc<Semaphore>,
    /// Whose turn it is to ask for a place: the others wait behind, in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    /// When the lobby's time began.
    start: Instant,
}

#[derive(Debug)]
struct Taken {
    lobby: Lobby,
    tokens: BTreeMap<Visitor, CancellationToken>,
}

/// A place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    visitor: Visitor,
    goes: CancellationToken,
    room: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// `count` places, at least one.
    pub(crate) fn new(count: usize) -> Self {
        Self::in_lobby(count, Lobby::new(count))
    }

    /// The same, in a [`Lobby::for_the_newest`].
    pub(crate) fn for_the_newest(count: usize) -> Self {
        Self::in_lobby(count, Lobby::for_the_newest(count))
    }

    fn in_lobby(count: usize, lobby: Lobby) -> Self {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        let taken = Taken { lobby, tokens: BTreeMap::new() };
        let room = Semaphore::new(count);
        Self(Arc::new(Inner {
            taken: Mutex::new(taken),
            room: Arc::new(room),
            turn: tokio::sync::Mutex::new(()),
            start: Instant::now(),
        }))
    }

    /// A place, once there is one; who comes first has it first. May be cancelled.
    pub(crate) async fn take(&self) -> Place {
        let Inner { room, turn, start, .. } = &*self.0;
        let _turn = turn.lock().await;
        let mut place = loop {
            let until = match self.ask() {
                Ok(place) => break place,
                Err(until) => *start + until.saturating_duration_since(towline_engine::Instant::default()),
            };
            tracing::debug!("there is no room for one more who has not shown who it is, so it waits");
            tokio::select! {
                // Who leaves gives back room.
                _ = room.acquire() => {}
                () = sleep_until(until) => {}
            }
        };
        place.room = Some(room.clone().acquire_owned().await.expect("it is never closed"));
        place
    }

    /// Lets the oldest go.
    pub(crate) fn evict(&self) {
        let mut taken = self.lock();
        let oldest = taken.lobby.evict();
        taken.dismiss(oldest);
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().lobby.len()
    }

    /// A place, or when to ask again, unless there is room before.
    fn ask(&self) -> Result<Place, towline_engine::Instant> {
        let mut taken = self.lock();
        let (visitor, oldest) = taken.lobby.arrive(self.now())?;
        taken.dismiss(oldest);
        let goes = CancellationToken::new();
        taken.tokens.insert(visitor, goes.clone());
        Ok(Place { places: self.clone(), visitor, goes, room: None })
    }

    /// The lobby's time.
    fn now(&self) -> towline_engine::Instant {
        towline_engine::Instant::default() + self.0.start.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().expect("nothing panics while it holds the lock")
    }
}

impl Taken {
    fn dismiss(&mut self, oldest: Option<Visitor>) {
        if let Some(token) = oldest.and_then(|oldest| self.tokens.remove(&oldest)) {
            tracing::debug!("too many have not shown who they are; the oldest is dropped");
            token.cancel();
        }
    }
}

impl Place {
    /// Its holder has shown who it is, and gives it back.
    pub(crate) fn pass(self) {
        self.places.lock().lobby.pass(self.visitor);
    }

    /// What comes of a visit, or `None` if it had to end for a newer one. Cancelling it ends the visit.
    pub(crate) async fn visit<T>(&self, visit: impl Future<Output = T>) -> Option<T> {
        self.goes.run_until_cancelled(visit).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.lobby.leave(self.visitor);
        taken.tokens.remove(&self.visitor);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    /// How long whoever comes waits while nobody gets through.
    const LOOK: Duration = Duration::from_secs(2);

    /// Takes a place, and stays there.
    fn occupy(places: &Places) -> tokio::task::JoinHandle<Option<()>> {
        let places = places.clone();
        tokio::spawn(async move { places.take().await.visit(pending()).await })
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_for_the_newest_and_nobody_else_does() {
        let places = Places::new(2);
        let mut visits = Vec::new();
        for _ in 0..3 {
            visits.push(occupy(&places));
            tokio::task::yield_now().await;
        }
        assert_eq!(visits.remove(0).await.unwrap(), None);
        assert_eq!(places.take().await.visit(ready(7)).await, Some(7), "for which the second one goes");
        assert_eq!(visits.remove(0).await.unwrap(), None);
        // One is left, so there is a place.
        assert_eq!(places.take().await.visit(ready(8)).await, Some(8));
        assert!(!visits[0].is_finished());
        visits[0].abort();
        let _ = visits.remove(0).await;
        let taken = places.lock();
        assert!(taken.lobby.is_empty() && taken.tokens.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_waits_until_somebody_leaves_or_has_to_go() {
        let places = Places::new(1);
        let (begin, first) = (Instant::now(), places.take().await);
        let second = tokio::spawn({
            let places = places.clone();
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        advance(LOOK / 2).await;
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(begin.elapsed(), LOOK / 2);
        // Nobody has got through, so this one has to go, and the next one waits until it has.
        let third = occupy(&places);
        assert_eq!(second.visit(pending::<()>()).await, None);
        assert_eq!(begin.elapsed(), LOOK);
        assert_eq!(places.0.room.available_permits(), 0);
        drop(second);
        // Who gives up leaves nothing behind, nor does who waits behind it.
        let fourth = occupy(&places);
        tokio::task::yield_now().await;
        for visit in [fourth, third] {
            visit.abort();
            let _ = visit.await;
        }
        assert_eq!((places.taken(), places.0.room.available_permits()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn while_they_get_through_nobody_has_to_go() {
        let places = Places::new(2);
        let (begin, mut visits) = (Instant::now(), tokio::task::JoinSet::new());
        for _ in 0..100 {
            let places = places.clone();
            visits.spawn(async move {
                let place = places.take().await;
                let outcome = place.visit(tokio::time::sleep(LOOK / 4)).await;
                place.pass();
                outcome
            });
        }
        assert!(visits.join_all().await.iter().all(Option::is_some));
        // Two at a time.
        assert_eq!(begin.elapsed(), LOOK / 4 * 50);
    }
}
