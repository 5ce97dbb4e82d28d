//! TensorRT as the builder of engine folders.

use super::build::{self, BuildRequest};
use super::monitor::Progress;
use super::open::TensorRt;
use crate::engine::tensorrt::{Target as Card, predict};
use crate::engine::{
    BackendKind, BuildError, BuildJob, BuildStep, Builder, LoadError, NetworkFile, Prediction,
    Target,
};
use std::fs::{self, File};
use std::sync::Arc;

impl Builder for TensorRt {
    fn kind(&self) -> BackendKind {
        if cfg!(feature = "tensorrt-enterprise") {
            BackendKind::Tensorrt
        } else {
            BackendKind::TensorrtRtx
        }
    }

    fn library_version(&self) -> String {
        self.name()
    }

    fn machine(&self, targets: &[Target]) -> Option<String> {
        targets.contains(&Target::Native).then(gpu_models)
    }

    fn predict(&self, file: &NetworkFile, _: &[Target]) -> Result<Prediction, BuildError> {
        let predicted = predict(file).map_err(|error| BuildError::Refused {
            library: self.name(),
            network: file.contract.network.clone(),
            reason: error.to_string(),
        })?;
        Ok(Prediction {
            memory_bytes: predicted.host_memory_bytes,
            mapped_bytes: predicted.mapped_bytes,
            scratch_bytes: 0,
            result_bytes: predicted.engine_bytes,
        })
    }

    fn build(&self, job: &BuildJob<'_>) -> Result<(), BuildError> {
        let refused = |reason: String| BuildError::Refused {
            library: self.name(),
            network: job.file.contract.network.clone(),
            reason,
        };
        let cards = job.targets.iter().map(|target| target.to_string().parse::<Card>());
        let targets =
            cards.collect::<Result<_, _>>().map_err(|error| refused(error.to_string()))?;
        let (network, listener) = (job.file.contract.network.clone(), Arc::clone(job.steps));
        let progress = move |step: Progress<'_>| {
            let Progress { phase, depth, step, steps } = step;
            listener(BuildStep { network: &network, phase, depth, step, steps });
        };
        let cancel = Arc::clone(job.cancel);
        let request = BuildRequest { targets, progress: Arc::new(progress), cancel };
        let mut engine = File::create(job.engine).map_err(BuildError::file("make", job.engine))?;
        let built = TensorRt::build(self, job.file, &request, &mut engine);
        match built {
            Ok(report) => {
                engine.sync_all().map_err(BuildError::file("write", job.engine))?;
                let Some(layers) = report.layers else { return Ok(()) };
                let text = serde_json::to_vec(&layers).expect("string keys and integers");
                fs::write(job.layers, text).map_err(BuildError::file("write", job.layers))
            }
            Err(build::BuildError::Canceled { .. }) => Err(BuildError::Canceled),
            Err(build::BuildError::Write { source, .. }) => {
                Err(BuildError::file("write", job.engine)(source))
            }
            Err(build::BuildError::Contract { network, what, name, expected, found }) => {
                Err(LoadError::Contract { network, what, name, expected, found }.into())
            }
            Err(build::BuildError::Refused { node: Some(node), reason, .. }) => {
                Err(refused(format!("at node {node:?}: {reason}")))
            }
            Err(build::BuildError::Refused { node: None, reason, .. }) => Err(refused(reason)),
            Err(other) => Err(refused(other.to_string())),
        }
    }
}

/// Lists the models of this machine's GPUs as reported by the driver.
fn gpu_models() -> String {
    let folders = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let mut models: Vec<String> = folders
        .filter_map(|gpu| {
            let text = fs::read_to_string(gpu.path().join("information")).ok()?;
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
            Some(model.trim().to_owned())
        })
        .collect();
    models.sort_unstable();
    if models.is_empty() { "no GPU".to_owned() } else { models.join(", ") }
}
