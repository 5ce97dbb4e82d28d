//! The golden run of an engine folder: seeded inputs with the outputs of a reference, small enough
//! to be repeated wherever the engines are loaded.
//!
//! `tandem verify` writes it if the engines were within their limits of the reference. It contains
//! the keys and values of the last layer, which depend on all earlier layers, and the trajectories,
//! which depend on everything.

use super::accuracy::{ACTION, UNDERSTANDING, numbers};
use super::networks::{self, Networks, prefix_tensors};
use super::recording::{RecordError, Recording, record};
use super::tokenizer::Tokenizer;
use crate::model::verification::{Difference, Limits, PointDifference, RecordingInputs};
use crate::tensor::HostTensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem_export::automot::sizes::UnderstandingSizes;
use tandem_export::folder::GOLDEN_FILE;

/// Format version of the file.
const FORMAT: u32 = 1;

/// Number of tokens whose keys and values are kept, evenly spaced over the
/// prompt up to its last token.
const TOKENS: usize = 16;

/// Seeded inputs with the outputs of a reference.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenRun {
    format: u32,
    /// Hashes of the graphs that were compared with the reference, by network.
    graphs_sha256: BTreeMap<String, String>,
    /// Seed of the inputs, which have one prompt.
    seed: u64,
    limits: Limits,
    prompt_tokens: usize,
    /// Keys of the last layer, by head and token.
    keys: Rows,
    /// Values of the last layer, by head and token.
    values: Rows,
    /// Paths of the two ticks as interleaved x, y, meters.
    routes: Vec<Vec<f32>>,
    /// Waypoints of the two ticks as interleaved x, y, meters.
    waypoints: Vec<Vec<f32>>,
}

/// Concatenated vectors of one width.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    width: usize,
    numbers: Vec<f32>,
}

/// Error returned when a golden run cannot be read or fails.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error("cannot read {path:?}: {reason}; `tandem verify` rewrites it")]
    File { path: PathBuf, reason: String },
    #[error(
        "{path:?} belongs to another graph of network {network:?}; run `tandem verify` on this folder \
         again"
    )]
    OtherGraphs { path: PathBuf, network: String },
    #[error(
        "these engines fail their golden run on {device}: {what}. Do not drive with them; build them \
         again for this device and run `tandem verify` there"
    )]
    Failed {
        device: String,
        /// The output that exceeds its limit.
        what: String,
    },
    #[error("the golden run cannot be repeated: {0}")]
    Record(#[source] Box<RecordError>),
}

impl GoldenRun {
    /// Creates a golden run from the outputs of a reference for the first prompt of `inputs`, for
    /// networks that were within `limits` of it.
    pub fn of(
        reference: &Recording,
        inputs: RecordingInputs,
        limits: Limits,
        graphs_sha256: BTreeMap<String, String>,
    ) -> Self {
        let outputs = GoldenOutputs::of(reference);
        Self {
            format: FORMAT,
            graphs_sha256,
            seed: inputs.seed,
            limits,
            prompt_tokens: outputs.prompt_tokens,
            keys: outputs.keys,
            values: outputs.values,
            routes: outputs.routes,
            waypoints: outputs.waypoints,
        }
    }

    /// Reads the golden run of an engine folder, if it has one. Fails if the file cannot be read or
    /// belongs to other networks.
    pub fn read(folder: &Path, networks: &Networks) -> Result<Option<Self>, GoldenError> {
        let path = folder.join(GOLDEN_FILE);
        let file = |reason: String| GoldenError::File { path: path.clone(), reason };
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| file(error.to_string()))?,
        };
        let run: Self = serde_json::from_slice(&text).map_err(|error| file(error.to_string()))?;
        if run.format != FORMAT {
            return Err(file(format!("format {}, this version reads {FORMAT}", run.format)));
        }
        for engine in networks.engines() {
            let contract = engine.contract();
            if run.graphs_sha256.get(&contract.network) != Some(&contract.graph_sha256) {
                let network = contract.network.clone();
                return Err(GoldenError::OtherGraphs { path, network });
            }
        }
        Ok(Some(run))
    }

    /// Runs `networks` on their device and compares their outputs with the reference. Fails if an
    /// output exceeds its limit or a network fails.
    pub fn pass(&self, networks: &Networks, tokenizer: Tokenizer) -> Result<(), GoldenError> {
        let inputs = RecordingInputs { seed: self.seed, prompts: 1 };
        let recording = record(networks, tokenizer, inputs, &mut || {})
            .map_err(|error| GoldenError::Record(Box::new(error)))?;
        let found = self.excess(&GoldenOutputs::of(&recording));
        let failed = |what| GoldenError::Failed { device: networks.device.name(), what };
        found.map_or(Ok(()), |what| Err(failed(what)))
    }

    /// Describes the first output that exceeds its limit.
    fn excess(&self, found: &GoldenOutputs) -> Option<String> {
        if found.prompt_tokens != self.prompt_tokens {
            let (found, expected) = (found.prompt_tokens, self.prompt_tokens);
            return Some(format!("the prompt has {found} tokens, the reference's {expected}"));
        }
        let limits = &self.limits;
        let rows = [("keys", &found.keys, &self.keys), ("values", &found.values, &self.values)];
        for (what, found, expected) in rows {
            if (found.width, found.numbers.len()) != (expected.width, expected.numbers.len()) {
                return Some(format!("{what} of the last layer have another size"));
            }
            let mut difference = Difference::default();
            difference.add(&found.numbers, &expected.numbers, expected.width);
            if difference.not_finite > 0 {
                return Some(format!("{what} of the last layer are not finite"));
            }
            if difference.min_cosine < limits.min_cosine {
                return Some(format!(
                    "{what} of the last layer have a cosine of {:.6} with the reference's, limit {}",
                    difference.min_cosine, limits.min_cosine
                ));
            }
        }
        let points = [
            ("route", &found.routes, &self.routes),
            ("waypoint", &found.waypoints, &self.waypoints),
        ];
        for (what, found, expected) in points {
            let sizes = |ticks: &[Vec<f32>]| ticks.iter().map(Vec::len).collect::<Vec<_>>();
            if sizes(found) != sizes(expected) {
                return Some(format!("the number of {what} points differs"));
            }
            let mut difference = PointDifference::default();
            found
                .iter()
                .zip(expected)
                .for_each(|(found, expected)| difference.add(found, expected));
            if difference.not_finite > 0 {
                return Some(format!("{what} points are not finite"));
            }
            if difference.max_relative > limits.max_point_distance {
                return Some(format!(
                    "a {what} point is {:.4} m off, {:.4} of its distance, limit {}",
                    difference.max_distance_m, difference.max_relative, limits.max_point_distance
                ));
            }
        }
        None
    }
}

