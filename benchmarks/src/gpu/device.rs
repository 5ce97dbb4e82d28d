//! Devices and the libraries that run the networks on them.

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

/// Device that `--device` names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeviceName {
    Host,
    /// The host with threads as streams and separate device memory.
    Emulated,
    /// A GPU by its CUDA ordinal.
    Cuda(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match text {
            "host" => Ok(Self::Host),
            "emulated" => Ok(Self::Emulated),
            _ => number(text).map(Self::Cuda).ok_or_else(|| {
                "expected host, emulated, or cuda:N with the GPU's number".to_owned()
            }),
        }
    }
}

/// Library that runs the networks on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Library {
    /// ONNX Runtime, with its CUDA execution provider on a GPU
    Onnxruntime,
    /// TensorRT, with the engines in the folder
    Tensorrt,
}

/// CUDA graphs and multiprocessors of the two experts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Arrangement {
    /// True if runs are captured once and launched as CUDA graphs.
    pub(super) graphs: bool,
    /// Share of the multiprocessors reserved for the fast stream; `None`: stream priorities.
    pub(super) share: Option<f64>,
}

/// A device that is open, with its name.
pub(super) struct Opened {
    place: DeviceName,
    device: Arc<dyn Device>,
    name: String,
    #[cfg(feature = "cuda")]
    cuda: Option<CudaDevice>,
}

/// Networks loaded on a device's streams.
pub(super) struct Loaded {
    pub(super) networks: Networks,
    /// Names and versions, for the machine card.
    pub(super) libraries: Vec<String>,
}

impl Opened {
    /// Opens the device. Fails if it does not exist, or this program was built without support for
    /// it.
    pub(super) fn open(place: DeviceName) -> anyhow::Result<Self> {
        let on_host = |device: HostDevice| Self {
            place,
            name: device.name(),
            device: Arc::new(device),
            #[cfg(feature = "cuda")]
            cuda: None,
        };
        match place {
            DeviceName::Host => Ok(on_host(HostDevice::new())),
            DeviceName::Emulated => Ok(on_host(HostDevice::emulating(Emulation::default()))),
            #[cfg(feature = "cuda")]
            DeviceName::Cuda(number) => {
                let cuda = CudaDevice::open(number)?;
                let (name, device) = (cuda.name(), Arc::new(cuda.clone()));
                Ok(Self { place, device, name, cuda: Some(cuda) })
            }
            #[cfg(not(feature = "cuda"))]
            DeviceName::Cuda(number) => anyhow::bail!(
                "cuda:{number}: this program was built without GPU support; build it with --features cuda"
            ),
        }
    }

    pub(super) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Returns the GPU's name in the driver; `None` for the host.
    pub(super) fn gpu(&self) -> Option<&str> {
        matches!(self.place, DeviceName::Cuda(_)).then_some(&self.name)
    }

    /// Loads the networks of an engine folder. Fails if the library is missing or rejects a
    /// network, or the device fails.
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
        let streams = self.device.streams(arrangement.share)?;
        let networks =
            Networks::load(engine, &backend, &backend).with_context(|| opening(engine))?;
        let networks = networks.on(Arc::clone(&self.device), streams);
        Ok(Loaded { networks, libraries: vec![backend.name()] })
    }
}

/// Each stream has its own back end, because the library takes the stream when it loads a network.
#[cfg(feature = "cuda")]
fn load_onnxruntime(
    cuda: &CudaDevice,
    engine: &Path,
    arrangement: Arrangement,
) -> anyhow::Result<Loaded> {
    let streams = cuda.streams(arrangement.share)?;
    let open =
        |stream| OnnxRuntimeCuda::open(cuda.clone(), stream, CudaOptions::default(), &mut note);
    let (fast, slow) = (open(Arc::clone(&streams.fast))?, open(Arc::clone(&streams.slow))?);
    let networks = Networks::load(engine, &fast, &slow).with_context(|| opening(engine))?;
    let networks = networks.on(Arc::new(cuda.clone()), streams);
    Ok(Loaded { networks, libraries: vec![fast.name()] })
}

#[cfg(all(feature = "cuda", feature = "tensorrt"))]
fn load_tensorrt(
    cuda: &CudaDevice,
    engine: &Path,
    arrangement: Arrangement,
) -> anyhow::Result<Loaded> {
    // Engines built for all multiprocessors may crash on a part of them.
    let streams = cuda.streams(None)?;
    let backend = tandem::engine::tensorrt::TensorRt::open(&mut note)?.on(cuda.clone())?;
    let networks = Networks::load(engine, &backend, &backend).with_context(|| opening(engine))?;
    let networks = networks.on(Arc::new(cuda.clone()), streams);
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
    fn device_names_are_parsed_as_in_run_files() {
        assert_eq!("emulated".parse(), Ok(DeviceName::Emulated));
        assert_eq!("cuda:3".parse(), Ok(DeviceName::Cuda(3)));
        for wrong in ["cuda", "cuda:", "cuda:-1", "gpu"] {
            assert!(wrong.parse::<DeviceName>().unwrap_err().contains("cuda:N"), "{wrong}");
        }
    }
}
