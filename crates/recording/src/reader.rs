//! Reads recordings tick by tick.

use super::channels::{self, Content, Kind, kind_of};
use super::messages::Messages;
use super::{MAX_MESSAGE_BYTES, RecordingError, foxglove, layout};
use mcap::sans_io::linear_reader::LinearReaderOptions;
use mcap::{McapError, Message};
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_files::shortened_error;
use tandem_scene::{
    CameraFrame, CameraId, Cameras, CamerasError, FrameId, LidarSweep, Observation, RoutePlan,
};

/// Reads a recording tick by tick. The last item is an error if the file is damaged or truncated.
pub struct RecordingReader {
    messages: Messages<BufReader<File>>,
    plan: RoutePlan,
    ticks: Ticks,
    has_ended: bool,
}

impl RecordingReader {
    /// Opens a recording and reads its plan.
    ///
    /// # Errors
    /// If the file is missing, damaged before the end of its plan, or not a recording.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path)
            .map_err(|source| RecordingError::Open { path: path.to_owned(), source })?;
        let mut messages = messages_of(file);
        let (plan, _) = first_message(path, &mut messages)?;
        Ok(Self { messages, plan, ticks: Ticks::new(path), has_ended: false })
    }

    /// Returns the dense route of the drive.
    pub fn plan(&self) -> &RoutePlan {
        &self.plan
    }

    /// Consumes the reader and returns the dense route.
    pub fn into_plan(self) -> RoutePlan {
        self.plan
    }

    /// Returns the next tick; `None` at the end of a complete file.
    fn tick(&mut self) -> Result<Option<Observation>, RecordingError> {
        for message in self.messages.by_ref() {
            let message = message.map_err(|error| damaged(&self.ticks.path, &error))?;
            if let Some(observation) = self.ticks.take(&message)? {
                return Ok(Some(observation));
            }
        }
        self.ticks.end().map(|()| None)
    }
}

impl Iterator for RecordingReader {
    type Item = Result<Observation, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let tick = self.tick().transpose();
        self.has_ended = !matches!(tick, Some(Ok(_)));
        tick
    }
}

/// Returns the messages of a file. All checksums of the file are verified.
pub(super) fn messages_of(file: File) -> Messages<BufReader<File>> {
    let options = LinearReaderOptions::default()
        .with_check_finishes_after_end_magic(true)
        .with_prevalidate_chunk_crcs(true)
        .with_validate_data_section_crc(true)
        .with_validate_summary_section_crc(true)
        .with_record_length_limit(2 * MAX_MESSAGE_BYTES);
    Messages::new(BufReader::new(file), options)
}

/// Reads the first message, which must be the plan.
pub(super) fn first_message(
    path: &Path,
    messages: &mut Messages<BufReader<File>>,
) -> Result<(RoutePlan, Message<'static>), RecordingError> {
    let foreign = |reason: String| RecordingError::Channel { path: path.to_owned(), reason };
    let first = match messages.next() {
        None => {
            let reason = "it contains no message; a recording begins with its /plan".to_owned();
            return Err(foreign(reason));
        }
        Some(message) => message.map_err(|error| damaged(path, &error))?,
    };
    if kind_of(&first.channel).map_err(foreign)?.0.content != Content::Plan {
        let reason = "channel /plan is missing; a recording begins with its route plan".to_owned();
        return Err(foreign(reason));
    }
    let topic = channels::PLAN.to_owned();
    let plan = layout::decode_plan(&first.data).map_err(|reason| RecordingError::Message {
        path: path.to_owned(),
        topic,
        tick: 0,
        reason,
    })?;
    Ok((plan, first))
}

pub(super) fn damaged(path: &Path, error: &McapError) -> RecordingError {
    let reason = match error {
        McapError::BadMagic => "it does not begin and end as an MCAP file".to_owned(),
        McapError::UnexpectedEof | McapError::UnexpectedEoc => {
            format!("{error}; was writing it interrupted?")
        }
        error => shortened_error(error),
    };
    RecordingError::File { path: path.to_owned(), reason }
}

/// Builds observations from messages.
pub(super) struct Ticks {
    path: PathBuf,
    /// Last complete tick; 0 before the first.
    tick: u64,
    cameras: Cameras<(Belonging, CameraFrame)>,
    lidar: Option<(Belonging, LidarSweep)>,
}

/// Observation that an image or sweep belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Belonging {
    /// Its tick, in recordings of version 1.
    Tick(u64),
    /// The lower 32 bits of its tick.
    Sequence(u32),
}

impl fmt::Display for Belonging {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick(tick) => write!(out, "tick {tick}"),
            Self::Sequence(sequence) => write!(out, "sequence number {sequence}"),
        }
    }
}

