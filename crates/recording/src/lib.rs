//! Sensor recordings: the observations of a driver on a route, tick by tick, in an MCAP file.
//!
//! Each tick is one chunk, compressed with zstd and checked by CRC. Ground truth is not
//! recorded: a driver that runs on a recording receives only sensor data. Foxglove displays
//! images and LiDAR sweeps at their mounts (`foxglove.rs`). Tandem's own messages are
//! little-endian and packed; the schema of each channel describes its layout as text. Floats are
//! stored as IEEE 754 bits, so values are read back exactly, NaN included. Times in the file are
//! nanoseconds since the start of the route.
//!
//! | topic | schema | messages |
//! |---|---|---|
//! | `/plan` | `tandem.RoutePlan/1` | one, first in the file |
//! | `/tf` | `foxglove.FrameTransforms` | one: `ego` to `camera` and to `lidar` |
//! | `/camera/calibration` | `foxglove.CameraCalibration` | one, if there is a camera |
//! | `/camera` | `foxglove.RawImage` | one before each observation with a camera frame |
//! | `/cameras/NAME/calibration`, `/cameras/NAME` | the same | of every camera except `front` |
//! | `/lidar` | `foxglove.PointCloud` | one before each observation with a sweep |
//! | `/observation` | `tandem.Observation/2`, or `/3` if there are other cameras than `front` | one per tick, after its camera frames and its sweep |
//!
//! Every message has the log time of its observation and the lower 32 bits of its tick as
//! sequence number. Recordings of version 1, with images and sweeps in tandem's own layouts, and
//! chunks in LZ4 are also read.
//!
//! Writing and reading keep one chunk and one observation in memory, independent of the
//! length of the recording; [`Recording::read`] keeps all of it. Chunks are complete or
//! missing, so the file of a killed writer has all ticks except the last one, and [`recover`]
//! makes a valid recording of them.

mod channels;
mod descriptors;
mod foxglove;
mod layout;
mod messages;
mod reader;
mod recovery;
mod writer;

pub use reader::RecordingReader;
pub use recovery::{Loss, Recovery, recover};
pub use writer::RecordingWriter;
pub use writer::write_error_message;

use std::io;
use std::path::{Path, PathBuf};
use tandem_scene::{Observation, RoutePlan};
use tandem_timing::Timestamp;

/// Maximum size of a message that is written or read, bytes: a camera image of 11 million pixels.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// Recording in memory: 1.6 MB per tick of AutoMoT's sensors, 2 GB per minute. [`RecordingReader`]
/// reads longer ones tick by tick.
pub struct Recording {
    pub plan: RoutePlan,
    /// One observation per tick, in order.
    pub observations: Vec<Observation>,
}

/// Error returned when a recording can't be read, written or recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("cannot read recording {path:?}: {source}; `tandem record` writes one")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Not an MCAP file, or truncated or damaged.
    #[error(
        "{path:?} is not a complete recording: {reason}; record it again, or keep its ticks before \
         the damage with `tandem record --recover`"
    )]
    File { path: PathBuf, reason: String },
    /// An MCAP file with other channels.
    #[error("{path:?} is not a recording that this version of tandem reads: {reason}")]
    Channel { path: PathBuf, reason: String },
    /// A message is not valid, or does not match earlier ones.
    #[error("{path:?}: {topic} message after tick {tick}: {reason}")]
    Message {
        path: PathBuf,
        topic: String,
        /// Last complete tick; 0 before the first.
        tick: u64,
        reason: String,
    },
    /// The damage precedes the plan.
    #[error("nothing of {path:?} can be recovered, not even its plan: {reason}; record it again")]
    Lost { path: PathBuf, reason: String },
    #[error("{path:?} is still being written by another process")]
    InUse { path: PathBuf },
    #[error("cannot write recording {path:?}: {reason}")]
    Write { path: PathBuf, reason: String },
}

impl Recording {
    /// Reads a complete recording.
    ///
    /// # Errors
    /// If the file is missing, damaged, or not a recording.
    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        let mut reader = RecordingReader::open(path)?;
        let observations = reader.by_ref().collect::<Result<_, _>>()?;
        Ok(Self { plan: reader.into_plan(), observations })
    }
}

fn nanos(time: Timestamp) -> u64 {
    time.since(Timestamp::ZERO).as_nanos() as u64
}
