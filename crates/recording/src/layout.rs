//! Messages in tandem's own layouts: little-endian, packed.

use super::nanos;
use glam::DVec3;
use std::time::Duration;
use tandem_scene::{
    CameraFrame, CameraId, CameraIdError, Cameras, FrameId, GeoReference, Gnss, Imu, LidarSweep,
    Observation, RoadOption, RoutePlan, RoutePoint,
};
use tandem_timing::Timestamp;

/// Schema text of a route plan.
pub(super) const PLAN: &str = "The dense route. Little-endian, packed.\n\
    f64 reference latitude, degrees\n\
    f64 reference longitude, degrees\n\
    u32 number of points, then each point:\n\
    f64 x east, f64 y south, f64 z up, meters in the world\n\
    f64 heading, radians, clockwise from x seen from above\n\
    i8 maneuver: -1 none, 1 left, 2 right, 3 straight, 4 follow lane, 5 change left, 6 change right\n\
    u8 1 inside a junction, else 0\n";

/// Schema of an observation without its image and sweep.
pub(super) const OBSERVATION: &str = "Everything else that was read at a tick. Little-endian, packed.\n\
    u64 tick, from 1\n\
    u64 time, nanoseconds since the route began\n\
    f64 [3] specific force in the ego frame, m/s2, gravity included; x forward, y right, z up\n\
    f64 [3] angular rate in the ego frame, rad/s\n\
    f64 compass, radians from north; not a number before the first fix\n\
    f64 latitude, degrees; f64 longitude, degrees; f64 altitude, meters\n\
    f64 forward speed, m/s\n\
    u8 1 with a camera picture, else 0; u8 1 with a LiDAR sweep, else 0\n\
    u64 tick at which the picture was taken, 0 without one\n\
    u64 tick at which the sweep ended, 0 without one\n";

/// Schema of an observation without its images and sweep, with cameras other than the front one.
pub(super) const OBSERVATION_OF_CAMERAS: &str = "tandem.Observation/2, in which the picture is the front camera's, then\n\
    u8 number of pictures, the front camera's included, then for each:\n\
    u8 length of the camera's name, its name in ASCII\n\
    u64 tick at which the picture was taken\n";

/// Observation without its images and sweep.
pub(super) struct Rest {
    pub(super) observation: Observation,
    pub(super) has_camera: bool,
    pub(super) has_lidar: bool,
}

pub(super) fn encode_plan(plan: &RoutePlan, into: &mut Vec<u8>) {
    put_f64s(&[plan.reference.latitude_deg, plan.reference.longitude_deg], into);
    into.extend((plan.points.len() as u32).to_le_bytes());
    for point in &plan.points {
        let position = point.position;
        put_f64s(&[position.x, position.y, position.z, point.heading_rad], into);
        into.extend((point.command as i8).to_le_bytes());
        into.push(u8::from(point.is_junction));
    }
}

pub(super) fn encode_observation(observation: &Observation, into: &mut Vec<u8>) {
    into.extend(observation.frame.0.to_le_bytes());
    into.extend(nanos(observation.time).to_le_bytes());
    let (imu, gnss) = (&observation.imu, &observation.gnss);
    put_f64s(&imu.acceleration_mps2, into);
    put_f64s(&imu.angular_velocity_radps, into);
    put_f64s(&[imu.compass_rad, gnss.latitude_deg, gnss.longitude_deg, gnss.altitude_m], into);
    put_f64s(&[observation.speed_mps], into);
    let taken = observation.camera(CameraId::FRONT).map(|camera| camera.id.0);
    let ended = observation.lidar.as_ref().map(|lidar| lidar.id.0);
    into.extend([taken, ended].map(|tick| u8::from(tick.is_some())));
    for tick in [taken, ended] {
        into.extend(tick.unwrap_or(0).to_le_bytes());
    }
}

/// Appends name and capture tick of every image of `observation`, in order.
pub(super) fn encode_cameras(observation: &Observation, into: &mut Vec<u8>) {
    into.push(observation.cameras.len() as u8);
    for (id, image) in observation.cameras.iter() {
        into.push(id.as_str().len() as u8);
        into.extend(id.as_str().as_bytes());
        into.extend(image.id.0.to_le_bytes());
    }
}

fn put_f64s(numbers: &[f64], into: &mut Vec<u8>) {
    into.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// Unread fields of a message.
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

pub(super) fn decode_plan(data: &[u8]) -> Result<RoutePlan, String> {
    const POINT_BYTES: usize = 4 * 8 + 2;
    let mut fields = Fields { rest: data };
    let [latitude_deg, longitude_deg] = fields.f64s()?;
    let count = fields.u32()? as usize;
    if count < 2 {
        return Err(format!("{count} points, expected two or more"));
    }
    if fields.rest.len() != count.saturating_mul(POINT_BYTES) {
        return Err(format!("{count} points do not have {} bytes", fields.rest.len()));
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
            other => return Err(format!("unknown maneuver {other}")),
        };
        let is_junction = fields.flag()?;
        Ok(RoutePoint { position: DVec3::new(x, y, z), heading_rad, command, is_junction })
    };
    let points = (0..count).map(point).collect::<Result<_, _>>()?;
    Ok(RoutePlan { points, reference: GeoReference { latitude_deg, longitude_deg } })
}

