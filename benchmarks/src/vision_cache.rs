//! Measures the savings of the vision feature cache: frames encoded per prefill, and the time of
//! vision tower and preprocessing, compared with encoding every frame of every prompt.
//!
//! A tiny checkpoint runs prefills over 200 recorded ticks at several periods. The second expert of
//! each pair receives the same images with unique frame ids, so it never finds cached features.

use anyhow::Context;
use arrayvec::ArrayVec;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tandem::device::{DeviceView, DeviceViewMut, Stream};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Engine, Session, SessionRunError};
use tandem::kv_cache::SlotPool;
use tandem::model::automot::AutomotInputs;
use tandem::model::automot::stages;
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{AutomotUnderstanding, Networks, sensors};
use tandem::model::{OpenGate, PrefillRequest, UnderstandingExpert};
use tandem::scene::random::SplitMix64;
use tandem::scene::{CameraFrame, Command, FrameId, World};
use tandem::tensor::{TensorView, TensorViewMut};
use tandem::timing::{Stage, StageSpans, StageTimes};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::synth::{SynthSpec, synthesize};
use tandem_export::contract::Contract;
use tandem_export::folder::export_networks;
use tandem_world::EmbeddedWorld;

const TICKS: usize = 200;

/// Ticks from one prefill to the next.
const PERIODS: [usize; 3] = [1, 2, 5];

/// Ticks between two frames of a prompt.
const FRAME_SPACING: usize = 5;

/// Sizes of the generated checkpoint.
const CHECKPOINT: &str = include_str!("../../configs/tiny.json");

/// Runs prefills with and without cached features alternately. Fails if the checkpoint cannot be
/// written, the library is missing, or a prefill fails.
pub(crate) fn run() -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let engine = folder.path().join("engine");
    export(folder.path(), &engine)?;
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |_| {})?;
    let networks = Networks::load(&engine, &backend, &backend)?;
    let frames = record()?;
    let periods = PERIODS
        .into_iter()
        .map(|period| compare(&networks, &engine, &frames, period))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({
        "bench": "vision-cache",
        "checkpoint": "configs/tiny.json, synthesized",
        "ticks": TICKS,
        "unit": "ns",
        "periods": periods,
    }))
}

fn export(folder: &Path, engine: &Path) -> anyhow::Result<()> {
    let spec: SynthSpec = serde_json::from_str(CHECKPOINT).context("configs/tiny.json")?;
    let checkpoint = folder.join("checkpoint");
    synthesize(&spec, 1, &checkpoint, |_, _| {})?;
    let checkpoint = Checkpoint::open(&checkpoint)?;
    export_networks(&checkpoint, &ExportOptions::default(), engine, &mut |_| {})?;
    Ok(())
}

/// Records the camera frames of a slow drive.
fn record() -> anyhow::Result<Vec<Arc<CameraFrame>>> {
    let suite = tandem::scene::SensorSuite { lidar: None, ..sensors() };
    let mut world = EmbeddedWorld::new(&crate::world::winding_road(), suite, 1)?;
    (0..TICKS)
        .map(|_| {
            let frame = world
                .observe()
                .cameras
                .first()
                .cloned()
                .context("the world gave no camera frame")?;
            world.step(&Command { steer: 0.0, throttle: 0.5, brake: 0.0 });
            Ok(frame)
        })
        .collect()
}

/// Engine that counts its runs: one run of the vision tower encodes one frame.
struct Counted {
    engine: Arc<dyn Engine>,
    runs: Arc<AtomicU64>,
}

impl Engine for Counted {
    fn contract(&self) -> &Contract {
        self.engine.contract()
    }

    fn session(self: Arc<Self>) -> Box<dyn Session> {
        let session = Arc::clone(&self.engine).session();
        Box::new(CountedSession { session, runs: Arc::clone(&self.runs) })
    }
}

struct CountedSession {
    session: Box<dyn Session>,
    runs: Arc<AtomicU64>,
}

impl Session for CountedSession {
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.session.enqueue(stream, inputs, outputs)
    }

    fn runs_before_capture(&self) -> Option<usize> {
        None
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.session.run(inputs, outputs)
    }
}

/// Stages from frames and prompt to network inputs.
const PREPROCESS: [Stage; 3] = [stages::PROMPT, stages::RESIZE, stages::PATCHIFY];

/// Understanding expert with its KV cache slot and measurements.
struct Expert {
    understanding: AutomotUnderstanding,
    /// Number of runs of its vision tower.
    encoded: Arc<AtomicU64>,
    encoded_per_prefill: Vec<u64>,
    pool: SlotPool,
    times: Vec<StageTimes>,
}

