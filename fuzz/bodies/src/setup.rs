//! Where a run begins: which end, which limits, and how far it has come.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use towline_engine::{Config, Dir, Resumption, Side};
use towline_model::{ID, SECRET};

use crate::step::Step;

/// The first two bytes of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which end is under test.
    pub side: Side,
    /// Whether both ends want the session to outlive its pipe.
    pub resumable: bool,
    /// What has happened before the first step.
    pub stage: Stage,
    /// The owner calls `copy_out` after each input, as the memory formula has it.
    pub copies_out: bool,
    /// See `Config::fail_fast`.
    pub fail_fast: bool,
    /// See `Config::optimistic_resend`.
    pub optimistic: bool,
    /// Which limits: see [`Setup::config`].
    pub limits: u8,
}

/// What has happened before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is a pipe on which nothing was said.
    Fresh,
    /// Both ends have declared themselves.
    Met,
    /// And there are two streams of the session's own.
    Busy,
    /// And there is another pipe, on which nothing was said, if the session can resume.
    Again,
}

impl<'a> Arbitrary<'a> for Setup {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let [flags, limits] = u.arbitrary::<[u8; 2]>()?;
        let has = |bit: u8| flags & 1 << bit != 0;
        Ok(Self {
            side: if has(0) { Side::Client } else { Side::Server },
            resumable: has(1),
            stage: match flags >> 2 & 3 {
                0 => Stage::Fresh,
                1 => Stage::Met,
                2 => Stage::Busy,
                _ => Stage::Again,
            },
            copies_out: !has(4),
            fail_fast: has(5),
            optimistic: !has(6),
            limits: limits % LIMITS,
        })
    }
}

/// How many sets of limits there are.
pub(crate) const LIMITS: u8 = 6;

/// How much goes out before the peer has declared itself, in the last of them.
const EARLY_WINDOW: u64 = 100;

impl Setup {
    /// The bytes that `arbitrary` makes this of.
    pub fn put(self, out: &mut Vec<u8>) {
        let flags = [
            self.side == Side::Client,
            self.resumable,
            matches!(self.stage, Stage::Met | Stage::Again),
            matches!(self.stage, Stage::Busy | Stage::Again),
            !self.copies_out,
            self.fail_fast,
            !self.optimistic,
        ];
        out.push((0..).zip(flags).map(|(bit, flag)| u8::from(flag) << bit).sum());
        out.push(self.limits);
    }

    /// The limits, of which no two ask the same question.
    pub fn config(self) -> Config {
        let mut config = match self.limits {
            // Small, so that a short run meets every limit.
            0 => towline_model::config(),
            // As small as it gets.
            1 => limits(20, 30, 2, 16),
            // Many streams, and little for each of them.
            2 => limits(4096, 8192, 64, 4096),
            // What users have.
            3 => Config::default(),
            // As large as it gets, but for the number of streams, which the peer decides about.
            4 => {
                let mut config = limits(u64::MAX, u64::MAX, 100, u64::MAX);
                config.max_record_size = 1 << 20;
                (config.idle_timeout, config.close_timeout) = (Duration::MAX, Duration::MAX);
                config.grace = Duration::MAX;
                config
            }
            // What users have, and what goes out before the peer has declared itself: as on a link to a hub, unless it can resume.
            _ => {
                let mut config = Config::default();
                config.early_window = EARLY_WINDOW;
                config
            }
        };
        if self.resumable {
            config.resumption = match self.side {
                Side::Client => Resumption::Offer(ID, SECRET),
                Side::Server => Resumption::Accept,
            };
        }
        config.fail_fast = self.fail_fast;
        config.optimistic_resend = self.optimistic;
        config
    }

    /// What happens before the first step.
    pub fn first_steps(self) -> Vec<Step<'static>> {
        let met = [Step::Greet, Step::Transmit { max: 1 << 14 }];
        let busy = [
            Step::Open(Dir::Bi),
            Step::Open(Dir::Uni),
            Step::Write { stream: 0, length: 10, copied: true },
            Step::Write { stream: 1, length: 10, copied: true },
            Step::Finish(1),
            Step::Transmit { max: 1 << 14 },
        ];
        let again = [Step::PipeClosed { back: 0, failed: true }, Step::Attach { ahead: 1 }];
        let mut steps = Vec::new();
        if self.stage != Stage::Fresh {
            steps.extend(met);
        }
        if matches!(self.stage, Stage::Busy | Stage::Again) {
            steps.extend(busy);
        }
        if self.stage == Stage::Again && self.resumable {
            steps.extend(again);
        }
        steps
    }
}

fn limits(stream_window: u64, session_window: u64, streams: u64, send_buffer: u64) -> Config {
    let mut config = Config::default();
    (config.stream_window, config.session_window) = (stream_window, session_window);
    (config.max_streams_bidi, config.max_streams_uni) = (streams, streams);
    config.send_buffer = send_buffer;
    config
}
