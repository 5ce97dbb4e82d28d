//! Recorded observations: what a driver saw on a route, in a file that can be looked at tick by tick.
//!
//! A recording is an MCAP file of chunks that are compressed with zstd and checked by CRC, one a tick.
//! Chunks in LZ4 and larger ones, which earlier recordings have, are read as well. Truth is not
//! recorded: whoever drives on a recording sees what sensors see. Numbers are little-endian, one
//! behind the other without gaps; times are nanoseconds since the route began; f64 and f32 are IEEE
//! bits, so what is read is what was written, NaN included. The same words stand in the file, as
//! the schema of each channel.
//!
//! | topic | schema | messages |
//! |---|---|---|
//! | `/plan` | `tandem.RoutePlan/1` | one, first in the file |
//! | `/camera` | `tandem.CameraFrame/1` | one before each observation that has a camera frame |
//! | `/lidar` | `tandem.LidarSweep/1` | one before each observation that has a sweep |
//! | `/observation` | `tandem.Observation/1` | one a tick, behind its camera frame and its sweep |
//!
//! Every message's log time is its observation's. Writing and reading hold one chunk and one
//! observation in memory, however long the recording is; [`Recording::read`] holds all of it.

mod messages;

use self::messages::{Channel, Messages};
use crate::scene::{
    CameraFrame, FrameId, GeoReference, Gnss, Imu, LidarSweep, Observation, RoadOption, RoutePlan,
    RoutePoint,
};
use crate::timing::Timestamp;
use glam::DVec3;
use mcap::records::MessageHeader;
use mcap::sans_io::linear_reader::LinearReaderOptions;
use mcap::{Compression, McapError, WriteOptions, Writer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tandem_export::files::{WholeFile, shortened, shortened_error};

/// The largest message that is written or read: a camera picture of eleven million pixels.
pub const LARGEST_MESSAGE: usize = 32 << 20;

/// How all messages are encoded.
const ENCODING: &str = "tandem-le";

/// A kind of message.
struct Kind {
    topic: &'static str,
    schema: &'static str,
    /// The layout, in words.
    layout: &'static str,
}

const PLAN: Kind = Kind {
    topic: "/plan",
    schema: "tandem.RoutePlan/1",
    layout: "The dense route. Little-endian, packed.\n\
        f64 reference latitude, degrees\n\
        f64 reference longitude, degrees\n\
        u32 number of points, then each point:\n\
        f64 x east, f64 y south, f64 z up, meters in the world\n\
        f64 heading, radians, clockwise from x seen from above\n\
        i8 maneuver: -1 none, 1 left, 2 right, 3 straight, 4 follow lane, 5 change left, 6 change right\n\
        u8 1 inside a junction, else 0\n",
};

const CAMERA: Kind = Kind {
    topic: "/camera",
    schema: "tandem.CameraFrame/1",
    layout: "A picture of the front camera. Little-endian, packed.\n\
        u64 tick of the observation that it belongs to\n\
        u64 tick at which it was taken\n\
        u64 time of exposure, nanoseconds since the route began\n\
        u32 width, u32 height, pixels\n\
        u8 [height, width, 3] red, green, blue\n",
};

const LIDAR: Kind = Kind {
    topic: "/lidar",
    schema: "tandem.LidarSweep/1",
    layout: "Returns of the LiDAR since the last tick. Little-endian, packed.\n\
        u64 tick of the observation that it belongs to\n\
        u64 tick at which it ended\n\
        f32 [points, 4] x forward, y right, z up in meters of the sensor's frame, intensity\n",
};

const OBSERVATION: Kind = Kind {
    topic: "/observation",
    schema: "tandem.Observation/1",
    layout: "Everything else that was read at a tick. Little-endian, packed.\n\
        u64 tick, from 1\n\
        u64 time, nanoseconds since the route began\n\
        f64 [3] specific force in the ego frame, m/s2, gravity included\n\
        f64 [3] angular rate in the ego frame, rad/s\n\
        f64 compass, radians from north; not a number before the first fix\n\
        f64 latitude, degrees; f64 longitude, degrees; f64 altitude, meters\n\
        f64 forward speed, m/s\n\
        u8 1 with a camera frame, else 0; u8 1 with a LiDAR sweep, else 0\n",
};

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
    #[error("{path:?} is not a whole recording: {reason}; record it again")]
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
        topic: &'static str,
        /// The last tick that was whole; 0 before the first.
        tick: u64,
        /// What is wrong.
        reason: String,
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

/// Writes a recording, tick by tick. The file appears when [`RecordingWriter::finish`] succeeds.
pub struct RecordingWriter {
    path: PathBuf,
    writer: Writer<BufWriter<WholeFile>>,
    channels: [u16; 4],
    tick: u64,
    buffer: Vec<u8>,
}

impl RecordingWriter {
    /// Begins a recording of a drive on `plan`.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn create(path: &Path, plan: &RoutePlan) -> Result<Self, RecordingError> {
        let options = WriteOptions::new()
            .compression(Some(Compression::Zstd))
            // No worker threads.
            .compression_threads(0)
            // Chunks end with ticks.
            .chunk_size(None)
            .profile("tandem.recording");
        let open = || -> Result<_, McapError> {
            let file = BufWriter::new(WholeFile::create(path)?);
            let mut writer = Writer::with_options(file, options)?;
            let mut channels = [0; 4];
            for (id, kind) in channels.iter_mut().zip([PLAN, CAMERA, LIDAR, OBSERVATION]) {
                let schema = writer.add_schema(kind.schema, "text", kind.layout.as_bytes())?;
                *id = writer.add_channel(schema, kind.topic, ENCODING, &BTreeMap::new())?;
            }
            Ok((writer, channels))
        };
        let path = path.to_owned();
        let (writer, channels) = open().map_err(|error| unwritable(&path, &error))?;
        let mut writer = Self { path, writer, channels, tick: 0, buffer: Vec::new() };
        encode_plan(plan, &mut writer.buffer);
        writer.put(0, 0)?;
        writer.end_chunk()?;
        Ok(writer)
    }

    /// Adds a tick; its truth is left out.
    ///
    /// # Errors
    /// If the disk refuses, or a picture or a sweep is larger than [`LARGEST_MESSAGE`].
    ///
    /// # Panics
    /// If ticks do not ascend, or a picture does not have the bytes that its size says.
    pub fn write(&mut self, observation: &Observation) -> Result<(), RecordingError> {
        let tick = observation.frame.0;
        assert!(tick > self.tick, "tick {tick} comes behind tick {}", self.tick);
        self.tick = tick;
        let time_ns = nanos(observation.time);
        if let Some(camera) = &observation.camera {
            encode_camera(tick, camera, &mut self.buffer);
            self.put(1, time_ns)?;
        }
        if let Some(lidar) = &observation.lidar {
            encode_lidar(tick, lidar, &mut self.buffer);
            self.put(2, time_ns)?;
        }
        encode_observation(observation, &mut self.buffer);
        self.put(3, time_ns)?;
        self.end_chunk()
    }

    /// Ends the recording; returns its size in bytes.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn finish(mut self) -> Result<u64, RecordingError> {
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

    /// Ends a chunk and hands it to the system.
    fn end_chunk(&mut self) -> Result<(), RecordingError> {
        self.writer.flush().map_err(|error| unwritable(&self.path, &error))
    }

    /// Writes what is in the buffer, and empties it.
    fn put(&mut self, kind: usize, time_ns: u64) -> Result<(), RecordingError> {
        if self.buffer.len() > LARGEST_MESSAGE {
            let (tick, bytes) = (self.tick, self.buffer.len());
            let reason = format!(
                "a message of tick {tick} has {bytes} bytes, a recording holds at most \
                 {LARGEST_MESSAGE} in one"
            );
            return Err(RecordingError::Write { path: self.path.clone(), reason });
        }
        let header = MessageHeader {
            channel_id: self.channels[kind],
            sequence: self.tick as u32,
            log_time: time_ns,
            publish_time: time_ns,
        };
        self.writer
            .write_to_known_channel(&header, &self.buffer)
            .map_err(|error| unwritable(&self.path, &error))?;
        self.buffer.clear();
        Ok(())
    }
}

