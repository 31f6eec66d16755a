//! A property that does not hold: which, and how it came out.
//!
//! The engine, its model and the observer on the wire say so by a panic, in whose text the property's name stands before
//! a colon. A panic without one is a broken assertion of the engine's (`consistent`).

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use towline_model::Digest;

use crate::explore::program::Verb;
use crate::explore::scope::Case;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// One of [`PROPERTIES`].
    pub(crate) property: &'static str,
    /// What was said about it, and where.
    pub(crate) message: String,
}

/// Everything that is checked, after each action or when nothing can happen any more.
pub(crate) const PROPERTIES: [&str; 25] = [
    "exact_prefix",
    "eof_iff_fin",
    "late_reset_ignored",
    "accepted_means_owed",
    "one_terminal_event",
    "halves_independent",
    "gapless",
    "never_over_limit",
    "limits_monotone",
    "credit_conservation",
    "ids_monotone_unique",
    "surfaced_once",
    "idempotent_frames",
    "close_idempotent",
    "no_stall",
    "no_residue",
    "no_violation",
    CONSISTENT,
    "retry_converges",
    "drain_partition",
    "close_flushes",
    "closed_truth",
    "ttl_order",
    "fencing",
    "proof_first",
];

/// Those that `case` can break: the others have to do with what does not happen in it.
pub(crate) fn properties_of(case: &Case) -> Vec<&'static str> {
    let verbs = || case.programs.iter().flat_map(|program| program.steps).map(|step| step.1);
    let applies = |property: &&&str| match **property {
        "retry_converges" => case.is_confluent,
        "drain_partition" => verbs().any(|verb| verb == Verb::Drain),
        "close_flushes" => verbs().any(|verb| verb == Verb::Close) && case.is_resumable,
        "closed_truth" => verbs().any(|verb| matches!(verb, Verb::Close | Verb::Drain)) && case.losses > 0,
        "idempotent_frames" => case.losses > 0,
        "close_idempotent" | "fencing" | "proof_first" | "ttl_order" => case.is_thorough,
        _ => true,
    };
    PROPERTIES.iter().filter(applies).copied().collect()
}

/// The engine's own assertions, and those of `Session::check_invariants`.
const CONSISTENT: &str = "consistent";

impl Broken {
    fn new(message: String) -> Self {
        // The first that is named, as one may be the reason for another.
        let place = |name: &&'static str| Some((message.find(&format!("{name}: "))?, *name));
        let property = PROPERTIES.iter().filter_map(place).min().map_or(CONSISTENT, |(_, name)| name);
        Self { property, message }
    }

    /// What was said, without where in the source it was, which is no part of what happened.
    pub(crate) fn detail(&self) -> String {
        self.message.lines().skip(1).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        digest.add_bytes(self.message.as_bytes());
        digest.result()
    }
}

thread_local! {
    /// Whether a panic is to be kept rather than printed, and the first one: others may come of it.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_CATCHING: RefCell<bool> = const { RefCell::new(false) };
}

/// Whether something has panicked in what [`catch`] does: a runtime keeps to itself that a task did for which nobody waits.
pub(crate) fn has_panicked() -> bool {
    CAUGHT.with_borrow(Option::is_some)
}

/// Does something that may panic. It has failed as well if it went on after a panic that somebody else has caught.
pub(crate) fn catch<T>(what: impl FnOnce() -> T) -> Result<T, Broken> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let otherwise = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_CATCHING.with_borrow(|is_catching| *is_catching) {
                CAUGHT.with_borrow_mut(|caught| _ = caught.get_or_insert_with(|| info.to_string()));
            } else {
                otherwise(info);
            }
        }));
    });
    let before = IS_CATCHING.replace(true);
    // What panicked is not looked at again, but for its state before.
    let outcome = catch_unwind(AssertUnwindSafe(what));
    IS_CATCHING.set(before);
    match (outcome, CAUGHT.take()) {
        (Ok(outcome), None) => Ok(outcome),
        (_, Some(message)) => Err(Broken::new(message)),
        (Err(_), None) => unreachable!("the hook has seen it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_names_the_property() {
        let broken = catch(|| panic!("no_stall: who")).unwrap_err();
        assert_eq!(broken.property, "no_stall");
        assert!(broken.message.contains("broken.rs") && broken.message.contains("no_stall: who"));
        let message = |index: usize| [1][index];
        assert_eq!(catch(|| message(1)).unwrap_err().property, "consistent");
        assert_eq!(catch(|| message(0)), Ok(1));
        let caught_within = || std::panic::catch_unwind(|| panic!("no_stall: somewhere")).is_err();
        assert_eq!(catch(caught_within).unwrap_err().property, "no_stall");
        assert!(!has_panicked());
    }
}
