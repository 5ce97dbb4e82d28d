//! A spinning LiDAR: 64 channels, 10 Hz, half a revolution per tick.
//!
//! All objects are upright on level ground, so the rays of one column (one azimuth) share a
//! planar problem: where the column enters and leaves each footprint. A ray then only compares
//! heights. A tick has 30,016 rays, of which 16,500 remain after drop-off; at about 15 ns each
//! that takes a quarter of a millisecond.

use super::buffer_pool::BufferPool;
use super::visibility::VisibleBox;
use crate::noise::Noise;
use glam::DVec2;
use std::f64::consts::{PI, TAU};
use std::sync::Arc;
use tandem_scene::UprightBox;
use tandem_scene::{FrameId, LidarSpec, LidarSweep, Pose};

const CHANNELS: usize = 64;
const HIGHEST_DEG: f64 = 10.0;
const LOWEST_DEG: f64 = -30.0;
const RANGE_M: f32 = 85.0;
/// 600,000 points per second over 64 channels and 20 ticks.
const COLUMNS: usize = 469;
const ATTENUATION_PER_M: f32 = 0.004;
/// Fraction of rays that are lost at any distance, in 65,536ths.
const GENERAL_DROP_OFF: u64 = (0.45 * 65536.0) as u64;
/// Returns weaker than this may be lost as well.
const INTENSITY_LIMIT: f32 = 0.8;
/// Fraction that is lost at intensity 0.
const ZERO_INTENSITY_DROP_OFF: f32 = 0.4;

/// Distances at which a column enters and leaves a box, and the heights of the box.
#[derive(Clone, Copy)]
struct Crossing {
    near_m: f32,
    far_m: f32,
    bottom_m: f32,
    top_m: f32,
}

/// The LiDAR with its precomputed tables.
pub(crate) struct Lidar {
    spec: LidarSpec,
    /// Unit vectors of the columns of a full revolution.
    columns: Vec<[f32; 2]>,
    /// Rise and ray length per horizontal meter of each channel, from the highest down.
    channels: [[f32; 2]; CHANNELS],
    crossings: Vec<Vec<Crossing>>,
    pool: BufferPool<LidarSweep>,
}

impl Lidar {
    /// Computes the tables of a sensor.
    pub(crate) fn new(spec: LidarSpec) -> Self {
        let azimuth = |column: usize| PI * column as f64 / COLUMNS as f64;
        let channel = |idx: usize| {
            let part = idx as f64 / (CHANNELS - 1) as f64;
            let elevation = (HIGHEST_DEG + (LOWEST_DEG - HIGHEST_DEG) * part).to_radians();
            [elevation.tan() as f32, (1.0 / elevation.cos()) as f32]
        };
        Self {
            spec,
            columns: (0..2 * COLUMNS)
                .map(|column| [azimuth(column).cos() as f32, azimuth(column).sin() as f32])
                .collect(),
            channels: std::array::from_fn(channel),
            crossings: vec![Vec::new(); COLUMNS],
            pool: BufferPool::new(),
        }
    }

    /// Scans the half revolution that ends at `frame`: odd frames cover the sensor's right half
    /// (azimuth 0 to π), even frames the left.
    pub(crate) fn sweep(
        &mut self,
        frame: FrameId,
        visible: &[VisibleBox],
        noise: Noise,
    ) -> Arc<LidarSweep> {
        let start = if frame.0 % 2 == 1 { 0 } else { COLUMNS };
        self.cross(start, visible);
        let Self { spec, columns, channels, crossings, pool } = self;
        let height_m = spec.position_m[2] as f32;
        let fresh = || LidarSweep { id: frame, points: Vec::with_capacity(COLUMNS * CHANNELS) };
        pool.acquire(fresh, |sweep| {
            sweep.id = frame;
            sweep.points.clear();
            trace(&columns[start..], crossings, channels, height_m, noise, &mut sweep.points);
        })
    }

