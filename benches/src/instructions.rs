//! How many instructions a thing takes: the program runs itself under callgrind, for two numbers of times, and the
//! difference is what the rest of them took.
//!
//! A long memcpy runs as `rep movsb` there, which callgrind counts as an instruction a byte: 16 KiB copied once are
//! 16,384 instructions.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::muxer::Name;
use crate::report;
use crate::work::Workload;

/// The instructions of one muxer; nothing where it is not for that.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Whose.
    pub muxer: Name,
    /// For 16 KiB on one stream.
    pub bulk: Option<u64>,
    /// For 16 KiB on one of 64 streams.
    pub bulk_64: Option<u64>,
    /// For 1 KiB there and back.
    pub echo: Option<u64>,
    /// For a stream: opened, a byte each way, closed.
    pub open_close: Option<u64>,
    /// For one of 64 streams that do so at a time.
    pub open_close_64: Option<u64>,
}

/// What was counted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// A row for each muxer.
    pub rows: Vec<Row>,
    /// What could not be counted, and why.
    pub missing: Vec<String>,
}

/// Counts; nobody means all.
///
/// # Errors
///
/// There is no valgrind.
pub fn count(muxers: &[Name]) -> anyhow::Result<Results> {
    valgrind()?;
    let muxers = if muxers.is_empty() { Name::value_variants() } else { muxers };
    let bar = report::progress(muxers.len() * Workload::value_variants().len());
    let mut results = Results::default();
    for &muxer in muxers {
        let mut count = |workload: Workload| {
            let what = format!("{} {}", muxer.text(), workload.text());
            bar.set_message(what.clone());
            bar.inc(1);
            let count = workload.is_for(muxer).then(|| each(muxer, workload))?;
            count.map_err(|error| results.missing.push(format!("{what}: {error:#}"))).ok()
        };
        let [bulk, bulk_64] = [Workload::Bulk, Workload::Bulk64].map(&mut count);
        let echo = count(Workload::Echo);
        let [open_close, open_close_64] = [Workload::OpenClose, Workload::OpenClose64].map(&mut count);
        results.rows.push(Row { muxer, bulk, bulk_64, echo, open_close, open_close_64 });
    }
    bar.finish_and_clear();
    Ok(results)
}

/// Which valgrind there is.
///
/// # Errors
///
/// There is none.
pub(crate) fn valgrind() -> anyhow::Result<String> {
    match Command::new("valgrind").arg("--version").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => bail!(
            "valgrind is not installed, and nothing else counts instructions here (apt install valgrind)"
        ),
    }
}

/// How many instructions one time takes.
fn each(muxer: Name, workload: Workload) -> anyhow::Result<u64> {
    let few = match workload {
        Workload::Bulk | Workload::Bulk64 => 1024,
        Workload::Echo | Workload::OpenClose | Workload::OpenClose64 => 1000,
    };
    let many = 3 * few;
    let [few_took, many_took] = [few, many].map(|times| instructions(muxer, workload, times));
    Ok((many_took? - few_took?) / (many - few))
}

fn instructions(muxer: Name, workload: Workload, times: u64) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?).arg("once");
    command.args([muxer.text(), workload.text(), times.to_string()]);
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?} failed: {said}");
    }
    let total = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, total) = total.with_context(|| format!("{command:?} collected nothing: {said}"))?;
    Ok(total.trim().parse()?)
}

/// Prints them.
///
/// # Errors
///
/// They cannot be written as JSON.
pub fn print(results: &Results, json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(results);
    }
    let head = ["INSTRUCTIONS", "BULK", "BULK-64", "ECHO", "OPEN-CLOSE", "OPEN-CLOSE-64"];
    let mut table = report::table(head, 1);
    for &Row { muxer, bulk, bulk_64, echo, open_close, open_close_64 } in &results.rows {
        let cells = [bulk, bulk_64, echo, open_close, open_close_64]
            .map(|count| count.map_or("-".into(), |count| count.to_string()));
        table.add_row([muxer.text()].into_iter().chain(cells));
    }
    println!("{table}");
    results.missing.iter().for_each(|missing| println!("missing: {missing}"));
    Ok(())
}
