//! What can go wrong with a device.

use std::fmt;

/// A device cannot do what it was asked to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no driver.
    #[error(
        "there is no NVIDIA driver on this machine ({reason}); install it (nvidia-smi must run), or \
         let the run file say `device: cpu`"
    )]
    NoDriver {
        /// What was looked for.
        reason: String,
    },
    /// The driver is too old.
    #[error(
        "the NVIDIA driver is for CUDA {found}, tandem needs {needed} or later; update the driver, or \
         let the run file say `device: cpu`"
    )]
    DriverTooOld {
        /// CUDA version of the driver.
        found: String,
        /// The oldest that does.
        needed: String,
    },
    /// There is a driver and no device of that number.
    #[error(
        "there is no GPU {ordinal} on this machine (found: {found}); let the run \
         file name another (`device: cuda:N`), or let the run file say `device: cpu`"
    )]
    NoDevice {
        /// The number asked for.
        ordinal: usize,
        /// Devices found.
        found: usize,
    },
    /// This build has no code for the device.
    #[error("this build of tandem cannot use {what}; build it with `--features {feature}`")]
    NotBuilt {
        /// What was asked for.
        what: &'static str,
        /// The feature that it takes.
        feature: &'static str,
    },
    /// The memory is used up.
    #[error(
        "{device} has no {asked} bytes of memory left ({free} free); end other programs on it, or use \
         a smaller prefix capacity or precision"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        asked: usize,
        /// Bytes free, as the device says.
        free: String,
    },
    /// The device does not answer any more.
    #[error("{device} was lost: {reason}; start again, and look into the system's log (dmesg)")]
    Lost {
        /// The device.
        device: String,
        /// The driver's own words.
        reason: String,
    },
    /// Work failed.
    #[error("{what} failed: {reason}")]
    Failed {
        /// The work.
        what: String,
        /// The driver's or library's own words.
        reason: String,
    },
    /// A buffer, stream, event or graph of another device.
    #[error("this {0} belongs to another device")]
    Foreign(Object),
    /// A call that the state of a stream or event does not allow.
    #[error("{0}")]
    Misuse(&'static str),
}

/// Kind of an object that belongs to one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    /// A [`Buffer`](super::Buffer).
    Buffer,
    /// A [`Stream`](super::Stream).
    Stream,
    /// An [`Event`](super::Event).
    Event,
    /// A [`Graph`](super::Graph).
    Graph,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Buffer => "buffer",
            Self::Stream => "stream",
            Self::Event => "event",
            Self::Graph => "graph",
        })
    }
}
