//! LiDAR histogram of the BEV encoder.
//!
//! At 20 ticks per second the sensor delivers half a revolution per tick. The previous half is kept
//! in the ego frame of its tick and transformed by the filtered poses; both halves are counted.

use crate::scene::{LidarSpec, LidarSweep, Pose, wrap_angle};
use glam::DVec2;

/// A point in an ego frame: x forward, y right, z up, meters.
pub type EgoPoint = [f64; 3];

/// Grid and limits of the histogram. Names in parentheses are keys of `bev_config.json`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HistogramConfig {
    /// Rear and front edge of the grid (`min_x`, `max_x`), meters.
    pub x_range_m: [f64; 2],
    /// Left and right edge of the grid (`min_y`, `max_y`), meters.
    pub y_range_m: [f64; 2],
    /// Cells per meter (`pixels_per_meter`).
    pub cells_per_meter: f64,
    /// Number of points at which a cell is saturated (`hist_max_per_pixel`).
    pub full_cell_points: u32,
    /// Height above which points are obstacles (`lidar_split_height`), meters.
    pub split_height_m: f64,
    /// Height from which on points are dropped (`max_height_lidar`), meters.
    pub max_height_m: f64,
    /// Adds a first channel with the points that are not obstacles (`use_ground_plane`).
    pub ground_plane: bool,
}

impl Default for HistogramConfig {
    /// Returns the values of the AutoMoT release.
    fn default() -> Self {
        Self {
            x_range_m: [-32.0, 32.0],
            y_range_m: [-32.0, 32.0],
            cells_per_meter: 4.0,
            full_cell_points: 5,
            split_height_m: 0.2,
            max_height_m: 100.0,
            ground_plane: false,
        }
    }
}

impl HistogramConfig {
    /// Returns the shape `[channels, y cells, x cells]`.
    pub fn shape(&self) -> [usize; 3] {
        let cells = |[low, high]: [f64; 2]| ((high - low) * self.cells_per_meter) as usize;
        [1 + usize::from(self.ground_plane), cells(self.y_range_m), cells(self.x_range_m)]
    }
}

impl HistogramConfig {
    /// Returns true if a point at height `z` is counted; most points are ground and are not.
    fn counts(&self, z: f64) -> bool {
        z < self.max_height_m && (z > self.split_height_m || self.ground_plane)
    }
}

/// Transform `ego_from_sensor` of a mounted sensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Mount {
    sin: f64,
    cos: f64,
    position_m: [f64; 3],
}

impl Mount {
    /// Returns the mount of a sensor.
    pub fn new(spec: &LidarSpec) -> Self {
        let (sin, cos) = spec.yaw_rad.sin_cos();
        Self { sin, cos, position_m: spec.position_m }
    }

    /// Transforms a LiDAR return to the ego frame and drops its intensity.
    pub fn ego_from_sensor(&self, point: [f32; 4]) -> EgoPoint {
        let [x, y, z, _] = point.map(f64::from);
        let [mount_x, mount_y, mount_z] = self.position_m;
        [self.cos * x - self.sin * y + mount_x, self.sin * x + self.cos * y + mount_y, z + mount_z]
    }
}

/// Transforms points from one ego frame to a later one as the release does; both
/// poses are `world_from_ego`.
///
/// The release adds the translation, expressed in the *later* frame, before it rotates the point. A
/// rigid transform would rotate first. The model is trained on this variant; within a tick of 0.05
/// s the two differ by the distance driven times the angle turned, some centimeters at most.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Alignment {
    driven: DVec2,
    /// Unit vector of the later frame's x axis in the earlier frame.
    forward: DVec2,
}

impl Alignment {
    /// Returns the transform from the `previous` ego frame to the `current` one.
    pub fn new(previous: &Pose, current: &Pose) -> Self {
        let turned = Pose::new(0.0, 0.0, wrap_angle(current.yaw_rad - previous.yaw_rad));
        Self { driven: current.inverse_apply(previous.position), forward: turned.forward() }
    }

    /// Transforms a point to the current frame.
    pub fn apply(&self, [x, y, z]: EgoPoint) -> EgoPoint {
        let offset = DVec2::new(x, y) + self.driven;
        [offset.dot(self.forward), offset.dot(self.forward.perp()), z]
    }
}

/// Counts points per cell.
pub struct Histogram {
    config: HistogramConfig,
    x: Axis,
    y: Axis,
}

impl Histogram {
    /// Creates a histogram and computes its cell edges.
    pub fn new(config: HistogramConfig) -> Self {
        let [_, rows, columns] = config.shape();
        let x = Axis::new(config.x_range_m, columns, config.cells_per_meter);
        let y = Axis::new(config.y_range_m, rows, config.cells_per_meter);
        Self { config, x, y }
    }

    /// Counts `points` into `cells`, `[channels, y cells, x cells]`, where 1 is a saturated cell.
    /// Cells are half-open, except the last one of each axis, which includes its upper edge. Panics
    /// if `cells` does not have the [shape](HistogramConfig::shape) of the configuration.
    pub fn write(&self, points: impl IntoIterator<Item = EgoPoint>, cells: &mut [f32]) {
        let [channels, rows, columns] = self.config.shape();
        assert_eq!(cells.len(), channels * rows * columns, "the histogram has another shape");
        cells.fill(0.0);
        let full = self.config.full_cell_points as f32;
        for [x, y, z] in points {
            if !self.config.counts(z) {
                continue;
            }
            let channel = if z > self.config.split_height_m { channels - 1 } else { 0 };
            if let (Some(row), Some(column)) = (self.y.cell(y), self.x.cell(x)) {
                let value = &mut cells[(channel * rows + row) * columns + column];
                // Converts to a count, increments it and converts back: exact for any count up to
                // 255, and saves a second pass over all cells.
                let count = (*value * full + 0.5) as u32 + 1;
                *value = (count as f32).min(full) / full;
            }
        }
    }
}

