//! Results on the standard output: a table for people, or JSON for programs.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tempfile::NamedTempFile;

/// Prints `result` as JSON.
///
/// # Errors
///
/// The result cannot be written as JSON.
pub fn json(result: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(result)?);
    Ok(())
}

/// Writes a file: under another name first, so that nobody ever sees a half of it.
///
/// # Errors
///
/// It cannot be written.
pub fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", file.display());
    let mut beside = beside(file).with_context(context)?;
    beside.write_all(text.as_bytes()).with_context(context)?;
    beside.persist(file).map_err(|error| error.error).with_context(context)?;
    Ok(())
}

/// Makes sure that a file can be written, before the work that it is for.
///
/// # Errors
///
/// It cannot.
pub fn check_writable(file: &Path) -> anyhow::Result<()> {
    if file.is_dir() {
        bail!("cannot write {}: it is a directory", file.display());
    }
    beside(file).map(|_| ()).with_context(|| format!("cannot write {}", file.display()))
}

/// A file next to another one, which it is to become, with the mode that any new file has.
fn beside(file: &Path) -> std::io::Result<NamedTempFile> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mode = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().permissions(mode).tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// A table with this head. The columns after the first `left` hold numbers.
pub fn table<const N: usize>(head: [&str; N], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A bar on the standard error that counts to `length`, if somebody is looking.
pub fn progress(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}").expect("the template is valid");
    let bar = ProgressBar::new(length as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
