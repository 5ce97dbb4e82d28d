//! Implementation of the model family traits for AutoMoT.

use super::checkpoint::Checkpoint;
use super::networks::{self, Sizes};
use super::synth::{self, SynthSpec};
use super::{ExportOptions, NAME, names};
use crate::checkpoint::{CheckpointError, Tensors, Warning};
use crate::family::{Built, Candidate, Description, Family, NetworkError, OpenCheckpoint};
use crate::folder::TOKENIZER_FILE;
use crate::options::Options;
use crate::spec::{Spec, SpecError, SpecFile};
use crate::synth::{SynthError, SynthWeights, Synthesized};
use serde_json::Value;
use std::path::Path;

/// The AutoMoT model family of the exporter.
pub struct Automot;

/// The instance that is registered.
pub static AUTOMOT: Automot = Automot;

impl Family for Automot {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognized_by(&self) -> &'static str {
        "config.json with the model_type \"qwen3_vl\""
    }

    fn recognizes(&self, folder: &Candidate) -> bool {
        let has = |key| folder.config().is_some_and(|config| config.get(key).is_some());
        match folder.model_type() {
            Some(model_type) => model_type == "qwen3_vl",
            // The key may be absent if both configurations of Qwen3-VL are present.
            None => !has("model_type") && has("text_config") && has("vision_config"),
        }
    }

    fn open(&self, folder: &Path) -> Result<Box<dyn OpenCheckpoint>, CheckpointError> {
        Ok(Box::new(Checkpoint::open(folder)?))
    }

    fn is_network(&self, name: &str) -> bool {
        names::is_network(name)
    }

    fn sort_networks(&self, names: &mut [String]) {
        names::sort_networks(names);
    }

    fn companions(&self) -> &'static [&'static str] {
        &[TOKENIZER_FILE]
    }

    fn arguments(&self, options: &Options) -> String {
        let options = ExportOptions::of(options).unwrap_or_default();
        let [height, width] = options.frame_size;
        let mut arguments = format!(" --frame-size {height}x{width} --frames {}", options.frames);
        if let Some(capacity) = options.prefix_capacity {
            arguments += &format!(" --prefix-capacity {capacity}");
        }
        if options.understanding_groups > 1 {
            arguments += &format!(" --understanding-groups {}", options.understanding_groups);
        }
        arguments
    }

    fn read_spec(&self, file: &SpecFile) -> Result<Spec, SpecError> {
        let (spec, notes) = if SynthSpec::is_published(file.content()) {
            SynthSpec::of_published(file.path())?
        } else {
            (file.specification()?, Vec::new())
        };
        let value = serde_json::to_value(spec).expect("plain structs serialize");
        Ok(Spec { value, notes })
    }

    fn synthesize(
        &self,
        spec: &Value,
        weights: SynthWeights,
        out: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Synthesized, SynthError> {
        let spec = serde_json::from_value(spec.clone())
            .map_err(|source| SynthError::NotASpec { family: NAME, source })?;
        match weights {
            SynthWeights::Random { seed } => synth::synthesize(&spec, seed, out, progress),
            SynthWeights::Sparse => synth::synthesize_sparse(&spec, out),
        }
    }
}

impl OpenCheckpoint for Checkpoint {
    fn family(&self) -> &'static dyn Family {
        &AUTOMOT
    }

    fn tensors(&self) -> &Tensors {
        self
    }

    fn check(&self) -> Result<Vec<Warning>, CheckpointError> {
        Checkpoint::check(self)
    }

    fn describe(&self) -> Description {
        let config = serde_json::to_value(self.config()).expect("plain structs serialize");
        Description { config, networks: self.config().networks_as_text() }
    }

    fn build(
        &self,
        options: &Options,
        before: &mut dyn FnMut(&'static str),
    ) -> Result<Built, NetworkError> {
        let options = ExportOptions::of(options)?;
        let prefix_capacity = Sizes::new(self, &options)?.prefix_capacity;
        let networks = networks::all(self, &options, before)?;
        let options = Options::from(&options);
        Ok(Built { options, networks, prefix_capacity: Some(prefix_capacity) })
    }
}
