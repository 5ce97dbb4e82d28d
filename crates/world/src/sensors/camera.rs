//! Cameras: a software renderer for one road.
//!
//! An image is a copied background (1.5 MB, about 0.15 ms), the road as painted polygons,
//! and boxes with a depth buffer. Only depth is computed per pixel, so an image takes about
//! a millisecond on one core.

use super::buffer_pool::BufferPool;
use super::palette::{Palette, Rgb, mix};
use super::raster::{Canvas, Place, fill};
use super::scenery::PropKind;
use super::visibility::{Appearance, Viewpoint, VisibleBox};
use crate::road::Road;
use crate::road::junction::Junction;
use crate::road::lane::Edges;
use crate::road::layout::LANE_WIDTH_M;
use crate::road::station::Station;
use glam::DVec2;
use std::sync::Arc;
use tandem_scene::UprightBox;
use tandem_scene::{CameraFrame, CameraSpec, FrameId, Pose};
use tandem_timing::Timestamp;

/// Rendered length of the road behind and ahead of the ego vehicle, meters.
const ROAD_M: (usize, usize) = (12, 160);

/// Rendered length for cameras whose field of view reaches behind the vehicle, meters.
const ROAD_BEHIND_M: (usize, usize) = (160, 160);

/// Length of a road polygon, meters.
const PIECE_M: usize = 2;

/// Painted pieces per dash, and pieces from one dash to the next.
const DASH: (usize, usize) = (1, 3);

/// Width of painted lines, meters.
const LINE_M: f64 = 0.15;

/// Vehicle lamps and house windows are drawn up to this distance, meters.
const DETAIL_M: f64 = 45.0;

const BODY_COLORS: [Rgb; 8] = [
    [176, 32, 34],
    [38, 66, 128],
    [206, 208, 210],
    [62, 64, 68],
    [236, 236, 232],
    [44, 92, 74],
    [150, 118, 60],
    [92, 110, 140],
];
const HOUSE_COLORS: [Rgb; 6] = [
    [188, 152, 122],
    [150, 92, 74],
    [198, 190, 172],
    [132, 128, 126],
    [170, 124, 90],
    [204, 196, 186],
];
const CLOTHES_COLORS: [Rgb; 5] =
    [[168, 40, 44], [36, 74, 140], [214, 206, 190], [58, 104, 62], [190, 128, 36]];

const GLASS: Rgb = [38, 46, 56];
const TIRE: Rgb = [24, 24, 26];

/// Paint of a strip along the road.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Sidewalk,
    Asphalt,
    White,
    Yellow,
}

/// A painted strip along the road.
#[derive(Clone, Copy)]
struct Strip {
    edges: Edges,
    paint: Paint,
    dashed: bool,
    in_junctions: bool,
}

/// A camera with its renderer, for one route.
pub(crate) struct Camera {
    painter: Painter,
    pool: BufferPool<CameraFrame>,
}

impl Camera {
    /// Creates a camera for `road` under one weather.
    pub(crate) fn new(spec: CameraSpec, road: &Road, palette: Palette) -> Self {
        Self { painter: Painter::new(spec, road, palette), pool: BufferPool::new() }
    }

    /// Renders an image from `viewpoint`; `station` is the road station nearest to it.
    pub(crate) fn render(
        &mut self,
        id: FrameId,
        captured_at: Timestamp,
        road: &Road,
        viewpoint: &Viewpoint,
        station: usize,
        visible: &[VisibleBox],
    ) -> Arc<CameraFrame> {
        let Self { painter, pool } = self;
        let CameraSpec { width, height, .. } = painter.spec;
        let rgb = || vec![0; width as usize * height as usize * 3];
        let fresh = || CameraFrame { id, captured_at, width, height, rgb: rgb() };
        pool.acquire(fresh, |frame| {
            (frame.id, frame.captured_at) = (id, captured_at);
            frame.rgb.copy_from_slice(&painter.background);
            painter.paint_road(&mut frame.rgb, road, viewpoint, station);
            painter.paint_shadows(&mut frame.rgb, visible);
            painter.draw_boxes(&mut frame.rgb, visible);
        })
    }
}

/// Returns true if part of a camera's field of view is behind its own position.
fn sees_behind(spec: &CameraSpec) -> bool {
    spec.yaw_rad.abs() + spec.fov_deg.to_radians() / 2.0 > std::f64::consts::FRAC_PI_2
}

