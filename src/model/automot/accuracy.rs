//! Compares the outputs of two sets of networks on the same inputs, layer by layer.

use super::networks;
use super::recording::{PromptRecording, Recording};
use crate::model::verification::{
    Comparison, Decisions, Difference, LayerDifference, PointDifference,
};
use crate::tensor::{DType, HostTensor};
use serde::Serialize;
use std::collections::BTreeMap;
use tandem_export::automot::names::{self, PROBE};
use tandem_export::automot::sizes::UnderstandingSizes;
use tandem_export::contract::{Contract, TensorSpec};

/// Indices of the networks in a recording.
const VISION: usize = 0;
pub(super) const UNDERSTANDING: usize = 1;
const BEV: usize = 2;
pub(super) const ACTION: usize = 3;

/// Differences of all compared outputs.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct AutomotComparison {
    pub image_tokens: Difference,
    /// One entry per deepstack map.
    pub deepstack: Vec<Difference>,
    /// One entry per layer of the understanding expert.
    pub layers: Vec<LayerDifference>,
    /// Hidden states after the understanding expert's layers, if both sides have probes.
    pub understanding_hidden: Vec<Difference>,
    pub bev_tokens: Difference,
    /// Hidden states after the action expert's layers, if both sides have probes.
    pub action_hidden: Vec<Difference>,
    pub route: PointDifference,
    pub waypoints: PointDifference,
    /// Without a limit, because decision tokens do not affect driving.
    pub decisions: Decisions,
}

/// Error returned when two sides cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(
        "the engines are of different shapes: the {network} network's {what} {index} is {engine}, the reference has {reference}"
    )]
    Tensor {
        network: &'static str,
        /// "input" or "output".
        what: &'static str,
        index: usize,
        engine: String,
        reference: String,
    },
    #[error(
        "the engines are of different models: {key} of the {network} network is {engine}, the reference has {reference}"
    )]
    Size { network: &'static str, key: String, engine: String, reference: String },
    #[error(
        "the engine's prompt has {engine} tokens, the reference's {reference}, in {runs} runs of the \
         networks"
    )]
    Drive {
        engine: usize,
        /// Numbers of runs on both sides.
        runs: String,
        reference: usize,
    },
}

/// Checks that the inputs and outputs of two sets of networks have the same names and shapes,
/// except probes; element types may differ. The contracts are those of the vision, understanding,
/// BEV and action networks. The error names the first difference.
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

/// Returns the sizes and other numbers of a contract as text by name.
fn all_numbers(contract: &Contract) -> BTreeMap<&str, String> {
    let sizes = contract.sizes.iter().map(|(name, size)| (name.as_str(), size.to_string()));
    let numbers = contract.numbers.iter().map(|(name, size)| (name.as_str(), size.to_string()));
    sizes.chain(numbers).collect()
}

/// Compares the captured outputs of two sets of networks. Fails if they are not
/// [`comparable`] or their inputs differ.
pub fn compare(
    engine: &Recording,
    reference: &Recording,
) -> Result<AutomotComparison, CompareError> {
    comparable(engine.contracts.each_ref(), reference.contracts.each_ref())?;
    let layers = UnderstandingSizes::of(&reference.contracts[UNDERSTANDING]);
    let layers = layers.map_or(0, |sizes| sizes.layers);
    let mut result = AutomotComparison {
        layers: vec![LayerDifference::default(); layers],
        ..Default::default()
    };
    let same_number = engine.prompts.len() == reference.prompts.len();
    assert!(same_number, "both sides have the same prompts");
    for (a, b) in engine.prompts.iter().zip(&reference.prompts) {
        let runs = [a, b].map(|side| side.runs.each_ref().map(Vec::len));
        if a.valid_length != b.valid_length || runs[0] != runs[1] {
            let runs = format!("{:?} and {:?}", runs[0], runs[1]);
            let (engine, reference) = (a.valid_length, b.valid_length);
            return Err(CompareError::Drive { engine, runs, reference });
        }
        let pair = PromptPair { engine, reference, a, b };
        pair.add_to(&mut result);
    }
    Ok(result)
}

