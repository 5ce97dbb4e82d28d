//! Recorded observations: what a driver saw on a route, in a file that can be looked at tick by tick.
//!
//! A recording is an MCAP file of chunks that are compressed with zstd and checked by CRC, one a tick.
//! Truth is not recorded: whoever drives on a recording sees what sensors see. Foxglove shows
//! pictures and sweeps, in place (`foxglove.rs`). Numbers of our own messages are little-endian, one
//! after the other without gaps; their layout stands in the file, as the schema of each channel.
//! f64 and f32 are IEEE bits, so what is read is what was written, NaN included. The file's times
//! are nanoseconds since the route began.
//!
//! | topic | schema | messages |
//! |---|---|---|
//! | `/plan` | `tandem.RoutePlan/1` | one, first in the file |
//! | `/tf` | `foxglove.FrameTransforms` | one: `ego` to `camera` and to `lidar` |
//! | `/camera/calibration` | `foxglove.CameraCalibration` | one, if there is a camera |
//! | `/camera` | `foxglove.RawImage` | one before each observation that has a camera frame |
//! | `/cameras/NAME/calibration`, `/cameras/NAME` | the same | of every camera but the one named `front` |
//! | `/lidar` | `foxglove.PointCloud` | one before each observation that has a sweep |
//! | `/observation` | `tandem.Observation/2`, or `/3` where there are other cameras than `front` | one a tick, after its camera frames and its sweep |
//!
//! Every message's log time is its observation's, and its sequence number the lower half of its
//! tick. Version 1, whose pictures and sweeps are in layouts of our own, and chunks in LZ4 are read as
//! well.
//!
//! Writing and reading hold one chunk and one observation in memory, however long the recording is;
//! [`Recording::read`] holds all of it. A chunk in the file is whole or not there, so what a killed
//! writer leaves has all its ticks but the last, and [`recover`] makes a recording of them.

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
pub use writer::refusal;

use std::io;
use std::path::{Path, PathBuf};
use tandem_scene::{Observation, RoutePlan};
use tandem_timing::Timestamp;

/// The largest message that is written or read: a camera picture of eleven million pixels.
pub const LARGEST_MESSAGE: usize = 32 << 20;

/// A recording that is held in memory: 1.6 MB for each tick of AutoMoT's sensors, 2 GB a minute.
/// Longer ones are read with [`RecordingReader`].
pub struct Recording {
    /// The dense route.
    pub plan: RoutePlan,
    /// The ticks in their order.
    pub observations: Vec<Observation>,
}

/// A recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be opened.
    #[error("cannot read recording {path:?}: {source}; `tandem record` writes one")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not an MCAP file, or not a whole one.
    #[error(
        "{path:?} is not a whole recording: {reason}; record it again, or keep its ticks before \
         the damage with `tandem record --recover`"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It holds something else than a recording.
    #[error("{path:?} is not a recording that this tandem reads: {reason}")]
    Channel {
        /// The file.
        path: PathBuf,
        /// What is wrong, and with which channel.
        reason: String,
    },
    /// A message contradicts itself or the ones before it.
    #[error("{path:?}: {topic} message behind tick {tick}: {reason}")]
    Message {
        /// The file.
        path: PathBuf,
        /// Its channel.
        topic: String,
        /// The last tick that was whole; 0 before the first.
        tick: u64,
        /// What is wrong.
        reason: String,
    },
    /// Nothing of it can be recovered.
    #[error("nothing of {path:?} can be recovered, not even its plan: {reason}; record it again")]
    Lost {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be recovered yet.
    #[error("{path:?} is still being written by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write recording {path:?}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Recording {
    /// Reads all of a recording and checks that it is whole.
    ///
    /// # Errors
    /// If it is missing, damaged, or not a recording.
    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        let mut reader = RecordingReader::open(path)?;
        let observations = reader.by_ref().collect::<Result<_, _>>()?;
        Ok(Self { plan: reader.into_plan(), observations })
    }
}

fn nanos(time: Timestamp) -> u64 {
    time.since(Timestamp::ZERO).as_nanos() as u64
}
