//! Memory of a device, and memory that both sides reach.

#![expect(unsafe_code, reason = "staged memory is read and written where a device may reach it")]

use super::access::{Accesses, HostAccess};
use bytemuck::{AnyBitPattern, NoUninit};
use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Bytes at a fixed address of a device. A clone is the same memory; it is given back with the last.
///
/// The host has no reference into it, not even on the host device: it is read and written by work on
/// streams, which events put in order.
#[derive(Clone)]
pub struct Buffer {
    address: usize,
    bytes: usize,
    owner: Arc<dyn Any + Send + Sync>,
}

impl Buffer {
    /// `bytes` bytes at `address`, which are valid as long as `owner` lives.
    pub(super) fn new(address: usize, bytes: usize, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { address, bytes, owner }
    }

    /// Where it begins, in the device's address space.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What keeps the memory alive; a device knows its own by it.
    pub(super) fn owner(&self) -> &(dyn Any + Send + Sync) {
        &*self.owner
    }

    /// `bytes` bytes of it, from `from` on.
    ///
    /// # Panics
    /// If it is not so long.
    #[must_use]
    pub fn part(&self, from: usize, bytes: usize) -> Self {
        let end = from.checked_add(bytes).expect("a length of memory");
        assert!(end <= self.bytes, "{from} to {end} of {} bytes", self.bytes);
        Self { address: self.address + from, bytes, owner: Arc::clone(&self.owner) }
    }
}

/// The host's side of staged memory.
pub(super) trait HostSide: Any + Send + Sync {
    /// True if a copy from or to it was handed over and is known not to be done. A device that
    /// cannot tell says no.
    fn is_being_copied(&self) -> bool;

    /// Who is at it right now.
    fn accesses(&self) -> &Accesses;
}

/// Memory that the host writes or reads, with its copy on the device.
///
/// The two are one on the host device, and [`Stream::upload`](super::Stream::upload) and
/// [`download`](super::Stream::download) then copy nothing. In between an upload and the event behind
/// it the host leaves the memory alone, and it reads a download only behind its event. On the host
/// device and on an emulated one that is checked: whoever touches memory that work is reading or
/// writing panics, and work on memory that the host has a reference into fails.
pub struct Staged {
    host: *mut u8,
    /// Keeps the host's side alive.
    host_owner: Arc<dyn HostSide>,
    buffer: Buffer,
}

// SAFETY: the pointer leads to memory that `host_owner` keeps and that has no other safe path to it;
// references into it come from `bytes` and `bytes_mut` alone, under the usual borrow rules.
unsafe impl Send for Staged {}
// SAFETY: as above; `&Staged` gives shared reading only.
unsafe impl Sync for Staged {}

/// A reference into the host's side of staged memory; work that writes there fails while it lives.
pub struct StagedRef<'a, T> {
    values: &'a [T],
    access: HostAccess<'a>,
}

/// A reference into the host's side of staged memory, for writing; work there fails while it lives.
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
    /// The same bytes as numbers.
    pub(super) fn cast<T: AnyBitPattern>(self) -> StagedRef<'a, T> {
        StagedRef { values: bytemuck::cast_slice(self.values), access: self.access }
    }
}

impl<'a> StagedRefMut<'a, u8> {
    /// The same bytes as numbers.
    pub(super) fn cast<T: AnyBitPattern + NoUninit>(self) -> StagedRefMut<'a, T> {
        StagedRefMut { values: bytemuck::cast_slice_mut(self.values), access: self.access }
    }
}

impl Staged {
    /// The host's side at `host`, as long as `buffer`, valid and initialized while `host_owner` lives.
    ///
    /// # Safety
    /// `host` must lead to so many initialized bytes, and nothing but this value and work on streams
    /// may reach them while it lives.
    pub(super) unsafe fn new(host: *mut u8, host_owner: Arc<dyn HostSide>, buffer: Buffer) -> Self {
        Self { host, host_owner, buffer }
    }

    /// The device's side.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// What keeps the host's side alive.
    pub(super) fn host_owner(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.host_owner) as _
    }

    /// Begins to read or write the host's side. Panics if work is under way there.
    fn access(&self, writes: bool) -> HostAccess<'_> {
        assert!(
            !self.host_owner.is_being_copied(),
            "staged memory was touched while a copy from or to it was under way"
        );
        self.host_owner
            .accesses()
            .begin(writes)
            .unwrap_or_else(|error| panic!("staged memory was touched too early: {error}"))
    }

    /// Where the host's side begins.
    pub(super) fn host_address(&self) -> usize {
        self.host as usize
    }

    /// True if both sides are the same memory.
    pub fn is_unified(&self) -> bool {
        self.host as usize == self.buffer.address
    }

    /// What the host last wrote, or a download brought.
    ///
    /// # Panics
    /// If a host device or an emulated device is still working on it.
    pub fn bytes(&self) -> StagedRef<'_, u8> {
        let access = self.access(false);
        // SAFETY: so many initialized bytes stand there (`new`). On host devices, everything that
        // writes them has to begin a writing access first, which `access` excludes; on a GPU a
        // stream's copy writes them, which the caller has waited for (see the type's contract).
        let values = unsafe { std::slice::from_raw_parts(self.host, self.buffer.bytes) };
        StagedRef { values, access }
    }

    /// The host's side, to be written before an upload.
    ///
    /// # Panics
    /// If a host device or an emulated device is still working on it.
    pub fn bytes_mut(&mut self) -> StagedRefMut<'_, u8> {
        let (host, bytes) = (self.host, self.buffer.bytes);
        let access = self.access(true);
        // SAFETY: as in `bytes`; `&mut self` and the writing access exclude every other reference.
        let values = unsafe { std::slice::from_raw_parts_mut(host, bytes) };
        StagedRefMut { values, access }
    }
}
