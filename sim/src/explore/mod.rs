//! Walks every interleaving of two sessions.
//!
//! In: a scope, which says what the applications do and what may happen to the pipes. Out: how many states there are,
//! and the first in which a property does not hold, with the operations that lead there as a test. Keeps: every state
//! that was met, as `stateright` does.

pub(crate) mod broken;
mod program;
mod reductions;
mod scope;
mod state;

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use comfy_table::Table;
use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use towline_model::Op;

use broken::{Broken, PROPERTIES};
use scope::Case;
use state::{Action, State};

#[derive(Debug, Args)]
pub(crate) struct ExploreArgs {
    /// Which scope: delivery, resume, close, race, or the name of one of their parts; may be repeated [default: all]
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// How many threads walk
    #[arg(long, default_value_t = 2, value_name = "N")]
    threads: usize,
    /// Stop a scope after about so many states; it then is not exhausted, and the table says so
    #[arg(long, value_name = "N")]
    max_states: Option<usize>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// What came of a scope.
#[derive(Debug, Serialize)]
struct Outcome {
    scope: &'static str,
    /// States met, those that were met before included.
    states: usize,
    unique_states: usize,
    /// The most actions on a way to a state.
    depth: usize,
    seconds: f64,
    /// Whether there is nothing left to walk.
    exhausted: bool,
    /// The property that does not hold, and how it came out.
    broken: Option<String>,
    /// The operations that lead there, as a test.
    test: Option<String>,
}

/// Walks the scopes that were asked for. Returns whether every property held.
pub(crate) fn run(args: &ExploreArgs) -> anyhow::Result<bool> {
    let all = Case::all();
    let is_wanted = |case: &Case| {
        args.scope.is_empty() || args.scope.iter().any(|name| case.name.starts_with(name.as_str()))
    };
    for name in &args.scope {
        let names: Vec<_> = all.iter().map(|case| case.name).collect();
        anyhow::ensure!(
            names.iter().any(|known| known.starts_with(name.as_str())),
            "there is no scope {name}; there are {}",
            names.join(", ")
        );
    }
    let outcomes: Vec<_> = all.iter().filter(|case| is_wanted(case)).map(|case| walk(case, args)).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    } else {
        print(&outcomes);
    }
    Ok(outcomes.iter().all(|outcome| outcome.broken.is_none()))
}

/// The first property that does not hold in any scope, if each is walked for about so many states: the scope, how many
/// states that took in it, and the property.
#[cfg(towline_sabotage)]
pub(crate) fn first_broken(max_states: usize) -> Option<(&'static str, usize, &'static str)> {
    let args = ExploreArgs { scope: Vec::new(), threads: 2, max_states: Some(max_states), json: false };
    Case::all().iter().find_map(|case| {
        let outcome = walk(case, &args);
        let property = outcome.broken.as_deref().map(broken::property_of)?;
        Some((case.name, outcome.states, property))
    })
}

fn print(outcomes: &[Outcome]) {
    let mut table = Table::new();
    table.set_header(["scope", "states", "unique", "depth", "seconds", "walked", "properties"]);
    for outcome in outcomes {
        let walked = if outcome.exhausted { "all" } else { "in part" };
        let held = if outcome.broken.is_none() { "held" } else { "BROKEN" };
        table.add_row([
            outcome.scope.to_owned(),
            outcome.states.to_string(),
            outcome.unique_states.to_string(),
            outcome.depth.to_string(),
            format!("{:.1}", outcome.seconds),
            walked.to_owned(),
            held.to_owned(),
        ]);
    }
    println!("{table}");
    println!("properties: {}", PROPERTIES.join(", "));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        println!("peak memory: {}", peak.trim());
    }
    for outcome in outcomes {
        if let (Some(broken), Some(test)) = (&outcome.broken, &outcome.test) {
            println!("\n{}: {broken}\n\n{test}", outcome.scope);
        }
    }
}

/// A scope as `stateright` wants it.
struct Walk {
    case: Case,
}

impl Model for Walk {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.case)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(state.actions(&self.case));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(state.after(&self.case, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("every property holds", |_, state: &State| state.broken.is_none())]
    }
}

fn walk(case: &Case, args: &ExploreArgs) -> Outcome {
    let mut builder = Walk { case: case.clone() }
        .checker()
        .threads(args.threads.max(1))
        .finish_when(HasDiscoveries::AnyFailures);
    if let Some(max) = args.max_states {
        builder = builder.target_state_count(max);
    }
    // Breadth first: the first way to a broken property is a shortest one.
    let checker = builder.spawn_bfs();
    let start = clock();
    while !checker.is_done() {
        pause();
        if std::io::stderr().is_terminal() {
            let (states, depth) = (checker.state_count(), checker.max_depth());
            eprint!(
                "\r{}: {states} states, depth {depth}, {:.0} s ",
                case.name,
                start.elapsed().as_secs_f64()
            );
        }
    }
    let checker = checker.join();
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let found = checker.discoveries().into_values().next();
    let broken = found.and_then(|path| broken_by(case, path));
    Outcome {
        scope: case.name,
        states: checker.state_count(),
        unique_states: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds: start.elapsed().as_secs_f64(),
        exhausted: broken.is_none() && args.max_states.is_none_or(|max| checker.state_count() < max),
        test: broken.as_ref().map(|(_, ops)| as_test(case, ops)),
        broken: broken.map(|(broken, _)| broken.message),
    }
}

/// What is broken at the end of `path`, and the operations that lead there.
fn broken_by(case: &Case, path: Path<State, Action>) -> Option<(Broken, Vec<Op>)> {
    let steps = path.into_vec();
    let broken = steps.last()?.0.broken.clone()?;
    let mut ops = Vec::new();
    for (state, action) in &steps {
        if let Some(action) = action {
            let mut state = state.clone();
            // The last one panics again.
            let _ = broken::catch(|| state.act(case, *action, Some(&mut ops)));
        }
    }
    Some((broken, ops))
}

/// The operations as a test for `engine/tests`, where `towline_model` does them.
fn as_test(case: &Case, ops: &[Op]) -> String {
    let mut text = format!(
        "#[test]\nfn found_by_the_explorer_in_{}() {{\n    let config = /* of scope {} */ towline_model::config();\n    \
         let mut checked = Checked::new(&config, {});\n    for op in [\n",
        case.name.replace('-', "_"),
        case.name,
        case.is_resumable
    );
    for op in ops {
        writeln!(text, "        Op::{op:?},").expect("a string takes everything");
    }
    text + "    ] {\n        checked.apply(op);\n    }\n    checked.settle();\n}"
}

#[expect(clippy::disallowed_methods, reason = "a report of how long it took")]
pub(crate) fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "there are threads that walk, and one that watches")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of every scope; the whole of each is walked by `cargo sim explore`.
    #[test]
    fn every_property_holds_at_the_beginning_of_every_scope() {
        let args = ExploreArgs { scope: Vec::new(), threads: 1, max_states: Some(2_000), json: false };
        for case in Case::all() {
            let outcome = walk(&case, &args);
            assert_eq!(outcome.broken, None, "{}", outcome.test.unwrap_or_default());
            assert!(outcome.unique_states > 100, "{}", case.name);
        }
    }
}
