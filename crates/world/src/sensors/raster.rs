//! Fills convex polygons in rows of equal pixels, with and without depth.

use super::palette::Rgb;

/// Distance of the near clipping plane, meters.
const NEAR_M: f32 = 0.3;

/// Pixels that [`fill`] writes at once.
const BLOCK: usize = 16;

/// A place in the camera frame: forward, right, up, meters.
pub(super) type Place = [f32; 3];

/// Render target of a pinhole camera.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    focal_px: f32,
    center: [f32; 2],
    /// Inverse depth (1/forward) of what was drawn with depth, per pixel; 0 is infinitely far.
    depth: Vec<f32>,
    /// Rows of `depth` that are not all 0.
    dirty_rows: std::ops::Range<usize>,
    /// Left and right end of the polygon being filled, per row, pixels.
    ends: Vec<[f32; 2]>,
}

impl Canvas {
    /// Creates a canvas with this horizontal field of view.
    pub(crate) fn new(width: usize, height: usize, fov_deg: f64) -> Self {
        let focal_px = (width as f64 / 2.0 / (fov_deg.to_radians() / 2.0).tan()) as f32;
        Self {
            width,
            height,
            focal_px,
            center: [width as f32 / 2.0, height as f32 / 2.0],
            depth: vec![0.0; width * height],
            dirty_rows: 0..0,
            ends: vec![[f32::INFINITY, f32::NEG_INFINITY]; height],
        }
    }

    /// Resets all depths to infinitely far.
    pub(super) fn clear_depth(&mut self) {
        let pixels = self.dirty_rows.start * self.width..self.dirty_rows.end * self.width;
        self.depth[pixels].fill(0.0);
        self.dirty_rows = 0..0;
    }

    /// Fills a convex polygon over whatever was drawn before.
    pub(super) fn paint(&mut self, rgb: &mut [u8], corners: &[Place; 4], color: Rgb) {
        let Some(rows) = self.outline(corners) else { return };
        for row in rows {
            let Some((from, to)) = self.span(row) else { continue };
            let start = row * self.width;
            fill(&mut rgb[(start + from) * 3..(start + to) * 3], color);
        }
    }

    /// Fills a convex planar polygon with a depth test.
    pub(super) fn draw(&mut self, rgb: &mut [u8], corners: &[Place; 4], color: Rgb) {
        let Some(rows) = self.outline(corners) else { return };
        let Some(plane) = self.inverse_depth(corners) else { return };
        self.dirty_rows = if self.dirty_rows.is_empty() {
            rows.clone()
        } else {
            self.dirty_rows.start.min(rows.start)..self.dirty_rows.end.max(rows.end)
        };
        for row in rows {
            let Some((from, to)) = self.span(row) else { continue };
            let start = row * self.width;
            let base = plane[0] + plane[2] * (row as f32 + 0.5);
            let pixels = rgb[(start + from) * 3..(start + to) * 3].as_chunks_mut::<3>().0;
            let depths = &mut self.depth[start + from..start + to];
            for (idx, (pixel, depth)) in pixels.iter_mut().zip(depths).enumerate() {
                let here = base + plane[1] * ((from + idx) as f32 + 0.5);
                if here > *depth {
                    *depth = here;
                    *pixel = color;
                }
            }
        }
    }

