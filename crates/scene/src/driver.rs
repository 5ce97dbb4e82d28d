//! The interface of drivers, through which worlds run models.

use super::{Control, Observation};

/// Computes the control of a vehicle from observations.
pub trait Driver {
    /// Computes the control for one tick.
    ///
    /// # Errors
    /// If the driver cannot continue; the route ends and its agent counts as crashed.
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError>;
}

/// Error returned when a driver cannot continue.
#[derive(Debug, thiserror::Error)]
#[error("the driver failed at frame {frame}")]
pub struct DriveError {
    pub frame: u64,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl<D: Driver + ?Sized> Driver for Box<D> {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        (**self).drive(observation)
    }
}
