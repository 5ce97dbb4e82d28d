//! Opens the device, streams and back ends of a run.

use super::{Notes, OpenError};
use crate::device::{Device, Emulation, HostDevice};
use crate::engine::Backend;
use crate::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use crate::model::Placement;
use crate::pilot::{DeviceName, Run, usable_cores};
use std::path::Path;
use std::sync::Arc;

/// Opens the device of `run` for the networks of `folder`; operator profiles are written to the
/// folder `operators`, if given. Fails if the device or a library is missing.
pub fn place(
    folder: &Path,
    run: &Run,
    operators: Option<&Path>,
    notes: &mut Notes<'_>,
) -> Result<Placement, OpenError> {
    match run.device {
        DeviceName::Cpu => open_host(HostDevice::new(), run, operators, notes),
        DeviceName::Emulated => {
            notes("the device is emulated: its times are those of this CPU");
            let device = HostDevice::emulating(Emulation::default());
            open_host(device, run, operators, notes)
        }
        DeviceName::Cuda(ordinal) => open_gpu(folder, ordinal, run, operators, notes),
    }
}

fn open_host(
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
        streams: device.streams(run.fast_share)?,
        device: Arc::new(device),
        fast: backend(run.threads.action, &run.real_time.pin_tick)?,
        slow: backend(run.threads.understanding, &run.real_time.pin_understanding)?,
    })
}

#[cfg(not(feature = "cuda"))]
fn open_gpu(
    _: &Path,
    _: usize,
    _: &Run,
    _: Option<&Path>,
    _: &mut Notes<'_>,
) -> Result<Placement, OpenError> {
    Err(crate::device::DeviceError::NotBuilt { what: "a GPU", feature: "cuda" }.into())
}

#[cfg(feature = "cuda")]
fn open_gpu(
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
    // A TensorRT engine runs on a partition of the multiprocessors only if it was built on a stream
    // of that partition (`enqueueV3`: otherwise it may crash). `tandem build` uses none.
    let mut streams = device.streams(run.fast_share.filter(|_| !is_built))?;
    if is_built && run.fast_share.is_some() {
        let instead = "TensorRT engines are built for all multiprocessors; remove fast_share";
        streams.sharing = Sharing::Priorities { instead: Some(instead.to_owned()) };
    }
    match &streams.sharing {
        Sharing::Priorities { instead: Some(_) } => {
            notes(&format!("warning: {}", streams.sharing));
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
    let (fast, slow) = (backend(&streams.fast)?, backend(&streams.slow)?);
    Ok(Placement { device: Arc::new(device), streams, fast, slow })
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
    Err(crate::device::DeviceError::NotBuilt { what: "TensorRT engines", feature: "cuda,tensorrt" }
        .into())
}
