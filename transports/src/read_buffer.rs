//! A read buffer that is there only while there is something to read.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// How much a read has room for: eight full TLS records.
pub(crate) const SIZE: usize = 128 << 10;

/// With less room than this, a read gets another buffer.
const LEAST_ROOM: usize = SIZE / 2;

/// What is read in less than this is copied out, so that few bytes do not hold a large buffer.
const SMALL: usize = SIZE / 8;

/// How often readers may have their turn before what they hold is copied. A runtime of one thread lets its tasks run 61
/// times before whoever waits in `block_on`.
const PATIENCE: u32 = 64;

/// How many buffers a thread keeps for the next one who reads.
const POOLED: usize = 8;

thread_local! {
    /// Buffers that nobody holds a piece of.
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A read buffer that hands out what was read without a copy, and is used again once nobody holds a piece of it.
///
/// It has 128 KiB, from a pool of the thread's, and goes back there whenever there is nothing to read: an idle connection
/// keeps none. While much is read there are two, so that whoever reads what came has the time in which the other one is
/// filled. What came in a read of less than 16 KiB is copied: a reader who keeps it does not keep the buffer.
#[derive(Default)]
pub struct ReadBuffer {
    /// What is read into.
    buffer: BytesMut,
    /// Whether that is one of the pool's. If not, it is small, and what was read and not taken is in it.
    is_pooled: bool,
    /// The one that was filled before, of which pieces may still be held.
    spare: Option<BytesMut>,
    /// Somebody held on to pieces when there was nothing to read.
    is_overdue: bool,
    /// How many times in a row there was no room.
    waits: u32,
}

/// Where the next read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Into the same buffer as the last one.
    Same,
    /// Into another one: the last one is full of what somebody holds, and it is time to let them read.
    Other,
    /// Nowhere: both buffers are full of what somebody holds. After they were let read, it is to be asked again; after 64
    /// times there will be room. Who reads nevertheless gets a buffer more.
    None,
}

impl ReadBuffer {
    /// A buffer in which these bytes are read already.
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let mut read = Self::default();
        read.buffer.extend_from_slice(bytes);
        read
    }

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
        if self.room() < LEAST_ROOM {
            self.replace();
        }
        poll_read_buf(Pin::new(source), context, &mut self.buffer)
    }

    /// What was read.
    pub fn take(&mut self) -> Bytes {
        if self.buffer.len() >= SMALL {
            return self.buffer.split().freeze();
        }
        let bytes = Bytes::copy_from_slice(&self.buffer);
        self.buffer.clear();
        bytes
    }

    /// What was read and not taken.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes the first `count` bytes of what was read, where they lie.
    pub(crate) fn take_front(&mut self, count: usize) -> BytesMut {
        self.buffer.split_to(count)
    }

    /// Whether this is so little that it should not hold a buffer.
    pub(crate) fn is_small(count: usize) -> bool {
        count < SMALL
    }

    /// Makes room for the next read: what is left of the buffer, a whole one once nobody holds a piece of it, or another
    /// one. `let_go` asks whoever can to hold no piece of them any more; it is called before one is given up, if they were
    /// given the time for it.
    pub fn make_room(&mut self, let_go: impl FnOnce()) -> Room {
        self.is_overdue = false;
        if self.room() >= LEAST_ROOM || self.is_pooled && reclaim(&mut self.buffer) {
            self.waits = 0;
            return Room::Same;
        }
        if self.spare.as_mut().is_some_and(|spare| !reclaim(spare)) {
            if self.waits < PATIENCE {
                self.waits += 1;
                return Room::None;
            }
            let_go();
        }
        self.waits = 0;
        if !reclaim(&mut self.buffer) {
            self.replace();
        }
        Room::Other
    }

    /// To be called when there is nothing to read for now: gives back what nobody holds a piece of. `let_go` is as for
    /// [`make_room`](Self::make_room), and is called if it is the second time in a row that somebody does.
    pub fn rest(&mut self, let_go: impl FnOnce()) {
        let mut is_done = self.give_back();
        if !is_done && self.is_overdue {
            let_go();
            is_done = self.give_back();
        }
        self.is_overdue = !is_done;
    }

    /// How much the next read has room for.
    fn room(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// Goes on with another buffer: the spare one if nobody holds a piece of it.
    fn replace(&mut self) {
        let mut next = self.spare.take_if(reclaim).unwrap_or_else(take_from_pool);
        next.extend_from_slice(&self.buffer);
        self.buffer.clear();
        let old = mem::replace(&mut self.buffer, next);
        if mem::replace(&mut self.is_pooled, true) {
            self.spare = Some(old);
        }
    }

    /// Gives back what can be. Returns whether nothing is left to be given back.
    fn give_back(&mut self) -> bool {
        if let Some(free) = self.spare.take_if(reclaim) {
            give_to_pool(free);
        }
        if self.is_pooled {
            // The beginning of something whose rest has not come.
            let kept = BytesMut::from(&self.buffer[..]);
            self.buffer.clear();
            if reclaim(&mut self.buffer) {
                give_to_pool(mem::replace(&mut self.buffer, kept));
                self.is_pooled = false;
            } else {
                self.buffer.extend_from_slice(&kept);
            }
        }
        !self.is_pooled && self.spare.is_none()
    }
}

