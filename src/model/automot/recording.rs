//! What a set of networks answers to a drive that a seed decides: every output of every run.
//!
//! The networks run behind the model's own two experts, as driven: the understanding expert reads
//! this set's own vision features, the action expert this set's own prefix and BEV tokens, so
//! errors accumulate as in use. A `Tap` before each engine keeps what comes out, probes included.

use super::networks::{Networks, WholeUnderstanding};
use super::planner::{PlanPoint, RoutePlanner, RoutePlannerConfig, THINNING_M, thin_plan};
use super::tokenizer::Tokenizer;
use super::{
    AutomotAction, AutomotPerception, AutomotUnderstanding, CAMERA, PerceptionOptions, Positions,
    SetupError, UnderstandingOptions,
};
use crate::device::{Device, DeviceTensor, DeviceView, DeviceViewMut, Stream};
use crate::engine::{Engine, RunError, Session};
use crate::kv_cache::SlotPool;
use crate::model::verification::RecordingInputs;
use crate::model::{
    ActionExpert, OpenGate, ModelError, Perception, PrefillRequest, UnderstandingExpert,
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

/// Trajectories per prefix: one as soon as it is there, one at the next tick.
const ACTS_PER_PROMPT: usize = 2;

/// Time between two ticks, seconds.
const TICK_S: f64 = 0.05;

/// LiDAR returns of one tick.
const RETURNS: usize = 4000;

/// Everything that a set of networks answered.
pub struct Recording {
    /// Contracts of the vision, understanding, BEV and action network; layer groups of the
    /// understanding expert as if they were one network.
    pub(super) contracts: [Contract; 4],
    /// One entry per prompt.
    pub(super) prompts: Vec<PromptRecording>,
}

/// What was answered for one prompt: per network its runs, per run every output in the order of
/// the contract.
pub(super) struct PromptRecording {
    /// Tokens of the prompt.
    pub(super) valid_length: usize,
    /// Runs of the vision, understanding, BEV and action network.
    pub(super) runs: [Vec<Vec<HostTensor>>; 4],
}

/// A recording could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// An expert cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// An expert could not do its part.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Drives `networks` as `inputs` say and keeps what they answer; calls `done` after each prompt.
///
/// # Errors
/// If the experts cannot be set up, or a network fails.
pub fn record(
    networks: &Networks,
    tokenizer: Tokenizer,
    inputs: RecordingInputs,
    done: &mut dyn FnMut(),
) -> Result<Recording, RecordError> {
    let tap = |engine: &Arc<dyn Engine>| {
        Arc::new(Tap::new(Arc::clone(engine), Arc::clone(&networks.device)))
    };
    let [vision, bev, action] = [&networks.vision, &networks.bev, &networks.action].map(tap);
    let groups: Vec<Arc<Tap>> = networks.understanding.iter().map(tap).collect();
    let whole = WholeUnderstanding::of(groups.iter().map(|tap| tap.inner.contract()));
    let contract = |tap: &Tap| tap.inner.contract().clone();
    let contracts = [contract(&vision), whole.contract, contract(&bev), contract(&action)];
    let tapped = Networks {
        vision: vision.clone(),
        understanding: groups.iter().map(|tap| Arc::clone(tap) as _).collect(),
        bev: bev.clone(),
        action: action.clone(),
        prefix: networks.prefix,
        device: Arc::clone(&networks.device),
        streams: networks.streams.clone(),
    };

    let options = UnderstandingOptions { must_be_finite: false, ..UnderstandingOptions::default() };
    let mut expert = AutomotUnderstanding::with_options(&tapped, tokenizer, options)?;
    let pool = SlotPool::new(&networks.device, networks.prefix, 1).map_err(ModelError::from)?;
    let mut prompts = Vec::new();
    for prompt in 0..inputs.prompts {
        let seed = inputs.seed;
        let mut drive = Drive::new(seed, prompt);
        let planner = drive.planner();
        let frames = expert.frames_per_prompt();
        let options = PerceptionOptions::default();
        let mut seen =
            AutomotPerception::new(&tapped, planner, frames, options).map_err(SetupError::from)?;
        let mut acting =
            AutomotAction::new(&tapped, Positions::default()).map_err(SetupError::from)?;
        let (captured_at, inputs) = loop {
            let time = drive.tick(&mut seen)?;
            if let Some(inputs) = seen.inputs() {
                break (time, inputs);
            }
        };
        let random = || SplitMix64::new(seed);
        let request =
            PrefillRequest { version: prompt as u64 + 1, captured_at, random: random(), inputs };
        let writer = pool.writer().expect("the prefix of the prompt before was dropped");
        let prefix = expert.prefill(&request, writer, &OpenGate, &mut StageSpans::default())?;
        for act in 0..ACTS_PER_PROMPT {
            if act > 0 {
                drive.tick(&mut seen)?;
            }
            acting.act(&prefix, seen.readings(), random(), &mut StageSpans::default())?;
        }
        let understanding = joined(&groups, &whole.places);
        let runs = [vision.take(), understanding, bev.take(), action.take()];
        prompts.push(PromptRecording { valid_length: prefix.meta().valid_length, runs });
        done();
    }
    Ok(Recording { contracts, prompts })
}

/// What layer groups gave since the last call, as if they were one network: per run its outputs, each
/// from its place (group and output).
fn joined(groups: &[Arc<Tap>], places: &[[usize; 2]]) -> Vec<Vec<HostTensor>> {
    let mut runs: Vec<_> = groups.iter().map(|tap| tap.take().into_iter()).collect();
    let mut all = Vec::new();
    while let Some(run) = runs.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>() {
        let mut outputs: Vec<Vec<Option<HostTensor>>> =
            run.into_iter().map(|outputs| outputs.into_iter().map(Some).collect()).collect();
        let take = |[group, output]: &[usize; 2]| {
            outputs[*group][*output].take().expect("every place is named once")
        };
        all.push(places.iter().map(take).collect());
    }
    all
}

/// An engine that keeps a copy of what its sessions give, and asks for probes by itself.
struct Tap {
    inner: Arc<dyn Engine>,
    /// Without probes: what an expert sees.
    contract: Contract,
    device: Arc<dyn Device>,
    runs: Arc<Mutex<Vec<Vec<HostTensor>>>>,
}

impl Tap {
    fn new(inner: Arc<dyn Engine>, device: Arc<dyn Device>) -> Self {
        let mut contract = inner.contract().clone();
        contract.outputs.retain(|spec| !spec.name.starts_with(PROBE));
        Self { inner, contract, device, runs: Arc::default() }
    }

    /// What was given since the last call.
    fn take(&self) -> Vec<Vec<HostTensor>> {
        std::mem::take(&mut *lock(&self.runs))
    }
}

impl Engine for Tap {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn session(self: Arc<Self>) -> Box<dyn Session> {
        let probes = &self.inner.contract().outputs[self.contract.outputs.len()..];
        Box::new(TapSession {
            inner: Arc::clone(&self.inner).session(),
            probe_specs: probes.to_vec(),
            probes: Vec::new(),
            device: Arc::clone(&self.device),
            runs: Arc::clone(&self.runs),
        })
    }
}

struct TapSession {
    inner: Box<dyn Session>,
    probe_specs: Vec<TensorSpec>,
    /// Memory of the probes, which stand behind the outputs; made at the first run.
    probes: Vec<DeviceTensor>,
    device: Arc<dyn Device>,
    runs: Arc<Mutex<Vec<Vec<HostTensor>>>>,
}

impl Session for TapSession {
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), RunError> {
        let device = &*self.device;
        let failed = |source| RunError::Device { network: "under verification".into(), source };
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
    ) -> Result<(), RunError> {
        // What experts do not call is not recorded.
        self.inner.run(inputs, outputs)
    }
}

