//! Returns heap memory that a build freed to the system.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "calls malloc_trim of the C library")
)]

/// Returns freed heap memory to the system. A build frees hundreds of megabytes in small allocations
/// that the C library retains; without this, the next network would need more than predicted.
pub(super) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `malloc_trim` is thread-safe, may be called at any time, and touches only freed
        // memory.
        unsafe { libc::malloc_trim(0) };
    }
}
