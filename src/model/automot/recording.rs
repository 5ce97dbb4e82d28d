//! Captures every output of every network run on seeded inputs, for verification.
//!
//! The networks are run by the two experts as in driving: the understanding expert reads the vision
//! features of the same networks, the action expert their prefix and BEV tokens, so errors
//! accumulate as in use. A `CapturingEngine` around each engine copies its outputs, including
//! probes.

use super::networks::{MergedUnderstanding, Networks};
use super::planner::{PlanPoint, RoutePlanner, RoutePlannerConfig, THINNING_M, thin_plan};
use super::tokenizer::Tokenizer;
use super::{
    AutomotAction, AutomotPerception, AutomotUnderstanding, CAMERA, PerceptionOptions, Positions,
    SetupError, UnderstandingOptions,
};
use crate::device::{Device, DeviceTensor, DeviceView, DeviceViewMut, Stream};
use crate::engine::{Engine, Session, SessionRunError};
use crate::kv_cache::SlotPool;
use crate::model::verification::RecordingInputs;
use crate::model::{
    ActionExpert, ModelError, OpenGate, Perception, PrefillRequest, UnderstandingExpert,
};
use crate::scene::random::SplitMix64;
use crate::scene::{
    CameraFrame, CameraId, Cameras, Detour, FrameId, Gnss, Imu, LidarSweep, Observation, Pose,
    RoadOption,
};
use crate::sync::lock;
use crate::tensor::{HostTensor, TensorView, TensorViewMut};
use crate::timing::{StageSpans, Timestamp};
use glam::{DVec2, DVec3};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tandem_export::automot::names::PROBE;
use tandem_export::contract::{Contract, TensorSpec};

/// Action steps per prefix: one at the tick of the prefill, one at the next tick.
const STEPS_PER_PROMPT: usize = 2;

/// Tick period, seconds.
const TICK_S: f64 = 0.05;

/// Number of LiDAR returns per tick.
const RETURNS: usize = 4000;

/// Captured outputs of a set of networks.
pub struct Recording {
    /// Contracts of the vision, understanding, BEV and action networks, with layer groups merged.
    pub(super) contracts: [Contract; 4],
    pub(super) prompts: Vec<PromptRecording>,
}

/// Captured outputs for one prompt: runs of each network, and for each run every output in
/// the order of the contract.
pub(super) struct PromptRecording {
    /// Number of tokens of the prompt.
    pub(super) valid_length: usize,
    /// Runs of the vision, understanding, BEV and action networks.
    pub(super) runs: [Vec<Vec<HostTensor>>; 4],
}

