//! Whether a run was what its scenario expects: properties that are looked at in the end.
//!
//! In: what a backend has measured, under the names that are here. Out: properties.

use crate::run::{Ended, Rest, Sink};
use crate::scenario::{End, Plan, Role};

/// How many streams came to their end as planned.
pub const DONE: &str = "streams_done";
/// How many streams failed that nobody had reset or stopped.
pub const FAILED: &str = "streams_failed";
/// The longest that a stream with something to say was without progress, in nanoseconds.
pub const STALL: &str = "stall_ns";
/// How often sessions were resumed.
pub const RESUMES: &str = "resumes";
/// How often one session was resumed at most.
pub const RESUMES_OF_ONE: &str = "resumes_of_one";
/// How many bytes that had come a session has held for readers, at most.
pub const MEMORY: &str = "memory_bytes";
/// How many devices are online in the end.
pub const ONLINE: &str = "devices_online";
/// How long it took after the last fault until all devices were online, in nanoseconds.
pub const ONLINE_AFTER: &str = "online_after_ns";
/// How long 99 in 100 rounds of interactive streams took at most, in nanoseconds.
pub const INTERACTIVE: &str = "interactive_p99_ns";
/// The largest window that a stream had, in bytes.
pub const WINDOW: &str = "window_bytes";
/// How often endpoints have connected.
pub const LINKS: &str = "links";
/// How many streams are left in sessions whose work is done.
pub const RESIDUE: &str = "residue";

/// What may happen sometimes, by name: what `sometimes` can ask for.
pub const SOMETIMES: [&str; 28] = [
    "address_was_asked_for",
    "bytes_of_an_older_pipe",
    "close_was_given_up",
    "late_resume_was_told_the_truth",
    "lobby_was_full",
    "looked_on_another_hub",
    "nat_forgot",
    "newer_pipe_before_the_older_was_missed",
    "over_all_kinds_of_link",
    "packet_came_twice",
    "packet_lost",
    "path_migrated",
    "path_went_dark",
    "resume_refused",
    "session_closed_while_detached",
    "session_expired",
    "session_resumed",
    "silent_link_found",
    "silent_pipe_found",
    "somebody_was_not_let_in",
    "something_is_held",
    "stream_failed",
    "stream_refused_by_a_drain",
    "stream_reset",
    "stream_reset_after_its_end",
    "stream_stopped",
    "tunnel_refused",
    "window_grew",
];

/// The first of these that nobody looks at: where it is, and what to say of it.
pub(crate) fn unheard_of(sometimes: &[String]) -> Option<(usize, String)> {
    let place = sometimes.iter().position(|name| !SOMETIMES.contains(&name.as_str()))?;
    let (name, known) = (&sometimes[place], SOMETIMES.join(", "));
    Some((place, format!("nobody looks whether `{name}` happens; there are: {known}")))
}

