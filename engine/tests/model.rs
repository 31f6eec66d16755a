//! Random operations on two sessions, against a model that is obviously right: each direction of a stream is
//! what was accepted, and how much of it was read.
//!
//! After each step both sessions are consistent, and what was read is a prefix of what was written; in the end
//! everything that was promised has happened. A failure prints the shortest list of operations that shows it,
//! and its seed is kept beside this file. `PROPTEST_CASES=100000` hunts longer.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{Pair, config, events, pattern};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use towline_engine::{Code, Dir, Event, ReadError, Side, StreamId, Urgency, WriteError};

/// What an application may do, and what the pipe does. Streams are chosen by number, modulo how many there are.
#[derive(Clone, Copy, Debug)]
enum Op {
    Open(Side, Dir),
    Accept(Side, Dir),
    Write(Side, u8, u16),
    Read(Side, u8, u16),
    Finish(Side, u8),
    Reset(Side, u8, u8),
    ResetWhenSent(Side, u8, u8),
    Stop(Side, u8, u8),
    Release(Side, u8),
    SetUrgency(Side, u8, u8),
    Ping(Side),
    CopyOut(Side),
    Transmit(Side),
    Deliver(Side, u16),
    Wait(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Server)];
    let dir = || prop_oneof![Just(Dir::Bi), Just(Dir::Uni)];
    prop_oneof![
        2 => (side(), dir()).prop_map(|(side, dir)| Op::Open(side, dir)),
        3 => (side(), dir()).prop_map(|(side, dir)| Op::Accept(side, dir)),
        8 => (side(), any::<u8>(), 0..600u16).prop_map(|(side, n, count)| Op::Write(side, n, count)),
        8 => (side(), any::<u8>(), 1..600u16).prop_map(|(side, n, count)| Op::Read(side, n, count)),
        2 => (side(), any::<u8>()).prop_map(|(side, n)| Op::Finish(side, n)),
        1 => (side(), any::<u8>(), any::<u8>()).prop_map(|(side, n, code)| Op::Reset(side, n, code)),
        1 => (side(), any::<u8>(), any::<u8>()).prop_map(|(side, n, code)| Op::ResetWhenSent(side, n, code)),
        1 => (side(), any::<u8>(), any::<u8>()).prop_map(|(side, n, code)| Op::Stop(side, n, code)),
        1 => (side(), any::<u8>()).prop_map(|(side, n)| Op::Release(side, n)),
        1 => (side(), any::<u8>(), 0..3u8).prop_map(|(side, n, urgency)| Op::SetUrgency(side, n, urgency)),
        1 => side().prop_map(Op::Ping),
        1 => side().prop_map(Op::CopyOut),
        8 => side().prop_map(Op::Transmit),
        8 => (side(), 1..2000u16).prop_map(|(side, count)| Op::Deliver(side, count)),
        1 => any::<u8>().prop_map(Op::Wait),
    ]
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    written: usize,
    read: usize,
    finished: bool,
    reset: Option<Code>,
    /// The reset comes after everything that was written.
    last_words: bool,
    stopped: Option<Code>,
    saw_end: bool,
}

#[derive(Default)]
struct Model {
    /// By stream and by who sends.
    halves: BTreeMap<(StreamId, Side), Half>,
    /// The streams that each end's application has.
    held: [Vec<StreamId>; 2],
    /// The streams that were ever accepted.
    accepted: BTreeSet<StreamId>,
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

impl Model {
    fn pick(&self, side: Side, number: u8) -> Option<StreamId> {
        let held = &self.held[index(side)];
        (!held.is_empty()).then(|| held[usize::from(number) % held.len()])
    }

    fn half(&mut self, id: StreamId, sender: Side) -> &mut Half {
        self.halves.entry((id, sender)).or_default()
    }

