//! The device, streams and back ends that a run names.

use super::{Notes, OpenError};
use crate::device::{Device, Emulation, HostDevice};
use crate::engine::Backend;
use crate::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use crate::model::Placement;
use crate::pilot::{DeviceName, Run, usable_cores};
use std::path::Path;
use std::sync::Arc;

/// The device that `run` names, for the networks of `folder`. If `operators` is given, operator
/// profiles are written to that folder.
///
/// # Errors
/// The device or a library is missing, or the device cannot be shared as `run` asks.
pub fn place(
    folder: &Path,
    run: &Run,
    operators: Option<&Path>,
    notes: &mut Notes<'_>,
) -> Result<Placement, OpenError> {
    match run.device {
        DeviceName::Cpu => on_the_host(HostDevice::new(), run, operators, notes),
        DeviceName::Emulated => {
            notes("the device is emulated: its times are this CPU's");
            let device = HostDevice::emulating(Emulation::default());
            on_the_host(device, run, operators, notes)
        }
        DeviceName::Cuda(ordinal) => on_a_gpu(folder, ordinal, run, operators, notes),
    }
}

fn on_the_host(
    device: HostDevice,
    run: &Run,
    operators: Option<&Path>,
    notes: &mut Notes<'_>,
) -> Result<Placement, OpenError> {
    let mut backend =
        |threads, cores: &Option<Vec<usize>>| -> Result<Box<dyn Backend>, OpenError> {
            let options = CpuOptions { threads, ..CpuOptions::default() };
            let backend = OnnxRuntime::open(options, notes)?;
            let cores = cores.as_deref().map(usable_cores).unwrap_or_default();
            let backend = backend.with_worker_cores(cores);
            Ok(Box::new(match operators {
                None => backend,
                Some(into) => backend.with_operator_profile(into).map_err(|source| {
                    OpenError::OperatorProfile { folder: into.to_owned(), source }
                })?,
            }))
        };
    Ok(Placement {
        lanes: device.lanes(run.fast_share)?,
        device: Arc::new(device),
        fast: backend(run.threads.action, &run.real_time.pin_tick)?,
        slow: backend(run.threads.understanding, &run.real_time.pin_understanding)?,
    })
}

#[cfg(not(feature = "cuda"))]
fn on_a_gpu(
    _: &Path,
    _: usize,
    _: &Run,
    _: Option<&Path>,
    _: &mut Notes<'_>,
) -> Result<Placement, OpenError> {
    Err(crate::device::DeviceError::NotBuilt { what: "a GPU", feature: "cuda" }.into())
}

#[cfg(feature = "cuda")]
fn on_a_gpu(
    folder: &Path,
    ordinal: usize,
    run: &Run,
    operators: Option<&Path>,
    notes: &mut Notes<'_>,
) -> Result<Placement, OpenError> {
    use crate::device::Sharing;
    use crate::device::cuda::CudaDevice;
    use crate::engine::onnxruntime::{CudaOptions, OnnxRuntimeCuda};
    use crate::engine::{BackendKind, EngineFolder};

    if operators.is_some() {
        return Err(OpenError::OperatorsOnGpu);
    }
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
            notes(&format!("warning: {}", lanes.sharing));
        }
        sharing => notes(&format!("the experts share {}: {sharing}", device.name())),
    }
    let mut backend =
        |stream: &Arc<dyn crate::device::Stream>| -> Result<Box<dyn Backend>, OpenError> {
            if is_built {
                return tensorrt(&device, notes);
            }
            let stream = Arc::clone(stream);
            Ok(Box::new(OnnxRuntimeCuda::open(
                device.clone(),
                stream,
                CudaOptions::default(),
                notes,
            )?))
        };
    let (fast, slow) = (backend(&lanes.fast)?, backend(&lanes.slow)?);
    Ok(Placement { device: Arc::new(device), lanes, fast, slow })
}

#[cfg(all(feature = "cuda", feature = "tensorrt"))]
fn tensorrt(
    device: &crate::device::cuda::CudaDevice,
    notes: &mut Notes<'_>,
) -> Result<Box<dyn Backend>, OpenError> {
    use crate::engine::tensorrt::TensorRt;
    Ok(Box::new(TensorRt::open(notes)?.on(device.clone())?))
}

#[cfg(all(feature = "cuda", not(feature = "tensorrt")))]
fn tensorrt(
    _: &crate::device::cuda::CudaDevice,
    _: &mut Notes<'_>,
) -> Result<Box<dyn Backend>, OpenError> {
    Err(crate::device::DeviceError::NotBuilt {
        what: "engines of TensorRT",
        feature: "cuda,tensorrt",
    }
    .into())
}
