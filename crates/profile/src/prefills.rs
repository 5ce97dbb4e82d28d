//! Prefills without ticks: the understanding expert alone.

use super::latency_file::{Phase, PhaseName};
use super::processor_time::ProcessorTime;
use super::recorder::PhaseRecorder;
use super::replay::Replay;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem::model::ModelError;
use tandem::runtime::SlowExpert;
use tandem::timing::{StageSpans, Timestamp, now_ns};

/// Settings of [`run_prefills`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefillOptions {
    /// Number of new frames between two prefills.
    pub frames: u64,
    /// Number of prefills before the first that counts.
    pub warm_up: u64,
    /// Number of prefills that count.
    pub refreshes: u64,
}

/// Runs prefills back to back on this thread. Observing their frames is not timed. `watch` is called
/// for every prefill that counts, with its version.
///
/// # Errors
/// If a network fails or an observation lacks a sensor.
pub fn run_prefills(
    expert: &mut dyn SlowExpert,
    replay: &mut Replay,
    options: &PrefillOptions,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(u64, &StageSpans),
) -> Result<Phase, ModelError> {
    let name = PhaseName::UnderstandingAlone;
    let processors = ProcessorTime::now();
    let began_ns = now_ns();
    let mut recorder = PhaseRecorder::new(name, options.warm_up, options.refreshes, began_ns);
    let mut version = 1;
    while version <= options.warm_up + options.refreshes && !cancel.load(Ordering::Relaxed) {
        for _ in 0..options.frames {
            let time = Timestamp::after(Duration::from_nanos(now_ns() - began_ns));
            expert.observe(&replay.next(time))?;
        }
        let Some(spans) = expert.prefill(version)? else { continue };
        if version > options.warm_up {
            recorder.refresh(version, &spans);
            watch(version, &spans);
        }
        version += 1;
    }
    let others_share =
        processors.and_then(|before| ProcessorTime::now()?.others_share_since(&before));
    Ok(Phase { others_share, ..recorder.finish() })
}