fn unwritable(path: &Path, error: &McapError) -> RecordingError {
    RecordingError::Write { path: path.to_owned(), reason: refusal(error) }
}

/// Why an MCAP file cannot be written: the reason of the system, where there is one.
pub(crate) fn refusal(error: &McapError) -> String {
    match error {
        McapError::Io(source) => source.to_string(),
        other => other.to_string(),
    }
}

/// Reads a recording tick by tick. Ends with an error where the file is damaged or cut off, and
/// with nothing only behind a whole one.
pub struct RecordingReader {
    path: PathBuf,
    messages: Messages<BufReader<File>>,
    plan: RoutePlan,
    tick: u64,
    is_over: bool,
}

impl RecordingReader {
    /// Opens a recording and reads its plan.
    ///
    /// # Errors
    /// If it is missing, damaged up to there, or not a recording.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path)
            .map_err(|source| RecordingError::Open { path: path.to_owned(), source })?;
        let options = LinearReaderOptions::default()
            .with_check_finishes_after_end_magic(true)
            .with_prevalidate_chunk_crcs(true)
            .with_validate_data_section_crc(true)
            .with_validate_summary_section_crc(true)
            .with_record_length_limit(2 * LARGEST_MESSAGE);
        let mut messages = Messages::new(BufReader::new(file), options);
        let path = path.to_owned();
        let foreign = |reason: &str| RecordingError::Channel {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        let first = match messages.next() {
            None => return Err(foreign("it holds no message; a recording begins with its /plan")),
            Some(message) => message.map_err(|error| damaged(&path, &error))?,
        };
        if kind_of(&path, &first.channel)?.topic != PLAN.topic {
            return Err(foreign(
                "channel /plan is missing; a recording begins with its route plan",
            ));
        }
        let plan = decode_plan(&first.data).map_err(|reason| RecordingError::Message {
            path: path.clone(),
            topic: PLAN.topic,
            tick: 0,
            reason,
        })?;
        Ok(Self { path, messages, plan, tick: 0, is_over: false })
    }