/// A vehicle on a bend of constant radius, past things that a seed put there.
struct Drive {
    random: Random,
    /// Curvature of the road, 1/m.
    curvature: f64,
    speed_mps: f64,
    /// Boxes in the picture: left, top, right, bottom edge in pixels, color.
    boxes: Vec<([usize; 4], [u8; 3])>,
    ticks: u64,
    /// Number of the first frame: no two prompts share one, or a vision cache would.
    first_frame: u64,
}

impl Drive {
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

    /// `world_from_ego` after so many meters of road.
    fn pose(&self, along_m: f64) -> Pose {
        let turned = self.curvature * along_m;
        // The chord of an arc points half as far aside as the arc has turned.
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

    /// Drives one tick, which `perception` observes; returns its time.
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
            rgb: self.picture(camera.width as usize, camera.height as usize),
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

    /// Sky, road, boxes that grow as time goes by, and the noise of a sensor.
    fn picture(&mut self, width: usize, height: usize) -> Vec<u8> {
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

    /// Ground, and what stands on it in a few directions.
    fn returns(&mut self) -> Vec<[f32; 4]> {
        (0..RETURNS)
            .map(|index| {
                let angle = self.random.between(0.0..std::f64::consts::TAU);
                let cluster = (angle * 3.0).floor();
                let stands = index % 2 == 0;
                let range = if stands {
                    6.0 + 1.7 * cluster + self.random.between(0.0..0.6)
                } else {
                    self.random.between(2.0..40.0)
                };
                let z = if stands { self.random.between(-2.2..0.5) } else { -2.5 };
                [range * angle.cos(), range * angle.sin(), z, 0.5].map(|value| value as f32)
            })
            .collect()
    }
}

/// What scenes are drawn with: the same for a seed, forever.
struct Random(SplitMix64);

impl Random {
    /// A whole number from 0 to `bound`, exclusive; the bias is one in 2⁶⁴ / `bound`. By remainder,
    /// which recordings were made with, and not as [`SplitMix64::below`].
    fn below(&mut self, bound: usize) -> usize {
        (self.0.next() % bound as u64) as usize
    }

    /// A number of the range, on a grid of 2⁻⁵³ of its length.
    fn between(&mut self, range: Range<f64>) -> f64 {
        range.start + self.0.unit() * (range.end - range.start)
    }
}
