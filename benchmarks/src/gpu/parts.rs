//! The parts of a measurement: ticks alone, refreshes alone, both at once.

use super::experts::{Experts, Fast, RefreshSeries, Slow, TickSeries};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tandem::device::{Counter, Counts};
use tandem::kv_cache::Handover;
use tandem::timing::Stopwatch;

/// How far a part goes at most, whichever comes first. It does one run in any case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Runs.
    pub(super) runs: usize,
    /// Time.
    pub(super) time: Duration,
    /// Raw samples that are told of every series.
    pub(super) raw: usize,
}

impl Bounds {
    fn allow(&self, runs: usize, watch: &Stopwatch) -> bool {
        runs < self.runs && (runs == 0 || watch.elapsed() < self.time)
    }

    fn stopped_by(&self, runs: usize) -> &'static str {
        if runs >= self.runs { "runs" } else { "time" }
    }
}

/// Ticks on one prefix, nothing beside them.
///
/// # Errors
/// If an expert or the device fails.
pub(super) fn ticks_alone(experts: &mut Experts, bounds: Bounds) -> anyhow::Result<Value> {
    let mut series = TickSeries::for_runs(bounds.runs);
    let prefix = experts.prefix();
    let before = experts.device.counts();
    let (watch, mut runs) = (Stopwatch::start(), 0);
    while bounds.allow(runs, &watch) {
        experts.fast.tick(&prefix, &mut series)?;
        runs += 1;
    }
    let took = watch.elapsed();
    let counts = experts.device.counts() - before;
    Ok(json!({
        "runs": runs,
        "stopped_by": bounds.stopped_by(runs),
        "took_s": took.as_secs_f64(),
        "prefix_tokens": prefix.meta().valid_length,
        "per_run": per_run(counts, runs),
        "counts": counts_of(counts),
        "ticks": series.told(bounds.raw),
    }))
}

/// Refreshes with so many new frames each, nothing beside them.
///
/// # Errors
/// If an expert or the device fails.
pub(super) fn refreshes_alone(
    experts: &mut Experts,
    new_frames: usize,
    bounds: Bounds,
) -> anyhow::Result<Value> {
    let mut series = RefreshSeries::for_runs(bounds.runs);
    let before = experts.device.counts();
    let (watch, mut runs) = (Stopwatch::start(), 0);
    while bounds.allow(runs, &watch) {
        let request = experts.slow.request(new_frames);
        experts.handover.publish(experts.slow.refresh(&request, &mut series)?)?;
        runs += 1;
    }
    let took = watch.elapsed();
    let counts = experts.device.counts() - before;
    Ok(json!({
        "runs": runs,
        "stopped_by": bounds.stopped_by(runs),
        "took_s": took.as_secs_f64(),
        "new_frames": new_frames,
        "frames": experts.slow.frames_per_prompt,
        "per_run": per_run(counts, runs),
        "counts": counts_of(counts),
        "refreshes": series.told(bounds.raw),
    }))
}

/// Ticks as fast as they go while refreshes, every frame of which is new, run back to back.
///
/// # Errors
/// If an expert or the device fails.
pub(super) fn both(experts: &mut Experts, bounds: Bounds) -> anyhow::Result<Value> {
    let Experts { fast, slow, handover, device } = experts;
    let mut ticks = TickSeries::for_runs(bounds.runs);
    let mut versions = BTreeSet::new();
    let ends = Ends::default();
    let before = device.counts();
    let watch = Stopwatch::start();
    let (runs, refreshing) = thread::scope(|scope| {
        let refreshes = thread::Builder::new()
            .name("understanding".into())
            .spawn_scoped(scope, || refresh_until(slow, handover, &ends))
            .context("starting a thread for refreshes")?;
        let runs = tick_until(fast, handover, &ends, bounds, &watch, &mut ticks, &mut versions);
        ends.ticks.store(true, Ordering::Relaxed);
        let Ok(refreshing) = refreshes.join() else { bail!("the refreshes' thread panicked") };
        // What ended the refreshes early is the reason why the ticks stopped.
        let refreshing = refreshing?;
        Ok::<_, anyhow::Error>((runs?, refreshing))
    })?;
    let took = watch.elapsed();
    let counts = device.counts() - before;
    Ok(json!({
        "runs": runs,
        "stopped_by": bounds.stopped_by(runs),
        "took_s": took.as_secs_f64(),
        "new_frames": slow.frames_per_prompt,
        "refreshes_done": refreshing.runs,
        "refreshing_part": refreshing.busy.as_secs_f64() / took.as_secs_f64(),
        "prefixes_acted_on": versions.len(),
        "waits_for_a_slot": refreshing.waits,
        "counts": counts_of(counts),
        "ticks": ticks.told(bounds.raw),
        "refreshes": refreshing.series.told(bounds.raw),
    }))
}

/// Which of the two sides is over.
#[derive(Default)]
struct Ends {
    ticks: AtomicBool,
    refreshes: AtomicBool,
}

/// What the refreshes beside ticks did.
#[derive(Default)]
struct Refreshing {
    series: RefreshSeries,
    runs: usize,
    /// Time within refreshes.
    busy: Duration,
    /// How often no slot was free.
    waits: usize,
}

fn refresh_until(slow: &mut Slow, handover: &Handover, ends: &Ends) -> anyhow::Result<Refreshing> {
    let mut done = Refreshing::default();
    let result = loop {
        if ends.ticks.load(Ordering::Relaxed) {
            break Ok(());
        }
        if !slow.has_room() {
            done.waits += 1;
            thread::yield_now();
            continue;
        }
        let request = slow.request(slow.frames_per_prompt);
        let watch = Stopwatch::start();
        let refreshed = slow.refresh(&request, &mut done.series);
        done.busy += watch.elapsed();
        match refreshed.and_then(|prefix| Ok(handover.publish(prefix)?)) {
            Ok(()) => done.runs += 1,
            Err(error) => break Err(error),
        }
    };
    ends.refreshes.store(true, Ordering::Relaxed);
    result.map(|()| done)
}

fn tick_until(
    fast: &mut Fast,
    handover: &Handover,
    ends: &Ends,
    bounds: Bounds,
    watch: &Stopwatch,
    series: &mut TickSeries,
    versions: &mut BTreeSet<u64>,
) -> anyhow::Result<usize> {
    let mut runs = 0;
    while bounds.allow(runs, watch) && !ends.refreshes.load(Ordering::Relaxed) {
        let prefix = handover.latest().context("there is no prefix")?;
        fast.tick(&prefix, series)?;
        versions.insert(prefix.meta().version);
        runs += 1;
    }
    Ok(runs)
}

fn per_run(counts: Counts, runs: usize) -> Value {
    let part = |count: u64| count as f64 / runs as f64;
    json!({
        "uploaded_bytes": part(counts[Counter::UploadedBytes]),
        "downloaded_bytes": part(counts[Counter::DownloadedBytes]),
        "launches": part(counts[Counter::Launches]),
        "host_waits": part(counts[Counter::HostWaits]),
    })
}

fn counts_of(counts: Counts) -> Value {
    json!({
        "allocations": counts[Counter::Allocations],
        "frees": counts[Counter::Frees],
        "uploads": counts[Counter::Uploads],
        "uploaded_bytes": counts[Counter::UploadedBytes],
        "downloads": counts[Counter::Downloads],
        "downloaded_bytes": counts[Counter::DownloadedBytes],
        "host_waits": counts[Counter::HostWaits],
        "launches": counts[Counter::Launches],
    })
}
