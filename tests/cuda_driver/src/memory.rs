//! Device memory and pinned host memory.
//!
//! Addresses of device memory are not valid addresses of the host: an access of the host faults.
//! Addresses are never reused, so that every use of freed memory is detected.

use crate::access::{Access, Author, History, Moment};
use crate::clock::VectorClock;
use crate::code::{Code, Outcome};
use crate::host_watch::{HostWatch, POISON};
use crate::report::Report;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, VecDeque};

/// First address of device memory, above all host addresses of platforms with 48 or 57 address bits.
const DEVICE: u64 = 0xD0 << 56;

/// Alignment of device memory, bytes. CUDA Programming Guide, "Device Memory Accesses": addresses of
/// allocations are aligned to at least 256 bytes.
const ALIGNMENT: u64 = 256;

/// Value of the bytes of new memory. Manual, `cuMemAlloc`: the memory is not cleared.
const UNWRITTEN: u8 = 0xA5;

/// Number of freed pinned blocks that are kept, filled with poison, before they are deallocated.
const KEPT_PINNED: usize = 16;

enum Bytes {
    Device(Vec<u8>),
    Pinned { start: *mut u8, layout: Layout, watch: HostWatch },
}

struct Block {
    length: u64,
    bytes: Bytes,
    history: History,
    freed_by: Option<Author>,
}

/// Kind of memory of an address range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Device,
    Pinned,
    /// Memory of the host that was not allocated by the driver.
    Pageable,
    Freed,
    /// Device addresses outside of any block.
    Nowhere,
}

pub(crate) struct Memory {
    blocks: BTreeMap<u64, Block>,
    next: u64,
    total: u64,
    used: u64,
    freed_pinned: VecDeque<u64>,
}

// SAFETY: `start` of each pinned block points to memory that this value owns and that any thread may
// access and deallocate. Accesses of the host's threads follow the rules of the driver.
unsafe impl Send for Memory {}

impl Memory {
    pub(crate) fn new(total: u64) -> Self {
        let (blocks, freed_pinned) = (BTreeMap::new(), VecDeque::new());
        Self { blocks, next: DEVICE, total, used: 0, freed_pinned }
    }

    pub(crate) fn free_and_total(&self) -> (u64, u64) {
        (self.total - self.used, self.total)
    }

    /// Number of blocks that are not freed.
    pub(crate) fn live(&self) -> usize {
        self.blocks.values().filter(|block| block.freed_by.is_none()).count()
    }

    /// Manual, `cuMemAlloc`: a size of 0 returns an invalid value.
    pub(crate) fn allocate_device(&mut self, length: u64) -> Outcome<u64> {
        if length == 0 {
            return Err(Code::INVALID_VALUE);
        }
        if length > self.total - self.used {
            return Err(Code::OUT_OF_MEMORY);
        }
        let start = self.next;
        // A gap after each block, so that an overrun does not reach the next block.
        self.next += length.next_multiple_of(ALIGNMENT) + ALIGNMENT;
        self.used += length;
        self.add(start, length, Bytes::Device(vec![UNWRITTEN; length as usize]));
        Ok(start)
    }

