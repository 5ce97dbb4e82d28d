//! Engine and session for the CPU.
//!
//! The library takes tensors as descriptors (address, type, shape). A session caches the descriptors of
//! the memory it was run with, so that later runs with it neither allocate here nor copy: three KV slots
//! are three descriptors per tensor. For runs on a stream it caches sets of descriptors: three slots are
//! three [`Binding`]s.

#![expect(unsafe_code, reason = "calls the library's C API to run on the caller's memory")]

use super::bindings::{Binding, Bindings, Network};
use super::profile::Profiling;
use super::raw::{Arguments, Descriptor, Memory, Names};
use super::weights::Weights;
use crate::device::{
    DeviceError, DeviceView, DeviceViewMut, HostAccess, HostStream, Object, Stream, Work,
};
use crate::engine::contract_check::{buffers_of, check_tensors};
use crate::engine::{
    Engine, MAX_TENSORS, OperatorProfile, OperatorProfileError, Session, SessionRunError,
};
use crate::tensor::{TensorView, TensorViewMut};
use arrayvec::ArrayVec;
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::session::Session as OrtSession;
use ort::sys::OrtValue;
use std::any::Any;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use tandem_export::contract::{Contract, TensorSpec};

/// Maximum number of cached descriptors per tensor, after which the oldest is dropped: enough for each
/// camera frame of a model's history, which the BEV encoder reads in place.
const MAX_DESCRIPTORS: usize = 32;

/// Network loaded for the CPU.
pub(super) struct CpuEngine {
    contract: Contract,
    names: Names,
    info: MemoryInfo<'static>,
    session: OrtSession,
    profiling: Option<Profiling>,
    /// Declared after the session, which reads the mapped memory.
    _weights: Weights,
}

impl CpuEngine {
    /// Wraps `session`, which reads `weights` in place.
    pub(super) fn new(
        contract: Contract,
        session: OrtSession,
        profiling: Option<Profiling>,
        weights: Weights,
    ) -> Self {
        let (names, info) = (Names::of(&contract), MemoryInfo::default());
        Self { contract, names, info, session, profiling, _weights: weights }
    }

    /// Returns the library's session, which several threads may run at once.
    fn raw(&self) -> *mut ort::sys::OrtSession {
        self.session.ptr().cast_mut()
    }
}

impl Network for CpuEngine {
    fn names(&self) -> &Names {
        &self.names
    }

    fn library_session(&self) -> &OrtSession {
        &self.session
    }

    fn memory_info(&self) -> &MemoryInfo<'static> {
        &self.info
    }
}

impl Engine for CpuEngine {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn session(self: Arc<Self>) -> Box<dyn Session> {
        Box::new(CpuSession::new(self))
    }

    fn end_operator_profile(
        &self,
        warm_up: u64,
    ) -> Option<Result<OperatorProfile, OperatorProfileError>> {
        self.profiling.as_ref()?.end(&self.contract.network, self.raw(), warm_up)
    }
}

/// Session of a network on the CPU.
struct CpuSession {
    engine: Arc<CpuEngine>,
    inputs: Vec<ArrayVec<Descriptor, MAX_DESCRIPTORS>>,
    outputs: Vec<ArrayVec<Descriptor, MAX_DESCRIPTORS>>,
    /// Arguments of runs on host tensors; each run overwrites the values.
    arguments: Arguments,
    bindings: Bindings<CpuEngine>,
}

impl CpuSession {
    fn new(engine: Arc<CpuEngine>) -> Self {
        let arguments = Arguments::new(&engine.names);
        let empty = |count: usize| (0..count).map(|_| ArrayVec::new()).collect();
        let (inputs, outputs) = (empty(arguments.inputs.len()), empty(arguments.outputs.len()));
        Self { engine, inputs, outputs, arguments, bindings: Bindings::new() }
    }

