//! Every sum of credit: what we promised to receive, and what the peer promised us.
//!
//! Limits are absolute and only grow (RFC 9000 §4.1), so saying one twice changes nothing. A stream counts
//! offsets, a session counts the bytes of all its streams. Windows start small and follow the bandwidth-delay
//! product, as measured by the least round-trip time: larger ones only fill queues. Spec: PROTOCOL §4.6.

use core::time::Duration;

use crate::budget::Share;
use crate::error::Violation;
use crate::time::Instant;
use crate::varint;

/// What we promised to receive on one stream. All values are bytes from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReceiveWindow {
    counts: Received,
    size: Tuned,
}

/// What we promised to receive on all streams together.
///
/// What is promised anew follows what came and not what was read, so that readers who stall hold nobody up until
/// all that may be unread is.
#[derive(Clone, Debug)]
pub(crate) struct SessionWindow {
    counts: Received,
    /// How many bytes may be promised or unread.
    total: u64,
    /// How many bytes are promised ahead of what came.
    ahead: Tuned,
    /// What pays for promises beyond the first.
    share: Share,
}

/// The counts behind a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Received {
    /// How far the peer may send: the last limit that we announced.
    limit: u64,
    /// How far the peer has sent.
    received: u64,
    /// How far the application has read, or given up reading.
    consumed: u64,
}

/// A size that follows the bandwidth-delay product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tuned {
    size: u64,
    /// When a limit was last announced; or when bytes came, the first of all, or the first [so long](IDLE) after that.
    since: Instant,
}

/// A window for which no limit was announced for so long starts again with its first size: the path may have changed, and
/// memory is better promised to who needs it.
const IDLE: Duration = Duration::from_secs(10);

impl Received {
    fn new(limit: u64) -> Self {
        Self { limit, received: 0, consumed: 0 }
    }

    fn check(&self, end: u64) -> Result<(), Violation> {
        if end > self.limit { Err(Violation::FlowControl) } else { Ok(()) }
    }

    fn receive(&mut self, new: u64) {
        self.received += new;
        assert!(self.received <= self.limit, "received bytes are checked first");
    }

    fn consume(&mut self, read: u64) {
        self.consumed += read;
        assert!(self.consumed <= self.received, "only what was received can be read");
    }

    fn unread(&self) -> u64 {
        self.received - self.consumed
    }

    fn announce(&mut self, limit: u64) {
        assert!(limit >= self.limit, "limits only grow");
        self.limit = limit;
    }

    fn invariants(&self) {
        assert!(self.consumed <= self.received);
        assert!(self.received <= self.limit);
    }
}

/// No path counts as shorter than this: what takes less time is spent by two schedulers and not on the way, and a
/// window that ran dry while they look elsewhere would hold the peer up all the same.
const SHORTEST: Duration = Duration::from_millis(1);

impl Tuned {
    /// Bytes come, the first of all or some more. If no limit was announced for [long](IDLE), the window is as large as at
    /// `first`.
    fn handle_arrival(&mut self, now: Instant, first: u64, are_first: bool) {
        if now.saturating_duration_since(self.since) > IDLE {
            (self.size, self.since) = (first, now);
        } else if are_first {
            self.since = now;
        }
    }

    /// Learns that a limit is being announced, which happens for each half a window that is used. If that took less
    /// than two round trips, it is the window that holds the peer up: it doubles, up to `most`.
    fn tune(&mut self, now: Instant, min_rtt: Option<Duration>, first: u64, most: u64, may_grow: bool) {
        let took = now.saturating_duration_since(core::mem::replace(&mut self.since, now));
        if took > IDLE {
            self.size = first;
        } else if may_grow && min_rtt.is_some_and(|rtt| took < rtt.max(SHORTEST) * 2) {
            self.size = self.size.saturating_mul(2).clamp(self.size, most.max(self.size));
        }
    }

