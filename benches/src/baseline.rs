//! What the engine and links cost, held against what they cost before: counts only, which no neighbour disturbs.
//!
//! In: a file of counts, which is kept with the code. Out: each count beside its own of before, and whether any is more
//! than it may be.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use towline_sim::output;

use crate::figures::{self, Figure};
use crate::instructions::{self, Row};
use crate::muxer::Name;
use crate::report;
use crate::stats::short;

/// How much more something may cost: three in a hundred.
const MORE: f64 = 1.03;

/// How much more what is near nothing may cost besides: of bytes of heap, and of bytes for 16 KiB.
const A_BYTE: f64 = 1.0;
const HARDLY_A_BYTE: f64 = 0.01;

/// Over how many streams, sessions and links what is idle is counted.
const IDLE: usize = 1000;

/// What was counted, and with what: another compiler, or another valgrind, gives other counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The compiler, and valgrind.
    pub made_with: String,
    /// The counts.
    pub counts: Vec<Count>,
}

/// Something that was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// What.
    pub what: String,
    /// How much.
    pub value: f64,
    /// In what.
    pub unit: String,
}

/// A count beside that of before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// What, and in what.
    pub what: String,
    /// Before, if it was counted.
    pub before: Option<f64>,
    /// Now, if it is counted.
    pub now: Option<f64>,
    /// Whether it is no more than it may be, and was counted both times.
    pub holds: bool,
}

impl Count {
    fn new(what: String, value: f64, unit: &str) -> Self {
        // What is beyond that is noise in a file that people compare.
        let value = (value * 1e4).round() / 1e4;
        Self { what, value, unit: unit.to_owned() }
    }

    /// The most that may be counted: no allocation more, and three in a hundred of anything else.
    fn most(&self) -> f64 {
        match &self.unit[..] {
            unit if unit.starts_with("allocations") => self.value,
            "B of heap" => self.value * MORE + A_BYTE,
            unit if unit.ends_with("16 KiB") => self.value * MORE + HARDLY_A_BYTE,
            _ => self.value * MORE,
        }
    }
}

/// Counts what the project's own code costs.
///
/// # Errors
///
/// There is no valgrind, or something could not be counted.
pub fn count() -> anyhow::Result<Baseline> {
    let counted = instructions::count(&[Name::Towline, Name::TowlineEngine])?;
    if !counted.missing.is_empty() {
        bail!("not everything could be counted: {}", counted.missing.join("; "));
    }
    let mut counts: Vec<_> = counted.rows.iter().flat_map(instructions_of).collect();
    counts.extend(
        figures::measure(IDLE)
            .into_iter()
            .map(|Figure { what, when, value, unit, .. }| Count::new(format!("{what}: {when}"), value, unit)),
    );
    let compiler = option_env!("TOWLINE_BENCH_RUSTC").unwrap_or("an unknown compiler");
    let made_with = format!("{compiler}, {}", instructions::valgrind()?);
    Ok(Baseline { made_with, counts })
}

fn instructions_of(row: &Row) -> Vec<Count> {
    let Row { muxer, bulk, bulk_64, echo, open_close, open_close_64 } = row;
    let counts = [
        ("16 KiB", bulk),
        ("16 KiB, one of 64 streams", bulk_64),
        ("echo of 1 KiB", echo),
        ("open and close", open_close),
        ("open and close, one of 64 streams", open_close_64),
    ];
    let name = muxer.text();
    let counted = |(what, count): (&str, &Option<u64>)| {
        count.map(|count| Count::new(format!("{name}: {what}"), count as f64, "instructions"))
    };
    counts.into_iter().filter_map(counted).collect()
}

/// Reads what was counted before.
///
/// # Errors
///
/// The file is not there, or holds something else.
pub fn read(file: &Path) -> anyhow::Result<Baseline> {
    let name = file.display();
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{name} is not there: --bless writes it, from what is counted now")
        }
        text => text.with_context(|| format!("cannot read {name}"))?,
    };
    serde_json::from_str(&text).with_context(|| format!("{name} holds no counts: --bless writes it anew"))
}

/// Writes what is counted now.
///
/// # Errors
///
/// It cannot be written.
pub fn write(file: &Path, counted: &Baseline) -> anyhow::Result<()> {
    output::write(file, (serde_json::to_string_pretty(counted)? + "\n").as_bytes())
}

