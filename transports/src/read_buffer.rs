//! A read buffer that is there only while there is something to read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// How much a read has room for: seven full TLS records, and part of another one.
pub(crate) const SIZE: usize = 128 << 10;

/// With less room than this, a read gets another buffer.
const LEAST_ROOM: usize = SIZE / 2;

/// What is read in less than this is copied out, so that few bytes do not hold a large buffer.
const SMALL: usize = 16 << 10;

/// How often readers may have their turn before what they hold is copied. A runtime of one thread lets its tasks run 61
/// times before whoever waits in `block_on`.
const PATIENCE: u32 = 64;

/// How many buffers that were filled there may be, however little of them is still held.
const SPARES: usize = 2;

/// There may be more of them while so much is unread for each buffer: copied, that would take about as much memory.
const WORTH_KEEPING: usize = SIZE / 8 * 5;

/// How many there may be at most, 4 MiB with the one that is read into: what is copied at once holds others up.
const MOST_SPARES: usize = 31;

/// How many buffers a thread keeps for the next one who reads.
const POOLED: usize = 8;

thread_local! {
    /// Buffers that nobody holds a piece of.
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A read buffer that hands out what was read without a copy, and is used again once nobody holds a piece of it.
///
/// It has 128 KiB, from a pool of the thread's, and goes back there whenever there is nothing to read: an idle connection
/// keeps none. While much is read there are three, so that whoever reads what came has the time in which another one is
/// filled; and more while five eighths of what they can hold are unread. What came in a read of less than 16 KiB is copied:
/// a reader who keeps it does not keep the buffer.
#[derive(Default)]
pub struct ReadBuffer {
    /// What is read into.
    buffer: BytesMut,
    /// Whether that is one of the pool's. If not, it is small, and what was read and not taken is in it.
    is_pooled: bool,
    /// Those that were filled before, of which pieces may still be held; the oldest first.
    spares: VecDeque<BytesMut>,
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
    /// Nowhere: all buffers are full of what somebody holds. After they were let read, it is to be asked again; after 64
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
            self.replace(true);
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
    /// one. `unread` is how many bytes there are that were taken and are not read yet. `let_go` asks whoever can to hold no piece
    /// of the buffers any more; it is called before one is given up, if they were given the time for it.
    pub fn make_room(&mut self, unread: usize, let_go: impl FnOnce()) -> Room {
        self.is_overdue = false;
        if self.room() >= LEAST_ROOM || self.is_pooled && reclaim(&mut self.buffer) {
            self.waits = 0;
            return Room::Same;
        }
        let count = self.spares.len();
        let may_have_more = count < SPARES || count < MOST_SPARES && self.are_used(unread);
        if !may_have_more && !self.spares.iter_mut().any(reclaim) {
            if self.waits < PATIENCE {
                self.waits += 1;
                return Room::None;
            }
            let_go();
        }
        self.waits = 0;
        if !reclaim(&mut self.buffer) {
            self.replace(may_have_more);
        }
        Room::Other
    }

    /// Whether so much is unread that it is worth all the buffers there are.
    fn are_used(&self, unread: usize) -> bool {
        unread / WORTH_KEEPING > self.spares.len()
    }

    /// To be called when there is nothing to read for now: gives back what nobody holds a piece of. `let_go` is as for
    /// [`make_room`](Self::make_room), as is `unread`, and is called if it is the second time in a row that somebody does.
    pub fn rest(&mut self, unread: usize, let_go: impl FnOnce()) {
        let mut is_done = self.give_back();
        if !is_done && self.is_overdue && !self.are_used(unread) {
            let_go();
            is_done = self.give_back();
        }
        self.is_overdue = !is_done;
    }

    /// How much the next read has room for.
    fn room(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// Goes on with another buffer: a spare one if nobody holds a piece of it.
    fn replace(&mut self, may_have_more: bool) {
        let free = self.take_free();
        let none_was_free = free.is_none();
        let mut next = free.unwrap_or_else(take_from_pool);
        next.extend_from_slice(&self.buffer);
        self.buffer.clear();
        let old = mem::replace(&mut self.buffer, next);
        if !mem::replace(&mut self.is_pooled, true) {
            return;
        }
        self.spares.push_back(old);
        if may_have_more {
            return;
        }
        if none_was_free {
            // Whoever holds a piece of it has it from now on.
            self.spares.pop_front();
        } else if self.spares.len() > SPARES {
            self.take_free().into_iter().for_each(give_to_pool);
        }
    }

    /// A spare buffer that nobody holds a piece of.
    fn take_free(&mut self) -> Option<BytesMut> {
        let free = self.spares.iter_mut().position(reclaim)?;
        self.spares.remove(free)
    }

    /// Gives back what can be. Returns whether nothing is left to be given back.
    fn give_back(&mut self) -> bool {
        self.spares.retain_mut(|spare| {
            let is_free = reclaim(spare);
            if is_free {
                give_to_pool(mem::take(spare));
            }
            !is_free
        });
        if self.spares.is_empty() {
            self.spares = VecDeque::new();
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
        !self.is_pooled && self.spares.is_empty()
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
        usize::from(buffer.is_pooled) + buffer.spares.len()
    }

    #[tokio::test]
    async fn who_has_nothing_to_read_keeps_no_buffer() {
        let mut buffer = ReadBuffer::default();
        for size in [1, 100, SMALL, 1 << 20] {
            let piece = read(&mut buffer, &vec![1; size]).await;
            assert_eq!(held(&buffer), 1);
            buffer.make_room(0, || panic!("there is room"));
            drop(piece);
            buffer.rest(0, || panic!("nobody holds a piece"));
            assert_eq!((held(&buffer), buffer.buffer.capacity()), (0, 0));
        }
    }

    #[tokio::test]
    async fn the_beginning_of_something_is_kept_without_a_buffer() {
        let mut buffer = ReadBuffer::default();
        poll_fn(|context| buffer.poll_read(context, &mut &[7; 100][..])).await.unwrap();
        buffer.rest(0, || panic!("nobody holds a piece"));
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
        buffer.rest(0, || panic!("nobody holds a piece"));
        assert_eq!((held(&buffer), buffer.filled()), (0, &[7; (8 << 10) - 100][..]));
    }

    #[tokio::test]
    async fn buffers_are_used_again() {
        let mut buffer = ReadBuffer::default();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            places.insert(read(&mut buffer, &[1; SIZE]).await.as_ptr());
            buffer.make_room(0, || panic!("nobody holds a piece"));
            buffer.rest(0, || panic!("nobody holds a piece"));
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
            buffer.make_room(0, || panic!("the other one is free"));
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
            while buffer.make_room(0, || let_go = true) == Room::None {}
            if let_go {
                held.clear();
                asked += 1;
            }
            assert!(held.len() <= 30, "what came in three buffers");
        }
        assert!(asked > 30);
    }

    #[tokio::test]
    async fn what_is_unread_is_not_copied_while_it_fills_the_buffers() {
        let mut buffer = ReadBuffer::default();
        let mut unread = std::collections::VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        let never = || panic!("what is unread fills the buffers");
        for _ in 0..16 {
            unread.push_back(read(&mut buffer, &[1; SIZE]).await);
            assert_eq!(buffer.make_room(unread.len() * SIZE, never), Room::Other);
        }
        assert_eq!(held(&buffer), 17);
        for _ in 0..100 {
            unread.pop_front();
            unread.push_back(read(&mut buffer, &[1; SIZE]).await);
            places.insert(unread[15].as_ptr());
            assert_eq!(buffer.make_room(unread.len() * SIZE, never), Room::Other);
        }
        assert_eq!(places.len(), 17, "those that were read are filled again");
        // Nothing comes, for however long.
        for _ in 0..3 {
            buffer.rest(unread.len() * SIZE, never);
        }
        // Of little that is unread, each piece may hold a buffer.
        unread.iter_mut().for_each(|piece| piece.truncate(SIZE / 4));
        let mut asked = false;
        buffer.rest(unread.len() * SIZE / 4, || {
            asked = true;
            unread.clear();
        });
        assert_eq!((asked, held(&buffer)), (true, 0));
    }

    /// A reader who stalls holds a buffer, which is known of until it is let go of; the others are used again.
    #[tokio::test]
    async fn a_buffer_that_is_held_is_not_forgotten_while_another_one_is_free() {
        let mut buffer = ReadBuffer::default();
        let mut places = std::collections::BTreeSet::new();
        let stalled = read(&mut buffer, &[1; SIZE]).await;
        for _ in 0..100 {
            let filler = read(&mut buffer, &[1; SIZE]).await;
            places.insert(filler.as_ptr());
            while buffer.make_room(0, || panic!("one is free")) == Room::None {}
            drop(filler);
        }
        assert_eq!((stalled.len(), held(&buffer)), (SIZE, 3));
        assert!(places.len() <= 3, "{}", places.len());
    }

    #[tokio::test]
    async fn buffers_are_given_back_as_what_was_unread_is_read() {
        let mut buffer = ReadBuffer::default();
        let mut unread = Vec::new();
        for _ in 0..40 {
            unread.push(read(&mut buffer, &[1; SIZE]).await);
            while buffer.make_room(unread.len() * SIZE, || ()) == Room::None {}
        }
        assert_eq!(held(&buffer), MOST_SPARES + 1, "and those that were given up");
        unread.clear();
        for _ in 0..MOST_SPARES {
            let _held = read(&mut buffer, &[1; SIZE]).await;
            buffer.make_room(0, || panic!("some are free"));
        }
        assert!(held(&buffer) <= SPARES + 2, "{}", held(&buffer));
    }

    #[tokio::test]
    async fn whoever_holds_on_has_time_to_read_before_it_is_copied() {
        let mut buffer = ReadBuffer::default();
        let mut held = Vec::new();
        for _ in 0..=SPARES {
            held.push(read(&mut buffer, &[1; SIZE]).await);
            while buffer.make_room(0, || panic!("there was no time")) == Room::Other {}
        }
        assert_eq!(buffer.make_room(0, || panic!("there was no time")), Room::None);
        held.clear();
        assert_eq!(buffer.make_room(0, || panic!("it was read")), Room::Same);
    }

    #[tokio::test]
    async fn whoever_holds_on_for_long_is_asked_though_nothing_comes() {
        let mut buffer = ReadBuffer::default();
        let mut held = Some(read(&mut buffer, &[1; SMALL]).await);
        buffer.rest(0, || panic!("there was no time to read it yet"));
        let mut asked = 0;
        for _ in 0..3 {
            buffer.rest(0, || {
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
        buffer.rest(0, || panic!("nobody holds a piece"));
        assert_eq!((held.len(), buffer.is_pooled), (SMALL - 1, false));
    }

    #[tokio::test]
    async fn what_somebody_holds_is_not_written_over() {
        let mut buffer = ReadBuffer::default();
        let mut kept = Vec::new();
        let mut asked = false;
        while !asked {
            kept.push(read(&mut buffer, &[7; SMALL]).await);
            while buffer.make_room(0, || asked = true) == Room::None {}
        }
        read(&mut buffer, &[8; 1 << 20]).await;
        assert!(kept.iter().all(|piece| piece.iter().all(|&byte| byte == 7)));
    }
}
