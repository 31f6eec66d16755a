//! How long something may take, on the command line: a number of seconds, or a number and its unit.

use std::time::Duration;

/// The units, and what they are in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60 * 1000), ("h", 60 * 60 * 1000), ("d", 24 * 60 * 60 * 1000)];

/// What the help calls the value of such an option.
pub(crate) const SPAN: &str = "TIME";

/// Reads a time between `least` and `most` seconds: `30` and `30s` are half a minute, `5m` is five.
pub(crate) fn span(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let limits = Duration::from_secs(least)..=Duration::from_secs(most);
    move |text| {
        let time = parse(text)?;
        if limits.contains(&time) {
            return Ok(time);
        }
        Err(format!("it must be {} at least and {} at most", in_words(least), in_words(most)))
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let bad =
        || "write a number and its unit, such as 30s, 5m or 500ms; without one it is seconds".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let unit = if unit.is_empty() { "s" } else { unit };
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    number.checked_mul(*millis).map(Duration::from_millis).ok_or_else(bad)
}

/// So many seconds, in the largest unit in which that is a whole number.
fn in_words(seconds: u64) -> String {
    let millis = seconds.saturating_mul(1000);
    let largest = UNITS.iter().rev().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    largest.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_its_unit_or_seconds() {
        for (text, millis) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("0", 0),
            ("500ms", 500),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(span(0, 86_400)(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "s", "-1", "+1", "1.5s", "5 m", "5min", "5M", "99999999999999999999", "999999999999999999d"]
        {
            let error = span(0, 86_400)(text).unwrap_err();
            assert!(error.starts_with("write a number and its unit"), "{text}: {error}");
        }
    }

    #[test]
    fn who_goes_too_far_is_told_the_limits() {
        let read = span(1, 86_400);
        assert_eq!(read("1d"), Ok(Duration::from_secs(86_400)));
        for text in ["0", "999ms", "86401", "2d"] {
            assert_eq!(read(text).unwrap_err(), "it must be 1s at least and 1d at most", "{text}");
        }
        assert_eq!(span(0, 600)("11m").unwrap_err(), "it must be 0s at least and 10m at most");
        assert_eq!(span(1, 90)("2m").unwrap_err(), "it must be 1s at least and 90s at most");
    }
}