/// Error returned when outputs cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Runs the experts with `networks` on generated inputs and captures the outputs;
/// calls `done` after each prompt.
pub fn record(
    networks: &Networks,
    tokenizer: Tokenizer,
    inputs: RecordingInputs,
    done: &mut dyn FnMut(),
) -> Result<Recording, RecordError> {
    let capture = |engine: &Arc<dyn Engine>| {
        Arc::new(CapturingEngine::new(Arc::clone(engine), Arc::clone(&networks.device)))
    };
    let [vision, bev, action] = [&networks.vision, &networks.bev, &networks.action].map(capture);
    let groups: Vec<Arc<CapturingEngine>> = networks.understanding.iter().map(capture).collect();
    let merged = MergedUnderstanding::of(groups.iter().map(|engine| engine.inner.contract()));
    let contract = |engine: &CapturingEngine| engine.inner.contract().clone();
    let contracts = [contract(&vision), merged.contract, contract(&bev), contract(&action)];
    let capturing = Networks {
        vision: vision.clone(),
        understanding: groups.iter().map(|engine| Arc::clone(engine) as _).collect(),
        bev: bev.clone(),
        action: action.clone(),
        prefix: networks.prefix,
        device: Arc::clone(&networks.device),
        streams: networks.streams.clone(),
    };

    let options = UnderstandingOptions { must_be_finite: false, ..UnderstandingOptions::default() };
    let mut expert = AutomotUnderstanding::with_options(&capturing, tokenizer, options)?;
    let pool = SlotPool::new(&networks.device, networks.prefix, 1).map_err(ModelError::from)?;
    let mut prompts = Vec::new();
    for prompt in 0..inputs.prompts {
        let seed = inputs.seed;
        let mut drive = SyntheticDrive::new(seed, prompt);
        let planner = drive.planner();
        let frames = expert.frames_per_prompt();
        let options = PerceptionOptions::default();
        let mut perception = AutomotPerception::new(&capturing, planner, frames, options)
            .map_err(SetupError::from)?;
        let mut action_expert =
            AutomotAction::new(&capturing, Positions::default()).map_err(SetupError::from)?;
        let (captured_at, inputs) = loop {
            let time = drive.tick(&mut perception)?;
            if let Some(inputs) = perception.inputs() {
                break (time, inputs);
            }
        };
        let random = || SplitMix64::new(seed);
        let request =
            PrefillRequest { version: prompt as u64 + 1, captured_at, random: random(), inputs };
        let writer = pool.writer().expect("the prefix of the previous prompt was dropped");
        let prefix = expert.prefill(&request, writer, &OpenGate, &mut StageSpans::default())?;
        for step in 0..STEPS_PER_PROMPT {
            if step > 0 {
                drive.tick(&mut perception)?;
            }
            action_expert.act(
                &prefix,
                perception.readings(),
                random(),
                &mut StageSpans::default(),
            )?;
        }
        let understanding = take_merged(&groups, &merged.places);
        let runs = [vision.take(), understanding, bev.take(), action.take()];
        prompts.push(PromptRecording { valid_length: prefix.meta().valid_length, runs });
        done();
    }
    Ok(Recording { contracts, prompts })
}

/// Takes the captured outputs of layer groups and merges them: for each run the outputs at
/// `places` (group and output index).
fn take_merged(groups: &[Arc<CapturingEngine>], places: &[[usize; 2]]) -> Vec<Vec<HostTensor>> {
    let mut runs: Vec<_> = groups.iter().map(|engine| engine.take().into_iter()).collect();
    let mut all = Vec::new();
    while let Some(run) = runs.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>() {
        let mut outputs: Vec<Vec<Option<HostTensor>>> =
            run.into_iter().map(|outputs| outputs.into_iter().map(Some).collect()).collect();
        let take = |[group, output]: &[usize; 2]| {
            outputs[*group][*output].take().expect("every place occurs once")
        };
        all.push(places.iter().map(take).collect());
    }
    all
}

/// An engine that copies the outputs of its sessions and also requests probes.
struct CapturingEngine {
    inner: Arc<dyn Engine>,
    /// Contract for the experts, without probes.
    contract: Contract,
    device: Arc<dyn Device>,
    runs: Arc<Mutex<Vec<Vec<HostTensor>>>>,
}

impl CapturingEngine {
    fn new(inner: Arc<dyn Engine>, device: Arc<dyn Device>) -> Self {
        let mut contract = inner.contract().clone();
        contract.outputs.retain(|spec| !spec.name.starts_with(PROBE));
        Self { inner, contract, device, runs: Arc::default() }
    }

    /// Takes the outputs captured since the last call.
    fn take(&self) -> Vec<Vec<HostTensor>> {
        std::mem::take(&mut *lock(&self.runs))
    }
}

impl Engine for CapturingEngine {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn session(self: Arc<Self>) -> Box<dyn Session> {
        let probes = &self.inner.contract().outputs[self.contract.outputs.len()..];
        Box::new(CapturingSession {
            inner: Arc::clone(&self.inner).session(),
            probe_specs: probes.to_vec(),
            probes: Vec::new(),
            device: Arc::clone(&self.device),
            runs: Arc::clone(&self.runs),
        })
    }
}

