//! Parts of a measurement: ticks alone, prefills alone, both concurrently.

use super::experts::{Experts, Fast, PrefillSeries, Slow, TickSeries};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tandem::device::{Counter, Counts};
use tandem::kv_cache::Handover;
use tandem::timing::Stopwatch;

/// Limits of a part. It ends at the first one, but makes at least one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) runs: usize,
    pub(super) time: Duration,
    /// Number of raw samples per series in the result.
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

/// Runs ticks on one prefix, without prefills.
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
        "ticks": series.to_json(bounds.raw),
    }))
}

/// Runs prefills with `new_frames` frames that are not cached, without ticks.
pub(super) fn prefills_alone(
    experts: &mut Experts,
    new_frames: usize,
    bounds: Bounds,
) -> anyhow::Result<Value> {
    let mut series = PrefillSeries::for_runs(bounds.runs);
    let before = experts.device.counts();
    let (watch, mut runs) = (Stopwatch::start(), 0);
    while bounds.allow(runs, &watch) {
        let request = experts.slow.request(new_frames);
        experts.handover.publish(experts.slow.prefill(&request, &mut series)?)?;
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
        "refreshes": series.to_json(bounds.raw),
    }))
}

/// Runs ticks back to back while prefills with all frames new run back to back.
pub(super) fn both(experts: &mut Experts, bounds: Bounds) -> anyhow::Result<Value> {
    let Experts { fast, slow, handover, device } = experts;
    let mut ticks = TickSeries::for_runs(bounds.runs);
    let mut versions = BTreeSet::new();
    let ends = Ends::default();
    let before = device.counts();
    let watch = Stopwatch::start();
    let (runs, prefills) = thread::scope(|scope| {
        let prefilling = thread::Builder::new()
            .name("understanding".into())
            .spawn_scoped(scope, || prefill_until(slow, handover, &ends))
            .context("spawning a thread for prefills")?;
        let runs = tick_until(fast, handover, &ends, bounds, &watch, &mut ticks, &mut versions);
        ends.ticks.store(true, Ordering::Relaxed);
        let Ok(prefills) = prefilling.join() else { bail!("the thread of the prefills panicked") };
        // An error of the prefills also stops the ticks, so it is reported first.
        let prefills = prefills?;
        Ok::<_, anyhow::Error>((runs?, prefills))
    })?;
    let took = watch.elapsed();
    let counts = device.counts() - before;
    Ok(json!({
        "runs": runs,
        "stopped_by": bounds.stopped_by(runs),
        "took_s": took.as_secs_f64(),
        "new_frames": slow.frames_per_prompt,
        "refreshes_done": prefills.runs,
        "refreshing_part": prefills.busy.as_secs_f64() / took.as_secs_f64(),
        "prefixes_acted_on": versions.len(),
        "waits_for_a_slot": prefills.waits,
        "counts": counts_of(counts),
        "ticks": ticks.to_json(bounds.raw),
        "refreshes": prefills.series.to_json(bounds.raw),
    }))
}

/// Flags that a side sets when it has ended.
#[derive(Default)]
struct Ends {
    ticks: AtomicBool,
    prefills: AtomicBool,
}

/// Prefills that run during ticks.
#[derive(Default)]
struct PrefillRun {
    series: PrefillSeries,
    runs: usize,
    /// Total time within prefills.
    busy: Duration,
    /// Number of polls without a free slot.
    waits: usize,
}

fn prefill_until(slow: &mut Slow, handover: &Handover, ends: &Ends) -> anyhow::Result<PrefillRun> {
    let mut done = PrefillRun::default();
    let result = loop {
        if ends.ticks.load(Ordering::Relaxed) {
            break Ok(());
        }
        if !slow.has_free_slot() {
            done.waits += 1;
            thread::yield_now();
            continue;
        }
        let request = slow.request(slow.frames_per_prompt);
        let watch = Stopwatch::start();
        let prefilled = slow.prefill(&request, &mut done.series);
        done.busy += watch.elapsed();
        match prefilled.and_then(|prefix| Ok(handover.publish(prefix)?)) {
            Ok(()) => done.runs += 1,
            Err(error) => break Err(error),
        }
    };
    ends.prefills.store(true, Ordering::Relaxed);
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
    while bounds.allow(runs, watch) && !ends.prefills.load(Ordering::Relaxed) {
        let prefix = handover.latest().context("no prefix is published")?;
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
