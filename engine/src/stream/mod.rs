//! A stream, as the application uses it.
//!
//! In: writes, reads and ends. Out: state that `transmit.rs` turns into frames. Spec: RFC 9000 §2.4.

mod recv;
mod send;

use bytes::Bytes;
use core::fmt;

pub(crate) use recv::{Recv, RecvInput, RecvState};
pub(crate) use send::{End, Send, SendInput, SendState};

use crate::chunks::Chunks;
use crate::entry::Entry;
use crate::error::{ReadError, WriteError};
use crate::id::{Code, StreamId};
use crate::session::{Phase, Session};
use crate::turns::Urgency;

/// How it stands with what this end sends on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// There is, or may be, more to send.
    Open,
    /// Everything went out, and the end with it, or, if the session can resume, has arrived; or this end only
    /// receives.
    Finished,
    /// This end reset it.
    Reset,
    /// The peer asked us to stop.
    Stopped(Code),
}

/// One stream of a session, borrowed to read, write and end it.
pub struct Stream<'a> {
    session: &'a mut Session,
    id: StreamId,
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.id).finish()
    }
}

impl<'a> Stream<'a> {
    pub(crate) fn new(session: &'a mut Session, id: StreamId) -> Self {
        Self { session, id }
    }

    /// Its id.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Takes received bytes, as they came: at least one, at most `max`. `None` at the end of the stream, which is
    /// only ever the peer's FIN.
    ///
    /// # Errors
    ///
    /// [`ReadError::Blocked`] if nothing has arrived; [`Event::Readable`](crate::Event::Readable) ends the wait.
    /// The other errors are final.
    pub fn read(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        if !self.check_readable()? {
            return Ok(None);
        }
        let (recv, chunks) = self.recv();
        let data = chunks.pop(&mut recv.queue, max).unwrap_or_default();
        self.consumed(data.len());
        Ok(Some(data))
    }