struct CapturingSession {
    inner: Box<dyn Session>,
    probe_specs: Vec<TensorSpec>,
    /// Memory of the probes, which follow the outputs; allocated at the first run.
    probes: Vec<DeviceTensor>,
    device: Arc<dyn Device>,
    runs: Arc<Mutex<Vec<Vec<HostTensor>>>>,
}

impl Session for CapturingSession {
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        let device = &*self.device;
        let failed =
            |source| SessionRunError::Device { network: "under verification".into(), source };
        if self.probes.is_empty() {
            let zeros = |spec: &TensorSpec| DeviceTensor::zeros(device, spec.dtype, &spec.shape);
            let probes = self.probe_specs.iter().map(zeros).collect::<Result<_, _>>();
            self.probes = probes.map_err(failed)?;
        }
        let all: Vec<DeviceViewMut<'_>> = outputs
            .iter()
            .map(|view| DeviceViewMut { ..*view })
            .chain(self.probes.iter_mut().map(DeviceTensor::view_mut))
            .collect();
        self.inner.enqueue(stream, inputs, &all)?;
        stream.synchronize().map_err(failed)?;
        let kept = all.iter().map(|view| {
            let mut tensor = HostTensor::zeros(view.dtype, view.shape);
            device.read(view.buffer, tensor.bytes_mut()).map_err(failed)?;
            Ok(tensor)
        });
        let kept = kept.collect::<Result<_, _>>()?;
        lock(&self.runs).push(kept);
        Ok(())
    }

    fn runs_before_capture(&self) -> Option<usize> {
        None
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        // Not captured, because the experts do not call this.
        self.inner.run(inputs, outputs)
    }
}

/// A vehicle on a curve of constant radius in a seeded scene.
struct SyntheticDrive {
    random: Random,
    /// Curvature of the road, 1/m.
    curvature: f64,
    speed_mps: f64,
    /// Boxes in the image: left, top, right, bottom edge in pixels, color.
    boxes: Vec<([usize; 4], [u8; 3])>,
    ticks: u64,
    /// Number of the first frame, different for each prompt because of the vision cache.
    first_frame: u64,
}

impl SyntheticDrive {
    fn new(seed: u64, prompt: usize) -> Self {
        let mut random = Random(SplitMix64::new(seed ^ (prompt as u64).rotate_left(32)));
        let camera = CAMERA;
        let (width, height) = (camera.width as usize, camera.height as usize);
        let boxes = (0..12).map(|_| {
            let (left, top) = (random.below(width), random.below(height));
            let (right, bottom) = (left + 20 + random.below(180), top + 20 + random.below(130));
            (
                [left, top, right.min(width), bottom.min(height)],
                [0; 3].map(|_| random.below(256) as u8),
            )
        });
        let boxes = boxes.collect();
        let speed_mps = if prompt == 0 { 0.0 } else { random.between(0.5..15.0) };
        let curvature = random.between(-0.03..0.03);
        let first_frame = 1 + 1000 * prompt as u64;
        Self { random, curvature, speed_mps, boxes, ticks: 0, first_frame }
    }

    /// Returns `world_from_ego` after `along_m` meters of road.
    fn pose(&self, along_m: f64) -> Pose {
        let turned = self.curvature * along_m;
        // The direction of the chord of an arc is half the turned angle.
        let half = turned / 2.0;
        let chord = if half.abs() < 1e-9 { along_m } else { along_m * half.sin() / half };
        let position = DVec2::from_angle(half) * chord;
        Pose { position, yaw_rad: turned }
    }

    fn planner(&self) -> RoutePlanner {
        let points: Vec<PlanPoint> = (0..200)
            .map(|meter| {
                let DVec2 { x, y } = self.pose(f64::from(meter)).position;
                let command = match meter {
                    30..60 => RoadOption::Left,
                    _ => RoadOption::LaneFollow,
                };
                PlanPoint { position: DVec3::new(x, y, 0.0), command }
            })
            .collect();
        let kept = thin_plan(&points, THINNING_M).into_iter().map(|index| points[index]);
        RoutePlanner::new(kept, RoutePlannerConfig::default())
    }

