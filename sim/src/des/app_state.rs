//! What an application knows of a stream: what it has said and read, and what the plan lets it say by now.

use towline_engine::StreamId;

use crate::random::Stream;
use crate::scenario::{End, Rate, StreamPlan};

/// One end of a stream, as its application has it.
pub(super) struct App {
    pub(super) stream: usize,
    pub(super) id: StreamId,
    /// 0 at the service, 1 at the device.
    pub(super) side: usize,
    pub(super) draws: Stream,
    /// What this end has said, and read.
    pub(super) written: u64,
    pub(super) read: u64,
    /// How many rounds have begun, at the service, and since when.
    pub(super) rounds: u64,
    pub(super) began: u64,
    /// When the next round may begin.
    pub(super) thinks_until: Option<u64>,
    /// When it may read on.
    pub(super) reads_at: u64,
    /// When it resets what it has finished.
    pub(super) resets_at: Option<u64>,
    /// A session that drains has refused it.
    pub(super) is_refused: bool,
    pub(super) has_said_all: bool,
    pub(super) can_write: bool,
    pub(super) can_read: bool,
    pub(super) sent: bool,
    pub(super) received: bool,
    pub(super) released: bool,
    pub(super) is_woken_at: u64,
}

impl App {
    pub(super) fn new(stream: usize, id: StreamId, side: usize, draws: Stream) -> Self {
        Self {
            stream,
            id,
            side,
            draws,
            written: 0,
            read: 0,
            rounds: 0,
            began: 0,
            thinks_until: None,
            reads_at: 0,
            resets_at: None,
            is_refused: false,
            has_said_all: false,
            can_write: true,
            can_read: true,
            sent: false,
            received: false,
            released: false,
            is_woken_at: 0,
        }
    }

    /// Whether both halves have come to an end.
    pub(super) fn is_over(&self) -> bool {
        self.sent && self.received
    }

    /// The stream is refused: nothing more is done with it here. Returns whether it was the service's, and in use.
    pub(super) fn take_back(&mut self) -> bool {
        let is_in_use = self.side == 0 && !self.released;
        self.released |= is_in_use;
        is_in_use
    }

    /// Whether it has given the stream back.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// Whether it has more to say, and waits to be told that it can.
    pub(super) fn waits_to_write(&self) -> bool {
        !self.can_write && !self.has_said_all && !self.released
    }

    /// How many bytes it may have said by now.
    pub(super) fn may_say(&self, plan: &StreamPlan, is_stopped: bool) -> u64 {
        match self.side {
            0 if plan.both_ways || is_stopped => plan.up.0 * plan.rounds,
            0 => plan.up.0 * self.rounds,
            _ if plan.both_ways || plan.up.0 == 0 => plan.down.0 * plan.rounds,
            _ => plan.down.0 * (self.read / plan.up.0),
        }
    }

    /// Whether it ends its half, having said everything: some services read all that there is before they do.
    pub(super) fn may_finish(&self, plan: &StreamPlan) -> bool {
        let has_read_all = self.received || self.read >= plan.down.0 * plan.rounds;
        self.side == 1 || plan.half_closes || plan.end != End::Finish || has_read_all
    }

    pub(super) fn says_in_all(&self, plan: &StreamPlan) -> u64 {
        plan.rounds * if self.side == 0 { plan.up.0 } else { plan.down.0 }
    }

    pub(super) fn rate(&self, plan: &StreamPlan) -> Option<Rate> {
        if self.side == 0 { plan.service_reads } else { plan.device_reads }
    }
}
