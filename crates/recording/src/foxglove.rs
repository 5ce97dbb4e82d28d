//! Encodes images, point clouds and mounts as Foxglove's well-known schemas, in protobuf.
//!
//! Foxglove's frames are right-handed: x forward, y left, z up. Tandem's y points right, so y
//! changes its sign, which is exact. A camera's optical frame has x right, y down and z forward.

use glam::DQuat;
use prost::Message;
use std::time::Duration;
use tandem_scene::{
    CameraFrame, CameraId, CameraSpec, FrameId, LidarSpec, LidarSweep, SensorSuite,
};
use tandem_timing::Timestamp;

/// Names of coordinate frames.
const EGO: &str = "ego";
const CAMERA: &str = "camera";
const LIDAR: &str = "lidar";

/// Encoding of images: red, green, blue, 8 bits each.
const RGB8: &str = "rgb8";
const RGB8_BYTES: u32 = 3;

/// Fields of a point; each is an f32.
const POINT: [&str; 4] = ["x", "y", "z", "intensity"];
const F32_BYTES: u32 = 4;
const POINT_BYTES: u32 = POINT.len() as u32 * F32_BYTES;

/// Foxglove's `NumericType` of an f32.
const FLOAT32: i32 = 7;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[derive(Clone, PartialEq, prost::Message)]
struct RawImage {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<prost_types::Timestamp>,
    #[prost(fixed32, tag = "2")]
    width: u32,
    #[prost(fixed32, tag = "3")]
    height: u32,
    #[prost(string, tag = "4")]
    encoding: String,
    #[prost(fixed32, tag = "5")]
    step: u32,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
    #[prost(string, tag = "7")]
    frame_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PointCloud {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<prost_types::Timestamp>,
    #[prost(string, tag = "2")]
    frame_id: String,
    #[prost(message, optional, tag = "3")]
    pose: Option<Pose>,
    #[prost(fixed32, tag = "4")]
    point_stride: u32,
    #[prost(message, repeated, tag = "5")]
    fields: Vec<PackedElementField>,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PackedElementField {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(fixed32, tag = "2")]
    offset: u32,
    #[prost(int32, tag = "3")]
    r#type: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Vector3 {
    #[prost(double, tag = "1")]
    x: f64,
    #[prost(double, tag = "2")]
    y: f64,
    #[prost(double, tag = "3")]
    z: f64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Quaternion {
    #[prost(double, tag = "1")]
    x: f64,
    #[prost(double, tag = "2")]
    y: f64,
    #[prost(double, tag = "3")]
    z: f64,
    #[prost(double, tag = "4")]
    w: f64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Pose {
    #[prost(message, optional, tag = "1")]
    position: Option<Vector3>,
    #[prost(message, optional, tag = "2")]
    orientation: Option<Quaternion>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FrameTransform {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<prost_types::Timestamp>,
    #[prost(string, tag = "2")]
    parent_frame_id: String,
    #[prost(string, tag = "3")]
    child_frame_id: String,
    #[prost(message, optional, tag = "4")]
    translation: Option<Vector3>,
    #[prost(message, optional, tag = "5")]
    rotation: Option<Quaternion>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FrameTransforms {
    #[prost(message, repeated, tag = "1")]
    transforms: Vec<FrameTransform>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CameraCalibration {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<prost_types::Timestamp>,
    #[prost(fixed32, tag = "2")]
    width: u32,
    #[prost(fixed32, tag = "3")]
    height: u32,
    #[prost(string, tag = "4")]
    distortion_model: String,
    #[prost(double, repeated, tag = "5")]
    d: Vec<f64>,
    #[prost(double, repeated, tag = "6")]
    k: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    r: Vec<f64>,
    #[prost(double, repeated, tag = "8")]
    p: Vec<f64>,
    #[prost(string, tag = "9")]
    frame_id: String,
}

/// Returns the name of a camera's coordinate frame.
fn frame_of(camera: CameraId) -> String {
    match camera {
        CameraId::FRONT => CAMERA.to_owned(),
        other => format!("{CAMERA}_{other}"),
    }
}

/// Appends an image of the camera `id`, without its capture tick.
pub(super) fn encode_camera(id: CameraId, camera: &CameraFrame, into: &mut Vec<u8>) {
    let expected = camera.width as usize * camera.height as usize * RGB8_BYTES as usize;
    assert_eq!(camera.rgb.len(), expected, "{} x {} RGB", camera.width, camera.height);
    let message = RawImage {
        timestamp: Some(stamp(camera.captured_at)),
        width: camera.width,
        height: camera.height,
        encoding: RGB8.to_owned(),
        step: camera.width * RGB8_BYTES,
        data: camera.rgb.clone(),
        frame_id: frame_of(id),
    };
    append(&message, into);
}

/// Decodes an image; its capture tick is set to 0.
pub(super) fn decode_camera(data: &[u8]) -> Result<CameraFrame, String> {
    let message = RawImage::decode(data).map_err(|error| error.to_string())?;
    let RawImage { width, height, step, data: rgb, .. } = message;
    if message.encoding != RGB8 {
        return Err(format!("its encoding is {:?}, expected {RGB8:?}", message.encoding));
    }
    if Some(step) != width.checked_mul(RGB8_BYTES) {
        return Err(format!("a row of {width} pixels does not have {step} bytes"));
    }
    if Some(rgb.len()) != (step as usize).checked_mul(height as usize) {
        let found = rgb.len();
        return Err(format!("an image of {width} x {height} pixels does not have {found} bytes"));
    }
    let captured_at = time(message.timestamp)?;
    Ok(CameraFrame { id: FrameId(0), captured_at, width, height, rgb })
}

/// Appends a sweep of an observation at `observed_at`, without the tick at which it ended.
pub(super) fn encode_lidar(observed_at: Timestamp, lidar: &LidarSweep, into: &mut Vec<u8>) {
    let points = lidar.points.iter().flat_map(|&point| mirrored(point));
    let message = PointCloud {
        timestamp: Some(stamp(observed_at)),
        frame_id: LIDAR.to_owned(),
        pose: Some(Pose {
            position: Some(Vector3 { x: 0.0, y: 0.0, z: 0.0 }),
            orientation: Some(quaternion(DQuat::IDENTITY)),
        }),
        point_stride: POINT_BYTES,
        fields: point_fields(),
        data: points.flat_map(f32::to_le_bytes).collect(),
    };
    append(&message, into);
}

/// Decodes a sweep; the tick at which it ended is set to 0.
pub(super) fn decode_lidar(data: &[u8]) -> Result<LidarSweep, String> {
    let message = PointCloud::decode(data).map_err(|error| error.to_string())?;
    if message.point_stride != POINT_BYTES || message.fields != point_fields() {
        return Err(format!("its points are not {} of f32", POINT.join(", ")));
    }
    let (numbers, rest) = message.data.as_chunks::<{ F32_BYTES as usize }>();
    let (points, partial) = numbers.as_chunks::<{ POINT.len() }>();
    if !rest.is_empty() || !partial.is_empty() {
        let bytes = message.data.len();
        return Err(format!("{bytes} bytes are not a multiple of {POINT_BYTES}"));
    }
    let points = points.iter().map(|point| mirrored(point.map(f32::from_le_bytes))).collect();
    Ok(LidarSweep { id: FrameId(0), points })
}

/// Appends the mounts of the sensors in the ego frame.
pub(super) fn encode_mounts(suite: &SensorSuite, into: &mut Vec<u8>) {
    // Rotates from x forward, y left, z up to x right, y down, z forward.
    let optical = DQuat::from_xyzw(-0.5, 0.5, -0.5, 0.5);
    let cameras = suite.cameras.iter().map(|(id, CameraSpec { position_m, yaw_rad, .. })| {
        mount(&frame_of(id), *position_m, DQuat::from_rotation_z(-yaw_rad) * optical)
    });
    let lidar = suite.lidar.map(|LidarSpec { position_m, yaw_rad }| {
        mount(LIDAR, position_m, DQuat::from_rotation_z(-yaw_rad))
    });
    append(&FrameTransforms { transforms: cameras.chain(lidar).collect() }, into);
}

/// Appends the intrinsic calibration of the camera `id`.
pub(super) fn encode_calibration(id: CameraId, camera: &CameraSpec, into: &mut Vec<u8>) {
    let (width, height) = (f64::from(camera.width), f64::from(camera.height));
    let focal_px = width / 2.0 / (camera.fov_deg.to_radians() / 2.0).tan();
    let [x, y] = [width / 2.0, height / 2.0];
    let message = CameraCalibration {
        timestamp: Some(stamp(Timestamp::ZERO)),
        width: camera.width,
        height: camera.height,
        distortion_model: "plumb_bob".to_owned(),
        d: vec![0.0; 5],
        k: vec![focal_px, 0.0, x, 0.0, focal_px, y, 0.0, 0.0, 1.0],
        r: vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p: vec![focal_px, 0.0, x, 0.0, 0.0, focal_px, y, 0.0, 0.0, 0.0, 1.0, 0.0],
        frame_id: frame_of(id),
    };
    append(&message, into);
}

fn append(message: &impl Message, into: &mut Vec<u8>) {
    message.encode(into).expect("a vector grows as needed");
}

/// Converts a point between tandem's and Foxglove's axes; the conversion is its own inverse.
fn mirrored([x, y, z, intensity]: [f32; 4]) -> [f32; 4] {
    [x, -y, z, intensity]
}

fn mount(frame: &str, [x, y, z]: [f64; 3], rotation: DQuat) -> FrameTransform {
    FrameTransform {
        timestamp: Some(stamp(Timestamp::ZERO)),
        parent_frame_id: EGO.to_owned(),
        child_frame_id: frame.to_owned(),
        translation: Some(Vector3 { x, y: -y, z }),
        rotation: Some(quaternion(rotation)),
    }
}

fn quaternion(DQuat { x, y, z, w }: DQuat) -> Quaternion {
    Quaternion { x, y, z, w }
}

fn point_fields() -> Vec<PackedElementField> {
    let field = |(idx, name): (u32, &str)| PackedElementField {
        name: name.to_owned(),
        offset: idx * F32_BYTES,
        r#type: FLOAT32,
    };
    (0..).zip(POINT).map(field).collect()
}

fn stamp(time: Timestamp) -> prost_types::Timestamp {
    let nanos = super::nanos(time);
    prost_types::Timestamp {
        seconds: (nanos / NANOS_PER_SECOND) as i64,
        nanos: (nanos % NANOS_PER_SECOND) as i32,
    }
}

fn time(stamp: Option<prost_types::Timestamp>) -> Result<Timestamp, String> {
    let prost_types::Timestamp { seconds, nanos } = stamp.ok_or("its timestamp is missing")?;
    let seconds_ns = u64::try_from(seconds).ok().and_then(|s| s.checked_mul(NANOS_PER_SECOND));
    let nanos_ns = u64::try_from(nanos).ok().filter(|&nanos| nanos < NANOS_PER_SECOND);
    match seconds_ns.zip(nanos_ns).and_then(|(seconds, nanos)| seconds.checked_add(nanos)) {
        Some(nanos) => Ok(Timestamp::after(Duration::from_nanos(nanos))),
        None => Err(format!("{seconds} s and {nanos} ns are not a valid time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::DVec3;
    use tandem_scene::Cameras;

    /// Transforms a point of the sensor's frame to Foxglove's ego frame.
    fn in_ego(mount: &FrameTransform, point: DVec3) -> DVec3 {
        let (offset, rotation) = (mount.translation.unwrap(), mount.rotation.unwrap());
        let rotation = DQuat::from_xyzw(rotation.x, rotation.y, rotation.z, rotation.w);
        DVec3::new(offset.x, offset.y, offset.z) + rotation * point
    }

    #[test]
    fn mounts_transform_sensor_points_to_the_ego_frame() {
        // Both sensors face right.
        let yaw_rad = std::f64::consts::FRAC_PI_2;
        let position_m = [1.0, 2.0, 3.0];
        let suite = SensorSuite {
            cameras: Cameras::one(
                CameraId::FRONT,
                CameraSpec { position_m, yaw_rad, width: 640, height: 480, fov_deg: 90.0 },
            ),
            lidar: Some(LidarSpec { position_m, yaw_rad }),
            truth: false,
        };
        let mut bytes = Vec::new();
        encode_mounts(&suite, &mut bytes);
        let mounts = FrameTransforms::decode(&bytes[..]).unwrap().transforms;
        let check = |mount: &FrameTransform, point: [f64; 3], expected: [f64; 3]| {
            let found = in_ego(mount, DVec3::from(point));
            assert!(found.distance(DVec3::from(expected)) < 1e-12, "{point:?}: {found}");
        };
        // Ten meters in front of the sensor are ten meters to the right of the ego vehicle, at -y.
        check(&mounts[0], [0.0, 0.0, 10.0], [1.0, -12.0, 3.0]);
        check(&mounts[1], [10.0, 0.0, 0.0], [1.0, -12.0, 3.0]);
        // To the right of a sensor that faces right is behind it; down stays down.
        check(&mounts[0], [1.0, 0.0, 0.0], [0.0, -2.0, 3.0]);
        check(&mounts[0], [0.0, 1.0, 0.0], [1.0, -2.0, 2.0]);
        check(&mounts[1], [0.0, -1.0, 0.0], [0.0, -2.0, 3.0]);
    }

    #[test]
    fn calibration_projects_the_field_of_view_to_the_edge() {
        let position_m = [0.0; 3];
        let camera =
            CameraSpec { position_m, yaw_rad: 0.0, width: 640, height: 480, fov_deg: 90.0 };
        let mut bytes = Vec::new();
        encode_calibration(CameraId::FRONT, &camera, &mut bytes);
        let calibration = CameraCalibration::decode(&bytes[..]).unwrap();
        // At 45 degrees x and z are the same.
        let [focal_px, center_px] = [calibration.k[0], calibration.k[2]];
        assert!((focal_px + center_px - 640.0).abs() < 1e-9, "{calibration:?}");
        assert_eq!(calibration.k[5], 240.0);
    }
}