    /// The dense route.
    pub fn plan(&self) -> &RoutePlan {
        &self.plan
    }

    /// The dense route, to keep.
    pub fn into_plan(self) -> RoutePlan {
        self.plan
    }

    /// The next tick; `None` behind the last of a whole file.
    fn tick(&mut self) -> Result<Option<Observation>, RecordingError> {
        let (mut camera, mut lidar) = (None, None);
        loop {
            let Some(message) = self.messages.next() else {
                if camera.is_some() || lidar.is_some() {
                    return Err(self.wrong(OBSERVATION.topic, "it is missing".to_owned()));
                }
                return Ok(None);
            };
            let message = message.map_err(|error| damaged(&self.path, &error))?;
            let kind = kind_of(&self.path, &message.channel)?;
            let wrong = |reason| self.wrong(kind.topic, reason);
            let data = message.data;
            match kind.topic {
                topic if topic == CAMERA.topic => {
                    let read = decode_camera(data).map_err(wrong)?;
                    if camera.replace(read).is_some() {
                        return Err(wrong("there are two of one tick".to_owned()));
                    }
                }
                topic if topic == LIDAR.topic => {
                    let read = decode_lidar(&data).map_err(wrong)?;
                    if lidar.replace(read).is_some() {
                        return Err(wrong("there are two of one tick".to_owned()));
                    }
                }
                topic if topic == OBSERVATION.topic => {
                    let (mut observation, has) = decode_observation(&data).map_err(wrong)?;
                    let tick = observation.frame.0;
                    if tick <= self.tick {
                        return Err(wrong(format!("tick {tick} does not come behind it")));
                    }
                    observation.camera =
                        belonging(CAMERA.topic, tick, has[0], camera).map_err(wrong)?;
                    observation.lidar =
                        belonging(LIDAR.topic, tick, has[1], lidar).map_err(wrong)?;
                    self.tick = tick;
                    return Ok(Some(observation));
                }
                _ => return Err(wrong("there is a second one".to_owned())),
            }
        }
    }

    fn wrong(&self, topic: &'static str, reason: String) -> RecordingError {
        RecordingError::Message { path: self.path.clone(), topic, tick: self.tick, reason }
    }
}

impl Iterator for RecordingReader {
    type Item = Result<Observation, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let tick = self.tick().transpose();
        self.is_over = !matches!(tick, Some(Ok(_)));
        tick
    }
}

