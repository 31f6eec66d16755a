//! Who has what: STREAM_ACK, on sessions that can resume.
//!
//! In: data and ends as they arrive; the peer's acknowledgements. Out: STREAM_ACK, many in one record; memory that
//! the sending halves need no more. Keeps: a number for each stream, and which of them are to be acknowledged.
//! "Acknowledged" means: in the peer engine's memory. Spec: PROTOCOL §6.2.

use core::time::Duration;

use crate::error::Violation;
use crate::frame::{Frame, MAX_SHORT_FRAME};
use crate::id::StreamId;
use crate::record_writer::RecordWriter;
use crate::session::Session;
use crate::stream::SendInput;
use crate::streams::Place;
use crate::time::Instant;

/// As soon as this many bytes have arrived and not been acknowledged, they are.
///
/// Four records: an acknowledgement for each would cost a twentieth of the time of a busy session, and one for a
/// megabyte would have the peer wait with a full send buffer.
pub(crate) const ACK_BYTES: u64 = 64 << 10;

/// As late as this after the first of them has arrived, they are (as RFC 9000 §13.2.1 has it for packets).
const ACK_DELAY: Duration = Duration::from_millis(25);

/// Where so much does not come in that time, an eighth of it is acknowledged: the peer may keep little on such a path
/// (PROTOCOL §6.2), and would send all of it at once, once a round trip.
const SLOW_PART: u32 = 8;

impl Session {
    /// Something of the stream has arrived: `new` bytes, or its end. The peer shall know, sooner or later.
    pub(crate) fn owe_ack(&mut self, now: Instant, id: StreamId, new: u64, ended: bool) {
        if self.resume.is_none() || new == 0 && !ended {
            return;
        }
        self.streams.queue_ack(id);
        let Some(pipe) = &mut self.pipe else { return };
        pipe.acks.bytes += new;
        let due = *pipe.acks.due.get_or_insert(now + ACK_DELAY);
        let waited = ACK_DELAY.saturating_sub(due.saturating_duration_since(now));
        let is_slow = pipe.acks.bytes >= ACK_BYTES / u64::from(SLOW_PART) && waited >= ACK_DELAY / SLOW_PART;
        // The peer keeps the whole stream until it knows of the end.
        pipe.acks.owed |= ended || is_slow || pipe.acks.bytes >= ACK_BYTES;
    }

    /// Acknowledges everything that has arrived.
    pub(crate) fn write_acks(&mut self, record: &mut RecordWriter<'_>) {
        if !self.pipe.as_ref().is_some_and(|pipe| pipe.acks.owed) {
            return;
        }
        while record.space() >= MAX_SHORT_FRAME {
            let Some(id) = self.streams.pop_ack() else {
                if let Some(pipe) = &mut self.pipe {
                    pipe.acks = Default::default();
                }
                return;
            };
            let recv = self.streams.get_mut(id).and_then(|entry| entry.recv.as_mut());
            if let Some(recv) = recv.filter(|recv| recv.ack_owed()) {
                recv.acked = recv.progress();
                record.frame(&Frame::StreamAck { id, received: recv.acked });
                self.streams.retire(id);
            }
        }
    }

    /// Returns whether that is news.
    pub(crate) fn on_stream_ack(&mut self, id: StreamId, received: u64) -> Result<bool, Violation> {
        if self.resume.is_none() {
            return Err(Violation::UnknownFrame);
        }
        match self.sending(id)? {
            Place::Here => self.acknowledge(id, received),
            Place::Gone => Ok(false),
        }
    }

    /// The peer has the stream up to `received`; one past its final size means that it has the end as well. Returns
    /// whether that is news.
    ///
    /// # Errors
    ///
    /// [`Violation::AckOutOfRange`] if that is less than it had, or more than was ever sent.
    pub(crate) fn acknowledge(&mut self, id: StreamId, received: u64) -> Result<bool, Violation> {
        let entry = self.streams.get_mut(id).expect("it is here");
        let (urgency, send) = (entry.urgency, entry.send.as_mut().expect("it is here"));
        if received < send.acked || received > send.most_acked() {
            return Err(Violation::AckOutOfRange);
        }
        let bytes = received.min(send.high);
        if send.held() > 0 {
            let count = bytes - send.acked;
            let gone_out = count.min(send.sent - send.acked);
            let drop = |count: u64| usize::try_from(count).expect("it is in memory");
            self.chunks.drop_front(&mut send.unacked, drop(gone_out));
            self.chunks.drop_front(&mut send.queue, drop(count - gone_out));
            self.held.remove(urgency, count, gone_out);
            send.sent = send.sent.max(bytes);
        }
        let mut is_news = bytes > send.acked;
        send.acked = bytes;
        if received > send.high {
            let is_finished = send.is_finished_by_ack();
            if let Some(next) = send.state.on(SendInput::Acknowledged) {
                send.state = next;
                is_news = true;
                if is_finished {
                    self.streams.tell(id, |news| news.finished = true);
                }
            }
        }
        self.offer_room();
        self.streams.retire(id);
        Ok(is_news)
    }
}
