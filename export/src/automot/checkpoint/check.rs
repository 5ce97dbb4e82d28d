//! Compares the tensors of a checkpoint with those that the networks need.

use super::expected::{self, Expected};
use super::trunk::Trunk;
use super::{Checkpoint, tokenizer};
use crate::checkpoint::{CheckpointError, Tensors, Warning};
use crate::dtype::DType;
use std::collections::BTreeSet;

/// The output head, which is tied to the embedding but stored by some writers.
const OUTPUT_HEAD: &str = "language_model.lm_head.weight";

const EMBEDDING: &str = "language_model.model.embed_tokens.weight";

/// Last parts of the names of tensors that can be derived from the configuration.
const DERIVED_PARTS: [&str; 2] = ["inv_freq", "num_batches_tracked"];

impl Checkpoint {
    /// Derives the two trunks of the BEV encoder, camera first, from their tensors. Fails if a
    /// trunk's first tensors are missing.
    pub fn trunks(&self) -> Result<[Trunk; 2], CheckpointError> {
        let lidar_channels = self.config.bev.lidar_channels;
        Ok([
            Trunk::of_tensors(&self.dir, &self.tensors, "bev_encoder.image_encoder.", 3)?,
            Trunk::of_tensors(
                &self.dir,
                &self.tensors,
                "bev_encoder.lidar_encoder.",
                lidar_channels,
            )?,
        ])
    }

    /// Checks that every tensor that a network reads exists, with the shape according to the
    /// configuration and a floating-point type; that no unread tensor would change the
    /// computation of a module; and that the ids of the tokenizer fit. Reads no weights except
    /// those of a stored output head.
    ///
    /// Fails with every tensor that is missing or wrong; several as [`CheckpointError::Several`].
    pub fn check(&self) -> Result<Vec<Warning>, CheckpointError> {
        self.refuse_quantized()?;
        let [image, lidar] = match self.trunks() {
            Ok(trunks) => trunks,
            // Missing tensors are reported with the shapes of the trunks that the configuration names.
            Err(error) => self.named_trunks().ok_or(error)?,
        };
        let projected = self.projected_channels().unwrap_or(lidar.width());
        let expected = expected::all(&self.config, &image, &lidar, projected);
        let unknown = self.unknown_names(&expected);

        let mut errors: Vec<_> =
            expected.iter().filter_map(|tensor| self.check_needed(tensor).err()).collect();
        if errors.len() == 1 && unknown.is_empty() {
            return Err(errors.remove(0));
        }
        if !errors.is_empty() {
            let is_missing =
                |error: &&CheckpointError| matches!(error, CheckpointError::MissingTensor { .. });
            return Err(CheckpointError::Several {
                dir: self.dir.clone(),
                needed: expected.iter().filter(|tensor| tensor.is_needed).count(),
                missing: errors.iter().filter(is_missing).count(),
                stored: self.stored_names().count(),
                unknown,
                errors,
            });
        }
        let modules = Modules::of(&expected);
        let (unused, unknown): (Vec<_>, Vec<_>) =
            unknown.into_iter().partition(|name| modules.contain(name));
        if !unused.is_empty() {
            return Err(CheckpointError::UnusedInModule { dir: self.dir.clone(), tensors: unused });
        }
        self.check_head()?;
        tokenizer::check(&self.dir, &self.config)?;
        Ok(self.all_warnings(&expected, &image, &lidar, projected, unknown))
    }

    /// Checks that a stored output head equals the embedding.
    fn check_head(&self) -> Result<(), CheckpointError> {
        let Some(head) = self.tensors.get(OUTPUT_HEAD) else { return Ok(()) };
        if self.has_same_values(head, self.tensor(EMBEDDING)?) {
            return Ok(());
        }
        Err(CheckpointError::UntiedHead {
            path: self.files[head.file].clone(),
            tensor: OUTPUT_HEAD.to_owned(),
        })
    }

    /// Returns the trunks that `bev_config.json` names; `None` if one is not supported.
    fn named_trunks(&self) -> Option<[Trunk; 2]> {
        let bev = &self.config.bev;
        Some([
            Trunk::of_architecture(&bev.image_architecture, 3)?,
            Trunk::of_architecture(&bev.lidar_architecture, bev.lidar_channels)?,
        ])
    }

