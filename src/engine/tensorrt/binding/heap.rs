//! Memory that a build freed, given back to the system.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "asks the C library to give memory back")
)]

/// Gives freed heap back. A build frees hundreds of megabytes in small pieces, which the C library
/// keeps for this process; the next network would need that much more than it is predicted to.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `malloc_trim` takes locks of its own, touches only memory that nobody holds, and
        // may be called at any time from any thread.
        unsafe { libc::malloc_trim(0) };
    }
}