    /// Finds where each column passes through boxes.
    fn cross(&mut self, start: usize, visible: &[VisibleBox]) {
        for crossings in &mut self.crossings {
            crossings.clear();
        }
        let [x, y, _] = self.spec.position_m;
        let ego_from_sensor = Pose::new(x, y, self.spec.yaw_rad);
        let start_rad = PI * start as f64 / COLUMNS as f64;
        for VisibleBox { shape, .. } in visible {
            let center = ego_from_sensor.inverse_apply(shape.pose.position);
            let distance = center.length();
            if distance - shape.radius_m() > f64::from(RANGE_M) {
                continue;
            }
            let shape = UprightBox {
                pose: Pose {
                    position: center,
                    yaw_rad: shape.pose.yaw_rad - ego_from_sensor.yaw_rad,
                },
                ..*shape
            };
            let half_rad =
                if distance > shape.radius_m() { (shape.radius_m() / distance).asin() } else { PI };
            let first_rad = (center.to_angle() - half_rad - start_rad).rem_euclid(TAU);
            for first_rad in [first_rad, first_rad - TAU] {
                let per_column = COLUMNS as f64 / PI;
                let first = (first_rad * per_column).ceil().max(0.0) as usize;
                let end = ((first_rad + 2.0 * half_rad) * per_column).floor() + 1.0;
                for column in first..(end.max(0.0) as usize).min(COLUMNS) {
                    let [x, y] = self.columns[start + column];
                    let along = DVec2::new(f64::from(x), f64::from(y));
                    if let Some((near, far)) = pass_through(&shape, along) {
                        self.crossings[column].push(Crossing {
                            near_m: near as f32,
                            far_m: far as f32,
                            bottom_m: shape.bottom_m as f32,
                            top_m: shape.top_m() as f32,
                        });
                    }
                }
            }
        }
    }
}

/// Returns the distances at which a ray from the origin along `along`
/// enters and leaves the footprint.
fn pass_through(shape: &UprightBox, along: DVec2) -> Option<(f64, f64)> {
    let from = shape.pose.inverse_apply(DVec2::ZERO);
    let along = DVec2::new(along.dot(shape.pose.forward()), along.dot(shape.pose.right()));
    let (mut near, mut far) = (0.0_f64, f64::INFINITY);
    for axis in 0..2 {
        let a = (-shape.extent_m[axis] - from[axis]) / along[axis];
        let b = (shape.extent_m[axis] - from[axis]) / along[axis];
        near = near.max(a.min(b));
        far = far.min(a.max(b));
    }
    (near < far).then_some((near, far))
}

/// Traces all rays of half a revolution and appends the returns to `points`.
fn trace(
    columns: &[[f32; 2]],
    crossings: &[Vec<Crossing>],
    channels: &[[f32; 2]; CHANNELS],
    height_m: f32,
    mut noise: Noise,
    points: &mut Vec<[f32; 4]>,
) {
    for (&[cos, sin], crossings) in columns.iter().zip(crossings) {
        let mut bits = 0;
        for (idx, &[rise, length]) in channels.iter().enumerate() {
            if idx % 4 == 0 {
                bits = noise.bits();
            }
            let lost = bits & 0xFFFF < GENERAL_DROP_OFF;
            bits >>= 16;
            if lost {
                continue;
            }
            let mut reach_m = if rise < 0.0 { -height_m / rise } else { f32::INFINITY };
            for crossing in crossings {
                reach_m = reach_m.min(hit(crossing, height_m, rise));
            }
            let distance_m = reach_m * length;
            if distance_m > RANGE_M {
                continue;
            }
            let intensity = (-ATTENUATION_PER_M * distance_m).exp();
            if intensity < INTENSITY_LIMIT {
                let weak = ZERO_INTENSITY_DROP_OFF * (1.0 - intensity / INTENSITY_LIMIT);
                if noise.unit() < f64::from(weak) {
                    continue;
                }
            }
            points.push([reach_m * cos, reach_m * sin, reach_m * rise, intensity]);
        }
    }
}

