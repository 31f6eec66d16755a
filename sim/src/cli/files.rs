//! Files: scenarios, failures and traces.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use towline_transports::qlog;

use super::trace_line;
use crate::engine_log::EngineLog;
use crate::expect;
use crate::output;
use crate::run::Outcome;
use crate::scenario::{Backend, FORMAT, Plan, Scenario, parse_for};
use crate::scenarios;

/// A scenario that comes along, by its name, or one in a file.
pub(super) fn scenario(name: &str) -> anyhow::Result<Scenario> {
    scenario_for(name, None)
}

/// The same, for a backend that somebody has chosen: what it does not have is told with file and line.
pub(super) fn scenario_for(name: &str, backend: Option<Backend>) -> anyhow::Result<Scenario> {
    if let Some(scenario) = scenarios::named_for(name, backend) {
        return Ok(scenario?);
    }
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| extension != "toml") {
        let known: Vec<_> = scenarios::names().collect();
        bail!("no scenario `{name}`; there are {}, or the path of a .toml file", known.join(", "));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Ok(parse_for(name, &text, backend)?)
}

/// The plan of a scenario.
pub(super) fn plan(scenario: &Scenario, seed: u64, backend: Option<Backend>) -> anyhow::Result<Plan> {
    scenario.expand(seed, backend).with_context(|| format!("scenario {}", scenario.name))
}

/// A run that failed: what to run again, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    /// See [`FORMAT`].
    pub(super) format: u32,
    /// Which property broke first.
    pub(super) property: String,
    pub(super) detail: String,
    pub(super) hash: String,
    pub(super) plan: Plan,
}

impl Failure {
    /// Of a run in which something broke.
    pub(super) fn new(plan: Plan, outcome: &Outcome) -> Option<Self> {
        let property = outcome.properties.first.clone()?;
        let broken = outcome.properties.always.get(&property)?.broken.as_ref()?;
        let detail = format!("{} at {}: {}", broken.who, seconds(broken.time), broken.detail);
        Some(Self { format: FORMAT, property, detail, hash: outcome.hash.clone(), plan })
    }
}

/// The first record of a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    file_schema: String,
    serialization_format: String,
    qlog_version: String,
    qlog_format: String,
    pub(super) title: String,
    trace: qlog::Trace,
    pub(super) towline: Traced,
}

/// The version of traces that this program writes and reads.
const TRACE_FORMAT: u32 = 3;

/// What a trace is of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Traced {
    pub(super) format: u32,
    pub(super) hash: String,
    pub(super) plan: Plan,
}

/// A trace: what it is of, and the events, each as JSON.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) of: Traced,
    pub(super) lines: Vec<String>,
}

/// What there is to replay.
pub(super) enum Replayable {
    Failure(Box<Failure>),
    Trace(Box<Trace>),
    /// The event log of a session.
    Log(Box<EngineLog>),
}

const SEPARATOR: char = '\u{1e}';

/// Writes a trace as a JSON text sequence.
pub(super) fn write_trace(path: &Path, plan: &Plan, outcome: &Outcome) -> anyhow::Result<()> {
    let head = Head {
        file_schema: "urn:ietf:params:qlog:file:sequential".into(),
        serialization_format: "application/qlog+json-seq".into(),
        qlog_version: "0.3".into(),
        qlog_format: "JSON-SEQ".into(),
        title: format!("{} with seed {}", plan.scenario, plan.seed),
        trace: qlog::Trace {
            vantage_point: qlog::VantagePoint { name: plan.scenario.clone(), kind: "network".into() },
            common_fields: qlog::CommonFields {
                time_format: "relative".into(),
                reference_time: 0,
                protocol_type: vec!["QMUX".into()],
            },
            event_schemas: vec!["urn:towline:qlog:events".into()],
        },
        towline: Traced { format: TRACE_FORMAT, hash: outcome.hash.clone(), plan: plan.clone() },
    };
    let mut text = format!("{SEPARATOR}{}\n", serde_json::to_string(&head)?);
    for line in &outcome.lines {
        text.extend([SEPARATOR]);
        text.push_str(&trace_line::to_file(line)?);
        text.push('\n');
    }
    output::write(path, text.as_bytes())
}

/// Reads a failure, a trace or the event log of a session.
pub(super) fn read(path: &Path) -> anyhow::Result<Replayable> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    if text.starts_with(SEPARATOR) {
        if let Some(log) = engine_log(path, &text)? {
            return Ok(Replayable::Log(Box::new(log)));
        }
        return Ok(Replayable::Trace(Box::new(read_trace(path, &text)?)));
    }
    let what = "it is neither a failure nor a trace of this program";
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("{name}: {what}"))?;
    check_format(path, &value["format"], FORMAT)?;
    // Before it is read, since one of another version may have other fields.
    check_format(path, &value["plan"]["format"], FORMAT)?;
    let failure: Failure = serde_json::from_value(value).with_context(|| format!("{name}: {what}"))?;
    check_expected(path, &failure.plan)?;
    Ok(Replayable::Failure(Box::new(failure)))
}

/// The event log of a session, if the file is one.
fn engine_log(path: &Path, text: &str) -> anyhow::Result<Option<EngineLog>> {
    let head = text.split([SEPARATOR, '\n']).nth(1).unwrap_or_default();
    let is_one = serde_json::from_str(head).is_ok_and(|head| EngineLog::is_one(&head));
    if !is_one {
        return Ok(None);
    }
    Ok(Some(EngineLog::read(text).with_context(|| path.display().to_string())?))
}

fn read_trace(path: &Path, text: &str) -> anyhow::Result<Trace> {
    let mut records = text.split(SEPARATOR).skip(1).map(|record| record.trim_end_matches('\n'));
    let head = records.next().unwrap_or_default();
    let value: serde_json::Value =
        serde_json::from_str(head).with_context(|| format!("{}: the trace has no head", path.display()))?;
    check_format(path, &value["towline"]["format"], TRACE_FORMAT)?;
    check_format(path, &value["towline"]["plan"]["format"], FORMAT)?;
    let head: Head =
        serde_json::from_value(value).with_context(|| format!("{}: its head", path.display()))?;
    check_expected(path, &head.towline.plan)?;
    let read = |(index, record): (usize, &str)| {
        let line = trace_line::from_file(record);
        line.with_context(|| format!("{}: line {} is no event of a trace", path.display(), index + 2))
    };
    Ok(Trace { of: head.towline, lines: records.enumerate().map(read).collect::<Result<_, _>>()? })
}

/// A plan that was written by hand may ask for what nobody looks at.
fn check_expected(path: &Path, plan: &Plan) -> anyhow::Result<()> {
    match expect::unheard_of(&plan.expect.sometimes) {
        Some((_, text)) => bail!("{}: {text}", path.display()),
        None => Ok(()),
    }
}

fn check_format(path: &Path, format: &serde_json::Value, ours: u32) -> anyhow::Result<()> {
    match format.as_u64() {
        Some(format) if format == u64::from(ours) => Ok(()),
        Some(other) => bail!(
            "{}: it is of version {other}, and this program reads version {ours}: run the scenario and the seed again",
            path.display()
        ),
        None => bail!("{}: it is neither a failure nor a trace of this program", path.display()),
    }
}

/// Nanoseconds, in seconds, for people.
pub(super) fn seconds(nanos: u64) -> String {
    format!("{}.{:06} s", nanos / 1_000_000_000, nanos % 1_000_000_000 / 1_000)
}
