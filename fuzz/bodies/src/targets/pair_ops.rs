//! Two sessions, driven by an arbitrary list of operations and a schedule of cuts and resumes, against the model.
//!
//! Oracles: those of `towline_model::Checked`: `exact_prefix`, `eof_iff_fin`, `surfaced_once`, `accepted_means_owed`,
//! `credit_conservation`, `no_residue`, `drain_partition`; no protocol error between two that keep the rules; and, for
//! those whose reader stopped, `blocked_writer_wakes`.

use std::time::Duration;

use arbitrary::Unstructured;
use towline_engine::{Config, Dir, Sending};
use towline_model::{BOTH, Checked, Op};

/// An input as it was meant.
#[derive(Debug)]
pub struct Input {
    /// Whether both ends want the session to outlive its pipe.
    pub resumable: bool,
    /// The limits, the same for both.
    pub config: Config,
    /// What happens.
    pub ops: Vec<Op>,
}

impl Input {
    /// Any bytes are an input.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn new(data: &[u8]) -> Self {
        let mut u = Unstructured::new(data);
        let first: u8 = u.arbitrary().expect("missing bytes are zeros");
        let ops = std::iter::from_fn(|| if u.is_empty() { None } else { u.arbitrary().ok() });
        let ops = ops.map(Op::decode).take(MOST_OPS).collect();
        let resumable = first & 1 != 0;
        let mut config = config(first >> 1);
        if !resumable {
            config.idle_timeout = Duration::ZERO; // a peer that is silent for long ends a bare session, as it should
        }
        Self { resumable, config, ops }
    }
}

/// No input is so long that its run takes a second.
const MOST_OPS: usize = 2000;

/// The limits that a byte chooses.
fn config(choice: u8) -> Config {
    let mut config = towline_model::config();
    // A window of a byte, one smaller than a write, one that is never full.
    config.stream_window = [1000, 1, 100, 1 << 20][usize::from(choice & 3)];
    config.session_window = [4000, 1, 700, 1 << 20][usize::from(choice >> 2 & 3)];
    config.send_buffer = [3000, 8, 300, 1 << 20][usize::from(choice >> 4 & 3)];
    if choice & 1 << 6 != 0 {
        (config.max_streams_bidi, config.max_streams_uni) = (1, 40);
        config.max_record_size = 1 << 17;
        config.optimistic_resend = false;
    }
    config
}

/// Runs an input.
///
/// # Panics
///
/// If the sessions do not do what the model says.
pub fn run(data: &[u8]) {
    let Input { resumable, config, ops } = Input::new(data);
    let mut checked = Checked::new(&config, resumable);
    for op in ops {
        checked.apply(op);
    }
    check_stops(checked.clone());
    checked.settle();
}

/// Once everything has arrived, who writes to somebody who stopped reading knows that, whatever became of the pipe.
fn check_stops(mut checked: Checked) {
    checked.world.recover();
    let halves: Vec<_> = checked.model.halves().map(|(id, sender, half)| (id, sender, *half)).collect();
    for (id, sender, half) in halves {
        let sends = id.dir() == Dir::Bi || id.opener() == sender;
        // Who is told that the session is over, or will be, needs to be told nothing else.
        let is_over = BOTH.into_iter().any(|side| checked.world.peek(side).is_closed());
        let goes_on = sends && !half.finished && half.reset.is_none() && !is_over;
        if half.stopped.is_some() && goes_on && checked.model.held(sender).contains(&id) {
            let stream = checked.world.end(sender).stream(id).expect("a stream that is held is there");
            assert!(
                matches!(stream.sending(), Sending::Stopped(_)),
                "blocked_writer_wakes: {id:?}, {half:?}"
            );
        }
    }
}
