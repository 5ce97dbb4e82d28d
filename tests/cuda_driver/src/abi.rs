//! The exported functions, with the names of the driver's functions.
//!
//! Handles are numbers that identify objects. They are not pointers.

use crate::capture::Mode;
use crate::code::{Code, Outcome};
use crate::config::Config;
use crate::driver::Driver;
use crate::green::Resource;
use crate::stream::Side;
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, PoisonError};

static DRIVER: LazyLock<Mutex<Driver>> =
    LazyLock::new(|| Mutex::new(Driver::new(Config::from_environment())));

fn call(function: &'static str, body: impl FnOnce(&mut Driver) -> Outcome) -> Code {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local!(static THREAD: u64 = THREADS.fetch_add(1, Relaxed));
    // The destructors of an ending thread may still drop objects of the driver.
    let thread = THREAD.try_with(|thread| *thread).unwrap_or(0);
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner).call(function, thread, body)
}

/// A pointer of the caller through which a result is written.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    fn put(self, value: T) -> Outcome {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the pointer is valid for writes by the contract of the driver's functions.
        unsafe { self.0.write(value) };
        Ok(())
    }
}

/// A pointer of the caller to a value that is read and replaced.
#[repr(transparent)]
pub struct InOut<T>(*mut T);

impl<T: Copy> InOut<T> {
    fn get(&self) -> Outcome<T> {
        // SAFETY: the pointer is null or points to an initialized value, by the contract of the
        // driver's functions.
        unsafe { self.0.as_ref() }.copied().ok_or(Code::INVALID_VALUE)
    }

    fn put(self, value: T) -> Outcome {
        Out(self.0).put(value)
    }
}

/// `CUdevResource` as declared in the headers of CUDA 13.1 and later. Those of 13.0 have no `next`.
/// The default version of this driver is 13.0, so it does not write the field.
#[repr(C)]
pub struct RawResource {
    kind: u32,
    /// Internal data of the driver.
    split: [u8; 92],
    count: u32,
    minimum: u32,
    alignment: u32,
    unused: [u8; 28],
    next: u64,
}

impl RawResource {
    /// Reads a resource of the caller.
    fn read(from: *const Self, driver: &mut Driver) -> Outcome<Resource> {
        // SAFETY: `from` is null or points to a resource that the driver wrote, by the contract of the
        // driver's functions.
        let raw = unsafe { from.as_ref() }.ok_or(Code::INVALID_VALUE)?;
        // A driver of CUDA 13.1 would follow the pointer.
        if raw.next != 0 {
            driver.violation("`nextResource` of a CUdevResource was not set to null".into());
        }
        let split = u64::from_le_bytes(raw.split[4..12].try_into().expect("8 bytes"));
        Ok(Resource { kind: raw.kind, split, count: raw.count })
    }

    /// Writes a resource to the caller, except `next`.
    fn write(to: *mut Self, resource: Resource, granularity: (u32, u32)) -> Outcome {
        // SAFETY: `to` is null or valid for writes by the contract of the driver's functions, and any
        // bytes are valid values of its fields.
        let raw = unsafe { to.as_mut() }.ok_or(Code::INVALID_VALUE)?;
        raw.kind = resource.kind;
        raw.split = [0; 92];
        raw.split[4..12].copy_from_slice(&resource.split.to_le_bytes());
        (raw.count, raw.minimum, raw.alignment) = (resource.count, granularity.0, granularity.1);
        raw.unused = [0; 28];
        Ok(())
    }
}

macro_rules! driver_functions {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) |$driver:ident| $body:block)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the CUDA Driver API.")]
            // SAFETY: a process loads either the driver or this library, so the symbol is unique.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($($argument: $kind),*) -> Code {
                call(stringify!($name), |$driver| $body)
            }
        )*

        /// Names of the exported functions of the driver.
        pub const FUNCTIONS: &[&str] = &[$(stringify!($name)),*];
    };
}