/// Renderer: everything that is constant on a route, and working memory.
struct Painter {
    spec: CameraSpec,
    ego_from_camera: Pose,
    palette: Palette,
    strips: Vec<Strip>,
    road_edges: Edges,
    /// Rendered length of the road behind and ahead of the ego vehicle, meters.
    road_m: (usize, usize),
    background: Vec<u8>,
    canvas: Canvas,
    /// Visible boxes by squared distance; empty between images.
    order: Vec<(f64, usize)>,
}

impl Painter {
    fn new(spec: CameraSpec, road: &Road, palette: Palette) -> Self {
        let (width, height) = (spec.width as usize, spec.height as usize);
        Self {
            spec,
            ego_from_camera: Pose::new(spec.position_m[0], spec.position_m[1], spec.yaw_rad),
            palette,
            strips: strips(road),
            road_edges: road.edges(),
            road_m: if sees_behind(&spec) { ROAD_BEHIND_M } else { ROAD_M },
            background: background(width, height, &palette),
            canvas: Canvas::new(width, height, spec.fov_deg),
            order: Vec::new(),
        }
    }

    /// Converts a place in the ego frame and its height above ground to the camera frame.
    fn place(&self, in_ego: DVec2, height_m: f64) -> Place {
        let place = self.ego_from_camera.inverse_apply(in_ego);
        [place.x as f32, place.y as f32, (height_m - self.spec.position_m[2]) as f32]
    }

    fn paint_road(&mut self, rgb: &mut [u8], road: &Road, viewpoint: &Viewpoint, station: usize) {
        let stations = road.stations();
        // Pieces start at multiples of their length, so that dashes do not move with the vehicle.
        let (behind_m, ahead_m) = self.road_m;
        let first = station.saturating_sub(behind_m) / PIECE_M * PIECE_M;
        let end = (station + ahead_m).min(stations.len());
        let here: Vec<(usize, Section)> = (first..end)
            .step_by(PIECE_M)
            .map(|idx| {
                let Station { pose, z_m, is_junction, .. } = &stations[idx];
                (idx, self.section(viewpoint, pose, *z_m, *is_junction))
            })
            .collect();
        let side_roads: Vec<Vec<Section>> = road
            .junction()
            .into_iter()
            .flat_map(Junction::side_roads)
            .map(|road| {
                let points = road.iter().step_by(4);
                points.map(|&(pose, z_m)| self.section(viewpoint, &pose, z_m, true)).collect()
            })
            .collect();
        let Edges { left_m, right_m } = self.road_edges;
        for paint in [Paint::Sidewalk, Paint::Asphalt] {
            let wider_m = if paint == Paint::Sidewalk { 2.2 } else { 0.0 };
            for pair in side_roads.iter().flat_map(|road| road.windows(2)) {
                let half_m = (right_m - left_m) / 2.0 + wider_m;
                self.paint_piece(
                    rgb,
                    &pair[0],
                    &pair[1],
                    Edges { left_m: -half_m, right_m: half_m },
                    paint,
                );
            }
            self.paint_strips(rgb, &here, |strip| strip.paint == paint);
        }
        // Asphalt is wider inside junctions.
        for pair in here.windows(2).rev().filter(|pair| pair[0].1.is_junction) {
            let wide = Edges { left_m: left_m - 2.0, right_m: right_m + 2.0 };
            self.paint_piece(rgb, &pair[0].1, &pair[1].1, wide, Paint::Asphalt);
        }
        self.paint_strips(rgb, &here, |strip| matches!(strip.paint, Paint::White | Paint::Yellow));
    }

    fn section(&self, viewpoint: &Viewpoint, pose: &Pose, z_m: f64, is_junction: bool) -> Section {
        let place = pose.position;
        let center = self.place(viewpoint.place(place), viewpoint.height_m(place, z_m));
        let right = viewpoint.direction(pose.right());
        let right = right.rotate(DVec2::from_angle(-self.spec.yaw_rad));
        Section { center, right: [right.x as f32, right.y as f32], is_junction }
    }

    fn paint_strips(
        &mut self,
        rgb: &mut [u8],
        sections: &[(usize, Section)],
        chosen: impl Fn(&Strip) -> bool,
    ) {
        for pair in sections.windows(2).rev() {
            let [(idx, near), (_, far)] = pair else { continue };
            for strip_idx in 0..self.strips.len() {
                let strip = self.strips[strip_idx];
                let gap = strip.dashed && (idx / PIECE_M) % DASH.1 >= DASH.0;
                let off = !strip.in_junctions && (near.is_junction || far.is_junction);
                if chosen(&strip) && !gap && !off {
                    self.paint_piece(rgb, near, far, strip.edges, strip.paint);
                }
            }
        }
    }

