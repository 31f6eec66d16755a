//! What a link's handles and its driver share: the session, and who waits for it.
//!
//! A handle locks, calls one verb of the session, and unlocks; if that left something to send it wakes the
//! driver. The driver turns the session's events into wakes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Waker};

use tokio::sync::Notify;
use tokio::time::Instant;
use towline_engine::{CloseReason, Code, Config, Dir, Epoch, Event, Side, StreamId};

use crate::error::{LinkClosed, NoWay};
use crate::qlog::Recorded;

/// The number of a session's first pipe. Most have no other.
pub(crate) const FIRST: Epoch = Epoch(0);

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// When the session's time began.
    start: Instant,
    /// Wakes those who wait to open a stream.
    pub(crate) openable: [Notify; 2],
    /// Wakes who looks on when a stream was opened.
    pub(crate) opened: Notify,
    /// Wakes those who wait to accept one.
    pub(crate) incoming: [Notify; 2],
    /// Why the driver has ended, once it has.
    outcome: OnceLock<LinkClosed>,
    /// Wakes those who wait for that.
    ended: Notify,
    /// Wakes whoever brings the next pipe: there is [news of pipes](PipeNews).
    pub(crate) pipe_news: Notify,
    /// The session is to have another pipe, though it has one.
    pub(crate) renewal: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) session: Recorded,
    /// The number of the pipe that the session has now. The driver may not have that pipe yet.
    pub(crate) epoch: Epoch,
    /// Wakes the driver. Not there while the driver knows already that there is something to do.
    driver: Option<Waker>,
    /// Who waits to read or write a stream. Entries exist only while somebody does, or has just been told what there was.
    waiting: BTreeMap<StreamId, Wakers>,
    /// Why the session is over, once it is.
    pub(crate) closed: Option<LinkClosed>,
    /// What the pipe said when it failed.
    pub(crate) pipe_error: Option<Arc<io::Error>>,
    /// The newest pipe over which the session has gone on, and the newest that it has lost.
    pub(crate) pipes: PipeNews,
    /// Why there will be no other pipe, if somebody knows that.
    no_way: Option<NoWay>,
    /// The session ends when it has no pipe.
    ends_without_pipe: bool,
}

/// What has become of the pipes of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PipeNews {
    pub(crate) gone_on_over: Option<Epoch>,
    pub(crate) lost: Option<Epoch>,
}

#[derive(Debug, Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
}

pub(crate) const fn index(dir: Dir) -> usize {
    match dir {
        Dir::Bi => 0,
        Dir::Uni => 1,
    }
}

