//! Comparing a checkpoint's tensors with what the networks need.

use super::expected::{self, Expected};
use super::trunk::Trunk;
use super::{Checkpoint, CheckpointError, Warning};
use crate::dtype::DType;
use std::collections::BTreeSet;

/// The output head, tied to the embedding; stored by some writers.
const OUTPUT_HEAD: &str = "language_model.lm_head.weight";

impl Checkpoint {
    /// The two trunks of the BEV encoder, camera first, as their tensors tell them.
    ///
    /// # Errors
    /// If a trunk's first tensors are missing.
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

    /// Checks that every tensor that a network reads is there, with the shape that the
    /// configuration gives and a floating-point type. Reads no weights.
    ///
    /// # Errors
    /// Every tensor that is missing or wrong; as [`CheckpointError::Several`] if there are many.
    pub fn check(&self) -> Result<Vec<Warning>, CheckpointError> {
        let [image, lidar] = self.trunks()?;
        let projected = self.projected_channels().unwrap_or(lidar.width());
        let expected = expected::all(&self.config, &image, &lidar, projected);

        let mut errors: Vec<_> =
            expected.iter().filter_map(|tensor| self.check_needed(tensor).err()).collect();
        match errors.len() {
            0 => {}
            1 => return Err(errors.remove(0)),
            _ => return Err(CheckpointError::Several(errors)),
        }
        Ok(self.warnings(&expected, &image, &lidar, projected))
    }

    /// Width of the BEV feature that the action expert was made for; `None` without the tensor.
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
                network: Some(*network),
                shape: shape.clone(),
            },
            other => other,
        })?;
        let path = || self.files[entry.file].clone();
        if entry.shape != *shape {
            return Err(CheckpointError::WrongShape {
                path: path(),
                tensor: name.clone(),
                network: *network,
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

    fn warnings(
        &self,
        expected: &[Expected],
        image: &Trunk,
        lidar: &Trunk,
        projected: usize,
    ) -> Vec<Warning> {
        let mut warnings: Vec<Warning> =
            self.sparse.iter().map(|path| Warning::Sparse { path: path.clone() }).collect();
        if projected != lidar.width() {
            warnings.push(Warning::Unchained { feature: lidar.width(), projection: projected });
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
        let known: BTreeSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        let unknown = self.tensors.keys().chain(self.foreign.keys());
        let unknown = unknown.filter(|name| !known.contains(name.as_str()) && *name != OUTPUT_HEAD);
        warnings.extend(unknown.map(|tensor| Warning::UnknownTensor { tensor: tensor.clone() }));
        warnings
    }
}