    fn paint_piece(
        &mut self,
        rgb: &mut [u8],
        near: &Section,
        far: &Section,
        edges: Edges,
        paint: Paint,
    ) {
        if near.center[0] < -20.0 && far.center[0] < -20.0 {
            return;
        }
        let Edges { left_m, right_m } = edges;
        let palette = &self.palette;
        let color = match paint {
            Paint::Sidewalk => palette.sidewalk,
            Paint::Asphalt => palette.asphalt,
            Paint::White => palette.white_paint,
            Paint::Yellow => palette.yellow_paint,
        };
        let color = palette.faded(color, near.center[0].hypot(near.center[1]));
        let corners =
            [near.aside(left_m), near.aside(right_m), far.aside(right_m), far.aside(left_m)];
        self.canvas.paint(rgb, &corners, color);
    }

    fn paint_shadows(&mut self, rgb: &mut [u8], visible: &[VisibleBox]) {
        for VisibleBox { shape, appearance } in visible {
            let distance_m = shape.pose.position.length();
            if matches!(appearance, Appearance::Vehicle { .. }) && distance_m < 80.0 {
                let [x, y, _] = shape.extent_m;
                let corner =
                    |x: f64, y: f64| self.place(shape.pose.apply(DVec2::new(x, y)), shape.bottom_m);
                let (x, y) = (x + 0.1, y + 0.2);
                let corners = [corner(x, y), corner(-x, y), corner(-x, -y), corner(x, -y)];
                let color = self.palette.faded(self.palette.shadow, distance_m as f32);
                self.canvas.paint(rgb, &corners, color);
            }
        }
    }

