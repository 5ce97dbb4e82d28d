//! Worlds to drive in: they give observations, take commands, and know the truth that criteria judge.
//!
//! A world knows no model and no score. The autopilot lives here because it is privileged: it reads
//! the truth that a world gives only to those who ask for it; so do the bad drivers that its scores
//! are held against.

pub mod autopilot;
mod baselines;
pub mod embedded;
mod real_time;
mod recording;
pub mod xml_text;

pub use autopilot::Autopilot;
pub use baselines::{ConstantSpeed, Idle};
pub use embedded::{EmbeddedWorld, MapError, RoadError, StreetMap};
pub use real_time::RealTime;
pub(crate) use recording::refusal as mcap_refusal;
pub use recording::{
    LARGEST_MESSAGE, Loss, Recording, RecordingError, RecordingReader, RecordingWriter, Recovery,
    recover,
};
