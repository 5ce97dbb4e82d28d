//! Measures the host stages around the networks at the sizes of the AutoMoT release, on one core.
//!
//! `host-work record DIR` drives the embedded world once and writes the sensor data and tandem's
//! results; `host-work measure DIR` measures the stages on that recording. The Python peer
//! (`peers/host_work.py`) reads the same folder, so both process the same bytes.

use anyhow::{Context, bail, ensure};
use glam::DVec3;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use tandem::control::{Localizer, PathFollower, PathFollowerConfig, StateFilterConfig};
use tandem::model::automot::image::{BevFrame, BevFrameConfig, PatchLayout, Resizer, Size};
use tandem::model::automot::lidar::{HistogramConfig, SweepPair};
use tandem::model::automot::planner::{
    PlanPoint, RoutePlanner, RoutePlannerConfig, THINNING_M, Targets, thin_plan,
};
use tandem::model::automot::prompt::{self, DrivingState};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{LIDAR, sensors};
use tandem::scene::{
    CameraId, Cameras, Command, Driver, FrameId, GeoReference, Gnss, Imu, LidarSweep, Observation,
    Pose, RoadOption, RoutePlan, SensorSuite, TICK, Trajectory, World,
};
use tandem::timing::{Stopwatch, Timestamp};
use tandem_drivers::Autopilot;
use tandem_world::EmbeddedWorld;

/// Number of ticks of the recording.
const TICKS: usize = 200;

/// Ticks of the images that are written for comparison with the peer.
const PICTURES: [usize; 5] = [0, 50, 100, 150, 199];

const CAMERA: Size = Size { width: 1024, height: 512 };
const VISION_FRAME: Size = Size { width: 512, height: 256 };
const BEV_PICTURE: Size = Size { width: 1024, height: 384 };
const JPEG_QUALITY: u8 = 95;

/// Number of frames per prompt, [`FRAME_SPACING`] ticks apart.
const PROMPT_FRAMES: usize = 4;
const FRAME_SPACING: usize = 5;

/// Number of frames that a prefill at every second tick has to encode; the other two are cached.
const FRESH_FRAMES: usize = 2;

/// File names in the recording's folder.
const OBSERVATIONS: &str = "observations.safetensors";
const EXPECTED: &str = "expected.safetensors";

/// Stage of the host's work around the networks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Conversion of GNSS and compass to the world frame, and state filter.
    Localize,
    /// Transformation of the LiDAR half sweeps to the ego frame, and their histogram.
    Lidar,
    /// Route planner and target points.
    Planner,
    /// BEV encoder image as a view of the camera image.
    View,
    /// BEV encoder image with JPEG compression and decompression.
    Jpeg,
    /// Both PID controllers, path curvature and overrides.
    Control,
    /// Text and tokens of the prompt.
    Prompt,
    /// Resizing of one frame and division into patches for the vision tower.
    Frame,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Localize,
        Self::Lidar,
        Self::Planner,
        Self::View,
        Self::Jpeg,
        Self::Control,
        Self::Prompt,
        Self::Frame,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Localize => "localize",
            Self::Lidar => "lidar",
            Self::Planner => "planner",
            Self::View => "view",
            Self::Jpeg => "jpeg",
            Self::Control => "control",
            Self::Prompt => "prompt",
            Self::Frame => "frame",
        }
    }

    fn runs(self) -> &'static str {
        match self {
            Self::Localize | Self::Lidar | Self::Planner | Self::Control => "tick",
            Self::View => "tick, without JPEG",
            Self::Jpeg => "tick, with JPEG",
            Self::Prompt => "refresh, on the understanding expert's thread",
            Self::Frame => "refresh, each frame without cached features, on the same thread",
        }
    }
}

/// Runs `record DIR` or `measure DIR`. Fails if the arguments are invalid, or the folder cannot be
/// written or read.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<Value> {
    match arguments {
        [verb, folder] if verb == "record" => record(Path::new(folder)),
        [verb, folder] if verb == "measure" => measure(Path::new(folder)),
        _ => bail!("host-work record DIR | host-work measure DIR"),
    }
}

