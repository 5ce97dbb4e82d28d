//! Files that are mapped into memory, and what becomes of a process whose mapped file was shortened.
//!
//! Weights are too large to be read into memory. The system ends a process by a signal (SIGBUS) that
//! reads where a mapped file has no bytes any more, and nothing can prevent others from shortening
//! it. So that the process at least says which file it was, every mapping is noted here, and
//! [`tell_of_shortened_files`] looks the address up.

#![expect(unsafe_code, reason = "12 GB of weights cannot be copied into memory")]

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A whole file, mapped for reading.
///
/// It must not be changed in place while this lives. Whoever replaces it by renaming another over it
/// leaves the mapping as it was.
pub struct MappedFile {
    bytes: Mmap,
    /// Where it is noted; `None` if there was no room.
    note: Option<&'static Note>,
}

impl MappedFile {
    /// Maps `file`, whose path is `path`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn map(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the mapping is read-only. That nobody changes the file in place meanwhile is the
        // documented duty of whoever maps it; one that is shortened ends the process.
        let bytes = unsafe { Mmap::map(file) }?;
        let note = Note::of(&bytes, path);
        Ok(Self { bytes, note })
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
        if let Some(note) = self.note {
            note.end.store(0, Ordering::Release);
            note.start.store(0, Ordering::Release);
        }
    }
}

/// A mapping that a signal handler can look at: it may run at any moment, on any thread, and may
/// neither lock nor allocate.
struct Note {
    /// 0 if the note is free; 1 while it is being written.
    start: AtomicUsize,
    /// 0 if the note does not hold.
    end: AtomicUsize,
    /// The path's bytes. They are never freed, as a handler may be reading them.
    path: AtomicPtr<u8>,
    path_bytes: AtomicUsize,
}

/// More mappings than a process has at a time: a few files for each of a few networks.
static NOTES: [Note; 512] = [const {
    Note {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        path: AtomicPtr::new(std::ptr::null_mut()),
        path_bytes: AtomicUsize::new(0),
    }
}; 512];

impl Note {
    fn of(bytes: &Mmap, path: &Path) -> Option<&'static Self> {
        const WRITING: usize = 1;
        let claim = |note: &&Self| {
            note.start.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let note = NOTES.iter().find(claim)?;
        let path: &'static mut [u8] = Box::leak(path.as_os_str().as_encoded_bytes().into());
        note.path_bytes.store(path.len(), Ordering::Relaxed);
        note.path.store(path.as_mut_ptr(), Ordering::Relaxed);
        let start = bytes.as_ptr() as usize;
        note.start.store(start, Ordering::Relaxed);
        note.end.store(start + bytes.len(), Ordering::Release);
        Some(note)
    }

    /// The path's bytes if `address` lies in the mapping.
    #[cfg(unix)]
    fn path_at(&self, address: usize) -> Option<&'static [u8]> {
        let end = self.end.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        // The last page of a mapping goes on behind the file's end; nobody reads there.
        if !(start..end).contains(&address) {
            return None;
        }
        let (path, length) =
            (self.path.load(Ordering::Relaxed), self.path_bytes.load(Ordering::Relaxed));
        // SAFETY: both were stored before `end`, and the bytes are never freed or changed.
        Some(unsafe { std::slice::from_raw_parts(path, length) })
    }
}

/// From now on a process that finds a mapped file shortened says so on its standard error and exits
/// with code 2, instead of being ended by SIGBUS without a word. Other bus errors end it as before.
///
/// # Errors
/// If the system refuses to have the signal handled.
#[cfg(unix)]
pub fn tell_of_shortened_files() -> io::Result<()> {
    let handle = |info: &libc::siginfo_t| {
        // SAFETY: for SIGBUS the system fills the address in.
        let address = unsafe { info.si_addr() } as usize;
        let Some(path) = NOTES.iter().find_map(|note| note.path_at(address)) else { return };
        let words: [&[u8]; 3] = [
            b"error: ",
            path,
            b" was shortened while it was in use; put the whole file back (write it under another \
              name and rename it), and start again\n",
        ];
        for text in words {
            // SAFETY: the bytes are there; `write` may be called in a signal handler.
            let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        }
        // SAFETY: `_exit` may be called in a signal handler; nothing could go on from here.
        unsafe { libc::_exit(2) };
    };
    // SAFETY: the handler calls nothing but atomics, `write` and `_exit`, which are all allowed in a
    // signal handler. For other addresses it returns: the handler that was there before, which is
    // called first, has set the default action, so that the instruction, executed again, ends the
    // process.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGBUS, handle) }.map(|_| ())
}

/// Nothing is told: the system has no such signal.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn tell_of_shortened_files() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_noted_from_its_first_to_its_last_byte_while_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, [7; 5000]).unwrap();
        let mapped = MappedFile::map(&File::open(&path).unwrap(), &path).unwrap();
        assert_eq!(mapped[4999], 7);
        let start = mapped.as_ptr() as usize;
        let known = |address| NOTES.iter().find_map(|note| note.path_at(address));
        let expected = Some(path.as_os_str().as_encoded_bytes());
        assert_eq!((known(start), known(start + 4999)), (expected, expected));
        assert_eq!(known(start + 5000), None);
        drop(mapped);
        assert_eq!(known(start), None);
    }
}
