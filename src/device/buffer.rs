//! Device memory, and staged memory that is accessible to host and device.

#![expect(unsafe_code, reason = "accesses host memory that a device may also access")]

use super::access::{Access, Accesses, HostAccess};
use bytemuck::{AnyBitPattern, NoUninit};
use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Bytes at a fixed address of a device. Clones share the memory, which is freed with the last one.
///
/// The host has no references into a buffer, not even on the host device: only work on streams,
/// ordered by events, reads and writes it.
#[derive(Clone)]
pub struct Buffer {
    address: usize,
    bytes: usize,
    owner: Arc<dyn Any + Send + Sync>,
}

impl Buffer {
    /// Wraps `bytes` bytes at `address`, which are valid while `owner` lives.
    pub(super) fn new(address: usize, bytes: usize, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { address, bytes, owner }
    }

    /// Returns the start address in the device's address space.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Returns the length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the owner of the memory, by which a device recognizes its own buffers.
    pub(super) fn owner(&self) -> &(dyn Any + Send + Sync) {
        &*self.owner
    }

    /// Returns the part of `bytes` bytes that starts at offset `from`.
    /// Panics if it exceeds the buffer.
    #[must_use]
    pub fn part(&self, from: usize, bytes: usize) -> Self {
        let end = from.checked_add(bytes).expect("the end of the part fits in usize");
        assert!(end <= self.bytes, "{from} to {end} of {} bytes", self.bytes);
        Self { address: self.address + from, bytes, owner: Arc::clone(&self.owner) }
    }
}

/// Host side of staged memory.
pub(super) trait HostSide: Any + Send + Sync {
    /// Returns true if an enqueued copy from or to this memory is not finished. A device that
    /// cannot determine that returns false.
    fn is_being_copied(&self) -> bool;

    /// Returns the accesses in progress.
    fn accesses(&self) -> &Accesses;
}

/// Staging buffer: memory that the host reads and writes, with a counterpart on the device.
///
/// On the host device both sides are the same memory, and [`Stream::upload`](super::Stream::upload)
/// and [`download`](super::Stream::download) copy nothing. The host must not access the memory
/// between an upload and the event recorded after it, and may read a download only after its event.
/// The host device and emulated devices check this: a host access during device work panics, and
/// device work on memory that the host holds a reference into fails.
pub struct Staged {
    host: *mut u8,
    /// Keeps the host side alive.
    host_owner: Arc<dyn HostSide>,
    buffer: Buffer,
}

// SAFETY: `host` points to memory that `host_owner` keeps alive and that safe code reaches only
// through `bytes` and `bytes_mut`, which follow the borrow rules.
unsafe impl Send for Staged {}
// SAFETY: as above; `&Staged` gives shared read access only.
unsafe impl Sync for Staged {}

/// Shared reference into the host side of staged memory; device work that
/// writes there fails meanwhile.
pub struct StagedRef<'a, T> {
    values: &'a [T],
    access: HostAccess<'a>,
}

/// Mutable reference into the host side of staged memory; device work on it fails meanwhile.
pub struct StagedRefMut<'a, T> {
    values: &'a mut [T],
    access: HostAccess<'a>,
}

impl<T> Deref for StagedRef<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.values
    }
}

impl<T> Deref for StagedRefMut<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.values
    }
}

impl<T> DerefMut for StagedRefMut<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.values
    }
}

impl<'a> StagedRef<'a, u8> {
    /// Reinterprets the bytes as numbers.
    pub(super) fn cast<T: AnyBitPattern>(self) -> StagedRef<'a, T> {
        StagedRef { values: bytemuck::cast_slice(self.values), access: self.access }
    }
}

impl<'a> StagedRefMut<'a, u8> {
    /// Reinterprets the bytes as numbers.
    pub(super) fn cast<T: AnyBitPattern + NoUninit>(self) -> StagedRefMut<'a, T> {
        StagedRefMut { values: bytemuck::cast_slice_mut(self.values), access: self.access }
    }
}

impl Staged {
    /// Combines the host side at `host` with the device side `buffer` of the same length.
    ///
    /// # Safety
    /// `host` must be valid for `buffer.bytes()` initialized bytes while `host_owner` lives, and
    /// nothing but this value and work on streams may access them.
    pub(super) unsafe fn new(host: *mut u8, host_owner: Arc<dyn HostSide>, buffer: Buffer) -> Self {
        Self { host, host_owner, buffer }
    }

    /// Returns the device side.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Returns the owner of the host side.
    pub(super) fn host_owner(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.host_owner) as _
    }

    /// Begins an access of the host side. Panics if it conflicts with device work.
    fn access(&self, kind: Access) -> HostAccess<'_> {
        assert!(
            !self.host_owner.is_being_copied(),
            "staged memory was accessed during a copy from or to it"
        );
        self.host_owner
            .accesses()
            .begin(kind)
            .unwrap_or_else(|error| panic!("staged memory was accessed too early: {error}"))
    }

    /// Returns the start address of the host side.
    pub(super) fn host_address(&self) -> usize {
        self.host as usize
    }

    /// Returns true if both sides are the same memory.
    pub fn is_unified(&self) -> bool {
        self.host as usize == self.buffer.address
    }

    /// Returns the host side, with the bytes that the host or a download wrote last. Panics if a
    /// host or emulated device is still writing them.
    pub fn bytes(&self) -> StagedRef<'_, u8> {
        let access = self.access(Access::Read);
        // SAFETY: `host` is valid for `buffer.bytes` initialized bytes (`new`). On host devices
        // every write begins a write access first, which `access` excludes; on a GPU they are
        // written by a copy on a stream, which the caller has waited for (contract of the type).
        let values = unsafe { std::slice::from_raw_parts(self.host, self.buffer.bytes) };
        StagedRef { values, access }
    }

    /// Returns the host side for writing before an upload. Panics if a host or emulated
    /// device is still accessing it.
    pub fn bytes_mut(&mut self) -> StagedRefMut<'_, u8> {
        let (host, bytes) = (self.host, self.buffer.bytes);
        let access = self.access(Access::Write);
        // SAFETY: as in `bytes`; `&mut self` and the write access exclude every other reference.
        let values = unsafe { std::slice::from_raw_parts_mut(host, bytes) };
        StagedRefMut { values, access }
    }
}
