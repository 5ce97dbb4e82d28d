//! How the program ends.
//!
//! The first SIGINT, SIGTERM or SIGHUP sets a flag, which loops read at every tick; whatever has not
//! ended by itself within [`TIME_TO_END`] is ended. A second signal ends the process at once, in the
//! signal's handler. Ending means `_exit`: destructors of loaded libraries and their threads are not
//! waited for. Files appear complete or not at all, so nothing is lost but what was being made.

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

/// Time from the first signal to the end of the process, at most.
pub(super) const TIME_TO_END: Duration = Duration::from_millis(1800);

/// Time that worker processes are given of it; then they are killed.
pub(super) const TIME_FOR_WORKERS: Duration = Duration::from_millis(900);

/// Time that the last line to the terminal is given.
const TIME_TO_SAY: Duration = Duration::from_millis(100);

/// Exit code of work that was interrupted.
const INTERRUPTED: i32 = 1;

/// Ends the process with `code` after its output is written.
pub(super) fn exit(code: u8) -> ! {
    // A closed pipe is nobody's problem here.
    let _ = std::io::stdout().flush();
    low_level::exit(code.into())
}

/// Ends the process after [`TIME_TO_END`] unless it ends by itself before.
pub(super) fn exit_soon() -> ! {
    thread::sleep(TIME_TO_END);
    low_level::exit(INTERRUPTED)
}

/// As [`exit_soon`], and says so.
fn exit_soon_and_say_so() -> ! {
    thread::sleep(TIME_TO_END.saturating_sub(TIME_TO_SAY));
    // On a thread of its own, because writing to a terminal may take forever.
    let said = thread::Builder::new()
        .name("last words".to_owned())
        .spawn(|| print::note("interrupted: ended without waiting for what was being done"));
    drop(said);
    thread::sleep(TIME_TO_SAY);
    low_level::exit(INTERRUPTED)
}

/// Returns a flag that the first signal sets, which also prints `what` happens now.
pub(super) fn cancel_on_signal(what: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let watched = watched_signals();
    let mut signals = Signals::new(&watched).context("cannot watch for signals")?;
    for &signal in &watched {
        // In this order: the first handler sees the flag as earlier signals left it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&cancel))
            .and_then(|_| flag::register(signal, Arc::clone(&cancel)))
            .context("cannot watch for signals")?;
    }
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                let note = move || {
                    print::note(&format!("\n{what}; press Ctrl-C again to end at once"));
                };
                // On a thread of its own, as below. Without one there is no note.
                let _ = thread::Builder::new().name("note".to_owned()).spawn(note);
                exit_soon_and_say_so();
            }
        })
        .context("cannot start a thread for signals")?;
    Ok(cancel)
}

/// Sets `cancel` when one of the signals comes, and nothing else: for worker processes, whose end
/// is the business of the process that started them.
pub(super) fn set_on_signal(cancel: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in watched_signals() {
        flag::register(signal, Arc::clone(cancel)).context("cannot watch for signals")?;
    }
    Ok(())
}

/// The signals that end work. SIGHUP is left alone where it is ignored, as under `nohup`.
fn watched_signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Whether the process was started with `signal` ignored, where the system says so.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
