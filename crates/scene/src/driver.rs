//! The one interface between models and worlds.

use super::{Control, Observation};

/// Anything that drives.
pub trait Driver {
    /// Answers one tick.
    ///
    /// # Errors
    /// If the driver can't go on; the route ends with its agent counted as crashed.
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError>;
}

/// A driver gave up.
#[derive(Debug, thiserror::Error)]
#[error("the driver failed at frame {frame}")]
pub struct DriveError {
    /// The tick it failed at.
    pub frame: u64,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl<D: Driver + ?Sized> Driver for Box<D> {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        (**self).drive(observation)
    }
}
