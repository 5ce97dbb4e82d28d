//! Channels of a recording.

use super::descriptors::{CAMERA_CALIBRATION, Described, FRAME_TRANSFORMS, POINT_CLOUD, RAW_IMAGE};
use super::layout;
use mcap::Channel;
use tandem_files::shortened;
use tandem_scene::CameraId;

/// Encoding of messages in tandem's own layouts.
const PACKED: &str = "tandem-le";

/// Encoding of Foxglove's messages.
const PROTOBUF: &str = "protobuf";

/// Topics. Public ones contain the driver's observations and are read; the others are for viewers.
pub(super) const PLAN: &str = "/plan";
pub(super) const CAMERA: &str = "/camera";
pub(super) const LIDAR: &str = "/lidar";
pub(super) const OBSERVATION: &str = "/observation";
const MOUNTS: &str = "/tf";
const CALIBRATION: &str = "/camera/calibration";

/// Topic prefix of cameras other than the front one; [`CALIBRATION_OF`]
/// may follow the camera's name.
const OTHERS: &str = "/cameras/";
const CALIBRATION_OF: &str = "/calibration";

/// Meaning of the messages of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Plan,
    Mounts,
    Calibration,
    Camera,
    Lidar,
    Observation,
    /// Observation with cameras other than the front one.
    ObservationOfCameras,
    /// Camera image of a recording of version 1.
    FirstCamera,
    /// LiDAR sweep of a recording of version 1.
    FirstLidar,
    /// Observation of a recording of version 1.
    FirstObservation,
}

/// Kind of channel: content, topic, schema and encoding.
pub(super) struct Kind {
    pub(super) content: Content,
    pub(super) topic: &'static str,
    schema: &'static str,
    layout: Layout,
}

/// Schema data and message encoding.
enum Layout {
    /// Description of one of tandem's own layouts.
    Text(&'static str),
    Protobuf(&'static Described),
    /// Layout of version 1, which is not written any more.
    First,
}

impl Kind {
    /// Returns the topic. `camera` is used only by contents that belong to a camera.
    pub(super) fn topic_of(&self, camera: CameraId) -> String {
        match self.content {
            _ if camera == CameraId::FRONT => self.topic.to_owned(),
            Content::Calibration => format!("{OTHERS}{camera}{CALIBRATION_OF}"),
            Content::Camera => camera_topic(camera),
            _ => self.topic.to_owned(),
        }
    }

    pub(super) fn schema(&self) -> (&'static str, &'static str, Vec<u8>) {
        match self.layout {
            Layout::Text(text) => (self.schema, "text", text.as_bytes().to_vec()),
            Layout::Protobuf(message) => (self.schema, PROTOBUF, message.schema()),
            Layout::First => (self.schema, "text", Vec::new()),
        }
    }

    pub(super) fn message_encoding(&self) -> &'static str {
        match self.layout {
            Layout::Text(_) | Layout::First => PACKED,
            Layout::Protobuf(_) => PROTOBUF,
        }
    }
}

/// Channels that are written, in this order.
pub(super) static WRITTEN: [Kind; 6] = [
    kind(Content::Plan, PLAN, "tandem.RoutePlan/1", Layout::Text(layout::PLAN)),
    kind(Content::Mounts, MOUNTS, "foxglove.FrameTransforms", Layout::Protobuf(&FRAME_TRANSFORMS)),
    kind(
        Content::Calibration,
        CALIBRATION,
        "foxglove.CameraCalibration",
        Layout::Protobuf(&CAMERA_CALIBRATION),
    ),
    kind(Content::Camera, CAMERA, "foxglove.RawImage", Layout::Protobuf(&RAW_IMAGE)),
    kind(Content::Lidar, LIDAR, "foxglove.PointCloud", Layout::Protobuf(&POINT_CLOUD)),
    kind(
        Content::Observation,
        OBSERVATION,
        "tandem.Observation/2",
        Layout::Text(layout::OBSERVATION),
    ),
];

/// Replaces the observation channel of [`WRITTEN`] if there are cameras other than the front one.
pub(super) static OBSERVATION_OF_CAMERAS: Kind = kind(
    Content::ObservationOfCameras,
    OBSERVATION,
    "tandem.Observation/3",
    Layout::Text(layout::OBSERVATION_OF_CAMERAS),
);

/// Channels of version 1, which are still read.
static FIRST: [Kind; 3] = [
    kind(Content::FirstCamera, CAMERA, "tandem.CameraFrame/1", Layout::First),
    kind(Content::FirstLidar, LIDAR, "tandem.LidarSweep/1", Layout::First),
    kind(Content::FirstObservation, OBSERVATION, "tandem.Observation/1", Layout::First),
];

const fn kind(content: Content, topic: &'static str, schema: &'static str, layout: Layout) -> Kind {
    Kind { content, topic, schema, layout }
}

/// Returns the topic of a camera's images.
pub(super) fn camera_topic(camera: CameraId) -> String {
    match camera {
        CameraId::FRONT => CAMERA.to_owned(),
        other => format!("{OTHERS}{other}"),
    }
}

/// Splits the topic of a camera other than the front one into the front camera's topic of the same
/// content and the camera's id.
fn other_camera(topic: &str) -> Option<(&'static str, CameraId)> {
    let name = topic.strip_prefix(OTHERS)?;
    let (like, name) = match name.strip_suffix(CALIBRATION_OF) {
        Some(name) => (CALIBRATION, name),
        None => (CAMERA, name),
    };
    let id = name.parse().ok().filter(|&id| id != CameraId::FRONT)?;
    Some((like, id))
}

/// Returns the kind of a file's channel and its camera; the front camera for channels that
/// do not belong to a camera.
pub(super) fn kind_of(channel: &Channel<'_>) -> Result<(&'static Kind, CameraId), String> {
    let (topic, camera) = other_camera(&channel.topic).unwrap_or((&channel.topic, CameraId::FRONT));
    let Some(newest) = WRITTEN.iter().find(|kind| kind.topic == topic) else {
        let topics: Vec<&str> = WRITTEN.iter().map(|kind| kind.topic).collect();
        return Err(format!(
            "unknown channel {:?}, expected one of {} or {OTHERS}NAME",
            shortened(&channel.topic),
            topics.join(", ")
        ));
    };
    let schema = channel.schema.as_ref().map_or("no schema", |schema| &schema.name);
    let is_same = |kind: &&Kind| {
        kind.topic == topic
            && kind.schema == schema
            && kind.message_encoding() == channel.message_encoding
    };
    let known = WRITTEN.iter().chain([&OBSERVATION_OF_CAMERAS]).chain(&FIRST);
    known.into_iter().find(is_same).map(|kind| (kind, camera)).ok_or_else(|| {
        format!(
            "channel {} has schema {} in encoding {:?}, expected {} in {:?}",
            channel.topic,
            shortened(schema),
            shortened(&channel.message_encoding),
            newest.schema,
            newest.message_encoding()
        )
    })
}
