//! Refreshes without ticks: the understanding expert alone.

use super::latency_file::{Phase, PhaseName};
use super::others::ProcessorTime;
use super::recorder::PhaseRecorder;
use super::replay::Replay;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem::kv_cache::SlotPool;
use tandem::model::{AtAnyTime, ModelError, Perception, RefreshRequest, UnderstandingExpert};
use tandem::scene::random::SplitMix64;
use tandem::scene::{Detour, Pose};
use tandem::timing::{Stage, StageSpans, Timestamp, now_ns};

/// How to run refreshes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefreshOptions {
    /// New frames between two refreshes, as many as the loop's period brings.
    pub frames: u64,
    /// Refreshes before the first that counts.
    pub warm_up: u64,
    /// Refreshes that count.
    pub refreshes: u64,
}

/// Runs refreshes back to back on this thread. `perception` takes in the frames that they read; that
/// is not timed. `watch` sees every refresh that counts, with its version.
///
/// # Errors
/// If a network fails or an observation lacks a sensor.
pub fn run_refreshes<P: Perception>(
    expert: &mut dyn UnderstandingExpert<Inputs = P::Inputs>,
    perception: &mut P,
    pool: &SlotPool,
    replay: &mut Replay,
    options: &RefreshOptions,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(u64, &StageSpans),
) -> Result<Phase, ModelError> {
    let name = PhaseName::UnderstandingAlone;
    let processors = ProcessorTime::now();
    let began_ns = now_ns();
    let mut recorder = PhaseRecorder::new(name, options.warm_up, options.refreshes, began_ns);
    let mut version = 1;
    let mut captured_at = Timestamp::ZERO;
    while version <= options.warm_up + options.refreshes && !cancel.load(Ordering::Relaxed) {
        for _ in 0..options.frames {
            let time = Timestamp::after(Duration::from_nanos(now_ns() - began_ns));
            let mut untimed = StageSpans::default();
            let observation = replay.next(time);
            captured_at = observation.time;
            let (pose, detour) = (Pose::default(), Detour::default());
            perception.observe(&observation, &pose, &detour, &mut untimed)?;
        }
        let Some(inputs) = perception.inputs() else { continue };
        let random = SplitMix64::new(version);
        let request = RefreshRequest { version, captured_at, random, inputs };
        let writer = pool.writer().expect("no prefix outlives its turn of this loop");
        let mut spans = StageSpans::default();
        let refresh = Stage::REFRESH.begin();
        expert.refresh(&request, writer, &AtAnyTime, &mut spans)?;
        spans.end(refresh);
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
