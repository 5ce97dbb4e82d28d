//! How far two sets of networks are apart on the same drive, layer by layer, and whether that is
//! near enough.
//!
//! A [`Comparison`] is only numbers; [`Limits`] turn it into a verdict. Directions are compared
//! token by token, because one wrong token spoils a trajectory without showing in a mean.

use super::networks;
use super::recording::{PromptRecording, Recording};
use crate::tensor::{DType, HostTensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tandem_export::automot::names::{self, PROBE};
use tandem_export::automot::sizes::UnderstandingSizes;
use tandem_export::contract::{Contract, TensorSpec};

/// Places of the networks in a recording.
const VISION: usize = 0;
pub(super) const UNDERSTANDING: usize = 1;
const BEV: usize = 2;
pub(super) const ACTION: usize = 3;

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
    pub(super) fn add(&mut self, engine: &[f32], reference: &[f32], width: usize) {
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
    pub(super) fn add(&mut self, engine: &[f32], reference: &[f32]) {
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

/// One layer of the understanding expert.
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

/// Everything that was compared.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Comparison {
    /// Image tokens.
    pub image_tokens: Difference,
    /// Deepstack maps, by token.
    pub deepstack: Vec<Difference>,
    /// Layers of the understanding expert.
    pub layers: Vec<LayerDifference>,
    /// Hidden states behind the understanding expert's layers, where both sides have probes.
    pub understanding_hidden: Vec<Difference>,
    /// BEV tokens, one per cell.
    pub bev_tokens: Difference,
    /// Hidden states behind the action expert's layers, where both sides have probes.
    pub action_hidden: Vec<Difference>,
    /// The path to follow.
    pub route: PointDifference,
    /// The timed positions.
    pub waypoints: PointDifference,
    /// Decision tokens; no limit applies to them, since nothing that drives reads them.
    pub decisions: Decisions,
}

/// The two sides cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A network has another tensor than its counterpart.
    #[error(
        "the engines are of different shapes: the {network} network's {what} {index} is {engine}, the reference has {reference}"
    )]
    Tensor {
        /// The network.
        network: &'static str,
        /// "input" or "output".
        what: &'static str,
        /// Place in the contract.
        index: usize,
        /// The engine's.
        engine: String,
        /// The reference's.
        reference: String,
    },
    /// A size in a contract differs.
    #[error(
        "the engines are of different models: {key} of the {network} network is {engine}, the reference has {reference}"
    )]
    Size {
        /// The network.
        network: &'static str,
        /// The size.
        key: String,
        /// The engine's, in words.
        engine: String,
        /// The reference's, in words.
        reference: String,
    },
    /// The two sides were driven differently.
    #[error("the engine answered {engine} tokens in {runs} runs, the reference {reference}")]
    Drive {
        /// Tokens of the engine's prompt.
        engine: usize,
        /// Runs of both.
        runs: String,
        /// Tokens of the reference's prompt.
        reference: usize,
    },
}

/// Checks that two sets of networks take and give tensors of the same names and shapes; element
/// types may differ, and probes may be there or not. Contracts are those of the vision,
/// understanding, BEV and action network.
///
/// # Errors
/// Names the first difference.
pub fn comparable(engine: [&Contract; 4], reference: [&Contract; 4]) -> Result<(), CompareError> {
    use networks::{action, bev, understanding, vision};
    let names = [vision::NETWORK, understanding::NETWORK, bev::NETWORK, action::NETWORK];
    for ((network, a), b) in names.into_iter().zip(engine).zip(reference) {
        let probeless = |specs: &[TensorSpec]| -> Vec<String> {
            let specs = specs.iter().filter(|spec| !spec.name.starts_with(PROBE));
            specs.map(|spec| format!("{:?} {:?}", spec.name, spec.shape)).collect()
        };
        let sides = [("input", &a.inputs, &b.inputs), ("output", &a.outputs, &b.outputs)];
        for (what, a, b) in sides {
            let (a, b) = (probeless(a), probeless(b));
            let differ = |index: &usize| a.get(*index) != b.get(*index);
            if let Some(index) = (0..a.len().max(b.len())).find(differ) {
                let name =
                    |specs: &[String]| specs.get(index).map_or("absent".into(), String::clone);
                let (engine, reference) = (name(&a), name(&b));
                return Err(CompareError::Tensor { network, what, index, engine, reference });
            }
        }
        let (engine, reference) = (all_numbers(a), all_numbers(b));
        for key in engine.keys().chain(reference.keys()) {
            let [engine, reference] = [&engine, &reference]
                .map(|side| side.get(key).map_or("absent".to_owned(), String::clone));
            if engine != reference {
                let key = key.to_string();
                return Err(CompareError::Size { network, key, engine, reference });
            }
        }
    }
    Ok(())
}

