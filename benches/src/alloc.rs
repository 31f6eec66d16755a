//! Counts what the heap is asked for, on the thread that asks.
//!
//! Bytes are those that were asked for; what an allocator adds to them is not seen.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Sub;

/// The largest size that has a counter of its own.
const LARGEST: usize = 8 << 10;

/// Sizes above that share a counter with those that are the same in whole KiB, up to this many of them.
const KIBIBYTES: usize = 256;

#[global_allocator]
static COUNTING: Counting = Counting;

/// The system's allocator, counted.
struct Counting;

struct Counters {
    allocations: Cell<u64>,
    allocated_bytes: Cell<u64>,
    live_bytes: Cell<i64>,
    /// How many blocks of each size are live, and then of each number of KiB.
    live: [Cell<i64>; LARGEST + 1 + KIBIBYTES],
}

thread_local! {
    // Constant, and nothing to drop: so that to reach it allocates nothing.
    static COUNTERS: Counters = const {
        Counters {
            allocations: Cell::new(0),
            allocated_bytes: Cell::new(0),
            live_bytes: Cell::new(0),
            live: [const { Cell::new(0) }; LARGEST + 1 + KIBIBYTES],
        }
    };
}

/// What this thread's heap has been asked for since the thread began. What one thread allocates and another frees
/// counts at both, so only a difference on a single thread says what is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// How often memory was allocated, or moved to be larger or smaller.
    pub allocations: u64,
    /// How many bytes these were in all.
    pub allocated_bytes: u64,
    /// Bytes that were allocated and not freed.
    pub live_bytes: i64,
}

/// How it stands with this thread's heap.
pub fn heap() -> Heap {
    COUNTERS.with(|counters| Heap {
        allocations: counters.allocations.get(),
        allocated_bytes: counters.allocated_bytes.get(),
        live_bytes: counters.live_bytes.get(),
    })
}

impl Sub for Heap {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            allocations: self.allocations - earlier.allocations,
            allocated_bytes: self.allocated_bytes - earlier.allocated_bytes,
            live_bytes: self.live_bytes - earlier.live_bytes,
        }
    }
}

/// How many blocks of each size are live on this thread, at the index that `index_of` says.
#[derive(Clone, Debug)]
pub struct Sizes(Vec<i64>);

/// Where blocks of `size` bytes are counted.
fn index_of(size: usize) -> usize {
    if size <= LARGEST { size } else { LARGEST + (size >> 10) }
}

/// What is counted there: a size in bytes, and above 8 KiB the whole KiB of it.
fn size_at(index: usize) -> usize {
    if index <= LARGEST { index } else { (index - LARGEST) << 10 }
}

/// The live blocks of this thread by size. Those above 256 KiB are not in it.
pub fn sizes() -> Sizes {
    // The memory for the answer must not be part of it.
    let mut sizes = Vec::with_capacity(LARGEST + 1 + KIBIBYTES);
    COUNTERS.with(|counters| sizes.extend(counters.live.iter().map(Cell::get)));
    Sizes(sizes)
}

impl Sizes {
    /// The sizes of which there are more than there were, and how many more, the most bytes first. Above 8 KiB a size
    /// is in whole KiB.
    pub fn since(&self, earlier: &Self) -> Vec<(usize, i64)> {
        let pairs = self.0.iter().zip(&earlier.0).enumerate();
        let mut grown: Vec<_> = pairs.map(|(index, (now, then))| (size_at(index), now - then)).collect();
        grown.retain(|&(_, count)| count > 0);
        grown.sort_by_key(|&(size, count)| std::cmp::Reverse(i64::try_from(size).unwrap_or(0) * count));
        grown
    }
}

impl Counters {
    fn allocated(&self, size: usize) {
        self.allocations.set(self.allocations.get() + 1);
        self.allocated_bytes.set(self.allocated_bytes.get() + size as u64);
        self.live(size, 1);
    }

    fn live(&self, size: usize, sign: i64) {
        self.live_bytes.set(self.live_bytes.get() + sign * i64::try_from(size).unwrap_or(0));
        if let Some(count) = self.live.get(index_of(size)) {
            count.set(count.get() + sign);
        }
    }
}

#[expect(unsafe_code, reason = "an allocator can only be written so; it hands every call on unchanged")]
// SAFETY: the system's allocator keeps the contract, and counting touches no memory that it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTERS.with(|counters| counters.allocated(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNTERS.with(|counters| counters.allocated(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        COUNTERS.with(|counters| {
            counters.live(layout.size(), -1);
            counters.allocated(new_size);
        });
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        COUNTERS.with(|counters| counters.live(layout.size(), -1));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_is_not_live() {
        let (before, sizes_before) = (heap(), sizes());
        let block = vec![0u8; 777];
        let (held, held_sizes) = (heap() - before, sizes());
        // The answer of `sizes` is live as well.
        assert_eq!(held.allocations, 2);
        let answer = (LARGEST + 1 + KIBIBYTES) * size_of::<i64>();
        assert_eq!(held_sizes.since(&sizes_before), [(answer >> 10 << 10, 1), (777, 1)]);
        drop((block, sizes_before, held_sizes));
        assert!((heap() - before).live_bytes <= 0);
    }
}
