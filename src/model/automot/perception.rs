//! Perception of AutoMoT: camera history, LiDAR histogram, ego state and target points of the
//! route.

use super::image::{BevFrame, BevFrameConfig, Size};
use super::lidar::SweepPair;
use super::networks::{Networks, NetworksError, action, bev, input};
use super::planner::RoutePlanner;
use super::prompt::DrivingState;
use super::sensors::{CAMERA_SIZE, LIDAR};
use super::sizes::histogram;
use super::stages;
use crate::device::StagedTensor;
use crate::model::{ModelError, Perception};
use crate::scene::{CameraFrame, CameraId, Detour, Observation, Pose};
use crate::timing::StageSpans;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::sync::Arc;
use tandem_export::contract::TensorSpec;

/// Options of AutoMoT's perception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerceptionOptions {
    /// Quality of the JPEG round trip of the BEV encoder's image; 95 in the AutoMoT release.
    /// `None` disables the round trip.
    pub jpeg_quality: Option<u8>,
    /// Ticks between two frames of a prompt: 5 (0.25 s) in the agent of the release, 10
    /// (0.5 s) in its training data.
    pub history_spacing_ticks: usize,
}

impl Default for PerceptionOptions {
    fn default() -> Self {
        Self { jpeg_quality: None, history_spacing_ticks: 5 }
    }
}

/// Inputs of a prefill of AutoMoT.
#[derive(Clone)]
pub struct AutomotInputs {
    /// Camera frames, oldest first.
    pub frames: ArrayVec<Arc<CameraFrame>, 8>,
    /// Current and next target point in the ego frame, meters.
    pub target_points_m: [[f32; 2]; 2],
    /// Forward speed.
    pub speed_mps: f32,
}

/// Inputs of an action step of AutoMoT in staged memory.
pub struct AutomotReadings {
    pub(super) image: StagedTensor,
    pub(super) histogram: StagedTensor,
    /// Speed and target points.
    pub(super) state: StagedTensor,
    bev_frame: BevFrame,
    /// Newest camera frame, `None` before the first.
    frame: Option<Arc<CameraFrame>>,
}

impl AutomotReadings {
    /// Stages the image of the newest frame. Called only at ticks with an action
    /// step, because of its cost.
    pub(super) fn stage_picture(&mut self) -> Result<(), ModelError> {
        let frame = self.frame.as_ref().ok_or_else(no_camera)?;
        self.image.bytes_mut().copy_from_slice(self.bev_frame.picture(&frame.rgb));
        Ok(())
    }
}

/// AutoMoT's perception.
pub struct AutomotPerception {
    frames: VecDeque<Arc<CameraFrame>>,
    frames_per_prompt: usize,
    history_spacing_ticks: usize,
    sweeps: SweepPair,
    planner: RoutePlanner,
    /// Speed and target points of this tick, for both experts.
    driving: DrivingState,
    readings: AutomotReadings,
}

impl AutomotPerception {
    /// Allocates all buffers of a tick at the start of a route. Fails if a contract lacks a size or
    /// the camera image is smaller than the network's. Panics if `history_spacing_ticks` is zero.
    pub fn new(
        networks: &Networks,
        planner: RoutePlanner,
        frames_per_prompt: usize,
        options: PerceptionOptions,
    ) -> Result<Self, NetworksError> {
        let PerceptionOptions { jpeg_quality, history_spacing_ticks } = options;
        assert!(history_spacing_ticks > 0, "history_spacing_ticks is 0");
        let bev_contract = networks.bev.contract();
        let image = &input(bev_contract, bev::IMAGE).shape;
        let cropped = Size { width: image[1], height: image[0] };
        if cropped.width > CAMERA_SIZE.width || cropped.height > CAMERA_SIZE.height {
            return Err(NetworksError::Camera {
                needed: [cropped.height, cropped.width],
                camera: [CAMERA_SIZE.height, CAMERA_SIZE.width],
            });
        }
        let histogram = histogram(bev_contract)?;
        let device = &*networks.device;
        let staged = |spec: &TensorSpec| StagedTensor::zeros(device, spec.dtype, &spec.shape);
        Ok(Self {
            frames: VecDeque::with_capacity(history_spacing_ticks * frames_per_prompt),
            frames_per_prompt,
            history_spacing_ticks,
            sweeps: SweepPair::new(&LIDAR, histogram),
            planner,
            driving: DrivingState::default(),
            readings: AutomotReadings {
                image: staged(input(bev_contract, bev::IMAGE))?,
                histogram: staged(input(bev_contract, bev::LIDAR))?,
                state: staged(input(networks.action.contract(), action::STATE))?,
                bev_frame: BevFrame::new(BevFrameConfig {
                    camera: CAMERA_SIZE,
                    cropped,
                    jpeg_quality,
                }),
                frame: None,
            },
        })
    }

