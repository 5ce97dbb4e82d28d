//! The action expert: BEV encoder and action network at every tick.

use super::image::{BevFrame, BevFrameConfig, Size};
use super::lane::Lane;
use super::lidar::SweepPair;
use super::networks::{Networks, NetworksError};
use super::planner::RoutePlanner;
use super::prompt::DrivingState;
use super::sizes::histogram;
use super::stages;
use crate::device::{DeviceTensor, DeviceView, Graph, StagedTensor};
use crate::engine::{MAX_TENSORS, Session};
use crate::kv_cache::{KvSnapshot, Slot};
use crate::model::{ActionExpert, ModelError, RefreshRequest};
use crate::scene::{
    CameraFrame, CameraSpec, Detour, LidarSpec, Observation, Pose, SensorSuite, Trajectory,
};
use crate::timing::{Stage, StageSpans, Timestamp};
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tandem_export::automot::sizes::ActionSizes;
use tandem_export::contract::TensorSpec;

/// Time between two waypoints.
const WAYPOINT_SPACING: Duration = Duration::from_millis(500);

/// The camera's picture.
const CAMERA_SIZE: Size = Size { width: 1024, height: 512 };

/// The sensors that AutoMoT's agent declares.
pub const SENSORS: SensorSuite = SensorSuite {
    camera: Some(CameraSpec {
        position_m: [-1.5, 0.0, 2.0],
        yaw_rad: 0.0,
        width: CAMERA_SIZE.width as u32,
        height: CAMERA_SIZE.height as u32,
        fov_deg: 110.0,
    }),
    lidar: Some(LIDAR),
    truth: false,
};

/// Where the agent mounts its LiDAR.
pub const LIDAR: LidarSpec =
    LidarSpec { position_m: [0.0, 0.0, 2.5], yaw_rad: -std::f64::consts::FRAC_PI_2 };

/// Which positions the action tokens get when a prefix is used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Positions {
    /// Right behind the prefix, every time: as trained.
    #[default]
    Trained,
    /// Counting on from the tokens of earlier uses, which the prefix does not hold: as the release
    /// does, off by 101 at each re-use.
    ReleaseDrift,
}

/// What the run file says of the fast expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionOptions {
    /// Positions of the action tokens.
    pub positions: Positions,
    /// Quality of the JPEG file that the BEV encoder's picture goes through, or `None` to leave the
    /// picture as it is; the release's is 95.
    pub jpeg_quality: Option<u8>,
    /// Ticks between two frames of a prompt. The release's agent takes 5 (0.25 s), its training
    /// frames were 10 apart (0.5 s).
    pub history_spacing_ticks: usize,
}

impl Default for ActionOptions {
    fn default() -> Self {
        Self { positions: Positions::Trained, jpeg_quality: None, history_spacing_ticks: 5 }
    }
}

impl Positions {
    /// Position of the first own token of a run on a prefix that was `uses` times acted on before.
    pub fn first(self, next_position: i64, uses: i64, own_tokens: i64) -> i64 {
        match self {
            Self::Trained => next_position,
            Self::ReleaseDrift => next_position + uses * own_tokens,
        }
    }
}

/// Places in the fast lane: before the uploads, the BEV encoder, the action expert and the downloads,
/// and behind them.
const MARKS: usize = 5;

/// The fast expert of AutoMoT.
pub struct AutomotAction {
    networks: FastNetworks,
    lane: Lane<MARKS>,
    /// The work of a tick on the prefix in the slot of this number, captured.
    graphs: Vec<Option<Arc<dyn Graph>>>,
    positions: Positions,
    /// Own tokens of one run, by which drifting positions move on.
    own_tokens: i64,
    /// The prefix version last acted on, and how often it was used before.
    uses: (u64, i64),
    frames: VecDeque<Arc<CameraFrame>>,
    frames_per_prompt: usize,
    history_spacing_ticks: usize,
    bev_frame: BevFrame,
    sweeps: SweepPair,
    planner: RoutePlanner,
    /// What the model is told of this tick; both experts get the same.
    told: DrivingState,
    captured_at: Timestamp,
}

