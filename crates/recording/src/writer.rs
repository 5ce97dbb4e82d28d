//! Writes recordings tick by tick.

use super::channels::{Content, Kind, OBSERVATION_OF_CAMERAS, WRITTEN};
use super::{MAX_MESSAGE_BYTES, RecordingError, foxglove, layout, nanos};
use mcap::records::MessageHeader;
use mcap::{Compression, McapError, Message, WriteOptions, Writer};
use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use tandem_files::AtomicFile;
use tandem_scene::{CameraId, Cameras, Observation, RoutePlan, SensorSuite};

/// Writes a recording tick by tick. The file appears under its name when
/// [`RecordingWriter::finish`] succeeds.
pub struct RecordingWriter {
    output: Output,
    channels: [u16; WRITTEN.len()],
    /// Channels of images and of calibrations of all cameras except the front one.
    others: Cameras<[u16; 2]>,
    tick: u64,
    buffer: Vec<u8>,
}

impl RecordingWriter {
    /// Creates a recording of a drive along `plan` with the sensors of `suite`.
    pub fn create(
        path: &Path,
        plan: &RoutePlan,
        suite: &SensorSuite,
    ) -> Result<Self, RecordingError> {
        let mut output = Output::create(path)?;
        let mut channels = [0; WRITTEN.len()];
        let mut others = Cameras::NONE;
        for (id, _) in suite.cameras.iter().filter(|(id, _)| *id != CameraId::FRONT) {
            others.insert(id, [0; 2]).expect("camera names of a suite are unique");
        }
        for (channel, kind) in channels.iter_mut().zip(&WRITTEN) {
            let is_of_cameras = kind.content == Content::Observation && !others.is_empty();
            let kind = if is_of_cameras { &OBSERVATION_OF_CAMERAS } else { kind };
            *channel = output.add(kind, CameraId::FRONT)?;
        }
        for (idx, content) in [Content::Camera, Content::Calibration].into_iter().enumerate() {
            let kind = WRITTEN.iter().find(|kind| kind.content == content);
            let kind = kind.expect("every written content has a channel");
            for (id, _) in suite.cameras.iter().filter(|(id, _)| *id != CameraId::FRONT) {
                others.get_mut(id).expect("inserted above")[idx] = output.add(kind, id)?;
            }
        }
        let mut writer = Self { output, channels, others, tick: 0, buffer: Vec::new() };
        layout::encode_plan(plan, &mut writer.buffer);
        writer.put(Content::Plan, CameraId::FRONT, 0)?;
        foxglove::encode_mounts(suite, &mut writer.buffer);
        writer.put(Content::Mounts, CameraId::FRONT, 0)?;
        for (id, camera) in suite.cameras.iter() {
            foxglove::encode_calibration(id, camera, &mut writer.buffer);
            writer.put(Content::Calibration, id, 0)?;
        }
        writer.output.end_chunk()?;
        Ok(writer)
    }

    /// Appends a tick without its ground truth. After this returns, [`recover`](super::recover) can
    /// restore the tick from the unfinished file if this process is killed.
    ///
    /// # Errors
    /// If the file can't be written, or an image or sweep is larger than [`MAX_MESSAGE_BYTES`].
    ///
    /// # Panics
    /// If ticks are not ascending, the number of bytes of an image does not match its size, or its
    /// camera is not in the recording's sensor suite.
    pub fn write(&mut self, observation: &Observation) -> Result<(), RecordingError> {
        let tick = observation.frame.0;
        assert!(tick > self.tick, "tick {tick} comes after tick {}", self.tick);
        self.tick = tick;
        let time_ns = nanos(observation.time);
        for (id, camera) in observation.cameras.iter() {
            foxglove::encode_camera(id, camera, &mut self.buffer);
            self.put(Content::Camera, id, time_ns)?;
        }
        if let Some(lidar) = &observation.lidar {
            foxglove::encode_lidar(observation.time, lidar, &mut self.buffer);
            self.put(Content::Lidar, CameraId::FRONT, time_ns)?;
        }
        layout::encode_observation(observation, &mut self.buffer);
        if !self.others.is_empty() {
            layout::encode_cameras(observation, &mut self.buffer);
        }
        self.put(Content::Observation, CameraId::FRONT, time_ns)?;
        self.output.end_chunk()
    }

    /// Completes the recording and returns its size in bytes.
    pub fn finish(self) -> Result<u64, RecordingError> {
        self.output.finish()
    }

