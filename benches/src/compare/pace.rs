//! Whether a turn may be taken again: where there is a limit, only if that leaves time for all others.

use std::time::Duration;

/// How many turns there still are, and how fast they go.
pub(super) struct Pace {
    limit: Option<Duration>,
    at_once: u32,
    lines: Vec<Turns>,
}

/// The turns over one line.
struct Turns {
    /// How long each takes if nothing disturbs it.
    planned: Duration,
    /// How many are not over, those included that are under way.
    left: u32,
    /// How often one was taken, and how long that took altogether.
    taken: u32,
    took: Duration,
}

impl Pace {
    /// For `at_once` turns at a time; for each line, how long a turn takes if nothing disturbs it, and how many there are.
    pub(super) fn new(
        limit: Option<Duration>,
        at_once: usize,
        lines: impl IntoIterator<Item = (Duration, usize)>,
    ) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let turns = |(planned, left)| Turns { planned, left: count(left), taken: 0, took: Duration::ZERO };
        Self { limit, at_once: count(at_once), lines: lines.into_iter().map(turns).collect() }
    }

    /// A turn was taken, for the first time or again.
    pub(super) fn taken(&mut self, line: usize, took: Duration) {
        self.lines[line].taken += 1;
        self.lines[line].took += took;
    }

    /// A turn will not be taken any more.
    pub(super) fn over(&mut self, line: usize) {
        self.lines[line].left -= 1;
    }

    /// Whether a turn that is not over may be taken again, `so_far` after the first began.
    pub(super) fn has_time(&self, so_far: Duration) -> bool {
        self.limit.is_none_or(|limit| so_far + self.rest() < limit)
    }

    /// How long it takes at most until all turns are over, if each that is not takes as long as those so far have on the mean
    /// (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969): all are shared evenly, and somebody waits for the
    /// longest.
    fn rest(&self) -> Duration {
        let (taken, took) =
            self.lines.iter().fold((Duration::ZERO, Duration::ZERO), |(taken, took), line| {
                (taken + line.planned.saturating_mul(line.taken), took + line.took)
            });
        let pace = if taken.is_zero() { 1.0 } else { took.div_duration_f64(taken) };
        let each = |line: &Turns| line.took.checked_div(line.taken).unwrap_or(line.planned.mul_f64(pace));
        let left = || self.lines.iter().filter(|line| line.left > 0);
        let longest = left().map(each).max().unwrap_or_default();
        let sum: Duration = left().map(|line| each(line).saturating_mul(line.left)).sum();
        (sum - longest) / self.at_once + longest
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(175);

    /// Takes thirteen turns of 18 s and thirteen of 7 s, three at a time, each `factor` times as long as planned; those are late
    /// that `is_late` says, by how many were taken before. Returns how long all take, and how many were taken.
    fn run(factor: f64, is_late: impl Fn(usize) -> bool) -> (Duration, usize) {
        let planned = [18, 7].map(Duration::from_secs);
        let mut pace = Pace::new(Some(LIMIT), 3, planned.map(|planned| (planned, 13)));
        let mut turns = [[0; 13], [1; 13]].concat().into_iter();
        let took = |line: usize| planned[line].mul_f64(factor);
        let mut under_way: BinaryHeap<_> =
            turns.by_ref().take(3).map(|line| Reverse((took(line), line))).collect();
        let (mut now, mut taken) = (Duration::ZERO, 0);
        while let Some(Reverse((end, line))) = under_way.pop() {
            now = end;
            pace.taken(line, took(line));
            let again = is_late(taken) && pace.has_time(now);
            taken += 1;
            let next = if again {
                Some(line)
            } else {
                pace.over(line);
                turns.next()
            };
            under_way.extend(next.map(|line| Reverse((now + took(line), line))));
        }
        (now, taken)
    }

    #[test]
    fn what_was_late_is_not_taken_again_at_the_expense_of_others() {
        for factor in [1.0, 1.1, 1.2, 1.3] {
            let (undisturbed, taken) = run(factor, |_| false);
            assert_eq!(taken, 26);
            for is_late in [|_| true, |taken| taken < 3, |taken| taken % 4 == 0, |taken| taken > 20] {
                let (took, taken) = run(factor, is_late);
                assert!(undisturbed <= took && took < LIMIT, "{took:?} at {factor}");
                assert!(taken > 26 || factor > 1.2, "{taken} at {factor}");
            }
        }
    }

    #[test]
    fn where_there_is_no_time_nothing_is_taken_again() {
        assert_eq!(run(1.7, |_| true), run(1.7, |_| false));
    }

    #[test]
    fn without_a_limit_there_is_always_time() {
        assert!(Pace::new(None, 1, [(LIMIT, 2)]).has_time(100 * LIMIT));
        assert!(!Pace::new(Some(LIMIT), 1, [(LIMIT, 2)]).has_time(LIMIT));
    }
}
