//! What is not walked, and why nothing is lost by that.

use towline_engine::{Side, Timer};
use towline_model::BOTH;

use crate::explore::scope::Case;
use crate::explore::state::{Action, State};

/// Takes out of `actions` what need not be tried in `state`.
pub(crate) fn reduce(state: &State, case: &Case, actions: &mut Vec<Action>) {
    let world = &state.checked.world;
    let may_lose_it =
        state.losses > 0 || state.timers > 0 && case.fires.iter().any(|fire| fire.1 == Timer::Idle);
    if !world.connected || may_lose_it || world.peek(Side::Client).is_detached() {
        return;
    }
    for side in BOTH {
        if world.next_record(side.peer()) > 0 {
            actions.retain(|action| action.side(case) == Some(side));
            return;
        }
    }
}

/// Whether it matters that a record arrives in part.
pub(crate) fn parts_matter(state: &State, case: &Case) -> bool {
    case.parts && (state.losses > 0 || case.losses == 0)
}
