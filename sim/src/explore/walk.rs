//! Drives the walk: stateright goes from state to state, and tells how far it is.
//!
//! Depth first, since that keeps few states in memory. If a property does not hold, breadth first up to the depth at
//! which that was found, on one thread, for the shortest way there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property, UniformChooser};

use crate::explore::broken::properties_of;
use crate::explore::report::{Finding, Report};
use crate::explore::scope::{Case, Scope};
use crate::explore::state::{Action, State};
use crate::explore::trace::shorten;

/// How much a walk may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many threads walk.
    pub threads: usize,
    /// After about how many states, counted as often as they are reached, it ends.
    pub max_states: Option<usize>,
    /// After how long it ends.
    pub timeout: Option<Duration>,
}

/// How far a walk is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What it is doing.
    pub what: &'static str,
    /// How many states it has reached, counted as often as they were.
    pub states: usize,
    /// How many different ones.
    pub unique: usize,
    /// How many steps the longest way took.
    pub depth: usize,
    /// How long it has taken.
    pub elapsed: Duration,
}

/// A walk that holds more memory than this ends, in bytes. Only one that goes breadth first comes near it.
const MAX_MEMORY: u64 = 3 << 30;

/// A seed for the ways that are drawn at random.
const SEED: u64 = 1;

/// Walks all of `case`, or as much as the bounds allow, and tells how far it is from time to time.
pub fn walk(case: &Case, bounds: Bounds, progress: &mut dyn FnMut(Progress)) -> Report {
    reset_peak_memory();
    let start = now();
    let mut report = match case.scope {
        Scope::Full => walk_bounded(case, bounds, progress),
        _ => walk_deep(case, bounds, progress),
    };
    report.seconds = start.elapsed().as_secs_f64();
    report.peak_memory_bytes = peak_memory();
    report
}

fn walk_deep(case: &Case, bounds: Bounds, progress: &mut dyn FnMut(Progress)) -> Report {
    let outcome = Run::new("depth first", case, bounds).depth_first(progress);
    let mut report = outcome.report(case);
    if let Some((property, way)) = outcome.found {
        report.seconds_to_finding = Some(outcome.elapsed.as_secs_f64());
        report.finding = Some(shortest(case, property, &way, progress));
    }
    report
}

/// The scope that is too large: everything up to a depth, and then ways to the end that are drawn at random.
fn walk_bounded(case: &Case, bounds: Bounds, progress: &mut dyn FnMut(Progress)) -> Report {
    let outcome = Run::new("breadth first", case, bounds).breadth_first(None, progress);
    let mut report = outcome.report(case);
    // The last level is not whole, and the first state is no step.
    report.exhausted_depth = Some(outcome.depth.saturating_sub(2));
    if let Some((property, way)) = outcome.found {
        report.finding = Some(Finding::new(case, property, &way, true));
    } else if !report.is_exhausted {
        let bounds = Bounds { max_states: bounds.max_states.or(Some(outcome.states)), ..bounds };
        let drawn = Run::new("at random", case, bounds).at_random(progress);
        report.depth = report.depth.max(drawn.depth);
        report.drawn_states = Some(drawn.states);
        let short = |(property, way): (_, Vec<_>)| Finding::new(case, property, &shorten(case, &way), false);
        report.finding = drawn.found.map(short);
    }
    report
}

/// The shortest way to a property that does not hold, given a longer one.
fn shortest(
    case: &Case,
    property: &'static str,
    way: &[Action],
    progress: &mut dyn FnMut(Progress),
) -> Finding {
    let shorter = shorten(case, way);
    let bounds = Bounds { threads: 1, max_states: None, timeout: None };
    let run = Run::new("the shortest way", case, bounds);
    match run.breadth_first(Some(shorter.len()), progress).found {
        Some((property, way)) => Finding::new(case, property, &way, true),
        None => Finding::new(case, property, &shorter, false),
    }
}

/// A run of stateright's.
struct Run {
    what: &'static str,
    case: Case,
    bounds: Bounds,
    stop: Arc<AtomicBool>,
}

/// What came of it.
struct Outcome {
    states: usize,
    unique: usize,
    depth: usize,
    elapsed: Duration,
    /// Whether it ended because there was nothing more.
    is_complete: bool,
    found: Option<(&'static str, Vec<Action>)>,
}

impl Outcome {
    fn report(&self, case: &Case) -> Report {
        Report {
            scope: case.scope,
            case: case.name,
            states: self.states,
            unique_states: self.unique,
            depth: self.depth,
            is_exhausted: self.is_complete && self.found.is_none(),
            properties: properties_of(case),
            ..Report::default()
        }
    }
}

impl Run {
    fn new(what: &'static str, case: &Case, bounds: Bounds) -> Self {
        Self { what, case: case.clone(), bounds, stop: Arc::default() }
    }

