//! The golden run of an engine folder: a short drive with what a reference answered to it, small
//! enough to be driven again wherever the engines are loaded.
//!
//! `tandem verify` keeps it of a reference that the engines were within their limits of. It holds
//! what stands at the end of both chains: keys and values of the last layer, which every layer before
//! goes into, and trajectories, which everything goes into.

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

/// Version of what the file holds.
const FORMAT: u32 = 1;

/// Tokens whose keys and values are kept, evenly spaced over the prompt, the last one included.
const TOKENS: usize = 16;

/// What a reference answered to a short drive.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenRun {
    format: u32,
    /// Hashes of the graphs that were held against the reference, by network.
    graphs_sha256: BTreeMap<String, String>,
    /// Seed of the drive, which has one prompt.
    seed: u64,
    /// How near is near enough.
    limits: Limits,
    /// Tokens of the prompt.
    prompt_tokens: usize,
    /// Keys of the last layer, token by token of each head.
    keys: Rows,
    /// Values of the last layer.
    values: Rows,
    /// Paths of the two ticks, points one after the other, meters.
    routes: Vec<Vec<f32>>,
    /// Waypoints of the two ticks.
    waypoints: Vec<Vec<f32>>,
}

/// Vectors of one width, one after the other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    width: usize,
    numbers: Vec<f32>,
}

/// A golden run cannot be made, read or passed.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The file cannot be read.
    #[error("cannot read {path:?}: {reason}; `tandem verify` writes it anew")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is of other networks.
    #[error(
        "{path:?} is of another graph of network {network:?}; run `tandem verify` on this folder again"
    )]
    OtherGraphs {
        /// The file.
        path: PathBuf,
        /// The network.
        network: String,
    },
    /// The networks answer something else.
    #[error(
        "these engines fail their golden run on {device}: {what}. They are not to be driven with; \
         build them again for this device, and run `tandem verify` there"
    )]
    Failed {
        /// Where they ran.
        device: String,
        /// What is past its limit.
        what: String,
    },
    /// The drive could not be made.
    #[error("the golden run cannot be driven: {0}")]
    Record(#[source] Box<RecordError>),
}

impl GoldenRun {
    /// Keeps what a reference answered to the first prompt of `inputs`, for networks that were within
    /// `limits` of it.
    pub fn of(
        reference: &Recording,
        inputs: RecordingInputs,
        limits: Limits,
        graphs_sha256: BTreeMap<String, String>,
    ) -> Self {
        let answers = Answers::of(reference);
        Self {
            format: FORMAT,
            graphs_sha256,
            seed: inputs.seed,
            limits,
            prompt_tokens: answers.prompt_tokens,
            keys: answers.keys,
            values: answers.values,
            routes: answers.routes,
            waypoints: answers.waypoints,
        }
    }

    /// The golden run of an engine folder, if it has one.
    ///
    /// # Errors
    /// If the file cannot be read, or is of other networks than `networks`.
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

    /// Drives `networks` where they are and holds their answers against the reference's.
    ///
    /// # Errors
    /// If an answer is past its limit, or the networks cannot be driven.
    pub fn pass(&self, networks: &Networks, tokenizer: Tokenizer) -> Result<(), GoldenError> {
        let inputs = RecordingInputs { seed: self.seed, prompts: 1 };
        let recording = record(networks, tokenizer, inputs, &mut || {})
            .map_err(|error| GoldenError::Record(Box::new(error)))?;
        let found = self.excess(&Answers::of(&recording));
        let failed = |what| GoldenError::Failed { device: networks.device.name(), what };
        found.map_or(Ok(()), |what| Err(failed(what)))
    }

    /// The first answer that is past its limit, in words.
    fn excess(&self, found: &Answers) -> Option<String> {
        if found.prompt_tokens != self.prompt_tokens {
            let (found, expected) = (found.prompt_tokens, self.prompt_tokens);
            return Some(format!("the prompt has {found} tokens, the reference's {expected}"));
        }
        let limits = &self.limits;
        let rows = [("keys", &found.keys, &self.keys), ("values", &found.values, &self.values)];
        for (what, found, expected) in rows {
            if (found.width, found.numbers.len()) != (expected.width, expected.numbers.len()) {
                return Some(format!("the last layer's {what} are of another size"));
            }
            let mut difference = Difference::default();
            difference.add(&found.numbers, &expected.numbers, expected.width);
            if difference.not_finite > 0 {
                return Some(format!("{what} of the last layer are not finite"));
            }
            if difference.min_cosine < limits.min_cosine {
                return Some(format!(
                    "{what} of the last layer have a cosine of {:.6} with the reference's, {} is \
                     the limit",
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
                return Some(format!("{what} points are of another number"));
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
                    "a {what} point is {:.4} m off, {:.4} of its distance; {} is the limit",
                    difference.max_distance_m, difference.max_relative, limits.max_point_distance
                ));
            }
        }
        None
    }
}

/// What stands at the ends of both chains.
struct Answers {
    prompt_tokens: usize,
    keys: Rows,
    values: Rows,
    routes: Vec<Vec<f32>>,
    waypoints: Vec<Vec<f32>>,
}

impl Answers {
    /// Of a recording's first prompt.
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

/// Some of the first `tokens` tokens of `[heads, capacity, width]`.
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

    fn answers() -> Answers {
        let rows = |width| Rows { width, numbers: (1..=4 * width).map(|n| n as f32).collect() };
        let points = vec![vec![1.0, 0.0, 4.0, 3.0]; 2];
        let (keys, values) = (rows(3), rows(2));
        Answers { prompt_tokens: 4, keys, values, routes: points.clone(), waypoints: points }
    }

    fn golden() -> GoldenRun {
        let Answers { prompt_tokens, keys, values, routes, waypoints } = answers();
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
    fn check(change: impl FnOnce(&mut Answers), says: Option<&str>) {
        let mut found = answers();
        change(&mut found);
        let said = golden().excess(&found);
        match (said, says) {
            (None, None) => {}
            (Some(said), Some(says)) => assert!(said.contains(says), "{said}"),
            (said, says) => panic!("{said:?} instead of {says:?}"),
        }
    }

    #[test]
    fn answers_within_the_limits_pass_and_others_are_named() {
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
        check(|found| drop(found.routes.pop()), Some("route points are of another number"));
    }

    #[test]
    fn tokens_are_spread_over_the_prompt_and_the_last_is_one_of_them() {
        let numbers: Vec<f32> = (0..2 * 40).map(|n| n as f32).collect();
        let rows = sampled(&HostTensor::from_slice(&[2, 40, 1], &numbers), 33);
        assert_eq!(rows.numbers.len(), 2 * TOKENS);
        assert_eq!((rows.numbers[0], rows.numbers[15], rows.numbers[31]), (1.0, 32.0, 72.0));
        let few = sampled(&HostTensor::from_slice(&[2, 40, 1], &numbers), 3);
        assert_eq!(few.numbers, [0.0, 1.0, 2.0, 40.0, 41.0, 42.0]);
    }
}
