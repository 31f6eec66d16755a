//! The results, for people.

use super::{Results, Row, Times, Transfer};
use crate::report;
use crate::stats::Spread;

/// Prints them.
///
/// # Errors
///
/// They cannot be written as JSON.
pub fn print(results: &Results, json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(results);
    }
    let Results { bytes, rounds, rows, missing } = results;
    transfers("BULK, 1 STREAM", rows, |row| Some(row.bulk));
    transfers("BULK, 64 STREAMS", rows, |row| row.bulk_64);
    times("ECHO, 1 KiB", rows, |row| Some(row.echo));
    times("ECHO BESIDE BULK", rows, |row| row.echo_beside_bulk);
    times("FIRST BYTE, COLD", rows, |row| Some(row.cold));
    times("FIRST BYTE, WARM", rows, |row| row.warm);
    println!("{bytes} bytes a transfer, {rounds} rounds: median (min..max); GB are 10^9 bytes");
    missing.iter().for_each(|missing| println!("missing: {missing}"));
    Ok(())
}

fn transfers(title: &str, rows: &[Row], transfer: fn(&Row) -> Option<Transfer>) {
    let head = [title, "GB/s", "CPU s/GB", "SENDER", "RECEIVER"];
    table(head, rows, |row| {
        let Transfer { gb_per_s, cpu_s_per_gb, sender_cpu_s_per_gb, receiver_cpu_s_per_gb } = transfer(row)?;
        Some([gb_per_s, cpu_s_per_gb, sender_cpu_s_per_gb, receiver_cpu_s_per_gb])
    });
}

fn times(title: &str, rows: &[Row], times: fn(&Row) -> Option<Times>) {
    let head = [title, "p50 us", "p99 us", "CPU us, NEAR", "FAR"];
    table(head, rows, |row| {
        let Times { p50_us, p99_us, near_cpu_us, far_cpu_us } = times(row)?;
        Some([p50_us, p99_us, near_cpu_us, far_cpu_us])
    });
}

fn table(head: [&str; 5], rows: &[Row], cells: impl Fn(&Row) -> Option<[Spread; 4]>) {
    let mut table = report::table(head, 1);
    for row in rows {
        if let Some(cells) = cells(row) {
            let cells = cells.map(|cell| cell.to_string());
            table.add_row([row.contender.text()].into_iter().chain(cells));
        }
    }
    println!("{table}\n");
}
