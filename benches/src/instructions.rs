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

/// Counts; nobody means all.
///
/// # Errors
///
/// There is no valgrind, or a muxer did not do its work under it.
pub fn count(muxers: &[Name]) -> anyhow::Result<Vec<Row>> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        bail!("valgrind is not installed, and nothing else counts instructions here (apt install valgrind)");
    }
    let muxers = if muxers.is_empty() { Name::value_variants() } else { muxers };
    let bar = report::progress(muxers.len() * Workload::value_variants().len());
    let mut rows = Vec::new();
    for &muxer in muxers {
        let count = |workload: Workload| {
            bar.set_message(format!("{} {}", muxer.text(), workload.text()));
            bar.inc(1);
            if workload.is_for(muxer) { each(muxer, workload).map(Some) } else { Ok(None) }
        };
        rows.push(Row {
            muxer,
            bulk: count(Workload::Bulk)?,
            bulk_64: count(Workload::Bulk64)?,
            echo: count(Workload::Echo)?,
            open_close: count(Workload::OpenClose)?,
            open_close_64: count(Workload::OpenClose64)?,
        });
    }
    bar.finish_and_clear();
    Ok(rows)
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
pub fn print(rows: &[Row], json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(&rows);
    }
    let head = ["INSTRUCTIONS", "BULK", "BULK-64", "ECHO", "OPEN-CLOSE", "OPEN-CLOSE-64"];
    let mut table = report::table(head, 1);
    for &Row { muxer, bulk, bulk_64, echo, open_close, open_close_64 } in rows {
        let cells = [bulk, bulk_64, echo, open_close, open_close_64]
            .map(|count| count.map_or("-".into(), |count| count.to_string()));
        table.add_row([muxer.text()].into_iter().chain(cells));
    }
    println!("{table}");
    Ok(())
}