    /// Keeps the unfinished file under its temporary name after an error of
    /// [`RecordingWriter::write`], and returns that name.
    pub fn leave(self) -> io::Result<PathBuf> {
        self.output.leave()
    }

    /// Writes the buffer as a message and clears it. `camera` is the front camera for contents that
    /// do not belong to a camera.
    fn put(
        &mut self,
        content: Content,
        camera: CameraId,
        time_ns: u64,
    ) -> Result<(), RecordingError> {
        if self.buffer.len() > MAX_MESSAGE_BYTES {
            let (tick, bytes) = (self.tick, self.buffer.len());
            let reason = format!(
                "a message of tick {tick} has {bytes} bytes, but a message of a recording holds at \
                 most {MAX_MESSAGE_BYTES}"
            );
            return Err(RecordingError::Write { path: self.output.path.clone(), reason });
        }
        let is_of = |kind: &Kind| kind.content == content;
        let idx = WRITTEN.iter().position(is_of).expect("every written content has a channel");
        let channel_id = match camera {
            CameraId::FRONT => self.channels[idx],
            other => {
                let [images, calibrations] =
                    *self.others.get(other).expect("the camera is in the recording's suite");
                if content == Content::Camera { images } else { calibrations }
            }
        };
        let header = MessageHeader {
            channel_id,
            sequence: self.tick as u32,
            log_time: time_ns,
            publish_time: time_ns,
        };
        self.output.put(&header, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// MCAP file that appears under its name when it is finished.
pub(super) struct Output {
    path: PathBuf,
    writer: Writer<BufWriter<AtomicFile>>,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self, RecordingError> {
        let options = WriteOptions::new()
            .compression(Some(Compression::Zstd))
            // No worker threads.
            .compression_threads(0)
            // Chunks end with ticks.
            .chunk_size(None)
            .profile("tandem.recording");
        let open = || Writer::with_options(BufWriter::new(AtomicFile::create(path)?), options);
        match open() {
            Ok(writer) => Ok(Self { path: path.to_owned(), writer }),
            Err(error) => Err(unwritable(path, &error)),
        }
    }

    /// Adds a channel. `camera` is the front camera for kinds that do not belong to a camera.
    fn add(&mut self, kind: &Kind, camera: CameraId) -> Result<u16, RecordingError> {
        let (name, encoding, data) = kind.schema();
        let mut add = || {
            let schema = self.writer.add_schema(name, encoding, &data)?;
            let encoding = kind.message_encoding();
            self.writer.add_channel(schema, &kind.topic_of(camera), encoding, &BTreeMap::new())
        };
        add().map_err(|error| unwritable(&self.path, &error))
    }

    fn put(&mut self, header: &MessageHeader, data: &[u8]) -> Result<(), RecordingError> {
        let written = self.writer.write_to_known_channel(header, data);
        written.map_err(|error| unwritable(&self.path, &error))
    }

    /// Writes a message of another file, with its channel.
    pub(super) fn copy(&mut self, message: &Message<'_>) -> Result<(), RecordingError> {
        self.writer.write(message).map_err(|error| unwritable(&self.path, &error))
    }

    /// Ends a chunk and writes it to the file.
    pub(super) fn end_chunk(&mut self) -> Result<(), RecordingError> {
        self.writer.flush().map_err(|error| unwritable(&self.path, &error))
    }

    /// Completes the file and returns its size in bytes.
    pub(super) fn finish(mut self) -> Result<u64, RecordingError> {
        let path = self.path;
        let close = || -> Result<u64, McapError> {
            self.writer.finish()?;
            let file =
                self.writer.into_inner().into_inner().map_err(io::IntoInnerError::into_error)?;
            let bytes = file.size()?;
            file.publish()?;
            Ok(bytes)
        };
        close().map_err(|error| unwritable(&path, &error))
    }

    fn leave(self) -> io::Result<PathBuf> {
        // The buffered data belongs to an incomplete tick and is dropped.
        self.writer.into_inner().into_parts().0.leave()
    }
}

fn unwritable(path: &Path, error: &McapError) -> RecordingError {
    RecordingError::Write { path: path.to_owned(), reason: write_error_message(error) }
}

/// Returns the reason why an MCAP file can't be written: the operating system's message, if any.
pub fn write_error_message(error: &McapError) -> String {
    match error {
        McapError::Io(source) => source.to_string(),
        other => other.to_string(),
    }
}
