//! Interpolates a path as a smooth curve over its length.

use arrayvec::ArrayVec;

/// Maximum number of knots: the points of a path and the ego position before them.
const MAX_KNOTS: usize = 33;

/// A path of up to 32 points that starts at the ego, sampled at equal steps of its length.
///
/// Between points it is a monotone cubic (PCHIP as in SciPy), which does not overshoot. Implemented
/// here because no maintained crate has SciPy's end slopes, on which the steering of the AutoMoT
/// release depends, and because a curve that is built at every tick must not allocate. Lengths are
/// summed in 32 bits as in the release, because the number of steps depends on it.
pub struct PathCurve {
    step_m: f64,
    steps: usize,
    /// Length of the path up to each knot, meters, strictly increasing.
    lengths_m: ArrayVec<f64, MAX_KNOTS>,
    /// x, then y: value and slope at each knot.
    axes: [ArrayVec<[f64; 2], MAX_KNOTS>; 2],
}

/// Added per point, meters, so that lengths increase strictly where points coincide.
const MIN_SPACING_M: f64 = 1e-4;

impl PathCurve {
    /// Returns the curve through the ego position and `path`, in the ego frame, meters. Panics if
    /// `path` is empty or has more than 32 points.
    pub fn new(path: &[[f32; 2]], step_m: f64) -> Self {
        assert!(!path.is_empty(), "a path without points");
        let mut lengths_m = ArrayVec::new();
        let mut axes: [ArrayVec<[f64; 2], MAX_KNOTS>; 2] = Default::default();
        let mut length_m = 0.0_f32;
        let mut last = [0.0_f32; 2];
        for (index, point) in std::iter::once(&[0.0; 2]).chain(path).enumerate() {
            let [dx, dy] = [point[0] - last[0], point[1] - last[1]];
            length_m += (dx * dx + dy * dy).sqrt();
            last = *point;
            let shifted = (f64::from(length_m) + MIN_SPACING_M * index as f64) as f32;
            lengths_m.push(f64::from(shifted));
            for (axis, &value) in axes.iter_mut().zip(point) {
                axis.push([f64::from(value), 0.0]);
            }
        }
        for axis in &mut axes {
            set_slopes(&lengths_m, axis);
        }
        let total_m = lengths_m[lengths_m.len() - 1];
        let steps = ((total_m - step_m) / step_m).ceil().max(0.0) as usize;
        Self { step_m, steps, lengths_m, axes }
    }

    /// Returns the number of samples: one per step, strictly before the end. A path shorter than
    /// one step has one sample, its last point.
    pub fn len(&self) -> usize {
        self.steps.max(1)
    }

    /// Returns false, because a curve has at least one sample.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns the point `index + 1` steps along the path. Panics if `index` is
    /// not below [`len`](Self::len).
    pub fn point(&self, index: usize) -> [f64; 2] {
        assert!(index < self.len(), "point {index} of {}", self.len());
        let last = self.lengths_m.len() - 1;
        if self.steps == 0 {
            return [0, 1].map(|axis: usize| self.axes[axis][last][0]);
        }
        let at_m = self.step_m + index as f64 * self.step_m;
        let right = self.lengths_m.partition_point(|&length_m| length_m <= at_m).clamp(1, last);
        let [from_m, to_m] = [self.lengths_m[right - 1], self.lengths_m[right]];
        [0, 1].map(|axis: usize| {
            hermite(
                self.axes[axis][right - 1],
                self.axes[axis][right],
                to_m - from_m,
                at_m - from_m,
            )
        })
    }
}

/// Evaluates at `t` the cubic with the given `[value, slope]` at both ends of
/// an interval of length `h`.
fn hermite([y0, s0]: [f64; 2], [y1, s1]: [f64; 2], h: f64, t: f64) -> f64 {
    let secant = (y1 - y0) / h;
    let curvature = (s0 + s1 - 2.0 * secant) / h;
    let bend = (secant - s0) / h - curvature;
    y0 + t * (s0 + t * (bend + t * (curvature / h)))
}

/// Sets the slopes of `knots` (`[value, slope]` over `at`): inside, the weighted harmonic mean of
/// the secants, or zero at an extremum; at the ends, a shape-preserving one-sided estimate.
fn set_slopes(at: &[f64], knots: &mut [[f64; 2]]) {
    let last = knots.len() - 1;
    let width = |index: usize| at[index + 1] - at[index];
    let mut secants = [0.0; MAX_KNOTS];
    for (index, secant) in secants.iter_mut().enumerate().take(last) {
        *secant = (knots[index + 1][0] - knots[index][0]) / width(index);
    }
    if last == 1 {
        knots[0][1] = secants[0];
        knots[1][1] = secants[0];
        return;
    }
    for index in 1..last {
        let [before, after] = [secants[index - 1], secants[index]];
        let is_extremum = before * after <= 0.0;
        knots[index][1] = if is_extremum {
            0.0
        } else {
            let weight_before = 2.0 * width(index) + width(index - 1);
            let weight_after = width(index) + 2.0 * width(index - 1);
            (weight_before + weight_after) / (weight_before / before + weight_after / after)
        };
    }
    knots[0][1] = end_slope([width(0), width(1)], [secants[0], secants[1]]);
    knots[last][1] =
        end_slope([width(last - 1), width(last - 2)], [secants[last - 1], secants[last - 2]]);
}

/// Returns the slope at an end from the widths and secants of the two nearest intervals.
fn end_slope([h0, h1]: [f64; 2], [m0, m1]: [f64; 2]) -> f64 {
    let slope = ((2.0 * h0 + h1) * m0 - h0 * m1) / (h0 + h1);
    if slope * m0 <= 0.0 {
        0.0
    } else if m0 * m1 <= 0.0 && slope.abs() > 3.0 * m0.abs() {
        3.0 * m0
    } else {
        slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straight_path_is_sampled_at_equal_steps() {
        let curve = PathCurve::new(&[[0.5, 0.0], [1.0, 0.0]], 0.1);
        assert_eq!(curve.len(), 10);
        for index in 0..curve.len() {
            let [x, y] = curve.point(index);
            assert!((x - 0.1 * (index + 1) as f64).abs() < 1e-3, "{x}");
            assert_eq!(y, 0.0);
        }
    }

    #[test]
    fn path_shorter_than_step_yields_its_last_point() {
        assert_eq!(PathCurve::new(&[[1.0, 1.0]], 0.1).len(), 14);
        let curve = PathCurve::new(&[[0.0, 0.0], [0.0, 0.05]], 0.1);
        assert_eq!(curve.len(), 1);
        assert_eq!(curve.point(0), [0.0, f64::from(0.05_f32)]);
    }

    proptest::proptest! {
        /// A monotone path stays monotone between its points.
        #[test]
        fn curve_does_not_overshoot(gaps in proptest::collection::vec(0.0_f32..3.0, 1..32)) {
            let mut x = 0.0;
            let path: Vec<[f32; 2]> = gaps.iter().map(|gap| { x += gap; [x, 0.5 * x] }).collect();
            let curve = PathCurve::new(&path, 0.1);
            let mut last = 0.0;
            for index in 0..curve.len() {
                let [x, _] = curve.point(index);
                proptest::prop_assert!(x >= last - 1e-9);
                last = x;
            }
        }
    }
}
