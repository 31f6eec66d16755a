//! Makes a plan that fails as small as can be: without faults, streams and hosts that it fails without, and shorter.
//!
//! In: a plan, and whether another one still fails in the same way. Out: one from which nothing more can be taken. Lists
//! are cut by delta debugging (Zeller and Hildebrandt 2002): halves first, then smaller pieces.

use std::collections::BTreeSet;

use crate::scenario::{Count, Plan, Role, Size, Span};

/// Shrinks `plan`. `fails` says whether a plan still fails in the same way.
pub fn shrink(plan: Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan;
    loop {
        let before = best.clone();
        best = thin(best, |plan| &mut plan.faults, fails);
        best = thin(best, |plan| &mut plan.streams, fails);
        best = without_idle_hosts(best, fails);
        best = smaller(best, fails);
        if best == before {
            return best;
        }
    }
}

/// How large a plan is: what can be taken away.
pub fn size(plan: &Plan) -> String {
    let endpoints =
        plan.hosts.iter().filter(|host| matches!(host.role, Role::Device | Role::Service)).count();
    format!("{} faults, {} streams, {endpoints} endpoints", plan.faults.len(), plan.streams.len())
}

/// Takes pieces out of a list, halves first.
fn thin<T: Clone>(
    mut best: Plan,
    list: fn(&mut Plan) -> &mut Vec<T>,
    fails: &mut impl FnMut(&Plan) -> bool,
) -> Plan {
    let mut piece = list(&mut best).len().div_ceil(2);
    while piece > 0 {
        let mut start = 0;
        while start < list(&mut best).len() {
            let mut candidate = best.clone();
            let items = list(&mut candidate);
            let end = (start + piece).min(items.len());
            items.drain(start..end);
            if fails(&candidate) {
                best = candidate;
            } else {
                start += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    best
}

/// Leaves out devices and services that nothing is done with.
fn without_idle_hosts(best: Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let streams = best.streams.iter().flat_map(|stream| [&stream.service, &stream.device]);
    let used: BTreeSet<String> =
        streams.chain(best.faults.iter().map(|fault| &fault.host)).cloned().collect();
    let mut candidate = best.clone();
    candidate.hosts.retain(|host| matches!(host.role, Role::Hub | Role::Proxy) || used.contains(&host.name));
    if candidate.hosts.len() < best.hosts.len() && fails(&candidate) { candidate } else { best }
}

/// Makes numbers smaller: halves of sizes, rounds and times, and none at all.
fn smaller(mut best: Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let mut keep = |best: &mut Plan, change: &dyn Fn(&mut Plan)| {
        let mut candidate = best.clone();
        change(&mut candidate);
        let is_better = candidate != *best && fails(&candidate);
        if is_better {
            *best = candidate;
        }
        is_better
    };
    // Where places run out, fewer places need fewer streams.
    let halve = |plan: &mut Plan| {
        plan.session.max_streams = plan.session.max_streams.map(|count| Count((count.0 / 2).max(1)));
    };
    while keep(&mut best, &halve) {}
    for index in 0..best.streams.len() {
        keep(&mut best, &|plan| plan.streams[index].think = Default::default());
        keep(&mut best, &|plan| plan.streams[index].interactive = false);
        keep(&mut best, &|plan| plan.streams[index].half_closes = true);
        while keep(&mut best, &|plan| plan.streams[index].rounds = plan.streams[index].rounds.div_ceil(2)) {}
        while keep(&mut best, &|plan| plan.streams[index].up = Size(plan.streams[index].up.0.div_ceil(2))) {}
        while keep(&mut best, &|plan| plan.streams[index].down = Size(plan.streams[index].down.0.div_ceil(2)))
        {
        }
    }
    for index in 0..best.faults.len() {
        let halve = |plan: &mut Plan| {
            let lasts = plan.faults[index].lasts;
            plan.faults[index].lasts = lasts.map(|lasts| Span(lasts.0 / 2 / 1_000_000 * 1_000_000));
        };
        while keep(&mut best, &halve) {}
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::FaultKind;
    use crate::scenarios;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let scenario = scenarios::named("link-loss").unwrap().unwrap();
        let plan = (0..).map(|seed| scenario.expand(seed, None).unwrap());
        let plan = plan.into_iter().find(|plan| plan.faults.len() >= 5 && plan.streams.len() >= 6).unwrap();
        let needed = (plan.faults[3].clone(), plan.streams[2].name.clone());
        let mut tries = 0;
        let small = shrink(plan, &mut |plan| {
            tries += 1;
            let cut = plan.faults.iter().any(|it| it.at == needed.0.at && it.kind == FaultKind::Cut);
            cut && plan.streams.iter().any(|stream| stream.name == needed.1 && stream.down.0 > 0)
        });
        assert_eq!((small.faults.len(), small.streams.len()), (1, 1), "{}", size(&small));
        assert_eq!((small.streams[0].down, small.streams[0].rounds), (Size(1), 1));
        assert!(tries < 200, "{tries}");
    }

    /// What fails as soon as there are more streams than places.
    #[test]
    fn where_places_run_out_fewer_are_enough() {
        let plan = scenarios::named("many-small-streams").unwrap().unwrap().expand(0, None).unwrap();
        assert_eq!(plan.session.max_streams, Some(Count(8)));
        let small = shrink(plan, &mut |plan| {
            plan.session.max_streams.is_some_and(|most| plan.streams.len() as u64 > most.0)
        });
        assert_eq!((small.session.max_streams, small.streams.len()), (Some(Count(1)), 2));
    }
}
