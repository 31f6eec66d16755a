//! Runs a plan, and tells what came of it.
//!
//! In: a [`Plan`]. Out: an [`Outcome`], and the events to whoever wants them. Both backends see to the same properties and
//! emit the same events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use towline_engine::{Config, Side};
use towline_transports::qlog::Recorded;

use crate::corpus::Calls;
use crate::event::{Event, TraceHash, What};
use crate::property::{Broken, Properties};
use crate::scenario::{Backend, Plan};

/// Where a run's events go, and what is known of its properties.
#[derive(Debug, Default)]
pub struct Sink {
    hash: TraceHash,
    count: u64,
    lines: Option<Vec<String>>,
    /// What holds and what does not.
    pub properties: Properties,
    /// Measured numbers, by name. Not part of the hash.
    pub figures: BTreeMap<String, u64>,
    /// Who hears every call of a session, if anybody does.
    calls: Option<Calls>,
    /// Who looks at every event, if anybody does.
    watch: Option<Watch>,
}

/// A property's name, and what is wrong with it, if anything is.
pub type Looked = (&'static str, Result<(), String>);

/// Looks at events for a property of its own.
struct Watch(Box<Look>);

type Look = dyn FnMut(&Event) -> Option<Looked> + Send;

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Sink {
    /// One that keeps no events.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that keeps them.
    pub fn keeping() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// One that tells every call of a session.
    pub fn hearing(calls: Calls) -> Self {
        Self { calls: Some(calls), ..Self::default() }
    }

    /// Lets somebody look at every event as it happens, for a property that no scenario has. It returns what it has looked at,
    /// if the event says anything of it. A breach is told as any other, and is an event, so that the trace has another hash. A
    /// second watch replaces the first.
    #[must_use]
    pub fn watched_by(mut self, watch: impl FnMut(&Event) -> Option<Looked> + Send + 'static) -> Self {
        self.watch = Some(Watch(Box::new(watch)));
        self
    }

    /// A new session of the discrete-event backend's. Both ends have the same name.
    pub fn session(&self, side: Side, config: Config, name: &str) -> Recorded {
        match &self.calls {
            Some(calls) => calls.session(side, config, name),
            None => Recorded::unheard(side, config),
        }
    }

    /// Something happened.
    pub fn emit(&mut self, time: u64, who: &str, what: What) {
        let event = Event { time, who: who.to_owned(), what };
        let json = event.to_json();
        self.hash.add(&json);
        self.count += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(json);
        }
        // Who looks is not told of its own breaches.
        if let Some(mut watch) = self.watch.take() {
            if let Some((name, verdict)) = (watch.0)(&event) {
                self.judge(name, verdict, time, who);
            }
            self.watch = Some(watch);
        }
    }

    /// Looks at a property that must hold. A breach is an event.
    pub fn always(&mut self, name: &str, holds: bool, time: u64, who: &str, detail: impl FnOnce() -> String) {
        let mut breach = None;
        self.properties.always(name, holds, || {
            let broken = Broken { time, who: who.to_owned(), detail: detail() };
            breach = Some(broken.clone());
            broken
        });
        if let Some(Broken { detail, .. }) = breach {
            self.emit(time, who, What::Broken { property: name.to_owned(), detail });
        }
    }

    /// As [`always`](Self::always), with what a check has found: nothing, or what is wrong.
    pub fn judge(&mut self, name: &str, verdict: Result<(), String>, time: u64, who: &str) {
        let wrong = verdict.err();
        self.always(name, wrong.is_none(), time, who, || wrong.unwrap_or_default());
    }

    /// Something that should happen sometimes did, or did not.
    pub fn sometimes(&mut self, name: &str, happens: bool) {
        debug_assert!(crate::expect::SOMETIMES.contains(&name), "a scenario could not ask for {name}");
        self.properties.sometimes(name, happens);
    }

    /// The larger of what was measured under this name.
    pub fn most(&mut self, name: &str, value: u64) {
        let most = self.figures.entry(name.to_owned()).or_default();
        *most = (*most).max(value);
    }

    /// Adds to what was counted under this name.
    pub fn count(&mut self, name: &str, more: u64) {
        *self.figures.entry(name.to_owned()).or_default() += more;
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of all events: see [`TraceHash`].
    pub hash: String,
    /// How many events there were.
    pub events: u64,
    /// How long the world existed, in nanoseconds.
    pub simulated: u64,
    /// How it ended.
    pub ended: Ended,
    /// What held and what did not.
    pub properties: Properties,
    /// Measured numbers, by name.
    pub figures: BTreeMap<String, u64>,
    /// Who was waiting for what, if it did not come to rest.
    pub waiting: Vec<String>,
    /// The events, as JSON, if they were kept.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All was done.
    Done,
    /// The limit of simulated time.
    SimulatedLimit,
    /// The limit of real time. Where it ends is not reproducible.
    WallLimit,
    /// The product has panicked. What was not measured by then says nothing.
    Panicked,
}

/// How a backend's run ended: what it returns.
#[derive(Clone, Debug)]
pub struct Rest {
    /// How.
    pub ended: Ended,
    /// When, in nanoseconds of simulated time.
    pub simulated: u64,
    /// Who was waiting for what.
    pub waiting: Vec<String>,
}

/// Runs a plan.
///
/// # Errors
///
/// If the plan cannot be run at all.
pub fn run(plan: &Plan, mut sink: Sink) -> anyhow::Result<Outcome> {
    let rest = match plan.backend {
        Backend::Des => crate::des::run(plan, &mut sink)?,
        Backend::Turmoil => crate::turmoil::run(plan, &mut sink)?,
    };
    // What a scenario expects is an event of its own if it fails.
    crate::expect::check(plan, &rest, &mut sink);
    Ok(Outcome {
        hash: sink.hash.to_string(),
        events: sink.count,
        simulated: rest.simulated,
        ended: rest.ended,
        properties: sink.properties,
        figures: sink.figures,
        waiting: rest.waiting,
        lines: sink.lines.unwrap_or_default(),
    })
}