/// Decodes an image of version 1; the first value is the tick of its observation.
pub(super) fn decode_first_camera(data: &[u8]) -> Result<(u64, CameraFrame), String> {
    let mut fields = Fields { rest: data };
    let (tick, id, captured_at) = (fields.u64()?, FrameId(fields.u64()?), fields.time()?);
    let (width, height) = (fields.u32()?, fields.u32()?);
    let found = fields.rest.len();
    if Some(found) != (width as usize).checked_mul(height as usize).and_then(|n| n.checked_mul(3)) {
        return Err(format!("an image of {width} x {height} pixels does not have {found} bytes"));
    }
    let rgb = fields.rest.to_vec();
    Ok((tick, CameraFrame { id, captured_at, width, height, rgb }))
}

/// Decodes a sweep of version 1; the first value is the tick of its observation.
pub(super) fn decode_first_lidar(data: &[u8]) -> Result<(u64, LidarSweep), String> {
    let mut fields = Fields { rest: data };
    let (tick, id) = (fields.u64()?, FrameId(fields.u64()?));
    let (numbers, rest) = fields.rest.as_chunks::<4>();
    let (points, partial) = numbers.as_chunks::<4>();
    if !rest.is_empty() || !partial.is_empty() {
        return Err(format!("{} bytes are not a multiple of 16", fields.rest.len()));
    }
    let points = points.iter().map(|point| point.map(f32::from_le_bytes)).collect();
    Ok((tick, LidarSweep { id, points }))
}

/// Decodes an observation, the capture tick of each camera's image, and the
/// tick at which the sweep ended.
pub(super) fn decode_observation(data: &[u8]) -> Result<(Rest, Cameras<FrameId>, FrameId), String> {
    let mut fields = Fields { rest: data };
    let rest = decode_rest(&mut fields)?;
    let [taken, ended] = [FrameId(fields.u64()?), FrameId(fields.u64()?)];
    fields.end()?;
    let cameras = match rest.has_camera {
        true => Cameras::one(CameraId::FRONT, taken),
        false => Cameras::NONE,
    };
    Ok((rest, cameras, ended))
}

/// Decodes an observation with cameras other than the front one, as [`decode_observation`].
pub(super) fn decode_observation_of_cameras(
    data: &[u8],
) -> Result<(Rest, Cameras<FrameId>, FrameId), String> {
    let mut fields = Fields { rest: data };
    let rest = decode_rest(&mut fields)?;
    let [_, ended] = [FrameId(fields.u64()?), FrameId(fields.u64()?)];
    let mut cameras = Cameras::NONE;
    let [count] = fields.bytes()?;
    for _ in 0..count {
        let [length] = fields.bytes()?;
        let (name, more) = fields
            .rest
            .split_at_checked(length.into())
            .ok_or_else(|| format!("it ends within a name of {length} bytes"))?;
        fields.rest = more;
        let name = std::str::from_utf8(name).map_err(|error| error.to_string())?;
        let id: CameraId = name.parse().map_err(|error: CameraIdError| error.to_string())?;
        cameras.insert(id, FrameId(fields.u64()?)).map_err(|error| error.to_string())?;
    }
    fields.end()?;
    if rest.has_camera != cameras.get(CameraId::FRONT).is_some() {
        return Err("the camera flag contradicts the list of cameras".to_owned());
    }
    Ok((rest, cameras, ended))
}

/// Decodes an observation of version 1.
pub(super) fn decode_first_observation(data: &[u8]) -> Result<Rest, String> {
    let mut fields = Fields { rest: data };
    let rest = decode_rest(&mut fields)?;
    fields.end()?;
    Ok(rest)
}

fn decode_rest(fields: &mut Fields<'_>) -> Result<Rest, String> {
    let (frame, time) = (FrameId(fields.u64()?), fields.time()?);
    let (acceleration_mps2, angular_velocity_radps) = (fields.f64s()?, fields.f64s()?);
    let compass_rad = fields.f64()?;
    let [latitude_deg, longitude_deg, altitude_m, speed_mps] = fields.f64s()?;
    let (has_camera, has_lidar) = (fields.flag()?, fields.flag()?);
    let observation = Observation {
        frame,
        time,
        cameras: Cameras::NONE,
        lidar: None,
        imu: Imu { acceleration_mps2, angular_velocity_radps, compass_rad },
        gnss: Gnss { latitude_deg, longitude_deg, altitude_m },
        speed_mps,
        truth: None,
    };
    Ok(Rest { observation, has_camera, has_lidar })
}
