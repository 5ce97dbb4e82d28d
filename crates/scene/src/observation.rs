//! Sensor readings and ground truth of a tick.

use super::cameras::{CameraId, Cameras};
use super::{ActorState, EgoState, LightColor, RoutePlan};
use std::sync::Arc;
use tandem_timing::Timestamp;

/// Number of a synchronized set of sensor readings: ticks since the start of the route, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FrameId(pub u64);

/// An image of a camera with its capture time.
pub struct CameraFrame {
    pub id: FrameId,
    /// Simulation time of exposure.
    pub captured_at: Timestamp,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// RGB, 8 bits per channel, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

/// LiDAR returns since the last tick: half a revolution at 10 Hz and 20 ticks per second.
pub struct LidarSweep {
    /// Tick at which the sweep ended.
    pub id: FrameId,
    /// `[x, y, z, intensity]` in the sensor's frame, meters.
    pub points: Vec<[f32; 4]>,
}

/// Reading of the inertial measurement unit.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Imu {
    /// Specific force in the ego frame, m/s², including gravity.
    pub acceleration_mps2: [f64; 3],
    /// Angular rate in the ego frame, rad/s.
    pub angular_velocity_radps: [f64; 3],
    /// Compass, radians; 0 is north (−y), so yaw = compass − π/2. NaN before the first fix.
    pub compass_rad: f64,
}

/// Reading of the satellite receiver.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gnss {
    pub latitude_deg: f64,
    pub longitude_deg: f64,
    pub altitude_m: f64,
}

/// Ground truth, provided only if the driver's [`SensorSuite`] requests it.
#[derive(Clone)]
pub struct Truth {
    pub ego: EgoState,
    /// All other actors within the world's horizon.
    pub actors: Vec<ActorState>,
    pub plan: Arc<RoutePlan>,
    /// Speed limit at the ego vehicle, m/s.
    pub speed_limit_mps: f64,
    /// Places on the route where a rule may require a stop, in route order.
    pub stop_lines: Vec<StopLine>,
    /// Sections of the route that must be driven off its center line, in route order.
    pub passages: Vec<Passage>,
}

/// Place on the route where a rule may require a stop.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StopLine {
    /// Id of the light or sign, as in [`WorldState`](super::WorldState).
    pub id: u32,
    /// Index of the plan point that the front of the vehicle must not pass.
    pub plan_idx: usize,
    pub cause: StopCause,
}

/// Reason why a stop may be required.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopCause {
    /// Traffic light with its current color.
    Light(LightColor),
    Sign,
}

/// Section of the route that must be driven off its center line.
#[derive(Clone, PartialEq, Debug)]
pub struct Passage {
    /// Indices of the plan points at which the obstruction begins and ends.
    pub plan_range: std::ops::Range<usize>,
    /// Lateral offset to drive at, meters to the right of the route (negative is left).
    pub aside_m: f64,
    pub reason: PassageReason,
    /// Ids of the obstructing actors, which must be passed and not followed.
    pub actors: Vec<u32>,
}

/// Reason to leave the center line, and the lane to use instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassageReason {
    /// Obstacle, to be passed in a lane of the ego vehicle's direction.
    ObstacleBesideFreeLane,
    /// Obstacle, to be passed in the oncoming lane or a part of it.
    ObstacleBesideOncomingLane,
    /// Oncoming vehicles reach into the ego lane.
    OncomingInvades,
    /// Emergency vehicle approaching from behind.
    GiveWay,
}

/// Input of a driver at one tick. Sensors that are not in its suite are `None`.
#[derive(Clone)]
pub struct Observation {
    pub frame: FrameId,
    /// Simulation time since the start of the route.
    pub time: Timestamp,
    /// Images of the cameras of the suite; cameras without an image at this tick are absent.
    pub cameras: Cameras<Arc<CameraFrame>>,
    pub lidar: Option<Arc<LidarSweep>>,
    pub imu: Imu,
    pub gnss: Gnss,
    /// Forward speed of the speedometer, signed, m/s.
    pub speed_mps: f64,
    /// Ground truth, for privileged drivers only.
    pub truth: Option<Arc<Truth>>,
}

impl Observation {
    /// Returns the image of camera `id`.
    pub fn camera(&self, id: CameraId) -> Option<&Arc<CameraFrame>> {
        self.cameras.get(id)
    }
}

/// Pinhole camera as an agent declares it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CameraSpec {
    /// Position in the ego frame (x forward, y right, z up), meters.
    pub position_m: [f64; 3],
    /// Heading in the ego frame, radians.
    pub yaw_rad: f64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Horizontal field of view, degrees.
    pub fov_deg: f64,
}

/// Spinning LiDAR as an agent declares it; the ray pattern is the benchmark's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LidarSpec {
    /// Position in the ego frame, meters.
    pub position_m: [f64; 3],
    /// Heading of the sensor's x axis in the ego frame, radians.
    pub yaw_rad: f64,
}

/// Sensors that a driver requests. IMU, GNSS and speedometer are always present.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SensorSuite {
    pub cameras: Cameras<CameraSpec>,
    pub lidar: Option<LidarSpec>,
    /// Requests ground truth; privileged drivers only.
    pub truth: bool,
}