/// Looks at what was expected.
pub(crate) fn check(plan: &Plan, rest: &Rest, sink: &mut Sink) {
    let expect = &plan.expect;
    let time = rest.simulated;
    // That is told already, and what followed from it is no news.
    if rest.ended == Ended::Panicked {
        return;
    }
    // What nobody has measured is not zero.
    let figure = |sink: &Sink, name: &str| sink.figures.get(name).copied();
    let unknown = |name: &str| match name {
        ONLINE_AFTER => "not all devices were online in the end".to_owned(),
        _ => format!("{name} was not measured"),
    };
    let planned = plan.streams.len() as u64;
    let (done, failed) = (figure(sink, DONE), figure(sink, FAILED));
    let over = done.unwrap_or(0) + failed.unwrap_or(0);
    let waiting = || rest.waiting.join("; ");
    sink.always("no_wall_limit", rest.ended != Ended::WallLimit, time, "world", || {
        format!("after {} of real time: {}", plan.limits.wall, waiting())
    });
    if expect.done {
        sink.always("eventual", over >= planned, time, "world", || {
            format!("{over} of {planned} streams came to an end; {}", waiting())
        });
    }
    if expect.no_failure {
        sink.always("accepted_means_owed", failed == Some(0), time, "world", || {
            failed.map_or_else(|| unknown(FAILED), |failed| format!("{failed} streams failed"))
        });
    }
    if expect.some_failure {
        sink.always("some_failure", failed > Some(0), time, "world", || {
            failed.map_or_else(|| unknown(FAILED), |_| "no stream failed".to_owned())
        });
    }
    let devices = plan.hosts_of(Role::Device).count() as u64;
    let online = figure(sink, ONLINE);
    if expect.all_online {
        sink.always("all_online", online == Some(devices), time, "world", || {
            online.map_or_else(|| unknown(ONLINE), |online| format!("{online} of {devices}"))
        });
    }
    let may_type = plan.streams.iter().any(|stream| stream.interactive && stream.end == End::Finish);
    let bounds = [
        ("stall_below", STALL, expect.stall_below.map(|span| span.0)),
        ("resumes_at_most", RESUMES_OF_ONE, expect.resumes_at_most.map(|count| count.0)),
        ("memory_below", MEMORY, expect.memory_below.map(|size| size.0)),
        ("online_within", ONLINE_AFTER, expect.online_within.map(|span| span.0)),
        ("control_under_bulk", INTERACTIVE, expect.interactive_below.map(|span| span.0)),
        ("links_at_most", LINKS, expect.links_at_most.map(|count| count.0)),
        ("no_residue", RESIDUE, expect.no_residue.then_some(0)),
    ];
    for (property, name, most) in bounds {
        let Some(most) = most else { continue };
        let value = figure(sink, name);
        // What is left is counted once all is done; and where nobody has typed, nobody has waited.
        let is_nothing = name == RESIDUE && rest.ended != Ended::Done || name == INTERACTIVE && !may_type;
        if is_nothing && value.is_none() {
            continue;
        }
        sink.always(property, value.is_some_and(|value| value <= most), time, "world", || {
            value.map_or_else(|| unknown(name), |value| format!("{name} is {value}, more than {most}"))
        });
    }
    let bounds = [
        ("resumes_at_least", RESUMES, expect.resumes_at_least.map(|count| count.0)),
        ("tune_bounded", WINDOW, expect.window_at_least.map(|size| size.0)),
    ];
    for (property, name, least) in bounds {
        let Some(least) = least else { continue };
        let value = figure(sink, name);
        sink.always(property, value.is_some_and(|value| value >= least), time, "world", || {
            value.map_or_else(|| unknown(name), |value| format!("{name} is {value}, less than {least}"))
        });
    }
    for name in &expect.sometimes {
        sink.sometimes(name, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Ended;
    use crate::scenario::{Backend, Count, Expect, Size, Span};
    use crate::scenarios;

    /// What breaks if a run leaves these figures.
    fn broken(expect: Expect, ended: Ended, figures: &[(&str, u64)]) -> Vec<String> {
        let scenario = scenarios::named("nat-forgets").expect("it is there").expect("it can be read");
        let mut plan = scenario.expand(0, Some(Backend::Des)).expect("it makes sense");
        plan.expect = expect;
        (plan.streams[0].interactive, plan.streams[0].end) = (true, End::Finish);
        let mut sink = Sink::new();
        sink.count(DONE, plan.streams.len() as u64);
        [FAILED, RESIDUE].iter().for_each(|name| sink.count(name, 0));
        figures.iter().for_each(|(name, value)| sink.count(name, *value));
        check(&plan, &Rest { ended, simulated: 1, waiting: Vec::new() }, &mut sink);
        sink.properties.broken().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn what_is_expected_and_is_not_so_is_told() {
        let all = || Expect::default();
        assert!(broken(all(), Ended::Done, &[]).is_empty());
        let none = || Expect { done: false, no_residue: false, ..Expect::default() };
        let second = Some(Span::seconds(1));
        let cases: [(&str, Expect, &str, u64); 8] = [
            ("accepted_means_owed", Expect { no_failure: true, ..none() }, FAILED, 1),
            ("no_residue", all(), RESIDUE, 1),
            ("stall_below", Expect { stall_below: second, ..none() }, STALL, 1_000_000_001),
            (
                "control_under_bulk",
                Expect { interactive_below: second, ..none() },
                INTERACTIVE,
                1_000_000_001,
            ),
            ("memory_below", Expect { memory_below: Some(Size(7)), ..none() }, MEMORY, 8),
            ("online_within", Expect { online_within: second, ..none() }, ONLINE_AFTER, 1_000_000_001),
            ("tune_bounded", Expect { window_at_least: Some(Size(7)), ..none() }, WINDOW, 6),
            ("all_online", Expect { all_online: true, ..none() }, ONLINE, 0),
        ];
        for (property, expect, figure, value) in cases {
            assert_eq!(broken(expect, Ended::Done, &[(figure, value)]), [property]);
        }
        let some_failure = Expect { some_failure: true, ..none() };
        assert_eq!(broken(some_failure, Ended::Done, &[]), ["some_failure"]);
        assert_eq!(broken(none(), Ended::WallLimit, &[]), ["no_wall_limit"]);
    }

    #[test]
    fn what_nobody_has_measured_is_not_zero() {
        let none = || Expect { done: false, no_residue: false, ..Expect::default() };
        let (second, count, size) = (Some(Span::seconds(1)), Some(Count(3)), Some(Size(7)));
        let cases = [
            ("stall_below", Expect { stall_below: second, ..none() }),
            ("resumes_at_most", Expect { resumes_at_most: count, ..none() }),
            ("resumes_at_least", Expect { resumes_at_least: Some(Count(0)), ..none() }),
            ("memory_below", Expect { memory_below: size, ..none() }),
            ("online_within", Expect { online_within: second, ..none() }),
            ("control_under_bulk", Expect { interactive_below: second, ..none() }),
            ("links_at_most", Expect { links_at_most: count, ..none() }),
            ("tune_bounded", Expect { window_at_least: Some(Size(0)), ..none() }),
        ];
        for (property, expect) in cases {
            assert_eq!(broken(expect, Ended::Done, &[]), [property]);
        }
    }

    #[test]
    fn where_nobody_may_type_nobody_has_waited() {
        let scenario = scenarios::named("nat-forgets").expect("it is there").expect("it can be read");
        let mut plan = scenario.expand(0, Some(Backend::Des)).expect("it makes sense");
        plan.expect = Expect {
            done: false,
            no_residue: false,
            interactive_below: Some(Span::seconds(1)),
            ..Expect::default()
        };
        let mut sink = Sink::new();
        check(&plan, &Rest { ended: Ended::Done, simulated: 1, waiting: Vec::new() }, &mut sink);
        assert!(sink.properties.held(), "{:?}", sink.properties);
    }

    #[test]
    fn the_readme_has_the_names_of_what_may_happen() {
        let names = SOMETIMES.map(|name| format!("`{name}`")).join(", ");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(include_str!("../README.md")).contains(&names), "sim/README.md should have: {names}");
    }

    #[test]
    fn streams_that_come_to_no_end_are_told() {
        let scenario = scenarios::named("nat-forgets").expect("it is there").expect("it can be read");
        let plan = scenario.expand(0, Some(Backend::Des)).expect("it makes sense");
        let mut sink = Sink::new();
        check(&plan, &Rest { ended: Ended::SimulatedLimit, simulated: 1, waiting: Vec::new() }, &mut sink);
        assert!(sink.properties.broken().any(|(name, _)| name == "eventual"));
    }
}