    fn apply(&mut self, pair: &mut Pair, op: Op) {
        match op {
            Op::Open(side, dir) => {
                if let Ok(id) = pair.end(side).open(dir) {
                    self.held[index(side)].push(id);
                }
            }
            Op::Accept(side, dir) => {
                self.accept(pair, side, dir);
            }
            Op::Write(side, number, count) => {
                let Some(id) = self.pick(side, number) else { return };
                let half = self.half(id, side);
                match common::write_some(pair.end(side), id, half.written, count.into()) {
                    Ok(accepted) => {
                        assert!(!half.finished && half.reset.is_none(), "nothing is accepted after the end");
                        half.written += accepted;
                    }
                    Err(WriteError::Stopped(code)) => (half.reset, half.last_words) = (Some(code), false),
                    Err(WriteError::Finished) => assert!(half.finished || half.reset.is_some()),
                    Err(WriteError::Blocked | WriteError::ReceiveOnly) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Read(side, number, count) => {
                if let Some(id) = self.pick(side, number) {
                    self.read(pair, side, id, count.into());
                }
            }
            Op::Finish(side, number) => {
                let Some(id) = self.pick(side, number) else { return };
                if pair.end(side).stream(id).unwrap().finish().is_ok() {
                    self.half(id, side).finished = true;
                }
            }
            Op::Reset(side, number, code) => {
                let Some(id) = self.pick(side, number) else { return };
                let code = Code::from(u32::from(code));
                if pair.end(side).stream(id).unwrap().reset(code).is_ok() {
                    let half = self.half(id, side);
                    (half.reset, half.last_words) = (Some(code), false);
                }
            }
            Op::ResetWhenSent(side, number, code) => {
                let Some(id) = self.pick(side, number) else { return };
                let code = Code::from(u32::from(code));
                if pair.end(side).stream(id).unwrap().reset_when_sent(code).is_ok() {
                    let half = self.half(id, side);
                    (half.reset, half.last_words) = (Some(code), true);
                }
            }
            Op::Stop(side, number, code) => {
                let Some(id) = self.pick(side, number) else { return };
                let code = Code::from(u32::from(code));
                if pair.end(side).stream(id).unwrap().stop(code).is_ok() {
                    self.half(id, side.peer()).stopped = Some(code);
                }
            }
            Op::Release(side, number) => {
                if let Some(id) = self.pick(side, number) {
                    self.release(pair, side, id);
                }
            }
            Op::SetUrgency(side, number, urgency) => {
                let Some(id) = self.pick(side, number) else { return };
                let urgency = [Urgency::Interactive, Urgency::Normal, Urgency::Bulk][usize::from(urgency)];
                pair.end(side).stream(id).unwrap().set_urgency(urgency);
            }
            Op::Ping(side) => pair.end(side).ping(),
            Op::CopyOut(side) => pair.end(side).copy_out(),
            Op::Transmit(side) => _ = pair.transmit(side),
            Op::Deliver(side, count) => _ = pair.deliver(side, count.into()),
            Op::Wait(millis) => pair.advance_cut_off(Duration::from_millis(millis.into())),
        }
    }

    fn accept(&mut self, pair: &mut Pair, side: Side, dir: Dir) -> bool {
        let Some(id) = pair.end(side).accept(dir) else { return false };
        assert!(self.accepted.insert(id), "surfaced_once");
        self.held[index(side)].push(id);
        true
    }

    /// Reads, and checks what was read against the model. Returns whether that was all there was.
    fn read(&mut self, pair: &mut Pair, side: Side, id: StreamId, most: usize) -> bool {
        let half = self.halves.entry((id, side.peer())).or_default();
        match pair.end(side).stream(id).unwrap().read(most) {
            Ok(Some(bytes)) => {
                assert!(!bytes.is_empty() && bytes.len() <= most && half.stopped.is_none() && !half.saw_end);
                for &byte in &bytes {
                    assert_eq!(byte, pattern(half.read), "exact_prefix");
                    half.read += 1;
                }
                assert!(half.read <= half.written, "exact_prefix");
                return false;
            }
            Ok(None) => {
                assert!(half.finished && half.read == half.written, "eof_iff_fin");
                half.saw_end = true;
            }
            Err(ReadError::Reset(code)) => {
                half.saw_end = true;
                if half.reset != Some(code) {
                    // It was abandoned before the peer's application could see it, so the peer refused it.
                    let refused = Half { reset: Some(code), saw_end: true, ..Half::default() };
                    *half = refused;
                    assert_eq!(self.half(id, side).reset, Some(code));
                    assert!(id.opener() == side && !self.accepted.contains(&id));
                }
            }
            Err(ReadError::Stopped) => assert!(half.stopped.is_some()),
            Err(ReadError::Blocked) => assert!(!half.saw_end),
            Err(ReadError::SendOnly) => {}
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn release(&mut self, pair: &mut Pair, side: Side, id: StreamId) {
        let code = Code::from(99);
        // A release resets what has not ended. To know whether it does, the model resets it first.
        let half = self.half(id, side);
        let has_ended = half.finished || half.last_words;
        if !has_ended && pair.end(side).stream(id).unwrap().reset(code).is_ok() {
            self.half(id, side).reset = Some(code);
        }
        let peer = self.half(id, side.peer());
        peer.stopped = peer.stopped.or(Some(code));
        pair.end(side).release(id, code);
        self.held[index(side)].retain(|&held| held != id);
    }

    /// Lets everything that was promised happen, and checks that it has.
    fn settle(&mut self, pair: &mut Pair) {
        loop {
            pair.run();
            let mut quiet = true;
            for side in [Side::Client, Side::Server] {
                for dir in [Dir::Bi, Dir::Uni] {
                    while self.accept(pair, side, dir) {
                        quiet = false;
                    }
                }
                for id in self.held[index(side)].clone() {
                    while !self.read(pair, side, id, usize::MAX) {
                        quiet = false;
                    }
                }
            }
            if quiet {
                break;
            }
        }
        for (&(id, sender), half) in &self.halves {
            let receiver_holds = self.held[index(sender.peer())].contains(&id);
            // Also what was finished by an application that has released the stream since.
            if receiver_holds && half.stopped.is_none() && half.reset.is_none() {
                assert_eq!(half.read, half.written, "accepted_means_owed: {id:?} from {sender:?}");
                assert_eq!(half.saw_end, half.finished, "eof_iff_fin: {id:?} from {sender:?}");
            }
            if receiver_holds && half.stopped.is_none() && half.last_words {
                assert_eq!(half.read, half.written, "accepted_means_owed: {id:?} from {sender:?}");
            }
        }
        for side in [Side::Client, Side::Server] {
            for id in self.held[index(side)].clone() {
                self.release(pair, side, id);
            }
        }
        pair.run();
        for side in [Side::Client, Side::Server] {
            let (end, window) = (pair.end(side), 4000);
            assert_eq!(end.open_streams(), 0, "no_residue");
            let credit = end.credit();
            assert_eq!(
                (credit.unread, credit.promised + credit.withheld),
                (0, window),
                "credit_conservation"
            );
            assert!(!events(end).iter().any(|event| matches!(event, Event::Closed(_))));
            assert!(!end.wants_transmit());
        }
        assert_eq!(pair.service.credit().available, pair.device.credit().promised, "credit_conservation");
        assert_eq!(pair.device.credit().available, pair.service.credit().promised, "credit_conservation");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn two_sessions_agree_with_the_model(ops in proptest::collection::vec(op(), 1..250)) {
        let mut pair = Pair::new(config(|c| {
            (c.stream_window, c.session_window) = (1000, 4000);
            (c.max_streams_bidi, c.max_streams_uni, c.send_buffer) = (3, 3, 3000);
        }));
        pair.cut = 700;
        let mut model = Model::default();
        for op in ops {
            model.apply(&mut pair, op);
            pair.service.check_invariants();
            pair.device.check_invariants();
        }
        model.settle(&mut pair);
    }
}