/// Sensor data of a drive with commands, trajectories and route.
struct Recording {
    /// Camera images, `[ticks, height, width, 3]`.
    frames: Vec<u8>,
    /// Without camera and LiDAR data.
    observations: Vec<Observation>,
    sweeps: Vec<LidarSweep>,
    /// Command of the previous tick, by tick.
    last_commands: Vec<Command>,
    /// The route ahead in the ego frame, as a model would predict it.
    trajectories: Vec<Trajectory>,
    /// Thinned route plan of the planner.
    plan: Vec<PlanPoint>,
    reference: GeoReference,
}

impl Recording {
    /// Records a drive of the autopilot.
    fn record() -> anyhow::Result<Self> {
        let suite = SensorSuite { truth: true, ..sensors() };
        let mut world = EmbeddedWorld::new(&crate::world::winding_road(), suite, 1)?;
        let mut autopilot = Autopilot::new();
        let route = world.plan().clone();
        let dense: Vec<PlanPoint> = route.points.iter().map(PlanPoint::from).collect();
        let mut recording = Self {
            frames: Vec::with_capacity(TICKS * CAMERA.rgb_bytes()),
            observations: Vec::new(),
            sweeps: Vec::new(),
            last_commands: vec![Command::FULL_BRAKE],
            trajectories: Vec::new(),
            plan: thin_plan(&dense, THINNING_M).into_iter().map(|index| dense[index]).collect(),
            reference: route.reference,
        };
        for _ in 0..TICKS {
            let observation = world.observe();
            let command = autopilot.drive(&observation)?.command;
            let camera =
                observation.camera(CameraId::FRONT).context("the world gave no camera frame")?;
            let lidar = observation.lidar.as_ref().context("the world gave no LiDAR sweep")?;
            recording.frames.extend_from_slice(&camera.rgb);
            recording.sweeps.push(LidarSweep { id: lidar.id, points: lidar.points.clone() });
            let pose = world.state().ego.pose;
            recording.trajectories.push(route_ahead(&route, &pose));
            recording.observations.push(Observation {
                cameras: Cameras::NONE,
                lidar: None,
                truth: None,
                ..observation.clone()
            });
            recording.last_commands.push(command);
            world.step(&command);
        }
        recording.last_commands.pop();
        Ok(recording)
    }

