//! TensorRT as a back end: loads engines of an engine folder onto the GPU of this machine.

use super::build::{no_device, reason};
use super::loaded::GpuEngine;
use super::monitor::Messages;
use super::open::TensorRt;
use crate::device::cuda::CudaDevice;
use crate::device::{Device, DeviceError, Stream};
use crate::engine::{Backend, Builder, BuiltNetwork, Engine, Key, LoadError, NetworkFile, Target};
use std::sync::Arc;

/// TensorRT on one GPU of this machine.
pub struct TensorRtOnGpu {
    pub(super) library: TensorRt,
    pub(super) device: CudaDevice,
    /// Stream of runs on host tensors.
    pub(super) stream: Arc<dyn Stream>,
}

impl TensorRt {
    /// Creates a back end for `device`. Fails if the device is lost.
    pub fn on(&self, device: CudaDevice) -> Result<TensorRtOnGpu, DeviceError> {
        let stream = device.streams(None)?.slow;
        Ok(TensorRtOnGpu { library: self.clone(), device, stream })
    }
}

impl TensorRtOnGpu {
    /// Converts the library's messages to the error of a load.
    pub(super) fn refused(
        &self,
        network: &str,
        messages: &Messages,
        error: &trtx::Error,
    ) -> LoadError {
        let (library, network) = (self.name(), network.to_owned());
        let errors = messages.errors();
        if let Some(reason) = no_device(&errors) {
            return LoadError::NoDevice { library, network, reason };
        }
        let reason = reason(&errors);
        let reason = if reason.is_empty() { error.to_string() } else { reason };
        LoadError::Refused { library, network, reason }
    }

    /// Refuses an engine that was built for another GPU, library or version of tandem.
    fn check_key(&self, network: &str, built: &BuiltNetwork) -> Result<(), LoadError> {
        let (major, minor) = self.device.compute_capability();
        let here = Target::Sm(u16::try_from(major * 10 + minor).unwrap_or(u16::MAX));
        let targets = &built.key.targets;
        let is_for_here = targets.iter().any(|&target| target == here || target == Target::Native);
        let now = Key {
            targets: if is_for_here { targets.clone() } else { vec![here] },
            machine: self.library.machine(targets),
            backend: self.library.kind(),
            library: self.library.library_version(),
            tandem: env!("CARGO_PKG_VERSION").to_owned(),
            ..built.key.clone()
        };
        if now == built.key {
            return Ok(());
        }
        Err(LoadError::Rebuild {
            network: network.to_owned(),
            differences: built.key.differences(&now),
            rebuild: built.rebuild.clone(),
        })
    }
}

impl Backend for TensorRtOnGpu {
    fn name(&self) -> String {
        format!("{} on {}", self.library.name(), self.device.name())
    }

    fn load(&self, file: &NetworkFile) -> Result<Arc<dyn Engine>, LoadError> {
        let network = file.contract.network.as_str();
        let built = file.built.as_ref().ok_or_else(|| LoadError::Refused {
            library: self.name(),
            network: network.to_owned(),
            reason: format!(
                "{} has no engine for it; build one with `tandem build --network {} --backend {} --out \
                 DIR`",
                file.folder.display(),
                file.folder.display(),
                self.library.kind().as_str()
            ),
        })?;
        self.check_key(network, built)?;
        Ok(Arc::new(GpuEngine::load(self, file, built)?))
    }
}
