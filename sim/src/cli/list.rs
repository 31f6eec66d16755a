//! `list`: the scenarios, or what each backend supports.

use std::process::ExitCode;

use clap::Args;

use crate::say::say;
use crate::scenario::{Backend, support_table};
use crate::scenarios;
use crate::table::table;

/// Show the scenarios that come along
#[derive(Args, Debug)]
pub struct List {
    /// Show what each backend supports instead, as a table for the docs
    #[arg(long)]
    support: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl List {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// If a scenario is malformed.
    pub fn execute(&self) -> anyhow::Result<ExitCode> {
        if self.support {
            print!("{}", support());
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = table(&["scenario", "backends", "story"]);
        let mut entries = Vec::new();
        for name in scenarios::names() {
            let Some(scenario) = scenarios::named(name) else { continue };
            let scenario = scenario?;
            let backends: Vec<_> = scenario.backends().iter().map(Backend::to_string).collect();
            let story = scenario.story.split_whitespace().collect::<Vec<_>>().join(" ");
            let first = story.split_inclusive(". ").next().unwrap_or_default().trim().to_owned();
            rows.add_row([name.to_owned(), backends.join(", "), first]);
            entries.push(serde_json::json!({ "name": name, "backends": backends, "story": story }));
        }
        if self.json {
            say!("{}", serde_json::to_string(&entries)?);
        } else {
            say!("{rows}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The table of the docs.
pub(crate) fn support() -> String {
    let mut text = String::from("| what | `des` | `turmoil` |\n|---|---|---|\n");
    for (what, whys) in support_table() {
        let [des, turmoil] =
            whys.map(|why| if why.is_empty() { "yes".to_owned() } else { format!("no: {why}") });
        text.push_str(&format!("| {what} | {des} | {turmoil} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_same_table() {
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&support()), "sim/README.md should have this table:\n{}", support());
    }
}
