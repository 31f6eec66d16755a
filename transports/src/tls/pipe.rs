//! A pipe inside TLS: the records of a connection, and the socket or pipe that carries them.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, Error};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::HandshakeError;
use super::records::{Handshake, MAX_PLAINTEXT, Opened, Peer, Records, Step, alert_for, whole_record};
use crate::Pipe;
use crate::outbox::Outbox;
use crate::read_buffer::{self, ReadBuffer, Room};
use crate::session::carrier::{Batch, Carrier};

/// A pipe inside TLS 1.3.
///
/// [`Link::over_tls`](crate::Link::over_tls) runs a session over it in the fastest way; as a pipe it serves for other
/// things.
pub struct TlsPipe<P> {
    pipe: P,
    records: Records,
    peer: Peer,
    /// Sealed records that came.
    inbox: ReadBuffer,
    /// Where records are sealed; like a read buffer it is there only when it is needed.
    sealing: BytesMut,
    /// Sealed records that go out.
    outbox: Outbox,
    reading: Reading,
    /// The peer wants to see our next key. It is told once, however often it asks before it listens.
    owes_key: bool,
    /// Why nothing can be sealed any more.
    broken: Option<Error>,
    has_said_goodbye: bool,
    /// What was opened and not read yet, if it is used as a pipe.
    opened: VecDeque<Bytes>,
}

/// Whether more comes.
#[derive(Debug)]
enum Reading {
    Open,
    /// The peer has said that no more comes.
    Finished,
    /// It cannot go on; the error is for the next who asks.
    Failed(Option<io::Error>),
}

/// Runs a handshake over `pipe`, of which `input` was read already, and for which there is `output`.
pub(super) async fn shake_hands<P: Pipe>(
    mut pipe: P,
    mut handshake: Handshake,
    mut input: BytesMut,
    mut output: Vec<u8>,
) -> Result<TlsPipe<P>, HandshakeError> {
    let mut lost = None;
    loop {
        let step = handshake.advance(&mut input, &mut output);
        if let Err(error) = say(&mut pipe, &mut output).await {
            lost.get_or_insert(error);
        }
        match step {
            // A peer that is gone may have said why before it went.
            Ok(step) if step == Step::Done && lost.is_none() => break,
            Ok(_) => {}
            Err(error) => {
                // What was said last is why: a pipe that is dropped may take it back.
                let _ = pipe.shutdown().await;
                return Err(HandshakeError::Tls(error));
            }
        }
        let mut why = |error| HandshakeError::Io(lost.take().unwrap_or(error));
        match pipe.read_buf(&mut input).await {
            Ok(0) => return Err(why(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(why(error)),
        }
    }
    let (records, peer) = handshake.finish().map_err(HandshakeError::Tls)?;
    Ok(TlsPipe { peer, inbox: ReadBuffer::holding(&input), ..TlsPipe::over(pipe, records) })
}

/// Sends what a handshake has to say.
pub(super) async fn say(pipe: &mut impl Pipe, output: &mut Vec<u8>) -> io::Result<()> {
    if !output.is_empty() {
        pipe.write_all(output).await?;
        pipe.flush().await?;
        output.clear();
    }
    Ok(())
}

impl<P> TlsPipe<P> {
    pub(super) fn over(pipe: P, records: Records) -> Self {
        Self {
            pipe,
            records,
            peer: Peer { certificates: Vec::new(), alpn: None },
            inbox: ReadBuffer::default(),
            sealing: BytesMut::new(),
            outbox: Outbox::default(),
            reading: Reading::Open,
            owes_key: false,
            broken: None,
            has_said_goodbye: false,
            opened: VecDeque::new(),
        }
    }

    /// The peer's certificate, and those between it and the authority.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer.certificates
    }

    /// The application protocol that was agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.peer.alpn.as_deref()
    }

    /// How many pieces wait to go out.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Nobody asks any more who the peer is.
    pub(crate) fn forget_peer(mut self) -> Self {
        self.peer = Peer { certificates: Vec::new(), alpn: None };
        self
    }
}

impl<P: Pipe> TlsPipe<P> {
    /// Opens all records that are whole, in the buffer that they lie in.
    fn open_records(&mut self, pieces: &mut Vec<Bytes>) -> Result<(), Error> {
        let (first, mut size) = (pieces.len(), 0);
        while let Some(length) = whole_record(self.inbox.filled())? {
            match self.records.open(self.inbox.take_front(length))? {
                Opened::Data(bytes) => {
                    size += bytes.len();
                    pieces.push(bytes);
                }
                Opened::Nothing => {}
                Opened::KeyWanted => self.owes_key = true,
                Opened::Closed => {
                    self.reading = Reading::Finished;
                    break;
                }
            }
        }
        if ReadBuffer::is_small(size) {
            for piece in &mut pieces[first..] {
                *piece = Bytes::copy_from_slice(piece);
            }
        }
        Ok(())
    }

    /// The connection cannot go on; the peer is told why, if it takes that at once.
    fn fail(&mut self, context: &mut Context<'_>, error: Error) {
        if let Some(alert) = alert_for(&error) {
            self.seal_with(|records, sealing| records.seal_alert(alert, sealing));
            self.post();
            let _ = self.outbox.poll_flush(context, &mut self.pipe);
        }
        self.reading = Reading::Failed(Some(io::Error::new(io::ErrorKind::InvalidData, error)));
    }

    /// Sends what was sealed.
    fn post(&mut self) {
        self.outbox.push(self.sealing.split().freeze());
    }