/// A reading, if the observation of `tick` says that it has one, and only then.
fn belonging<T>(
    topic: &str,
    tick: u64,
    is_said: bool,
    reading: Option<(u64, T)>,
) -> Result<Option<Arc<T>>, String> {
    match (is_said, reading) {
        (false, None) => Ok(None),
        (true, Some((of, reading))) if of == tick => Ok(Some(Arc::new(reading))),
        (true, None) => Err(format!("tick {tick} has a {topic} message that the file lacks")),
        (_, Some((of, _))) => {
            Err(format!("tick {tick} comes behind a {topic} message of tick {of}"))
        }
    }
}

fn damaged(path: &Path, error: &McapError) -> RecordingError {
    let reason = match error {
        McapError::BadMagic => "it does not begin and end as an MCAP file".to_owned(),
        McapError::UnexpectedEof | McapError::UnexpectedEoc => {
            format!("{error}; was writing it interrupted?")
        }
        error => shortened_error(error),
    };
    RecordingError::File { path: path.to_owned(), reason }
}

/// Which kind of message a channel holds.
fn kind_of(path: &Path, channel: &Channel) -> Result<&'static Kind, RecordingError> {
    const KINDS: [&Kind; 4] = [&PLAN, &CAMERA, &LIDAR, &OBSERVATION];
    let foreign = |reason| RecordingError::Channel { path: path.to_owned(), reason };
    let Some(kind) = KINDS.into_iter().find(|kind| kind.topic == channel.topic) else {
        let topics = KINDS.map(|kind| kind.topic).join(", ");
        return Err(foreign(format!(
            "it has a channel {:?}; known are {topics}",
            shortened(&channel.topic)
        )));
    };
    let schema = channel.schema.as_deref().unwrap_or("no schema");
    if schema != kind.schema || channel.message_encoding != ENCODING {
        return Err(foreign(format!(
            "channel {} holds {} in {:?}, expected {} in {ENCODING:?}",
            kind.topic,
            shortened(schema),
            shortened(&channel.message_encoding),
            kind.schema
        )));
    }
    Ok(kind)
}

fn nanos(time: Timestamp) -> u64 {
    time.since(Timestamp::ZERO).as_nanos() as u64
}

fn encode_plan(plan: &RoutePlan, into: &mut Vec<u8>) {
    put_f64s(&[plan.reference.latitude_deg, plan.reference.longitude_deg], into);
    into.extend((plan.points.len() as u32).to_le_bytes());
    for point in &plan.points {
        let place = point.position;
        put_f64s(&[place.x, place.y, place.z, point.heading_rad], into);
        into.extend((point.command as i8).to_le_bytes());
        into.push(u8::from(point.is_junction));
    }
}

fn encode_camera(tick: u64, camera: &CameraFrame, into: &mut Vec<u8>) {
    let expected = camera.width as usize * camera.height as usize * 3;
    assert_eq!(camera.rgb.len(), expected, "{} x {} RGB", camera.width, camera.height);
    for number in [tick, camera.id.0, nanos(camera.captured_at)] {
        into.extend(number.to_le_bytes());
    }
    into.extend(camera.width.to_le_bytes());
    into.extend(camera.height.to_le_bytes());
    into.extend_from_slice(&camera.rgb);
}

fn encode_lidar(tick: u64, lidar: &LidarSweep, into: &mut Vec<u8>) {
    into.extend(tick.to_le_bytes());
    into.extend(lidar.id.0.to_le_bytes());
    into.extend(lidar.points.iter().flatten().flat_map(|number| number.to_le_bytes()));
}

fn encode_observation(observation: &Observation, into: &mut Vec<u8>) {
    into.extend(observation.frame.0.to_le_bytes());
    into.extend(nanos(observation.time).to_le_bytes());
    let (imu, gnss) = (&observation.imu, &observation.gnss);
    put_f64s(&imu.acceleration_mps2, into);
    put_f64s(&imu.angular_velocity_radps, into);
    put_f64s(&[imu.compass_rad, gnss.latitude_deg, gnss.longitude_deg, gnss.altitude_m], into);
    put_f64s(&[observation.speed_mps], into);
    into.push(u8::from(observation.camera.is_some()));
    into.push(u8::from(observation.lidar.is_some()));
}

