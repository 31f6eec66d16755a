//! Catches the event logs of the sessions that begin on this thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use towline_transports::qlog::TARGET;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Event, Metadata, Subscriber};

/// The logs, as long as it is there.
pub(crate) struct Logs {
    texts: Arc<Mutex<BTreeMap<u64, String>>>,
    guard: DefaultGuard,
}

impl Logs {
    pub(crate) fn start() -> Self {
        let texts = Arc::default();
        let guard = tracing::subscriber::set_default(Catcher { texts: Arc::clone(&texts) });
        Self { texts, guard }
    }

    /// Listens no more, for as long as what it returns is there.
    pub(crate) fn deafened(&self) -> DefaultGuard {
        tracing::subscriber::set_default(NoSubscriber::default())
    }

    /// Whether there is something like this in one of them.
    pub(crate) fn has(&self, what: &str) -> bool {
        self.texts.lock().unwrap().values().any(|text| text.contains(what))
    }

    /// The text of each log, in the order in which sessions began.
    pub(crate) fn finish(self) -> Vec<String> {
        drop(self.guard);
        let texts = std::mem::take(&mut *self.texts.lock().unwrap());
        texts.into_values().collect()
    }
}

struct Catcher {
    texts: Arc<Mutex<BTreeMap<u64, String>>>,
}

#[derive(Default)]
struct Line {
    log: u64,
    text: Option<String>,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log" {
            self.log = value;
        }
    }

    fn record_str(&mut self, _: &Field, value: &str) {
        self.text = Some(value.to_owned());
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl Subscriber for Catcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(text) = line.text {
            let mut texts = self.texts.lock().unwrap();
            texts.entry(line.log).or_default().push_str(&format!("\u{1e}{text}\n"));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