/// Holds what is counted now against what was before.
pub fn compare(before: &[Count], now: &[Count]) -> Vec<Compared> {
    let mut all: BTreeMap<String, [Option<&Count>; 2]> = BTreeMap::new();
    for (at, counts) in [before, now].into_iter().enumerate() {
        for count in counts {
            all.entry(format!("{}, {}", count.what, count.unit)).or_default()[at] = Some(count);
        }
    }
    let compared = |(what, [before, now]): (String, [Option<&Count>; 2])| {
        let holds = before.zip(now).is_some_and(|(before, now)| now.value <= before.most());
        let value = |count: Option<&Count>| count.map(|count| count.value);
        Compared { what, before: value(before), now: value(now), holds }
    };
    all.into_iter().map(compared).collect()
}

/// What to say where not everything holds.
pub fn advice(before: &Baseline, now: &Baseline) -> String {
    let and_why = if before.made_with == now.made_with {
        String::new()
    } else {
        format!(", perhaps since this is {}, and that was {}", now.made_with, before.made_with)
    };
    format!("it costs more than it may{and_why}; if that is meant, `towline-bench baseline --bless`")
}

/// Prints how they compare.
///
/// # Errors
///
/// They cannot be written as JSON.
pub fn print(all: &[Compared], json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(&all);
    }
    let mut table = report::table(["COUNT", "BEFORE", "NOW", "CHANGE", ""], 1);
    for Compared { what, before, now, holds } in all {
        let value = |value: &Option<f64>| value.map_or("-".into(), short);
        let change = before.zip(*now).filter(|(before, _)| *before > 0.0);
        let change =
            change.map_or(String::new(), |(before, now)| format!("{:+.1} %", (now / before - 1.0) * 100.0));
        let verdict = match (before, now) {
            (None, _) => "is new: --bless",
            (_, None) => "is gone: --bless",
            _ if *holds => "",
            _ => "MORE THAN IT MAY BE",
        };
        table.add_row([what, &value(before), &value(now), &change, verdict]);
    }
    println!("{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: [(&str, f64, &str); 3]) -> Vec<Count> {
        values.into_iter().map(|(what, value, unit)| Count::new(what.to_owned(), value, unit)).collect()
    }

    #[test]
    fn three_in_a_hundred_more_is_too_much_and_so_is_any_allocation() {
        let before = counts([
            ("echo", 1000.0, "instructions"),
            ("bulk", 0.5, "allocations / 16 KiB"),
            ("bulk", 0.0, "B allocated / 16 KiB"),
        ]);
        let holds = |now: [f64; 3]| {
            let mut counts = before.clone();
            counts.iter_mut().zip(now).for_each(|(count, now)| count.value = now);
            compare(&before, &counts).into_iter().filter(|it| !it.holds).map(|it| it.what).collect::<Vec<_>>()
        };
        assert!(holds([1030.0, 0.5, 0.0]).is_empty());
        assert!(holds([10.0, 0.0, 0.0]).is_empty());
        assert_eq!(holds([1031.0, 0.5, 0.0]), ["echo, instructions"]);
        assert_eq!(holds([1000.0, 0.5001, 0.0]), ["bulk, allocations / 16 KiB"]);
        assert!(holds([1000.0, 0.5, 0.009]).is_empty());
        assert_eq!(holds([1000.0, 0.5, 0.1]), ["bulk, B allocated / 16 KiB"]);
    }

    #[test]
    fn what_is_new_or_gone_has_to_be_blessed() {
        let before = counts([("a", 1.0, "B"), ("b", 1.0, "B"), ("c", 1.0, "B")]);
        let holds = |before: &[Count], now: &[Count]| compare(before, now).iter().all(|it| it.holds);
        assert!(holds(&before, &before));
        assert!(!holds(&before[1..], &before) && !holds(&before, &before[1..]));
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written_and_nothing_else_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("baseline.json");
        let said = |file: &Path| read(file).expect_err("no counts").to_string();
        assert!(said(&file).contains("--bless writes it"), "{}", said(&file));
        let counts = counts([("a", 1.0, "B"), ("b", 0.123_456, "B"), ("c", 1e9, "instructions")]);
        let counted = Baseline { made_with: "rustc 1, valgrind-3".into(), counts };
        write(&file, &counted).expect("it can be written");
        assert_eq!(read(&file).expect("it was written"), counted);
        std::fs::write(&file, "{}").expect("it can be written");
        assert!(said(&file).contains("holds no counts"), "{}", said(&file));
    }
}
