//! Is the peer there, and how far away?
//!
//! In: the times of bytes that came and records that went; pings and their answers. Out: when to ping, when to
//! give up, the round-trip time. Keeps: numbers, one for the pong that is owed and one for the ping that is
//! out. Spec: draft-02 §4.3 and §7, RFC 9000 §10.1, RFC 9002 §5.

use core::time::Duration;

use crate::error::Violation;
use crate::fingerprint::Digest;
use crate::time::Instant;

/// The state of one pipe.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    /// When something came last; at first, when the pipe was attached.
    heard: Instant,
    /// When something came last, or went out for the first time after that. An end that only talks to a dead
    /// peer would never find out if each of its own words counted (RFC 9000 §10.1).
    active: Instant,
    /// Whether something went out since something came.
    spoke: bool,
    /// A pong is owed, for the last sequence number that was asked with.
    pong_owed: bool,
    /// The next lawful sequence number of the peer's pings.
    next_asked: u64,
    ping_owed: bool,
    /// The sequence number of our next ping.
    next_ping: u64,
    /// The first sequence number that the peer has not answered.
    next_answer: u64,
    /// When the last ping was handed to the pipe.
    ping_sent: Option<Instant>,
    /// When it was handed over, nothing was on its way that it would have waited behind.
    ping_runs_free: bool,
    rtt: Samples,
    /// The length of the path, in nanoseconds: the round-trip time of pings that ran free, and no more than any took.
    /// [`u64::MAX`] while there is none.
    path: u64,
    /// From when on one that runs free is to tell it again.
    path_due: Instant,
    /// When the peer is given up at the earliest: after this end was suspended, a little later than otherwise.
    spared: Instant,
}

/// What was measured of the round-trip time, in nanoseconds: half as long as as many [`Duration`]s.
#[derive(Clone, Copy, Debug)]
struct Samples {
    latest: u64,
    /// [`u64::MAX`] while there is no sample.
    min: u64,
    smoothed: u64,
}

impl Samples {
    const NONE: Self = Self { latest: 0, min: u64::MAX, smoothed: 0 };

    fn add(&mut self, sample: Duration) {
        let sample = in_nanos(sample).min(u64::MAX - 1);
        let rest = if self.min == u64::MAX { sample } else { self.smoothed };
        // The eighth of each first: seven times a large one may not fit.
        let smoothed = rest - rest / 8 + sample / 8;
        *self = Self { latest: sample, min: self.min.min(sample), smoothed };
    }
}

/// The length of the path is measured again when it is known for so long: it may be another one.
const MEASURE_AGAIN: Duration = Duration::from_secs(10);

/// Who is called so much later than it asked for was suspended, and may find the peer's answers waiting.
const SUSPENDED: Duration = Duration::from_secs(1);

/// How long a peer has to answer after that.
const PROBE: Duration = Duration::from_secs(5);

