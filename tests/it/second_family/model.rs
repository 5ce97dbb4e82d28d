//! Runtime part of the scripted family, the counterpart of a folder in `src/model`.

use super::export::{CAMERAS, NAME, NETWORK, PlannerNumbers, PlannerSizes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tandem::control::{PathFollower, PathFollowerConfig};
use tandem::device::{Device, DeviceError};
use tandem::engine::{Engine, NetworkFile, Session, read_network};
use tandem::kv_cache::{KvSnapshot, KvWriter, Layout, SlotPool};
use tandem::model::verification::{
    Comparison, Decisions, Difference, LayerDifference, Limits, PointDifference, RecordingInputs,
};
use tandem::model::{
    ActionExpert, DelayedOutput, Experts, Family, FamilyError, LaunchGate, ModelError,
    ModelOutline, OptionsError, Perception, Placement, PrefillRequest, Runs, StageNetworks,
    UnderstandingExpert,
};
use tandem::scene::random::SplitMix64;
use tandem::scene::{
    CameraId, CameraSpec, Cameras, Detour, Observation, Pose, RoutePlan, SensorSuite, Trajectory,
};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::{Stage, StageSpans};
use tandem_testkit::scripted::seal;

tandem::timing::stages! {
    /// Run of the planner network.
    pub(crate) PLANNER = "scripted planner", Some(Stage::TICK), 71, FastNetwork;
}

/// Ticks between two plans, 2 Hz.
pub(crate) const PLAN_PERIOD_TICKS: u64 = 10;

/// Width and height of both images.
const PICTURE: [u32; 2] = [6, 4];

/// Options of this family in run files.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScriptedOptions {
    /// Maximum lateral noise of a plan's points, meters.
    pub(crate) noise_m: f64,
}

impl Default for ScriptedOptions {
    fn default() -> Self {
        Self { noise_m: 0.25 }
    }
}

/// A loaded model.
pub(crate) struct Scripted {
    planner: Arc<dyn Engine>,
    sizes: PlannerSizes,
    numbers: PlannerNumbers,
    device: Arc<dyn Device>,
    options: ScriptedOptions,
}

tandem::model_family!(Scripted);

impl Scripted {
    fn parts(&self) -> Experts<TwoCameras> {
        let Self { sizes, numbers, device, options, .. } = self;
        Experts {
            perception: TwoCameras { picture: sizes.picture, seen: Seen::default() },
            understanding: Box::new(RandomPrefix { device: Arc::clone(device) }),
            action: Box::new(NoisyPlanner {
                planner: Arc::clone(&self.planner).session(),
                plan: HostTensor::zeros(DType::F32, &[sizes.points, 3]),
                spacing: Duration::from_secs_f64(numbers.step_s),
                noise_m: options.noise_m,
            }),
            follower: Box::new(PathFollower::new(PathFollowerConfig::bare())),
            delays: DelayedOutput::Plan,
        }
    }
}

fn file(folder: &Path) -> Result<NetworkFile, FamilyError> {
    read_network(folder, NETWORK).map_err(FamilyError::new)
}

impl Family for Scripted {
    const NAME: &'static str = NAME;

    type Options = ScriptedOptions;
    type Perception = TwoCameras;
    type Recording = Vec<Trajectory>;

    fn check(options: &ScriptedOptions) -> Result<(), OptionsError> {
        let (key, found) = ("noise_m", options.noise_m.to_string());
        let expected = "0 to 1";
        if (0.0..=1.0).contains(&options.noise_m) {
            return Ok(());
        }
        Err(OptionsError::Range { family: NAME, key, found, expected })
    }

    fn sensors(_: &ScriptedOptions) -> SensorSuite {
        let [width, height] = PICTURE;
        let camera = |yaw_rad| CameraSpec {
            position_m: [0.0, 0.0, 2.0],
            yaw_rad,
            width,
            height,
            fov_deg: 90.0,
        };
        let yaws = [0.0, std::f64::consts::PI];
        let mut cameras = Cameras::NONE;
        for (name, yaw_rad) in CAMERAS.into_iter().zip(yaws) {
            cameras.insert(CameraId::named(name), camera(yaw_rad)).unwrap();
        }
        SensorSuite { cameras, ..SensorSuite::default() }
    }