fn put_f64s(numbers: &[f64], into: &mut Vec<u8>) {
    into.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// What of a message has not been read yet.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| format!("it ends {} bytes into a field of {N}", self.rest.len()))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn f64(&mut self) -> Result<f64, String> {
        Ok(f64::from_le_bytes(self.bytes()?))
    }

    fn f64s<const N: usize>(&mut self) -> Result<[f64; N], String> {
        let mut numbers = [0.0; N];
        for number in &mut numbers {
            *number = self.f64()?;
        }
        Ok(numbers)
    }

    fn flag(&mut self) -> Result<bool, String> {
        match self.bytes()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("a flag is {other}, not 0 or 1")),
        }
    }

    fn time(&mut self) -> Result<Timestamp, String> {
        Ok(Timestamp::after(Duration::from_nanos(self.u64()?)))
    }

    fn end(self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(format!("it has {more} bytes too many")),
        }
    }
}

fn decode_plan(data: &[u8]) -> Result<RoutePlan, String> {
    const POINT_BYTES: usize = 4 * 8 + 2;
    let mut fields = Fields { rest: data };
    let [latitude_deg, longitude_deg] = fields.f64s()?;
    let count = fields.u32()? as usize;
    if count < 2 {
        return Err(format!("it has {count} points, a route has two or more"));
    }
    if fields.rest.len() != count.saturating_mul(POINT_BYTES) {
        return Err(format!("{count} points do not take {} bytes", fields.rest.len()));
    }
    let point = |_| -> Result<RoutePoint, String> {
        let [x, y, z, heading_rad] = fields.f64s()?;
        let command = match i8::from_le_bytes(fields.bytes()?) {
            -1 => RoadOption::Void,
            1 => RoadOption::Left,
            2 => RoadOption::Right,
            3 => RoadOption::Straight,
            4 => RoadOption::LaneFollow,
            5 => RoadOption::ChangeLaneLeft,
            6 => RoadOption::ChangeLaneRight,
            other => return Err(format!("there is no maneuver {other}")),
        };
        let is_junction = fields.flag()?;
        Ok(RoutePoint { position: DVec3::new(x, y, z), heading_rad, command, is_junction })
    };
    let points = (0..count).map(point).collect::<Result<_, _>>()?;
    Ok(RoutePlan { points, reference: GeoReference { latitude_deg, longitude_deg } })
}

/// The picture with the tick of its observation.
fn decode_camera(mut data: Vec<u8>) -> Result<(u64, CameraFrame), String> {
    let mut fields = Fields { rest: &data };
    let (tick, id, captured_at) = (fields.u64()?, FrameId(fields.u64()?), fields.time()?);
    let (width, height) = (fields.u32()?, fields.u32()?);
    let found = fields.rest.len();
    if Some(found) != (width as usize).checked_mul(height as usize).and_then(|n| n.checked_mul(3)) {
        return Err(format!("a picture of {width} x {height} pixels does not have {found} bytes"));
    }
    let rgb = data.split_off(data.len() - found);
    Ok((tick, CameraFrame { id, captured_at, width, height, rgb }))
}

/// The sweep with the tick of its observation.
fn decode_lidar(data: &[u8]) -> Result<(u64, LidarSweep), String> {
    let mut fields = Fields { rest: data };
    let (tick, id) = (fields.u64()?, FrameId(fields.u64()?));
    let (numbers, rest) = fields.rest.as_chunks::<4>();
    let (points, fewer) = numbers.as_chunks::<4>();
    if !rest.is_empty() || !fewer.is_empty() {
        return Err(format!("{} bytes are no number of points of 16", fields.rest.len()));
    }
    let points = points.iter().map(|point| point.map(f32::from_le_bytes)).collect();
    Ok((tick, LidarSweep { id, points }))
}

/// The observation without its large readings, and whether it has a picture and a sweep.
fn decode_observation(data: &[u8]) -> Result<(Observation, [bool; 2]), String> {
    let mut fields = Fields { rest: data };
    let (frame, time) = (FrameId(fields.u64()?), fields.time()?);
    let (acceleration_mps2, angular_velocity_radps) = (fields.f64s()?, fields.f64s()?);
    let compass_rad = fields.f64()?;
    let [latitude_deg, longitude_deg, altitude_m, speed_mps] = fields.f64s()?;
    let has = [fields.flag()?, fields.flag()?];
    fields.end()?;
    let observation = Observation {
        frame,
        time,
        camera: None,
        lidar: None,
        imu: Imu { acceleration_mps2, angular_velocity_radps, compass_rad },
        gnss: Gnss { latitude_deg, longitude_deg, altitude_m },
        speed_mps,
        truth: None,
    };
    Ok((observation, has))
}