    fn digest(&self, now: Instant, digest: &mut crate::fingerprint::Digest) {
        let ago = now.saturating_duration_since(self.since).min(IDLE);
        digest.numbers(&[self.size, u64::try_from(ago.as_nanos()).expect("seconds fit")]);
    }
}

impl ReceiveWindow {
    /// A window that promises its whole size at once, through the transport parameters.
    pub(crate) fn new(window: u64) -> Self {
        let window = window.min(varint::MAX);
        Self { counts: Received::new(window), size: Tuned { size: window, since: Instant::default() } }
    }

    /// Checks that the peer may send up to `end`.
    ///
    /// # Errors
    ///
    /// [`Violation::FlowControl`] if `end` passes the limit that we announced (RFC 9000 §4.1).
    pub(crate) fn check(&self, end: u64) -> Result<(), Violation> {
        self.counts.check(end)
    }

    /// Accounts for `new` bytes that passed [`check`](Self::check).
    pub(crate) fn receive(&mut self, new: u64) {
        self.counts.receive(new);
    }

    /// Bytes come now, and are not accounted for yet. `first` is the size of a window that has not grown.
    pub(crate) fn handle_arrival(&mut self, now: Instant, first: u64) {
        self.size.handle_arrival(now, first, self.counts.received == 0);
    }

    /// Accounts for `read` bytes that need no memory any more.
    pub(crate) fn consume(&mut self, read: u64) {
        self.counts.consume(read);
    }

    /// How far the peer may send: the last limit that was announced.
    pub(crate) fn limit(&self) -> u64 {
        self.counts.limit
    }

    /// How far the peer has sent.
    pub(crate) fn received(&self) -> u64 {
        self.counts.received
    }

    /// The bytes that were received and not consumed.
    pub(crate) fn unread(&self) -> u64 {
        self.counts.unread()
    }

    /// The limit to announce, once that gives the peer half a window more than it has.
    ///
    /// That keeps a steady reader's peer from ever running dry, and costs one update for each half window even if
    /// the application reads byte by byte.
    pub(crate) fn update_owed(&self) -> Option<u64> {
        let limit = (self.counts.consumed + self.size.size).min(varint::MAX);
        let more = limit.checked_sub(self.counts.limit)?;
        (more > 0 && more >= self.size.size / 2).then_some(limit)
    }

    /// Takes the limit that is owed, to be announced now. The window grows if it was what held the peer up, and the
    /// reader was not: to promise more to who does not read would only fill memory.
    pub(crate) fn take_update(
        &mut self,
        now: Instant,
        min_rtt: Option<Duration>,
        first: u64,
        most: u64,
    ) -> Option<u64> {
        self.update_owed()?;
        let is_read = self.unread() < self.size.size / 4;
        self.size.tune(now, min_rtt, first, most, is_read);
        let limit = (self.counts.consumed + self.size.size).min(varint::MAX).max(self.counts.limit);
        self.counts.announce(limit);
        Some(limit)
    }

    pub(crate) fn digest(&self, now: Instant, digest: &mut crate::fingerprint::Digest) {
        let Received { limit, received, consumed } = self.counts;
        digest.numbers(&[limit, received, consumed]);
        self.size.digest(now, digest);
    }

    pub(crate) fn invariants(&self) {
        self.counts.invariants();
    }
}

impl SessionWindow {
    /// A window in which `total` bytes may be promised or unread, of which `first` are promised at once.
    pub(crate) fn new(total: u64, first: u64, share: Share) -> Self {
        let total = total.min(varint::MAX);
        let first = first.min(total);
        let ahead = Tuned { size: first, since: Instant::default() };
        Self { counts: Received::new(first), total, ahead, share }
    }

    /// As [`ReceiveWindow::check`], for the end of `new` bytes more.
    pub(crate) fn check(&self, new: u64) -> Result<(), Violation> {
        self.counts.check(self.counts.received.saturating_add(new))
    }

    /// Accounts for `new` bytes that passed [`check`](Self::check).
    pub(crate) fn receive(&mut self, new: u64) {
        self.counts.receive(new);
    }

