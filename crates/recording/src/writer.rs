//! Writing a recording tick by tick.

use super::channels::{Content, Kind, OF_CAMERAS, WRITTEN};
use super::{LARGEST_MESSAGE, RecordingError, foxglove, layout, nanos};
use mcap::records::MessageHeader;
use mcap::{Compression, McapError, Message, WriteOptions, Writer};
use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use tandem_files::WholeFile;
use tandem_scene::{CameraId, Cameras, Observation, RoutePlan, SensorSuite};

/// Writes a recording, tick by tick. The file appears when [`RecordingWriter::finish`] succeeds.
pub struct RecordingWriter {
    output: Output,
    channels: [u16; WRITTEN.len()],
    /// Channels of pictures and calibrations of cameras other than the front one.
    others: Cameras<[u16; 2]>,
    tick: u64,
    buffer: Vec<u8>,
}

impl RecordingWriter {
    /// Begins a recording of a drive on `plan` with the sensors of `suite`.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn create(
        path: &Path,
        plan: &RoutePlan,
        suite: &SensorSuite,
    ) -> Result<Self, RecordingError> {
        let mut output = Output::create(path)?;
        let mut channels = [0; WRITTEN.len()];
        let mut others = Cameras::NONE;
        for (id, _) in suite.cameras.iter().filter(|(id, _)| *id != CameraId::FRONT) {
            others.insert(id, [0; 2]).expect("names of a suite differ");
        }
        for (channel, kind) in channels.iter_mut().zip(&WRITTEN) {
            let is_of_cameras = kind.content == Content::Observation && !others.is_empty();
            let kind = if is_of_cameras { &OF_CAMERAS } else { kind };
            *channel = output.add(kind, CameraId::FRONT)?;
        }
        for (place, content) in [Content::Camera, Content::Calibration].into_iter().enumerate() {
            let kind = WRITTEN.iter().find(|kind| kind.content == content);
            let kind = kind.expect("what is written has a channel");
            for (id, _) in suite.cameras.iter().filter(|(id, _)| *id != CameraId::FRONT) {
                others.get_mut(id).expect("it was inserted")[place] = output.add(kind, id)?;
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

    /// Adds a tick; its truth is left out. When this returns, the tick is in the unfinished file,
    /// from which [`recover`](super::recover) takes it if this process is killed.
    ///
    /// # Errors
    /// If the disk refuses, or a picture or a sweep is larger than [`LARGEST_MESSAGE`].
    ///
    /// # Panics
    /// If ticks do not ascend, a picture does not have the bytes that its size says, or it is of a camera
    /// that the recording's suite does not name.
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

    /// Ends the recording; returns its size in bytes.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn finish(self) -> Result<u64, RecordingError> {
        self.output.finish()
    }

    /// Leaves the unfinished file under its temporary name, which is returned, after an error of
    /// [`RecordingWriter::write`].
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn leave(self) -> io::Result<PathBuf> {
        self.output.leave()
    }

    /// Writes what is in the buffer, and empties it; `camera` is the one that it is of, where it is.
    fn put(
        &mut self,
        content: Content,
        camera: CameraId,
        time_ns: u64,
    ) -> Result<(), RecordingError> {
        if self.buffer.len() > LARGEST_MESSAGE {
            let (tick, bytes) = (self.tick, self.buffer.len());
            let reason = format!(
                "a message of tick {tick} has {bytes} bytes, a recording holds at most \
                 {LARGEST_MESSAGE} in one"
            );
            return Err(RecordingError::Write { path: self.output.path.clone(), reason });
        }
        let is_of = |kind: &Kind| kind.content == content;
        let place = WRITTEN.iter().position(is_of).expect("what is written has a channel");
        let channel_id = match camera {
            CameraId::FRONT => self.channels[place],
            other => {
                let [pictures, calibrations] =
                    *self.others.get(other).expect("the recording's suite names the camera");
                if content == Content::Camera { pictures } else { calibrations }
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

/// An MCAP file of chunks that appears when it is finished.
pub(super) struct Output {
    path: PathBuf,
    writer: Writer<BufWriter<WholeFile>>,
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
        let open = || Writer::with_options(BufWriter::new(WholeFile::create(path)?), options);
        match open() {
            Ok(writer) => Ok(Self { path: path.to_owned(), writer }),
            Err(error) => Err(unwritable(path, &error)),
        }
    }

    /// Adds a channel; `camera` is the one that it is of, where it is.
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

    /// Ends a chunk and hands it to the system.
    pub(super) fn end_chunk(&mut self) -> Result<(), RecordingError> {
        self.writer.flush().map_err(|error| unwritable(&self.path, &error))
    }

    /// Ends the file; returns its size in bytes.
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
        // What is still in the buffer is of a tick that is incomplete.
        self.writer.into_inner().into_parts().0.leave()
    }
}

fn unwritable(path: &Path, error: &McapError) -> RecordingError {
    RecordingError::Write { path: path.to_owned(), reason: refusal(error) }
}

/// Why an MCAP file cannot be written: the reason of the system, where there is one.
pub fn refusal(error: &McapError) -> String {
    match error {
        McapError::Io(source) => source.to_string(),
        other => other.to_string(),
    }
}