    /// Makes room for what is sealed next, if nothing is on its way out.
    fn prepare(&mut self) {
        if self.outbox.is_empty() && !read_buffer::reclaim(&mut self.sealing) {
            self.sealing = read_buffer::take_from_pool();
        }
    }

    /// Gives the room back, if nothing is on its way out.
    fn give_back(&mut self) {
        if self.outbox.is_empty() && read_buffer::reclaim(&mut self.sealing) {
            read_buffer::give_to_pool(mem::take(&mut self.sealing));
        }
    }

    fn seal<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        self.seal_with(|records, sealing| records.seal(parts, sealing));
    }

    /// Seals a record of the session. It fills a record of TLS; or several, if the peer takes larger ones.
    fn seal_record(&mut self, slices: &[Bytes]) {
        if slices.iter().map(Bytes::len).sum::<usize>() <= MAX_PLAINTEXT {
            return self.seal(slices.iter().map(|slice| &slice[..]));
        }
        let (mut parts, mut room) = (Vec::new(), MAX_PLAINTEXT);
        for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                let (part, later) = rest.split_at(rest.len().min(room));
                parts.push(part);
                (rest, room) = (later, room - part.len());
                if room == 0 {
                    self.seal(parts.drain(..));
                    room = MAX_PLAINTEXT;
                }
            }
        }
        if !parts.is_empty() {
            self.seal(parts);
        }
    }

    /// Seals something, if nothing has failed to be sealed before: then no number may be used again.
    fn seal_with(&mut self, seal: impl FnOnce(&mut Records, &mut BytesMut) -> Result<(), Error>) {
        if self.broken.is_none() {
            self.broken = seal(&mut self.records, &mut self.sealing).err();
        }
    }

    /// Tells the peer of our next key, if it wants that and listens.
    fn answer_for_key(&mut self) {
        if self.owes_key && self.outbox.is_empty() && !self.has_said_goodbye {
            self.owes_key = false;
            self.prepare();
            self.seal_with(Records::update_key);
            self.post();
        }
    }
}

impl<P> fmt::Debug for TlsPipe<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, peer, reading, .. } = self;
        f.debug_struct("TlsPipe")
            .field("records", records)
            .field("peer", peer)
            .field("reading", reading)
            .finish_non_exhaustive()
    }
}

impl<P: Pipe> Carrier for TlsPipe<P> {
    fn poll_receive(&mut self, context: &mut Context<'_>, pieces: &mut Vec<Bytes>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.reading {
                Reading::Open => {}
                Reading::Finished => return Poll::Ready(Ok(())),
                Reading::Failed(error) => {
                    let error = error.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
                    return Poll::Ready(Err(error));
                }
            }
            let before = pieces.len();
            // What came before an error is good, and comes first.
            if let Err(error) = self.open_records(pieces) {
                self.fail(context, error);
            }
            if pieces.len() > before {
                return Poll::Ready(Ok(()));
            }
            if matches!(self.reading, Reading::Open)
                && ready!(self.inbox.poll_read(context, &mut self.pipe))? == 0
            {
                // Without the peer's goodbye it may be anybody who ended the connection (RFC 8446 §6.1).
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn make_room(&mut self, unread: usize, let_go: impl FnOnce()) -> Room {
        self.inbox.make_room(unread, let_go)
    }

    fn rest(&mut self, unread: usize, let_go: impl FnOnce()) {
        self.inbox.rest(unread, let_go);
        self.give_back();
    }

    fn send(&mut self, batch: &mut Batch) {
        if batch.ends.is_empty() {
            return;
        }
        self.prepare();
        let mut start = 0;
        for end in batch.ends.drain(..) {
            self.seal_record(&batch.slices[start..end]);
            start = end;
        }
        batch.slices.clear();
        self.post();
    }

    fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && !self.owes_key
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = &self.broken {
            return Poll::Ready(Err(io::Error::other(error.clone())));
        }
        ready!(self.outbox.poll_flush(context, &mut self.pipe))?;
        self.answer_for_key();
        self.outbox.poll_flush(context, &mut self.pipe)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_said_goodbye {
            self.has_said_goodbye = true;
            self.owes_key = false;
            self.seal_with(|records, sealing| records.seal_alert(AlertDescription::CloseNotify, sealing));
            self.post();
        }
        ready!(self.outbox.poll_flush(context, &mut self.pipe))?;
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // What follows the goodbye is not the peer's (RFC 8446 §6.1).
        self.inbox.take();
        self.inbox.poll_read(context, &mut self.pipe).map_ok(|count| count == 0)
    }
}

impl<P: Pipe> AsyncRead for TlsPipe<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.opened.is_empty() {
            let mut pieces = Vec::new();
            let received = self.poll_receive(context, &mut pieces);
            if received.is_pending() {
                self.rest(0, || ());
            }
            ready!(received)?;
            self.make_room(0, || ());
            self.opened.extend(pieces);
        }
        while let Some(piece) = self.opened.front_mut() {
            let count = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..count]);
            piece.advance(count);
            if !piece.is_empty() {
                break;
            }
            self.opened.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl<P: Pipe> AsyncWrite for TlsPipe<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_said_goodbye || matches!(self.reading, Reading::Failed(_)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(Carrier::poll_flush(&mut *self, context))?;
        let count = bytes.len().min(MAX_PLAINTEXT);
        self.prepare();
        self.seal([&bytes[..count]]);
        self.post();
        // What does not go out at once goes with the next write, or the flush, and so does the error.
        let _ = Carrier::poll_flush(&mut *self, context);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Carrier::poll_flush(&mut *self, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(context)
    }
}
