//! Polling for events of other threads and processes, on a machine of any speed.

use std::time::Duration;
use tandem_timing::Stopwatch;

/// Guards against a hang only: no event takes this long on any machine that finishes the tests.
const LIMIT: Duration = Duration::from_secs(1200);

/// Calls `check` until it returns a value; panics with `what` after `LIMIT`.
#[track_caller]
pub fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(watch.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