    /// Advances one tick, passes its observation to `perception` and returns its time.
    fn tick(&mut self, perception: &mut AutomotPerception) -> Result<Timestamp, ModelError> {
        let seconds = self.ticks as f64 * TICK_S;
        let id = FrameId(self.first_frame + self.ticks);
        let time = Timestamp::ZERO + Duration::from_secs_f64(seconds);
        let camera = CAMERA;
        let frame = CameraFrame {
            id,
            captured_at: time,
            width: camera.width,
            height: camera.height,
            rgb: self.image(camera.width as usize, camera.height as usize),
        };
        let observation = Observation {
            frame: id,
            time,
            cameras: Cameras::one(CameraId::FRONT, Arc::new(frame)),
            lidar: Some(Arc::new(LidarSweep { id, points: self.returns() })),
            imu: Imu::default(),
            gnss: Gnss::default(),
            speed_mps: self.speed_mps,
            truth: None,
        };
        self.ticks += 1;
        let pose = self.pose(self.speed_mps * seconds);
        perception.observe(&observation, &pose, &Detour::default(), &mut StageSpans::default())?;
        Ok(time)
    }

    /// Renders sky, road, boxes that grow with time, and sensor noise.
    fn image(&mut self, width: usize, height: usize) -> Vec<u8> {
        let mut rgb = vec![0; 3 * width * height];
        for bytes in rgb.chunks_mut(8) {
            bytes.copy_from_slice(&self.random.0.next().to_le_bytes()[..bytes.len()]);
        }
        let horizon = height * 2 / 5;
        let grow = self.ticks as usize;
        for (row, line) in rgb.chunks_exact_mut(3 * width).enumerate() {
            let ground = if row < horizon {
                let haze = (row * 80 / horizon) as u8;
                [90 + haze, 130 + haze, 200]
            } else {
                [(row * 120 / height) as u8; 3]
            };
            for (column, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let inside = |([left, top, right, bottom], _): &&([usize; 4], [u8; 3])| {
                    (*left..right + grow).contains(&column) && (*top..bottom + grow).contains(&row)
                };
                let color = self.boxes.iter().find(inside).map_or(ground, |(_, color)| *color);
                for (value, color) in pixel.iter_mut().zip(color) {
                    *value = color.saturating_add(*value & 15);
                }
            }
        }
        rgb
    }

    /// Returns LiDAR points of the ground and of objects in a few directions.
    fn returns(&mut self) -> Vec<[f32; 4]> {
        (0..RETURNS)
            .map(|index| {
                let angle = self.random.between(0.0..std::f64::consts::TAU);
                let cluster = (angle * 3.0).floor();
                let is_object = index % 2 == 0;
                let range = if is_object {
                    6.0 + 1.7 * cluster + self.random.between(0.0..0.6)
                } else {
                    self.random.between(2.0..40.0)
                };
                let z = if is_object { self.random.between(-2.2..0.5) } else { -2.5 };
                [range * angle.cos(), range * angle.sin(), z, 0.5].map(|value| value as f32)
            })
            .collect()
    }
}

/// Random numbers of scenes; must stay the same for a seed.
struct Random(SplitMix64);

impl Random {
    /// Returns an integer from 0 to `bound`, exclusive, with a bias of `bound` / 2⁶⁴. Uses the
    /// remainder, as existing golden runs do, unlike [`SplitMix64::below`].
    fn below(&mut self, bound: usize) -> usize {
        (self.0.next() % bound as u64) as usize
    }

    /// Returns a number of the range, on a grid of 2⁻⁵³ of its length.
    fn between(&mut self, range: Range<f64>) -> f64 {
        range.start + self.0.unit() * (range.end - range.start)
    }
}