/// Outputs that a golden run compares.
struct GoldenOutputs {
    prompt_tokens: usize,
    keys: Rows,
    values: Rows,
    routes: Vec<Vec<f32>>,
    waypoints: Vec<Vec<f32>>,
}

impl GoldenOutputs {
    /// Returns the outputs for the first prompt of a recording.
    fn of(recording: &Recording) -> Self {
        let prompt = &recording.prompts[0];
        let output = |network: usize, name: &str| -> Vec<&HostTensor> {
            let place = recording.contracts[network].output(name);
            let place = place.expect("networks that can drive have all outputs");
            prompt.runs[network].iter().map(|run| &run[place]).collect()
        };
        let layers = UnderstandingSizes::of(&recording.contracts[UNDERSTANDING])
            .expect("networks that can drive have all sizes")
            .layers;
        let [keys, values] = prefix_tensors(layers - 1).map(|name| {
            let written = output(UNDERSTANDING, &name);
            sampled(written[0], prompt.valid_length)
        });
        let points = |name| output(ACTION, name).into_iter().map(numbers).collect();
        let [routes, waypoints] = [0, 1].map(|index| points(networks::action::OUTPUTS[index]));
        Self { prompt_tokens: prompt.valid_length, keys, values, routes, waypoints }
    }
}

/// Samples the first `tokens` tokens of a tensor `[heads, capacity, width]`.
fn sampled(tensor: &HostTensor, tokens: usize) -> Rows {
    let [_, capacity, width] = tensor.shape()[..] else {
        unreachable!("keys and values have three axes")
    };
    let all = numbers(tensor);
    let mut kept = Vec::new();
    for head in all.chunks_exact(capacity * width) {
        for place in 1..=TOKENS.min(tokens) {
            let token = place * tokens / TOKENS.min(tokens) - 1;
            kept.extend_from_slice(&head[token * width..(token + 1) * width]);
        }
    }
    Rows { width, numbers: kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs() -> GoldenOutputs {
        let rows = |width| Rows { width, numbers: (1..=4 * width).map(|n| n as f32).collect() };
        let points = vec![vec![1.0, 0.0, 4.0, 3.0]; 2];
        let (keys, values) = (rows(3), rows(2));
        GoldenOutputs { prompt_tokens: 4, keys, values, routes: points.clone(), waypoints: points }
    }

    fn golden() -> GoldenRun {
        let GoldenOutputs { prompt_tokens, keys, values, routes, waypoints } = outputs();
        GoldenRun {
            format: FORMAT,
            graphs_sha256: BTreeMap::new(),
            seed: 0,
            limits: Limits::default(),
            prompt_tokens,
            keys,
            values,
            routes,
            waypoints,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut GoldenOutputs), message: Option<&str>) {
        let mut found = outputs();
        change(&mut found);
        let found = golden().excess(&found);
        match (found, message) {
            (None, None) => {}
            (Some(found), Some(message)) => assert!(found.contains(message), "{found}"),
            (found, message) => panic!("{found:?} instead of {message:?}"),
        }
    }

    #[test]
    fn outputs_within_limits_pass_and_others_are_named() {
        check(|_| {}, None);
        check(|found| found.routes[1][2] += 0.04, None);
        check(|found| found.routes[1][2] += 0.06, Some("a route point is 0.0600 m off, 0.0120 of"));
        check(|found| found.waypoints[0][0] = f32::NAN, Some("waypoint points are not finite"));
        check(
            |found| found.keys.numbers[1] = -2.0,
            Some("keys of the last layer have a cosine of"),
        );
        check(
            |found| found.values.numbers[0] = f32::INFINITY,
            Some("values of the last layer are"),
        );
        check(|found| found.prompt_tokens = 5, Some("5 tokens, the reference's 4"));
        check(|found| drop(found.routes.pop()), Some("the number of route points differs"));
    }

    #[test]
    fn tokens_are_evenly_spaced_up_to_the_last() {
        let numbers: Vec<f32> = (0..2 * 40).map(|n| n as f32).collect();
        let rows = sampled(&HostTensor::from_slice(&[2, 40, 1], &numbers), 33);
        assert_eq!(rows.numbers.len(), 2 * TOKENS);
        assert_eq!((rows.numbers[0], rows.numbers[15], rows.numbers[31]), (1.0, 32.0, 72.0));
        let few = sampled(&HostTensor::from_slice(&[2, 40, 1], &numbers), 3);
        assert_eq!(few.numbers, [0.0, 1.0, 2.0, 40.0, 41.0, 42.0]);
    }
}