/// Returns the horizontal distance at which a ray hits the box: its side, or its
/// top or bottom from outside.
#[inline]
fn hit(crossing: &Crossing, height_m: f32, rise: f32) -> f32 {
    let entry_m = height_m + crossing.near_m * rise;
    let level_m = if entry_m > crossing.top_m {
        crossing.top_m
    } else if entry_m < crossing.bottom_m {
        crossing.bottom_m
    } else {
        return crossing.near_m;
    };
    let reach_m = (level_m - height_m) / rise;
    if reach_m >= crossing.near_m && reach_m <= crossing.far_m { reach_m } else { f32::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::super::visibility::Appearance;
    use super::*;

    /// The sensor of the benchmark's models: its x axis points left.
    const SPEC: LidarSpec =
        LidarSpec { position_m: [0.0, 0.0, 2.5], yaw_rad: -std::f64::consts::FRAC_PI_2 };

    fn car_at(x: f64, y: f64, yaw_rad: f64) -> VisibleBox {
        let shape = UprightBox {
            pose: Pose::new(x, y, yaw_rad),
            bottom_m: 0.0,
            extent_m: [2.4, 1.0, 0.75],
        };
        VisibleBox { shape, appearance: Appearance::Vehicle { shade: 0 } }
    }

    /// Returns a full revolution in the ego frame by the documented transform: rotation by
    /// −90 degrees, lift by 2.5 m.
    fn points_in_ego(visible: &[VisibleBox]) -> Vec<[f32; 3]> {
        let mut lidar = Lidar::new(SPEC);
        let halves = [1, 2].map(|frame| {
            lidar.sweep(FrameId(frame), visible, Noise::new(1, 1, frame)).points.clone()
        });
        halves.concat().iter().map(|&[x, y, z, _]| [y, -x, z + 2.5]).collect()
    }

    #[test]
    fn box_returns_lie_on_the_box() {
        for (x, y, yaw) in [(12.0, 0.0, 0.0), (-15.0, 4.0, 1.0), (3.0, -8.0, 2.0), (8.0, 9.0, -0.5)]
        {
            let car = car_at(x, y, yaw);
            let above_ground: Vec<_> =
                points_in_ego(&[car]).into_iter().filter(|point| point[2] > 0.01).collect();
            assert!(above_ground.len() > 100, "{x} {y}: {}", above_ground.len());
            for [px, py, pz] in above_ground {
                let place = DVec2::new(f64::from(px), f64::from(py));
                assert!(car.shape.distance_m(place) < 1e-3, "{place} is not on the car at {x} {y}");
                assert!(pz < 1.501, "{pz}");
            }
        }
    }

    #[test]
    fn rays_match_ray_marching() {
        let scene = [car_at(9.0, 1.0, 0.3), car_at(14.0, -3.0, 1.2), car_at(-6.0, 2.0, 0.0)];
        for [x, y, z] in points_in_ego(&scene) {
            let (x, y, z) = (f64::from(x), f64::from(y), f64::from(z) - 2.5);
            // Walk along the ray in small steps until it hits something.
            let reach = x.hypot(y);
            let inside = |part: f64| {
                let height = 2.5 + z * part;
                height < 0.0
                    || scene.iter().any(|visible| {
                        let place = DVec2::new(x, y) * part;
                        visible.shape.distance_m(place) == 0.0 && height < visible.shape.top_m()
                    })
            };
            let steps = (reach * 50.0) as usize;
            let early =
                (1..steps).map(|step| step as f64 / steps as f64).find(|&part| inside(part));
            assert!(early.is_none_or(|part| (1.0 - part) * reach < 0.1), "{x} {y} {z} {early:?}");
        }
    }

    #[test]
    fn odd_and_even_frames_cover_halves_with_benchmark_drop_off() {
        let mut lidar = Lidar::new(SPEC);
        let odd = lidar.sweep(FrameId(1), &[], Noise::new(1, 1, 1));
        let even = lidar.sweep(FrameId(2), &[], Noise::new(1, 1, 2));
        assert!(odd.points.iter().all(|point| point[1] >= 0.0));
        assert!(even.points.iter().all(|point| point[1] <= 1e-5));
        // 45 of 64 channels reach the ground within 85 m.
        let reaching = lidar
            .channels
            .iter()
            .filter(|[rise, length]| *rise < 0.0 && -2.5 / rise * length < RANGE_M);
        let expected = (reaching.count() * COLUMNS) as f64 * 0.55;
        assert!((odd.points.len() as f64 / expected - 1.0).abs() < 0.02);
        let point = odd.points[0];
        let distance = (point[0].powi(2) + point[1].powi(2) + point[2].powi(2)).sqrt();
        assert!((point[3] - (-0.004 * distance).exp()).abs() < 1e-5);
    }
}
