//! Every sum of credit: what we promised to receive, and what the peer promised us.
//!
//! Limits are absolute and only grow (RFC 9000 §4.1), so saying one twice changes nothing. A stream counts
//! offsets, a session counts the bytes of all its streams; both are the same two structs.

use crate::error::Violation;
use crate::varint;

/// What we promised to receive, on one stream or on the session. All values are bytes from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReceiveWindow {
    /// How far past the reader we promise.
    window: u64,
    /// How far the peer may send: the last limit that we announced.
    limit: u64,
    /// How far the peer has sent.
    received: u64,
    /// How far the application has read, or given up reading.
    consumed: u64,
}

impl ReceiveWindow {
    /// A window that promises its whole size at once, through the transport parameters.
    pub(crate) fn new(window: u64) -> Self {
        let window = window.min(varint::MAX);
        Self { window, limit: window, received: 0, consumed: 0 }
    }

    /// Checks that the peer may send up to `end`.
    ///
    /// # Errors
    ///
    /// [`Violation::FlowControl`] if `end` passes the limit that we announced (RFC 9000 §4.1).
    pub(crate) fn check(&self, end: u64) -> Result<(), Violation> {
        if end > self.limit { Err(Violation::FlowControl) } else { Ok(()) }
    }

    /// Accounts for `new` bytes that passed [`check`](Self::check).
    pub(crate) fn receive(&mut self, new: u64) {
        self.received += new;
        assert!(self.received <= self.limit, "received bytes are checked first");
    }

    /// Accounts for `read` bytes that need no memory any more.
    pub(crate) fn consume(&mut self, read: u64) {
        self.consumed += read;
        assert!(self.consumed <= self.received, "only what was received can be read");
    }

    /// How far the peer may send: the last limit that was announced.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// How far the peer has sent.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The bytes that were received and not consumed.
    pub(crate) fn unread(&self) -> u64 {
        self.received - self.consumed
    }

    /// The bytes that the peer may still send.
    pub(crate) fn promised(&self) -> u64 {
        self.limit - self.received
    }

    /// The bytes that were consumed and are not promised anew.
    pub(crate) fn withheld(&self) -> u64 {
        self.consumed + self.window - self.limit
    }

    /// The limit to announce, once that gives the peer `quantum` bytes more than it has.
    ///
    /// Half a window as the quantum keeps a steady reader's peer from ever running dry, and costs one update
    /// per half window even if the application reads byte by byte.
    pub(crate) fn update_owed(&self, quantum: u64) -> Option<u64> {
        let limit = (self.consumed + self.window).min(varint::MAX);
        (limit > self.limit && limit - self.limit >= quantum).then_some(limit)
    }

    /// Half of what the window holds.
    pub(crate) fn half(&self) -> u64 {
        self.window / 2
    }

    /// Records that the peer is being told `limit`.
    pub(crate) fn announce(&mut self, limit: u64) {
        assert!(limit >= self.limit, "limits only grow");
        self.limit = limit;
    }

    pub(crate) fn digest(&self, digest: &mut crate::fingerprint::Digest) {
        digest.numbers(&[self.window, self.limit, self.received, self.consumed]);
    }

    pub(crate) fn invariants(&self) {
        assert!(self.consumed <= self.received);
        assert!(self.received <= self.limit);
        assert!(self.limit <= self.consumed + self.window, "memory is what we promised");
    }
}

/// What the peer promised us, on one stream or on the session. All values are bytes from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SendCredit {
    /// How far we may send.
    limit: u64,
    /// How far the application has written.
    used: u64,
}

impl SendCredit {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    /// How many more bytes may be written now.
    pub(crate) fn available(&self) -> u64 {
        self.limit - self.used
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Uses `count` bytes of credit.
    pub(crate) fn take(&mut self, count: u64) {
        assert!(count <= self.available(), "credit is asked for first");
        self.used += count;
    }

    /// Gives back credit for `count` bytes that were written and will never be sent.
    pub(crate) fn give_back(&mut self, count: u64) {
        self.used -= count;
    }

    /// Learns the peer's limit. Returns whether it grew; a smaller one is an old one (RFC 9000 §4.1).
    pub(crate) fn raise(&mut self, limit: u64) -> bool {
        let grew = limit > self.limit;
        self.limit = self.limit.max(limit);
        grew
    }

    pub(crate) fn digest(&self, digest: &mut crate::fingerprint::Digest) {
        digest.numbers(&[self.limit, self.used]);
    }

    pub(crate) fn invariants(&self) {
        assert!(self.used <= self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_exact() {
        let window = ReceiveWindow::new(10);
        assert_eq!(window.check(10), Ok(()), "the last byte is accepted");
        assert_eq!(window.check(11), Err(Violation::FlowControl), "one more is not");
    }

    #[test]
    fn one_byte_reads_owe_one_update_per_half_window() {
        let mut window = ReceiveWindow::new(8);
        window.receive(8);
        let updates = (0..8)
            .filter_map(|_| {
                window.consume(1);
                window.update_owed(window.half()).inspect(|&limit| window.announce(limit))
            })
            .collect::<alloc::vec::Vec<_>>();
        assert_eq!(updates, [12, 16]);
        window.invariants();
    }

    #[test]
    fn a_window_of_one_byte_still_opens() {
        let mut window = ReceiveWindow::new(1);
        window.receive(1);
        assert_eq!(window.update_owed(window.half()), None);
        window.consume(1);
        assert_eq!(window.update_owed(window.half()), Some(2));
    }

    #[test]
    fn a_window_of_no_bytes_never_owes() {
        assert_eq!(ReceiveWindow::new(0).update_owed(0), None);
    }

    #[test]
    fn no_wrap_at_the_end_of_the_scale() {
        let mut window = ReceiveWindow::new(u64::MAX);
        window.receive(varint::MAX);
        window.consume(varint::MAX);
        assert_eq!(window.update_owed(window.half()), None, "there is no further offset to promise");
        window.invariants();
    }

    #[test]
    fn an_old_limit_changes_nothing() {
        let mut credit = SendCredit::new(10);
        credit.take(4);
        assert!(!credit.raise(7));
        assert_eq!(credit.available(), 6);
        assert!(credit.raise(12));
        assert_eq!(credit.available(), 8);
    }
}
