//! A read buffer whose size follows what is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// The least that a read gets room for: an idle connection keeps no more.
const LEAST: usize = 4 << 10;

/// The most that a read gets room for: four full TLS records.
const MOST: usize = 64 << 10;

/// A read buffer that hands out what was read without a copy, and is used again once nobody holds a piece of it.
/// It grows to 64 KiB while reads fill it, and shrinks to 4 KiB while they do not. While it is larger than that there
/// are two, so that whoever reads what came has the time in which the other one is filled.
#[derive(Debug)]
pub struct ReadBuffer {
    buffer: Buffer,
    /// The one that was filled before, of which pieces may still be held.
    spare: Option<Buffer>,
    /// How much room the next read gets.
    size: usize,
}

#[derive(Debug)]
struct Buffer {
    bytes: BytesMut,
    /// How large it is, with what was handed out.
    size: usize,
}

impl Buffer {
    fn new(size: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(size), size }
    }

    /// Makes all of it free, if nobody holds a piece of it.
    fn reclaim(&mut self) -> bool {
        self.bytes.capacity() >= self.size || self.bytes.try_reclaim(self.size)
    }
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self { buffer: Buffer::new(LEAST), spare: None, size: LEAST }
    }
}

impl ReadBuffer {
    /// Reads once from `source`. Returns how many bytes came, 0 at its end; [`take`](Self::take) gives them.
    ///
    /// # Errors
    ///
    /// What `source` says.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(source), context, &mut self.buffer.bytes)
    }

    /// What was read.
    pub fn take(&mut self) -> Bytes {
        let read = self.buffer.bytes.len();
        if read >= self.size / 2 {
            self.size = (self.size * 2).min(MOST);
        } else if read < self.size / 8 {
            self.size = (self.size / 2).max(LEAST);
        }
        self.buffer.bytes.split().freeze()
    }

    /// Makes room for the next read: what is left of the buffer, a whole one once nobody holds a piece of it, or a new
    /// one. `let_go` asks whoever can to hold no piece of them any more; it is called before one is given up. Returns
    /// whether a buffer is full of what somebody holds: it is time to let them read.
    pub fn make_room(&mut self, let_go: impl FnOnce()) -> bool {
        let size = self.size;
        if size == LEAST && self.buffer.size > LEAST {
            // There was much to read, and is no more.
            let_go();
            *self = Self::default();
            return false;
        }
        if self.buffer.bytes.capacity() >= size / 2 {
            return false;
        }
        if self.buffer.reclaim() {
            self.grow();
            return false;
        }
        if size > LEAST {
            let other = self.spare.take().unwrap_or_else(|| Buffer::new(size));
            self.spare = Some(std::mem::replace(&mut self.buffer, other));
            if self.buffer.reclaim() {
                self.grow();
                return true;
            }
        }
        let_go();
        if self.buffer.reclaim() {
            self.grow();
        } else {
            self.buffer = Buffer::new(size);
        }
        true
    }

    /// Replaces the buffer, of which nobody holds a piece, if it is too small.
    fn grow(&mut self) {
        if self.buffer.size < self.size {
            self.buffer = Buffer::new(self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn read(buffer: &mut ReadBuffer, mut source: &[u8]) -> Bytes {
        let count = poll_fn(|context| buffer.poll_read(context, &mut source)).await.unwrap();
        let bytes = buffer.take();
        assert_eq!(bytes.len(), count);
        bytes
    }

    #[tokio::test]
    async fn it_grows_with_what_is_read_and_shrinks_again() {
        let mut buffer = ReadBuffer::default();
        let mut last = 0;
        for _ in 0..10 {
            last = read(&mut buffer, &[1; 1 << 20]).await.len();
            buffer.make_room(|| ());
        }
        assert_eq!(last, MOST);
        for _ in 0..10 {
            read(&mut buffer, &[1; 10]).await;
            buffer.make_room(|| ());
        }
        assert_eq!(buffer.size, LEAST);
    }

    #[tokio::test]
    async fn one_allocation_serves_a_reader_who_keeps_nothing() {
        let mut buffer = ReadBuffer::default();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            places.insert(read(&mut buffer, &[1; 600]).await.as_ptr());
            buffer.make_room(|| ());
        }
        let (first, last) = (*places.first().unwrap() as usize, *places.last().unwrap() as usize);
        assert!(last - first < LEAST);
    }

    #[tokio::test]
    async fn a_reader_who_is_one_buffer_behind_makes_us_copy_and_allocate_nothing() {
        let mut buffer = ReadBuffer::default();
        for _ in 0..10 {
            read(&mut buffer, &[1; 1 << 20]).await;
            buffer.make_room(|| ());
        }
        let mut held = None;
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            held = Some(read(&mut buffer, &[1; 1 << 20]).await).inspect(|bytes| {
                places.insert(bytes.as_ptr());
            });
            buffer.make_room(|| panic!("the other one is free"));
        }
        assert_eq!((held.map(|bytes| bytes.len()), places.len()), (Some(MOST), 2));
    }

    #[tokio::test]
    async fn no_more_than_two_are_held() {
        let mut buffer = ReadBuffer::default();
        let mut held = Vec::new();
        let mut asked = 0;
        for _ in 0..100 {
            held.push(read(&mut buffer, &[1; 1 << 20]).await.slice(..1));
            let mut let_go = false;
            buffer.make_room(|| let_go = true);
            if let_go {
                held.clear();
                asked += 1;
            }
            assert!(held.len() <= 8, "small ones while it grows, then two");
        }
        assert!(asked > 30);
    }

    #[tokio::test]
    async fn whoever_holds_on_is_asked_before_a_buffer_is_given_up() {
        let mut buffer = ReadBuffer::default();
        let (mut held, mut given_up) = (Vec::new(), 0);
        for _ in 0..50 {
            for read_of in [1 << 20; 12].into_iter().chain([10; 12]) {
                let piece = read(&mut buffer, &vec![1; read_of]).await;
                held.push(piece.slice(..1));
                let mut asked = false;
                buffer.make_room(|| asked = true);
                if asked {
                    held.clear();
                }
                given_up += usize::from(buffer.buffer.size == LEAST);
                assert!(held.len() <= 40, "what is held of large buffers, and of small reads behind them");
            }
        }
        assert!(given_up > 0 && buffer.buffer.bytes.capacity() <= LEAST, "and all of it small in the end");
    }

    #[tokio::test]
    async fn what_somebody_holds_is_not_written_over() {
        let mut buffer = ReadBuffer::default();
        let mut kept = Vec::new();
        let mut asked = false;
        while !asked {
            kept.push(read(&mut buffer, &[7; 1024]).await);
            buffer.make_room(|| asked = true);
        }
        read(&mut buffer, &[8; 1 << 20]).await;
        assert!(kept.iter().all(|piece| piece.iter().all(|&byte| byte == 7)));
    }
}
