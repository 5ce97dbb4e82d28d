//! Messages of a worker process to the process that started it: one JSON object per line.

use super::drive::Remaining;
use super::folder::Setting;
use super::units::Unit;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// Message of a worker. `R` is the caller's report on a drive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Message<R> {
    /// The driver is loaded, and the worker waits for permission to begin.
    Ready(Ready),
    Started {
        unit: Unit,
    },
    /// Current tick of the drive.
    Tick {
        tick: u64,
    },
    /// Report on a drive that has ended, with a result or without.
    Report(R),
    /// The result of the drive is written.
    Finished {
        unit: Unit,
    },
    /// The worker has no more drives.
    Ended(Remaining),
    /// The worker cannot continue.
    Failed(RemoteError),
}

/// Properties of the loaded driver.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ready {
    pub settings: Vec<Setting>,
    /// One icon name per declared sensor.
    pub sensors: Vec<String>,
    /// Library and version that run the networks; `None` for a driver without networks.
    pub backend: Option<String>,
}

/// Error of another process, with its causes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteError {
    message: String,
    cause: Option<Box<RemoteError>>,
}

impl RemoteError {
    /// Copies the messages of `error` and of its causes.
    pub fn new(error: &(dyn Error + 'static)) -> Self {
        let cause = error.source().map(|source| Box::new(Self::new(source)));
        Self { message: error.to_string(), cause }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause.as_ref() as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serialized_error_keeps_its_causes() {
        let cause = std::io::Error::other("disk full");
        let error = super::super::CampaignError::Folder { path: "results".into(), source: cause };
        let line = serde_json::to_string(&RemoteError::new(&error)).unwrap();
        let read: RemoteError = serde_json::from_str(&line).unwrap();
        assert_eq!(read.to_string(), error.to_string());
        assert_eq!(read.source().unwrap().to_string(), "disk full");
        assert!(read.source().unwrap().source().is_none());
    }
}
