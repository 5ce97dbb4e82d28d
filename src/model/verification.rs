//! What verification of any model family speaks in: what is driven, how two models' answers differ,
//! and how near is near enough.
//!
//! A [`Comparison`] is only numbers; [`Limits`] turn it into a verdict. Directions are compared
//! token by token, because one wrong token spoils a trajectory without showing in a mean.

use serde::{Deserialize, Serialize};

/// What is driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RecordingInputs {
    /// Decides scenes, routes and speeds.
    pub seed: u64,
    /// Prompts, each with its own scene, route and speed; the first one stands still.
    pub prompts: usize,
}

/// Everything that was compared of two models of one family.
pub trait Comparison {
    /// Everything that is compared by direction, with its name, in the order of computation; the
    /// [`layers`](Self::layers) included.
    fn vectors(&self) -> Vec<(String, Difference)>;

    /// Layers of the prefix KV cache.
    fn layers(&self) -> &[LayerDifference];

    /// Points of trajectories, with their name.
    fn points(&self) -> Vec<(&'static str, PointDifference)>;

    /// Decision tokens; no limit applies to them, since nothing that drives reads them.
    fn decisions(&self) -> Option<Decisions>;

    /// All of it, as the accuracy file of an engine folder keeps it.
    fn to_json(&self) -> serde_json::Value;
}

impl dyn Comparison {
    /// Every number past its limit, in the order in which the networks compute: the first is where
    /// the two sides part.
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

/// How near is near enough.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Least cosine between any two vectors that correspond.
    pub min_cosine: f64,
    /// Most that a trajectory point may be away, as a part of its distance from the ego vehicle or
    /// of one meter, whichever is longer.
    pub max_point_distance: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_cosine: 0.999, max_point_distance: 0.01 }
    }
}

/// Vectors (one per token, of one head where there are heads) that correspond.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// Largest difference of two numbers.
    pub max_abs: f64,
    /// Least cosine of two vectors: 1 for two zero vectors, 0 if only one is zero.
    pub min_cosine: f64,
    /// Vectors with a NaN or an infinity on either side, which the two numbers above leave out.
    pub not_finite: u64,
    /// Vectors compared.
    pub vectors: u64,
}

impl Default for Difference {
    fn default() -> Self {
        Self { max_abs: 0.0, min_cosine: 1.0, not_finite: 0, vectors: 0 }
    }
}

impl Difference {
    /// Takes in the vectors of `width` numbers that `engine` and `reference` are made of.
    ///
    /// # Panics
    /// If the two differ in length.
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

/// Cosine of the angle between two vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a == b {
        return 1.0; // Two zero vectors, too; and rounding cannot make it less.
    }
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    if lengths == 0.0 { 0.0 } else { (dot(a, b) / lengths).clamp(-1.0, 1.0) }
}

/// Points of trajectories that correspond.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct PointDifference {
    /// Largest distance of two points, meters.
    pub max_distance_m: f64,
    /// The same as a part of the reference point's distance from the ego vehicle, or of one meter
    /// if it is nearer.
    pub max_relative: f64,
    /// Points with a NaN or an infinity on either side, which the two numbers above leave out.
    pub not_finite: u64,
    /// Points compared.
    pub points: u64,
}

impl PointDifference {
    /// Takes in points of `engine` and `reference`: `x, y`, one after the other, meters in the ego
    /// frame.
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

/// One layer of a prefix KV cache.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct LayerDifference {
    /// Keys, by token and head.
    pub keys: Difference,
    /// Values, by token and head.
    pub values: Difference,
}

/// Decision tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Decisions {
    /// Tokens that both sides decided alike.
    pub equal: u64,
    /// All tokens.
    pub total: u64,
}

/// A number past its limit.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Excess {
    /// What of, e.g. `keys of layer 3`.
    pub quantity: String,
    /// Which number of it.
    pub measure: &'static str,
    /// The number.
    pub value: f64,
    /// Its limit.
    pub limit: f64,
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Six decimals are more than a limit needs; the record has them all.
        let value = (self.value * 1e6).round() / 1e6;
        write!(f, "{}: {} {value}, limit {}", self.quantity, self.measure, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_vectors_are_alike_and_unlike_anything_else() {
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 0.0]), 1.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(cosine(&[1.0, 0.0], &[-2.0, 0.0]), -1.0);
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_difference_keeps_the_worst_vector_and_counts_what_is_not_finite() {
        let mut difference = Difference::default();
        difference.add(&[1.0, 0.0, 0.0, 2.0], &[1.0, 0.0, 0.0, -1.0], 2);
        assert_eq!((difference.max_abs, difference.min_cosine), (3.0, -1.0));
        let mut difference = Difference::default();
        difference.add(&[1.0, f32::NAN, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0], 2);
        let expected = Difference { not_finite: 1, vectors: 2, ..Difference::default() };
        assert_eq!(difference, expected);
    }

    #[test]
    fn points_are_measured_by_their_distance_from_the_vehicle_but_no_finer_than_a_meter() {
        let mut points = PointDifference::default();
        points.add(&[10.0, 0.1, 0.0, 0.02], &[10.0, 0.0, 0.0, 0.0]);
        assert!((points.max_distance_m - 0.1).abs() < 1e-6, "{points:?}");
        assert!((points.max_relative - 0.02).abs() < 1e-6, "{points:?}");
    }
}