    /// Bytes come now, and are not accounted for yet. `first` is the size of a window that has not grown.
    pub(crate) fn handle_arrival(&mut self, now: Instant, first: u64) {
        self.ahead.handle_arrival(now, first, self.counts.received == 0);
    }

    /// Accounts for `read` bytes that need no memory any more.
    pub(crate) fn consume(&mut self, read: u64) {
        self.counts.consume(read);
    }

    /// How far the peer may send: the last limit that was announced.
    pub(crate) fn limit(&self) -> u64 {
        self.counts.limit
    }

    /// How far the peer has sent.
    pub(crate) fn received(&self) -> u64 {
        self.counts.received
    }

    /// The bytes that were received and not consumed.
    pub(crate) fn unread(&self) -> u64 {
        self.counts.unread()
    }

    /// The bytes that the peer may still send.
    pub(crate) fn promised(&self) -> u64 {
        self.counts.limit - self.counts.received
    }

    /// The bytes that are neither promised nor unread.
    pub(crate) fn withheld(&self) -> u64 {
        self.counts.consumed + self.total - self.counts.limit
    }

    /// The limit to announce, once it is worth a frame: for half of what is promised ahead; or, when memory is what
    /// limits it, for `quantum` bytes, since readers who stall may hold all the rest.
    pub(crate) fn update_owed(&self, quantum: u64, first: u64) -> Option<u64> {
        let Received { limit, received, consumed } = self.counts;
        let least = quantum.min(self.ahead.size / 2);
        if self.ahead.size.saturating_sub(limit - received) < least {
            return None; // whatever the rest says: this is asked very often
        }
        let paid = consumed.saturating_add(first).saturating_add(self.share.most());
        let most = (consumed + self.total).min(paid);
        let wanted = received + self.ahead.size;
        let worth = if wanted <= most { self.ahead.size / 2 } else { least };
        let more = wanted.min(most).min(varint::MAX).checked_sub(limit)?;
        (more > 0 && more >= worth).then_some(limit + more)
    }

    /// Takes the limit that is owed, to be announced now, and pays for it.
    pub(crate) fn take_update(
        &mut self,
        now: Instant,
        min_rtt: Option<Duration>,
        quantum: u64,
        first: u64,
    ) -> Option<u64> {
        self.update_owed(quantum, first)?;
        let before = self.ahead;
        self.ahead.tune(now, min_rtt, first, self.total, true);
        let Received { limit, received, consumed } = self.counts;
        let wanted = (received + self.ahead.size).min(consumed + self.total).min(varint::MAX).max(limit);
        let paid = self.share.resize((wanted - consumed).saturating_sub(first));
        let limit = wanted.min(consumed.saturating_add(first).saturating_add(paid)).max(limit);
        if limit == self.counts.limit {
            self.ahead = before; // there is nobody to tell
            return None;
        }
        self.counts.announce(limit);
        Some(limit)
    }

    pub(crate) fn digest(&self, now: Instant, digest: &mut crate::fingerprint::Digest) {
        let Received { limit, received, consumed } = self.counts;
        digest.numbers(&[limit, received, consumed]);
        self.ahead.digest(now, digest);
    }

    pub(crate) fn invariants(&self) {
        self.counts.invariants();
        assert!(self.counts.limit <= self.counts.consumed + self.total, "memory is what we promised");
    }
}

/// What the peer promised us, on one stream or on the session. All values are bytes from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SendCredit {
    /// How far we may send.
    limit: u64,
    /// How far the application has written.
    used: u64,
}

