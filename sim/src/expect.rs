//! Whether a run was what its scenario expects: properties that are looked at in the end.
//!
//! In: what a backend has measured, under the names that are here. Out: properties.

use crate::run::{Ended, Rest, Sink};
use crate::scenario::{Plan, Role};

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

/// Looks at what was expected.
pub(crate) fn check(plan: &Plan, rest: &Rest, sink: &mut Sink) {
    let expect = &plan.expect;
    let time = rest.simulated;
    let figure = |sink: &Sink, name: &str| sink.figures.get(name).copied().unwrap_or(0);
    let planned = plan.streams.len() as u64;
    let over = figure(sink, DONE) + figure(sink, FAILED);
    let waiting = || rest.waiting.join("; ");
    sink.always("no_wall_limit", rest.ended != Ended::WallLimit, time, "world", || {
        format!("after {} of real time: {}", plan.limits.wall, waiting())
    });
    if expect.done {
        sink.always("eventual", over >= planned, time, "world", || {
            format!("{over} of {planned} streams came to an end; {}", waiting())
        });
    }
    let failed = figure(sink, FAILED);
    if expect.no_failure {
        sink.always("accepted_means_owed", failed == 0, time, "world", || format!("{failed} streams failed"));
    }
    if expect.some_failure {
        sink.always("some_failure", failed > 0, time, "world", || "no stream failed".to_owned());
    }
    let devices = plan.hosts_of(Role::Device).count() as u64;
    let online = figure(sink, ONLINE);
    if expect.all_online {
        sink.always("all_online", online == devices, time, "world", || format!("{online} of {devices}"));
    }
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
        sink.always(property, value <= most, time, "world", || {
            format!("{name} is {value}, more than {most}")
        });
    }
    if let Some(least) = expect.resumes_at_least {
        let resumes = figure(sink, RESUMES);
        let detail = || format!("{resumes}, fewer than {}", least.0);
        sink.always("resumes_at_least", resumes >= least.0, time, "world", detail);
    }
    if let Some(least) = expect.window_at_least {
        let window = figure(sink, WINDOW);
        let detail = || format!("the largest window was of {window} bytes, less than {}", least.0);
        sink.always("tune_bounded", window >= least.0, time, "world", detail);
    }
    for name in &expect.sometimes {
        sink.sometimes(name, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Ended;
    use crate::scenario::{Backend, Expect, Size, Span};
    use crate::scenarios;

    /// What breaks if a run leaves these figures.
    fn broken(expect: Expect, ended: Ended, figures: &[(&str, u64)]) -> Vec<String> {
        let scenario = scenarios::named("nat-forgets").expect("it is there").expect("it can be read");
        let mut plan = scenario.expand(0, Some(Backend::Des)).expect("it makes sense");
        plan.expect = expect;
        let mut sink = Sink::new();
        sink.count(DONE, plan.streams.len() as u64);
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
    fn streams_that_come_to_no_end_are_told() {
        let scenario = scenarios::named("nat-forgets").expect("it is there").expect("it can be read");
        let plan = scenario.expand(0, Some(Backend::Des)).expect("it makes sense");
        let mut sink = Sink::new();
        check(&plan, &Rest { ended: Ended::SimulatedLimit, simulated: 1, waiting: Vec::new() }, &mut sink);
        assert!(sink.properties.broken().any(|(name, _)| name == "eventual"));
    }
}