/// Cells along one axis.
struct Axis {
    low: f64,
    per_meter: f64,
    /// One more than the number of cells.
    edges: Vec<f64>,
}

impl Axis {
    fn new([low, _]: [f64; 2], cells: usize, per_meter: f64) -> Self {
        let edges = (0..=cells).map(|index| low + index as f64 / per_meter).collect();
        Self { low, per_meter, edges }
    }

    /// Returns the cell of `value`, or `None` outside the grid.
    fn cell(&self, value: f64) -> Option<usize> {
        let cells = self.edges.len() - 1;
        if !(self.low..=self.edges[cells]).contains(&value) {
            return None;
        }
        // Rounding of the difference may be off by one cell; the edges decide.
        let guess = (((value - self.low) * self.per_meter) as usize).min(cells - 1);
        if value < self.edges[guess] {
            Some(guess - 1)
        } else if guess + 1 < cells && value >= self.edges[guess + 1] {
            Some(guess + 1)
        } else {
            Some(guess)
        }
    }
}

/// The two latest half sweeps.
pub struct SweepPair {
    mount: Mount,
    histogram: Histogram,
    /// Counted points of the half sweeps.
    current: Vec<EgoPoint>,
    previous: Vec<EgoPoint>,
    previous_pose: Option<Pose>,
    dropped_points: u64,
}

/// Maximum number of LiDAR returns per tick; half a revolution of CARLA's
/// sensor has at most 30 000 rays.
pub const MAX_POINTS_PER_TICK: usize = 32_768;

impl SweepPair {
    /// Allocates the memory of two half sweeps.
    pub fn new(mount: &LidarSpec, config: HistogramConfig) -> Self {
        let room = || Vec::with_capacity(MAX_POINTS_PER_TICK);
        Self {
            mount: Mount::new(mount),
            histogram: Histogram::new(config),
            current: room(),
            previous: room(),
            previous_pose: None,
            dropped_points: 0,
        }
    }

    /// Adds the half sweep of this tick and writes the histogram of it and the previous one, if
    /// any, in the ego frame of `world_from_ego`. Panics if `histogram` does not have the
    /// [shape](HistogramConfig::shape) of the configuration.
    pub fn push(&mut self, sweep: &LidarSweep, world_from_ego: &Pose, histogram: &mut [f32]) {
        let used = sweep.points.len().min(MAX_POINTS_PER_TICK);
        self.dropped_points += (sweep.points.len() - used) as u64;
        self.current.clear();
        let mount_z = self.mount.position_m[2];
        let counting = sweep.points[..used]
            .iter()
            .filter(|point| self.histogram.config.counts(f64::from(point[2]) + mount_z));
        self.current.extend(counting.map(|&point| self.mount.ego_from_sensor(point)));
        let alignment =
            Alignment::new(self.previous_pose.as_ref().unwrap_or(world_from_ego), world_from_ego);
        let previous = self.previous.iter().map(|&point| alignment.apply(point));
        self.histogram.write(self.current.iter().copied().chain(previous), histogram);
        std::mem::swap(&mut self.current, &mut self.previous);
        self.previous_pose = Some(*world_from_ego);
    }

    /// Returns the number of LiDAR returns dropped because of
    /// [`MAX_POINTS_PER_TICK`], over all ticks.
    pub fn dropped_points(&self) -> u64 {
        self.dropped_points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_belongs_to_next_cell_and_upper_edge_to_last() {
        let check = |value, expected| {
            let axis = Axis::new([-32.0, 32.0], 256, 4.0);
            assert_eq!(axis.cell(value), expected, "{value}");
        };
        check(-32.0, Some(0));
        check(-31.75, Some(1));
        check(0.0, Some(128));
        check(-1e-17, Some(127)); // The difference to the edge rounds up to the next cell.
        check(32.0, Some(255));
        check(32.0_f64.next_up(), None);
        check((-32.0_f64).next_down(), None);
        check(f64::NAN, None);
    }

    #[test]
    fn ground_channel_comes_first() {
        let config = HistogramConfig { ground_plane: true, ..HistogramConfig::default() };
        let mut histogram = vec![0.0; 2 * 256 * 256];
        Histogram::new(config).write([[0.0, 0.0, 0.2], [0.0, 0.0, 0.3]], &mut histogram);
        assert_eq!(histogram[128 * 256 + 128], 0.2);
        assert_eq!(histogram[(256 + 128) * 256 + 128], 0.2);
    }

    #[test]
    fn previous_half_stays_fixed_in_world() {
        let mount = LidarSpec { position_m: [0.0, 0.0, 2.5], yaw_rad: 0.0 };
        let mut pair = SweepPair::new(&mount, HistogramConfig::default());
        let mut histogram = vec![0.0; 256 * 256];
        let sweep = |points: &[[f32; 4]]| LidarSweep {
            id: crate::scene::FrameId(0),
            points: points.to_vec(),
        };
        pair.push(&sweep(&[[10.1, 0.1, 0.0, 1.0]]), &Pose::new(0.0, 0.0, 0.0), &mut histogram);
        assert_eq!(histogram[128 * 256 + 168], 0.2);
        pair.push(&sweep(&[]), &Pose::new(4.0, 0.0, 0.0), &mut histogram);
        assert_eq!(histogram[128 * 256 + 168], 0.0);
        assert_eq!(histogram[128 * 256 + 152], 0.2);
        pair.push(&sweep(&[]), &Pose::new(4.0, 0.0, 0.0), &mut histogram);
        assert!(histogram.iter().all(|&value| value == 0.0));
    }
}
