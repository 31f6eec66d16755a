//! Seeds for the fuzzers, of what happens in scenarios.
//!
//! In: what was called on the sessions of runs ([`Calls`]). Out: for each fuzz target, inputs in its encoding, none twice, and
//! no more than are asked for. Keeps: the inputs, and their hashes. Payload is zeros.
//!
//! | target | an input is |
//! |---|---|
//! | `record_frame` | what came from one pipe of a session's, as far as it makes sense to who only listens |
//! | `session_bytes` | all that happened to one end: bytes, what the application did, the clock, pipes |
//! | `pair_ops` | what happened to both ends, as operations of the model |
//! | `parameters` | what an end has declared |
//! | `resume` | how a later pipe begins, for a session that is there |

mod calls;
mod ops;
mod steps;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use towline_engine::Side;
use towline_transports::qlog::Event;

use crate::event::TraceHash;
use crate::run::{Sink, run};
use crate::scenario::Plan;
pub use calls::Calls;
use calls::{Heard, Session};
use ops::Ops;
use steps::Steps;
use wire::Input;

/// The targets that there are seeds for.
pub const TARGETS: [&str; 5] = ["pair_ops", "parameters", "record_frame", "resume", "session_bytes"];

/// The longest input, in bytes: the fuzzers make no longer ones.
pub const MOST_BYTES: usize = 4_096;

/// Inputs, for each target, in the order in which they were found.
#[derive(Debug)]
pub struct Corpus {
    most: usize,
    seen: BTreeSet<(&'static str, String)>,
    inputs: BTreeMap<&'static str, Vec<(String, Vec<u8>)>>,
    /// How many were left out since there were enough.
    left_out: BTreeMap<&'static str, usize>,
}

impl Corpus {
    /// One of at most so many inputs for each target.
    pub fn new(most: usize) -> Self {
        Self { most, seen: BTreeSet::new(), inputs: BTreeMap::new(), left_out: BTreeMap::new() }
    }

    /// Adds what happens in a plan.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn add(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let calls = Calls::default();
        run(plan, Sink::hearing(calls.clone()))?;
        let heard = calls.take();
        for index in 0..heard.sessions.len() {
            self.add_end(&heard, index);
        }
        self.add_pairs(&heard);
        Ok(())
    }

    /// The inputs of a target: each one's name, which is its hash, and its bytes.
    pub fn of(&self, target: &str) -> &[(String, Vec<u8>)] {
        self.inputs.get(target).map_or(&[], Vec::as_slice)
    }

    /// How many inputs of a target were left out.
    pub fn left_out(&self, target: &str) -> usize {
        self.left_out.get(target).copied().unwrap_or(0)
    }

    fn put(&mut self, target: &'static str, input: Vec<u8>) {
        let mut hash = TraceHash::default();
        hash.add_bytes(&input);
        let name = hash.to_string();
        if !self.seen.insert((target, name.clone())) {
            return;
        }
        let inputs = self.inputs.entry(target).or_default();
        if inputs.len() < self.most {
            inputs.push((name, input));
        } else {
            *self.left_out.entry(target).or_default() += 1;
        }
    }

    /// What one end of a session is good for.
    fn add_end(&mut self, heard: &Heard, index: usize) {
        let session = &heard.sessions[index];
        let events = || heard.events.iter().filter(|(whose, ..)| *whose == index);
        let input = Input::new(events().map(|(.., event)| event));
        let mut steps = Steps::new(session);
        let mut left = input.clone();
        for (_, time, event) in events() {
            steps.add(*time, event, &mut left);
            if steps.is_full() {
                break;
            }
        }
        self.put("session_bytes", steps.finish());
        let first = |event: &Event| match event {
            Event::PacketReceived(packet) if packet.header.epoch == 0 => {
                Some(wire::heard_alone(session.side, packet))
            }
            _ => None,
        };
        let alone: Vec<u8> = events().filter_map(|(.., event)| first(event)).flatten().collect();
        self.put("record_frame", flight(session, false, &alone));
        for (epoch, bytes) in input.later_pipes() {
            self.put("record_frame", flight(session, true, &bytes));
            if session.side == Side::Server {
                self.put("resume", arrival(session, epoch, &bytes));
            }
        }
        for (.., event) in events() {
            self.add_parameters(session, event);
        }
    }

    fn add_parameters(&mut self, session: &Session, event: &Event) {
        if let Event::PacketReceived(packet) = event
            && let Some(body) = wire::parameters_of(packet)
        {
            const CLIENT: u8 = 1;
            const RESUMABLE: u8 = 2;
            let is_client = if session.side == Side::Client { CLIENT } else { 0 };
            let is_resumable = if session.resumable { RESUMABLE } else { 0 };
            self.put("parameters", [&[is_client | is_resumable, 0], &body[..]].concat());
        }
    }

    /// What both ends of a session are good for.
    fn add_pairs(&mut self, heard: &Heard) {
        let mut pairs: BTreeMap<&str, Ops> = BTreeMap::new();
        for (whose, time, event) in &heard.events {
            let session = &heard.sessions[*whose];
            let ops = pairs.entry(&session.name).or_insert_with(|| Ops::new(session.resumable));
            if !ops.is_full() {
                ops.add(session, *time, event);
            }
        }
        for ops in pairs.into_values() {
            self.put("pair_ops", ops.finish());
        }
    }
}

/// What comes from a pipe in one go, and how it is cut: a little, much, everything, and what is none of these.
fn flight(session: &Session, again: bool, bytes: &[u8]) -> Vec<u8> {
    const CUTS: [u8; 4] = [7, 1, 0, 40];
    let mut input = steps::setup(session, again);
    input.extend(CUTS);
    input.extend_from_slice(&bytes[..bytes.len().min(MOST_BYTES - input.len())]);
    input
}

/// A later pipe arrives: `epoch` is not 0.
fn arrival(session: &Session, epoch: u64, bytes: &[u8]) -> Vec<u8> {
    let mut input = steps::setup(session, true);
    // The fuzzer's session waits for the first pipe after its own.
    if epoch > 1 {
        steps::put_loss(true, &mut input);
        steps::put_attach(epoch - 1, &mut input);
    }
    // Each piece of 255 bytes takes two more.
    let most = (MOST_BYTES - input.len()) * 255 / 257 - 2;
    steps::put_bytes(&bytes[..bytes.len().min(most)], &mut input);
    input
}