    /// Returns the number of frames in the history, including the newest.
    fn history(&self) -> usize {
        self.history_spacing_ticks * (self.frames_per_prompt - 1) + 1
    }

    fn add_frame(&mut self, frame: &Arc<CameraFrame>) -> Result<(), ModelError> {
        let size = Size { width: frame.width as usize, height: frame.height as usize };
        if size != CAMERA_SIZE {
            return Err(ModelError::Size {
                what: "the camera image (height, width)",
                expected: vec![CAMERA_SIZE.height, CAMERA_SIZE.width],
                found: vec![size.height, size.width],
            });
        }
        if self.frames.len() == self.history() {
            self.frames.pop_front();
        }
        self.frames.push_back(Arc::clone(frame));
        self.readings.frame = Some(Arc::clone(frame));
        Ok(())
    }
}

impl Perception for AutomotPerception {
    type Inputs = AutomotInputs;
    type Readings = AutomotReadings;

    fn observe(
        &mut self,
        observation: &Observation,
        world_from_ego: &Pose,
        detour: &Detour,
        spans: &mut StageSpans,
    ) -> Result<(), ModelError> {
        let camera = observation.camera(CameraId::FRONT).ok_or_else(no_camera)?;
        let lidar = observation.lidar.as_ref().ok_or_else(|| no_sensor("LiDAR"))?;
        self.add_frame(camera)?;
        let readings = &mut self.readings;
        let begun = stages::LIDAR_HISTOGRAM.begin();
        self.sweeps.push(lidar, world_from_ego, &mut readings.histogram.as_mut_slice());
        spans.end(begun);
        let begun = stages::PLANNER.begin();
        let [target_m, next_target_m] = targets(&mut self.planner, world_from_ego, detour);
        spans.end(begun);
        self.driving =
            DrivingState { speed_mps: observation.speed_mps as f32, target_m, next_target_m };
        let ([x1, y1], [x2, y2]) = (target_m, next_target_m);
        let state = [self.driving.speed_mps, x1, y1, x2, y2];
        readings.state.as_mut_slice().copy_from_slice(&state);
        Ok(())
    }

    fn inputs(&self) -> Option<AutomotInputs> {
        if self.frames.len() < self.history() {
            return None;
        }
        Some(AutomotInputs {
            frames: self.frames.iter().step_by(self.history_spacing_ticks).cloned().collect(),
            target_points_m: [self.driving.target_m, self.driving.next_target_m],
            speed_mps: self.driving.speed_mps,
        })
    }

    fn readings(&mut self) -> &mut AutomotReadings {
        &mut self.readings
    }
}

fn no_camera() -> ModelError {
    no_sensor(&format!("camera {}", CameraId::FRONT))
}

fn no_sensor(sensor: &str) -> ModelError {
    ModelError::NoSensor { sensor: sensor.to_owned() }
}

/// Returns the two target points of the route, or those of the detour, in the ego frame.
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

#[cfg(test)]
mod tests {
    use super::super::planner::{PlanPoint, RoutePlannerConfig};
    use super::*;
    use crate::scene::{RoadOption, RouteSkip};
    use glam::{DVec2, DVec3};

    #[test]
    fn detour_replaces_targets_and_skips_route_points() {
        let plan = (0..8).map(|index| PlanPoint {
            position: DVec3::new(20.0 * f64::from(index), 0.0, 0.0),
            command: RoadOption::LaneFollow,
        });
        let mut planner = RoutePlanner::new(plan, RoutePlannerConfig::default());
        let mut targets_of = |detour| targets(&mut planner, &Pose::default(), &detour);
        assert_eq!(targets_of(Detour::default()), [[20.0, 0.0], [40.0, 0.0]]);
        let targets_m = Some([DVec2::new(3.0, 6.5), DVec2::new(6.0, 6.5)]);
        let skip = Some(RouteSkip { points: 5, keep: 4 });
        assert_eq!(targets_of(Detour { targets_m, skip }), [[3.0, 6.5], [6.0, 6.5]]);
        // Four of eight points remain, from 80 m on.
        assert_eq!(targets_of(Detour::default()), [[100.0, 0.0], [120.0, 0.0]]);
    }
}