    fn frame(&self, tick: usize) -> &[u8] {
        &self.frames[tick * CAMERA.rgb_bytes()..][..CAMERA.rgb_bytes()]
    }

    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut file = Tensors::default();
        let ticks = self.observations.len();
        file.add("frames", &[ticks, CAMERA.height, CAMERA.width, 3], Dtype::U8, &self.frames);
        let points: Vec<[f32; 4]> =
            self.sweeps.iter().flat_map(|sweep| sweep.points.iter().copied()).collect();
        file.numbers("lidar.points", &[points.len(), 4], points.as_flattened());
        let counts: Vec<i64> = self.sweeps.iter().map(|sweep| sweep.points.len() as i64).collect();
        file.numbers("lidar.counts", &[ticks], &counts);
        let scalars: Vec<[f64; 5]> = self
            .observations
            .iter()
            .map(|Observation { gnss, imu, speed_mps, .. }| {
                let Gnss { latitude_deg, longitude_deg, altitude_m } = *gnss;
                [latitude_deg, longitude_deg, altitude_m, imu.compass_rad, *speed_mps]
            })
            .collect();
        file.numbers("gnss_compass_speed", &[ticks, 5], scalars.as_flattened());
        file.numbers("last_command", &[ticks, 3], numbers(&self.last_commands).as_flattened());
        let paths: Vec<[f32; 2]> =
            self.trajectories.iter().flat_map(|way| way.path.iter().copied()).collect();
        file.numbers("path", &[ticks, paths.len() / ticks, 2], paths.as_flattened());
        let waypoints: Vec<[f32; 2]> =
            self.trajectories.iter().flat_map(|way| way.waypoints.iter().copied()).collect();
        file.numbers("waypoints", &[ticks, waypoints.len() / ticks, 2], waypoints.as_flattened());
        let plan: Vec<[f64; 4]> = self
            .plan
            .iter()
            .map(|PlanPoint { position, command }| {
                [position.x, position.y, position.z, f64::from(*command as i8)]
            })
            .collect();
        file.numbers("plan", &[plan.len(), 4], plan.as_flattened());
        let GeoReference { latitude_deg, longitude_deg } = self.reference;
        file.numbers("reference", &[2], &[latitude_deg, longitude_deg]);
        file.write(&folder.join(OBSERVATIONS))
    }

    fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(OBSERVATIONS);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let file = SafeTensors::deserialize(&bytes)?;
        let points: Vec<f32> = elements(&file, "lidar.points")?;
        let mut points = points.as_chunks::<4>().0;
        let mut sweeps = Vec::new();
        for (index, count) in elements::<i64>(&file, "lidar.counts")?.into_iter().enumerate() {
            let (sweep, rest) = points.split_at(count as usize);
            sweeps.push(LidarSweep { id: FrameId(index as u64 + 1), points: sweep.to_vec() });
            points = rest;
        }
        let ticks = sweeps.len();
        let observations = elements::<f64>(&file, "gnss_compass_speed")?
            .as_chunks()
            .0
            .iter()
            .enumerate()
            .map(|(index, &[latitude_deg, longitude_deg, altitude_m, compass_rad, speed_mps])| {
                Observation {
                    frame: FrameId(index as u64 + 1),
                    time: Timestamp::after(TICK * (index as u32 + 1)),
                    cameras: Cameras::NONE,
                    lidar: None,
                    imu: Imu { compass_rad, ..Imu::default() },
                    gnss: Gnss { latitude_deg, longitude_deg, altitude_m },
                    speed_mps,
                    truth: None,
                }
            })
            .collect();
        let last_commands = elements::<f64>(&file, "last_command")?
            .as_chunks()
            .0
            .iter()
            .map(|&[steer, throttle, brake]| Command { steer, throttle, brake })
            .collect();
        let [paths, waypoints] = [elements::<f32>(&file, "path")?, elements(&file, "waypoints")?];
        let per_tick = |all: &[f32], tick: usize| -> Vec<[f32; 2]> {
            let points = all.as_chunks().0;
            points[tick * points.len() / ticks..(tick + 1) * points.len() / ticks].to_vec()
        };
        let trajectories = (0..ticks)
            .map(|tick| trajectory(&per_tick(&paths, tick), &per_tick(&waypoints, tick)))
            .collect();
        let plan = elements::<f64>(&file, "plan")?
            .as_chunks()
            .0
            .iter()
            .map(|&[x, y, z, command]| {
                let position = DVec3::new(x, y, z);
                Ok(PlanPoint { position, command: road_option(command)? })
            })
            .collect::<anyhow::Result<_>>()?;
        let reference: Vec<f64> = elements(&file, "reference")?;
        let [latitude_deg, longitude_deg] = reference[..] else {
            bail!("the geo reference must have two values")
        };
        let frames = file.tensor("frames")?.data().to_vec();
        ensure!(frames.len() == ticks * CAMERA.rgb_bytes(), "the frames have another size");
        let reference = GeoReference { latitude_deg, longitude_deg };
        Ok(Self { frames, observations, sweeps, last_commands, trajectories, plan, reference })
    }
}

/// Returns twenty points of the route after the one nearest to `pose`, one meter apart, and six
/// waypoints along them at 5 m/s.
fn route_ahead(route: &RoutePlan, pose: &Pose) -> Trajectory {
    let place = |index: usize| {
        let point = &route.points[index.min(route.points.len() - 1)];
        pose.inverse_apply(point.position.truncate())
    };
    let distance = |index: &usize| place(*index).length();
    let nearest = (0..route.points.len())
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .unwrap_or_default();
    let path: Vec<[f32; 2]> =
        (1..=20).map(|step| place(nearest + step).as_vec2().to_array()).collect();
    let waypoints: Vec<[f32; 2]> = (1..=6)
        .map(|step| {
            let (before, after) =
                (place(nearest + 5 * step / 2), place(nearest + 5 * step / 2 + 1));
            let between = if step % 2 == 0 { 0.0 } else { 0.5 };
            before.lerp(after, between).as_vec2().to_array()
        })
        .collect();
    trajectory(&path, &waypoints)
}

