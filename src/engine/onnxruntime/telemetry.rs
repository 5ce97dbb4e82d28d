//! Turns the library's telemetry off.
//!
//! With telemetry on, ONNX Runtime writes a device id and an event database to the user's cache folder
//! and sends events over the network, from a thread that runs during ticks. It reads [`VARIABLE`] once,
//! when its environment is created.
//!
//! Writing an environment variable races with C libraries that read one on another thread, so it is
//! set before `main`, when no other thread exists, in every program that links this crate. If the
//! variable is missing nevertheless, for example because this crate was loaded as a plugin or the
//! variable was cleared, the library is not loaded.
#![expect(unsafe_code, reason = "writes the environment before any thread exists")]

/// Environment variable that turns telemetry off if it is `1`.
pub const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Returns whether telemetry is off for a library that is loaded now.
#[expect(clippy::disallowed_methods, reason = "the library reads this variable")]
pub(super) fn is_off() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == "1")
}

#[cfg(target_os = "linux")]
mod at_start {
    /// Entry in the program's table of constructors, which the loader calls before `main`.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static TURN_OFF: extern "C" fn() = turn_off;

    extern "C" fn turn_off() {
        // SAFETY: both strings are static and NUL-terminated, and `setenv` copies them. The loader runs
        // constructors sequentially on the process's first thread before `main`, so no other thread
        // reads the environment. `is_off` detects a failure for lack of memory.
        unsafe { libc::setenv(c"ORT_DISABLE_TELEMETRY".as_ptr(), c"1".as_ptr(), 1) };
    }
}
