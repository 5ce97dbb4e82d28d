//! Where the networks run, and the libraries that run them there.

use anyhow::{Context, ensure};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use tandem::device::{Device, Emulation, HostDevice};
use tandem::engine::Backend;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::model::automot::Networks;
#[cfg(feature = "cuda")]
use tandem::{
    device::cuda::CudaDevice,
    engine::onnxruntime::{CudaOptions, OnnxRuntimeCuda},
};

/// A device, as the command line names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The host as it is.
    Host,
    /// The host, with streams that are threads and memory that is apart.
    Emulated,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match text {
            "host" => Ok(Self::Host),
            "emulated" => Ok(Self::Emulated),
            _ => number(text)
                .map(Self::Cuda)
                .ok_or_else(|| "give host, emulated, or cuda:N with the GPU's number".to_owned()),
        }
    }
}

/// Who runs networks on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Library {
    /// ONNX Runtime, with its CUDA provider on a GPU.
    Onnxruntime,
    /// TensorRT, with engines that the folder holds.
    Tensorrt,
}

/// How the two experts are to run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Arrangement {
    /// Runs are captured once and launched as graphs.
    pub(super) graphs: bool,
    /// Part of the multiprocessors that the fast lane has for itself; `None`: priorities.
    pub(super) share: Option<f64>,
}

/// A device that is there.
pub(super) struct Opened {
    place: Place,
    device: Arc<dyn Device>,
    name: String,
    #[cfg(feature = "cuda")]
    cuda: Option<CudaDevice>,
}

/// Networks on a device's lanes.
pub(super) struct Loaded {
    pub(super) networks: Networks,
    /// The libraries that run them, for the machine card.
    pub(super) libraries: Vec<String>,
}

impl Opened {
    /// Opens the device.
    ///
    /// # Errors
    /// If it is not there, or this program was built without it.
    pub(super) fn open(place: Place) -> anyhow::Result<Self> {
        let on_host = |device: HostDevice| Self {
            place,
            name: device.name(),
            device: Arc::new(device),
            #[cfg(feature = "cuda")]
            cuda: None,
        };
        match place {
            Place::Host => Ok(on_host(HostDevice::new())),
            Place::Emulated => Ok(on_host(HostDevice::emulating(Emulation::default()))),
            #[cfg(feature = "cuda")]
            Place::Cuda(number) => {
                let cuda = CudaDevice::open(number)?;
                let (name, device) = (cuda.name(), Arc::new(cuda.clone()));
                Ok(Self { place, device, name, cuda: Some(cuda) })
            }
            #[cfg(not(feature = "cuda"))]
            Place::Cuda(number) => anyhow::bail!(
                "cuda:{number}: this program was built without GPUs; build it with --features cuda"
            ),
        }
    }

    pub(super) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The GPU as its driver describes it, if it is one.
    pub(super) fn gpu(&self) -> Option<&str> {
        matches!(self.place, Place::Cuda(_)).then_some(&self.name)
    }

    /// Loads an engine folder's networks, arranged so.
    ///
    /// # Errors
    /// If the library is missing or refuses a network, or the device fails.
    pub(super) fn load(
        &self,
        engine: &Path,
        library: Library,
        arrangement: Arrangement,
    ) -> anyhow::Result<Loaded> {
        #[cfg(feature = "cuda")]
        if let Some(cuda) = &self.cuda {
            return match library {
                Library::Onnxruntime => load_onnxruntime(cuda, engine, arrangement),
                Library::Tensorrt => load_tensorrt(cuda, engine, arrangement),
            };
        }
        ensure!(library == Library::Onnxruntime, "TensorRT runs on GPUs only");
        let backend = OnnxRuntime::open(CpuOptions::default(), &mut note)?;
        let lanes = self.device.lanes(arrangement.share)?;
        let networks =
            Networks::load(engine, &backend, &backend).with_context(|| opening(engine))?;
        let networks = networks.on(Arc::clone(&self.device), lanes);
        Ok(Loaded { networks, libraries: vec![backend.name()] })
    }
}

/// Each lane has a back end of its own: the library takes its stream when it loads a network.
#[cfg(feature = "cuda")]
fn load_onnxruntime(
    cuda: &CudaDevice,
    engine: &Path,
    arrangement: Arrangement,
) -> anyhow::Result<Loaded> {
    let lanes = cuda.lanes(arrangement.share)?;
    let open =
        |stream| OnnxRuntimeCuda::open(cuda.clone(), stream, CudaOptions::default(), &mut note);
    let (fast, slow) = (open(Arc::clone(&lanes.fast))?, open(Arc::clone(&lanes.slow))?);
    let networks = Networks::load(engine, &fast, &slow).with_context(|| opening(engine))?;
    let networks = networks.on(Arc::new(cuda.clone()), lanes);
    Ok(Loaded { networks, libraries: vec![fast.name()] })
}

#[cfg(all(feature = "cuda", feature = "tensorrt"))]
fn load_tensorrt(
    cuda: &CudaDevice,
    engine: &Path,
    arrangement: Arrangement,
) -> anyhow::Result<Loaded> {
    // Engines that were built for all multiprocessors may crash on a part of them.
    let lanes = cuda.lanes(None)?;
    let backend = tandem::engine::tensorrt::TensorRt::open(&mut note)?.on(cuda.clone())?;
    let networks = Networks::load(engine, &backend, &backend).with_context(|| opening(engine))?;
    let networks = networks.on(Arc::new(cuda.clone()), lanes);
    Ok(Loaded { networks, libraries: vec![backend.name()] })
}

#[cfg(all(feature = "cuda", not(feature = "tensorrt")))]
fn load_tensorrt(_: &CudaDevice, _: &Path, _: Arrangement) -> anyhow::Result<Loaded> {
    anyhow::bail!("this program was built without TensorRT; build it with --features cuda,tensorrt")
}

fn opening(engine: &Path) -> String {
    format!("loading engine folder {}", engine.display())
}

fn note(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_elsewhere() {
        assert_eq!("emulated".parse(), Ok(Place::Emulated));
        assert_eq!("cuda:3".parse(), Ok(Place::Cuda(3)));
        for wrong in ["cuda", "cuda:", "cuda:-1", "gpu"] {
            assert!(wrong.parse::<Place>().unwrap_err().contains("cuda:N"), "{wrong}");
        }
    }
}
