//! What goes out: the most urgent first, decided when the pipe can take it.
//!
//! In: state. Out: one record at a time, made now. Keeps: nothing; what a record says is taken from flags and
//! numbers as it is written. Spec: PROTOCOL §3.4.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

use crate::error::CloseReason;
use crate::frame::{
    Close, CloseKind, Frame, MAX_CLOSE_FRAME, MAX_PARAMETERS_FRAME, MAX_SHORT_FRAME, StreamHeader,
};
use crate::id::{Dir, StreamId};
use crate::params::MIN_MAX_RECORD_SIZE;
use crate::record_writer::RecordWriter;
use crate::session::{Phase, Session};
use crate::stream::{End, SendInput, SendState};
use crate::time::Instant;
use crate::turns::Turn;
use crate::varint;

/// The least room that [`Session::poll_transmit`] needs: every frame that cannot be cut fits.
pub const MIN_TRANSMIT: usize = 512;

/// Data is not cut into less than this to fill a record's end.
const MIN_FRAGMENT: usize = 256;

/// The longest turn of a stream among others: a record that every peer takes.
const QUANTUM: u64 = 16 << 10;

/// Into how many records at least what may be on its way is cut, where somebody would wait for it: a key can be read only
/// when its whole record has come.
const RECORDS_ON_THE_WAY: u64 = 16;

const _: () = assert!(MAX_CLOSE_FRAME < MIN_TRANSMIT && MAX_PARAMETERS_FRAME < MIN_TRANSMIT);

impl Session {
    /// Makes the next record, if there is something to say: appends it to `out` as slices, to be written one
    /// after the other, and returns its length in bytes. 0 if there is nothing to say.
    ///
    /// Call it when the pipe can take more, not before: what is most urgent is decided now. At most `max` bytes
    /// are made; below [`MIN_TRANSMIT`], some frames wait for a larger `max`.
    pub fn poll_transmit(&mut self, now: Instant, max: usize, out: &mut Vec<Bytes>) -> usize {
        if !self.wants_transmit() {
            return 0;
        }
        let limits = self.pipe.as_ref().and_then(|pipe| pipe.peer);
        let max_record_size = limits.map_or(MIN_MAX_RECORD_SIZE, |peer| peer.max_record_size);
        let max = max.min(self.record_limit().max(MIN_TRANSMIT));
        // Who only says that it is there keeps nothing for the next time.
        let is_idle = self.streams.len() == 0 && self.pipe.as_ref().is_some_and(|pipe| pipe.liveness.owes());
        let scratch = core::mem::take(&mut self.scratch);
        let mut record = RecordWriter::new(scratch, max, max_record_size, out);
        self.write_parameters(&mut record);
        // Nothing may come before them, so if they wait for more room, everything does.
        let has_declared = self.pipe.as_ref().is_some_and(|pipe| pipe.parameters_sent);
        if has_declared && self.is_closed() {
            self.write_last_word(&mut record);
        } else if has_declared {
            self.write_exchange(&mut record);
            // Nothing else, but an end, may go out before the peer's limits are known.
            if self.carries_frames() {
                self.write_frames(now, &mut record);
            }
            self.write_close(&mut record);
        }
        let (length, scratch) = record.finish();
        if !is_idle {
            self.scratch = scratch;
        }
        if length > 0 {
            self.stats.bytes_sent += length as u64;
            self.stats.records_sent += 1;
            let has_more = self.streams.has_data();
            if let Some(pipe) = &mut self.pipe {
                pipe.liveness.handle_transmit(now);
                pipe.rate.handle_transmit(now, length as u64, has_more);
            }
        }
        length
    }