    pub(crate) fn allocate_pinned(&mut self, length: u64) -> Outcome<u64> {
        let layout = Layout::from_size_align(length as usize, 4096).ok().filter(|l| l.size() > 0);
        let layout = layout.ok_or(Code::INVALID_VALUE)?;
        // SAFETY: the size of `layout` is not 0.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return Err(Code::OUT_OF_MEMORY);
        }
        // SAFETY: `start` is valid for `layout.size()` bytes, because it was allocated with `layout`.
        unsafe { start.write_bytes(UNWRITTEN, layout.size()) };
        self.add(
            start as u64,
            length,
            Bytes::Pinned { start, layout, watch: HostWatch::default() },
        );
        Ok(start as u64)
    }

    fn add(&mut self, start: u64, length: u64, bytes: Bytes) {
        let history = History::default();
        self.blocks.insert(start, Block { length, bytes, history, freed_by: None });
    }

    /// Frees the block that begins at `start`. `host` has the operations for which the host has waited.
    ///
    /// Manual, `cuMemFree`: it "may perform implicit synchronization", so callers must not rely on it.
    /// `cuMemFreeHost`: not specified. Assumed: it does not synchronize.
    pub(crate) fn free(
        &mut self,
        start: u64,
        is_pinned: bool,
        by: Author,
        host: &VectorClock,
        report: &mut Report,
    ) -> Outcome {
        let block = self.blocks.get_mut(&start).ok_or(Code::INVALID_VALUE)?;
        if is_pinned != matches!(block.bytes, Bytes::Pinned { .. }) {
            return Err(Code::INVALID_VALUE);
        }
        if let Some(earlier) = block.freed_by {
            report.violation(format!(
                "{} frees {start:#x}, which {} freed before",
                by.function, earlier.function
            ));
            return Err(Code::INVALID_VALUE);
        }
        for (access, author) in block.history.not_before(host) {
            report.violation(format!(
                "freed while in use: {} (call {}) frees {start:#x}, and the host has not waited for {author}, \
                 which {access}",
                by.function, by.call
            ));
        }
        block.freed_by = Some(by);
        match &mut block.bytes {
            Bytes::Device(bytes) => {
                *bytes = Vec::new();
                self.used -= block.length;
            }
            Bytes::Pinned { start: pointer, layout, .. } => {
                // SAFETY: `pointer` is valid for `layout.size()` bytes until `release_pinned`.
                unsafe { pointer.write_bytes(POISON, layout.size()) };
                self.freed_pinned.push_back(start);
                if self.freed_pinned.len() > KEPT_PINNED {
                    self.release_pinned(report);
                }
            }
        }
        Ok(())
    }

    /// Deallocates the oldest freed pinned block.
    fn release_pinned(&mut self, report: &mut Report) {
        let address = self.freed_pinned.pop_front().expect("more blocks than are kept");
        let block = self.blocks.get(&address).expect("freed blocks are kept");
        let Bytes::Pinned { start, layout, watch } = &block.bytes else {
            unreachable!("only pinned blocks are released")
        };
        if !watch.is_idle() {
            self.freed_pinned.push_back(address);
            return;
        }
        let (start, layout) = (*start, *layout);
        // SAFETY: `start` is valid for `layout.size()` bytes, because the block is deallocated only
        // below.
        let bytes = unsafe { std::slice::from_raw_parts(start, layout.size()) };
        if bytes.iter().any(|&byte| byte != POISON) {
            report.violation(format!("written after free: pinned memory at {:#x}", start as u64));
        }
        // SAFETY: `start` was allocated with `layout` and is deallocated only here.
        unsafe { dealloc(start, layout) };
        self.blocks.remove(&address);
    }

    fn block_of(&self, address: u64) -> Option<(u64, &Block)> {
        let (&start, block) = self.blocks.range(..=address).next_back()?;
        (address < start + block.length).then_some((start, block))
    }

    fn block_of_mut(&mut self, address: u64) -> Option<(u64, &mut Block)> {
        let (&start, block) = self.blocks.range_mut(..=address).next_back()?;
        (address < start + block.length).then_some((start, block))
    }

    /// Returns the kind of memory of `length` bytes at `address`.
    pub(crate) fn place(&self, address: u64, length: u64) -> Place {
        match self.block_of(address) {
            Some((start, block)) if address + length <= start + block.length => {
                match (&block.bytes, block.freed_by) {
                    (_, Some(_)) => Place::Freed,
                    (Bytes::Device(_), None) => Place::Device,
                    (Bytes::Pinned { .. }, None) => Place::Pinned,
                }
            }
            Some(_) => Place::Nowhere,
            None if address >= DEVICE => Place::Nowhere,
            None => Place::Pageable,
        }
    }

    /// Registers an enqueued operation that is ordered after `clock`, and checks its accesses.
    pub(crate) fn enqueue(
        &mut self,
        id: u64,
        accesses: &[Access],
        (moment, author, clock): (Moment, Author, &VectorClock),
        report: &mut Report,
    ) {
        for access in accesses {
            let Some((start, block)) = self.block_of_mut(access.range.start) else { continue };
            if let Some(by) = block.freed_by {
                report.violation(format!("used after free: {author} {access}, freed by {by}"));
                continue;
            }
            for (other, by) in block.history.add(access, moment, author, clock) {
                report.violation(format!(
                    "unordered: {author} {access}, while {by} {other}; no event and no wait of the \
                     host orders them"
                ));
            }
            if let Bytes::Pinned { start: pointer, layout, watch } = &mut block.bytes {
                let range = offset(access, start);
                // SAFETY: `pointer` is valid for `layout.size()` bytes. The host does not access it
                // concurrently: tests that violate the rules do so on the same thread.
                let actual = unsafe { std::slice::from_raw_parts_mut(*pointer, layout.size()) };
                if watch.begin(id, range, access.is_write, actual) {
                    report.violation(changed(author, access));
                }
            }
        }
    }

    /// Checks the accesses of an operation that is about to run.
    pub(crate) fn before_run(
        &mut self,
        id: u64,
        accesses: &[Access],
        author: Author,
        report: &mut Report,
    ) {
        for access in accesses {
            let Some((_, block)) = self.block_of_mut(access.range.start) else { continue };
            if let Some(by) = block.freed_by {
                report.violation(format!("used after free: {author} {access}, freed by {by}"));
                continue;
            }
            if let Bytes::Pinned { start: pointer, layout, watch } = &mut block.bytes {
                // SAFETY: as in `enqueue`.
                let actual = unsafe { std::slice::from_raw_parts(*pointer, layout.size()) };
                if watch.end(id, actual) {
                    report.violation(changed(author, access));
                }
            }
        }
    }

    /// Reads bytes at an address. Freed memory reads as poison.
    pub(crate) fn read(&self, address: u64, length: u64) -> Vec<u8> {
        match self.block_of(address) {
            Some((_, block)) if block.freed_by.is_some() => vec![POISON; length as usize],
            Some((start, Block { bytes: Bytes::Device(bytes), .. })) => {
                let from = (address - start) as usize;
                bytes[from..from + length as usize].to_vec()
            }
            Some((_, Block { bytes: Bytes::Pinned { .. }, .. })) | None => {
                // SAFETY: `address` is valid for `length` bytes: pinned memory because it is not freed,
                // pageable memory because the caller of the copy keeps it valid until it waits.
                unsafe { std::slice::from_raw_parts(address as *const u8, length as usize) }
                    .to_vec()
            }
        }
    }

    /// Writes bytes to an address. Writes to freed memory are ignored.
    pub(crate) fn write(&mut self, address: u64, from: &[u8]) {
        match self.block_of_mut(address) {
            Some((_, block)) if block.freed_by.is_some() => {}
            Some((start, Block { bytes: Bytes::Device(bytes), .. })) => {
                let at = (address - start) as usize;
                bytes[at..at + from.len()].copy_from_slice(from);
            }
            place => {
                if let Some((start, Block { bytes: Bytes::Pinned { watch, .. }, .. })) = place {
                    let at = (address - start) as usize;
                    watch.written(at..at + from.len(), from);
                }
                // SAFETY: `address` is valid for `from.len()` bytes, as in `read`.
                unsafe { std::ptr::copy(from.as_ptr(), address as *mut u8, from.len()) };
            }
        }
    }
}

fn offset(access: &Access, start: u64) -> std::ops::Range<usize> {
    (access.range.start - start) as usize..(access.range.end - start) as usize
}

fn changed(author: Author, access: &Access) -> String {
    format!("changed while a copy was pending: the host wrote to memory that {author} {access}")
}