fn trajectory(path: &[[f32; 2]], waypoints: &[[f32; 2]]) -> Trajectory {
    Trajectory {
        path: path.iter().copied().collect(),
        waypoints: waypoints.iter().copied().collect(),
        spacing: Duration::from_millis(500),
    }
}

fn road_option(number: f64) -> anyhow::Result<RoadOption> {
    [
        RoadOption::Void,
        RoadOption::Left,
        RoadOption::Right,
        RoadOption::Straight,
        RoadOption::LaneFollow,
        RoadOption::ChangeLaneLeft,
        RoadOption::ChangeLaneRight,
    ]
    .into_iter()
    .find(|&option| f64::from(option as i8) == number)
    .with_context(|| format!("{number} is not a road option"))
}

fn numbers(commands: &[Command]) -> Vec<[f64; 3]> {
    commands.iter().map(|&Command { steer, throttle, brake }| [steer, throttle, brake]).collect()
}

/// All stages with their buffers, at the start of a route.
struct Chain {
    localizer: Localizer,
    sweeps: SweepPair,
    histogram: Vec<f32>,
    planner: RoutePlanner,
    view: BevFrame,
    jpeg: BevFrame,
    follower: PathFollower,
    tokenizer: Tokenizer,
    instruction: String,
    tokens: Vec<u32>,
    resizer: Resizer,
    resized: Vec<u8>,
    layout: PatchLayout,
    patches: Vec<f32>,
}

/// Results of the stages at one tick.
struct TickResult {
    pose: Pose,
    targets: Targets,
    command: Command,
}

impl Chain {
    fn new(recording: &Recording) -> anyhow::Result<Self> {
        let tokenizer =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/automot/tokenizer.json");
        let histogram = HistogramConfig::default();
        let layout = PatchLayout::default();
        let bev = |jpeg_quality| {
            BevFrame::new(BevFrameConfig { camera: CAMERA, cropped: BEV_PICTURE, jpeg_quality })
        };
        Ok(Self {
            localizer: Localizer::new(StateFilterConfig::default(), recording.reference),
            sweeps: SweepPair::new(&LIDAR, histogram),
            histogram: vec![0.0; histogram.shape().iter().product()],
            planner: RoutePlanner::new(
                recording.plan.iter().copied(),
                RoutePlannerConfig::default(),
            ),
            view: bev(None),
            jpeg: bev(Some(JPEG_QUALITY)),
            follower: PathFollower::new(PathFollowerConfig::default()),
            tokenizer: Tokenizer::read(&tokenizer)?,
            instruction: String::with_capacity(prompt::INSTRUCTION_CAPACITY),
            tokens: Vec::with_capacity(prompt::INSTRUCTION_CAPACITY),
            resizer: Resizer::new(CAMERA, VISION_FRAME),
            resized: vec![0; VISION_FRAME.rgb_bytes()],
            layout,
            patches: vec![0.0; layout.patches(VISION_FRAME) * layout.patch_values()],
        })
    }

    /// Runs every stage once and calls `lap` with the time of each.
    fn tick(
        &mut self,
        recording: &Recording,
        tick: usize,
        mut lap: impl FnMut(Stage, Duration),
    ) -> anyhow::Result<TickResult> {
        let observation = &recording.observations[tick];
        let frame = recording.frame(tick);

        let watch = Stopwatch::start();
        let pose = self.localizer.update(observation, &recording.last_commands[tick])?;
        lap(Stage::Localize, watch.elapsed());

        let watch = Stopwatch::start();
        self.sweeps.push(&recording.sweeps[tick], &pose, &mut self.histogram);
        lap(Stage::Lidar, watch.elapsed());

        let watch = Stopwatch::start();
        self.planner.advance(pose.position);
        let targets = self.planner.targets(&pose);
        lap(Stage::Planner, watch.elapsed());

        let watch = Stopwatch::start();
        black_box(self.view.picture(frame));
        lap(Stage::View, watch.elapsed());

        let watch = Stopwatch::start();
        black_box(self.jpeg.picture(frame));
        lap(Stage::Jpeg, watch.elapsed());

        let watch = Stopwatch::start();
        let command = self.follower.follow(&recording.trajectories[tick], observation.speed_mps);
        lap(Stage::Control, watch.elapsed());

        let watch = Stopwatch::start();
        let [target_m, next_target_m] =
            [targets.target_m, targets.next_target_m].map(|point| point.as_vec2().to_array());
        let speed_mps = observation.speed_mps as f32;
        let state = DrivingState { speed_mps, target_m, next_target_m };
        prompt::write_instruction(&state, &mut self.instruction);
        self.tokens.clear();
        self.tokenizer.encode_into(&self.instruction, &mut self.tokens)?;
        lap(Stage::Prompt, watch.elapsed());

        let watch = Stopwatch::start();
        self.resizer.resize(frame, &mut self.resized);
        self.layout.write_patches(&self.resized, VISION_FRAME, &mut self.patches);
        lap(Stage::Frame, watch.elapsed());
        black_box((&self.histogram, &self.patches));
        Ok(TickResult { pose, targets, command })
    }
}