    /// Draws the nearest boxes first, so that most hidden pixels are never written.
    fn draw_boxes(&mut self, rgb: &mut [u8], visible: &[VisibleBox]) {
        let ego_from_camera = self.ego_from_camera;
        let slope = (self.spec.fov_deg.to_radians() / 2.0).tan();
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        for (idx, VisibleBox { shape, .. }) in visible.iter().enumerate() {
            let place = ego_from_camera.inverse_apply(shape.pose.position);
            let radius_m = shape.radius_m();
            let aside_m = place.y.abs() - slope * place.x;
            if place.x > -radius_m && aside_m < radius_m * (1.0 + slope) {
                order.push((place.length_squared(), idx));
            }
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.canvas.clear_depth();
        for &(_, idx) in &order {
            self.draw_visible(rgb, &visible[idx]);
        }
        self.order = order;
    }

    fn draw_visible(&mut self, rgb: &mut [u8], VisibleBox { shape, appearance }: &VisibleBox) {
        let pick = |colors: &[Rgb], shade: u8| colors[usize::from(shade) % colors.len()];
        match *appearance {
            Appearance::Vehicle { shade } => {
                self.draw_vehicle(rgb, shape, pick(&BODY_COLORS, shade))
            }
            Appearance::Person { shade, on_bicycle } => {
                self.draw_person(rgb, shape, pick(&CLOTHES_COLORS, shade), on_bicycle);
            }
            Appearance::Object { color } => self.draw_box(rgb, shape, color, color),
            Appearance::Signal { color } => self.draw_emissive(rgb, shape, color),
            Appearance::Prop { kind: PropKind::House, shade } => {
                self.draw_house(rgb, shape, pick(&HOUSE_COLORS, shade));
            }
            Appearance::Prop { kind, shade } => {
                let color = match kind {
                    PropKind::Crown => mix([52, 86, 40], [84, 112, 48], f32::from(shade) / 255.0),
                    PropKind::Trunk => [84, 66, 48],
                    PropKind::Lamp | PropKind::House => [86, 88, 90],
                };
                self.draw_box(rgb, shape, color, color);
            }
        }
    }

    fn draw_vehicle(&mut self, rgb: &mut [u8], shape: &UprightBox, color: Rgb) {
        let [x, y, z] = shape.extent_m;
        let height = 2.0 * z;
        // Parts of the box: [back, front] and [bottom, top] as fractions of length and height.
        let part = |(back, front): (f64, f64), (low, high): (f64, f64), width: f64| UprightBox {
            pose: Pose {
                position: shape.pose.apply(DVec2::new(x * (back + front - 1.0), 0.0)),
                ..shape.pose
            },
            bottom_m: shape.bottom_m + height * low,
            extent_m: [x * (front - back), y * width, z * (high - low)],
        };
        self.draw_box(rgb, &part((0.0, 1.0), (0.2, 0.62), 1.0), color, color);
        self.draw_box(rgb, &part((0.12, 0.72), (0.62, 1.0), 0.86), GLASS, color);
        if shape.pose.position.length() < DETAIL_M {
            for axle in [(0.1, 0.26), (0.74, 0.9)] {
                self.draw_box(rgb, &part(axle, (0.0, 0.42), 1.01), TIRE, TIRE);
            }
            for (along, color) in [(-1.0, [196, 24, 20]), (1.0, [240, 236, 214])] {
                for side in [-0.78, 0.78] {
                    let lamp = UprightBox {
                        pose: Pose {
                            position: shape.pose.apply(DVec2::new(along * x, side * y)),
                            ..shape.pose
                        },
                        bottom_m: shape.bottom_m + height * 0.42,
                        extent_m: [0.02, 0.16, 0.07],
                    };
                    self.draw_box(rgb, &lamp, color, color);
                }
            }
        }
    }

    /// Draws legs or a bicycle, clothes above them, and a head.
    fn draw_person(&mut self, rgb: &mut [u8], shape: &UprightBox, color: Rgb, on_bicycle: bool) {
        let [x, y, z] = shape.extent_m;
        let part = |length: f64, width: f64, (low, high): (f64, f64)| UprightBox {
            bottom_m: shape.bottom_m + 2.0 * z * low,
            extent_m: [x * length, y * width, z * (high - low)],
            ..*shape
        };
        let (frame, trousers, skin) = ([44, 46, 52], [52, 56, 74], [206, 164, 136]);
        if on_bicycle {
            self.draw_box(rgb, &part(1.0, 0.25, (0.0, 0.42)), frame, frame);
            self.draw_box(rgb, &part(0.3, 1.0, (0.42, 0.84)), color, color);
            self.draw_box(rgb, &part(0.14, 0.6, (0.84, 1.0)), skin, frame);
        } else {
            self.draw_box(rgb, &part(0.8, 0.8, (0.0, 0.46)), trousers, trousers);
            self.draw_box(rgb, &part(1.0, 1.0, (0.46, 0.85)), color, color);
            self.draw_box(rgb, &part(0.6, 0.6, (0.85, 1.0)), skin, frame);
        }
    }

    /// Draws a plate in its own color, independent of the light.
    fn draw_emissive(&mut self, rgb: &mut [u8], shape: &UprightBox, color: Rgb) {
        let [x, _, z] = shape.extent_m;
        let distance_m = shape.pose.position.length() as f32;
        let at = |x: f64, height_m: f64| self.place(shape.pose.apply(DVec2::new(x, 0.0)), height_m);
        let (low, high) = (shape.bottom_m, shape.bottom_m + 2.0 * z);
        let corners = [at(-x, low), at(x, low), at(x, high), at(-x, high)];
        let color = mix(self.palette.faded(color, distance_m), color, 0.6);
        self.canvas.draw(rgb, &corners, color);
    }

    fn draw_house(&mut self, rgb: &mut [u8], shape: &UprightBox, color: Rgb) {
        self.draw_box(rgb, shape, color, [112, 84, 74]);
        if shape.pose.position.length() > DETAIL_M {
            return;
        }
        let [x, y, z] = shape.extent_m;
        let floors = ((2.0 * z - 1.5) / 2.8) as usize;
        let columns = (2.0 * x / 3.0) as usize;
        // Windows are shallow boxes in the long walls.
        for floor in 0..floors {
            for column in 0..columns {
                let along = (column as f64 + 0.5) / columns as f64 * 2.0 - 1.0;
                let pane = UprightBox {
                    pose: Pose {
                        position: shape.pose.apply(DVec2::new(along * x, 0.0)),
                        ..shape.pose
                    },
                    bottom_m: shape.bottom_m + 2.0 + 2.8 * floor as f64,
                    extent_m: [0.55, y + 0.03, 0.65],
                };
                self.draw_box(rgb, &pane, GLASS, GLASS);
            }
        }
    }

    /// Draws the faces of a box that face the camera.
    fn draw_box(&mut self, rgb: &mut [u8], shape: &UprightBox, color: Rgb, roof: Rgb) {
        let [x, y, _] = shape.extent_m;
        let (low, high) = (shape.bottom_m, shape.top_m());
        let [camera_x, camera_y, camera_z] = self.spec.position_m;
        let eye = shape.pose.inverse_apply(DVec2::new(camera_x, camera_y));
        let distance_m = shape.pose.position.length() as f32;
        let corner =
            |x: f64, y: f64| self.ego_from_camera.inverse_apply(shape.pose.apply(DVec2::new(x, y)));
        let ring = [corner(x, y), corner(-x, y), corner(-x, -y), corner(x, -y)];
        let at = |corner: DVec2, height_m: f64| {
            [corner.x as f32, corner.y as f32, (height_m - camera_z) as f32]
        };
        // Walls from ring[i] to ring[i + 1]: right, back, left, front.
        let faces_camera = [eye.y > y, eye.x < -x, eye.y < -y, eye.x > x];
        let directions =
            [shape.pose.right(), -shape.pose.forward(), -shape.pose.right(), shape.pose.forward()];
        for wall in 0..4 {
            if faces_camera[wall] {
                let (a, b) = (ring[wall], ring[(wall + 1) % 4]);
                let corners = [at(a, low), at(b, low), at(b, high), at(a, high)];
                let sun = directions[wall].dot(DVec2::new(-0.6, -0.8)) as f32;
                let lit = self.palette.lit(color, 0.78 + 0.18 * sun);
                let faded = self.palette.faded(lit, distance_m);
                self.canvas.draw(rgb, &corners, faded);
            }
        }
        for (level, faces_camera, shading) in
            [(high, camera_z > high, 1.0), (low, camera_z < low, 0.5)]
        {
            if faces_camera {
                let faded = self.palette.faded(self.palette.lit(roof, shading), distance_m);
                self.canvas.draw(rgb, &ring.map(|corner| at(corner, level)), faded);
            }
        }
    }
}

/// A cross section of the road in the camera's frame.
#[derive(Clone, Copy)]
struct Section {
    center: Place,
    right: [f32; 2],
    is_junction: bool,
}

impl Section {
    fn aside(&self, aside_m: f64) -> Place {
        let aside = aside_m as f32;
        let [x, y, z] = self.center;
        [x + self.right[0] * aside, y + self.right[1] * aside, z]
    }
}

/// Returns all painted strips along the road.
fn strips(road: &Road) -> Vec<Strip> {
    let Edges { left_m, right_m } = road.edges();
    let strip = |left_m, right_m, paint| {
        let edges = Edges { left_m, right_m };
        Strip { edges, paint, dashed: false, in_junctions: false }
    };
    let line =
        |center_m: f64, paint| strip(center_m - LINE_M / 2.0, center_m + LINE_M / 2.0, paint);
    let mut strips = vec![
        strip(left_m - 2.2, left_m, Paint::Sidewalk),
        strip(right_m, right_m + 2.2, Paint::Sidewalk),
        Strip { in_junctions: true, ..strip(left_m, right_m, Paint::Asphalt) },
    ];
    let lanes = road.driving_lanes();
    let (first, last) = (lanes[0], lanes[lanes.len() - 1]);
    strips.push(line(first.aside_m - LANE_WIDTH_M / 2.0 + 0.2, Paint::White));
    strips.push(line(last.aside_m + LANE_WIDTH_M / 2.0, Paint::White));
    for pair in lanes.windows(2) {
        let between_m = (pair[0].aside_m + pair[1].aside_m) / 2.0;
        let opposite = pair[0].with_route() != pair[1].with_route();
        let paint = if opposite { Paint::Yellow } else { Paint::White };
        let solid = opposite && lanes.len() > 2;
        strips.push(Strip { dashed: !solid, ..line(between_m, paint) });
    }
    strips
}

/// Returns the background: sky above the horizon, grass below.
fn background(width: usize, height: usize, palette: &Palette) -> Vec<u8> {
    let mut rgb = vec![0; width * height * 3];
    let horizon = height as f32 / 2.0;
    for (row, pixels) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let from_horizon = (row as f32 + 0.5 - horizon) / horizon;
        let color = if from_horizon < 0.0 {
            mix(palette.haze, palette.zenith, (-from_horizon).sqrt())
        } else {
            palette.faded(palette.grass, 3.0 / from_horizon)
        };
        fill(pixels, color);
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::road::fixtures::bare_route;
    use glam::DVec3;

    const SPEC: CameraSpec = CameraSpec {
        position_m: [-1.5, 0.0, 2.0],
        yaw_rad: 0.0,
        width: 1024,
        height: 512,
        fov_deg: 110.0,
    };

    fn straight_road() -> Road {
        let key_points = (0..101).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0)).collect();
        Road::new(&bare_route(1, key_points)).unwrap()
    }

    /// Renders what a camera of the ego vehicle sees `along_m` down the road.
    fn image_at(spec: CameraSpec, along_m: f64, visible: &[VisibleBox]) -> Vec<u8> {
        let road = straight_road();
        let pose = Pose::new(along_m, 0.0, 0.0);
        let viewpoint = Viewpoint::new(pose, road.ground(pose.position));
        let station = road.nearest_station(pose.position);
        let mut camera = Camera::new(spec, &road, Palette::new(None));
        let frame = camera.render(FrameId(1), Timestamp::ZERO, &road, &viewpoint, station, visible);
        frame.rgb.clone()
    }

    fn image(visible: &[VisibleBox]) -> Vec<u8> {
        image_at(SPEC, 20.0, visible)
    }

    /// Compares with the pinhole model: pixel = center + focal · (right, down) / forward.
    #[test]
    fn box_covers_the_pixels_of_the_pinhole_model() {
        let shape = UprightBox {
            pose: Pose::new(18.0, 3.0, 0.7),
            bottom_m: 0.0,
            extent_m: [2.0, 1.0, 1.5],
        };
        let appearance = Appearance::Prop { kind: PropKind::Lamp, shade: 0 };
        let (without, with) = (image(&[]), image(&[VisibleBox { shape, appearance }]));
        let changed = (0..1024 * 512)
            .filter(|pixel| without[pixel * 3..pixel * 3 + 3] != with[pixel * 3..pixel * 3 + 3]);
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for pixel in changed {
            for (axis, value) in [pixel % 1024, pixel / 1024].into_iter().enumerate() {
                low[axis] = low[axis].min(value as f64);
                high[axis] = high[axis].max(value as f64 + 1.0);
            }
        }
        let focal = 512.0 / 55.0_f64.to_radians().tan();
        let (mut expected_low, mut expected_high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for (x, y, z) in [-2.0, 2.0]
            .into_iter()
            .flat_map(|x| [-1.0, 1.0].map(|y| (x, y)))
            .flat_map(|(x, y)| [0.0, 3.0].map(|z| (x, y, z)))
        {
            let place = shape.pose.apply(DVec2::new(x, y)) - DVec2::new(-1.5, 0.0);
            let pixel = [512.0 + focal * place.y / place.x, 256.0 - focal * (z - 2.0) / place.x];
            for axis in 0..2 {
                expected_low[axis] = expected_low[axis].min(pixel[axis]);
                expected_high[axis] = expected_high[axis].max(pixel[axis]);
            }
        }
        for axis in 0..2 {
            assert!((low[axis] - expected_low[axis]).abs() <= 1.0, "{low:?} {expected_low:?}");
            assert!((high[axis] - expected_high[axis]).abs() <= 1.0, "{high:?} {expected_high:?}");
        }
    }

    #[test]
    fn road_is_gray_below_and_sky_bright_above_the_horizon() {
        let rgb = image(&[]);
        let pixel = |u: usize, v: usize| &rgb[(v * 1024 + u) * 3..(v * 1024 + u) * 3 + 3];
        let palette = Palette::new(None);
        let road = pixel(512, 440);
        assert!((i32::from(road[0]) - i32::from(palette.asphalt[0])).abs() < 6, "{road:?}");
        assert!(pixel(512, 20)[2] > pixel(512, 20)[0] + 40);
    }

    /// Rows from 3 to 60 m behind the camera, most of them farther than [`ROAD_M`] reaches.
    #[test]
    fn rear_camera_sees_the_road_in_its_lower_middle() {
        let spec = CameraSpec { yaw_rad: std::f64::consts::PI, ..SPEC };
        let rgb = image_at(spec, 100.0, &[]);
        let palette = Palette::new(None);
        let focal = 512.0 / 55.0_f32.to_radians().tan();
        for row in 268..500 {
            let distance_m = 2.0 * focal / (row as f32 + 0.5 - 256.0);
            let asphalt = palette.faded(palette.asphalt, distance_m);
            let pixel = &rgb[(row * 1024 + 512) * 3..][..3];
            let is_asphalt = pixel.iter().zip(asphalt).all(|(a, b)| a.abs_diff(b) < 10);
            assert!(is_asphalt, "row {row}, {distance_m:.1} m: {pixel:?} {asphalt:?}");
        }
    }
}
