//! Uploads over a session end to end whose windows hold nobody up.

use std::time::Duration;

use towline_engine::{Dir, ReadError, Side, StreamId, Urgency, WriteError};

use super::common::{Pair, config, read_all, write_some};

/// What a short path takes, and the send buffer.
pub(crate) const SHORT_PATH: u64 = 256 << 10;
pub(crate) const SEND_BUFFER: u64 = 1 << 20;

/// A session end to end whose windows hold nobody up, over a path without length.
pub(crate) fn pair() -> Pair {
    pair_with(SEND_BUFFER)
}

/// As [`pair`], with such a send buffer.
pub(crate) fn pair_with(send_buffer: u64) -> Pair {
    let mut pair = Pair::resumable(config(|c| {
        (c.stream_window, c.send_buffer, c.keep_alive) = (4 << 20, send_buffer, None);
    }));
    pair.cut = 1 << 20;
    pair
}

/// Writes to the stream, and hands to the pipe, where it stays, as much as may be. Returns how much.
pub(crate) fn fill(pair: &mut Pair, id: StreamId) -> u64 {
    let mut written = 0;
    loop {
        match write_some(&mut pair.service, id, 0, 1 << 20) {
            Ok(count) => written += count as u64,
            Err(error) => {
                assert_eq!(error, WriteError::Blocked);
                return written;
            }
        }
        while pair.transmit(Side::Client) > 0 {}
    }
}

/// So many bytes that are on their way arrive, and are read and acknowledged. The rest stays where it is.
pub(crate) fn arrive(pair: &mut Pair, bytes: usize, ids: &[StreamId]) {
    pair.deliver(Side::Client, bytes);
    for &id in ids {
        assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Blocked));
    }
    pair.advance_cut_off(Duration::from_millis(25));
    while pair.transmit(Side::Server) > 0 {}
    pair.deliver(Side::Server, usize::MAX);
}

/// The device reads all that is under way, and acknowledges it.
pub(crate) fn read(pair: &mut Pair, id: StreamId) {
    pair.run();
    assert_eq!(read_all(&mut pair.device, id).1, Err(ReadError::Blocked));
    pair.advance(Duration::from_millis(25)); // the acknowledgement's delay
}

pub(crate) fn opened(pair: &mut Pair, urgency: Urgency) -> StreamId {
    let id = pair.stream(Dir::Bi, b"x");
    pair.service.stream(id).unwrap().set_urgency(urgency);
    pair.advance(Duration::from_millis(25));
    id
}
