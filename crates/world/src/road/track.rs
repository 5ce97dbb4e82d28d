//! Lines that actors follow.

use glam::{DVec2, DVec3, Vec3Swizzles};
use tandem_scene::{Pose, wrap_angle};

/// Approximate distance between two points of a track, meters.
const STEP_M: f64 = 1.0;

/// A position relative to a track.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct TrackPlace {
    /// Meters from the start of the track.
    pub(crate) along_m: f64,
    /// Meters to the right of the track.
    pub(crate) aside_m: f64,
}

impl TrackPlace {
    /// Creates a position on the line itself.
    pub(crate) const fn on_line(along_m: f64) -> Self {
        Self { along_m, aside_m: 0.0 }
    }
}

/// A line in the direction of travel, with a heading at every point.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    places: Vec<DVec3>,
    yaws_rad: Vec<f64>,
    /// Distance between neighboring places, meters.
    step_m: f64,
}

impl Track {
    /// Builds the line through `points`, at least two of which must differ in the plane.
    pub(crate) fn new(points: &[DVec3]) -> Self {
        let mut along_m = vec![0.0];
        for pair in points.windows(2) {
            along_m.push(along_m[along_m.len() - 1] + pair[0].xy().distance(pair[1].xy()));
        }
        let length_m = along_m[along_m.len() - 1];
        assert!(length_m > 0.0, "a track has a length");
        let n = (length_m / STEP_M).round().max(2.0) as usize;
        let step_m = length_m / n as f64;
        let mut from = 0;
        let places: Vec<DVec3> = (0..=n)
            .map(|idx| {
                let wanted_m = (idx as f64 * step_m).min(length_m);
                while from + 2 < points.len() && along_m[from + 1] < wanted_m {
                    from += 1;
                }
                let piece_m = (along_m[from + 1] - along_m[from]).max(1e-9);
                let part = ((wanted_m - along_m[from]) / piece_m).clamp(0.0, 1.0);
                points[from].lerp(points[from + 1], part)
            })
            .collect();
        let flat: Vec<DVec2> = places.iter().map(|place| place.xy()).collect();
        Self { yaws_rad: headings(&flat), places, step_m }
    }

    /// Returns the length of the track, meters.
    pub(crate) fn length_m(&self) -> f64 {
        self.step_m * (self.places.len() - 1) as f64
    }

    /// Returns places about one meter apart.
    pub(crate) fn places(&self) -> &[DVec3] {
        &self.places
    }

    /// Returns the pose `along_m` from the start and `aside_m` to the right, heading along the
    /// track, and the height there. Beyond both ends the track continues straight.
    pub(crate) fn pose_at(&self, along_m: f64, aside_m: f64) -> (Pose, f64) {
        let last = self.places.len() - 1;
        let idx = ((along_m / self.step_m).max(0.0) as usize).min(last - 1);
        let part = along_m / self.step_m - idx as f64;
        let turn = wrap_angle(self.yaws_rad[idx + 1] - self.yaws_rad[idx]);
        let yaw_rad = self.yaws_rad[idx] + turn * part.clamp(0.0, 1.0);
        let place = self.places[idx] + (self.places[idx + 1] - self.places[idx]) * part;
        let position = place.xy() + DVec2::from_angle(yaw_rad).perp() * aside_m;
        (Pose { position, yaw_rad: wrap_angle(yaw_rad) }, place.z)
    }

    /// Returns how far along and to the right of the track `place` is, meters, by
    /// the nearest of all points.
    pub(crate) fn locate(&self, place: DVec2) -> (f64, f64) {
        self.locate_within(place, 0.0, self.length_m())
    }

    /// Like [`locate`](Self::locate), by the nearest point from `from_m` to `to_m`.
    pub(crate) fn locate_within(&self, place: DVec2, from_m: f64, to_m: f64) -> (f64, f64) {
        let last = self.places.len() - 1;
        let index = |along_m: f64| ((along_m / self.step_m).max(0.0) as usize).min(last);
        let (first, end) = (index(from_m), index(to_m));
        let distance = |idx: usize| self.places[idx].xy().distance_squared(place);
        // Search coarsely first: tracks do not turn within three meters.
        let coarse = (first..=end).step_by(3).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        let near = coarse.unwrap_or(first);
        let around = near.saturating_sub(2).max(first)..=(near + 2).min(end);
        let idx = around.min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(near);
        let pose = Pose { position: self.places[idx].xy(), yaw_rad: self.yaws_rad[idx] };
        let offset = pose.inverse_apply(place);
        (idx as f64 * self.step_m + offset.x, offset.y)
    }
}

/// Returns headings along `places`, each from the neighbors two places away: files round to a tenth
/// of a meter, which would make headings over a shorter base jitter.
pub(super) fn headings(places: &[DVec2]) -> Vec<f64> {
    let last = places.len() - 1;
    (0..places.len())
        .map(|idx| {
            let reach = 2.min(idx).min(last - idx).max(1);
            (places[(idx + reach).min(last)] - places[idx.saturating_sub(reach)]).to_angle()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::FRAC_PI_2;

    fn corner() -> Track {
        Track::new(&[DVec3::ZERO, DVec3::new(20.0, 0.0, 0.0), DVec3::new(20.0, 20.0, 2.0)])
    }

    #[test]
    fn offset_place_is_located_on_the_track() {
        let track = corner();
        assert!((track.length_m() - 40.0).abs() < 1e-9);
        for (along_m, aside_m) in [(3.3, -1.0), (10.0, 2.0), (33.7, 0.5)] {
            let (pose, _) = track.pose_at(along_m, aside_m);
            let (found_m, found_aside_m) = track.locate(pose.position);
            assert!((found_m - along_m).abs() < 1e-6, "{found_m} {along_m}");
            assert!((found_aside_m - aside_m).abs() < 1e-6);
        }
    }

    #[test]
    fn track_extends_straight_and_interpolates_height() {
        let track = corner();
        let (before, low) = track.pose_at(-5.0, 0.0);
        let (beyond, high) = track.pose_at(45.0, 1.0);
        assert!(before.position.distance(DVec2::new(-5.0, 0.0)) < 1e-9 && low == 0.0);
        assert!(beyond.position.distance(DVec2::new(19.0, 25.0)) < 1e-9);
        assert!((beyond.yaw_rad - FRAC_PI_2).abs() < 1e-9 && high > 2.0);
        assert!((track.pose_at(30.0, 0.0).1 - 1.0).abs() < 1e-9);
    }
}