/// BEV encoder and action expert with everything that they read and write, prefixes aside.
struct FastNetworks {
    bev: Box<dyn Session>,
    action: Box<dyn Session>,
    image: StagedTensor,
    histogram: StagedTensor,
    bev_tokens: DeviceTensor,
    state: StagedTensor,
    position: StagedTensor,
    prefix_length: StagedTensor,
    route: StagedTensor,
    waypoints: StagedTensor,
    decision_ids: StagedTensor,
}

impl AutomotAction {
    /// Sets up sessions and every buffer that ticks will need, at the start of a route.
    ///
    /// # Errors
    /// If a contract lacks a size.
    ///
    /// # Panics
    /// If the frames of a prompt are zero ticks apart.
    pub fn new(
        networks: &Networks,
        planner: RoutePlanner,
        frames_per_prompt: usize,
        options: ActionOptions,
    ) -> Result<Self, NetworksError> {
        let ActionOptions { positions, jpeg_quality, history_spacing_ticks } = options;
        assert!(history_spacing_ticks > 0, "a prompt of one frame, repeated");
        let bev_contract = networks.bev.contract();
        let contract = networks.action.contract();
        let picture = &bev_contract.inputs[0].shape;
        let cropped = Size { width: picture[1], height: picture[0] };
        if cropped.width > CAMERA_SIZE.width || cropped.height > CAMERA_SIZE.height {
            return Err(NetworksError::Camera {
                needed: [cropped.height, cropped.width],
                camera: [CAMERA_SIZE.height, CAMERA_SIZE.width],
            });
        }
        let rows = |index: usize| contract.outputs[index].shape[0];
        let (path, waypoints) = (rows(0), rows(1));
        let longest = Trajectory::default();
        if path > longest.path.capacity()
            || !(2..=longest.waypoints.capacity()).contains(&waypoints)
        {
            return Err(NetworksError::Trajectory { path, waypoints });
        }
        let histogram = histogram(bev_contract)?;
        let device = &*networks.device;
        let staged = |spec: &TensorSpec| StagedTensor::zeros(device, spec.dtype, &spec.shape);
        let tokens = &bev_contract.outputs[0];
        let own_tokens = ActionSizes::of(contract)?.own_tokens as i64;
        Ok(Self {
            networks: FastNetworks {
                bev: networks.bev.clone().session(),
                action: networks.action.clone().session(),
                image: staged(&bev_contract.inputs[0])?,
                histogram: staged(&bev_contract.inputs[1])?,
                bev_tokens: DeviceTensor::zeros(device, tokens.dtype, &tokens.shape)?,
                state: staged(&contract.inputs[1])?,
                position: staged(&contract.inputs[2])?,
                prefix_length: staged(&contract.inputs[3])?,
                route: staged(&contract.outputs[0])?,
                waypoints: staged(&contract.outputs[1])?,
                decision_ids: staged(&contract.outputs[2])?,
            },
            lane: Lane::new(device, &networks.lanes.fast)?,
            graphs: Vec::new(),
            positions,
            own_tokens,
            uses: (0, 0),
            frames: VecDeque::with_capacity(history_spacing_ticks * frames_per_prompt),
            frames_per_prompt,
            history_spacing_ticks,
            bev_frame: BevFrame::new(BevFrameConfig { camera: CAMERA_SIZE, cropped, jpeg_quality }),
            sweeps: SweepPair::new(&LIDAR, histogram),
            planner,
            told: DrivingState::default(),
            captured_at: Timestamp::ZERO,
        })
    }

    /// Frames that a refresh looks back over, the newest included.
    fn history(&self) -> usize {
        self.history_spacing_ticks * (self.frames_per_prompt - 1) + 1
    }

    fn take_frame(&mut self, frame: &Arc<CameraFrame>) -> Result<(), ModelError> {
        let size = Size { width: frame.width as usize, height: frame.height as usize };
        if size != CAMERA_SIZE {
            return Err(ModelError::Size {
                what: "the camera picture (height, width)",
                expected: vec![CAMERA_SIZE.height, CAMERA_SIZE.width],
                found: vec![size.height, size.width],
            });
        }
        if self.frames.len() == self.history() {
            self.frames.pop_front();
        }
        self.frames.push_back(Arc::clone(frame));
        Ok(())
    }

