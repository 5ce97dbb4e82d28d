//! One user of an engine on the GPU.
//!
//! A session has a context of the library for its stream, which is told where each tensor is when
//! that changes. Runs on tensors of the host have a context and memory of their own, made at the
//! first, so that they never meet what is under way on the stream.

#![expect(unsafe_code, reason = "hands the device's memory and streams to the library")]

use super::build::reason;
use super::loaded::{Context, GpuEngine};
use crate::device::{Buffer, DeviceError, DeviceView, DeviceViewMut, Stream};
use crate::engine::contract_check::{buffers_of, check_tensors};
use crate::engine::staging::Staging;
use crate::engine::{RunError, Session};
use crate::tensor::{TensorView, TensorViewMut};
use arrayvec::ArrayVec;
use std::ffi::c_void;
use std::sync::Arc;
use tandem_export::contract::{Contract, TensorSpec};

/// Sets of tensors that a session keeps alive before the oldest is let go: three KV slots, and the
/// vision features of every frame of a history.
const KNOWN_SETS: usize = 32;

/// A session on a GPU.
pub(super) struct GpuSession {
    on_stream: Option<Bound>,
    on_host: Option<(Bound, Staging)>,
    /// Declared behind the contexts, which belong to it.
    engine: Arc<GpuEngine>,
}

/// A context with the tensors that it was told of.
struct Bound {
    context: Context,
    /// The stream that it runs on, by address.
    stream: usize,
    /// Address of each tensor that the context has now, inputs first.
    addresses: Vec<usize>,
    /// Memory that runs were handed over with, which captured ones read and write again.
    known: ArrayVec<Vec<Buffer>, KNOWN_SETS>,
}

impl GpuSession {
    pub(super) fn new(engine: Arc<GpuEngine>) -> Self {
        Self { on_stream: None, on_host: None, engine }
    }
}

impl Bound {
    fn new(engine: &GpuEngine, stream: usize) -> Result<Self, RunError> {
        let context = engine.context().map_err(|error| failed(engine, &error))?;
        Ok(Self { context, stream, addresses: Vec::new(), known: ArrayVec::new() })
    }

    /// Tells the context where tensors are that it does not know there.
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
        // Until all are told: a failure in between must not look like knowledge.
        let told = std::mem::take(&mut self.addresses);
        let specs = contract.inputs.iter().chain(&contract.outputs);
        for (at, (spec, buffer)) in specs.zip(buffers_of(inputs, outputs)).enumerate() {
            let address = buffer.address();
            if told.get(at) != Some(&address) {
                // SAFETY: the memory is the device's, as long as the contract says, and is kept by
                // `known` and by whoever handed it over while runs use it.
                unsafe { self.tell(spec, address as *mut c_void) }?;
            }
        }
        self.addresses = buffers_of(inputs, outputs).map(Buffer::address).collect();
        let is_set =
            |set: &Vec<Buffer>| set.iter().map(Buffer::address).eq(self.addresses.iter().copied());
        if !self.known.iter().any(is_set) {
            if self.known.is_full() {
                self.known.remove(0);
            }
            self.known.push(buffers_of(inputs, outputs).cloned().collect());
        }
        Ok(())
    }

    /// # Safety
    /// So much memory of the device as the tensor takes must stand at `address` while runs use it.
    unsafe fn tell(&mut self, spec: &TensorSpec, address: *mut c_void) -> Result<(), trtx::Error> {
        // SAFETY: the caller's promise.
        unsafe { self.context.0.set_tensor_address(&spec.name, address) }
    }

    /// Hands one run over; the device's context is current.
    fn enqueue(
        &mut self,
        engine: &GpuEngine,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), RunError> {
        self.bind(&engine.contract, inputs, outputs).map_err(|error| failed(engine, &error))?;
        // SAFETY: the stream is alive, since whoever calls this has it, and every tensor was told of.
        unsafe { self.context.0.enqueue_v3(self.stream as *mut c_void) }
            .map_err(|error| failed(engine, &error))
    }
}

/// What the library said, as why a run failed.
fn failed(engine: &GpuEngine, error: &trtx::Error) -> RunError {
    let said = reason(&engine.messages.take_errors());
    let reason = if said.is_empty() { error.to_string() } else { said };
    RunError::Library { network: engine.contract.network.clone(), reason }
}

/// The stream's address, once it and the memory are known to be the engine's device's, whose context
/// is current afterwards.
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
    ) -> Result<(), RunError> {
        let engine = &*self.engine;
        check_tensors(&engine.contract, inputs, outputs)?;
        let device = |source| RunError::Device { network: engine.contract.network.clone(), source };
        let stream = place(engine, stream, inputs, outputs).map_err(device)?;
        let bound = match &mut self.on_stream {
            Some(bound) if bound.stream == stream => bound,
            Some(_) => {
                return Err(device(DeviceError::Misuse(
                    "this session runs on another stream: make one for each, since two runs of one \
                     would share its scratch memory",
                )));
            }
            empty => empty.insert(Bound::new(engine, stream)?),
        };
        bound.enqueue(engine, inputs, outputs)
    }

    fn runs_before_capture(&self) -> Option<usize> {
        // TensorRT's manual ("CUDA Graphs"): enqueue once before capturing, for what is deferred to
        // the first run; TensorRT-RTX also compiles kernels then.
        Some(1)
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), RunError> {
        let engine = &*self.engine;
        let device = |source| RunError::Device { network: engine.contract.network.clone(), source };
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
        // For the contexts, which are dropped next; a lost device has none left.
        let _ = self.engine.device.make_current();
    }
}