    fn outline(folder: &Path, _: &ScriptedOptions) -> Result<ModelOutline, FamilyError> {
        let networks = vec![file(folder)?.contract];
        Ok(ModelOutline {
            stages: vec![StageNetworks { stage: PLANNER, runs: Runs::EachTick, networks }],
            frames: 1,
            frame_spacing_ticks: 1,
            prefix_capacity: 1,
        })
    }

    fn load(
        folder: &Path,
        placement: Placement,
        options: ScriptedOptions,
    ) -> Result<Self, FamilyError> {
        let planner = placement.fast.load(&file(folder)?).map_err(FamilyError::new)?;
        let contract = planner.contract();
        let sizes = contract.read_sizes().map_err(FamilyError::new)?;
        let numbers = contract.read_numbers().map_err(FamilyError::new)?;
        Ok(Self { sizes, numbers, planner, device: placement.device, options })
    }

    fn engines(&self) -> Vec<&Arc<dyn Engine>> {
        vec![&self.planner]
    }

    fn slots(&self, count: usize) -> Result<SlotPool, DeviceError> {
        let (layers, heads, capacity) = (1, 1, 1);
        let (key_dim, value_dim, dtype) = (4, 4, DType::F32);
        let layout = Layout { layers, heads, capacity, key_dim, value_dim, dtype };
        SlotPool::new(&self.device, layout, count)
    }

    fn experts(&self, _: &RoutePlan) -> Result<Experts<TwoCameras>, FamilyError> {
        Ok(self.parts())
    }

    fn comparable(_: &Path, _: &Path) -> Result<(), FamilyError> {
        Ok(())
    }

    fn record(
        &self,
        inputs: RecordingInputs,
        done: &mut dyn FnMut(),
    ) -> Result<Vec<Trajectory>, FamilyError> {
        let mut experts = self.parts();
        let pool = self.slots(1).map_err(FamilyError::new)?;
        let mut plans = Vec::new();
        for prompt in 0..inputs.prompts {
            let random = SplitMix64::new(inputs.seed);
            let version = prompt as u64 + 1;
            let captured_at = Default::default();
            let request =
                PrefillRequest { version, captured_at, random: random.clone(), inputs: 1 };
            let writer = pool.writer().unwrap();
            let mut spans = StageSpans::default();
            let gate = &tandem::model::OpenGate;
            let prefix = experts
                .understanding
                .prefill(&request, writer, gate, &mut spans)
                .map_err(FamilyError::new)?;
            let readings = experts.perception.readings();
            readings.pictures = [(); 2].map(|()| vec![prompt as u8; self.sizes.picture]);
            let plan = experts.action.act(&prefix, readings, random, &mut spans);
            plans.extend(plan.map_err(FamilyError::new)?);
            done();
        }
        Ok(plans)
    }

    fn compare(
        engine: &Vec<Trajectory>,
        reference: &Vec<Trajectory>,
    ) -> Result<Box<dyn Comparison>, FamilyError> {
        let mut points = PointDifference::default();
        for (ours, theirs) in engine.iter().zip(reference) {
            points.add(ours.waypoints.as_flattened(), theirs.waypoints.as_flattened());
        }
        Ok(Box::new(Compared(points)))
    }

    fn golden_run(
        _: &Vec<Trajectory>,
        inputs: RecordingInputs,
        _: Limits,
        _: BTreeMap<String, String>,
    ) -> Vec<u8> {
        format!("seed {}", inputs.seed).into_bytes()
    }

    fn pass_golden_run(&self, _: &Path) -> Result<bool, FamilyError> {
        Ok(true)
    }
}

/// Distance of the plans of two models.
struct Compared(PointDifference);

