//! Progress of a campaign: one line per drive, and the overall progress.

use super::print;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use tandem::timing::Stopwatch;
use tandem_evaluation::scoring::Record;
use tandem_files::shortened;

/// Number of drives by origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub(super) struct Counts {
    /// Drives that had a result when this command was started.
    pub(super) kept: usize,
    /// Drives made by this command.
    pub(super) driven: usize,
    /// Worker processes that died during a drive.
    pub(super) workers_died: usize,
}

/// Progress bars on a terminal, lines elsewhere.
pub(super) struct ProgressLines {
    lines: MultiProgress,
    overall: ProgressBar,
    /// By worker; `None` for a worker without a drive.
    workers: Vec<Option<ProgressBar>>,
    is_terminal: bool,
    total: usize,
    counts: Counts,
    watch: Stopwatch,
}

impl ProgressLines {
    /// Shows the progress of `total` drives.
    pub(super) fn new(total: usize) -> Self {
        let lines = MultiProgress::new();
        let style = ProgressStyle::with_template("{wide_bar} {msg}").expect("it is a constant");
        let overall = lines.add(ProgressBar::new(total as u64).with_style(style));
        overall.enable_steady_tick(Duration::from_secs(1));
        Self {
            lines,
            overall,
            workers: Vec::new(),
            is_terminal: std::io::stderr().is_terminal(),
            total,
            counts: Counts::default(),
            watch: Stopwatch::start(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts drives that have a result from an earlier command.
    pub(super) fn kept(&mut self, drives: usize) {
        self.counts.kept += drives;
        if drives > 0 {
            self.print(&format!("{drives} of {} drives are finished already, kept", self.total));
        }
        self.update();
    }

    /// Shows that `worker` starts the drive `name`.
    pub(super) fn started(&mut self, worker: usize, name: &str) {
        if self.workers.len() <= worker {
            self.workers.resize(worker + 1, None);
        }
        let style = ProgressStyle::with_template("  {msg}, tick {pos}").expect("it is a constant");
        let bar = self.lines.add(ProgressBar::new(0).with_style(style));
        bar.set_message(name.to_owned());
        if let Some(before) = self.workers[worker].replace(bar) {
            before.finish_and_clear();
        }
    }

    /// Shows the current tick of `worker`.
    pub(super) fn tick(&mut self, worker: usize, tick: u64) {
        if let Some(Some(bar)) = self.workers.get(worker) {
            bar.set_position(tick);
        }
    }

    /// Counts and shows the drive that `worker` has finished in `took_s` seconds.
    pub(super) fn finished(&mut self, worker: usize, record: &Record, took_s: f64) {
        self.counts.driven += 1;
        self.leave(worker);
        let score = record.scores.score_composed;
        let line = format!(
            "{}: {}, driving score {score:.2}, {took_s:.1} s; {}",
            shortened(&record.route_id),
            record.status,
            self.summary()
        );
        self.print(&line);
        self.update();
    }

    /// Counts the worker that died during the drive `name`.
    pub(super) fn died(&mut self, worker: usize, name: &str, how: &str) {
        self.counts.workers_died += 1;
        self.leave(worker);
        self.print(&format!("{name}: the worker process died ({how}); the drive is discarded"));
    }

    /// Shows that `worker` was killed because the drive `name` exceeded its time limit.
    pub(super) fn timed_out(&mut self, worker: usize, name: &str, reason: &str) {
        self.leave(worker);
        self.print(&format!(
            "{name}: the worker process was killed: {reason}; the route counts as failed"
        ));
    }

    /// Removes the progress bars from the terminal.
    pub(super) fn clear(&mut self) {
        (0..self.workers.len()).for_each(|worker| self.leave(worker));
        self.overall.finish_and_clear();
    }

    fn leave(&mut self, worker: usize) {
        if let Some(bar) = self.workers.get_mut(worker).and_then(Option::take) {
            bar.finish_and_clear();
        }
    }

    fn update(&self) {
        let done = self.counts.kept + self.counts.driven;
        self.overall.set_position(done as u64);
        self.overall.set_message(self.summary());
    }

    fn summary(&self) -> String {
        summary(self.counts, self.total, self.watch.elapsed())
    }

    fn print(&self, line: &str) {
        if self.is_terminal {
            // An error means that the terminal cannot be written to.
            let _ = self.lines.println(line);
        } else {
            print::note(line);
        }
    }
}

/// Formats the number of finished drives, their rate, and the estimated time left.
fn summary(counts: Counts, total: usize, elapsed: Duration) -> String {
    let done = counts.kept + counts.driven;
    let mut text = format!("{done} / {total} done");
    if counts.driven > 0 && elapsed > Duration::ZERO {
        let per_minute = counts.driven as f64 / elapsed.as_secs_f64() * 60.0;
        text += &format!(", {per_minute:.1} drives/min");
        if done < total {
            let left = elapsed.mul_f64((total - done) as f64 / counts.driven as f64);
            text += &format!(", about {} left", rounded(left));
        }
    }
    text
}

/// Formats a time in seconds, minutes or hours.
fn rounded(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimated_time_left_ignores_kept_drives() {
        let counts = Counts { kept: 100, driven: 20, workers_died: 0 };
        let text = summary(counts, 220, Duration::from_secs(60));
        assert_eq!(text, "120 / 220 done, 20.0 drives/min, about 5 min left");
        let none = summary(Counts { kept: 3, ..Counts::default() }, 3, Duration::ZERO);
        assert_eq!(none, "3 / 3 done");
    }
}