/// The sizes and other numbers of a contract, as text, by name.
fn all_numbers(contract: &Contract) -> BTreeMap<&str, String> {
    let sizes = contract.sizes.iter().map(|(name, size)| (name.as_str(), size.to_string()));
    let numbers = contract.numbers.iter().map(|(name, size)| (name.as_str(), size.to_string()));
    sizes.chain(numbers).collect()
}

/// Compares what two sets of networks answered to the same drive.
///
/// # Errors
/// If the two are not [`comparable`], or were not driven alike.
pub fn compare(engine: &Recording, reference: &Recording) -> Result<Comparison, CompareError> {
    comparable(engine.contracts.each_ref(), reference.contracts.each_ref())?;
    let layers = UnderstandingSizes::of(&reference.contracts[UNDERSTANDING]);
    let layers = layers.map_or(0, |sizes| sizes.layers);
    let mut result =
        Comparison { layers: vec![LayerDifference::default(); layers], ..Comparison::default() };
    let alike = engine.prompts.len() == reference.prompts.len();
    assert!(alike, "both sides were driven by the same inputs");
    for (a, b) in engine.prompts.iter().zip(&reference.prompts) {
        let runs = [a, b].map(|side| side.runs.each_ref().map(Vec::len));
        if a.valid_length != b.valid_length || runs[0] != runs[1] {
            let runs = format!("{:?} and {:?}", runs[0], runs[1]);
            let (engine, reference) = (a.valid_length, b.valid_length);
            return Err(CompareError::Drive { engine, runs, reference });
        }
        let pair = Pair { engine, reference, a, b };
        pair.add_to(&mut result);
    }
    Ok(result)
}

/// One prompt on both sides.
struct Pair<'a> {
    engine: &'a Recording,
    reference: &'a Recording,
    a: &'a PromptRecording,
    b: &'a PromptRecording,
}

impl Pair<'_> {
    /// Both sides' tensors called `name`, run by run; empty if a side does not have it.
    fn tensors(&self, network: usize, name: &str) -> Vec<[&HostTensor; 2]> {
        let place = |recording: &Recording| recording.contracts[network].output(name);
        let (Some(a), Some(b)) = (place(self.engine), place(self.reference)) else {
            return Vec::new();
        };
        let runs = self.a.runs[network].iter().zip(&self.b.runs[network]);
        runs.map(|(left, right)| [&left[a], &right[b]]).collect()
    }

    /// Rows of the last axis, all of them.
    fn rows(&self, network: usize, name: &str, into: &mut Difference) {
        for pair in self.tensors(network, name) {
            let width = pair[0].shape().last().copied().unwrap_or(1);
            let [a, b] = pair.map(numbers);
            into.add(&a, &b, width);
        }
    }

    /// Rows of the last axis whose place on the axis before it is a real token.
    fn token_rows(&self, name: &str, into: &mut Difference) {
        for pair in self.tensors(UNDERSTANDING, name) {
            let [.., capacity, width] = pair[0].shape()[..] else { continue };
            let [a, b] = pair.map(numbers);
            let heads = a.chunks_exact(capacity * width).zip(b.chunks_exact(capacity * width));
            for (a, b) in heads {
                let real = self.a.valid_length * width;
                into.add(&a[..real], &b[..real], width);
            }
        }
    }

    fn add_to(&self, result: &mut Comparison) {
        self.rows(VISION, networks::vision::OUTPUTS[0], &mut result.image_tokens);
        for pair in self.tensors(VISION, networks::vision::OUTPUTS[1]) {
            let [maps, tokens, width] = pair[0].shape()[..] else { continue };
            result.deepstack.resize_with(maps, Difference::default);
            let [a, b] = pair.map(numbers);
            let maps = a.chunks_exact(tokens * width).zip(b.chunks_exact(tokens * width));
            for ((a, b), into) in maps.zip(&mut result.deepstack) {
                into.add(a, b, width);
            }
        }
        for (l, layer) in result.layers.iter_mut().enumerate() {
            let [keys, values] = networks::prefix_tensors(l);
            self.token_rows(&keys, &mut layer.keys);
            self.token_rows(&values, &mut layer.values);
        }
        let hidden = |l: usize| format!("{PROBE}{}", names::understanding::hidden(l));
        let probed = |network| {
            (0..result.layers.len())
                .take_while(move |&l| !self.tensors(network, &hidden(l)).is_empty())
        };
        let (understanding, action) = (probed(UNDERSTANDING).count(), probed(ACTION).count());
        result.understanding_hidden.resize_with(understanding, Difference::default);
        for (l, into) in result.understanding_hidden.iter_mut().enumerate() {
            self.token_rows(&hidden(l), into);
        }
        self.rows(BEV, networks::bev::OUTPUTS[0], &mut result.bev_tokens);
        result.action_hidden.resize_with(action, Difference::default);
        for (l, into) in result.action_hidden.iter_mut().enumerate() {
            self.rows(ACTION, &hidden(l), into);
        }
        let [route, waypoints, decisions] = networks::action::OUTPUTS;
        for (name, into) in [(route, &mut result.route), (waypoints, &mut result.waypoints)] {
            for pair in self.tensors(ACTION, name) {
                let [a, b] = pair.map(numbers);
                into.add(&a, &b);
            }
        }
        for pair in self.tensors(ACTION, decisions) {
            let [a, b] = pair.map(|tensor| tensor.as_slice::<i64>());
            result.decisions.total += a.len() as u64;
            result.decisions.equal += a.iter().zip(b).filter(|(a, b)| a == b).count() as u64;
        }
    }
}

