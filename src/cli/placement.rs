//! Where a run's networks are, and what runs them there.

use super::print;
use crate::device::{Device, Emulation, HostDevice, Lanes};
use crate::engine::Backend;
use crate::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use crate::pilot::{DeviceName, Run, usable_cores};
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;

/// A device with the back ends of its two lanes.
pub(super) struct Placement {
    pub(super) device: Arc<dyn Device>,
    pub(super) lanes: Lanes,
    /// Of the BEV encoder and the action expert.
    pub(super) fast: Box<dyn Backend>,
    /// Of the vision tower and the understanding expert.
    pub(super) slow: Box<dyn Backend>,
}

impl Placement {
    /// The device that `run` names, for the networks of `folder`; with `operators`, a folder, their
    /// operators are measured into it.
    pub(super) fn of(folder: &Path, run: &Run, operators: Option<&Path>) -> anyhow::Result<Self> {
        match run.device {
            DeviceName::Cpu => Self::on_the_host(HostDevice::new(), run, operators),
            DeviceName::Emulated => {
                print::note("the device is emulated: its times are this CPU's");
                Self::on_the_host(HostDevice::emulating(Emulation::default()), run, operators)
            }
            DeviceName::Cuda(ordinal) => on_a_gpu(folder, ordinal, run, operators),
        }
    }

    fn on_the_host(
        device: HostDevice,
        run: &Run,
        operators: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let backend = |threads, cores: &Option<Vec<usize>>| -> anyhow::Result<Box<dyn Backend>> {
            let options = CpuOptions { threads, ..CpuOptions::default() };
            let backend = OnnxRuntime::open(options, &mut print::note)?;
            let cores = cores.as_deref().map(usable_cores).unwrap_or_default();
            let backend = backend.with_worker_cores(cores);
            Ok(Box::new(match operators {
                None => backend,
                Some(into) => backend.with_operator_profile(into).with_context(|| {
                    format!("cannot write operator profiles to {}", into.display())
                })?,
            }))
        };
        Ok(Self {
            lanes: device.lanes(run.fast_share)?,
            device: Arc::new(device),
            fast: backend(run.threads.action, &run.real_time.pin_tick)?,
            slow: backend(run.threads.understanding, &run.real_time.pin_understanding)?,
        })
    }
}

#[cfg(not(feature = "cuda"))]
fn on_a_gpu(_: &Path, _: usize, _: &Run, _: Option<&Path>) -> anyhow::Result<Placement> {
    Err(crate::device::DeviceError::NotBuilt { what: "a GPU", feature: "cuda" }.into())
}

#[cfg(feature = "cuda")]
fn on_a_gpu(
    folder: &Path,
    ordinal: usize,
    run: &Run,
    operators: Option<&Path>,
) -> anyhow::Result<Placement> {
    use crate::device::Sharing;
    use crate::device::cuda::CudaDevice;
    use crate::engine::onnxruntime::{CudaOptions, OnnxRuntimeCuda};
    use crate::engine::{BackendKind, EngineFolder};

    anyhow::ensure!(operators.is_none(), "operators are only measured on the CPU");
    let device = CudaDevice::open(ordinal)?;
    let is_built = EngineFolder::read(folder)?.is_some_and(|built| {
        built.keys().values().any(|key| key.backend != BackendKind::OnnxRuntime)
    });
    // An engine runs on a part of the multiprocessors only if it was built on a stream with that part
    // (TensorRT's `enqueueV3`: otherwise it may crash), and ours are built without one.
    let mut lanes = device.lanes(run.fast_share.filter(|_| !is_built))?;
    if is_built && run.fast_share.is_some() {
        let instead = "TensorRT's engines are built for all multiprocessors; leave fast_share out";
        lanes.sharing = Sharing::Priorities { instead: Some(instead.to_owned()) };
    }
    match &lanes.sharing {
        Sharing::Priorities { instead: Some(_) } => {
            print::note(&format!("warning: {}", lanes.sharing));
        }
        sharing => print::note(&format!("the experts share {}: {sharing}", device.name())),
    }
    let backend = |stream: &Arc<dyn crate::device::Stream>| -> anyhow::Result<Box<dyn Backend>> {
        if is_built {
            return tensorrt(&device);
        }
        let stream = Arc::clone(stream);
        Ok(Box::new(OnnxRuntimeCuda::open(
            device.clone(),
            stream,
            CudaOptions::default(),
            &mut print::note,
        )?))
    };
    let (fast, slow) = (backend(&lanes.fast)?, backend(&lanes.slow)?);
    Ok(Placement { device: Arc::new(device), lanes, fast, slow })
}

#[cfg(all(feature = "cuda", feature = "tensorrt"))]
fn tensorrt(device: &crate::device::cuda::CudaDevice) -> anyhow::Result<Box<dyn Backend>> {
    use crate::engine::tensorrt::TensorRt;
    Ok(Box::new(TensorRt::open(&mut print::note)?.on(device.clone())?))
}

#[cfg(all(feature = "cuda", not(feature = "tensorrt")))]
fn tensorrt(_: &crate::device::cuda::CudaDevice) -> anyhow::Result<Box<dyn Backend>> {
    Err(crate::device::DeviceError::NotBuilt {
        what: "engines of TensorRT",
        feature: "cuda,tensorrt",
    }
    .into())
}