    /// Fills in the arguments; all tensors match the contract.
    fn describe(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> ort::Result<()> {
        let CpuEngine { contract, info, .. } = &*self.engine;
        for (index, (spec, view)) in contract.inputs.iter().zip(inputs).enumerate() {
            let memory =
                Memory { address: view.bytes.as_ptr().cast_mut().cast(), bytes: view.bytes.len() };
            let value = descriptor(&mut self.inputs[index], info, memory, spec)?;
            self.arguments.inputs[index] = value.as_ptr();
        }
        for (index, (spec, view)) in contract.outputs.iter().zip(outputs).enumerate() {
            let memory =
                Memory { address: view.bytes.as_mut_ptr().cast(), bytes: view.bytes.len() };
            let value = descriptor(&mut self.outputs[index], info, memory, spec)?;
            self.arguments.outputs[index] = value.as_ptr();
        }
        Ok(())
    }
}

impl Work for Binding<CpuEngine> {
    fn run(&self) -> Result<(), DeviceError> {
        let (read, written) = self.buffers();
        let reads = read.iter().map(HostAccess::read);
        let writes = written.iter().map(HostAccess::write);
        let _accesses: ArrayVec<HostAccess<'_>, { 2 * MAX_TENSORS }> =
            writes.chain(reads).collect::<Result<_, _>>()?;
        let _measured = self.network().profiling.as_ref().map(Profiling::during_run);
        // SAFETY: `_accesses` excludes other accesses to the memory, so the second of two simultaneous
        // runs of one binding is refused; on the CPU a run has completed when the call returns.
        unsafe { self.call_library() }.map_err(|error| DeviceError::Failed {
            what: format!("network {:?}", self.network().contract.network),
            reason: error.to_string(),
        })
    }
}

impl Session for CpuSession {
    fn enqueue(
        &mut self,
        stream: &dyn Stream,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        let contract = &self.engine.contract;
        let device = |source| SessionRunError::Device { network: contract.network.clone(), source };
        let stream = (stream as &dyn Any)
            .downcast_ref::<HostStream>()
            .ok_or(DeviceError::Foreign(Object::Stream))
            .map_err(device)?;
        check_tensors(contract, inputs, outputs)?;
        for buffer in buffers_of(inputs, outputs) {
            stream.check_memory(buffer).map_err(device)?;
        }
        let binding = self.bindings.to(&self.engine, inputs, outputs)?;
        stream.submit(binding).map_err(device)
    }

    fn runs_before_capture(&self) -> Option<usize> {
        Some(0)
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), SessionRunError> {
        check_tensors(&self.engine.contract, inputs, outputs)?;
        let described = self.describe(inputs, outputs);
        let _measured = self.engine.profiling.as_ref().map(Profiling::during_run);
        let ran = described.and_then(|()| {
            // SAFETY: `self.engine` owns the session and the names, and `self` owns the descriptors of
            // the arguments. `inputs` and `outputs` borrow the described memory until this call returns;
            // shapes and lengths were checked against the contract. On the CPU the run has completed
            // when the call returns.
            unsafe { self.arguments.run(self.engine.raw(), ptr::null()) }
        });
        ran.map_err(|error| SessionRunError::Library {
            network: self.engine.contract.network.clone(),
            reason: error.to_string(),
        })
    }
}

/// Returns the descriptor of this memory; the first call creates it.
fn descriptor(
    cached: &mut ArrayVec<Descriptor, MAX_DESCRIPTORS>,
    info: &MemoryInfo<'static>,
    memory: Memory,
    spec: &TensorSpec,
) -> ort::Result<NonNull<OrtValue>> {
    let address = memory.address as usize;
    if let Some(descriptor) = cached.iter().find(|descriptor| descriptor.address() == address) {
        return Ok(descriptor.value());
    }
    let descriptor = Descriptor::new(info, memory, spec)?;
    let value = descriptor.value();
    if cached.is_full() {
        cached.remove(0);
    }
    cached.push(descriptor);
    Ok(value)
}
