//! **Not yet run on a GPU.** The tests run against a stand-in for the driver
//! (`tests/cuda_standin`).
//!
//! NVIDIA GPUs through the CUDA driver API.
//!
//! The driver library is loaded at run time; without it, opening a device returns an error. All
//! work is enqueued on streams: no function here synchronizes the whole device.

#![expect(unsafe_code, reason = "calls the driver, builds staged memory from its allocations")]

mod clock;
mod context;
mod event;
mod event_context;
mod graph;
mod handle;
mod memory;
mod partition;
mod stream;

pub use stream::CudaStream;

use self::context::{Context, OLDEST_DRIVER, message};
use self::event::CudaEvent;
use self::memory::{DeviceMemory, PinnedMemory};
use super::{
    Buffer, Counts, Device, DeviceError, Event, ExpertStreams, MemoryInfo, Object, Staged, Stream,
};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use std::any::Any;
use std::sync::Arc;

/// A GPU. Clones refer to the same device.
#[derive(Clone)]
pub struct CudaDevice {
    context: Arc<Context>,
    ordinal: usize,
    gpu: String,
    driver: String,
    compute_capability: (u32, u32),
}

impl CudaDevice {
    /// Opens the GPU of this ordinal, which respects `CUDA_VISIBLE_DEVICES`. Fails without a
    /// driver, with an old driver, or if the GPU does not exist.
    pub fn open(ordinal: usize) -> Result<Self, DeviceError> {
        let driver = driver()?;
        let found = match result::init().and_then(|()| result::device::get_count()) {
            Ok(found) => usize::try_from(found).unwrap_or(0),
            Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
            Err(error) => {
                let reason = format!(
                    "its library is installed but cannot be initialized: {}",
                    message(error)
                );
                return Err(DeviceError::NoDriver { reason });
            }
        };
        let number = i32::try_from(ordinal).ok().filter(|_| ordinal < found);
        let number = number.ok_or(DeviceError::NoDevice { ordinal, found })?;
        let failed = |error| DeviceError::Failed {
            what: format!("opening CUDA device {ordinal}"),
            reason: message(error),
        };
        let device = result::device::get(number).map_err(failed)?;
        let gpu = result::device::get_name(device).map_err(failed)?;
        let attribute = |attribute| {
            // SAFETY: `device` was returned by the driver.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            value.map(|value| u32::try_from(value).unwrap_or(0)).map_err(failed)
        };
        let compute_capability = (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let (major, minor) = compute_capability;
        let name = format!(
            "{gpu} (CUDA device {ordinal}, compute capability {major}.{minor}, driver for CUDA {driver})"
        );
        let context = Arc::new(Context::open(device, name)?);
        Ok(Self { context, ordinal, gpu, driver, compute_capability })
    }

    /// Returns the driver's ordinal of the device.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Returns the GPU's name as reported by the driver.
    pub fn gpu(&self) -> &str {
        &self.gpu
    }

    /// Returns the CUDA version that the driver supports, for example "13.0".
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Returns the major and minor compute capability.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.compute_capability
    }

    /// Makes the device's primary context current in this thread, as library calls require.
    pub fn make_current(&self) -> Result<(), DeviceError> {
        self.context.bind()
    }

    /// Downcasts `stream`. Fails if it belongs to another device.
    pub fn own_stream<'a>(&self, stream: &'a dyn Stream) -> Result<&'a CudaStream, DeviceError> {
        let stream = (stream as &dyn Any).downcast_ref::<CudaStream>();
        let stream = stream.filter(|stream| stream.is_of(&self.context));
        stream.ok_or(DeviceError::Foreign(Object::Stream))
    }

    /// Returns the address of `buffer`. Fails if it belongs to another device.
    fn own(&self, buffer: &Buffer) -> Result<sys::CUdeviceptr, DeviceError> {
        memory::own(buffer, &self.context)?;
        Ok(buffer.address() as u64)
    }
}

/// Returns the CUDA version that the driver supports. Fails without a driver or with an old one.
fn driver() -> Result<String, DeviceError> {
    // SAFETY: this loads and unloads the driver library, whose initializers are the vendor's and
    // have to run before any use of a GPU.
    if !unsafe { sys::is_culib_present() } {
        let reason = "the system loader does not find libcuda.so.1".to_owned();
        return Err(DeviceError::NoDriver { reason });
    }
    let mut version = 0;
    // SAFETY: `version` is writable, and this call is valid before initialization of the driver.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(|error| DeviceError::NoDriver { reason: message(error) })?;
    let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    if version < OLDEST_DRIVER {
        let (found, needed) = (text(version), text(OLDEST_DRIVER));
        return Err(DeviceError::DriverTooOld { found, needed });
    }
    Ok(text(version))
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.context.name().to_owned()
    }

    fn memory(&self) -> Result<Option<MemoryInfo>, DeviceError> {
        self.context.memory().map(Some)
    }

    fn allocate(&self, bytes: usize) -> Result<Buffer, DeviceError> {
        let memory = DeviceMemory::zeroed(&self.context, bytes)?;
        Ok(Buffer::new(memory.address() as usize, bytes, Arc::new(memory)))
    }

    fn stage(&self, bytes: usize) -> Result<Staged, DeviceError> {
        let host = Arc::new(PinnedMemory::zeroed(&self.context, bytes)?);
        let buffer = self.allocate(bytes)?;
        // SAFETY: `host` owns `bytes` zeroed bytes at `start` and gives no references to them.
        Ok(unsafe { Staged::new(host.start(), host, buffer) })
    }

    fn streams(&self, fast_share: Option<f64>) -> Result<ExpertStreams, DeviceError> {
        partition::streams(&self.context, fast_share)
    }

    fn event(&self) -> Result<Arc<dyn Event>, DeviceError> {
        Ok(Arc::new(CudaEvent::new(&self.context)?))
    }

    fn read(&self, from: &Buffer, into: &mut [u8]) -> Result<(), DeviceError> {
        assert_eq!(from.bytes(), into.len(), "the lengths of a copy differ");
        let address = self.own(from)?;
        self.context.bind()?;
        let setup = self.context.setup().raw();
        // SAFETY: `into` and `address` are valid for `into.len()` bytes and are borrowed until the
        // wait below returns; the caller has waited for the work that writes `from`.
        let status = unsafe { result::memcpy_dtoh_async(into, address, setup) };
        self.context.check("reading memory", status)?;
        self.context.wait_for_setup("reading memory")
    }

    fn write(&self, from: &[u8], into: &Buffer) -> Result<(), DeviceError> {
        assert_eq!(from.len(), into.bytes(), "the lengths of a copy differ");
        let address = self.own(into)?;
        self.context.bind()?;
        let setup = self.context.setup().raw();
        // SAFETY: as in `read`, in the other direction.
        let status = unsafe { result::memcpy_htod_async(address, from, setup) };
        self.context.check("writing memory", status)?;
        self.context.wait_for_setup("writing memory")
    }

    fn counts(&self) -> Counts {
        self.context.counters.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_without_driver_returns_error() {
        // SAFETY: as in `driver`.
        if unsafe { sys::is_culib_present() } {
            eprintln!("skipped: this machine has an NVIDIA driver");
            return;
        }
        let error = CudaDevice::open(0).err().expect("no driver is installed");
        assert!(matches!(error, DeviceError::NoDriver { .. }), "{error}");
        assert!(error.to_string().contains("libcuda.so.1"), "{error}");
    }
}
