//! `report`: one HTML file that shows a run, and needs nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::output;
use crate::say::say;

/// Show a trace as one HTML file that needs no network
#[derive(Args, Debug)]
pub struct Report {
    /// A trace that `run --trace` or `replay --trace` has written
    trace: PathBuf,
    /// Where to write it [default: next to it, with `.html`]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const PAGE: &str = include_str!("report.html");

impl Report {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If the trace cannot be read, or the page cannot be written.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        let out = self.out.clone().unwrap_or_else(|| self.trace.with_extension("html"));
        output::check_different(("TRACE", Some(&self.trace)), ("--out", Some(&out)))?;
        output::check_writable(Some(&out))?;
        let trace = super::diff::trace(&self.trace)?;
        let data = format!(
            "{{\"hash\":{},\"plan\":{},\"events\":[{}]}}",
            serde_json::to_string(&trace.of.hash)?,
            serde_json::to_string(&trace.of.plan)?,
            trace.lines.join(",")
        );
        // Within a script, only what begins so could end it, or keep it from its end.
        let page = PAGE.replacen("{{DATA}}", &data.replace('<', "\\u003c"), 1);
        output::write(&out, page.as_bytes())?;
        say!("{}", out.display());
        Ok(ExitCode::SUCCESS)
    }
}
