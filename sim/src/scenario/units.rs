//! Quantities as people write them: `250 ms`, `10 Mbit/s`, `64 KiB`, `0.5 %`, and ranges of them, `1 s..5 s`.
//!
//! In: text. Out: whole numbers (nanoseconds, bits a second, bytes, millionths), since whole numbers are the same on every
//! machine. What is written is read back as the same number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, de};

use crate::random::Stream;

/// A duration, or a point in simulated time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A rate, in bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

/// A share of all, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(pub u32);

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(pub u64);

/// A quantity that is drawn from the seed: from `least` to `most`, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range<T> {
    /// The smallest.
    pub least: T,
    /// The largest.
    pub most: T,
}

/// Text that is not such a quantity, and what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: write it like {example}")]
pub struct BadQuantity {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// A whole number with a unit.
pub trait Quantity: Copy + Ord + fmt::Display + FromStr<Err = BadQuantity> {
    /// The units, the largest first, and how many of the smallest they are.
    const UNITS: &'static [(&'static str, u64)];
    /// What it is, for people.
    const WHAT: &'static str;
    /// How it is written.
    const EXAMPLE: &'static str;
    /// The number with this value.
    fn from_number(number: u64) -> Option<Self>;
    /// Its value, in the smallest unit.
    fn number(self) -> u64;
}

macro_rules! quantity {
    ($name:ident, $what:literal, $example:literal, $most:expr, $units:expr) => {
        impl Quantity for $name {
            const UNITS: &'static [(&'static str, u64)] = $units;
            const WHAT: &'static str = $what;
            const EXAMPLE: &'static str = $example;

            fn from_number(number: u64) -> Option<Self> {
                number.try_into().ok().filter(|_| number <= $most).map(Self)
            }

            #[allow(clippy::useless_conversion, reason = "one of them is narrower")]
            fn number(self) -> u64 {
                self.0.into()
            }
        }

        impl FromStr for $name {
            type Err = BadQuantity;

            fn from_str(text: &str) -> Result<Self, BadQuantity> {
                parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                show(*self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text(deserializer, Self::WHAT)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// The longest duration, 1000 hours: sums of some thousand of them fit in 64 bits.
const MOST_NANOSECONDS: u64 = 1_000 * 3_600_000_000_000;

quantity!(
    Span,
    "a duration",
    "\"250 ms\", \"3 s\" or \"2 min\", up to \"1000 h\"",
    MOST_NANOSECONDS,
    &[
        ("h", 3_600_000_000_000),
        ("min", 60_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1)
    ]
);
quantity!(
    Size,
    "a size",
    "\"64 KiB\", \"10 MB\" or \"500 B\"",
    u64::MAX,
    &[("GiB", 1 << 30), ("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10), ("kB", 1_000), ("B", 1)]
);
quantity!(
    Rate,
    "a rate",
    "\"10 Mbit/s\" or \"64 kbit/s\"",
    u64::MAX,
    &[("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)]
);
quantity!(Share, "a share", "\"0.5 %\"", u64::MAX, &[("%", 10_000), ("ppm", 1)]);
quantity!(Count, "a count", "3 or \"1..8\"", u64::MAX, &[("", 1)]);

impl Span {
    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }
}

impl Size {
    /// As a size in memory.
    ///
    /// # Panics
    ///
    /// If memory has no such size.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).expect("it is a size in memory")
    }
}

impl<T: Quantity> Range<T> {
    /// Always this.
    pub const fn exactly(value: T) -> Self {
        Self { least: value, most: value }
    }

    /// Draws one.
    ///
    /// # Panics
    ///
    /// Never: what lies between two values is one.
    pub fn draw(self, random: &mut Stream) -> T {
        let number = random.between(self.least.number(), self.most.number());
        T::from_number(number).expect("it lies between two that are")
    }
}

impl<T: Quantity> FromStr for Range<T> {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let Some((least, most)) = text.split_once("..") else { return Ok(Self::exactly(text.parse()?)) };
        let range = Self { least: least.parse()?, most: most.parse()? };
        if range.least > range.most {
            let example = "the smaller one first, as in \"1 s..5 s\"";
            return Err(BadQuantity { text: text.to_owned(), what: "a range", example });
        }
        Ok(range)
    }
}

impl<T: Quantity> fmt::Display for Range<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least == self.most { self.least.fmt(f) } else { write!(f, "{}..{}", self.least, self.most) }
    }
}

impl<T: Quantity> Serialize for Range<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: Quantity> Deserialize<'de> for Range<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, T::WHAT)?.parse().map_err(de::Error::custom)
    }
}

