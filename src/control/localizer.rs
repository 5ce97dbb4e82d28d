//! Pose estimation from GNSS, compass and speedometer with the state filter.

use super::gnss::{world_from_gnss, yaw_from_compass};
use super::{FilterError, StateFilter, StateFilterConfig, VehicleState};
use crate::scene::{Command, GeoReference, Observation, Pose};

/// Estimates the pose at every tick.
pub struct Localizer {
    filter: StateFilter,
    reference: GeoReference,
}

impl Localizer {
    /// Creates a localizer at the start of a route, on a map with this reference.
    pub fn new(config: StateFilterConfig, reference: GeoReference) -> Self {
        Self { filter: StateFilter::new(config), reference }
    }

    /// Returns `world_from_ego` at this tick; `last_command` is that of the previous tick. After an
    /// error of the filter, call [`restart`](Self::restart).
    pub fn update(
        &mut self,
        observation: &Observation,
        last_command: &Command,
    ) -> Result<Pose, FilterError> {
        let position = world_from_gnss(&observation.gnss, &self.reference);
        let yaw_rad = yaw_from_compass(observation.imu.compass_rad);
        let reading = VehicleState {
            pose: Pose { position: position.truncate(), yaw_rad },
            speed_mps: observation.speed_mps,
        };
        Ok(self.filter.update(&reading, last_command)?.pose)
    }

    /// Resets the filter; the next update starts from its reading.
    pub fn restart(&mut self) {
        self.filter.restart();
    }
}