    /// Copies received bytes to `out`, and returns how many. 0 at the end of the stream, or if `out` is empty.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_to(&mut self, out: &mut [u8]) -> Result<usize, ReadError> {
        if !self.check_readable()? {
            return Ok(0);
        }
        let (recv, chunks) = self.recv();
        let count = chunks.copy_to(&mut recv.queue, out);
        self.consumed(count);
        Ok(count)
    }

    /// Gives bytes to send, and returns how many of them, from the front, were accepted. They are copied.
    ///
    /// What is accepted goes out, unless the stream is reset or stopped or the session ends. If less than all
    /// was accepted, [`Event::Writable`](crate::Event::Writable) says when there is room again.
    ///
    /// # Errors
    ///
    /// [`WriteError::Blocked`] if nothing can be accepted now. The other errors are final.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        let count = self.reserve(data.len())?;
        let (send, chunks) = self.send();
        chunks.push_copy(&mut send.queue, &data[..count]);
        self.session.streams.schedule(self.id);
        Ok(count)
    }

    /// As [`write`](Self::write), without a copy: takes what is accepted off the front of `data`.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_chunk(&mut self, data: &mut Bytes) -> Result<usize, WriteError> {
        let count = self.reserve(data.len())?;
        let (send, chunks) = self.send();
        chunks.push(&mut send.queue, data.split_to(count));
        self.session.streams.schedule(self.id);
        Ok(count)
    }

    /// Says that no more will be written. What was goes out, and then the end.
    ///
    /// # Errors
    ///
    /// Why the stream has ended already: [`WriteError::Finished`] or [`WriteError::Stopped`]; or
    /// [`WriteError::ReceiveOnly`], [`WriteError::Closed`].
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.check_writable()?;
        let (send, _) = self.send();
        send.state = send.state.on(SendInput::Finish).expect("a writable stream can be finished");
        send.waiting = false;
        send.blocked_owed = false;
        self.session.streams.schedule(self.id);
        self.session.withdraw_offer(self.id);
        Ok(())
    }

    /// Abandons sending: what has not gone out is dropped, and the peer learns `code`.
    ///
    /// # Errors
    ///
    /// [`WriteError::Finished`] if it is too late: the end has gone out, or the stream was reset before. Also
    /// [`WriteError::Stopped`], [`WriteError::ReceiveOnly`] and [`WriteError::Closed`].
    pub fn reset(&mut self, code: Code) -> Result<(), WriteError> {
        match self.check_writable() {
            Ok(()) => {}
            // The end may still be on its way out.
            Err(WriteError::Finished) => {}
            Err(error) => return Err(error),
        }
        if self.session.abandon(self.id, code) { Ok(()) } else { Err(WriteError::Finished) }
    }

    /// Abandons sending with `code`, after everything that was written has gone out: what a TCP connection does that
    /// sends its last words and is then reset. It waits for the pipe, never for credit, which what was written has.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn reset_when_sent(&mut self, code: Code) -> Result<(), WriteError> {
        self.check_writable()?;
        let (send, _) = self.send();
        if send.held() == 0 {
            return self.reset(code);
        }
        self.finish()?;
        let (send, _) = self.send();
        send.resets_when_sent = true;
        send.code = code;
        Ok(())
    }

    /// Reads no more: what was received is dropped, and the peer is asked to stop, with `code`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Stopped`] if that was said before, [`ReadError::SendOnly`], [`ReadError::Closed`].
    pub fn stop(&mut self, code: Code) -> Result<(), ReadError> {
        match self.entry().recv.as_ref() {
            None => return Err(ReadError::SendOnly),
            Some(recv) if recv.stop.is_some() => return Err(ReadError::Stopped),
            Some(_) if self.session.is_closed() => return Err(ReadError::Closed),
            Some(_) => {}
        }
        let (recv, chunks) = self.recv();
        chunks.clear(&mut recv.queue);
        recv.stop = Some(code);
        // There is nothing to ask for once the end is known (RFC 9000 §3.5).
        recv.stop_owed = !recv.state.has_ended();
        recv.waiting = false;
        recv.apply(RecvInput::Read);
        let unread = recv.window.unread();
        self.consumed(unread.try_into().expect("it was in memory"));
        self.session.streams.schedule(self.id);
        Ok(())
    }

    /// Whether the application has said that it will write no more.
    pub(crate) fn is_finished(&self) -> bool {
        self.entry().send.as_ref().is_some_and(|send| send.state != SendState::Send)
    }

    /// How it stands with what this end sends.
    pub fn sending(&self) -> Sending {
        match self.entry().send.as_ref() {
            Some(send) if send.stopped => Sending::Stopped(send.code),
            Some(send) => match send.state {
                SendState::Send | SendState::DataSent => Sending::Open,
                SendState::DataRecvd if send.resets_when_sent => Sending::Reset,
                SendState::DataRecvd => Sending::Finished,
                SendState::ResetSent | SendState::ResetRecvd => Sending::Reset,
            },
            None => Sending::Finished,
        }
    }

    /// How many bytes of what this end wrote, from the start of the stream, the peer's engine has for certain. If the
    /// session cannot resume: how many the pipe has taken.
    pub fn acknowledged(&self) -> u64 {
        self.entry().send.as_ref().map_or(0, |send| send.acked)
    }

    /// How urgent the stream's data is.
    pub fn urgency(&self) -> Urgency {
        self.entry().urgency
    }

    /// Says how urgent the stream's data is, from now on.
    pub fn set_urgency(&mut self, urgency: Urgency) {
        self.session.change_urgency(self.id, urgency);
    }

    /// Whether there are bytes to read (`true`) or the end was reached (`false`).
    fn check_readable(&mut self) -> Result<bool, ReadError> {
        let (is_closed, fails_now) = (self.session.is_closed(), self.session.fails_now());
        let entry = self.session.streams.get_mut(self.id).expect("a borrowed stream stays");
        let recv = entry.recv.as_mut().ok_or(ReadError::SendOnly)?;
        if recv.stop.is_some() {
            return Err(ReadError::Stopped);
        }
        if !recv.queue.is_empty() {
            return Ok(true);
        }
        match recv.state {
            RecvState::Recv if is_closed => Err(ReadError::Closed),
            RecvState::Recv if fails_now => Err(ReadError::Detached),
            RecvState::Recv => {
                recv.waiting = true;
                Err(ReadError::Blocked)
            }
            RecvState::DataRecvd | RecvState::DataRead => {
                recv.apply(RecvInput::Read);
                Ok(false)
            }
            RecvState::ResetRecvd(code) | RecvState::ResetRead(code) => {
                recv.apply(RecvInput::Read);
                if sabotaged!(EofOnReset) {
                    return Ok(false);
                }
                Err(ReadError::Reset(code))
            }
        }
    }

    /// Gives credit for bytes that need no memory any more.
    fn consumed(&mut self, count: usize) {
        let (recv, _) = self.recv();
        recv.window.consume(count as u64);
        let owes_credit = recv.credit_owed();
        self.session.window.consume(count as u64);
        if owes_credit {
            self.session.streams.schedule(self.id);
        }
    }

    fn check_writable(&self) -> Result<(), WriteError> {
        let send = self.entry().send.as_ref().ok_or(WriteError::ReceiveOnly)?;
        if send.stopped {
            return Err(WriteError::Stopped(send.code));
        }
        match (send.state, &self.session.phase) {
            (SendState::Send, Phase::Open) => Ok(()),
            (SendState::Send, Phase::Closing { .. } | Phase::Closed(_)) => Err(WriteError::Closed),
            (SendState::DataSent | SendState::DataRecvd, _) => Err(WriteError::Finished),
            (SendState::ResetSent | SendState::ResetRecvd, _) => Err(WriteError::Finished),
        }
    }

    /// Uses credit and buffer for as much of `wanted` as there is; the caller queues that many bytes.
    fn reserve(&mut self, wanted: usize) -> Result<usize, WriteError> {
        self.check_writable()?;
        if self.session.fails_now() {
            return Err(WriteError::Detached);
        }
        let count = self.session.use_room(self.id, wanted as u64);
        let count = usize::try_from(count).expect("no more than is wanted");
        if count < wanted && sabotaged!(UnackedEvicted) {
            let (send, chunks) = self.send();
            let evicted = send.sent - send.acked;
            chunks.clear(&mut send.unacked);
            send.acked = send.sent;
            let urgency = self.entry().urgency;
            self.session.held.remove(urgency, evicted, evicted);
        }
        if count < wanted {
            self.session.wait_to_write(self.id);
        }
        if count == 0 && wanted > 0 { Err(WriteError::Blocked) } else { Ok(count) }
    }

    fn entry(&self) -> &Entry {
        self.session.streams.get(self.id).expect("a borrowed stream stays")
    }

    /// The sending half, which the caller has checked to be there, and where its bytes are.
    fn send(&mut self) -> (&mut Send, &mut Chunks) {
        let entry = self.session.streams.get_mut(self.id).expect("a borrowed stream stays");
        (entry.send.as_mut().expect("the caller checked"), &mut self.session.chunks)
    }

    /// The receiving half, which the caller has checked to be there, and where its bytes are.
    fn recv(&mut self) -> (&mut Recv, &mut Chunks) {
        let entry = self.session.streams.get_mut(self.id).expect("a borrowed stream stays");
        (entry.recv.as_mut().expect("the caller checked"), &mut self.session.chunks)
    }
}
