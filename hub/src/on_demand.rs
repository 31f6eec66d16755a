//! Something that many share and one makes: a link to a hub, a session with a device.
//!
//! In: who asks for it, and how it is made. Out: it, or why there is none. Keeps: the one that was made last. No lock is held
//! while it is made, so whoever wants to close it need not wait for that.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// Something that is made when it is asked for, and again when it does not do any more.
///
/// Those who ask while it is made share the outcome of that attempt; it goes on for as long as one of them waits for it. So
/// however many ask, nobody waits for longer than one attempt takes, and nobody is asked more than once.
pub(crate) struct OnDemand<T, E> {
    state: Arc<Mutex<State<T, E>>>,
}

type Making<T, E> = BoxFuture<'static, Result<T, Arc<E>>>;

struct State<T, E> {
    kept: Option<T>,
    attempt: Option<WeakShared<Making<T, E>>>,
    /// Counts how often it was given up. What an older attempt gives is for those who wait for it only.
    round: u64,
}

impl<T, E> Default for OnDemand<T, E> {
    fn default() -> Self {
        Self { state: Arc::new(Mutex::new(State { kept: None, attempt: None, round: 0 })) }
    }
}

impl<T: fmt::Debug, E> fmt::Debug for OnDemand<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnDemand").field(&self.lock().kept).finish()
    }
}

impl<T, E> OnDemand<T, E> {
    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        lock(&self.state)
    }

    /// Whether there is one, and `is_it`.
    pub(crate) fn is(&self, is_it: impl FnOnce(&T) -> bool) -> bool {
        self.lock().kept.as_ref().is_some_and(is_it)
    }

    /// Gives up the one that there is, if `is_it`.
    pub(crate) fn take_if(&self, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.lock().kept.take_if(|kept| is_it(kept))
    }

    /// Gives up the one that there is, and does not keep the one that is being made, if any.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        state.round += 1;
        state.attempt = None;
        state.kept.take()
    }
}

impl<T, E> OnDemand<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// The one that there is, if it `does`, or another one.
    ///
    /// # Errors
    ///
    /// What making it has ended with.
    pub(crate) async fn get<F>(
        &self,
        does: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> F,
    ) -> Result<T, Arc<E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let attempt = {
            let mut state = self.lock();
            // One that does not do is kept until there is a better one: others may still need it.
            if let Some(kept) = state.kept.as_ref().filter(|kept| does(kept)) {
                return Ok(kept.clone());
            }
            let running = state.attempt.as_ref().and_then(WeakShared::upgrade);
            running.unwrap_or_else(|| self.begin(&mut state, make()))
        };
        attempt.await
    }

    fn begin(
        &self,
        state: &mut State<T, E>,
        making: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Shared<Making<T, E>> {
        let (round, ours) = (state.round, self.state.clone());
        let attempt = async move {
            let made = making.await.map_err(Arc::new);
            let mut state = lock(&ours);
            let mut old = None;
            if state.round == round {
                state.attempt = None;
                if let Ok(made) = &made {
                    old = state.kept.replace(made.clone());
                }
            }
            // Whatever the old one does when it is dropped, it does after the lock is given back.
            drop(state);
            drop(old);
            made
        };
        let attempt = attempt.boxed().shared();
        state.attempt = attempt.downgrade();
        attempt
    }
}

fn lock<T, E>(state: &Mutex<State<T, E>>) -> MutexGuard<'_, State<T, E>> {
    state.lock().expect("nothing panics while it holds the lock")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    type Made = OnDemand<u32, String>;
    type Outcome = Result<u32, String>;

    /// An attempt that ends as it is told.
    fn when_told() -> (oneshot::Sender<Outcome>, impl Future<Output = Outcome> + Send + 'static) {
        let (tell, told) = oneshot::channel();
        (tell, async { told.await.unwrap() })
    }

    async fn never() -> Outcome {
        panic!("there is an attempt already, or no need for one")
    }

    #[tokio::test]
    async fn those_who_ask_while_it_is_made_share_the_outcome() {
        for outcome in [Ok(7), Err("no".to_owned())] {
            let made = Made::default();
            let attempts = AtomicU32::new(0);
            let (tell, told) = when_told();
            let mut told = Some(told);
            let mut all: Vec<_> = (0..5)
                .map(|_| {
                    let told = told.take();
                    made.get(
                        |_| true,
                        || {
                            attempts.fetch_add(1, Ordering::Relaxed);
                            told.unwrap()
                        },
                    )
                })
                .map(Box::pin)
                .collect();
            for one in &mut all {
                assert!(one.now_or_never_by_ref().is_none());
            }
            tell.send(outcome.clone()).unwrap();
            for one in join_all(all).await {
                assert_eq!(one.map_err(|error| (*error).clone()), outcome);
            }
            assert_eq!(attempts.into_inner(), 1);
            // What was made is kept; what was not is tried again.
            let again = made.get(|_| true, async || Ok(8)).await.unwrap();
            assert_eq!(again, outcome.unwrap_or(8));
        }
    }

    trait Once: Future + Unpin {
        fn now_or_never_by_ref(&mut self) -> Option<Self::Output> {
            self.now_or_never()
        }
    }
    impl<F: Future + Unpin> Once for F {}

    #[tokio::test]
    async fn an_attempt_goes_on_when_the_one_who_began_it_has_left() {
        let made = Made::default();
        let (tell, told) = when_told();
        let mut first = Box::pin(made.get(|_| true, || told));
        assert!(first.now_or_never_by_ref().is_none());
        let mut second = Box::pin(made.get(|_| true, never));
        assert!(second.now_or_never_by_ref().is_none());
        drop(first);
        tell.send(Ok(7)).unwrap();
        assert_eq!(second.await, Ok(7));
    }

    #[tokio::test]
    async fn an_attempt_that_nobody_waits_for_ends() {
        let made = Made::default();
        let (tell, told) = when_told();
        let mut first = Box::pin(made.get(|_| true, || told));
        assert!(first.now_or_never_by_ref().is_none());
        drop(first);
        assert!(tell.is_closed());
        assert_eq!(made.get(|_| true, async || Ok(8)).await, Ok(8));
    }

    #[tokio::test]
    async fn one_that_does_not_do_is_replaced() {
        let made = Made::default();
        assert_eq!(made.get(|_| true, async || Ok(1)).await, Ok(1));
        assert_eq!(made.get(|kept| *kept != 1, async || Ok(2)).await, Ok(2));
        assert_eq!(made.get(|_| true, never).await, Ok(2));
        assert_eq!(made.take_if(|kept| *kept == 1), None);
        assert_eq!(made.take_if(|kept| *kept == 2), Some(2));
    }

    /// Who closes does not wait, and what comes about later is not kept.
    #[tokio::test]
    async fn it_is_given_up_while_it_is_made() {
        let made = Made::default();
        let (tell, told) = when_told();
        let mut first = Box::pin(made.get(|_| true, || told));
        assert!(first.now_or_never_by_ref().is_none());
        assert_eq!(made.take(), None);
        yield_now().await;
        assert_eq!(made.get(|_| true, async || Ok(8)).await, Ok(8), "another attempt");
        tell.send(Ok(7)).unwrap();
        assert_eq!(first.await, Ok(7));
        assert_eq!(made.get(|_| true, never).await, Ok(8));
    }
}