    /// Position of the first own token.
    fn own_position(&mut self, prefix: &KvSnapshot) -> i64 {
        let meta = prefix.meta();
        self.uses = match self.uses {
            (version, uses) if version == meta.version => (version, uses + 1),
            _ => (meta.version, 0),
        };
        self.positions.first(meta.next_position, self.uses.1, self.own_tokens)
    }

    fn trajectory(&self) -> Trajectory {
        let mut trajectory = Trajectory { spacing: WAYPOINT_SPACING, ..Trajectory::default() };
        trajectory.path.extend(points(&self.networks.route));
        trajectory.waypoints.extend(points(&self.networks.waypoints));
        trajectory
    }
}

impl FastNetworks {
    /// Hands the device's part of a tick to the lane.
    fn enqueue(&mut self, lane: &Lane<MARKS>, slot: &Slot) -> Result<(), ModelError> {
        let stream = lane.stream();
        lane.mark(0)?;
        let read = [&self.image, &self.histogram, &self.state, &self.position, &self.prefix_length];
        read.into_iter().try_for_each(|tensor| stream.upload(tensor.staged()))?;
        lane.mark(1)?;
        let readings = [self.image.view(), self.histogram.view()];
        self.bev.enqueue(stream, &readings, &[self.bev_tokens.view_mut()])?;
        lane.mark(2)?;
        let mut inputs: ArrayVec<DeviceView<'_>, MAX_TENSORS> = ArrayVec::new();
        inputs.extend([
            self.bev_tokens.view(),
            self.state.view(),
            self.position.view(),
            self.prefix_length.view(),
        ]);
        inputs.extend(slot.tensors().map(DeviceTensor::view));
        let outputs =
            [self.route.view_mut(), self.waypoints.view_mut(), self.decision_ids.view_mut()];
        self.action.enqueue(stream, &inputs, &outputs)?;
        lane.mark(3)?;
        let written = [&self.route, &self.waypoints, &self.decision_ids];
        written.into_iter().try_for_each(|tensor| stream.download(tensor.staged()))?;
        Ok(lane.mark(4)?)
    }
}

impl ActionExpert for AutomotAction {
    fn prepare(&mut self, slot: &Slot) -> Result<(), ModelError> {
        let Self { networks, lane, graphs, .. } = self;
        let both = networks.bev.runs_before_capture().zip(networks.action.runs_before_capture());
        let Some((bev, action)) = both else { return Ok(()) };
        let graph = lane.capture(bev.max(action), |lane| networks.enqueue(lane, slot))?;
        if graphs.len() <= slot.index() {
            graphs.resize(slot.index() + 1, None);
        }
        graphs[slot.index()] = Some(graph);
        Ok(())
    }

    fn observe(
        &mut self,
        observation: &Observation,
        world_from_ego: &Pose,
        detour: &Detour,
        spans: &mut StageSpans,
    ) -> Result<(), ModelError> {
        let camera =
            observation.camera.as_ref().ok_or(ModelError::NoSensor { sensor: "camera" })?;
        let lidar = observation.lidar.as_ref().ok_or(ModelError::NoSensor { sensor: "LiDAR" })?;
        self.take_frame(camera)?;
        let begun = stages::LIDAR_HISTOGRAM.begin();
        self.sweeps.push(lidar, world_from_ego, &mut self.networks.histogram.as_mut_slice());
        spans.end(begun);
        let begun = stages::PLANNER.begin();
        let [target_m, next_target_m] = targets(&mut self.planner, world_from_ego, detour);
        spans.end(begun);
        self.told =
            DrivingState { speed_mps: observation.speed_mps as f32, target_m, next_target_m };
        self.captured_at = observation.time;
        let ([x1, y1], [x2, y2]) = (target_m, next_target_m);
        let state = [self.told.speed_mps, x1, y1, x2, y2];
        self.networks.state.as_mut_slice().copy_from_slice(&state);
        Ok(())
    }

