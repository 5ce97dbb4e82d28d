//! Turns the library's telemetry off.
//!
//! With telemetry on, ONNX Runtime writes a device id and an event database below the user's cache
//! folder and sends events over the network, from a thread of its own beside the tick. It reads
//! [`VARIABLE`] once, when its environment is created.
//!
//! Writing an environment variable races with every C library that reads one on another thread, so
//! the variable is set where no other thread can exist: before `main`, in every program that links
//! this crate. A process in which it is missing nevertheless, e.g. because this crate was loaded as
//! a plugin, or something cleared it, is refused the library.
#![expect(unsafe_code, reason = "writes the environment before any thread exists")]

/// The environment variable that turns telemetry off when it is `1`.
pub const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Whether a library that is loaded now finds its telemetry turned off.
#[expect(clippy::disallowed_methods, reason = "the library reads this variable")]
pub(super) fn is_off() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == "1")
}

#[cfg(target_os = "linux")]
mod at_start {
    /// Listed in the program's table of constructors, which the loader calls before `main`.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static TURN_OFF: extern "C" fn() = turn_off;

    extern "C" fn turn_off() {
        // SAFETY: both strings are static and end in NUL, and `setenv` copies them. The loader runs
        // constructors one by one on the process's first thread before `main`, so no other thread
        // reads the environment. A failure for lack of memory is found by `is_off`.
        unsafe { libc::setenv(c"ORT_DISABLE_TELEMETRY".as_ptr(), c"1".as_ptr(), 1) };
    }
}
