//! What a session may have in memory: measured by counting allocations, and bounded by a formula.
//!
//! Everything that the engine does goes through [`Meter::run`], so that what it allocates and frees is known to the
//! byte; what a fuzzer's body keeps for itself is not counted.

use towline_engine::Config;

/// Counts the bytes that a session, or an acceptor, has allocated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    live: i64,
    peak: i64,
}

impl Meter {
    /// Does something to what is measured. What `act` returns must own no memory.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn run<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let mut result = None;
        let info = allocation_counter::measure(|| result = Some(act()));
        self.peak = self.live + i64::try_from(info.bytes_max).expect("less than there is memory");
        self.live += info.bytes_current;
        result.expect("it was just done")
    }

    /// The bytes that are allocated now.
    pub fn live(&self) -> i64 {
        self.live
    }

    /// The most bytes that were allocated at a time during the last [`run`](Self::run).
    pub fn peak(&self) -> i64 {
        self.peak
    }
}

/// The formula: what a session with `config` has in memory at most, in bytes, if at most `streams` were open at a
/// time since it began, and its owner calls `copy_out` after each `handle_input`.
///
/// What the application gives with `write_chunk` is its own memory and not part of it.
pub fn bound(config: &Config, streams: usize) -> u64 {
    let streams = streams as u64;
    let payload = config.session_window.saturating_add(config.send_buffer);
    // At the front of each queue is a chunk of which some was taken. It pins at most four times what is left, and no
    // more than a record came with, or a write is cut into.
    let front =
        config.max_record_size.min(config.stream_window).saturating_add(PIECE.min(config.send_buffer));
    let fronts = streams.saturating_mul(front).min(payload.saturating_mul(2));
    (payload.saturating_mul(PAYLOAD_QUARTERS) / 4)
        .saturating_add(fronts)
        .saturating_add(streams.saturating_mul(PER_STREAM))
        .saturating_add(config.max_record_size.saturating_mul(RECORDS))
        .saturating_add(FIXED)
}

/// What it may have for a moment more, while `fed` bytes of a record are read.
pub fn momentary_bound(config: &Config, fed: u64) -> u64 {
    config.max_record_size.min(fed).saturating_mul(MOMENTARY_RECORDS)
}

/// What an acceptor has in memory at most, in bytes, besides what came last.
pub fn acceptor_bound(config: &Config) -> u64 {
    config.max_record_size.saturating_mul(ACCEPTOR_RECORDS).saturating_add(FIXED)
}

/// Quarters of a byte for each byte of payload. Twice what is there, as small pieces are merged in buffers that grow by
/// doubling; and a node of 48 bytes for each two chunks, of which no two neighbours are below 1 KiB together.
pub const PAYLOAD_QUARTERS: u64 = 9;

/// How large a copy of what is written is in one piece.
pub const PIECE: u64 = 48 << 10;

/// Bytes for each stream: its entry, 218; its places in seven queues that grow by doubling; a node in three queues.
pub const PER_STREAM: u64 = 640;

/// Records' lengths: the start of one that was cut, in a buffer that grows by doubling, and the headers of one.
pub const RECORDS: u64 = 4;

/// Records' lengths for a moment: a RESUME_REFUSED says of a stream in two bytes what takes sixteen in memory, in a
/// buffer that grows by doubling; and what came is there as well.
pub const MOMENTARY_RECORDS: u64 = 30;

/// Records' lengths: those that an acceptor keeps for a session, in a buffer that grows by doubling and is copied.
pub const ACCEPTOR_RECORDS: u64 = 8;

/// Bytes for the session itself: what small arenas and queues keep when they run empty.
pub const FIXED: u64 = 6 << 10;