    fn unknown_names(&self, expected: &[Expected]) -> Vec<String> {
        let known: BTreeSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        self.stored_names()
            .filter(|name| !known.contains(name.as_str()) && *name != OUTPUT_HEAD)
            .cloned()
            .collect()
    }

    /// Width of the BEV feature that the action expert expects; `None` without the tensor.
    pub fn projected_channels(&self) -> Option<usize> {
        self.tensors.get("bev_encoder_proj.weight")?.shape.get(1).copied()
    }

    fn check_needed(&self, expected: &Expected) -> Result<(), CheckpointError> {
        if !expected.is_needed {
            return Ok(());
        }
        let Expected { network, name, shape, .. } = expected;
        let entry = self.tensor(name).map_err(|error| match error {
            CheckpointError::MissingTensor { dir, tensor, .. } => CheckpointError::MissingTensor {
                dir,
                tensor,
                network: Some(network.label()),
                shape: shape.clone(),
            },
            other => other,
        })?;
        let path = || self.files[entry.file].clone();
        if entry.shape != *shape {
            return Err(CheckpointError::WrongShape {
                path: path(),
                tensor: name.clone(),
                network: network.label(),
                expected: shape.clone(),
                found: entry.shape.clone(),
            });
        }
        match entry.dtype {
            DType::F32 | DType::F16 | DType::Bf16 => Ok(()),
            found @ (DType::I64 | DType::U8 | DType::Bool) => Err(CheckpointError::WrongDType {
                path: path(),
                tensor: name.clone(),
                found: found.to_string(),
            }),
        }
    }

    fn all_warnings(
        &self,
        expected: &[Expected],
        image: &Trunk,
        lidar: &Trunk,
        projected: usize,
        unknown: Vec<String>,
    ) -> Vec<Warning> {
        let mut warnings = Tensors::warnings(self);
        if self.config.frame_pixels.is_none() {
            warnings.push(Warning::NoPreprocessor);
        }
        if projected != lidar.width() {
            let (feature, projection) = (lidar.width(), projected);
            warnings.push(Warning::BevWidthDiffers { feature, projection });
        }
        let bev = &self.config.bev;
        for (name, trunk, named) in [
            ("image_encoder", image, &bev.image_architecture),
            ("lidar_encoder", lidar, &bev.lidar_architecture),
        ] {
            if Trunk::of_architecture(named, trunk.in_channels).as_ref() != Some(trunk) {
                warnings.push(Warning::Architecture { trunk: name, named: named.clone() });
            }
        }
        for tensor in expected.iter().filter(|tensor| !tensor.is_needed) {
            if let Some(entry) = self.tensors.get(&tensor.name)
                && entry.shape != tensor.shape
            {
                warnings.push(Warning::UnusedDiffers {
                    tensor: tensor.name.clone(),
                    expected: tensor.shape.clone(),
                    found: entry.shape.clone(),
                });
            }
        }
        if let Some(head) = self.tensors.get(OUTPUT_HEAD) {
            warnings.push(Warning::StoredHead { dtype: head.dtype });
        }
        if !unknown.is_empty() {
            warnings.push(Warning::UnknownTensors { tensors: unknown });
        }
        warnings
    }
}

/// Recognizes, by their names, unknown tensors that would belong to modules of the model.
struct Modules<'a> {
    /// Modules that have tensors.
    modules: BTreeSet<&'a str>,
    /// Names of tensors with `#` in place of layer numbers.
    numberless: BTreeSet<String>,
}

impl<'a> Modules<'a> {
    fn of(expected: &'a [Expected]) -> Self {
        let names = || expected.iter().map(|tensor| tensor.name.as_str());
        Self {
            modules: names().filter_map(|name| Some(name.rsplit_once('.')?.0)).collect(),
            numberless: names().map(without_numbers).collect(),
        }
    }

    /// True for a tensor inside a module that has tensors, such as an unexpected bias, and for a
    /// tensor of an additional layer.
    fn contain(&self, name: &str) -> bool {
        if name.rsplit('.').next().is_some_and(|last| DERIVED_PARTS.contains(&last)) {
            return false;
        }
        let mut outer = name.match_indices('.').map(|(dot, _)| &name[..dot]);
        outer.any(|module| self.modules.contains(module))
            || self.numberless.contains(&without_numbers(name))
    }
}

/// Replaces each number in a name by `#`.
fn without_numbers(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.split('.').map(|part| if is_number(part) { "#" } else { part });
    parts.collect::<Vec<_>>().join(".")
}
