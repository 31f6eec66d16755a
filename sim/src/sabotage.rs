//! Proves that the explorer, and random operations, can fail: arms each known bug in turn and looks for it.
//!
//! In: nothing. Out: a table of who found what, and how fast. Each bug is armed in a process of its own, since arming is
//! for the whole of it.

use std::process::{Command, ExitCode};
use std::time::Duration;

use comfy_table::Table;
use serde::{Deserialize, Serialize};
use towline_engine::sabotage::{Bug, arm};
use towline_model::{Checked, Op, config};

use crate::explore::{self, broken, clock};

/// How a bug was found.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// The scope, or the number of the case.
    at: String,
    seconds: f64,
    what: String,
}

/// Who found a bug.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Verdict {
    explorer: Option<Found>,
    random: Option<Found>,
}

/// How many states of each scope are walked, and how many random cases are tried, before a bug counts as missed.
const STATES: usize = 1_500_000;
const CASES: u64 = 20_000;

/// Arms each bug in a process of its own, and prints the table.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut table = Table::new();
    table.set_header(["bug", "explorer", "random operations"]);
    let mut missed = 0;
    for bug in Bug::ALL {
        eprintln!("{bug:?}");
        let number = (bug as u8).to_string();
        let output = Command::new(std::env::current_exe()?).args(["hunt", &number]).output()?;
        let verdict: Verdict = serde_json::from_slice(&output.stdout)?;
        missed += u32::from(verdict.explorer.is_none() && verdict.random.is_none());
        let cell = |found: Option<Found>| {
            found.map_or("-".into(), |f| format!("{} in {:.1} s: {}", f.at, f.seconds, f.what))
        };
        table.add_row([format!("{bug:?}"), cell(verdict.explorer), cell(verdict.random)]);
    }
    println!("{table}");
    println!("{missed} of {} were found by nobody", Bug::ALL.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Arms one bug, and prints who finds it.
pub(crate) fn hunt(number: u8) -> anyhow::Result<()> {
    let bug = Bug::ALL.into_iter().find(|bug| *bug as u8 == number);
    arm(bug.ok_or_else(|| anyhow::anyhow!("there is no bug {number}"))?);
    let verdict = Verdict { random: by_random_operations(), explorer: by_the_explorer() };
    println!("{}", serde_json::to_string(&verdict)?);
    Ok(())
}

fn by_the_explorer() -> Option<Found> {
    let start = clock();
    let found = explore::first_broken(STATES)?;
    Some(Found {
        at: format!("{}, {} states", found.0, found.1),
        seconds: start.elapsed().as_secs_f64(),
        what: found.2.to_owned(),
    })
}

fn by_random_operations() -> Option<Found> {
    let start = clock();
    for case in 0..CASES {
        let mut seed = case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let outcome = broken::catch(|| {
            let mut checked = Checked::new(&config(), true);
            for _ in 0..250 {
                checked.apply(Op::decode(five(&mut seed)));
            }
            checked.settle();
        });
        if let Err(broken) = outcome {
            let seconds = start.elapsed().as_secs_f64();
            return Some(Found { at: format!("case {case}"), seconds, what: broken.property.to_owned() });
        }
        if start.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    None
}

/// Five random bytes (xorshift64).
fn five(seed: &mut u64) -> [u8; 5] {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    let [a, b, c, d, e, ..] = seed.to_le_bytes();
    [a, b, c, d, e]
}
