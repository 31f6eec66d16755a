//! Queues of bytes, all of a session's in one arena.
//!
//! In: payload as it came from the pipe or from the application. Out: the same bytes, in order, as slices.
//! Keeps: what was put in and not yet taken, plus at most one node per [`SMALL`] / 2 bytes and stream. Of memory that
//! is ours, that holds on to at most [`WASTE`] times as much.
//!
//! A stream holds a [`Queue`], eight bytes; the nodes live in the arena, so that an idle stream keeps nothing
//! of what passed through it, and a busy one allocates nothing once the arena has grown.

use alloc::vec::Vec;
use bytes::{Buf, Bytes, BytesMut};
use slab::Slab;

/// Neighbours that together are no longer than this are merged into one allocation, so that a peer that
/// sends single bytes cannot make us keep a node for each.
const SMALL: usize = 1024;

/// An application's slice that is shorter is copied. A splice passes on slices of a read buffer of 128 KiB: so what is
/// unsent keeps at most thirty-two times its size alive, in the worst case that a peer can make.
const COPY_BELOW: usize = 4096;

/// An arena that has more room than this is given back when it runs empty.
const KEEP_NODES: usize = 64;

/// What is copied here is cut into chunks of this size: three full records, so that what was sent of it, a record at a
/// time, is not copied again in order to keep it.
const PIECE: usize = 48 << 10;

/// What is left of a chunk is copied once the chunk is this many times as large. Else a peer that acknowledges all but
/// the last byte of each stream, or sends records to a reader who leaves a byte of each, could make us keep far more
/// than was promised. By half would be closer, but then a reader with half a record's buffer would copy all he reads.
const WASTE: usize = 4;

/// A queue's place in its [`Chunks`]. Plain data: the arena does the work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    head: u32,
    tail: u32,
}

const NONE: u32 = u32::MAX;

impl Default for Queue {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

/// The arena.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks {
    nodes: Slab<Node>,
    /// The nodes that are marked [`Data::Borrowed`], and some that were.
    borrowed: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Node {
    data: Data,
    next: u32,
    /// How many bytes of our memory the data holds on to; 0 if the memory is somebody else's.
    pinned: u32,
}

impl Node {
    /// Copies what is left, if it holds on to far more.
    fn trim(&mut self) {
        let rest = self.data.as_slice();
        if rest.len().saturating_mul(WASTE) <= self.pinned as usize {
            (self.pinned, self.data) = (pinned(rest.len()), Data::Owned(BytesMut::from(rest)));
        }
    }
}

fn pinned(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[derive(Clone, Debug)]
enum Data {
    /// A slice of the pipe's read buffer, which its owner wants back.
    Borrowed(Bytes),
    /// A slice of the application's buffer.
    Shared(Bytes),
    /// Our own copy, which may still grow.
    Owned(BytesMut),
}

impl Data {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) | Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Borrowed(bytes) | Self::Shared(bytes) => bytes.advance(count),
            Self::Owned(bytes) => bytes.advance(count),
        }
    }
}

impl Chunks {
    /// Appends `data` without copying it, unless it is short: a slice keeps the whole buffer alive that it was cut
    /// from, and we do not know how large that is.
    pub(crate) fn push(&mut self, queue: &mut Queue, data: Bytes) {
        if data.len() < COPY_BELOW { self.push_copy(queue, &data) } else { self.push_shared(queue, data) }
    }

    /// Appends `data` without copying it, unless it and the last chunk are small.
    fn push_shared(&mut self, queue: &mut Queue, data: Bytes) {
        if data.is_empty() || self.merge(queue, &data) {
            return;
        }
        self.append(queue, Data::Shared(data), 0);
    }

    /// As [`push`](Self::push), for a slice of the pipe's read buffer; see [`copy_out`](Self::copy_out).
    pub(crate) fn push_borrowed(&mut self, queue: &mut Queue, data: Bytes) {
        if data.is_empty() || self.merge(queue, &data) {
            return;
        }
        let key = self.append(queue, Data::Borrowed(data), 0);
        self.borrowed.push(key);
        if self.borrowed.len() > self.nodes.len() + KEEP_NODES {
            self.forget_stale();
        }
    }

