//! Session of an engine on a GPU.
//!
//! A session has an execution context for its stream and sets the addresses of tensors when they
//! change. Runs on host tensors use a separate context and separate memory, created by the first such
//! run, so that they do not interfere with work in progress on the stream.

#![expect(unsafe_code, reason = "passes the device's memory and streams to the library")]

use super::build::reason;
use super::loaded::{Context, GpuEngine};
use crate::device::{Buffer, DeviceError, DeviceView, DeviceViewMut, Stream};
use crate::engine::contract_check::{buffers_of, check_tensors};
use crate::engine::staging::Staging;
use crate::engine::{Session, SessionRunError};
use crate::tensor::{TensorView, TensorViewMut};
use arrayvec::ArrayVec;
use std::ffi::c_void;
use std::sync::Arc;
use tandem_export::contract::{Contract, TensorSpec};

/// Maximum number of sets of tensors that a session keeps alive before it drops the oldest: three KV
/// slots, and the vision features of each frame of a history.
const MAX_SETS: usize = 32;

/// Session of a network on a GPU.
pub(super) struct GpuSession {
    on_stream: Option<Bound>,
    on_host: Option<(Bound, Staging)>,
    /// Declared after the contexts, which belong to it.
    engine: Arc<GpuEngine>,
}

/// Execution context with the tensors that it is bound to.
struct Bound {
    context: Context,
    /// Address of the CUDA stream.
    stream: usize,
    /// Present address of each tensor in the context, inputs first.
    addresses: Vec<usize>,
    /// Memory of earlier runs, which captured runs read and write again.
    retained: ArrayVec<Vec<Buffer>, MAX_SETS>,
}

impl GpuSession {
    pub(super) fn new(engine: Arc<GpuEngine>) -> Self {
        Self { on_stream: None, on_host: None, engine }
    }
}

impl Bound {
    fn new(engine: &GpuEngine, stream: usize) -> Result<Self, SessionRunError> {
        let context = engine.context().map_err(|error| failed(engine, &error))?;
        Ok(Self { context, stream, addresses: Vec::new(), retained: ArrayVec::new() })
    }

    /// Sets the addresses of tensors that differ from those in the context.
    fn bind(
        &mut self,
        contract: &Contract,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), trtx::Error> {
        let mut now = buffers_of(inputs, outputs).map(Buffer::address);
        if self.addresses.iter().all(|&known| now.next() == Some(known)) && now.next().is_none() {
            return Ok(());
        }
        // Empty until all addresses are set, so that a failure leaves no stale address.
        let previous = std::mem::take(&mut self.addresses);
        let specs = contract.inputs.iter().chain(&contract.outputs);
        for (at, (spec, buffer)) in specs.zip(buffers_of(inputs, outputs)).enumerate() {
            let address = buffer.address();
            if previous.get(at) != Some(&address) {
                // SAFETY: `buffer` is memory of the device with the contract's length; `retained` and the
                // caller keep it alive while runs use it.
                unsafe { self.set_address(spec, address as *mut c_void) }?;
            }
        }
        self.addresses = buffers_of(inputs, outputs).map(Buffer::address).collect();
        let is_set =
            |set: &Vec<Buffer>| set.iter().map(Buffer::address).eq(self.addresses.iter().copied());
        if !self.retained.iter().any(is_set) {
            if self.retained.is_full() {
                self.retained.remove(0);
            }
            self.retained.push(buffers_of(inputs, outputs).cloned().collect());
        }
        Ok(())
    }

    /// # Safety
    /// `address` points to device memory of the tensor's size, which is valid while runs use it.
    unsafe fn set_address(
        &mut self,
        spec: &TensorSpec,
        address: *mut c_void,
    ) -> Result<(), trtx::Error> {
        // SAFETY: guaranteed by the caller.
        unsafe { self.context.0.set_tensor_address(&spec.name, address) }
    }

    /// Enqueues one run; the device's context is current.
    fn enqueue(
        &mut self,
        engine: &GpuEngine,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        self.bind(&engine.contract, inputs, outputs).map_err(|error| failed(engine, &error))?;
        // SAFETY: the caller keeps `stream` alive, and `bind` set the address of every tensor.
        unsafe { self.context.0.enqueue_v3(self.stream as *mut c_void) }
            .map_err(|error| failed(engine, &error))
    }
}

/// Converts the library's messages to the error of a run.
fn failed(engine: &GpuEngine, error: &trtx::Error) -> SessionRunError {
    let logged = reason(&engine.messages.take_errors());
    let reason = if logged.is_empty() { error.to_string() } else { logged };
    SessionRunError::Library { network: engine.contract.network.clone(), reason }
}

/// Checks that the stream and the memory belong to the engine's device, makes the device's context
/// current, and returns the stream's address.
fn place(
    engine: &GpuEngine,
    stream: &dyn Stream,
    inputs: &[DeviceView<'_>],
    outputs: &[DeviceViewMut<'_>],
) -> Result<usize, DeviceError> {
    let stream = engine.device.own_stream(stream)?;
    buffers_of(inputs, outputs).try_for_each(|buffer| stream.check_memory(buffer))?;
    stream.make_current()?;
    Ok(stream.raw() as usize)
}

impl Session for GpuSession {
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        let engine = &*self.engine;
        check_tensors(&engine.contract, inputs, outputs)?;
        let device =
            |source| SessionRunError::Device { network: engine.contract.network.clone(), source };
        let stream = place(engine, stream, inputs, outputs).map_err(device)?;
        let bound = match &mut self.on_stream {
            Some(bound) if bound.stream == stream => bound,
            Some(_) => {
                return Err(device(DeviceError::Misuse(
                    "this session runs on another stream: create one session per stream, since runs of \
                     one session share its scratch memory",
                )));
            }
            empty => empty.insert(Bound::new(engine, stream)?),
        };
        bound.enqueue(engine, inputs, outputs)
    }

    fn runs_before_capture(&self) -> Option<usize> {
        // TensorRT's manual ("CUDA Graphs"): enqueue once before capturing, because some work is
        // deferred to the first run; TensorRT-RTX also compiles kernels then.
        Some(1)
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        let engine = &*self.engine;
        let device =
            |source| SessionRunError::Device { network: engine.contract.network.clone(), source };
        let stream = place(engine, &*engine.stream, &[], &[]).map_err(device)?;
        let (bound, staging) = match &mut self.on_host {
            Some(made) => made,
            empty => {
                let staging = Staging::new(&engine.device, &engine.contract).map_err(device)?;
                empty.insert((Bound::new(engine, stream)?, staging))
            }
        };
        staging.run(&*engine.stream, &engine.contract, inputs, outputs, |inputs, outputs| {
            bound.enqueue(engine, inputs, outputs)
        })
    }
}

impl Drop for GpuSession {
    fn drop(&mut self) {
        // The contexts dropped next need the device's context; this fails only for a lost device.
        let _ = self.engine.device.make_current();
    }
}