/// Without what was read.
impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buffer, is_pooled, .. } = self;
        f.debug_struct("ReadBuffer")
            .field("filled", &buffer.len())
            .field("is_pooled", is_pooled)
            .finish_non_exhaustive()
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.buffer.clear();
        self.give_back();
    }
}

/// Makes all of a buffer room again, behind what was not taken, if nobody holds a piece of it. What was not taken must be
/// less than what was taken before it, or nothing.
pub(crate) fn reclaim(buffer: &mut BytesMut) -> bool {
    buffer.try_reclaim(SIZE.saturating_sub(buffer.len()))
}

pub(crate) fn take_from_pool() -> BytesMut {
    let pooled = POOL.try_with(|pool| pool.borrow_mut().pop());
    pooled.ok().flatten().unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Takes back a buffer that nobody holds a piece of.
pub(crate) fn give_to_pool(buffer: BytesMut) {
    debug_assert!(buffer.is_empty() && buffer.capacity() == SIZE, "it is whole");
    // A thread that ends has no pool any more.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
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

    /// How many buffers it has.
    fn held(buffer: &ReadBuffer) -> usize {
        usize::from(buffer.is_pooled) + usize::from(buffer.spare.is_some())
    }

    #[tokio::test]
    async fn who_has_nothing_to_read_keeps_no_buffer() {
        let mut buffer = ReadBuffer::default();
        for size in [1, 100, SMALL, 1 << 20] {
            let piece = read(&mut buffer, &vec![1; size]).await;
            assert_eq!(held(&buffer), 1);
            buffer.make_room(|| panic!("there is room"));
            drop(piece);
            buffer.rest(|| panic!("nobody holds a piece"));
            assert_eq!((held(&buffer), buffer.buffer.capacity()), (0, 0));
        }
    }

    #[tokio::test]
    async fn the_beginning_of_something_is_kept_without_a_buffer() {
        let mut buffer = ReadBuffer::default();
        poll_fn(|context| buffer.poll_read(context, &mut &[7; 100][..])).await.unwrap();
        buffer.rest(|| panic!("nobody holds a piece"));
        assert_eq!((held(&buffer), buffer.filled()), (0, &[7; 100][..]));
        poll_fn(|context| buffer.poll_read(context, &mut &[8; 100][..])).await.unwrap();
        assert_eq!(&buffer.take()[..], [[7; 100], [8; 100]].concat());
    }

    /// Also where what is kept is more than what was taken before it, which `BytesMut` does not move.
    #[tokio::test]
    async fn little_may_have_been_taken_before_what_is_kept() {
        let mut buffer = ReadBuffer::default();
        poll_fn(|context| buffer.poll_read(context, &mut &[7; 8 << 10][..])).await.unwrap();
        drop(buffer.take_front(100));
        buffer.rest(|| panic!("nobody holds a piece"));
        assert_eq!((held(&buffer), buffer.filled()), (0, &[7; (8 << 10) - 100][..]));
    }

    #[tokio::test]
    async fn buffers_are_used_again() {
        let mut buffer = ReadBuffer::default();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            places.insert(read(&mut buffer, &[1; SIZE]).await.as_ptr());
            buffer.make_room(|| panic!("nobody holds a piece"));
            buffer.rest(|| panic!("nobody holds a piece"));
        }
        assert_eq!(places.len(), 1);
    }

    #[tokio::test]
    async fn a_reader_who_is_one_buffer_behind_makes_us_copy_and_allocate_nothing() {
        let mut buffer = ReadBuffer::default();
        let mut held = None;
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            held = Some(read(&mut buffer, &[1; 1 << 20]).await).inspect(|bytes| {
                places.insert(bytes.as_ptr());
            });
            buffer.make_room(|| panic!("the other one is free"));
        }
        assert_eq!((held.map(|bytes| bytes.len()), places.len()), (Some(SIZE), 2));
    }

    #[tokio::test]
    async fn whoever_holds_on_is_asked_before_a_buffer_is_given_up() {
        let mut buffer = ReadBuffer::default();
        let (mut held, mut asked) = (Vec::new(), 0);
        for size in [1 << 20, SMALL, 10].into_iter().cycle().take(300) {
            held.push(read(&mut buffer, &vec![1; size]).await.slice(..1));
            let mut let_go = false;
            while buffer.make_room(|| let_go = true) == Room::None {}
            if let_go {
                held.clear();
                asked += 1;
            }
            assert!(held.len() <= 20, "what came in two buffers");
        }
        assert!(asked > 30);
    }

    #[tokio::test]
    async fn whoever_holds_on_has_time_to_read_before_it_is_copied() {
        let mut buffer = ReadBuffer::default();
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(read(&mut buffer, &[1; SIZE]).await);
            while buffer.make_room(|| panic!("there was no time")) == Room::Other {}
        }
        assert_eq!(buffer.make_room(|| panic!("there was no time")), Room::None);
        held.clear();
        assert_eq!(buffer.make_room(|| panic!("it was read")), Room::Same);
    }

    #[tokio::test]
    async fn whoever_holds_on_for_long_is_asked_though_nothing_comes() {
        let mut buffer = ReadBuffer::default();
        let mut held = Some(read(&mut buffer, &[1; SMALL]).await);
        buffer.rest(|| panic!("there was no time to read it yet"));
        let mut asked = 0;
        for _ in 0..3 {
            buffer.rest(|| {
                held = None;
                asked += 1;
            });
        }
        assert_eq!((asked, buffer.is_pooled), (1, false));
    }

    #[tokio::test]
    async fn few_bytes_hold_no_buffer() {
        let mut buffer = ReadBuffer::default();
        let held = read(&mut buffer, &[1; SMALL - 1]).await;
        buffer.rest(|| panic!("nobody holds a piece"));
        assert_eq!((held.len(), buffer.is_pooled), (SMALL - 1, false));
    }

    #[tokio::test]
    async fn what_somebody_holds_is_not_written_over() {
        let mut buffer = ReadBuffer::default();
        let mut kept = Vec::new();
        let mut asked = false;
        while !asked {
            kept.push(read(&mut buffer, &[7; SMALL]).await);
            while buffer.make_room(|| asked = true) == Room::None {}
        }
        read(&mut buffer, &[8; 1 << 20]).await;
        assert!(kept.iter().all(|piece| piece.iter().all(|&byte| byte == 7)));
    }
}
