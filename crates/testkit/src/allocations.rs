//! A global allocator that counts the allocations of each thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator with a count per thread. A
/// test binary declares it as its `#[global_allocator]`.
pub struct CountingAllocator;

// SAFETY: forwards to the system's allocator unchanged. The counter is a thread-local integer
// without a destructor, so counting does not allocate.
#[expect(unsafe_code, reason = "counting allocations requires a global allocator")]
unsafe impl GlobalAlloc for CountingAllocator {
    // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: `layout` is the caller's, whose size is not zero.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` was allocated by `System` with `layout`, because `alloc` forwards to
        // it.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Number of allocations of the calling thread so far; zero without a [`CountingAllocator`].
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}
