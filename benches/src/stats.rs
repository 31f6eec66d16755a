//! Rounds and what is made of them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What several rounds gave: the one in the middle, and how far the others are from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle; of an even number of rounds, the lower of the two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these rounds, in any order. `None` of none.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut rounds: Vec<_> = rounds.into_iter().collect();
        rounds.sort_by(f64::total_cmp);
        let (&min, &max) = (rounds.first()?, rounds.last()?);
        Some(Self { median: rounds[(rounds.len() - 1) / 2], min, max })
    }

    /// The same in a unit of which this has `factor`.
    pub fn times(self, factor: f64) -> Self {
        let Self { median, min, max } = self;
        Self { median: median * factor, min: min * factor, max: max * factor }
    }

    /// The middle, and the range if there is one: of a single round there is none.
    pub fn brief(&self) -> String {
        if self.min < self.max { self.to_string() } else { short(self.median) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, min, max } = *self;
        write!(f, "{} ({}..{})", short(median), short(min), short(max))
    }
}

/// A number with three digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// The value, in microseconds, that the `part` (0 to 1) of all are not above. Sorts them; 0 of none.
pub fn percentile(latencies: &mut [Duration], part: f64) -> f64 {
    latencies.sort_unstable();
    at(latencies, part).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

/// The value that the `part` (0 to 1) of all are not above; `None` of none.
pub fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    at(&sorted, part).copied()
}

fn at<T>(sorted: &[T], part: f64) -> Option<&T> {
    let share = part * sorted.len() as f64;
    let above = (0..sorted.len()).find(|&index| (index + 1) as f64 >= share);
    above.map(|index| &sorted[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([]), None);
        assert_eq!(spread.to_string(), "2.00 (1.00..3.00)");
        assert_eq!(spread.times(10.0).brief(), "20.0 (10.0..30.0)");
        assert_eq!(Spread::of([2.0]).unwrap().brief(), "2.00");
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let mut latencies: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile(&mut latencies, 0.5), 50.0);
        assert_eq!(percentile(&mut latencies, 0.99), 99.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }
}
