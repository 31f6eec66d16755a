//! `towline devices`.

use std::time::Duration;

use clap::Args;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;
use towline::Environment;
use towline::message::DeviceStatus;

use super::EndpointArgs;
use super::failure::Failure;
use super::output::print_line;

#[derive(Debug, Args)]
#[command(after_help = "\
Example, the devices that are offline, for a script:
  towline devices --json | jq -r '.[] | select(.online | not) | .device'")]
pub(crate) struct DevicesArgs {
    /// Print JSON: an array of objects, stable from version to version
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// A device, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    /// The device's ID.
    device: &'a str,
    online: bool,
    /// For how long it has been online, or offline.
    seconds: u64,
    /// Live tunnels.
    tunnels: u32,
    /// Where it connects from.
    address: &'a str,
    /// What it runs.
    agent: &'a str,
    /// How often another holder of its identity has taken its place, and how long ago that was last.
    takeovers: u32,
    last_takeover_seconds: Option<u64>,
}

pub(crate) async fn run(args: DevicesArgs, environment: Environment) -> Result<(), Failure> {
    let service = args.endpoint.service(environment)?;
    let devices = service.devices().await;
    service.close().await;
    let devices = devices?;
    let rows: Vec<_> = devices.iter().map(row).collect();
    if args.json {
        let json = serde_json::to_string_pretty(&rows);
        print_line(json.map_err(|error| Failure::internal(error.to_string()))?)?;
    } else if rows.is_empty() {
        print_line("no device has been here since this hub was started")?;
    } else {
        print_line(table(&rows).trim_fmt())?;
    }
    Ok(())
}

fn row(device: &DeviceStatus) -> Row<'_> {
    Row {
        device: &device.device,
        online: device.online,
        seconds: device.for_ms / 1000,
        tunnels: device.tunnels,
        address: &device.address,
        agent: &device.agent,
        takeovers: device.takeovers,
        last_takeover_seconds: device.last_takeover_ms.map(|millis| millis / 1000),
    }
}

fn table(rows: &[Row<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["DEVICE", "STATE", "FOR", "TUNNELS", "ADDRESS", "AGENT", "NOTE"]);
    for row in rows {
        let note = match (row.takeovers, row.last_takeover_seconds) {
            (0, _) | (_, None) => String::new(),
            (count, Some(ago)) => takeovers(count, ago),
        };
        table.add_row([
            row.device.to_owned(),
            if row.online { "online" } else { "offline" }.to_owned(),
            spell(row.seconds),
            row.tunnels.to_string(),
            // Both are the device's own words.
            row.address.escape_debug().to_string(),
            row.agent.escape_debug().to_string(),
            note,
        ]);
    }
    // Where the terminal is narrow, the note is broken: an ID or an address in pieces cannot be copied.
    let mut widths = [ColumnConstraint::ContentWidth; 7];
    if let Some(note) = widths.last_mut() {
        *note = ColumnConstraint::LowerBoundary(Width::Fixed(24));
    }
    table.set_constraints(widths);
    table
}

fn takeovers(count: u32, seconds_ago: u64) -> String {
    let ago = spell(seconds_ago);
    match count {
        1 => format!("identity held twice: taken over once, {ago} ago"),
        _ => format!("identity held twice: taken over {count} times, last {ago} ago"),
    }
}

/// A duration in its two largest units.
fn spell(seconds: u64) -> String {
    let duration = Duration::from_secs(seconds);
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [(0, "0s"), (61, "1m 01s"), (3_725, "1h 02m"), (90_000, "1d 01h")] {
            assert_eq!(spell(seconds), text);
        }
    }

    fn status(agent: &str) -> DeviceStatus {
        DeviceStatus {
            device: "press-7".into(),
            online: true,
            for_ms: 1000,
            tunnels: 2,
            address: "192.0.2.1:5".into(),
            agent: agent.into(),
            takeovers: 1,
            last_takeover_ms: Some(1000),
        }
    }

    #[test]
    fn a_device_cannot_play_tricks_on_the_terminal() {
        assert!(!table(&[row(&status("\x1b[31mred"))]).to_string().contains('\x1b'));
    }

    #[test]
    fn only_the_note_is_broken_to_fit_a_narrow_terminal() {
        for width in [0, 40, 80] {
            let status = status("towline/0.1.0");
            let mut table = table(&[row(&status)]);
            let text = table.set_width(width).to_string();
            assert!(text.contains("press-7  online  1s   2        192.0.2.1:5  towline/0.1.0"), "{text}");
            assert!(text.lines().count() < 6, "{text}");
        }
    }

    #[test]
    fn takeovers_are_counted_in_words() {
        assert_eq!(takeovers(1, 61), "identity held twice: taken over once, 1m 01s ago");
        assert_eq!(takeovers(2, 61), "identity held twice: taken over 2 times, last 1m 01s ago");
    }
}