    /// Appends a copy of `data`.
    pub(crate) fn push_copy(&mut self, queue: &mut Queue, data: &[u8]) {
        for piece in data.chunks(PIECE) {
            if !self.merge(queue, piece) {
                // Only what is short will ever grow.
                let data = if piece.len() < SMALL {
                    Data::Owned(BytesMut::from(piece))
                } else {
                    Data::Shared(Bytes::copy_from_slice(piece))
                };
                self.append(queue, data, pinned(piece.len()));
            }
        }
    }

    /// Takes at most `max` bytes from the front, never across two chunks. `None` if there are none.
    pub(crate) fn pop(&mut self, queue: &mut Queue, max: usize) -> Option<Bytes> {
        if queue.is_empty() || max == 0 {
            return None;
        }
        let node = &mut self.nodes[queue.head as usize];
        if node.data.as_slice().len() > max {
            let front = match &mut node.data {
                Data::Borrowed(bytes) | Data::Shared(bytes) => bytes.split_to(max),
                Data::Owned(bytes) => bytes.split_to(max).freeze(),
            };
            node.trim();
            return Some(front);
        }
        let node = self.remove_head(queue);
        Some(match node.data {
            Data::Borrowed(bytes) | Data::Shared(bytes) => bytes,
            Data::Owned(bytes) => bytes.freeze(),
        })
    }

