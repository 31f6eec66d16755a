//! What `towline-sim export-corpus` writes is read here as it was meant.
#![allow(clippy::unwrap_used, reason = "tests")]

use arbitrary::Unstructured;
use bytes::Bytes;
use towline_engine::{CloseReason, Event, Session};
use towline_fuzz_bodies::TARGETS;
use towline_fuzz_bodies::harness::Harness;
use towline_fuzz_bodies::setup::{Setup, Stage};
use towline_fuzz_bodies::step::{self, Step};
use towline_fuzz_bodies::targets::{pair_ops, parameters, record_frame, session_bytes};
use towline_model::Op;
use towline_sim::corpus::Corpus;
use towline_sim::scenario::Backend;

/// What two scenarios are good for, one with half-closes and resets, one with pipes that are lost.
fn corpus() -> Corpus {
    let mut corpus = Corpus::new(100);
    for name in ["many-small-streams", "link-loss"] {
        let scenario = towline_sim::scenarios::named(name).unwrap().unwrap();
        for seed in 0..3 {
            corpus.add(&scenario.expand(seed, Some(Backend::Des)).unwrap()).unwrap();
        }
    }
    corpus
}

fn violation(session: &mut Session) -> Option<CloseReason> {
    std::iter::from_fn(|| session.poll_event()).find_map(|event| match event {
        Event::Closed(why @ CloseReason::Violation(_)) => Some(why),
        _ => None,
    })
}

#[test]
fn every_input_keeps_what_its_target_promises() {
    let corpus = corpus();
    for target in TARGETS {
        corpus.of(target.name).iter().for_each(|(_, input)| (target.run)(input));
    }
}

#[test]
fn what_came_from_a_pipe_breaks_no_rule() {
    let corpus = corpus();
    let mut fresh = 0;
    for (name, input) in corpus.of("record_frame") {
        let input = record_frame::Input::new(input);
        // On a later pipe the peer speaks of streams that this session does not have.
        if input.setup.stage == Stage::Fresh {
            let (mut session, now, epoch) = Harness::new(input.setup).into_session();
            session.handle_input(now, epoch, Bytes::copy_from_slice(input.bytes));
            assert_eq!(violation(&mut session), None, "{name}");
            assert!(session.stats().bytes_received > 50);
            fresh += 1;
        }
    }
    assert!(fresh > 5, "{fresh} from first pipes");
}

#[test]
fn what_happened_to_a_session_is_read_as_it_was_written_and_breaks_no_rule() {
    let corpus = corpus();
    let (mut opened, mut moved) = (0, 0);
    for (name, bytes) in corpus.of("session_bytes") {
        let mut u = Unstructured::new(bytes);
        let setup: Setup = u.arbitrary().unwrap();
        let steps: Vec<_> = step::steps(&mut u).collect();
        let mut again = Vec::new();
        setup.put(&mut again);
        steps.iter().for_each(|step| step.put(&mut again));
        // An opcode may have more than one number.
        assert_eq!(again.len(), bytes.len(), "{name}");
        assert_eq!(session_bytes::Input::new(bytes).steps, steps);
        let mut harness = Harness::new(setup);
        steps.iter().filter(|step| !matches!(step, Step::Events)).for_each(|step| harness.apply(step));
        let (mut session, ..) = harness.into_session();
        assert_eq!(violation(&mut session), None, "{name}: {steps:#?}");
        opened += steps.iter().filter(|step| matches!(step, Step::Open(_) | Step::Accept(_))).count();
        moved += steps.iter().filter(|step| matches!(step, Step::Attach { .. })).count();
    }
    assert!(opened > 50 && moved > 0, "{opened} streams and {moved} later pipes");
}

#[test]
fn what_happened_to_both_ends_is_a_list_of_operations() {
    let corpus = corpus();
    let ops: Vec<_> =
        corpus.of("pair_ops").iter().flat_map(|(_, input)| pair_ops::Input::new(input).ops).collect();
    let count = |is_it: fn(&Op) -> bool| ops.iter().filter(|op| is_it(op)).count();
    for (what, count) in [
        ("opened", count(|op| matches!(op, Op::Open(..)))),
        ("accepted", count(|op| matches!(op, Op::Accept(..)))),
        ("written", count(|op| matches!(op, Op::Write(..)))),
        ("read", count(|op| matches!(op, Op::Read(..)))),
        ("transmitted", count(|op| matches!(op, Op::Transmit(..)))),
        ("delivered", count(|op| matches!(op, Op::Deliver(..)))),
        ("finished", count(|op| matches!(op, Op::Finish(..)))),
        ("reset", count(|op| matches!(op, Op::Reset(..) | Op::ResetWhenSent(..)))),
        ("cut", count(|op| matches!(op, Op::Cut { .. }))),
        ("reconnected", count(|op| matches!(op, Op::Reconnect))),
    ] {
        assert!(count > 0, "nothing was {what}");
    }
}

#[test]
fn what_was_declared_is_lawful() {
    let corpus = corpus();
    assert!(corpus.of("parameters").len() >= 2, "that of a client and that of a server");
    for (name, input) in corpus.of("parameters") {
        let input = parameters::Input::new(input);
        assert!(parameters::Declared::read(input.body).is_some(), "{name}: {input:?}");
    }
}

#[test]
fn a_later_pipe_is_let_in() {
    let corpus = corpus();
    assert!(!corpus.of("resume").is_empty());
    for (name, input) in corpus.of("resume") {
        let input = towline_fuzz_bodies::targets::resume::input(input);
        let mut harness = Harness::new(input.setup);
        input.steps.iter().for_each(|step| harness.apply(step));
        let (session, ..) = harness.into_session();
        assert!(!session.is_detached(), "{name}: it has the secret, and the next number");
    }
}
