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
    /// The service would have them there before the answer, and more than once does no harm.
    is_wanted: bool,
    said: Bytes,
    /// What of them the device's stream has not taken yet.
    left: Bytes,
}

impl Early {
    /// Only what is said in a tunnel of the end-to-end profile may go to a device that has not accepted, and to several:
    /// there it is the beginning of a handshake. Elsewhere it may be an order to a program, and who hears of a refusal is to
    /// know that nobody has heard it.
    pub(super) fn new(profile: Profile) -> Self {
        Self { is_wanted: profile == Profile::EndToEnd, ..Self::default() }
    }

    /// A device is asked once more.
    pub(super) fn begin_anew(&mut self) {
        self.left = self.said.clone();
    }

    /// Passes on what has come. To be called again when either stream has woken the caller.
    pub(super) fn poll_pass(
        &mut self,
        context: &mut Context<'_>,
        from: &mut RecvStream,
        to: &mut SendStream,
    ) {
        if self.is_wanted
            && self.said.is_empty()
            && let Poll::Ready(Ok(Some(said))) = from.poll_read_chunk(context, MAX_EARLY)
        {
            // It may be for long, and is not to hold on to the buffer that it came in.
            self.said = Bytes::copy_from_slice(&said);
            self.left = self.said.clone();
        }
        // Why the device takes no more, its answer says; and of an end, the splice hears once more.
        let _ = to.poll_write_chunk(context, &mut self.left);
    }

    /// The device has accepted: what it does not have yet is the first that `flow` carries.
    pub(super) fn hand_over(self, flow: &mut Flow) {
        flow.handle_carried((self.said.len() - self.left.len()) as u64);
        if !self.left.is_empty() {
            flow.handle_data(self.left);
        }
    }
}
