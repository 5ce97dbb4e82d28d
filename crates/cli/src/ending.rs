//! Signals and the end of the process.
//!
//! The first SIGINT, SIGTERM or SIGHUP sets a flag that loops read at every tick; after
//! [`TIME_TO_END`] the process exits in any case. A second signal exits at once, in the signal
//! handler. Exiting means `_exit`: destructors and threads of loaded libraries are not waited for.
//! Files are written atomically, so only unfinished work is lost.

use super::print;
use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

/// Maximum time from the first signal to the exit of the process.
pub(super) const TIME_TO_END: Duration = Duration::from_millis(1800);

/// Part of [`TIME_TO_END`] after which worker processes are killed.
pub(super) const TIME_FOR_WORKERS: Duration = Duration::from_millis(900);

/// Part of [`TIME_TO_END`] reserved for the last line to the terminal.
const TIME_TO_PRINT: Duration = Duration::from_millis(100);

/// Exit code of interrupted work.
const INTERRUPTED: i32 = 1;

/// Flushes standard output and exits with `code`.
pub(super) fn exit(code: u8) -> ! {
    // A closed pipe is not an error here.
    let _ = std::io::stdout().flush();
    low_level::exit(code.into())
}

/// Waits for [`TIME_TO_END`], then exits.
pub(super) fn exit_soon() -> ! {
    thread::sleep(TIME_TO_END);
    low_level::exit(INTERRUPTED)
}

/// Waits for [`TIME_TO_END`], prints a note and exits.
fn exit_soon_with_note() -> ! {
    thread::sleep(TIME_TO_END.saturating_sub(TIME_TO_PRINT));
    // A separate thread, because a write to a terminal may block forever.
    let printing = thread::Builder::new()
        .name("exit note".to_owned())
        .spawn(|| print::note("interrupted: exited before the current work was finished"));
    drop(printing);
    thread::sleep(TIME_TO_PRINT);
    low_level::exit(INTERRUPTED)
}

/// Returns a flag that the first signal sets. The signal also prints `note`.
pub(super) fn cancel_on_signal(note: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let watched = watched_signals();
    let mut signals = Signals::new(&watched).context("cannot watch for signals")?;
    for &signal in &watched {
        // In this order, so that the first handler reads the flag before this signal sets it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&cancel))
            .and_then(|_| flag::register(signal, Arc::clone(&cancel)))
            .context("cannot watch for signals")?;
    }
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                let printing = move || {
                    print::note(&format!("\n{note}; press Ctrl-C again to exit at once"));
                };
                // A separate thread, because a write to a terminal may block forever. If it cannot
                // be spawned, the note is omitted.
                let _ = thread::Builder::new().name("note".to_owned()).spawn(printing);
                exit_soon_with_note();
            }
        })
        .context("cannot start a thread for signals")?;
    Ok(cancel)
}

/// Sets `cancel` at a signal and does nothing else: for workers, which their parent process ends.
pub(super) fn set_on_signal(cancel: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in watched_signals() {
        flag::register(signal, Arc::clone(cancel)).context("cannot watch for signals")?;
    }
    Ok(())
}

/// Returns the signals that end work. SIGHUP stays ignored if it was at the start, as under
/// `nohup`.
fn watched_signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// True if the process was started with `signal` ignored. False if `/proc` does not list it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