    /// Returns 1/forward on the polygon's plane, as `a + b·u + c·v`.
    fn inverse_depth(&self, corners: &[Place; 4]) -> Option<[f32; 3]> {
        let minus = |a: Place, b: Place| [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
        let (p, q) = (minus(corners[1], corners[0]), minus(corners[2], corners[0]));
        let normal =
            [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
        let offset: f32 = normal.iter().zip(corners[0]).map(|(n, c)| n * c).sum();
        if offset.abs() < 1e-6 {
            return None; // Seen edge-on.
        }
        let (right, up) = (normal[1] / self.focal_px, -normal[2] / self.focal_px);
        let at_origin = normal[0] - right * self.center[0] - up * self.center[1];
        Some([at_origin / offset, right / offset, up / offset])
    }

    /// Clips the polygon at the near plane, projects it, and stores its ends per row.
    fn outline(&mut self, corners: &[Place; 4]) -> Option<std::ops::Range<usize>> {
        let mut projected = [[0.0_f32; 2]; 8];
        let mut n = 0;
        let mut keep = |place: Place, focal_px: f32, center: [f32; 2]| {
            let scale = focal_px / place[0];
            projected[n] = [center[0] + place[1] * scale, center[1] - place[2] * scale];
            n += 1;
        };
        for idx in 0..4 {
            let (a, b) = (corners[idx], corners[(idx + 1) % 4]);
            if a[0] >= NEAR_M {
                keep(a, self.focal_px, self.center);
            }
            if (a[0] >= NEAR_M) != (b[0] >= NEAR_M) {
                let part = (NEAR_M - a[0]) / (b[0] - a[0]);
                let cut = [NEAR_M, a[1] + (b[1] - a[1]) * part, a[2] + (b[2] - a[2]) * part];
                keep(cut, self.focal_px, self.center);
            }
        }
        let polygon = &projected[..n];
        let (mut top, mut bottom) = (f32::INFINITY, f32::NEG_INFINITY);
        let (mut left, mut right) = (f32::INFINITY, f32::NEG_INFINITY);
        for &[u, v] in polygon {
            (top, bottom) = (top.min(v), bottom.max(v));
            (left, right) = (left.min(u), right.max(u));
        }
        let first = row_from(top, self.height);
        let end = row_from(bottom, self.height);
        if n < 3 || first >= end || right <= 0.0 || left >= self.width as f32 {
            return None;
        }
        for ends in &mut self.ends[first..end] {
            *ends = [f32::INFINITY, f32::NEG_INFINITY];
        }
        for idx in 0..n {
            // Edges run from top to bottom, so that neighbors compute
            // their common edge identically.
            let (a, b) = (polygon[idx], polygon[(idx + 1) % n]);
            let (a, b) = if (a[1], a[0]) <= (b[1], b[0]) { (a, b) } else { (b, a) };
            let rows = row_from(a[1], self.height)..row_from(b[1], self.height);
            if rows.is_empty() {
                continue;
            }
            let slope = (b[0] - a[0]) / (b[1] - a[1]);
            let mut u = a[0] + slope * (rows.start as f32 + 0.5 - a[1]);
            for ends in &mut self.ends[rows] {
                *ends = [ends[0].min(u), ends[1].max(u)];
                u += slope;
            }
        }
        Some(first..end)
    }

    /// Returns the pixels of `row` whose centers are inside the polygon.
    fn span(&self, row: usize) -> Option<(usize, usize)> {
        let [left, right] = self.ends[row];
        let (from, to) = (row_from(left, self.width), row_from(right, self.width));
        (from < to).then_some((from, to))
    }
}

/// Returns the first pixel of `n` whose center is at or beyond `coordinate`.
#[inline]
fn row_from(coordinate: f32, n: usize) -> usize {
    (coordinate - 0.5).ceil().clamp(0.0, n as f32) as usize
}

/// Sets all pixels of `bytes` to `color`, in blocks that the compiler turns into wide stores.
pub(super) fn fill(bytes: &mut [u8], color: Rgb) {
    let mut block = [0; 3 * BLOCK];
    for pixel in block.as_chunks_mut::<3>().0 {
        *pixel = color;
    }
    let (blocks, rest) = bytes.as_chunks_mut::<{ 3 * BLOCK }>();
    for place in blocks {
        *place = block;
    }
    rest.copy_from_slice(&block[..rest.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb = [255, 0, 0];
    const BLUE: Rgb = [0, 0, 255];

    fn facing(forward: f32, left: f32, right: f32, bottom: f32, top: f32) -> [Place; 4] {
        [
            [forward, left, bottom],
            [forward, right, bottom],
            [forward, right, top],
            [forward, left, top],
        ]
    }

    fn count(rgb: &[u8], color: Rgb) -> usize {
        rgb.as_chunks::<3>().0.iter().filter(|&&pixel| pixel == color).count()
    }

    /// 90 degrees: half the image width spans as many meters as the distance.
    fn canvas() -> (Canvas, Vec<u8>) {
        (Canvas::new(100, 50, 90.0), vec![0; 100 * 50 * 3])
    }

    #[test]
    fn rectangle_covers_the_pixels_it_projects_to() {
        let (mut canvas, mut rgb) = canvas();
        canvas.paint(&mut rgb, &facing(10.0, -2.0, 4.0, -1.0, 3.0), RED);
        assert_eq!(count(&rgb, RED), 30 * 20);
        let pixel = |u: usize, v: usize| rgb[(v * 100 + u) * 3];
        assert_eq!((pixel(39, 20), pixel(40, 20), pixel(69, 20), pixel(70, 20)), (0, 255, 255, 0));
        assert_eq!((pixel(50, 9), pixel(50, 10), pixel(50, 29), pixel(50, 30)), (0, 255, 255, 0));
    }

    #[test]
    fn nearer_polygon_wins_in_either_order() {
        for red_first in [true, false] {
            let (mut canvas, mut rgb) = canvas();
            let red = facing(10.0, -2.0, 4.0, -1.0, 3.0);
            let blue = facing(20.0, -20.0, 20.0, -5.0, 5.0);
            if red_first {
                canvas.draw(&mut rgb, &red, RED);
            }
            canvas.draw(&mut rgb, &blue, BLUE);
            canvas.draw(&mut rgb, &red, RED);
            assert_eq!(count(&rgb, RED), 600);
            canvas.clear_depth();
            assert!(canvas.depth.iter().all(|&depth| depth == 0.0));
        }
    }

    #[test]
    fn polygons_sharing_an_edge_leave_no_gap_and_no_overlap() {
        let (mut canvas, mut rgb) = canvas();
        let corner = |angle: f32| [10.0, 4.0 * angle.cos(), 4.0 * angle.sin()];
        for idx in 0..7 {
            let angle = |idx: i32| idx as f32 * std::f32::consts::TAU / 7.0;
            let apex = [10.0, 0.3, 0.1];
            let before = count(&rgb, [0; 3]);
            let slice = [apex, corner(angle(idx)), corner(angle(idx + 1)), apex];
            canvas.paint(&mut rgb, &slice, [10 + idx as u8; 3]);
            assert!(count(&rgb, [0; 3]) < before);
        }
        let filled = 5000 - count(&rgb, [0; 3]);
        let area = 3.5 * 16.0 * (std::f64::consts::TAU / 7.0).sin() * 25.0;
        assert!((filled as f64 / area - 1.0).abs() < 0.02, "{filled} {area}");
    }

    #[test]
    fn polygons_behind_the_camera_are_clipped() {
        let (mut canvas, mut rgb) = canvas();
        canvas.paint(&mut rgb, &facing(-5.0, -1.0, 1.0, -1.0, 1.0), RED);
        assert_eq!(count(&rgb, RED), 0);
        let road = [[-5.0, -2.0, -1.0], [20.0, -2.0, -1.0], [20.0, 2.0, -1.0], [-5.0, 2.0, -1.0]];
        canvas.paint(&mut rgb, &road, RED);
        assert!(count(&rgb, RED) > 500);
        assert_eq!(rgb[(49 * 100 + 50) * 3], 255);
    }
}