impl Ticks {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), tick: 0, cameras: Cameras::NONE, lidar: None }
    }

    /// Processes the next message; returns an observation if it completes one.
    pub(super) fn take(
        &mut self,
        message: &Message<'_>,
    ) -> Result<Option<Observation>, RecordingError> {
        let (kind, camera) = kind_of(&message.channel)
            .map_err(|reason| RecordingError::Channel { path: self.path.clone(), reason })?;
        self.complete(kind, camera, message)
            .map_err(|reason| self.message_error(&kind.topic_of(camera), reason))
    }

    /// Checks that no observation is incomplete at the end of the messages.
    pub(super) fn end(&self) -> Result<(), RecordingError> {
        if !self.cameras.is_empty() || self.lidar.is_some() {
            return Err(self.message_error(channels::OBSERVATION, "it is missing".to_owned()));
        }
        Ok(())
    }

    fn complete(
        &mut self,
        kind: &Kind,
        camera: CameraId,
        message: &Message<'_>,
    ) -> Result<Option<Observation>, String> {
        let data = &message.data[..];
        let sequence = Belonging::Sequence(message.sequence);
        match kind.content {
            Content::Plan => return Err("this is the second one".to_owned()),
            Content::Mounts | Content::Calibration => {}
            Content::Camera => {
                self.put_camera(camera, (sequence, foxglove::decode_camera(data)?))?;
            }
            Content::Lidar => put(&mut self.lidar, (sequence, foxglove::decode_lidar(data)?))?,
            Content::FirstCamera => {
                let (tick, image) = layout::decode_first_camera(data)?;
                self.put_camera(camera, (Belonging::Tick(tick), image))?;
            }
            Content::FirstLidar => {
                let (tick, lidar) = layout::decode_first_lidar(data)?;
                put(&mut self.lidar, (Belonging::Tick(tick), lidar))?;
            }
            Content::Observation => {
                let (rest, cameras, ended) = layout::decode_observation(data)?;
                return self.at_ticks(rest, &cameras, ended).map(Some);
            }
            Content::ObservationOfCameras => {
                let (rest, cameras, ended) = layout::decode_observation_of_cameras(data)?;
                return self.at_ticks(rest, &cameras, ended).map(Some);
            }
            Content::FirstObservation => {
                let rest = layout::decode_first_observation(data)?;
                let of = Belonging::Tick(rest.observation.frame.0);
                let ids = rest.has_camera.then_some(CameraId::FRONT);
                return self.assemble(rest, of, ids.into_iter()).map(Some);
            }
        }
        Ok(None)
    }

    /// Stores an image for its observation.
    fn put_camera(&mut self, id: CameraId, of: (Belonging, CameraFrame)) -> Result<(), String> {
        self.cameras.insert(id, of).map_err(|error| match error {
            CamerasError::Twice(_) => "there are two of one tick".to_owned(),
            CamerasError::TooMany(_) => error.to_string(),
        })
    }

    /// Assembles an observation with its images and sweep. `cameras` contains the capture ticks of
    /// the images; the sweep ended at `ended`.
    fn at_ticks(
        &mut self,
        rest: layout::Rest,
        cameras: &Cameras<FrameId>,
        ended: FrameId,
    ) -> Result<Observation, String> {
        for (id, taken) in cameras.iter() {
            if let Some((_, image)) = self.cameras.get_mut(id) {
                image.id = *taken;
            }
        }
        if let Some((_, lidar)) = &mut self.lidar {
            lidar.id = ended;
        }
        let of = Belonging::Sequence(rest.observation.frame.0 as u32);
        self.assemble(rest, of, cameras.iter().map(|(id, _)| id))
    }

    /// Assembles an observation with its images, of `cameras`, and its sweep,
    /// which must belong to `of`.
    fn assemble(
        &mut self,
        rest: layout::Rest,
        of: Belonging,
        cameras: impl Iterator<Item = CameraId>,
    ) -> Result<Observation, String> {
        let layout::Rest { mut observation, has_lidar, .. } = rest;
        let tick = observation.frame.0;
        if tick <= self.tick {
            return Err(format!("tick {tick} does not come after tick {}", self.tick));
        }
        let mut images: Vec<_> = std::mem::take(&mut self.cameras).into_iter().collect();
        for id in cameras {
            let idx = images.iter().position(|(name, _)| *name == id);
            let mut image = idx.map(|idx| images.swap_remove(idx).1);
            let topic = channels::camera_topic(id);
            let image = belonging(&topic, tick, of, true, &mut image)?;
            let image = image.expect("`belonging` returns an image that is expected");
            observation.cameras.insert(id, image).map_err(|error| error.to_string())?;
        }
        if let Some((id, image)) = images.pop() {
            belonging(&channels::camera_topic(id), tick, of, false, &mut Some(image))?;
        }
        observation.lidar = belonging(channels::LIDAR, tick, of, has_lidar, &mut self.lidar)?;
        self.tick = tick;
        Ok(observation)
    }

    fn message_error(&self, topic: &str, reason: String) -> RecordingError {
        let topic = topic.to_owned();
        RecordingError::Message { path: self.path.clone(), topic, tick: self.tick, reason }
    }
}

/// Stores a sweep for its observation.
fn put<T>(slot: &mut Option<T>, reading: T) -> Result<(), String> {
    match slot.replace(reading) {
        None => Ok(()),
        Some(_) => Err("there are two of one tick".to_owned()),
    }
}

/// Takes an image or sweep that belongs to `of`, the observation of `tick`. Returns an error if it
/// is missing although `is_expected`, present although not, or belongs to another observation.
fn belonging<T>(
    topic: &str,
    tick: u64,
    of: Belonging,
    is_expected: bool,
    reading: &mut Option<(Belonging, T)>,
) -> Result<Option<Arc<T>>, String> {
    match (is_expected, reading.take()) {
        (false, None) => Ok(None),
        (true, Some((found, reading))) if found == of => Ok(Some(Arc::new(reading))),
        (true, None) => Err(format!("the file lacks the {topic} message of tick {tick}")),
        (_, Some((found, _))) => Err(format!("tick {tick} follows a {topic} message of {found}")),
    }
}