/// Round-trip times as measured by pings, on one pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rtt {
    /// The last one.
    pub latest: Duration,
    /// The least one.
    pub min: Duration,
    /// The mean of all, the last one weighing an eighth (RFC 9002 §5.3).
    pub smoothed: Duration,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard: now,
            active: now,
            spoke: false,
            pong_owed: false,
            next_asked: 0,
            ping_owed: false,
            next_ping: 0,
            next_answer: 0,
            ping_sent: None,
            ping_runs_free: false,
            rtt: Samples::NONE,
            path: u64::MAX,
            path_due: Instant::default(),
            spared: Instant::default(),
        }
    }

    /// Bytes came. Any byte is a sign of life.
    pub(crate) fn handle_input(&mut self, now: Instant) {
        self.heard = now;
        self.active = now;
        self.spoke = false;
        self.spared = Instant::default();
    }

    /// A record was handed to the pipe.
    pub(crate) fn handle_transmit(&mut self, now: Instant) {
        if !self.spoke {
            self.spoke = true;
            self.active = now;
        }
    }

    /// The peer asks for a pong.
    pub(crate) fn on_ping(&mut self, sequence: u64) -> Result<(), Violation> {
        if sequence < self.next_asked {
            return Err(Violation::PingSequence);
        }
        self.next_asked = sequence + 1;
        self.pong_owed = true;
        Ok(())
    }

    /// The peer answers a ping, and with it all earlier ones. Returns how long it took, if it was the last one.
    pub(crate) fn on_pong(&mut self, now: Instant, sequence: u64) -> Result<Option<Duration>, Violation> {
        if sequence < self.next_answer || sequence >= self.next_ping {
            return Err(Violation::PingSequence);
        }
        self.next_answer = sequence + 1;
        if self.next_answer < self.next_ping {
            return Ok(None);
        }
        let Some(sent) = self.ping_sent.take() else { return Ok(None) };
        let sample = now.saturating_duration_since(sent);
        self.rtt.add(sample);
        if self.ping_runs_free {
            self.add_path(now, sample);
        } else {
            self.path = self.path.min(in_nanos(sample)); // whatever it met, the path is no longer than that
        }
        Ok(Some(sample))
    }

    /// One answer that was held up by chance weighs little, and a path that has become shorter counts at once.
    fn add_path(&mut self, now: Instant, sample: Duration) {
        let sample = in_nanos(sample).min(u64::MAX - 1);
        self.path = if sample < self.path { sample } else { self.path - self.path / 8 + sample / 8 };
        self.path_due = now + MEASURE_AGAIN;
    }

    /// Asks for a ping to go out.
    pub(crate) fn ask(&mut self) {
        self.ping_owed = true;
    }

    /// As [`ask`](Self::ask), if the length of the path is to be measured again and no ping is out.
    pub(crate) fn ask_for_path(&mut self, now: Instant) {
        self.ping_owed |= self.ping_sent.is_none() && now >= self.path_due;
    }

    /// As [`ask`](Self::ask), if no ping is out.
    pub(crate) fn ask_if_none_is_out(&mut self) {
        self.ping_owed |= self.ping_sent.is_none();
    }

    pub(crate) fn owes(&self) -> bool {
        self.ping_owed || self.pong_owed
    }

    /// Whether something went out since something came.
    pub(crate) fn has_spoken_last(&self) -> bool {
        self.spoke
    }

    /// Takes the pong that is owed.
    pub(crate) fn take_pong(&mut self) -> Option<u64> {
        core::mem::take(&mut self.pong_owed).then(|| self.next_asked - 1)
    }

    /// Takes the ping that is owed. It is being handed to the pipe: this is when its time starts. `runs_free` says that
    /// nothing is on its way that it would wait behind.
    pub(crate) fn take_ping(&mut self, now: Instant, runs_free: bool) -> Option<u64> {
        if !self.ping_owed {
            return None;
        }
        self.ping_owed = false;
        self.ping_sent = Some(now);
        self.ping_runs_free = runs_free;
        self.next_ping += 1;
        Some(self.next_ping - 1)
    }

    /// When to ask the peer for a sign of life, if it has given none for `interval`.
    pub(crate) fn ping_at(&self, interval: Duration) -> Option<Instant> {
        if self.ping_owed {
            return None; // one that cannot go out is enough
        }
        Some(self.ping_sent.unwrap_or(self.heard).max(self.heard) + interval)
    }

    /// When to give the peer up.
    pub(crate) fn dead_at(&self, timeout: Duration) -> Instant {
        self.spared.max(self.active + timeout)
    }

    /// The time to give the peer up has come, at `due`. If that is noticed so late that this end must have been
    /// suspended, the peer has one more chance: it is asked, and given up a little later. Returns whether it has.
    pub(crate) fn spare(&mut self, now: Instant, due: Instant) -> bool {
        let is_late = now.saturating_duration_since(due) >= SUSPENDED;
        if !is_late || self.is_spared() {
            return false;
        }
        self.spared = now + PROBE;
        self.ask();
        true
    }

    fn is_spared(&self) -> bool {
        self.spared > Instant::default()
    }

    pub(crate) fn rtt(&self) -> Option<Rtt> {
        let Samples { latest, min, smoothed } = self.rtt;
        let [latest, least, smoothed] = [latest, min, smoothed].map(Duration::from_nanos);
        (min < u64::MAX).then_some(Rtt { latest, min: least, smoothed })
    }

    /// The round-trip time of what waits behind nothing else of this end's.
    pub(crate) fn path(&self) -> Option<Duration> {
        (self.path < u64::MAX).then_some(Duration::from_nanos(self.path))
    }

    /// Feeds what decides when the path is measured again to `digest`, as [`digest`](Self::digest) does.
    pub(crate) fn digest_path(&self, now: Instant, digest: &mut Digest) {
        digest.number(in_nanos(self.path_due.saturating_duration_since(now)));
        digest.number(u64::from(self.ping_sent.is_some() && self.ping_runs_free));
    }

    /// Feeds what decides about the future to `digest`, with times relative to `now`.
    pub(crate) fn digest(&self, now: Instant, digest: &mut Digest) {
        let ago = |then: Instant| in_nanos(now.saturating_duration_since(then));
        digest.numbers(&[ago(self.heard), ago(self.active), u64::from(self.spoke)]);
        digest.number(u64::from(self.pong_owed));
        digest.numbers(&[self.next_asked, u64::from(self.ping_owed), self.next_ping, self.next_answer]);
        digest.option(self.ping_sent.map(ago));
        digest.number(in_nanos(self.spared.saturating_duration_since(now)));
    }

    pub(crate) fn invariants(&self) {
        assert!(self.next_answer <= self.next_ping);
        assert!(self.heard <= self.active || !self.spoke);
        assert!(!self.pong_owed || self.next_asked > 0);
    }
}

