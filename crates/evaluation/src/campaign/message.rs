//! Messages of a worker process to the process that started it: one JSON object a line.

use super::drive::Share;
use super::folder::Setting;
use super::units::Unit;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// What a worker tells. `R` is what the caller's drives report beside their results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Message<R> {
    /// Everything is loaded; it waits for the word to begin.
    Ready(Ready),
    /// It begins this drive.
    Started { unit: Unit },
    /// It is at this tick of it.
    Tick { tick: u64 },
    /// A drive has ended, with a result or without.
    Report(R),
    /// It wrote the result of this drive.
    Finished { unit: Unit },
    /// It has nothing more to drive.
    Ended(Share),
    /// It cannot go on.
    Failed(RemoteError),
}

/// What only a process that loaded the driver knows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// What is run, setting by setting.
    pub settings: Vec<Setting>,
    /// One icon name per declared sensor.
    pub sensors: Vec<String>,
    /// Library and version that run the networks, if the driver has any.
    pub backend: Option<String>,
}

/// An error of another process, with its causes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteError {
    message: String,
    cause: Option<Box<RemoteError>>,
}

impl RemoteError {
    /// The words of `error` and of its causes.
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
    fn an_error_keeps_its_causes_on_the_way() {
        let cause = std::io::Error::other("disk full");
        let error = super::super::CampaignError::Folder { path: "results".into(), source: cause };
        let line = serde_json::to_string(&RemoteError::new(&error)).unwrap();
        let read: RemoteError = serde_json::from_str(&line).unwrap();
        assert_eq!(read.to_string(), error.to_string());
        assert_eq!(read.source().unwrap().to_string(), "disk full");
        assert!(read.source().unwrap().source().is_none());
    }
}