/// Text, or a bare number as text.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D, what: &'static str) -> Result<String, D::Error> {
    struct Visitor(&'static str);
    impl de::Visitor<'_> for Visitor {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Visitor(what))
}

fn parse<T: Quantity>(text: &str) -> Result<T, BadQuantity> {
    let bad = || BadQuantity { text: text.to_owned(), what: T::WHAT, example: T::EXAMPLE };
    let trimmed = text.trim();
    let split = trimmed.find(|at: char| !at.is_ascii_digit() && at != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim());
    let scale = T::UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    // Zero is zero in any unit.
    let scale = scale.or_else(|| (number == "0" && unit.is_empty()).then_some(1)).ok_or_else(bad)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
    let tens =
        u32::try_from(fraction.len()).ok().and_then(|places| 10_u128.checked_pow(places)).ok_or_else(bad)?;
    let scaled = digits.checked_mul(scale.into()).ok_or_else(bad)?;
    if scaled % tens != 0 {
        return Err(bad());
    }
    u64::try_from(scaled / tens).ok().and_then(T::from_number).ok_or_else(bad)
}

/// In the largest unit in which it is a whole number.
fn show<T: Quantity>(value: T, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let number = value.number();
    let divides = |&&(_, scale): &&(&str, u64)| number.is_multiple_of(scale);
    let fits = |&&(_, scale): &&(&str, u64)| number >= scale || number == 0 && scale == 1;
    let unit = T::UNITS.iter().filter(fits).find(divides);
    let (unit, scale) = unit.expect("the smallest unit divides everything");
    if unit.is_empty() { write!(f, "{number}") } else { write!(f, "{} {unit}", number / scale) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!("250 ms".parse(), Ok(Span::millis(250)));
        assert_eq!("1.5s".parse(), Ok(Span::millis(1500)));
        assert_eq!("64 KiB".parse(), Ok(Size(65536)));
        assert_eq!("10 Mbit/s".parse(), Ok(Rate(10_000_000)));
        assert_eq!("0.5 %".parse(), Ok(Share(5_000)));
        assert_eq!("0".parse(), Ok(Span(0)));
        assert_eq!("10m".parse(), "10 min".parse::<Span>(), "as other tools have it");
        assert_eq!("1 s..5 s".parse(), Ok(Range { least: Span::seconds(1), most: Span::seconds(5) }));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for number in [0, 1, 999, 1_000, 1_500_000, 65_536, 90_000_000_000, u64::MAX] {
            let span = Span(number.min(MOST_NANOSECONDS));
            assert_eq!(span.to_string().parse(), Ok(span));
            assert_eq!(Size(number).to_string().parse(), Ok(Size(number)));
            assert_eq!(Rate(number).to_string().parse(), Ok(Rate(number)));
        }
        assert_eq!(Share(123).to_string().parse(), Ok(Share(123)));
        assert_eq!(Span::millis(1500).to_string(), "1500 ms");
    }

    #[test]
    fn nonsense_is_told_with_an_example() {
        for text in
            ["", "fast", "3", "-1 s", "1 lightyear", "0.0000000001 s", "99999999999 h", "1001 h", "1..2 s"]
        {
            let error = text.parse::<Range<Span>>().unwrap_err().to_string();
            assert!(error.contains("write it like"), "{text}: {error}");
        }
        assert!("5 s..1 s".parse::<Range<Span>>().unwrap_err().to_string().contains("smaller one first"));
    }
}
