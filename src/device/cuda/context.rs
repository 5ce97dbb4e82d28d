//! State shared by all objects of one device: the primary context, a stream for setup, the clock,
//! and the conversion of driver errors.

#![expect(unsafe_code, reason = "calls the driver")]

use super::event_context::EventContext;
use super::handle::{PrimaryHandle, StreamHandle};
use crate::device::{DeviceCounters, DeviceError, MemoryInfo};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use std::cell::Cell;
use std::sync::Arc;

/// Minimum driver version, CUDA 12.8 in the driver's encoding. `cuEventElapsedTime_v2` requires it;
/// green contexts require 12.5.
pub(super) const OLDEST_DRIVER: i32 = 12_080;

/// Shared state of a CUDA device.
pub(super) struct Context {
    pub(super) counters: DeviceCounters,
    name: String,
    raw: sys::CUcontext,
    /// Events of the primary context. Its idle stream is used for zeroing, setup and
    /// calibration; no tick waits for it.
    events: Arc<EventContext>,
    /// Declared last, so that it is released after everything above.
    primary: PrimaryHandle,
}

// SAFETY: `raw` is a context that any thread may make current; a primary context may be current in
// many threads at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the primary context of a device. Other libraries of the process (TensorRT, ONNX
    /// Runtime) use the same context, so that they can use its addresses and streams.
    pub(super) fn open(device: sys::CUdevice, name: String) -> Result<Self, DeviceError> {
        let failed = |what: &'static str| {
            let name = name.clone();
            move |error| device_error(&name, what, error)
        };
        // SAFETY: `device` was returned by the driver.
        let raw = unsafe { result::primary_ctx::retain(device) }
            .map_err(failed("opening the device's context"))?;
        let primary = PrimaryHandle::new(device);
        // SAFETY: `raw` was just retained.
        unsafe { result::ctx::set_current(raw) }.map_err(failed("making the context current"))?;
        let setup = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map(StreamHandle::new)
            .map_err(failed("creating a stream"))?;
        let events = EventContext::primary(raw, setup)
            .map_err(failed("calibrating the device's clock"))
            .map(Arc::new)?;
        Ok(Self { counters: DeviceCounters::default(), name, raw, events, primary })
    }

    /// Returns the description of the device.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn device(&self) -> sys::CUdevice {
        self.primary.raw()
    }

    pub(super) fn raw(&self) -> sys::CUcontext {
        self.raw
    }

    pub(super) fn setup(&self) -> &StreamHandle {
        self.events.idle()
    }

    /// Returns the events of the primary context.
    pub(super) fn events(&self) -> &Arc<EventContext> {
        &self.events
    }

    /// Makes the context current in this thread, as every call of the driver requires.
    ///
    /// It is the primary context for both streams, even if the device is partitioned: a stream has
    /// its own multiprocessors in any case, and a green context may be current in one thread only.
    pub(super) fn bind(&self) -> Result<(), DeviceError> {
        // SAFETY: `self.raw` is retained while `self` lives.
        self.check("making the context current", unsafe { result::ctx::set_current(self.raw) })?;
        self.check("setting the capture mode", use_local_capture_mode())
    }

    /// Converts a result of the driver.
    pub(super) fn check<T>(
        &self,
        what: &'static str,
        outcome: Result<T, DriverError>,
    ) -> Result<T, DeviceError> {
        outcome.map_err(|error| device_error(&self.name, what, error))
    }

    /// Converts the result of an allocation.
    pub(super) fn check_memory<T>(
        &self,
        what: &'static str,
        requested: usize,
        outcome: Result<T, DriverError>,
    ) -> Result<T, DeviceError> {
        match outcome {
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let free = match self.memory() {
                    Ok(memory) => format!("{} bytes", memory.free),
                    Err(_) => "an unknown amount".to_owned(),
                };
                Err(DeviceError::OutOfMemory { device: self.name.clone(), requested, free })
            }
            outcome => self.check(what, outcome),
        }
    }

    /// Returns free and total memory.
    pub(super) fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        self.bind()?;
        let (free, total) = self.check("querying free memory", result::mem_get_info())?;
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    /// Waits for the setup stream only.
    pub(super) fn wait_for_setup(&self, what: &'static str) -> Result<(), DeviceError> {
        // SAFETY: the setup stream lives as long as `self`.
        self.check(what, unsafe { result::stream::synchronize(self.setup().raw()) })
    }
}

/// Sets the thread-local capture mode, once per thread, so that calls of this thread are allowed
/// during captures of other threads and do not invalidate them: libraries capture in the global
/// mode, in which an event query of another thread fails and invalidates the capture. Captures of
/// this thread are protected as before.
fn use_local_capture_mode() -> Result<(), DriverError> {
    thread_local!(static IS_SET: Cell<bool> = const { Cell::new(false) });
    // A thread that is exiting may still drop objects of the device; it has set the mode before.
    if IS_SET.try_with(|is_set| is_set.replace(true)).unwrap_or(true) {
        return Ok(());
    }
    let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: `mode` is readable and writable.
    unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) }.result()
}

impl Drop for Context {
    fn drop(&mut self) {
        // The fields that are dropped next need a current context. A lost device has destroyed
        // them.
        let _ = self.bind();
    }
}

/// Returns the driver's message for an error.
pub(super) fn message(error: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| "unknown error".to_owned(), |text| text.to_string_lossy().into_owned())
    };
    format!("{}, {}", text(error.error_name()), text(error.error_string()))
}

fn device_error(device: &str, what: &'static str, error: DriverError) -> DeviceError {
    let reason = message(error);
    if is_lost(error.0) {
        return DeviceError::Lost {
            device: device.to_owned(),
            reason: format!("{what}: {reason}"),
        };
    }
    DeviceError::Failed { what: format!("{what} on {device}"), reason }
}

/// Returns true for errors after which the driver fails every call until the process ends.
fn is_lost(error: CUresult) -> bool {
    matches!(
        error,
        CUresult::CUDA_ERROR_DEINITIALIZED
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUresult::CUDA_ERROR_CONTAINED
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED
            | CUresult::CUDA_ERROR_EXTERNAL_DEVICE
            | CUresult::CUDA_ERROR_UNKNOWN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_permanent_errors_are_a_lost_device() {
        assert!(is_lost(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(is_lost(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE));
        for error in [
            CUresult::CUDA_ERROR_OUT_OF_MEMORY,
            CUresult::CUDA_ERROR_NOT_READY,
            CUresult::CUDA_ERROR_INVALID_HANDLE,
            CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        ] {
            assert!(!is_lost(error), "{error:?}");
        }
    }
}
