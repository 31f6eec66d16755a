//! The report's folder: it is there as a whole, or as it was before.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::page;
use super::results::Report;
use crate::process;

/// Everything, for programs.
const JSON: &str = "report.json";
/// A row a sample.
const CSV: &str = "samples.csv";
/// For people.
const HTML: &str = "index.html";

/// Where a report will be, and where it is until then: next to it, so that it can be renamed.
#[derive(Debug)]
pub struct Folder {
    out: PathBuf,
    partial: process::Folder,
}

/// Looks whether a report can be written to `out`.
///
/// # Errors
///
/// It cannot; or there is something there that is no report.
pub(super) fn prepare(out: &Path) -> anyhow::Result<Folder> {
    let shown = out.display();
    match fs::read_dir(out) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                if ![JSON, CSV, HTML].iter().any(|known| name == *known) {
                    let name = name.display();
                    bail!(
                        "{shown} holds {name}, which is no part of a report: name another folder with --out"
                    );
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{shown} is no folder for a report")),
    }
    let parent = match (out.file_name(), out.parent()) {
        (Some(_), Some(parent)) if parent != Path::new("") => parent,
        (Some(_), _) => Path::new("."),
        (None, _) => bail!("{shown} cannot be replaced by a report: name another folder with --out"),
    };
    let partial = fs::create_dir_all(parent).and_then(|()| process::Folder::within(parent, ".report-"));
    let partial = partial.with_context(|| format!("cannot write {shown}: name another folder with --out"))?;
    Ok(Folder { out: out.to_owned(), partial })
}

/// Writes a report.
pub(super) fn write(report: &Report, folder: Folder) -> anyhow::Result<()> {
    let Folder { out, mut partial } = folder;
    let json = serde_json::to_string(report)?;
    for (name, text) in [(JSON, &json), (CSV, &csv(report)), (HTML, &page::page(&json))] {
        let path = partial.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    replace(&partial, &out).with_context(|| {
        // What was measured for so long is not lost.
        let (at, out) = (partial.keep().display().to_string(), out.display());
        format!("cannot put the report at {out}; it is in {at}")
    })
}

/// Puts `partial` where `out` is.
fn replace(partial: &process::Folder, out: &Path) -> io::Result<()> {
    // Others may look at it, as at what they make themselves.
    let made = partial.path().join("report");
    fs::create_dir(&made)?;
    for name in [JSON, CSV, HTML] {
        fs::rename(partial.path().join(name), made.join(name))?;
    }
    let earlier = partial.path().join("earlier");
    match fs::rename(out, &earlier) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::rename(&made, out).inspect_err(|_| {
        // As it was before. If that fails as well, the first error is the one to tell.
        let _ = fs::rename(&earlier, out);
    })
}

/// All samples, a row each, and a row for what could not be measured. If not all turns were taken, the first one says so.
fn csv(report: &Report) -> String {
    let mut csv = String::from("profile,way,legs,workload,round,value,unit,note\n");
    let mut row = |fields: [&str; 8]| {
        let fields = fields.map(quoted).join(",");
        // A string takes everything.
        let _ = writeln!(csv, "{fields}");
    };
    if let Some(interrupted) = report.interrupted {
        row(["", "", "", "", "", "", "", &interrupted.to_string()]);
    }
    for line in &report.lines {
        for way in &line.ways {
            let legs = way.legs.to_string();
            for measured in &way.measured {
                let (name, unit) = (measured.workload.name(), measured.workload.unit().text());
                for (round, samples) in (1..).zip(&measured.rounds) {
                    for sample in samples {
                        let (round, value) = (i32::to_string(&round), sample.to_string());
                        row([&line.profile, &way.way, &legs, name, &round, &value, unit, ""]);
                    }
                }
            }
            let impossible = way.impossible.map(|why| format!("not measured: {why}"));
            let failed = way.failed.as_ref().map(|why| format!("failed: {why}"));
            for why in impossible.into_iter().chain(failed) {
                row([&line.profile, &way.way, &legs, "", "", "", "", &why]);
            }
        }
        for missing in &report.missing {
            let why = format!("missing: there is no {} ({})", missing.program, missing.install);
            row([&line.profile, missing.peer, "", "", "", "", "", &why]);
        }
    }
    csv
}

/// A field as in RFC 4180.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.into()
    }
}