impl Comparison for Compared {
    fn vectors(&self) -> Vec<(String, Difference)> {
        Vec::new()
    }

    fn layers(&self) -> &[LayerDifference] {
        &[]
    }

    fn points(&self) -> Vec<(&'static str, PointDifference)> {
        vec![("plan", self.0)]
    }

    fn decisions(&self) -> Option<Decisions> {
        None
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "plan": self.0 })
    }
}

/// Inputs of both experts at a tick.
#[derive(Default)]
pub(crate) struct Seen {
    frame: u64,
    speed_mps: f64,
    /// First bytes of each camera's image.
    pictures: [Vec<u8>; 2],
}

/// Perception of two cameras.
pub(crate) struct TwoCameras {
    /// Bytes of an image that the planner reads.
    picture: usize,
    seen: Seen,
}

impl Perception for TwoCameras {
    /// Frame number.
    type Inputs = u64;
    type Readings = Seen;

    fn observe(
        &mut self,
        observation: &Observation,
        _: &Pose,
        _: &Detour,
        _: &mut StageSpans,
    ) -> Result<(), ModelError> {
        for (name, into) in CAMERAS.iter().zip(&mut self.seen.pictures) {
            let camera = observation.camera(CameraId::named(name));
            let camera =
                camera.ok_or_else(|| ModelError::NoSensor { sensor: format!("camera {name}") })?;
            into.clear();
            into.extend_from_slice(&camera.rgb[..self.picture]);
        }
        self.seen.frame = observation.frame.0;
        self.seen.speed_mps = observation.speed_mps;
        Ok(())
    }

    fn inputs(&self) -> Option<u64> {
        Some(self.seen.frame)
    }

    fn readings(&mut self) -> &mut Seen {
        &mut self.seen
    }
}

/// Understanding expert that writes random keys and values.
struct RandomPrefix {
    device: Arc<dyn Device>,
}

impl UnderstandingExpert for RandomPrefix {
    type Inputs = u64;

    fn prefill(
        &mut self,
        request: &PrefillRequest<u64>,
        writer: KvWriter,
        gate: &dyn LaunchGate,
        _: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        gate.wait();
        let mut random = request.random.clone();
        seal(writer, &*self.device, request, request.inputs, || random.unit() as f32)
    }
}

/// Action expert that plans straight on at 2 Hz, with
/// lateral noise that also depends on the prefix.
struct NoisyPlanner {
    planner: Box<dyn Session>,
    /// Output of the network.
    plan: HostTensor,
    spacing: Duration,
    noise_m: f64,
}

impl ActionExpert for NoisyPlanner {
    type Readings = Seen;

    fn act(
        &mut self,
        prefix: &KvSnapshot,
        seen: &mut Seen,
        mut random: SplitMix64,
        spans: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError> {
        if !seen.frame.is_multiple_of(PLAN_PERIOD_TICKS) {
            return Ok(None);
        }
        let begun = PLANNER.begin();
        let shape = [1, seen.pictures[0].len()];
        let pictures = seen.pictures.each_ref().map(|bytes| HostTensor::from_slice(&shape, bytes));
        let inputs = pictures.each_ref().map(HostTensor::view);
        self.planner.run(&inputs, &mut [self.plan.view_mut()])?;
        spans.end(begun);
        let key = prefix.slot().tensors().next().unwrap().to_host(prefix.slot().device())?;
        let mut sideways = || {
            let sample = random.unit() + f64::from(key.as_slice::<f32>()[0]) - 1.0;
            (self.noise_m * sample) as f32
        };
        // The network is not trained, so its output changes the plan, which continues at 5 m/s,
        // only slightly.
        let nudge = self.plan.as_slice::<f32>()[0] * 1e-6;
        let points = self.plan.shape()[0];
        let waypoints =
            (1..=points).map(|point| [2.5 * point as f32 + nudge, sideways()]).collect();
        let path = (1..=20).map(|meter| [meter as f32, 0.0]).collect();
        Ok(Some(Trajectory { path, waypoints, spacing: self.spacing }))
    }
}
