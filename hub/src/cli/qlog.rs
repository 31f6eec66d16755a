//! `--qlog DIR`: the event log of each session in a file of its own.
//!
//! In: lines, as events of `tracing` with a target of their own. Out: files, JSON text sequences in the shape of qlog, which
//! only their owner may read. Keeps: an open file for each session that has a log. What is in them is in docs/QLOG.md.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::time_provider::TimeProvider;
use towline_transports::qlog::{Event as LogEvent, Head, TARGET};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::{EnvFilter, Layer};

use super::failure::{CANNOT_CREATE, Failure};

/// The longest log of a session, in bytes. What happens after that is not in it.
const MAX_LOG: u64 = 64 << 20;

/// How many sessions have a log at the same time. Those that begin while there are so many have none.
const MAX_LOGS: usize = 1024;

/// Where the event logs of sessions go.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub(super) struct QlogArgs {
    /// Write what each session does to a file of its own in this folder, without the payload: for qvis, and for
    /// `towline-sim replay`
    #[arg(long, global = true, env = "TOWLINE_QLOG", value_name = "DIR")]
    qlog: Option<PathBuf>,
}

impl QlogArgs {
    /// What writes the logs, if that was asked for.
    pub(super) fn layer(&self, time: Arc<dyn TimeProvider>) -> Result<Option<QlogLayer>, Failure> {
        let Some(directory) = &self.qlog else { return Ok(None) };
        let cannot = |error: io::Error| {
            let message = format!("--qlog: cannot write to {}: {error}", directory.display());
            Failure::new(CANNOT_CREATE, message)
        };
        std::fs::create_dir_all(directory).map_err(cannot)?;
        // Better now than when the first session begins.
        try_to_write(directory).map_err(cannot)?;
        Ok(Some(QlogLayer {
            directory: directory.clone(),
            time,
            max_log: MAX_LOG,
            max_logs: MAX_LOGS,
            logs: Mutex::default(),
        }))
    }
}

/// Sees whether files can be made there.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".towline-{}", std::process::id()));
    private(&path)?;
    std::fs::remove_file(path)
}

/// A new file that nobody else may read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes the logs.
#[derive(Debug)]
pub(super) struct QlogLayer {
    directory: PathBuf,
    time: Arc<dyn TimeProvider>,
    max_log: u64,
    max_logs: usize,
    logs: Mutex<BTreeMap<u64, Log>>,
}

/// The log of a session that has not ended.
#[derive(Debug)]
struct Log {
    file: File,
    written: u64,
}

/// The lines of event logs, and nothing else.
pub(super) fn only_logs() -> Targets {
    Targets::new().with_target(TARGET, LevelFilter::TRACE)
}

/// Everything but those, of what `filter` lets through: to people they are of no use.
pub(super) fn without_logs(filter: EnvFilter) -> EnvFilter {
    filter.add_directive(format!("{TARGET}=off").parse().expect("it is a directive"))
}

impl<S: Subscriber> Layer<S> for QlogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let Line { log, head, event } = line;
        let outcome = match (head, event) {
            (Some(head), _) => self.begin(log, &head),
            (None, Some(event)) => self.write(log, &event),
            (None, None) => {
                self.lock().remove(&log);
                return;
            }
        };
        if let Err(error) = outcome {
            self.lock().remove(&log);
            tracing::warn!(%error, directory = %self.directory.display(), "a session goes on without its event log");
        }
    }
}

impl QlogLayer {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Log>> {
        self.logs.lock().expect("nobody panics with it")
    }

    fn begin(&self, log: u64, head: &str) -> io::Result<()> {
        let mut head: Head = serde_json::from_str(head)?;
        let now = self.time.current_time().map_or(0, |time| time.as_secs() * 1_000);
        head.trace.common_fields.reference_time = now;
        let mut logs = self.lock();
        if logs.len() >= self.max_logs {
            return Err(io::Error::other(format!("{} sessions have one already", self.max_logs)));
        }
        let (vantage, process) = (&head.trace.vantage_point, std::process::id());
        let name = format!("{}-{process}-{log:06}-{}-{}.sqlog", now / 1_000, vantage.name, vantage.kind);
        let mut log_file = Log { file: private(&self.directory.join(name))?, written: 0 };
        log_file.append(&serde_json::to_string(&head)?)?;
        logs.insert(log, log_file);
        Ok(())
    }

    fn write(&self, log: u64, event: &str) -> io::Result<()> {
        let mut logs = self.lock();
        // Without one: it was too many, too long, or could not be written.
        let Some(file) = logs.get_mut(&log) else { return Ok(()) };
        if file.written + event.len() as u64 > self.max_log {
            let last = serde_json::to_string(&LogEvent::Truncated { limit: self.max_log })?;
            let time = event.split(',').next().unwrap_or_default();
            file.append(&format!("{time},{}", &last[1..]))?;
            logs.remove(&log);
            return Ok(());
        }
        file.append(event)
    }
}

impl Log {
    /// A line is written at once and as a whole, so that nothing is missing if the program is killed.
    fn append(&mut self, text: &str) -> io::Result<()> {
        let record = format!("\u{1e}{text}\n");
        self.file.write_all(record.as_bytes())?;
        self.written += record.len() as u64;
        Ok(())
    }
}

/// The fields of an event.
#[derive(Default)]
struct Line {
    log: u64,
    head: Option<String>,
    event: Option<String>,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log" {
            self.log = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "head" => self.head = Some(value.to_owned()),
            "event" => self.event = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::time_provider::DefaultTimeProvider;
    use tokio::time::Instant;
    use towline_engine::{Config, Dir, Epoch, Side};
    use towline_transports::qlog::{Recorded, parse};
    use tracing::subscriber::DefaultGuard;
    use tracing_subscriber::layer::SubscriberExt;

    /// Sessions that begin on this thread have logs in `directory`, with these limits.
    fn listen(directory: &Path, max_log: u64, max_logs: usize) -> DefaultGuard {
        let time = Arc::new(DefaultTimeProvider);
        let layer =
            QlogLayer { directory: directory.to_owned(), time, max_log, max_logs, logs: Mutex::default() };
        let registry = tracing_subscriber::registry().with(layer.with_filter(only_logs()));
        tracing::subscriber::set_default(registry)
    }

    fn session() -> Recorded {
        Recorded::new(Side::Client, Config::default(), Instant::now(), "link")
    }

    fn files(directory: &Path) -> Vec<String> {
        let mut paths: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn a_log_that_is_too_long_says_so_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let guard = listen(directory.path(), 3_000, 10);
        let mut session = session();
        session.attach(Default::default(), Epoch(0)).unwrap();
        for _ in 0..1_000 {
            session.accept(Dir::Bi);
        }
        drop(session);
        drop(guard);
        let [text] = &files(directory.path())[..] else { panic!("there was one session") };
        assert!((2_800..3_200).contains(&text.len()), "{} bytes", text.len());
        let last = text.rsplit('\u{1e}').next().unwrap().trim_end();
        assert_eq!(parse(last).unwrap().1, LogEvent::Truncated { limit: 3_000 });
    }

    #[test]
    fn sessions_that_are_too_many_have_none_until_others_have_ended() {
        let directory = tempfile::tempdir().unwrap();
        let _guard = listen(directory.path(), MAX_LOG, 2);
        let (one, two, three) = (session(), session(), session());
        assert_eq!(files(directory.path()).len(), 2);
        drop(one);
        let four = session();
        drop((two, three, four));
        let files = files(directory.path());
        assert_eq!(files.len(), 3);
        assert!(files.iter().all(|text| text.contains("towline:end")), "each is whole");
    }
}