/// The elements of a floating-point tensor.
pub(super) fn numbers(tensor: &HostTensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::F16 => tensor.as_slice::<half::f16>().iter().map(|value| value.to_f32()).collect(),
        DType::Bf16 => tensor.as_slice::<half::bf16>().iter().map(|value| value.to_f32()).collect(),
        _ => tensor.as_slice::<f32>().to_vec(),
    }
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

impl Comparison {
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
        for (quantity, points) in [("route", self.route), ("waypoints", self.waypoints)] {
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

    /// Everything that is compared by direction, with its name, in the order of computation.
    pub fn vectors(&self) -> Vec<(String, Difference)> {
        let mut all = vec![("image tokens".to_owned(), self.image_tokens)];
        let maps = self.deepstack.iter().enumerate();
        all.extend(maps.map(|(map, difference)| (format!("deepstack map {map}"), *difference)));
        for (l, layer) in self.layers.iter().enumerate() {
            all.push((format!("keys of layer {l}"), layer.keys));
            all.push((format!("values of layer {l}"), layer.values));
            if let Some(hidden) = self.understanding_hidden.get(l) {
                all.push((format!("hidden state of understanding layer {l}"), *hidden));
            }
        }
        all.push(("BEV tokens".to_owned(), self.bev_tokens));
        for (l, hidden) in self.action_hidden.iter().enumerate() {
            all.push((format!("hidden state of action layer {l}"), *hidden));
        }
        all
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

    #[test]
    fn nothing_that_is_not_finite_passes_on_either_side() {
        for sides in [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NAN, f32::NAN], [f32::INFINITY; 2]] {
            let mut result = Comparison::default();
            result.bev_tokens.add(&sides[..1], &sides[1..], 1);
            result.route.add(&[sides[0], 0.0], &[sides[1], 0.0]);
            let found = result.excesses(&Limits::default());
            let names = found.iter().map(|excess| &excess.quantity[..]).collect::<Vec<_>>();
            assert_eq!(names, ["BEV tokens", "route"], "{sides:?}");
        }
    }

    #[test]
    fn the_first_excess_is_the_first_in_the_order_of_computation() {
        let far = Difference { min_cosine: 0.5, ..Difference::default() };
        let mut result = Comparison { bev_tokens: far, ..Comparison::default() };
        result.layers = vec![LayerDifference::default(); 3];
        result.layers[1].values = far;
        result.layers[2].keys = far;
        let found = result.excesses(&Limits::default());
        assert_eq!(found[0].to_string(), "values of layer 1: least cosine 0.5, limit 0.999");
        assert_eq!(found.len(), 3);
    }
}
