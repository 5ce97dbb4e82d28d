//! Where the vehicle is: satellite, compass and speedometer through the state filter.

use super::gnss::{world_from_gnss, yaw_from_compass};
use super::{FilterError, StateFilter, StateFilterConfig, VehicleState};
use crate::scene::{Command, GeoReference, Observation, Pose};

/// Estimates the pose tick by tick.
pub struct Localizer {
    filter: StateFilter,
    reference: GeoReference,
}

impl Localizer {
    /// A localizer at the start of a route on a map with this reference.
    pub fn new(config: StateFilterConfig, reference: GeoReference) -> Self {
        Self { filter: StateFilter::new(config), reference }
    }

    /// `world_from_ego` at this tick; `last_command` is the one sent at the tick before.
    ///
    /// # Errors
    /// If the filter's estimate broke down; call [`restart`](Self::restart) and go on.
    pub fn update(
        &mut self,
        observation: &Observation,
        last_command: &Command,
    ) -> Result<Pose, FilterError> {
        let place = world_from_gnss(&observation.gnss, &self.reference);
        let yaw_rad = yaw_from_compass(observation.imu.compass_rad);
        let reading = VehicleState {
            pose: Pose { position: place.truncate(), yaw_rad },
            speed_mps: observation.speed_mps,
        };
        Ok(self.filter.update(&reading, last_command)?.pose)
    }

    /// Forgets everything: the next update starts at its reading.
    pub fn restart(&mut self) {
        self.filter.restart();
    }
}