/// Outputs of both sides for one prompt.
struct PromptPair<'a> {
    engine: &'a Recording,
    reference: &'a Recording,
    a: &'a PromptRecording,
    b: &'a PromptRecording,
}

impl PromptPair<'_> {
    /// Returns the tensors `name` of both sides for each run; empty if a side does not have it.
    fn tensors(&self, network: usize, name: &str) -> Vec<[&HostTensor; 2]> {
        let place = |recording: &Recording| recording.contracts[network].output(name);
        let (Some(a), Some(b)) = (place(self.engine), place(self.reference)) else {
            return Vec::new();
        };
        let runs = self.a.runs[network].iter().zip(&self.b.runs[network]);
        runs.map(|(left, right)| [&left[a], &right[b]]).collect()
    }

    /// Compares all rows of the last axis.
    fn rows(&self, network: usize, name: &str, into: &mut Difference) {
        for pair in self.tensors(network, name) {
            let width = pair[0].shape().last().copied().unwrap_or(1);
            let [a, b] = pair.map(numbers);
            into.add(&a, &b, width);
        }
    }

    /// Compares the rows of the last axis that belong to valid tokens.
    fn token_rows(&self, name: &str, into: &mut Difference) {
        for pair in self.tensors(UNDERSTANDING, name) {
            let [.., capacity, width] = pair[0].shape()[..] else { continue };
            let [a, b] = pair.map(numbers);
            let heads = a.chunks_exact(capacity * width).zip(b.chunks_exact(capacity * width));
            for (a, b) in heads {
                let valid = self.a.valid_length * width;
                into.add(&a[..valid], &b[..valid], width);
            }
        }
    }

    fn add_to(&self, result: &mut AutomotComparison) {
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

/// Returns the elements of a floating-point tensor.
pub(super) fn numbers(tensor: &HostTensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::F16 => tensor.as_slice::<half::f16>().iter().map(|value| value.to_f32()).collect(),
        DType::Bf16 => tensor.as_slice::<half::bf16>().iter().map(|value| value.to_f32()).collect(),
        _ => tensor.as_slice::<f32>().to_vec(),
    }
}

impl Comparison for AutomotComparison {
    fn vectors(&self) -> Vec<(String, Difference)> {
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

    fn layers(&self) -> &[LayerDifference] {
        &self.layers
    }

    fn points(&self) -> Vec<(&'static str, PointDifference)> {
        vec![("route", self.route), ("waypoints", self.waypoints)]
    }

    fn decisions(&self) -> Option<Decisions> {
        Some(self.decisions)
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a struct of numbers is serializable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verification::Limits;

    #[test]
    fn non_finite_values_exceed_limits_on_either_side() {
        for sides in [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NAN, f32::NAN], [f32::INFINITY; 2]] {
            let mut result = AutomotComparison::default();
            result.bev_tokens.add(&sides[..1], &sides[1..], 1);
            result.route.add(&[sides[0], 0.0], &[sides[1], 0.0]);
            let found = <dyn Comparison>::excesses(&result, &Limits::default());
            let names = found.iter().map(|excess| &excess.quantity[..]).collect::<Vec<_>>();
            assert_eq!(names, ["BEV tokens", "route"], "{sides:?}");
        }
    }

    #[test]
    fn excesses_are_in_order_of_computation() {
        let far = Difference { min_cosine: 0.5, ..Difference::default() };
        let mut result = AutomotComparison { bev_tokens: far, ..AutomotComparison::default() };
        result.layers = vec![LayerDifference::default(); 3];
        result.layers[1].values = far;
        result.layers[2].keys = far;
        let found = <dyn Comparison>::excesses(&result, &Limits::default());
        assert_eq!(found[0].to_string(), "values of layer 1: least cosine 0.5, limit 0.999");
        assert_eq!(found.len(), 3);
    }
}
