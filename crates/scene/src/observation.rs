//! What a driver sees at a tick.

use super::cameras::{CameraId, Cameras};
use super::{ActorState, EgoState, LightColor, RoutePlan};
use std::sync::Arc;
use tandem_timing::Timestamp;

/// Number of a synchronized set of sensor readings: ticks since the route began, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FrameId(pub u64);

/// A camera picture.
pub struct CameraFrame {
    /// The tick it was taken at.
    pub id: FrameId,
    /// Simulation time of exposure.
    pub captured_at: Timestamp,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// RGB, 8 bits each, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

/// The returns of the LiDAR since the last tick (half a revolution at 10 Hz and 20 ticks a second).
pub struct LidarSweep {
    /// The tick it ended at.
    pub id: FrameId,
    /// `[x, y, z, intensity]` in the sensor's frame, meters.
    pub points: Vec<[f32; 4]>,
}

/// Inertial reading.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Imu {
    /// Specific force in the ego frame, m/s², gravity included.
    pub acceleration_mps2: [f64; 3],
    /// Angular rate in the ego frame, rad/s.
    pub angular_velocity_radps: [f64; 3],
    /// Compass, radians, 0 = north = −y, so that yaw = compass − π/2. NaN before the first fix.
    pub compass_rad: f64,
}

/// Satellite reading.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gnss {
    /// Latitude, degrees.
    pub latitude_deg: f64,
    /// Longitude, degrees.
    pub longitude_deg: f64,
    /// Altitude, meters.
    pub altitude_m: f64,
}

/// Ground truth, given only to drivers whose [`SensorSuite`] asks for it.
#[derive(Clone)]
pub struct Truth {
    /// The ego vehicle, exactly.
    pub ego: EgoState,
    /// Every other actor within the world's horizon.
    pub actors: Vec<ActorState>,
    /// The dense route.
    pub plan: Arc<RoutePlan>,
    /// Speed limit here, m/s.
    pub speed_limit_mps: f64,
    /// Where rules may ask to stop on the route, in the order of the route.
    pub stop_lines: Vec<StopLine>,
    /// What is in the route's way and has to be driven around, in the order of the route.
    pub passages: Vec<Passage>,
}

/// A place on the route where rules may ask to stop.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StopLine {
    /// Of the light or the sign, as in [`WorldState`](super::WorldState).
    pub id: u32,
    /// Index of the plan's point that the vehicle's front must not pass.
    pub plan_idx: usize,
    /// What asks.
    pub cause: StopCause,
}

/// What asks to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopCause {
    /// A traffic light, by what it shows.
    Light(LightColor),
    /// A stop sign.
    Sign,
}

/// A stretch of the route that is not to be driven on its center line.
#[derive(Clone, PartialEq, Debug)]
pub struct Passage {
    /// Indices of the plan's points beside which the hindrance begins and ends.
    pub plan_range: std::ops::Range<usize>,
    /// Where to drive there instead, meters to the right of the route (negative is left).
    pub aside_m: f64,
    /// Why, and in which lane that is.
    pub reason: PassageReason,
    /// The actors that are the hindrance: nobody to queue behind.
    pub actors: Vec<u32>,
}

/// Why the route's center line is not to be driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassageReason {
    /// An obstacle; the way around it is a lane of our own direction.
    ObstacleBesideFreeLane,
    /// An obstacle; the way around it is the oncoming lane, or a part of it.
    ObstacleBesideOncomingLane,
    /// Oncoming vehicles reach into our lane.
    OncomingInvades,
    /// An emergency vehicle comes from behind.
    GiveWay,
}

/// Everything a driver gets at one tick. Sensors that its suite does not name are `None`.
#[derive(Clone)]
pub struct Observation {
    /// Number of this tick.
    pub frame: FrameId,
    /// Simulation time since the route began.
    pub time: Timestamp,
    /// Pictures of the cameras of the suite; one that has none at this tick is absent.
    pub cameras: Cameras<Arc<CameraFrame>>,
    /// LiDAR returns of this tick.
    pub lidar: Option<Arc<LidarSweep>>,
    /// Inertial unit.
    pub imu: Imu,
    /// Satellite receiver.
    pub gnss: Gnss,
    /// Speedometer: forward speed, m/s, signed.
    pub speed_mps: f64,
    /// Ground truth, for privileged drivers only.
    pub truth: Option<Arc<Truth>>,
}

impl Observation {
    /// The picture of the camera `id`.
    pub fn camera(&self, id: CameraId) -> Option<&Arc<CameraFrame>> {
        self.cameras.get(id)
    }
}

/// A pinhole camera as an agent declares it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CameraSpec {
    /// Position in the ego frame (x forward, y right, z up), meters.
    pub position_m: [f64; 3],
    /// Heading in the ego frame, radians.
    pub yaw_rad: f64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Horizontal field of view, degrees.
    pub fov_deg: f64,
}

/// A spinning LiDAR as an agent declares it; the ray pattern is the benchmark's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LidarSpec {
    /// Position in the ego frame, meters.
    pub position_m: [f64; 3],
    /// Heading of the sensor's x axis in the ego frame, radians.
    pub yaw_rad: f64,
}

/// Which sensors a driver wants. IMU, GNSS and speedometer always run: they cost nothing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SensorSuite {
    /// Cameras by name.
    pub cameras: Cameras<CameraSpec>,
    /// LiDAR.
    pub lidar: Option<LidarSpec>,
    /// Ground truth (privileged drivers only).
    pub truth: bool,
}
