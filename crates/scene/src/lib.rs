//! Types shared by drivers and worlds: observations, controls, routes and world state.
//!
//! Coordinates are CARLA's left-handed ones. World: x east, y south, z up, meters. Ego: x forward,
//! y right. Yaw is positive clockwise seen from above, radians. Models and simulators depend on this
//! crate and not on each other.

mod cameras;
mod control;
mod detour;
mod driver;
mod lane;
mod observation;
mod plan;
mod pose;
pub mod random;
mod route;
mod route_id;
mod trajectory;
mod upright_box;
pub mod vehicle;
mod world;
mod world_state;

pub use cameras::{CameraId, CameraIdError, Cameras, CamerasError, MAX_CAMERAS};
pub use control::{
    ActionStep, Command, Control, DeadlineVerdict, Latency, PrefillReport, PrefillStarted,
    PrefixInfo, TickReport,
};
pub use detour::{Detour, RouteSkip};
pub use driver::{DriveError, Driver};
pub use lane::{LaneMap, LanePoint, LaneStrip, StripKind};
pub use observation::{
    CameraFrame, CameraSpec, FrameId, Gnss, Imu, LidarSpec, LidarSweep, Observation, Passage,
    PassageReason, SensorSuite, StopCause, StopLine, Truth,
};
pub use plan::Plan;
pub use pose::{Pose, wrap_angle};
pub use route::{
    GeoReference, RoadOption, Route, RoutePlan, RoutePoint, ScenarioSpec, TriggerPoint,
    WeatherKeyframe, sharpest_turn,
};
pub use route_id::RouteId;
pub use trajectory::Trajectory;
pub use upright_box::{UprightBox, footprint_distance_m, footprints_overlap};
pub use world::{TICK, TICK_S, World};
pub use world_state::{
    ActorKind, ActorState, Allowances, Collision, EgoState, LightColor, ScenarioState, StopSign,
    TrafficLight, TriggerVolume, WorldState,
};
