//! Types for the verification of any model family: inputs, differences of outputs, and limits.
//!
//! A [`Comparison`] contains numbers; [`Limits`] decide whether they pass. Vectors are compared per
//! token, because one wrong token can spoil a trajectory without affecting a mean.

use serde::{Deserialize, Serialize};

/// Inputs of a verification.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RecordingInputs {
    /// Seed of scenes, routes and speeds.
    pub seed: u64,
    /// Number of prompts, each with its own scene, route and speed; the first one is at standstill.
    pub prompts: usize,
}

/// Comparison of two models of one family.
pub trait Comparison {
    /// Returns the named vectors in the order of computation, including [`layers`](Self::layers).
    fn vectors(&self) -> Vec<(String, Difference)>;

    /// Returns the layers of the prefix KV cache.
    fn layers(&self) -> &[LayerDifference];

    /// Returns the named points of trajectories.
    fn points(&self) -> Vec<(&'static str, PointDifference)>;

    /// Returns the decision tokens. They have no limit, because they do not affect driving.
    fn decisions(&self) -> Option<Decisions>;

    /// Returns the contents of the accuracy file of an engine folder.
    fn to_json(&self) -> serde_json::Value;
}

impl dyn Comparison {
    /// Returns every number that exceeds its limit, in the order of computation: the first one is
    /// where the two models diverge.
    pub fn excesses(&self, limits: &Limits) -> Vec<Excess> {
        let mut found = Vec::new();
        let mut excess = |quantity: &str, measure, value: f64, limit: f64| {
            found.push(Excess { quantity: quantity.to_owned(), measure, value, limit });
        };
        for (quantity, difference) in self.vectors() {
            if difference.not_finite > 0 {
                excess(&quantity, "vectors not finite", difference.not_finite as f64, 0.0);
            }
            if difference.min_cosine < limits.min_cosine {
                excess(&quantity, "least cosine", difference.min_cosine, limits.min_cosine);
            }
        }
        for (quantity, points) in self.points() {
            if points.not_finite > 0 {
                excess(quantity, "points not finite", points.not_finite as f64, 0.0);
            }
            if points.max_relative > limits.max_point_distance {
                let limit = limits.max_point_distance;
                excess(quantity, "relative distance", points.max_relative, limit);
            }
        }
        found
    }
}

/// Limits of the differences between two models.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Minimum cosine of two corresponding vectors.
    pub min_cosine: f64,
    /// Maximum distance of corresponding trajectory points, relative to the distance from the ego
    /// vehicle or to one meter, whichever is larger.
    pub max_point_distance: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_cosine: 0.999, max_point_distance: 0.01 }
    }
}

/// Difference of corresponding vectors, one per token and head.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// Maximum difference of two numbers.
    pub max_abs: f64,
    /// Minimum cosine of two vectors: 1 for two zero vectors, 0 if only one is zero.
    pub min_cosine: f64,
    /// Vectors with a NaN or an infinity on either side, which the fields above exclude.
    pub not_finite: u64,
    pub vectors: u64,
}

impl Default for Difference {
    fn default() -> Self {
        Self { max_abs: 0.0, min_cosine: 1.0, not_finite: 0, vectors: 0 }
    }
}

impl Difference {
    /// Adds the vectors of `width` numbers of `engine` and `reference`.
    /// Panics if the lengths differ.
    pub fn add(&mut self, engine: &[f32], reference: &[f32], width: usize) {
        assert_eq!(engine.len(), reference.len(), "compared tensors have one shape");
        for (a, b) in engine.chunks_exact(width).zip(reference.chunks_exact(width)) {
            self.vectors += 1;
            if !a.iter().chain(b).all(|value| value.is_finite()) {
                self.not_finite += 1;
                continue;
            }
            let differences = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
            self.max_abs = differences.fold(self.max_abs, f64::max);
            self.min_cosine = self.min_cosine.min(cosine(a, b));
        }
    }
}

/// Returns the cosine of the angle between two vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a == b {
        return 1.0; // Also two zero vectors, and without rounding errors.
    }
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    if lengths == 0.0 { 0.0 } else { (dot(a, b) / lengths).clamp(-1.0, 1.0) }
}

/// Difference of corresponding trajectory points.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct PointDifference {
    /// Maximum distance of two points, meters.
    pub max_distance_m: f64,
    /// Maximum distance relative to the reference point's distance from the ego vehicle or to one
    /// meter, whichever is larger.
    pub max_relative: f64,
    /// Points with a NaN or an infinity on either side, which the fields above exclude.
    pub not_finite: u64,
    pub points: u64,
}

impl PointDifference {
    /// Adds the points of `engine` and `reference`: interleaved `x, y` in the ego frame, meters.
    pub fn add(&mut self, engine: &[f32], reference: &[f32]) {
        for (a, b) in engine.as_chunks::<2>().0.iter().zip(reference.as_chunks::<2>().0) {
            self.points += 1;
            if !a.iter().chain(b).all(|value| value.is_finite()) {
                self.not_finite += 1;
                continue;
            }
            let [a, b] = [a, b].map(|point| point.map(f64::from));
            let distance = (a[0] - b[0]).hypot(a[1] - b[1]);
            self.max_distance_m = self.max_distance_m.max(distance);
            self.max_relative = self.max_relative.max(distance / b[0].hypot(b[1]).max(1.0));
        }
    }
}

/// Difference of one layer of the prefix KV cache.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct LayerDifference {
    pub keys: Difference,
    pub values: Difference,
}

/// Comparison of decision tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Decisions {
    pub equal: u64,
    pub total: u64,
}

/// A number that exceeds its limit.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Excess {
    /// Compared quantity, for example `keys of layer 3`.
    pub quantity: String,
    pub measure: &'static str,
    pub value: f64,
    pub limit: f64,
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Six decimals are finer than any limit; the accuracy file has the exact value.
        let value = (self.value * 1e6).round() / 1e6;
        write!(f, "{}: {} {value}, limit {}", self.quantity, self.measure, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_of_zero_vectors() {
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 0.0]), 1.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(cosine(&[1.0, 0.0], &[-2.0, 0.0]), -1.0);
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn difference_keeps_worst_vector_and_counts_non_finite() {
        let mut difference = Difference::default();
        difference.add(&[1.0, 0.0, 0.0, 2.0], &[1.0, 0.0, 0.0, -1.0], 2);
        assert_eq!((difference.max_abs, difference.min_cosine), (3.0, -1.0));
        let mut difference = Difference::default();
        difference.add(&[1.0, f32::NAN, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0], 2);
        let expected = Difference { not_finite: 1, vectors: 2, ..Difference::default() };
        assert_eq!(difference, expected);
    }

    #[test]
    fn point_distance_is_relative_to_at_least_one_meter() {
        let mut points = PointDifference::default();
        points.add(&[10.0, 0.1, 0.0, 0.02], &[10.0, 0.0, 0.0, 0.0]);
        assert!((points.max_distance_m - 0.1).abs() < 1e-6, "{points:?}");
        assert!((points.max_relative - 0.02).abs() < 1e-6, "{points:?}");
    }
}
