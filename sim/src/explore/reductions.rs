//! What is not walked, and why nothing is lost by that: the part that is code. sim/README.md lists all of it.

use towline_engine::{Side, Timer};
use towline_model::BOTH;

use crate::explore::scope::Case;
use crate::explore::state::{Action, State};

/// R5. Takes out of `actions` what need not be tried in `state`: what one end does commutes with what the other does,
/// as long as there is nothing that concerns both.
///
/// An action of an end changes that end, takes the first record of the pipe towards it and puts one behind the last of
/// the pipe from it; so actions of different ends can be exchanged, and none of one end disables one of the other. (But for the last timer
/// that a case allows, which either end may fire; a record that waits can still be taken then, with the same effect.) While
/// a record waits at an end, nothing that the other does can enable more there, as the next record waits behind this one.
/// All that such an end can do is then a persistent set (Godefroid 1996, chapter 4): whatever happens later happens as
/// well, in a different order, if one of these comes first. As no state comes twice on a way, nothing is put off for
/// ever. Every property is one of an end's own history, or of states in which nothing can happen any more; neither
/// depends on the order in which different ends did things.
///
/// A pipe that is lost or left concerns both, so this waits until that can happen no more.
pub(crate) fn reduce(state: &State, case: &Case, actions: &mut Vec<Action>) {
    let world = &state.checked.world;
    let may_be_lost =
        state.losses > 0 || state.timers > 0 && case.fires.iter().any(|fire| fire.1 == Timer::Idle);
    if may_be_lost || !world.connected || world.peek(Side::Client).is_detached() {
        return;
    }
    if let Some(side) = BOTH.into_iter().find(|side| world.next_record(side.peer()) > 0) {
        actions.retain(|action| action.side(case) == Some(side));
    }
}

/// R6. Whether it matters that a record arrives in part: while it may be that the rest never does, or if that is what
/// the case is about.
///
/// Otherwise the frames of a record that arrive one by one are frames of as many records that do.
pub(crate) fn parts_matter(state: &State, case: &Case) -> bool {
    case.parts && (state.losses > 0 || case.losses == 0)
}
