//! What everything of one device shares: the primary context, a stream for setting up, the clock, and
//! how the driver's errors become ours.

#![expect(unsafe_code, reason = "calls the driver")]

use super::event_context::EventContext;
use super::handle::{PrimaryHandle, StreamHandle};
use crate::device::{DeviceError, MemoryInfo, Traffic};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use std::cell::Cell;
use std::sync::Arc;

/// The oldest driver: CUDA 12.8, as the driver counts. It is the youngest function called here
/// (`cuEventElapsedTime_v2`) that asks for it; green contexts came with 12.5.
pub(super) const OLDEST_DRIVER: i32 = 12_080;

/// The shared part of a CUDA device.
pub(super) struct Context {
    pub(super) traffic: Traffic,
    name: String,
    raw: sys::CUcontext,
    /// Events of the primary context. Its idle stream is for zeroing, setting up and calibrating;
    /// nothing of a tick waits for it.
    events: Arc<EventContext>,
    /// Declared last: it is released once everything above is destroyed.
    primary: PrimaryHandle,
}

// SAFETY: the context is named by a pointer that any thread may make current; the primary context is
// meant to be current in many threads at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// The primary context of a device, which other libraries of the process (TensorRT, ONNX Runtime)
    /// use as well: addresses and streams of ours are theirs.
    pub(super) fn open(device: sys::CUdevice, name: String) -> Result<Self, DeviceError> {
        let failed = |what: &'static str| {
            let name = name.clone();
            move |error| device_error(&name, what, error)
        };
        // SAFETY: `device` came from the driver.
        let raw = unsafe { result::primary_ctx::retain(device) }
            .map_err(failed("opening the device's context"))?;
        let primary = PrimaryHandle::new(device);
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(raw) }.map_err(failed("making the context current"))?;
        let setup = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map(StreamHandle::new)
            .map_err(failed("making a stream"))?;
        let events = EventContext::primary(raw, setup)
            .map_err(failed("relating the device's clock"))
            .map(Arc::new)?;
        Ok(Self { traffic: Traffic::default(), name, raw, events, primary })
    }

    /// What the device is called.
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

    /// Events of the primary context.
    pub(super) fn events(&self) -> &Arc<EventContext> {
        &self.events
    }

    /// Makes the context current in this thread, which every call of the driver takes. It stays so.
    ///
    /// It is the primary one for both lanes, split or not: a stream knows its own multiprocessors,
    /// and a green context may be current in one thread only.
    pub(super) fn bind(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is retained as long as `self` lives.
        self.check("making the context current", unsafe { result::ctx::set_current(self.raw) })?;
        self.check("setting the mode of captures", leave_captures_alone())
    }

    /// The driver's answer as ours.
    pub(super) fn check<T>(
        &self,
        what: &'static str,
        answer: Result<T, DriverError>,
    ) -> Result<T, DeviceError> {
        answer.map_err(|error| device_error(&self.name, what, error))
    }

    /// The driver's answer to a request for memory.
    pub(super) fn check_memory<T>(
        &self,
        what: &'static str,
        asked: usize,
        answer: Result<T, DriverError>,
    ) -> Result<T, DeviceError> {
        match answer {
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let free = match self.memory() {
                    Ok(memory) => format!("{} bytes", memory.free),
                    Err(_) => "how many is unknown".to_owned(),
                };
                Err(DeviceError::OutOfMemory { device: self.name.clone(), asked, free })
            }
            answer => self.check(what, answer),
        }
    }

    /// Free and total memory.
    pub(super) fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        self.bind()?;
        let (free, total) = self.check("asking for free memory", result::mem_get_info())?;
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    /// Waits for the setting-up stream alone.
    pub(super) fn wait_for_setup(&self, what: &'static str) -> Result<(), DeviceError> {
        // SAFETY: the stream lives as long as `self`.
        self.check(what, unsafe { result::stream::synchronize(self.setup().raw()) })
    }
}

/// Allows this thread's calls, once per thread, while other threads capture, and keeps them from
/// invalidating those captures: libraries capture in the driver's global mode, in which a query of an
/// event by another thread would fail and end their capture. What this thread captures itself is as
/// protected as before.
fn leave_captures_alone() -> Result<(), DriverError> {
    thread_local!(static IS_SET: Cell<bool> = const { Cell::new(false) });
    // A thread that ends may still drop objects of the device; it has set the mode before.
    if IS_SET.try_with(|is_set| is_set.replace(true)).unwrap_or(true) {
        return Ok(());
    }
    let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: `mode` may be read and written.
    unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) }.result()
}

impl Drop for Context {
    fn drop(&mut self) {
        // For the objects that are dropped next; a device that is lost has none left.
        let _ = self.bind();
    }
}

/// Returns the driver's message for an error.
pub(super) fn message(error: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| "no name".to_owned(), |text| text.to_string_lossy().into_owned())
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

/// True for errors after which the driver answers nothing else until the process ends.
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
    fn errors_that_stay_are_a_lost_device_and_others_are_not() {
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