    /// Copies at most `out.len()` bytes from the front to `out`, and returns how many.
    pub(crate) fn copy_to(&mut self, queue: &mut Queue, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() && !queue.is_empty() {
            let data = &mut self.nodes[queue.head as usize].data;
            let count = data.as_slice().len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&data.as_slice()[..count]);
            done += count;
            if count < data.as_slice().len() {
                data.advance(count);
                self.nodes[queue.head as usize].trim();
            } else {
                self.remove_head(queue);
            }
        }
        done
    }

    /// Takes at most `max` bytes from the front of `from`, as [`pop`](Self::pop), and keeps them at the end of `to`
    /// as well: what was sent and may have to be sent again. The bytes are shared, not copied, unless they are few, also
    /// in proportion to what they would hold on to.
    pub(crate) fn pop_and_keep(&mut self, from: &mut Queue, to: &mut Queue, max: usize) -> Option<Bytes> {
        let pinned = self.nodes.get(from.head as usize)?.pinned;
        let data = self.pop(from, max)?;
        if !self.merge(to, &data) {
            let key = self.append(to, Data::Shared(data.clone()), pinned);
            self.nodes[key as usize].trim();
        }
        Some(data)
    }

    /// Puts everything in `front` before what is in `back`.
    pub(crate) fn put_before(&mut self, front: &mut Queue, back: &mut Queue) {
        let Some(last) = self.nodes.get_mut(front.tail as usize) else { return };
        last.next = back.head;
        if back.is_empty() {
            back.tail = front.tail;
        }
        back.head = front.head;
        *front = Queue::default();
    }

    /// Drops `count` bytes, which must be there, from the front.
    pub(crate) fn drop_front(&mut self, queue: &mut Queue, mut count: usize) {
        while count > 0 {
            let length = self.nodes[queue.head as usize].data.as_slice().len();
            if length > count {
                let node = &mut self.nodes[queue.head as usize];
                node.data.advance(count);
                return node.trim();
            }
            count -= length;
            self.remove_head(queue);
        }
    }

    /// Drops everything in the queue.
    pub(crate) fn clear(&mut self, queue: &mut Queue) {
        while !queue.is_empty() {
            self.remove_head(queue);
        }
    }

    /// Gives back what is kept for the next time.
    pub(crate) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.borrowed.shrink_to_fit();
    }

    /// Copies what still points into the pipe's read buffer, so that its owner can use that buffer again.
    pub(crate) fn copy_out(&mut self) {
        for key in self.borrowed.drain(..) {
            if let Some(node) = self.nodes.get_mut(key as usize)
                && let Data::Borrowed(bytes) = &node.data
            {
                (node.pinned, node.data) = (pinned(bytes.len()), Data::Owned(BytesMut::from(&bytes[..])));
            }
        }
        if self.borrowed.capacity() > KEEP_NODES {
            self.borrowed = Vec::new();
        }
    }

    /// The bytes of `queue`, in order, as they lie in the arena.
    pub(crate) fn slices<'a>(&'a self, queue: &Queue) -> impl Iterator<Item = &'a [u8]> {
        let mut next = queue.head;
        core::iter::from_fn(move || {
            let node = self.nodes.get(next as usize)?;
            next = node.next;
            Some(node.data.as_slice())
        })
    }

    /// Whether `data`, which begins `before` bytes before the end of what went into `queue`, is what is still in
    /// there from that place on. What was taken out, or lies past the end, cannot be compared.
    pub(crate) fn ends_alike(&self, queue: &Queue, before: u64, data: &[u8]) -> bool {
        let kept = self.len(queue) as u64;
        // How many bytes of `data` were taken out, or how many in the queue lie before it.
        let (mut data, mut skip) = match usize::try_from(before.saturating_sub(kept)) {
            Ok(gone) => (data.get(gone..).unwrap_or_default(), kept.saturating_sub(before)),
            Err(_) => return true,
        };
        for slice in self.slices(queue) {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(slice.len());
            skip -= skipped as u64;
            let slice = &slice[skipped..];
            let count = slice.len().min(data.len());
            if slice[..count] != data[..count] {
                return false;
            }
            data = &data[count..];
        }
        true
    }

    /// How many bytes are in `queue`. Counts them: for checks.
    pub(crate) fn len(&self, queue: &Queue) -> usize {
        self.slices(queue).map(<[u8]>::len).sum()
    }

    /// Keeps the list of borrowed nodes in proportion to the nodes, even if nobody calls `copy_out`.
    fn forget_stale(&mut self) {
        let borrowed = self.nodes.iter().filter(|(_, node)| matches!(node.data, Data::Borrowed(_)));
        let borrowed = borrowed.map(|(key, _)| u32::try_from(key).expect("keys were made from u32"));
        self.borrowed = borrowed.collect();
    }

    fn merge(&mut self, queue: &Queue, data: &[u8]) -> bool {
        let Some(node) = self.nodes.get_mut(queue.tail as usize) else { return false };
        let length = node.data.as_slice().len();
        if length + data.len() > SMALL {
            return false;
        }
        match &mut node.data {
            Data::Owned(tail) => {
                let before = tail.capacity();
                tail.extend_from_slice(data);
                node.pinned = node.pinned.saturating_add(pinned(tail.capacity().saturating_sub(before)));
            }
            Data::Borrowed(tail) | Data::Shared(tail) => {
                let mut merged = BytesMut::with_capacity((length + data.len()).next_power_of_two());
                merged.extend_from_slice(tail);
                merged.extend_from_slice(data);
                (node.pinned, node.data) = (pinned(merged.capacity()), Data::Owned(merged));
            }
        }
        true
    }

    fn append(&mut self, queue: &mut Queue, data: Data, pinned: u32) -> u32 {
        let key = self.nodes.insert(Node { data, next: NONE, pinned });
        let key = u32::try_from(key).expect("the session's bounds leave no room for 2^32 chunks");
        match self.nodes.get_mut(queue.tail as usize) {
            Some(tail) => tail.next = key,
            None => queue.head = key,
        }
        queue.tail = key;
        key
    }

    fn remove_head(&mut self, queue: &mut Queue) -> Node {
        let node = self.nodes.remove(queue.head as usize);
        queue.head = node.next;
        if queue.is_empty() {
            queue.tail = NONE;
        }
        if self.nodes.is_empty() && self.nodes.capacity() > KEEP_NODES {
            self.nodes = Slab::new();
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(chunks: &mut Chunks, queue: &mut Queue, max: usize) -> Vec<u8> {
        core::iter::from_fn(|| chunks.pop(queue, max)).flatten().collect()
    }

    #[test]
    fn queues_in_one_arena_do_not_mix() {
        let (mut chunks, mut a, mut b) = (Chunks::default(), Queue::default(), Queue::default());
        for round in 0..4u8 {
            chunks.push(&mut a, Bytes::from(alloc::vec![round; 800]));
            chunks.push(&mut b, Bytes::from(alloc::vec![round + 100; 700]));
        }
        assert_eq!((chunks.len(&a), chunks.len(&b)), (3200, 2800));
        let (a, b) = (drain(&mut chunks, &mut a, 300), drain(&mut chunks, &mut b, usize::MAX));
        assert!(a.chunks(800).enumerate().all(|(round, part)| part.iter().all(|&x| usize::from(x) == round)));
        assert!(
            b.chunks(700)
                .enumerate()
                .all(|(round, part)| part.iter().all(|&x| usize::from(x) == round + 100))
        );
        assert_eq!(chunks.nodes.len(), 0);
    }

    #[test]
    fn single_bytes_do_not_cost_a_node_each() {
        let (mut chunks, mut queue) = (Chunks::default(), Queue::default());
        for byte in 0..=255u8 {
            chunks.push(&mut queue, Bytes::copy_from_slice(&[byte]));
        }
        assert_eq!(chunks.nodes.len(), 1);
        assert!(drain(&mut chunks, &mut queue, 7).into_iter().eq(0..=255));
    }

    #[test]
    fn a_large_chunk_comes_out_as_it_went_in() {
        let (mut chunks, mut queue) = (Chunks::default(), Queue::default());
        let data = Bytes::from(alloc::vec![7; 5000]);
        chunks.push(&mut queue, data.clone());
        let out = chunks.pop(&mut queue, usize::MAX).unwrap();
        assert_eq!(out.as_ptr(), data.as_ptr(), "no copy");
    }

    #[test]
    fn what_was_taken_and_kept_comes_again_from_any_offset() {
        let (mut chunks, mut unsent, mut sent) = (Chunks::default(), Queue::default(), Queue::default());
        let data: Vec<u8> = (0..3000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for count in [0, 1, 700, 1500, 2999, 3000] {
            for piece in [1000, 1, 1999] {
                let at = chunks.len(&unsent);
                chunks.push(&mut unsent, Bytes::copy_from_slice(&data[at..at + piece]));
            }
            let first = chunks.pop_and_keep(&mut unsent, &mut sent, 400).unwrap();
            assert_eq!(first, data[..400]);
            while chunks.len(&sent) < 1700 {
                let left = 1700 - chunks.len(&sent);
                chunks.pop_and_keep(&mut unsent, &mut sent, left.min(600)).unwrap();
            }
            chunks.put_before(&mut sent, &mut unsent);
            assert!(sent.is_empty());
            chunks.drop_front(&mut unsent, count);
            assert_eq!(drain(&mut chunks, &mut unsent, 333), data[count..], "from {count}");
            assert_eq!(chunks.nodes.len(), 0);
        }
    }

    #[test]
    fn what_came_before_is_compared_with_what_is_still_there() {
        let (mut chunks, mut queue) = (Chunks::default(), Queue::default());
        let data: Vec<u8> = (0..3000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for piece in data.chunks(1100) {
            chunks.push(&mut queue, Bytes::copy_from_slice(piece));
        }
        chunks.pop(&mut queue, 500).unwrap();
        for (from, to) in [(0, 100), (0, 500), (0, 501), (400, 2000), (500, 3000), (2999, 3000), (1100, 1100)]
        {
            let before = 3000 - from as u64;
            assert!(chunks.ends_alike(&queue, before, &data[from..to]));
            let mut changed = data[from..to].to_vec();
            changed.extend([1; 40]);
            assert!(to < 3000 || chunks.ends_alike(&queue, before, &changed), "past the end is new");
            if to > 500 && to > from {
                changed[to - from - 1] ^= 1;
                assert!(!chunks.ends_alike(&queue, before, &changed), "{from}..{to}");
            }
        }
    }

    /// How many bytes of ours the nodes hold on to.
    fn pinned_by(chunks: &Chunks) -> usize {
        chunks.nodes.iter().map(|(_, node)| node.pinned as usize).sum()
    }

    #[test]
    fn what_is_left_of_a_chunk_does_not_hold_on_to_all_of_it() {
        let ways: [fn(&mut Chunks, &mut Queue, usize); 3] = [
            |chunks, queue, count| assert_eq!(chunks.pop(queue, count).unwrap().len(), count),
            |chunks, queue, count| assert_eq!(chunks.copy_to(queue, &mut alloc::vec![0; count]), count),
            Chunks::drop_front,
        ];
        for take in ways {
            for left in [1, 100, 2000, 9999] {
                let (mut chunks, mut queue) = (Chunks::default(), Queue::default());
                chunks.push_copy(&mut queue, &[7; 10_000]);
                take(&mut chunks, &mut queue, 10_000 - left);
                assert!(pinned_by(&chunks) <= WASTE * left, "{left} bytes hold on to {}", pinned_by(&chunks));
                assert_eq!(drain(&mut chunks, &mut queue, usize::MAX), alloc::vec![7; left]);
            }
        }
    }

    #[test]
    fn what_is_kept_is_shared_in_full_records_and_copied_in_small_ones() {
        for (record, is_shared) in [(16_371, true), (PIECE / 4, false), (1000, false)] {
            let (mut chunks, mut unsent, mut sent) = (Chunks::default(), Queue::default(), Queue::default());
            chunks.push_copy(&mut unsent, &[7; 3 * PIECE]);
            let data = chunks.pop_and_keep(&mut unsent, &mut sent, record).unwrap();
            let kept = chunks.pop(&mut sent, usize::MAX).unwrap();
            assert_eq!(kept, data);
            assert_eq!(kept.as_ptr() == data.as_ptr(), is_shared, "{record}");
        }
    }

    #[test]
    fn put_before_an_empty_queue_and_of_an_empty_queue() {
        let (mut chunks, mut front, mut back) = (Chunks::default(), Queue::default(), Queue::default());
        chunks.put_before(&mut front, &mut back);
        chunks.push(&mut front, Bytes::from_static(b"ab"));
        chunks.put_before(&mut front, &mut back);
        chunks.put_before(&mut front, &mut back);
        chunks.push(&mut back, Bytes::from(alloc::vec![b'c'; 2000]));
        assert_eq!(drain(&mut chunks, &mut back, usize::MAX)[..3], *b"abc");
    }

    #[test]
    fn a_short_slice_does_not_keep_a_large_buffer_alive() {
        let (mut chunks, mut queue) = (Chunks::default(), Queue::default());
        let buffer = Bytes::from(alloc::vec![7; 64 << 10]);
        chunks.push(&mut queue, buffer.slice(..COPY_BELOW - 1));
        assert!(buffer.is_unique());
        chunks.push(&mut queue, buffer.slice(..COPY_BELOW));
        assert!(!buffer.is_unique());
    }

    #[test]
    fn the_read_buffer_is_free_again_after_copy_out() {
        let (mut chunks, mut kept, mut gone) = (Chunks::default(), Queue::default(), Queue::default());
        let buffer = Bytes::from(alloc::vec![1; 4000]);
        chunks.push_borrowed(&mut kept, buffer.slice(..2000));
        chunks.push_borrowed(&mut gone, buffer.slice(2000..));
        chunks.clear(&mut gone);
        assert!(!buffer.is_unique());
        chunks.copy_out();
        assert!(buffer.is_unique());
        assert_eq!(drain(&mut chunks, &mut kept, usize::MAX), buffer[..2000]);
    }

    #[test]
    fn the_list_of_borrowed_nodes_stays_short_without_copy_out() {
        let (mut chunks, mut queue) = (Chunks::default(), Queue::default());
        for _ in 0..10_000 {
            chunks.push_borrowed(&mut queue, Bytes::from(alloc::vec![1; 2000]));
            chunks.pop(&mut queue, usize::MAX);
        }
        assert!(chunks.borrowed.len() <= KEEP_NODES + 1);
    }

    #[test]
    fn copy_to_crosses_chunks_and_stops_at_the_end() {
        let (mut chunks, mut queue) = (Chunks::default(), Queue::default());
        chunks.push(&mut queue, Bytes::from(alloc::vec![1; 1500]));
        chunks.push_copy(&mut queue, &[2; 1500]);
        let mut out = [0; 2000];
        assert_eq!(chunks.copy_to(&mut queue, &mut out), 2000);
        assert_eq!((out[1499], out[1500]), (1, 2));
        assert_eq!(chunks.copy_to(&mut queue, &mut out), 1000);
        assert_eq!(chunks.copy_to(&mut queue, &mut out), 0);
    }

    #[test]
    fn an_empty_arena_gives_its_memory_back() {
        let mut chunks = Chunks::default();
        let mut queues = alloc::vec![Queue::default(); 1000];
        for queue in &mut queues {
            chunks.push(queue, Bytes::from_static(b"x"));
        }
        for queue in &mut queues {
            chunks.clear(queue);
        }
        assert!(chunks.nodes.capacity() <= KEEP_NODES);
    }
}