driver_functions! {
    fn cuInit(flags: u32) |driver| { driver.initialize(flags) }
    fn cuDriverGetVersion(version: Out<i32>) |driver| { version.put(driver.config.driver_version) }
    fn cuGetErrorName(code: Code, name: Out<*const c_char>) |_driver| {
        text(code.strings().map(|(text, _)| text), name)
    }
    fn cuGetErrorString(code: Code, string: Out<*const c_char>) |_driver| {
        text(code.strings().map(|(_, text)| text), string)
    }

    fn cuDeviceGetCount(count: Out<i32>) |driver| { count.put(driver.config.devices) }
    fn cuDeviceGet(device: Out<i32>, ordinal: i32) |driver| {
        device.put(driver.checked_device(ordinal)?)
    }
    fn cuDeviceGetName(name: *mut c_char, length: i32, device: i32) |driver| {
        driver.checked_device(device)?;
        write_text(c"Fake CUDA device", name, length)
    }
    fn cuDeviceGetAttribute(value: Out<i32>, attribute: u32, device: i32) |driver| {
        value.put(driver.attribute(attribute, device)?)
    }

    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) |driver| {
        context.put(driver.retain_primary(device)?)
    }
    fn cuDevicePrimaryCtxRelease_v2(device: i32) |driver| { driver.release_primary(device) }
    fn cuCtxSetCurrent(context: u64) |driver| { driver.set_current(context) }
    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) |driver| {
        let range = driver.priority_range()?;
        least.put(range.0)?;
        greatest.put(range.1)
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) |driver| {
        let info = driver.memory_info()?;
        free.put(info.0 as usize)?;
        total.put(info.1 as usize)
    }
    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) |driver| {
        address.put(driver.allocate(bytes as u64)?)
    }
    fn cuMemFree_v2(address: u64) |driver| { driver.free(address, false) }
    fn cuMemHostAlloc(address: Out<u64>, bytes: usize, _flags: u32) |driver| {
        address.put(driver.allocate_host(bytes as u64)?)
    }
    fn cuMemFreeHost(address: u64) |driver| { driver.free(address, true) }
    fn cuMemcpyHtoDAsync_v2(into: u64, from: u64, bytes: usize, stream: u64) |driver| {
        driver.copy(stream, Side::Host(from), Side::Device(into), bytes as u64)
    }
    fn cuMemcpyDtoHAsync_v2(into: u64, from: u64, bytes: usize, stream: u64) |driver| {
        driver.copy(stream, Side::Device(from), Side::Host(into), bytes as u64)
    }
    fn cuMemcpyDtoDAsync_v2(into: u64, from: u64, bytes: usize, stream: u64) |driver| {
        driver.copy(stream, Side::Device(from), Side::Device(into), bytes as u64)
    }
    fn cuMemsetD8Async(into: u64, value: u8, bytes: usize, stream: u64) |driver| {
        driver.set(stream, into, value, bytes as u64)
    }

    fn cuStreamCreate(stream: Out<u64>, flags: u32) |driver| {
        stream.put(driver.create_stream(flags)?)
    }
    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, _priority: i32) |driver| {
        stream.put(driver.create_stream(flags)?)
    }
    fn cuStreamDestroy_v2(stream: u64) |driver| { driver.destroy_stream(stream) }
    fn cuStreamSynchronize(stream: u64) |driver| { driver.synchronize_stream(stream) }
    fn cuStreamWaitEvent(stream: u64, event: u64, flags: u32) |driver| {
        driver.wait_event(stream, event, flags)
    }

    fn cuEventCreate(event: Out<u64>, flags: u32) |driver| { event.put(driver.create_event(flags)?) }
    fn cuEventDestroy_v2(event: u64) |driver| { driver.destroy_event(event) }
    fn cuEventRecord(event: u64, stream: u64) |driver| { driver.record_event(event, stream, 0) }
    fn cuEventRecordWithFlags(event: u64, stream: u64, flags: u32) |driver| {
        driver.record_event(event, stream, flags)
    }
    fn cuEventQuery(event: u64) |driver| { driver.query_event(event) }
    fn cuEventSynchronize(event: u64) |driver| { driver.synchronize_event(event) }
    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, from: u64, to: u64) |driver| {
        milliseconds.put(driver.elapsed_ms(from, to)?)
    }

    fn cuStreamBeginCapture_v2(stream: u64, mode: u32) |driver| {
        driver.begin_capture(stream, Mode::from_number(mode)?)
    }
    fn cuStreamEndCapture(stream: u64, graph: Out<u64>) |driver| {
        match driver.end_capture(stream) {
            Ok(handle) => graph.put(handle),
            Err(code) => {
                graph.put(0)?;
                Err(code)
            }
        }
    }
    fn cuThreadExchangeStreamCaptureMode(mode: InOut<u32>) |driver| {
        let previous = driver.exchange_mode(Mode::from_number(mode.get()?)?);
        mode.put(previous as u32)
    }
    fn cuGraphGetNodes(graph: u64, nodes: *mut u64, count: Out<usize>) |driver| {
        if !nodes.is_null() {
            driver.violation("the fake driver returns only the number of nodes".into());
            return Err(Code::NOT_SUPPORTED);
        }
        count.put(driver.count_nodes(graph)?)
    }
    fn cuGraphInstantiateWithFlags(exec: Out<u64>, graph: u64, flags: u64) |driver| {
        exec.put(driver.instantiate(graph, flags)?)
    }
    fn cuGraphUpload(exec: u64, stream: u64) |driver| { driver.upload(exec, stream) }
    fn cuGraphLaunch(exec: u64, stream: u64) |driver| { driver.launch(exec, stream) }
    fn cuGraphDestroy(graph: u64) |driver| { driver.destroy_graph(graph) }
    fn cuGraphExecDestroy(exec: u64) |driver| { driver.destroy_exec(exec) }

    fn cuDeviceGetDevResource(device: i32, resource: *mut RawResource, kind: u32) |driver| {
        RawResource::write(resource, driver.multiprocessors(device, kind)?, driver.granularity())
    }
    fn cuDevSmResourceSplitByCount(
        parts: *mut RawResource,
        count: InOut<u32>,
        input: *const RawResource,
        remaining: *mut RawResource,
        _flags: u32,
        least: u32
    ) |driver| {
        let input = RawResource::read(input, driver)?;
        let (part, found, rest) = driver.split(input, count.get()?, least)?;
        let granularity = driver.granularity();
        count.put(found)?;
        for at in 0..found as usize {
            if !parts.is_null() {
                RawResource::write(parts.wrapping_add(at), part, granularity)?;
            }
        }
        if remaining.is_null() { Ok(()) } else { RawResource::write(remaining, rest, granularity) }
    }
    fn cuDevResourceGenerateDesc(
        description: Out<u64>,
        resources: *const RawResource,
        count: u32
    ) |driver| {
        let resources = (0..count as usize).map(|at| {
            RawResource::read(resources.wrapping_add(at), driver)
        });
        let resources = resources.collect::<Outcome<Vec<_>>>()?;
        description.put(driver.describe(&resources)?)
    }
    fn cuGreenCtxCreate(green: Out<u64>, description: u64, device: i32, flags: u32) |driver| {
        green.put(driver.create_green(description, device, flags)?)
    }
    fn cuGreenCtxDestroy(green: u64) |driver| { driver.destroy_green(green) }
    fn cuCtxFromGreenCtx(context: Out<u64>, green: u64) |driver| {
        context.put(driver.convert_green(green)?)
    }
    fn cuGreenCtxStreamCreate(stream: Out<u64>, green: u64, flags: u32, _priority: i32) |driver| {
        stream.put(driver.create_green_stream(green, flags)?)
    }
}

/// Manual, `cuGetErrorName`: for an unknown code returns an invalid value and a null pointer.
fn text(found: Option<&'static CStr>, out: Out<*const c_char>) -> Outcome {
    out.put(found.map_or(std::ptr::null(), CStr::as_ptr))?;
    found.map(|_| ()).ok_or(Code::INVALID_VALUE)
}

/// Writes a text with its final zero, if it fits into `length` bytes.
fn write_text(from: &CStr, to: *mut c_char, length: i32) -> Outcome {
    let bytes = from.to_bytes_with_nul();
    if to.is_null() || (length as usize) < bytes.len() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: `to` is valid for `length` bytes by the contract of `cuDeviceGetName`, and `bytes` is not
    // longer.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, bytes.len()) };
    Ok(())
}