    fn refresh_request(&self, version: u64) -> Option<RefreshRequest> {
        if self.frames.len() < self.history() {
            return None;
        }
        Some(RefreshRequest {
            version,
            captured_at: self.captured_at,
            frames: self.frames.iter().step_by(self.history_spacing_ticks).cloned().collect(),
            target_points_m: [self.told.target_m, self.told.next_target_m],
            speed_mps: self.told.speed_mps,
        })
    }

    fn act(
        &mut self,
        prefix: &KvSnapshot,
        spans: &mut StageSpans,
    ) -> Result<Trajectory, ModelError> {
        let frame = self.frames.back().ok_or(ModelError::NoSensor { sensor: "camera" })?;
        let begun = stages::PICTURE.begin();
        self.networks.image.bytes_mut().copy_from_slice(self.bev_frame.picture(&frame.rgb));
        spans.end(begun);

        let position = self.own_position(prefix);
        let Self { networks, lane, graphs, .. } = self;
        networks.position.as_mut_slice().copy_from_slice(&[position]);
        networks.prefix_length.as_mut_slice().copy_from_slice(&[prefix.meta().valid_length as i64]);
        let slot = prefix.slot();
        lane.stream().wait(slot.ready())?;
        match graphs.get(slot.index()).and_then(Option::as_ref) {
            Some(graph) => lane.stream().launch(graph)?,
            None => networks.enqueue(lane, slot)?,
        }
        lane.reach(MARKS - 1)?;
        let is_apart = !networks.image.staged().is_unified();
        let copies = |stage| is_apart.then_some(stage);
        let stages = [
            copies(Stage::UPLOAD),
            Some(stages::BEV),
            Some(stages::ACTION),
            copies(Stage::DOWNLOAD),
        ];
        for (mark, stage) in stages.into_iter().enumerate() {
            if let Some(stage) = stage {
                lane.note(stage, mark, spans);
            }
        }
        Ok(spans.measure(stages::TRAJECTORY, || self.trajectory()))
    }
}

/// The two target points that the model is told, in the ego frame: the route's, or the detour's.
fn targets(planner: &mut RoutePlanner, world_from_ego: &Pose, detour: &Detour) -> [[f32; 2]; 2] {
    planner.advance(world_from_ego.position);
    if let Some(skip) = detour.skip {
        planner.skip(skip.points, skip.keep);
    }
    let targets = planner.targets(world_from_ego);
    detour
        .targets_m
        .unwrap_or([targets.target_m, targets.next_target_m])
        .map(|point| point.as_vec2().to_array())
}

/// The rows of a `[n, 2]` tensor.
fn points(tensor: &StagedTensor) -> impl Iterator<Item = [f32; 2]> + '_ {
    let values = tensor.as_slice::<f32>();
    (0..values.len() / 2).map(move |row| [values[2 * row], values[2 * row + 1]])
}

#[cfg(test)]
mod tests {
    use super::super::planner::{PlanPoint, RoutePlannerConfig};
    use super::*;
    use crate::scene::{RoadOption, RouteSkip};
    use glam::{DVec2, DVec3};

    #[test]
    fn a_detour_replaces_the_targets_and_gives_up_route_points() {
        let plan = (0..8).map(|index| PlanPoint {
            position: DVec3::new(20.0 * f64::from(index), 0.0, 0.0),
            command: RoadOption::LaneFollow,
        });
        let mut planner = RoutePlanner::new(plan, RoutePlannerConfig::default());
        let mut told = |detour| targets(&mut planner, &Pose::default(), &detour);
        assert_eq!(told(Detour::default()), [[20.0, 0.0], [40.0, 0.0]]);
        let targets_m = Some([DVec2::new(3.0, 6.5), DVec2::new(6.0, 6.5)]);
        let skip = Some(RouteSkip { points: 5, keep: 4 });
        assert_eq!(told(Detour { targets_m, skip }), [[3.0, 6.5], [6.0, 6.5]]);
        // Four of eight points remain: 80 m and on.
        assert_eq!(told(Detour::default()), [[100.0, 0.0], [120.0, 0.0]]);
    }
}
