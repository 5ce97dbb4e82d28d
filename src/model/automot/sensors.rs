//! Sensors declared by AutoMoT's agent.

use super::image::Size;
use crate::scene::{CameraId, CameraSpec, Cameras, LidarSpec, SensorSuite};

/// Size of the camera image.
pub(super) const CAMERA_SIZE: Size = Size { width: 1024, height: 512 };

/// Camera of AutoMoT's agent, named [`CameraId::FRONT`].
pub const CAMERA: CameraSpec = CameraSpec {
    position_m: [-1.5, 0.0, 2.0],
    yaw_rad: 0.0,
    width: CAMERA_SIZE.width as u32,
    height: CAMERA_SIZE.height as u32,
    fov_deg: 110.0,
};

/// Returns the sensors of AutoMoT's agent.
pub fn sensors() -> SensorSuite {
    SensorSuite { cameras: Cameras::one(CameraId::FRONT, CAMERA), lidar: Some(LIDAR), truth: false }
}

/// LiDAR of AutoMoT's agent.
pub const LIDAR: LidarSpec =
    LidarSpec { position_m: [0.0, 0.0, 2.5], yaw_rad: -std::f64::consts::FRAC_PI_2 };
