//! Bytes that are on their way out.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// How many slices are written at a time.
const SLICES: usize = 64;

/// A slice that is shorter is copied by [`Outbox::copy_small`].
const SMALL: usize = 4 << 10;

/// Slices that go out in their order, as many with each write as the pipe takes.
#[derive(Default)]
pub struct Outbox {
    slices: VecDeque<Bytes>,
    must_flush: bool,
}

/// Without what goes out.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("slices", &self.slices.len()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Whether all is out.
    pub(crate) fn is_empty(&self) -> bool {
        self.slices.is_empty() && !self.must_flush
    }

    /// How many slices are not out.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slices.len()
    }

    /// Puts a slice behind the others. Nothing is written yet.
    pub fn push(&mut self, slice: Bytes) {
        self.slices.push_back(slice);
        self.must_flush = true;
    }

    /// Copies each slice of less than 4 KiB: however few bytes a slice has, it may hold on to a whole read buffer.
    pub fn copy_small(&mut self) {
        for slice in self.slices.iter_mut().filter(|slice| slice.len() < SMALL) {
            *slice = Bytes::copy_from_slice(slice);
        }
    }

    /// Writes until all is out and flushed (ready), or the pipe takes no more (pending).
    ///
    /// # Errors
    ///
    /// What the pipe says. What was written before is out.
    pub fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        pipe: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let mut pipe = Pin::new(pipe);
        while !self.slices.is_empty() {
            let mut parts = [IoSlice::new(&[]); SLICES];
            let count = self.slices.len().min(SLICES);
            for (part, slice) in parts.iter_mut().zip(&self.slices) {
                *part = IoSlice::new(slice);
            }
            match ready!(pipe.as_mut().poll_write_vectored(context, &parts[..count]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.advance(written),
            }
        }
        if self.must_flush {
            ready!(pipe.poll_flush(context))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(slice) = self.slices.front_mut() {
            if count < slice.len() {
                slice.advance(count);
                return;
            }
            count -= slice.len();
            self.slices.pop_front();
        }
    }
}
