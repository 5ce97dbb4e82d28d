//! Cyclic replay of observations that were recorded before the loop.
//!
//! Sensor readings are produced before the first tick, so that this does not use the core and caches
//! of the ticks. Each replayed observation gets a new frame id and time. Its readings are copied to
//! buffers that are reused once they are free, as a sensor driver does. At the end of a lap the
//! vehicle jumps back to the first pose, which does not affect the latency of networks.

use std::sync::Arc;
use tandem::scene::{CameraFrame, Cameras, FrameId, LidarSweep, Observation};
use tandem::timing::Timestamp;

/// Number of buffers per camera: those held by an action expert's history and a prefill, and some
/// spare ones. Below the 32 addresses that a session of ONNX Runtime caches.
const CAMERA_BUFFERS: usize = 28;

/// Number of LiDAR buffers: the current sweep, the previous one, and spare ones.
const LIDAR_BUFFERS: usize = 4;

/// Endless source of recorded observations.
pub struct Replay {
    recorded: Vec<Observation>,
    cameras: Cameras<Vec<Arc<CameraFrame>>>,
    lidars: Vec<Arc<LidarSweep>>,
    given: u64,
}

impl Replay {
    /// Creates a replay of `recorded` and allocates all buffers.
    ///
    /// # Panics
    /// If there are no observations in `recorded`.
    pub fn new(recorded: Vec<Observation>) -> Self {
        assert!(!recorded.is_empty(), "a replay needs observations");
        let camera = |like: &CameraFrame| {
            Arc::new(CameraFrame {
                id: FrameId(0),
                captured_at: Timestamp::ZERO,
                width: like.width,
                height: like.height,
                rgb: like.rgb.clone(),
            })
        };
        let points = recorded.iter().filter_map(|o| Some(o.lidar.as_ref()?.points.len())).max();
        let lidar = |most: usize| {
            let mut points = vec![[0.0; 4]; most];
            points.clear();
            Arc::new(LidarSweep { id: FrameId(0), points })
        };
        let buffers = |like: &CameraFrame| (0..CAMERA_BUFFERS).map(|_| camera(like)).collect();
        let mut cameras = Cameras::NONE;
        for (id, like) in recorded.iter().flat_map(|seen| seen.cameras.iter()) {
            if cameras.get(id).is_none() {
                // Cameras beyond the maximum per observation get no buffers; their images are
                // allocated at each replay.
                let _ = cameras.insert(id, buffers(like));
            }
        }
        let lidars = match points {
            Some(most) => (0..LIDAR_BUFFERS).map(|_| lidar(most)).collect(),
            None => Vec::new(),
        };
        Self { recorded, cameras, lidars, given: 0 }
    }

    /// Returns the number of different observations.
    pub fn distinct(&self) -> usize {
        self.recorded.len()
    }

    /// Returns the next observation, as if captured at `time`. Allocates only
    /// if all buffers are in use.
    pub fn next(&mut self, time: Timestamp) -> Observation {
        let from = &self.recorded[(self.given % self.recorded.len() as u64) as usize];
        self.given += 1;
        let frame = FrameId(self.given);
        let cameras = from.cameras.map(|name, camera| {
            // If the image size of a camera changes, only the first size has buffers.
            let is_alike = |buffer: &CameraFrame| {
                (buffer.width, buffer.height) == (camera.width, camera.height)
            };
            let buffers = self.cameras.get_mut(name).filter(|buffers| is_alike(&buffers[0]));
            let buffers = buffers.map_or(&mut [][..], |buffers| buffers);
            free(buffers, |buffer: &mut CameraFrame| {
                (buffer.id, buffer.captured_at) = (frame, time);
                buffer.rgb.copy_from_slice(&camera.rgb);
            })
            .unwrap_or_else(|| {
                let CameraFrame { width, height, .. } = **camera;
                let rgb = camera.rgb.clone();
                Arc::new(CameraFrame { id: frame, captured_at: time, width, height, rgb })
            })
        });
        let lidar = from.lidar.as_ref().map(|lidar| {
            free(&mut self.lidars, |buffer: &mut LidarSweep| {
                buffer.id = frame;
                buffer.points.clear();
                buffer.points.extend_from_slice(&lidar.points);
            })
            .unwrap_or_else(|| Arc::new(LidarSweep { id: frame, points: lidar.points.clone() }))
        });
        Observation { frame, time, cameras, lidar, truth: None, ..*from }
    }
}

