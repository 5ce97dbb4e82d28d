//! Memory-mapped files, and a readable error if a mapped file is truncated.
//!
//! Weights are too large to be read into memory. If another process truncates a mapped file, reading
//! beyond its new end raises SIGBUS, which ends the process. This module registers every mapping, so
//! that the handler of [`install_truncation_handler`] can report the file.

#![expect(unsafe_code, reason = "12 GB of weights cannot be copied into memory")]

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A complete file, mapped for reading. The file must not be changed in place during the lifetime
/// of the mapping. Replacing it by a rename does not affect the mapping.
pub struct MappedFile {
    bytes: Mmap,
    /// Registration of the mapping; `None` if the registry was full.
    entry: Option<&'static Entry>,
}

impl MappedFile {
    /// Maps `file`, which is at `path`.
    ///
    /// # Errors
    /// If the file cannot be mapped.
    pub fn map(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the mapping `bytes` is read-only, and `MappedFile` documents that the file must
        // not be changed in place. Reading a truncated file ends the process.
        let bytes = unsafe { Mmap::map(file) }?;
        let entry = Entry::register(&bytes, path);
        Ok(Self { bytes, entry })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            entry.end.store(0, Ordering::Release);
            entry.start.store(0, Ordering::Release);
        }
    }
}

/// A registered mapping. The signal handler that reads it may run at any time on any thread, and
/// may neither lock nor allocate.
struct Entry {
    /// 0 if the entry is free; 1 while it is being written.
    start: AtomicUsize,
    /// 0 if the entry is not valid.
    end: AtomicUsize,
    /// Bytes of the path. They are never freed, because a handler may be reading them.
    path: AtomicPtr<u8>,
    path_bytes: AtomicUsize,
}

/// Registry of mappings. A process has fewer at a time: a few files for each of a few networks.
static REGISTRY: [Entry; 512] = [const {
    Entry {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        path: AtomicPtr::new(std::ptr::null_mut()),
        path_bytes: AtomicUsize::new(0),
    }
}; 512];

impl Entry {
    fn register(bytes: &Mmap, path: &Path) -> Option<&'static Self> {
        const WRITING: usize = 1;
        let claim = |entry: &&Self| {
            entry.start.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let entry = REGISTRY.iter().find(claim)?;
        let path: &'static mut [u8] = Box::leak(path.as_os_str().as_encoded_bytes().into());
        entry.path_bytes.store(path.len(), Ordering::Relaxed);
        entry.path.store(path.as_mut_ptr(), Ordering::Relaxed);
        let start = bytes.as_ptr() as usize;
        entry.start.store(start, Ordering::Relaxed);
        entry.end.store(start + bytes.len(), Ordering::Release);
        Some(entry)
    }

    /// Returns the bytes of the path if `address` is in the mapping.
    #[cfg(unix)]
    fn path_at(&self, address: usize) -> Option<&'static [u8]> {
        let end = self.end.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        // The last page of a mapping extends beyond the end of the file, where nothing is read.
        if !(start..end).contains(&address) {
            return None;
        }
        let (path, length) =
            (self.path.load(Ordering::Relaxed), self.path_bytes.load(Ordering::Relaxed));
        // SAFETY: `path` and `length` were stored before `end`, which was loaded with `Acquire`, and
        // the bytes are never freed or changed.
        Some(unsafe { std::slice::from_raw_parts(path, length) })
    }
}

/// Installs a SIGBUS handler that reports a truncated mapped file on standard error and exits with
/// code 2. Other bus errors end the process as before.
///
/// # Errors
/// If the handler cannot be installed.
#[cfg(unix)]
pub fn install_truncation_handler() -> io::Result<()> {
    let handle = |info: &libc::siginfo_t| {
        // SAFETY: the system sets the address of `info` for SIGBUS.
        let address = unsafe { info.si_addr() } as usize;
        let Some(path) = REGISTRY.iter().find_map(|entry| entry.path_at(address)) else { return };
        let message: [&[u8]; 3] = [
            b"error: ",
            path,
            b" was truncated while it was in use; restore the complete file (write it under \
              another name and rename it), and start again\n",
        ];
        for text in message {
            // SAFETY: `text` is valid for `text.len()` bytes, and `write` is async-signal-safe.
            let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        }
        // SAFETY: `_exit` is async-signal-safe.
        unsafe { libc::_exit(2) };
    };
    // SAFETY: `handle` uses only atomics, `write` and `_exit`, which are async-signal-safe. For
    // other addresses it returns: the previous handler, which is called first, has set the default
    // action, so that re-executing the instruction ends the process.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGBUS, handle) }.map(|_| ())
}

/// Does nothing, because the system has no SIGBUS.
///
/// # Errors
/// Never; the signature is that of the Unix version.
#[cfg(not(unix))]
pub fn install_truncation_handler() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn mapping_is_registered_during_its_lifetime() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, [7; 5000]).unwrap();
        let mapped = MappedFile::map(&File::open(&path).unwrap(), &path).unwrap();
        assert_eq!(mapped[4999], 7);
        let start = mapped.as_ptr() as usize;
        let known = |address| REGISTRY.iter().find_map(|entry| entry.path_at(address));
        let expected = Some(path.as_os_str().as_encoded_bytes());
        assert_eq!((known(start), known(start + 4999)), (expected, expected));
        assert_eq!(known(start + 5000), None);
        drop(mapped);
        assert_eq!(known(start), None);
    }
}
