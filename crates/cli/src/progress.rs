//! What a campaign says while it runs: a line for every drive, and how far all of it is.

use super::print;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use tandem::timing::Stopwatch;
use tandem_evaluation::scoring::Record;
use tandem_files::shortened;

/// How many drives came to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub(super) struct Counts {
    /// Had a result when this command was started.
    pub(super) kept: usize,
    /// Driven by this command.
    pub(super) driven: usize,
    /// Worker processes that died at a drive under this command.
    pub(super) workers_died: usize,
}

/// Drives done, of how many, how fast.
pub(super) struct ProgressLines {
    lines: MultiProgress,
    overall: ProgressBar,
    /// One per worker that is at a drive.
    workers: Vec<Option<ProgressBar>>,
    is_terminal: bool,
    total: usize,
    counts: Counts,
    watch: Stopwatch,
}

impl ProgressLines {
    /// Of `total` drives.
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

    /// So many drives have results from before.
    pub(super) fn kept(&mut self, drives: usize) {
        self.counts.kept += drives;
        if drives > 0 {
            self.say(&format!("{drives} of {} drives are finished already, kept", self.total));
        }
        self.refresh();
    }

    /// A worker, by number, begins a drive of this name.
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

    /// A worker is at this tick.
    pub(super) fn tick(&mut self, worker: usize, tick: u64) {
        if let Some(Some(bar)) = self.workers.get(worker) {
            bar.set_position(tick);
        }
    }

    /// A worker has finished a drive, which took so many seconds.
    pub(super) fn finished(&mut self, worker: usize, record: &Record, took_s: f64) {
        self.counts.driven += 1;
        self.leave(worker);
        let score = record.scores.score_composed;
        let line = format!(
            "{}: {}, driving score {score:.2}, {took_s:.1} s; {}",
            shortened(&record.route_id),
            record.status,
            self.overall_words()
        );
        self.say(&line);
        self.refresh();
    }

    /// A worker died at the drive of this name.
    pub(super) fn died(&mut self, worker: usize, name: &str, how: &str) {
        self.counts.workers_died += 1;
        self.leave(worker);
        self.say(&format!("{name}: the worker process died ({how}); nothing of the drive counts"));
    }

    /// A worker was ended because the drive of this name took too long.
    pub(super) fn timed_out(&mut self, worker: usize, name: &str, how: &str) {
        self.leave(worker);
        self.say(&format!(
            "{name}: the worker process was ended: {how}; the route counts as failed"
        ));
    }

    /// Clears what only a running campaign shows.
    pub(super) fn clear(&mut self) {
        (0..self.workers.len()).for_each(|worker| self.leave(worker));
        self.overall.finish_and_clear();
    }

    fn leave(&mut self, worker: usize) {
        if let Some(bar) = self.workers.get_mut(worker).and_then(Option::take) {
            bar.finish_and_clear();
        }
    }

    fn refresh(&self) {
        let done = self.counts.kept + self.counts.driven;
        self.overall.set_position(done as u64);
        self.overall.set_message(self.overall_words());
    }

    fn overall_words(&self) -> String {
        overall_words(self.counts, self.total, self.watch.elapsed())
    }

    fn say(&self, line: &str) {
        if self.is_terminal {
            // Without a bar to move out of the way there is nobody to tell.
            let _ = self.lines.println(line);
        } else {
            print::note(line);
        }
    }
}

/// Done of all, how fast, and how long the rest takes at that rate.
fn overall_words(counts: Counts, total: usize, elapsed: Duration) -> String {
    let done = counts.kept + counts.driven;
    let mut words = format!("{done} / {total} done");
    if counts.driven > 0 && elapsed > Duration::ZERO {
        let per_minute = counts.driven as f64 / elapsed.as_secs_f64() * 60.0;
        words += &format!(", {per_minute:.1} drives/min");
        if done < total {
            let left = elapsed.mul_f64((total - done) as f64 / counts.driven as f64);
            words += &format!(", about {} left", in_words(left));
        }
    }
    words
}

/// A time as people say it.
fn in_words(time: Duration) -> String {
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
    fn the_rest_takes_as_long_as_what_was_driven_and_not_as_what_was_kept() {
        let counts = Counts { kept: 100, driven: 20, workers_died: 0 };
        let words = overall_words(counts, 220, Duration::from_secs(60));
        assert_eq!(words, "120 / 220 done, 20.0 drives/min, about 5 min left");
        let none = overall_words(Counts { kept: 3, ..Counts::default() }, 3, Duration::ZERO);
        assert_eq!(none, "3 / 3 done");
    }
}