    fn depth_first(self, progress: &mut dyn FnMut(Progress)) -> Outcome {
        let checker = self.builder().spawn_dfs();
        self.watch(checker, progress)
    }

    /// Up to ways of `length` actions.
    fn breadth_first(self, length: Option<usize>, progress: &mut dyn FnMut(Progress)) -> Outcome {
        let builder = match length {
            // A way of n actions has n + 1 states, which stateright counts from 1.
            Some(length) => self.builder().target_max_depth(length + 2),
            None => self.builder(),
        };
        let checker = builder.spawn_bfs();
        self.watch(checker, progress)
    }

    fn at_random(self, progress: &mut dyn FnMut(Progress)) -> Outcome {
        let checker = self.builder().spawn_simulation(SEED, UniformChooser);
        self.watch(checker, progress)
    }

    fn builder(&self) -> stateright::CheckerBuilder<Walk> {
        let walk = Walk { case: self.case.clone(), stop: self.stop.clone() };
        let threads = self.bounds.threads.max(1);
        let builder = walk.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
        match self.bounds.max_states {
            Some(count) => builder.target_state_count(count),
            None => builder,
        }
    }

    /// Waits for the end, tells how far it is, and stops it if it takes too much.
    fn watch<C: Checker<Walk>>(self, mut checker: C, progress: &mut dyn FnMut(Progress)) -> Outcome {
        let start = now();
        let handles = checker.handles();
        let mut told = now();
        while !handles.iter().all(std::thread::JoinHandle::is_finished) {
            std::thread::park_timeout(Duration::from_millis(20));
            let is_late = self.bounds.timeout.is_some_and(|timeout| start.elapsed() > timeout);
            if is_late || memory("VmRSS:").is_some_and(|bytes| bytes > MAX_MEMORY) {
                self.stop.store(true, Ordering::Relaxed);
            }
            if told.elapsed() < Duration::from_secs(1) {
                continue;
            }
            told = now();
            let (states, unique) = (checker.state_count(), checker.unique_state_count());
            let (what, depth) = (self.what, checker.max_depth());
            progress(Progress { what, states, unique, depth, elapsed: start.elapsed() });
        }
        handles.into_iter().for_each(|handle| handle.join().expect("panics are caught where they happen"));
        let elapsed = start.elapsed();
        let ways = checker.discoveries().into_iter().map(|(property, path)| (property, path.into_actions()));
        let states = checker.state_count();
        let is_cut_short = self.bounds.max_states.is_some_and(|most| states >= most);
        Outcome {
            states,
            unique: checker.unique_state_count(),
            depth: checker.max_depth(),
            elapsed,
            is_complete: !is_cut_short && !self.stop.load(Ordering::Relaxed),
            found: ways.min_by_key(|(_, way)| way.len()),
        }
    }
}

/// The model for stateright.
struct Walk {
    case: Case,
    /// Nothing more happens in any state.
    stop: Arc<AtomicBool>,
}

/// A property for each name, as stateright takes no closures.
macro_rules! properties {
    ($($name:literal)*) => {
        vec![$(Property::always($name, |_, state: &State| !state.breaks($name))),*]
    };
}

impl Model for Walk {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.case)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.stop.load(Ordering::Relaxed) {
            actions.extend(state.actions(&self.case));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(state.after(&self.case, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let all: Vec<Property<Self>> = properties!(
            "exact_prefix" "eof_iff_fin" "late_reset_ignored" "accepted_means_owed" "one_terminal_event"
            "halves_independent" "gapless" "never_over_limit" "limits_monotone" "credit_conservation"
            "ids_monotone_unique" "surfaced_once" "idempotent_frames" "close_idempotent" "no_stall" "no_residue"
            "no_violation" "consistent" "retry_converges" "drain_partition" "close_flushes" "closed_truth"
            "ttl_order" "fencing" "proof_first"
        );
        debug_assert!(all.iter().map(|property| property.name).eq(crate::explore::broken::PROPERTIES));
        all
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a walk takes is measured by the real clock")]
fn now() -> Instant {
    Instant::now()
}

/// What the system says about this process's memory, in bytes, if it says anything.
fn memory(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// The most memory that this process has held since [`reset_peak_memory`].
fn peak_memory() -> Option<u64> {
    memory("VmHWM:")
}

fn reset_peak_memory() {
    // Linux only; elsewhere the peak is not known.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