impl Expert {
    fn new(networks: &Networks, engine: &Path) -> anyhow::Result<Self> {
        let tokenizer = Tokenizer::read(&engine.join("tokenizer.json"))?;
        let encoded = Arc::new(AtomicU64::new(0));
        let vision = Counted { engine: Arc::clone(&networks.vision), runs: Arc::clone(&encoded) };
        let counted = Networks { vision: Arc::new(vision), ..networks.clone() };
        Ok(Self {
            understanding: AutomotUnderstanding::new(&counted, tokenizer)?,
            encoded,
            encoded_per_prefill: Vec::new(),
            pool: SlotPool::new(&networks.device, networks.prefix, 1)?,
            times: Vec::new(),
        })
    }

    fn prefill(&mut self, request: &PrefillRequest<AutomotInputs>) -> anyhow::Result<Vec<u8>> {
        let writer = self.pool.writer().context("the slot is still leased")?;
        let mut spans = StageSpans::default();
        let before = self.encoded.load(Ordering::Relaxed);
        let prefix = self.understanding.prefill(request, writer, &OpenGate, &mut spans)?;
        self.encoded_per_prefill.push(self.encoded.load(Ordering::Relaxed) - before);
        self.times.push(spans.times());
        let slot = prefix.slot();
        Ok(slot.keys(0).to_host(slot.device())?.bytes().to_vec())
    }

    /// Returns the total time of `stages` at each prefill, nanoseconds.
    fn took(&self, stages: &[Stage]) -> Vec<u64> {
        let took = |times: &StageTimes| -> Duration {
            stages.iter().filter_map(|&stage| times.took(stage)).sum()
        };
        self.times.iter().map(|times| took(times).as_nanos() as u64).collect()
    }

    fn summary(&self) -> Value {
        let [preprocess, vision] = [&PREPROCESS[..], &[stages::VISION]].map(|s| self.took(s));
        let both: Vec<u64> = preprocess.iter().zip(&vision).map(|(a, b)| a + b).collect();
        json!({
            "frames_encoded": self.encoded_per_prefill.iter().sum::<u64>(),
            "frames_encoded_per_refresh": self.encoded_per_prefill,
            "preprocess": distribution(&preprocess),
            "vision": distribution(&vision),
            "preprocess_and_vision": distribution(&both),
        })
    }

    /// Returns the time of preprocessing and vision tower over all prefills, nanoseconds.
    fn total(&self) -> u64 {
        [&PREPROCESS[..], &[stages::VISION]].into_iter().flat_map(|s| self.took(s)).sum()
    }
}

fn compare(
    networks: &Networks,
    engine: &Path,
    recorded: &[Arc<CameraFrame>],
    period: usize,
) -> anyhow::Result<Value> {
    let mut cached = Expert::new(networks, engine)?;
    let mut encoding_all = Expert::new(networks, engine)?;
    let history = FRAME_SPACING * (cached.understanding.frames_per_prompt() - 1);
    let mut seen = std::collections::BTreeSet::new();
    let (mut new_frames, mut shown, mut fake) = (0, 0, 1 << 32);
    for (version, newest) in (history..recorded.len()).step_by(period).enumerate() {
        let frames: ArrayVec<Arc<CameraFrame>, 8> = (newest - history..=newest)
            .step_by(FRAME_SPACING)
            .map(|tick| Arc::clone(&recorded[tick]))
            .collect();
        new_frames += frames.iter().filter(|frame| seen.insert(frame.id)).count();
        shown += frames.len();
        let request = PrefillRequest {
            version: version as u64 + 1,
            captured_at: recorded[newest].captured_at,
            random: SplitMix64::new(0),
            inputs: AutomotInputs {
                frames,
                target_points_m: [[20.0, 0.5], [40.0, 1.5]],
                speed_mps: 5.0,
            },
        };
        let mut renamed = request.clone();
        for frame in &mut renamed.inputs.frames {
            fake += 1;
            *frame = Arc::new(CameraFrame {
                id: FrameId(fake),
                captured_at: frame.captured_at,
                width: frame.width,
                height: frame.height,
                rgb: frame.rgb.clone(),
            });
        }
        // The order alternates.
        let (with, without) = if version % 2 == 0 {
            let with = cached.prefill(&request)?;
            (with, encoding_all.prefill(&renamed)?)
        } else {
            let without = encoding_all.prefill(&renamed)?;
            (cached.prefill(&request)?, without)
        };
        anyhow::ensure!(with == without, "the cache changed the prefix of prefill {version}");
    }
    let refreshes = cached.times.len();
    let saved = encoding_all.total() as f64 - cached.total() as f64;
    Ok(json!({
        "refresh_period_ticks": period,
        "refreshes": refreshes,
        "frames_shown": shown,
        "frames_shown_for_the_first_time": new_frames,
        "cached": cached.summary(),
        "encoding_all": encoding_all.summary(),
        "saved_per_refresh": saved / refreshes as f64,
        "saved_part": saved / encoding_all.total() as f64,
    }))
}

/// Returns nearest-rank percentiles and all samples.
fn distribution(samples: &[u64]) -> Value {
    crate::host_work::distribution("refresh", samples)
}