pub(crate) fn in_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("made from 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn single_owed_pong() {
        let mut liveness = Liveness::new(at(0));
        for sequence in [3, 4, 900] {
            liveness.on_ping(sequence).unwrap();
        }
        assert_eq!(liveness.take_pong(), Some(900));
        assert_eq!(liveness.take_pong(), None);
    }

    #[test]
    fn sequence_numbers_grow() {
        let mut liveness = Liveness::new(at(0));
        liveness.on_ping(7).unwrap();
        assert_eq!(liveness.on_ping(7), Err(Violation::PingSequence));
        assert_eq!(liveness.on_ping(6), Err(Violation::PingSequence));
        assert_eq!(liveness.on_pong(at(0), 0), Err(Violation::PingSequence), "no ping is out");
        liveness.ask();
        assert_eq!(liveness.take_ping(at(0), false), Some(0));
        assert_eq!(liveness.on_pong(at(1), 1), Err(Violation::PingSequence));
        assert_eq!(liveness.on_pong(at(1), 0), Ok(Some(ms(1))));
        assert_eq!(liveness.on_pong(at(1), 0), Err(Violation::PingSequence), "answered already");
    }

    #[test]
    fn rtt_at_wire() {
        let mut liveness = Liveness::new(at(0));
        liveness.ask(); // and the pipe takes it only 50 ms later
        liveness.take_ping(at(50), false);
        liveness.on_pong(at(60), 0).unwrap();
        assert_eq!(liveness.rtt(), Some(Rtt { latest: ms(10), min: ms(10), smoothed: ms(10) }));
        liveness.ask();
        liveness.take_ping(at(100), false);
        liveness.on_pong(at(126), 1).unwrap();
        assert_eq!(liveness.rtt(), Some(Rtt { latest: ms(26), min: ms(10), smoothed: ms(12) }));
        assert_eq!(liveness.path(), Some(ms(10)), "no longer, whatever was on its way");
    }

    #[test]
    fn the_path_is_as_long_as_pings_that_run_free_take() {
        let mut liveness = Liveness::new(at(0));
        let mut measure = |sequence, took, runs_free| {
            liveness.ask();
            assert_eq!(liveness.take_ping(at(0), runs_free), Some(sequence));
            liveness.on_pong(at(took), sequence).unwrap();
            liveness.path()
        };
        assert_eq!(measure(0, 50, false), Some(ms(50)), "it may be shorter");
        assert_eq!(measure(1, 8, true), Some(ms(8)));
        assert_eq!(measure(2, 50, false), Some(ms(8)));
        assert_eq!(measure(3, 16, true), Some(ms(9)), "by chance, or it has become longer");
        assert_eq!(measure(4, 7, false), Some(ms(7)), "what was on its way did not hold it up");
        assert_eq!(measure(5, 1, true), Some(ms(1)));
    }

    #[test]
    fn an_answer_to_an_earlier_ping_measures_nothing() {
        let mut liveness = Liveness::new(at(0));
        for sent in [0, 10] {
            liveness.ask();
            liveness.take_ping(at(sent), false);
        }
        assert_eq!(liveness.on_pong(at(11), 0), Ok(None));
        assert_eq!(liveness.rtt(), None);
        liveness.on_pong(at(15), 1).unwrap();
        assert_eq!(liveness.rtt().unwrap().latest, ms(5));
    }

    #[test]
    fn who_was_suspended_asks_once_before_giving_up() {
        let mut liveness = Liveness::new(at(0));
        let due = liveness.dead_at(ms(15_000));
        assert!(!liveness.clone().spare(at(15_100), due), "in time");
        assert!(liveness.spare(at(60_000), due) && liveness.owes());
        assert_eq!(liveness.dead_at(ms(15_000)), at(65_000));
        assert!(!liveness.spare(at(90_000), at(65_000)), "once is enough");
        liveness.handle_input(at(61_000));
        assert_eq!(liveness.dead_at(ms(15_000)), at(76_000), "it has answered");
    }

    #[test]
    fn only_the_first_word_after_the_peers_counts() {
        let mut liveness = Liveness::new(at(0));
        liveness.handle_input(at(10));
        liveness.handle_transmit(at(12));
        liveness.handle_transmit(at(30));
        assert_eq!(liveness.dead_at(ms(100)), at(112));
    }
}
