//! What a service has said behind its request, for the device to have together with the offer.
//!
//! In: the service's stream, while the device is asked. Out: its first bytes, on the device's stream. Keeps: these bytes,
//! [`MAX_EARLY`] at most, until there is an answer; a device that is lost before that is asked again, and has them again.
//! Spec: PROTOCOL §5.3.3.

use std::task::{Context, Poll};

use bytes::Bytes;
use towline_transports::{RecvStream, SendStream};

use crate::core::Flow;
use crate::message::Profile;

/// The most bytes that go to a device before it has accepted.
pub(super) const MAX_EARLY: usize = 4 << 10;

/// The first bytes of a tunnel.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// More of them may be read.
    is_open: bool,
    said: Vec<u8>,
    /// How many of them the device's stream has taken.
    passed: usize,
}

impl Early {
    /// Only what is said in a tunnel of the end-to-end profile may go to a device that has not accepted, and to several:
    /// there it is the beginning of a handshake. Elsewhere it may be an order to a program, and who hears of a refusal is to
    /// know that nobody has heard it.
    pub(super) fn new(profile: Profile) -> Self {
        Self { is_open: profile == Profile::EndToEnd, ..Self::default() }
    }

    /// A device is asked once more.
    pub(super) fn begin_anew(&mut self) {
        self.passed = 0;
    }

    /// Passes on what has come. To be called again when either stream has woken the caller.
    pub(super) fn pass(&mut self, context: &mut Context<'_>, from: &mut RecvStream, to: &mut SendStream) {
        while self.is_open && self.said.len() < MAX_EARLY {
            match from.poll_read_chunk(context, MAX_EARLY - self.said.len()) {
                // A copy, which does not hold on to the buffer that it came in.
                Poll::Ready(Ok(Some(said))) => self.said.extend_from_slice(&said),
                // Of its end, the splice hears once more.
                Poll::Ready(_) => self.is_open = false,
                Poll::Pending => break,
            }
        }
        let mut left = self.left();
        // Why the device takes no more, its answer says.
        let _ = to.poll_write_chunk(context, &mut left);
        self.passed = self.said.len() - left.len();
    }

    fn left(&self) -> Bytes {
        Bytes::copy_from_slice(&self.said[self.passed..])
    }

    /// The device has accepted: what it does not have yet is the first that `flow` carries.
    pub(super) fn hand_over(self, flow: &mut Flow) {
        flow.handle_carried(self.passed as u64);
        let left = self.left();
        if !left.is_empty() {
            flow.handle_data(left);
        }
    }
}