impl Shared {
    /// A session that begins now, called `name` in its log.
    pub(crate) fn new(side: Side, config: impl Into<Arc<Config>>, name: &str) -> Self {
        let start = Instant::now();
        let state = State {
            session: Recorded::new(side, config, start, name),
            epoch: FIRST,
            driver: None,
            waiting: BTreeMap::new(),
            closed: None,
            pipe_error: None,
            pipes: PipeNews::default(),
            no_way: None,
            ends_without_pipe: false,
        };
        Self {
            state: Mutex::new(state),
            start,
            openable: Default::default(),
            opened: Notify::new(),
            incoming: Default::default(),
            outcome: OnceLock::new(),
            ended: Notify::new(),
            pipe_news: Notify::new(),
            renewal: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// Calls a verb of the session, and wakes the driver if that left it something to do.
    pub(crate) fn with<T>(&self, verb: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let value = verb(&mut state);
        let has_work = state.session.wants_transmit() || state.session.has_stream_events();
        let driver = if has_work { state.driver.take() } else { None };
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        value
    }

    /// As [`with`](Self::with), for a verb that may leave an event or a deadline and nothing to send.
    pub(crate) fn with_news(&self, verb: impl FnOnce(&mut State)) {
        self.with_news_if(|state| {
            verb(state);
            true
        });
    }

    /// The same, for a verb that says whether it has left anything.
    pub(crate) fn with_news_if(&self, verb: impl FnOnce(&mut State) -> bool) {
        let mut state = self.lock();
        let driver = if verb(&mut state) { state.driver.take() } else { None };
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }

    /// Ends the link once everything that was accepted before has gone out.
    pub(crate) fn close(&self, code: Code, reason: &[u8]) {
        let now = self.now();
        self.with_news(|state| state.session.close(now, code, reason));
    }

    /// There will be no other pipe. A session that has one goes on over that.
    pub(crate) fn give_up(&self, why: NoWay) {
        self.with_news(|state| {
            if state.session.is_detached() {
                state.no_way = Some(why);
                state.session.give_up();
            }
        });
    }

    /// There will be no other pipe, and so the session ends with the one that it has, or at once.
    pub(crate) fn do_without_pipes(&self, why: NoWay) {
        self.with_news(|state| {
            (state.no_way, state.ends_without_pipe) = (Some(why), true);
            state.session.give_up();
        });
    }

    /// Waits until the driver has ended.
    pub(crate) async fn closed(&self) -> LinkClosed {
        loop {
            let ended = self.ended.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            ended.await;
        }
    }

    /// The driver has ended.
    pub(crate) fn end(&self, outcome: LinkClosed) {
        // There is one driver, and it ends once.
        let _ = self.outcome.set(outcome);
        self.ended.notify_waiters();
    }

    /// The session's time.
    pub(crate) fn now(&self) -> towline_engine::Instant {
        self.at(Instant::now())
    }

    pub(crate) fn at(&self, time: Instant) -> towline_engine::Instant {
        towline_engine::Instant::default() + time.saturating_duration_since(self.start)
    }

    /// The time of the session's instant.
    pub(crate) fn time_of(&self, instant: towline_engine::Instant) -> Option<Instant> {
        let since = instant.saturating_duration_since(towline_engine::Instant::default());
        self.start.checked_add(since)
    }

    /// Turns the session's events into wakes; those of streams are put into `wakes`, for after the unlock.
    pub(crate) fn forward_events(&self, state: &mut State, wakes: &mut Vec<Waker>) {
        while let Some(event) = state.session.poll_event() {
            match event {
                Event::Readable(id) => wakes.extend(state.take_reader(id)),
                Event::Writable(id) | Event::Stopped(id, _) | Event::Finished(id) => {
                    wakes.extend(state.take_writer(id));
                }
                Event::Incoming(dir) => self.incoming[index(dir)].notify_waiters(),
                Event::Openable(dir) => self.openable[index(dir)].notify_waiters(),
                Event::Attached(epoch) => {
                    state.pipes.gone_on_over = Some(epoch);
                    self.pipe_news.notify_one();
                }
                Event::Detached(how) => {
                    tracing::debug!(?how, "session without a pipe");
                    state.pipes.lost = Some(state.epoch);
                    self.pipe_news.notify_one();
                    if state.ends_without_pipe {
                        state.session.give_up();
                    }
                }
                Event::Closed(reason) => {
                    tracing::debug!(%reason, "link over");
                    state.closed = Some(match (reason, state.no_way.take()) {
                        (CloseReason::Expired, Some(why)) => LinkClosed::NoWay(why),
                        (reason, _) => LinkClosed::new(reason, state.pipe_error.clone()),
                    });
                    for (_, waiting) in std::mem::take(&mut state.waiting) {
                        wakes.extend(waiting.read);
                        wakes.extend(waiting.write);
                    }
                    for notify in self.openable.iter().chain(&self.incoming) {
                        notify.notify_waiters();
                    }
                }
                _ => {}
            }
        }
    }
}

impl State {
    /// The driver is at work: whoever leaves it something to do from now on wakes it.
    pub(crate) fn listen(&mut self, context: &Context<'_>) {
        set_waker(&mut self.driver, context);
    }

    /// Why the link is over, for a verb that the session refused because of that.
    pub(crate) fn why_closed(&self) -> LinkClosed {
        match &self.closed {
            Some(closed) => closed.clone(),
            // Closing: it is this end that asked for it, and the event comes when all has gone out.
            None => LinkClosed::Local(Code::default()),
        }
    }

    pub(crate) fn wait_to_read(&mut self, id: StreamId, context: &Context<'_>) {
        set_waker(&mut self.waiting.entry(id).or_default().read, context);
    }

    pub(crate) fn wait_to_write(&mut self, id: StreamId, context: &Context<'_>) {
        set_waker(&mut self.waiting.entry(id).or_default().write, context);
    }

    pub(crate) fn take_reader(&mut self, id: StreamId) -> Option<Waker> {
        self.take_waker(id, |waiting| &mut waiting.read)
    }

    pub(crate) fn take_writer(&mut self, id: StreamId) -> Option<Waker> {
        self.take_waker(id, |waiting| &mut waiting.write)
    }

    fn take_waker(&mut self, id: StreamId, side: fn(&mut Wakers) -> &mut Option<Waker>) -> Option<Waker> {
        let waiting = self.waiting.get_mut(&id)?;
        let waker = side(waiting).take();
        if waiting.read.is_none() && waiting.write.is_none() {
            self.waiting.remove(&id);
        }
        waker
    }

    /// How many streams somebody waits on.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

fn set_waker(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}