    /// How long a record may be, so that what is urgent does not wait for long behind it.
    pub(crate) fn record_limit(&self) -> usize {
        let by_queue = usize::try_from(self.queue_limit() / RECORDS_ON_THE_WAY).unwrap_or(usize::MAX);
        self.pipe.as_ref().map_or(usize::MAX, |pipe| pipe.rate.record_limit()).min(by_queue)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something to say.
    pub fn wants_transmit(&self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        if let Phase::Closed(closed) = &self.phase {
            return closed.frame.is_some();
        }
        let begins = !pipe.parameters_sent
            || pipe.exchange.as_ref().is_some_and(|exchange| exchange.ours != crate::exchange::Step::Done);
        let goes_on = || {
            pipe.liveness.owes()
                || pipe.data_blocked_owed
                || pipe.acks.owed
                || self.drain_owed()
                || self.owes_max_data()
                || self.streams.wants_transmit()
        };
        begins || self.carries_frames() && goes_on() || self.may_close()
    }

    fn write_parameters(&mut self, record: &mut RecordWriter<'_>) {
        let Some(pipe) = &mut self.pipe else { return };
        // Not on whether both have agreed: the peer may have declared itself first.
        let is_later = pipe.exchange.is_some();
        let session = self.resume.as_ref().filter(|_| is_later).map(|resume| resume.id);
        if !pipe.parameters_sent && record.space() >= MAX_PARAMETERS_FRAME {
            record.frame(&Frame::Parameters(Box::new(self.config.parameters(session))));
            pipe.parameters_sent = true;
        }
    }

    /// Everything that an open session may have to say, the most urgent first.
    fn write_frames(&mut self, now: Instant, record: &mut RecordWriter<'_>) {
        self.measure_path(now);
        self.measure_queue(now);
        self.write_liveness(now, record);
        self.write_drain(now, record);
        self.write_session_limits(now, record);
        self.write_acks(record);
        self.write_stream_control(now, record);
        let quantum = QUANTUM.min(self.record_limit() as u64);
        self.write_stream_data(now, quantum, record);
        if let Some(pipe) = &mut self.pipe {
            pipe.is_at_rest = false;
        }
        self.offer_room();
        self.watch_rest(now);
    }

    fn write_liveness(&mut self, now: Instant, record: &mut RecordWriter<'_>) {
        let Some(pipe) = &mut self.pipe else { return };
        if record.space() < 2 * MAX_SHORT_FRAME {
            return;
        }
        let is_at_rest = pipe.is_at_rest || self.held.is_empty();
        if let Some(sequence) = pipe.liveness.take_pong() {
            record.frame(&Frame::Pong { sequence });
        }
        if let Some(sequence) = pipe.liveness.take_ping(now, is_at_rest) {
            if let Some(queue) = &mut pipe.standing_queue {
                queue.handle_ping(now, self.held.patient_on_its_way());
            }
            record.frame(&Frame::Ping { sequence });
        }
    }

    fn write_session_limits(&mut self, now: Instant, record: &mut RecordWriter<'_>) {
        if record.space() < 6 * MAX_SHORT_FRAME {
            return;
        }
        let (quantum, first) = (self.config.stream_window / 2, self.config.initial_session_window());
        if let Some(limit) = self.window.take_update(now, self.min_rtt(), quantum, first) {
            record.frame(&Frame::MaxData { limit });
        }
        if let Some(pipe) = &mut self.pipe
            && core::mem::take(&mut pipe.data_blocked_owed)
        {
            record.frame(&Frame::DataBlocked { limit: self.credit.limit() });
        }
        for dir in [Dir::Bi, Dir::Uni] {
            if let Some(limit) = self.streams.max_streams_owed(dir) {
                self.streams.announce_max_streams(dir, limit);
                record.frame(&Frame::MaxStreams { dir, limit });
            }
            if let Some(limit) = self.streams.streams_blocked_owed(dir) {
                self.streams.streams_blocked_told(dir);
                record.frame(&Frame::StreamsBlocked { dir, limit });
            }
        }
    }

    /// Whether a MAX_DATA is worth a frame.
    fn owes_max_data(&self) -> bool {
        let first = self.config.initial_session_window();
        self.window.update_owed(self.config.stream_window / 2, first).is_some()
    }

    fn min_rtt(&self) -> Option<core::time::Duration> {
        Some(self.rtt()?.min)
    }

    /// What streams owe besides data. It needs no credit, so it overtakes data that waits for some.
    fn write_stream_control(&mut self, now: Instant, record: &mut RecordWriter<'_>) {
        while let Some(id) = self.streams.next_control() {
            if record.space() < 4 * MAX_SHORT_FRAME {
                return;
            }
            self.streams.pop_control();
            self.write_control_of(now, id, record);
            self.streams.retire(id);
        }
    }

    fn write_control_of(&mut self, now: Instant, id: StreamId, record: &mut RecordWriter<'_>) {
        let (resumes, min_rtt) = (self.resume.is_some(), self.min_rtt());
        let (first, most) = (self.config.stream_window, self.config.most_stream_window());
        let Some(entry) = self.streams.get_mut(id) else { return };
        if let Some(send) = &mut entry.send {
            if send.wants_reset() {
                record.frame(&Frame::ResetStream { id, code: send.code, final_size: send.high });
                send.end = End::Sent;
                if !resumes {
                    send.state = send.state.on(SendInput::Acknowledged).expect("a reset was owed");
                }
            }
            if core::mem::take(&mut send.blocked_owed) {
                record.frame(&Frame::StreamDataBlocked { id, limit: send.credit.limit() });
            }
        }
        if let Some(recv) = &mut entry.recv {
            if let (true, Some(code)) = (core::mem::take(&mut recv.stop_owed), recv.stop) {
                record.frame(&Frame::StopSending { id, code });
            }
            let update = recv.credit_owed().then(|| recv.window.take_update(now, min_rtt, first, most));
            if let Some(limit) = update.flatten() {
                record.frame(&Frame::MaxStreamData { id, limit });
            }
        }
    }

    /// Streams take turns until the record is full.
    fn write_stream_data(&mut self, now: Instant, quantum: u64, record: &mut RecordWriter<'_>) {
        while let Some(turn) = self.streams.next_data(quantum) {
            let id = turn.id;
            let Some(count) = self.write_data_of(now, turn, record) else { return };
            self.streams.spend_data(turn, quantum, count);
            self.offer_share(id);
            self.streams.retire(id);
        }
    }

    /// Writes one STREAM frame of at most what is left of the turn. Returns how many bytes of payload it has, or `None` if it
    /// does not fit.
    fn write_data_of(&mut self, now: Instant, turn: Turn, record: &mut RecordWriter<'_>) -> Option<u64> {
        let id = turn.id;
        let (others, resumes) = (self.streams.has_more_data(), self.resume.is_some());
        let Some(entry) = self.streams.get_mut(id) else { return Some(0) };
        let (urgency, Some(send)) = (entry.urgency, &mut entry.send) else { return Some(0) };
        if !send.wants_data() {
            return Some(0); // it was reset after it got into the queue, or all of it was there already
        }
        if send.resets_when_sent && send.queued() == 0 {
            return self.write_last_reset(id, record).then_some(0);
        }
        let space = record.space().checked_sub(StreamHeader::encoded_len(id, send.sent))?;
        let queued = usize::try_from(send.queued()).unwrap_or(usize::MAX);
        // Whoever is alone need not stop for others.
        let most = if others { usize::try_from(turn.left).unwrap_or(usize::MAX) } else { usize::MAX };
        let count = queued.min(space).min(most);
        let cut = queued.min(most) - count;
        let is_whole = others && queued as u64 + turn.scrap >= turn.left;
        let is_cut_in_two = is_whole && cut as u64 >= turn.scrap && !record.is_empty();
        if cut > 0 && (count < MIN_FRAGMENT || is_cut_in_two) {
            return None;
        }
        // A frame that ends with its record needs no length. One that others may follow does, if it then
        // leaves them anything.
        let length = count as u64;
        let ends_record = !others || count + varint::len(length) >= space;
        let offset = send.sent;
        let is_last = send.state == SendState::DataSent && count == queued;
        let fin = is_last && !send.resets_when_sent;
        record.stream(&StreamHeader { id, offset, length: (!ends_record).then_some(length), fin });
        let mut left = count;
        while left > 0 {
            let data = if resumes {
                self.chunks.pop_and_keep(&mut send.queue, &mut send.unacked, left)
            } else {
                self.chunks.pop(&mut send.queue, left)
            };
            let data = data.expect("that much is queued");
            left -= data.len();
            record.payload(data);
        }
        send.sent += length;
        send.high = send.high.max(send.sent);
        if fin {
            send.end = End::Sent;
        }
        if resumes {
            self.keep_sent(now, urgency, length);
        } else {
            self.gone_out(id, length, is_last);
        }
        if ends_record {
            record.seal();
        }
        Some(length)
    }

    /// Without acknowledgements, what the pipe has taken counts as delivered (draft-02 §4).
    fn gone_out(&mut self, id: StreamId, length: u64, is_last: bool) {
        let entry = self.streams.get_mut(id).expect("it was just sent");
        self.held.remove(entry.urgency, length, 0);
        let send = entry.send.as_mut().expect("it was just sent");
        send.acked = send.sent;
        if send.end == End::Sent {
            send.state = send.state.on(SendInput::Acknowledged).expect("the end was owed");
            self.streams.tell(id, |news| news.finished = true);
        } else if is_last {
            let code = send.code;
            self.abandon(id, code);
        }
    }

    /// Writes the reset that follows the last words, which are kept until the peer has them. Returns whether it fit.
    fn write_last_reset(&mut self, id: StreamId, record: &mut RecordWriter<'_>) -> bool {
        if record.space() < MAX_SHORT_FRAME {
            return false;
        }
        let send = self.streams.get_mut(id).and_then(|entry| entry.send.as_mut()).expect("it wants to send");
        record.frame(&Frame::ResetStream { id, code: send.code, final_size: send.high });
        send.end = End::Sent;
        true
    }

    /// Whether the application wants the end, and everything that was accepted before has gone out; or, if the
    /// session can resume, has arrived.
    fn may_close(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
            && self.pipe.as_ref().is_some_and(|pipe| pipe.exchange.is_none())
            && (self.has_flushed() || sabotaged!(CloseBeforeArrival) && self.has_gone_out())
    }

    fn has_gone_out(&self) -> bool {
        !self.streams.has_data() && self.streams.next_control().is_none()
    }

    /// Whether everything that was accepted has gone out; or, if the session can resume, has arrived.
    pub(crate) fn has_flushed(&self) -> bool {
        let is_idle = |entry: &crate::entry::Entry| {
            let send = entry.send.as_ref();
            send.is_none_or(|send| send.state == SendState::Send || send.state.is_terminal())
        };
        let has_arrived = || self.held.is_empty() && self.streams.iter().all(|(_, entry)| is_idle(entry));
        self.has_gone_out() && (self.resume.is_none() || has_arrived())
    }

    /// Ends the session once everything that was accepted has gone out.
    fn write_close(&mut self, record: &mut RecordWriter<'_>) {
        if !self.may_close() || record.space() < MAX_CLOSE_FRAME {
            return;
        }
        if let Phase::Closing(closing) = &self.phase {
            let (code, reason) = (closing.code, closing.reason.clone());
            record.frame(&Frame::Close(Close { kind: CloseKind::Application { code }, reason }));
            self.end(CloseReason::Local(code), None);
        }
    }

    /// Says why the session is over, if the peer is still to hear of it.
    fn write_last_word(&mut self, record: &mut RecordWriter<'_>) {
        if record.space() < MAX_CLOSE_FRAME {
            return;
        }
        if let Phase::Closed(closed) = &mut self.phase
            && let Some(close) = closed.frame.take()
        {
            record.frame(&Frame::Close(close));
        }
    }
}
