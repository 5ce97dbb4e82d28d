//! Errors of devices.

use std::fmt;

/// Error returned by a device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "no NVIDIA driver on this machine ({reason}); install one (nvidia-smi must run), or set \
         `device: cpu` in the run file"
    )]
    NoDriver { reason: String },
    #[error(
        "the NVIDIA driver supports CUDA {found}, tandem needs {needed} or later; update the driver, \
         or set `device: cpu` in the run file"
    )]
    DriverTooOld { found: String, needed: String },
    #[error(
        "GPU {ordinal} does not exist on this machine (number of GPUs: {found}); set another one \
         (`device: cuda:N`) or `device: cpu` in the run file"
    )]
    NoDevice { ordinal: usize, found: usize },
    #[error("this build of tandem cannot use {what}; build it with `--features {feature}`")]
    NotBuilt { what: &'static str, feature: &'static str },
    #[error(
        "{device} does not have {requested} bytes of memory left ({free} free); end other programs on it, \
         or use a smaller prefix capacity or precision"
    )]
    OutOfMemory {
        device: String,
        requested: usize,
        /// Free memory as text, or that it is unknown.
        free: String,
    },
    #[error("{device} was lost: {reason}; restart the program and see the system log (dmesg)")]
    Lost {
        device: String,
        /// The driver's message.
        reason: String,
    },
    #[error("{what} failed: {reason}")]
    Failed {
        what: String,
        /// The driver's or library's message.
        reason: String,
    },
    #[error("this {0} belongs to another device")]
    Foreign(Object),
    /// A call that the state of a stream, an event or memory does not allow.
    #[error("{0}")]
    Misuse(&'static str),
}

/// Kind of an object that belongs to one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    Buffer,
    Stream,
    Event,
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