/// Writes a recording and tandem's results on it.
fn record(folder: &Path) -> anyhow::Result<Value> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let recording = Recording::record()?;
    recording.write(folder)?;
    let mut chain = Chain::new(&recording)?;
    let full = HistogramConfig::default().full_cell_points as f32;
    let (mut poses, mut targets, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    let (mut counts, mut tokens, mut token_counts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut resized, mut patches, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
    for tick in 0..TICKS {
        let result = chain.tick(&recording, tick, |_, _| ())?;
        let Pose { position, yaw_rad } = result.pose;
        poses.push([position.x, position.y, yaw_rad]);
        let Targets { target_m, next_target_m, .. } = result.targets;
        targets.push([target_m.x, target_m.y, next_target_m.x, next_target_m.y]);
        commands.push(result.command);
        counts.extend(chain.histogram.iter().map(|value| (value * full).round() as u8));
        tokens.extend(chain.tokens.iter().map(|&id| i64::from(id)));
        token_counts.push(chain.tokens.len() as i64);
        if PICTURES.contains(&tick) {
            resized.extend_from_slice(&chain.resized);
            patches.extend_from_slice(&chain.patches);
            decoded.extend_from_slice(chain.jpeg.picture(recording.frame(tick)));
        }
    }
    let mut file = Tensors::default();
    file.numbers("pose", &[TICKS, 3], poses.as_flattened());
    file.numbers("targets", &[TICKS, 4], targets.as_flattened());
    file.numbers("command", &[TICKS, 3], numbers(&commands).as_flattened());
    let [_, rows, columns] = HistogramConfig::default().shape();
    file.add("histogram.counts", &[TICKS, rows, columns], Dtype::U8, &counts);
    file.numbers("tokens", &[tokens.len()], &tokens);
    file.numbers("tokens.counts", &[TICKS], &token_counts);
    let pictures = PICTURES.len();
    file.numbers("pictures.ticks", &[pictures], &PICTURES.map(|tick| tick as i64));
    let shape = |size: Size| [pictures, size.height, size.width, 3];
    file.add("pictures.resized", &shape(VISION_FRAME), Dtype::U8, &resized);
    file.add("pictures.jpeg", &shape(BEV_PICTURE), Dtype::U8, &decoded);
    let layout = PatchLayout::default();
    let shape = [pictures, layout.patches(VISION_FRAME), layout.patch_values()];
    file.numbers("pictures.patches", &shape, &patches);
    file.write(&folder.join(EXPECTED))?;
    let points: usize = recording.sweeps.iter().map(|sweep| sweep.points.len()).sum();
    Ok(json!({
        "bench": "host-work record",
        "ticks": TICKS,
        "lidar_points_per_tick": points / TICKS,
        "tokens_per_prompt": tokens.len() as f64 / TICKS as f64,
    }))
}

/// Measures every stage over a recording, after one warm-up pass.
fn measure(folder: &Path) -> anyhow::Result<Value> {
    let recording = Recording::read(folder)?;
    let ticks = recording.observations.len();
    let mut samples: [Vec<u64>; Stage::ALL.len()] = Default::default();
    for is_warm in [false, true] {
        let mut chain = Chain::new(&recording)?;
        for tick in 0..ticks {
            let result = chain.tick(&recording, tick, |stage, took| {
                if is_warm {
                    samples[stage as usize].push(took.as_nanos() as u64);
                }
            })?;
            black_box((result.pose, result.targets, result.command));
        }
    }
    let of = |stage: Stage| &samples[stage as usize];
    let sum = |stages: &[Stage], tick: usize| -> u64 {
        stages.iter().map(|&stage| of(stage)[tick]).sum()
    };
    let both = [Stage::Localize, Stage::Lidar, Stage::Planner, Stage::Control];
    let tick = |picture: Stage| -> Vec<u64> {
        (0..ticks).map(|tick| sum(&both, tick) + of(picture)[tick]).collect()
    };
    let history = FRAME_SPACING * (PROMPT_FRAMES - 1);
    // The cost of each frame is measured once, at its own tick. A prefill at every second tick
    // finds two frames of its prompt cached: those an even number of ticks old.
    let refresh = |frames: usize| -> Vec<u64> {
        (history..ticks)
            .map(|tick| {
                let of_frames: u64 =
                    (0..frames).map(|age| of(Stage::Frame)[tick - FRAME_SPACING * age]).sum();
                of(Stage::Prompt)[tick] + of_frames
            })
            .collect()
    };
    let (plain, jpeg) = (tick(Stage::View), tick(Stage::Jpeg));
    let (all_frames, fresh_frames) = (refresh(PROMPT_FRAMES), refresh(FRESH_FRAMES));
    let with_refresh: Vec<u64> =
        jpeg[history..].iter().zip(&all_frames).map(|(tick, refresh)| tick + refresh).collect();
    let stages: Map<String, Value> = Stage::ALL
        .into_iter()
        .map(|stage| (stage.name().to_owned(), distribution(stage.runs(), of(stage))))
        .collect();
    Ok(json!({
        "bench": "host-work measure",
        "implementation": "tandem",
        "version": env!("CARGO_PKG_VERSION"),
        "ticks": ticks,
        "unit": "ns",
        "stages": stages,
        "totals": {
            "tick": distribution("tick, without JPEG", &plain),
            "tick_jpeg": distribution("tick, with JPEG", &jpeg),
            "refresh": distribution("refresh, four frames encoded", &all_frames),
            "refresh_cached": distribution("refresh every second tick, the two frames not shown before", &fresh_frames),
            "refresh_tick_jpeg": distribution(
                "tick with JPEG and a refresh of four frames, one after the other",
                &with_refresh,
            ),
        },
    }))
}

/// Returns nearest-rank percentiles and all samples.
pub(crate) fn distribution(runs: &str, samples: &[u64]) -> Value {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = |part: f64| {
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    };
    json!({
        "runs": runs,
        "count": sorted.len(),
        "p50": rank(0.5),
        "p99": rank(0.99),
        "max": sorted.last(),
        "samples": samples,
    })
}

/// Tensors of a safetensors file to write.
#[derive(Default)]
struct Tensors(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

/// Element type of a safetensors file.
trait Number: bytemuck::Pod {
    const DTYPE: Dtype;
}

impl Number for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Number for f64 {
    const DTYPE: Dtype = Dtype::F64;
}

impl Number for i64 {
    const DTYPE: Dtype = Dtype::I64;
}

impl Tensors {
    fn add(&mut self, name: &str, shape: &[usize], dtype: Dtype, bytes: &[u8]) {
        self.0.push((name.to_owned(), dtype, shape.to_vec(), bytes.to_vec()));
    }

    fn numbers<T: Number>(&mut self, name: &str, shape: &[usize], values: &[T]) {
        self.add(name, shape, T::DTYPE, bytemuck::cast_slice(values));
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let views = self
            .0
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        safetensors::serialize_to_file(views, None, path)
            .with_context(|| format!("writing {}", path.display()))
    }
}

fn elements<T: Number>(file: &SafeTensors<'_>, name: &str) -> anyhow::Result<Vec<T>> {
    let tensor = file.tensor(name).with_context(|| format!("the recording's {name}"))?;
    ensure!(tensor.dtype() == T::DTYPE, "the recording's {name} is {:?}", tensor.dtype());
    Ok(tensor.data().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
}