impl SendCredit {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    /// How many more bytes may be written now.
    pub(crate) fn available(&self) -> u64 {
        self.limit - self.used
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Uses `count` bytes of credit.
    pub(crate) fn take(&mut self, count: u64) {
        assert!(count <= self.available(), "credit is asked for first");
        self.used += count;
    }

    /// Gives back credit for `count` bytes that were written and will never be sent.
    pub(crate) fn give_back(&mut self, count: u64) {
        self.used -= count;
    }

    /// Learns the peer's limit. Returns whether it grew; a smaller one is an old one (RFC 9000 §4.1).
    pub(crate) fn raise(&mut self, limit: u64) -> bool {
        let grew = limit > self.limit;
        self.limit = self.limit.max(limit);
        grew
    }

    pub(crate) fn digest(&self, digest: &mut crate::fingerprint::Digest) {
        digest.numbers(&[self.limit, self.used]);
    }

    pub(crate) fn invariants(&self) {
        assert!(self.used <= self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    const NO_RTT: Option<Duration> = None;

    #[test]
    fn limit_exact() {
        let window = ReceiveWindow::new(10);
        assert_eq!(window.check(10), Ok(()), "the last byte is accepted");
        assert_eq!(window.check(11), Err(Violation::FlowControl), "one more is not");
    }

    #[test]
    fn one_byte_reads_owe_one_update_per_half_window() {
        let mut window = ReceiveWindow::new(8);
        window.receive(8);
        let updates = (0..8)
            .filter_map(|_| {
                window.consume(1);
                window.take_update(at(0), NO_RTT, 8, 8)
            })
            .collect::<alloc::vec::Vec<_>>();
        assert_eq!(updates, [12, 16]);
        window.invariants();
    }

    #[test]
    fn a_window_of_one_byte_still_opens() {
        let mut window = ReceiveWindow::new(1);
        window.receive(1);
        assert_eq!(window.update_owed(), None);
        window.consume(1);
        assert_eq!(window.update_owed(), Some(2));
    }

    #[test]
    fn a_window_of_no_bytes_never_owes() {
        assert_eq!(ReceiveWindow::new(0).update_owed(), None);
        assert_eq!(SessionWindow::new(0, 0, Share::default()).update_owed(0, 0), None);
    }

    #[test]
    fn no_wrap_at_the_end_of_the_scale() {
        let mut window = ReceiveWindow::new(u64::MAX);
        window.receive(varint::MAX);
        window.consume(varint::MAX);
        assert_eq!(window.update_owed(), None, "there is no further offset to promise");
        window.invariants();
        let mut window = SessionWindow::new(u64::MAX, u64::MAX, Share::default());
        window.receive(varint::MAX);
        window.consume(varint::MAX);
        assert_eq!(window.update_owed(1, u64::MAX), None);
        assert_eq!(window.check(u64::MAX), Err(Violation::FlowControl));
    }

    /// A peer that always fills the window, and a reader that takes all at once, `rtt` apart.
    fn grown(window: &mut ReceiveWindow, rtt: u64, rounds: u64, start: u64) -> u64 {
        for round in 0..rounds {
            let all = window.limit() - window.received();
            window.receive(all);
            window.consume(all);
            window.take_update(at(start + round * rtt), Some(Duration::from_millis(rtt)), 64 << 10, 16 << 20);
        }
        window.size.size
    }

    #[test]
    fn tune_bounded() {
        let mut window = ReceiveWindow::new(64 << 10);
        assert!(grown(&mut window, 200, 6, 60_000) >= 1 << 20, "twice as large for each round trip");
        assert_eq!(grown(&mut window, 200, 9, 61_200), 16 << 20, "and no more than that");
        // Ten seconds of nothing: the next round starts where it began.
        let all = window.limit() - window.received();
        window.receive(all);
        window.consume(all);
        window.take_update(at(80_000), Some(Duration::from_millis(200)), 64 << 10, 16 << 20);
        assert_eq!(window.size.size, 64 << 10);
    }

    /// What comes with the first of a stream, or after a rest, takes no more round trips than what comes later.
    #[test]
    fn a_window_grows_with_the_first_that_comes() {
        const FIRST: u64 = 64 << 10;
        let rtt = Some(Duration::from_millis(200));
        let after = |window: &mut ReceiveWindow, from: u64, took: u64| {
            for now in [from, from + took] {
                window.handle_arrival(at(now), FIRST);
                window.receive(FIRST / 4);
                window.consume(FIRST / 4);
            }
            assert!(window.take_update(at(from + took), rtt, FIRST, 16 << 20).is_some());
            window.size.size
        };
        for from in [0, 60_000] {
            assert_eq!(after(&mut ReceiveWindow::new(FIRST), from, 399), 2 * FIRST, "from {from}");
            assert_eq!(after(&mut ReceiveWindow::new(FIRST), from, 400), FIRST, "from {from}");
        }
        let mut window = ReceiveWindow::new(FIRST);
        assert_eq!(grown(&mut window, 200, 4, 1_000), 8 * FIRST);
        window.handle_arrival(at(20_000), FIRST);
        assert_eq!(window.size.size, FIRST, "after a rest it is as it was");
    }

    #[test]
    fn no_path_counts_as_shorter_than_a_millisecond() {
        let after = |took: u64| {
            let mut window = ReceiveWindow::new(64 << 10);
            for now in [60_000_000_000, 60_000_000_000 + took] {
                window.receive(32 << 10);
                window.consume(32 << 10);
                let rtt = Some(Duration::from_micros(5));
                window.take_update(Instant::from_nanos(now), rtt, 64 << 10, 16 << 20);
            }
            window.size.size
        };
        assert_eq!((after(1_900_000), after(2_000_000)), (128 << 10, 64 << 10));
    }

    #[test]
    fn a_window_that_holds_nobody_up_stays_as_it_is() {
        // Half a window is used in three round trips.
        let mut window = ReceiveWindow::new(64 << 10);
        for round in 0..20 {
            window.receive(32 << 10);
            window.consume(32 << 10);
            let rtt = Some(Duration::from_millis(100));
            assert!(window.take_update(at(60_000 + round * 300), rtt, 64 << 10, 16 << 20).is_some());
        }
        assert_eq!(window.size.size, 64 << 10);
        // And one whose reader is behind does not grow either.
        let mut window = ReceiveWindow::new(64 << 10);
        window.receive(64 << 10);
        for round in 0..4 {
            window.consume(32 << 10);
            window.take_update(at(60_000 + round), Some(Duration::from_millis(100)), 64 << 10, 16 << 20);
            window.receive(32 << 10);
        }
        assert_eq!(window.size.size, 64 << 10);
    }

    #[test]
    fn readers_who_stall_hold_nobody_up_until_memory_is_full() {
        let mut window = SessionWindow::new(1000, 100, Share::default());
        let mut received = 0;
        while let Some(limit) = window.take_update(at(0), NO_RTT, 10, 100).or(Some(window.limit())) {
            let more = limit - received;
            if more == 0 {
                break;
            }
            window.receive(more);
            received += more;
        }
        assert_eq!((received, window.unread(), window.promised()), (1000, 1000, 0), "nothing was read");
        window.consume(9);
        assert_eq!(window.update_owed(10, 100), None);
        window.consume(1);
        assert_eq!(window.update_owed(10, 100), Some(1010));
        window.invariants();
    }

    #[test]
    fn what_goes_beyond_the_first_window_is_paid_for() {
        let budget = crate::Budget::new(50);
        let mut window = SessionWindow::new(1000, 100, Share::new(Some(budget.clone())));
        window.receive(100);
        assert_eq!(window.take_update(at(0), NO_RTT, 10, 100), Some(150));
        assert_eq!(budget.left(), 0);
        window.receive(50);
        assert_eq!(window.take_update(at(0), NO_RTT, 10, 100), None, "nothing is left");
        window.consume(150);
        assert_eq!(window.take_update(at(0), NO_RTT, 10, 100), Some(250));
        assert_eq!(budget.left(), 50);
    }

    #[test]
    fn an_old_limit_changes_nothing() {
        let mut credit = SendCredit::new(10);
        credit.take(4);
        assert!(!credit.raise(7));
        assert_eq!(credit.available(), 6);
        assert!(credit.raise(12));
        assert_eq!(credit.available(), 8);
    }
}