/// Fills and returns a buffer that is not in use; `None` if all are in use.
fn free<T>(buffers: &mut [Arc<T>], fill: impl FnOnce(&mut T)) -> Option<Arc<T>> {
    let index = buffers.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some())?;
    fill(Arc::get_mut(&mut buffers[index]).expect("the buffer has no other owner"));
    Some(Arc::clone(&buffers[index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem::scene::{CameraId, Gnss, Imu};

    fn seen(value: u8) -> Observation {
        let (id, captured_at) = (FrameId(9), Timestamp::ZERO);
        let rgb = vec![value; 12];
        let camera = CameraFrame { id, captured_at, width: 2, height: 2, rgb };
        let points = vec![[f32::from(value); 4]; usize::from(value)];
        Observation {
            frame: id,
            time: captured_at,
            cameras: Cameras::one(CameraId::FRONT, Arc::new(camera)),
            lidar: Some(Arc::new(LidarSweep { id, points })),
            imu: Imu::default(),
            gnss: Gnss::default(),
            speed_mps: f64::from(value),
            truth: None,
        }
    }

    #[test]
    fn laps_repeat_readings_under_new_frames() {
        let mut replay = Replay::new(vec![seen(3), seen(5)]);
        let mut held = Vec::new();
        for tick in 0..100u64 {
            let time = Timestamp::after(std::time::Duration::from_millis(50 * tick));
            let observation = replay.next(time);
            let expected = if tick % 2 == 0 { 3 } else { 5 };
            let camera = observation.camera(CameraId::FRONT).unwrap();
            assert_eq!((camera.id, camera.captured_at), (FrameId(tick + 1), time));
            assert_eq!((camera.rgb[11], observation.speed_mps), (expected, f64::from(expected)));
            assert_eq!(observation.lidar.as_ref().unwrap().points.len(), usize::from(expected));
            held.push(observation); // More than there are buffers: none in use is overwritten.
        }
        for (tick, observation) in held.iter().enumerate() {
            let camera = observation.camera(CameraId::FRONT).unwrap();
            assert_eq!(camera.id, FrameId(tick as u64 + 1));
            assert_eq!(camera.rgb, vec![if tick % 2 == 0 { 3 } else { 5 }; 12]);
        }
    }

    #[test]
    fn each_camera_keeps_its_own_images() {
        let id = CameraId::named("rear");
        let mut both = seen(3);
        let rgb = vec![9; 3];
        let rear =
            CameraFrame { id: FrameId(9), captured_at: Timestamp::ZERO, width: 1, height: 1, rgb };
        both.cameras.insert(id, Arc::new(rear)).unwrap();
        let mut replay = Replay::new(vec![both]);
        for tick in 1..100 {
            let observation = replay.next(Timestamp::ZERO);
            let front = observation.camera(CameraId::FRONT).unwrap();
            let rear = observation.camera(id).unwrap();
            assert_eq!((front.id, rear.id), (FrameId(tick), FrameId(tick)));
            assert_eq!((&front.rgb[..], &rear.rgb[..]), (&[3; 12][..], &[9; 3][..]));
        }
    }

    #[test]
    fn changing_camera_names_and_sizes_are_replayed() {
        let recorded: Vec<_> = (0..12_u8)
            .map(|tick| {
                let (width, height) = (1 + u32::from(tick), 1);
                let rgb = vec![tick; 3 * width as usize];
                let (id, captured_at) = (FrameId(1), Timestamp::ZERO);
                let image = Arc::new(CameraFrame { id, captured_at, width, height, rgb });
                let mut cameras = Cameras::one(CameraId::FRONT, Arc::clone(&image));
                cameras.insert(format!("cam{tick}").parse().unwrap(), image).unwrap();
                Observation { cameras, ..seen(3) }
            })
            .collect();
        let mut replay = Replay::new(recorded.clone());
        for written in recorded.iter().cycle().take(30) {
            let observation = replay.next(Timestamp::ZERO);
            let images =
                |from: &Observation| from.cameras.map(|_, image| (image.width, image.rgb.clone()));
            assert_eq!(images(&observation), images(written));
        }
    }
}
