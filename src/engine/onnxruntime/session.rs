//! One user of a loaded network.
//!
//! The library takes tensors as descriptors (address, type, shape). A session keeps the descriptors
//! of every memory it was run with, so that a run with known memory makes no allocation of ours and
//! copies nothing: three KV slots are three descriptors per tensor. Where runs are handed to a stream,
//! it keeps whole sets of them: three slots are three [`Binding`]s.

#![expect(unsafe_code, reason = "calls the library's C interface to run on the caller's memory")]

use super::backend::CpuEngine;
use super::profile::Profiling;
use crate::device::{
    Buffer, DeviceError, DeviceView, DeviceViewMut, HostAccess, HostStream, Object, Stream, Work,
};
use crate::engine::agreement::{agree, agree_all, buffers_of, count};
use crate::engine::{Engine, RunError, Session};
use crate::tensor::{DType, TensorView, TensorViewMut};
use arrayvec::ArrayVec;
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::sys::{ONNXTensorElementDataType as ElementType, OrtStatusPtr, OrtValue};
use std::any::Any;
use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use tandem_export::contract::TensorSpec;

/// Descriptors kept per tensor before the oldest is dropped: enough for every camera frame of a
/// model's history, which the BEV encoder reads in the camera's own memory.
const KNOWN_ADDRESSES: usize = 32;

/// Sets of tensors that a session stays bound to before the oldest is let go: three KV slots, and the
/// vision features of every frame of a history.
pub(super) const KNOWN_BINDINGS: usize = 32;

/// Tensors on one side of a network at most: 36 layers of keys and values and a few more.
pub(super) const MAX_TENSORS: usize = 256;

/// Dimensions of a tensor at most; a network with more is refused when it is loaded.
pub(super) const MAX_RANK: usize = 8;

/// A tensor descriptor of the library over memory that it does not own.
pub(super) struct Descriptor {
    address: usize,
    pub(super) value: NonNull<OrtValue>,
}

impl Descriptor {
    /// Describes memory that is kept alive by whoever holds the descriptor.
    pub(super) fn new(
        info: &MemoryInfo<'static>,
        memory: Memory,
        spec: &TensorSpec,
        network: &str,
    ) -> Result<Self, RunError> {
        let shape: ArrayVec<i64, MAX_RANK> = spec.shape.iter().map(|&dim| dim as i64).collect();
        let mut value = ptr::null_mut();
        // SAFETY: `shape` and `info` outlive the call. The described memory is only touched during a
        // `run` that borrows it; in between, the descriptor is a number and a length. Should the same
        // address later hold another tensor of this input, type and length are the contract's again.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                info.ptr(),
                memory.address,
                memory.bytes,
                shape.as_ptr(),
                shape.len(),
                element_type(spec.dtype),
                &mut value,
            )
        };
        check(network, status)?;
        let value = NonNull::new(value).expect("the library reported success");
        Ok(Self { address: memory.address as usize, value })
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: `value` came from CreateTensorWithDataAsOrtValue, is released only here, and does
        // not own the memory it describes.
        unsafe { (ort::api().ReleaseValue)(self.value.as_ptr()) }
    }
}

// SAFETY: a descriptor is a plain heap object of the library without thread affinity; the session
// that holds it is used by one thread at a time (`run` takes `&mut self`).
unsafe impl Send for Descriptor {}

/// A session on the CPU.
pub(super) struct CpuSession {
    engine: Arc<CpuEngine>,
    info: MemoryInfo<'static>,
    inputs: Vec<ArrayVec<Descriptor, KNOWN_ADDRESSES>>,
    outputs: Vec<ArrayVec<Descriptor, KNOWN_ADDRESSES>>,
    /// What the library's `Run` takes, refilled at every run.
    call: CallArrays,
    bindings: ArrayVec<Arc<Binding>, KNOWN_BINDINGS>,
}

/// Argument arrays of the library's `Run`.
struct CallArrays {
    input_names: Vec<*const c_char>,
    inputs: Vec<*const OrtValue>,
    output_names: Vec<*const c_char>,
    outputs: Vec<*mut OrtValue>,
}

// SAFETY: the name pointers lead into CStrings of the engine, which the session keeps alive; the
// value pointers are only read during `run`, which refills them first.
unsafe impl Send for CallArrays {}

impl CpuSession {
    pub(super) fn new(engine: Arc<CpuEngine>) -> Self {
        let pointers =
            |names: &[std::ffi::CString]| names.iter().map(|name| name.as_ptr()).collect();
        let call = CallArrays {
            input_names: pointers(engine.input_names()),
            inputs: vec![ptr::null(); engine.input_names().len()],
            output_names: pointers(engine.output_names()),
            outputs: vec![ptr::null_mut(); engine.output_names().len()],
        };
        let known = |count: usize| (0..count).map(|_| ArrayVec::new()).collect();
        let (inputs, outputs) = (known(call.inputs.len()), known(call.outputs.len()));
        let bindings = ArrayVec::new();
        Self { engine, info: MemoryInfo::default(), inputs, outputs, call, bindings }
    }

    /// The binding to these tensors, made on first sight.
    fn binding(
        &mut self,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<Arc<Binding>, RunError> {
        let is_of = |binding: &&Arc<Binding>| {
            let mut known = binding.buffers.iter().map(|buffer| (buffer.address(), buffer.bytes()));
            buffers_of(inputs, outputs)
                .all(|buffer| known.next() == Some((buffer.address(), buffer.bytes())))
        };
        if let Some(binding) = self.bindings.iter().find(is_of) {
            return Ok(Arc::clone(binding));
        }
        let contract = self.engine.contract();
        let network = &contract.network;
        let describe = |(spec, buffer): (&TensorSpec, &Buffer)| {
            let (address, bytes) = (buffer.address() as *mut c_void, buffer.bytes());
            Descriptor::new(&self.info, Memory { address, bytes }, spec, network)
        };
        let specs = contract.inputs.iter().chain(&contract.outputs);
        let descriptors = specs.zip(buffers_of(inputs, outputs)).map(describe);
        let descriptors = descriptors.collect::<Result<Vec<_>, _>>()?;
        let (described, written) = descriptors.split_at(inputs.len());
        let binding = Binding {
            input_names: self.call.input_names.clone(),
            inputs: described.iter().map(|known| known.value.as_ptr().cast_const()).collect(),
            output_names: self.call.output_names.clone(),
            outputs: written.iter().map(|known| known.value.as_ptr()).collect(),
            engine: Arc::clone(&self.engine),
            buffers: buffers_of(inputs, outputs).cloned().collect(),
            _descriptors: descriptors,
        };
        if self.bindings.is_full() {
            self.bindings.remove(0);
        }
        let binding = Arc::new(binding);
        self.bindings.push(Arc::clone(&binding));
        Ok(binding)
    }
}

/// A network with all its tensors, ready to run on a stream.
struct Binding {
    input_names: Vec<*const c_char>,
    inputs: Vec<*const OrtValue>,
    output_names: Vec<*const c_char>,
    outputs: Vec<*mut OrtValue>,
    /// What the names belong to.
    engine: Arc<CpuEngine>,
    /// What the descriptors describe, inputs first.
    buffers: Vec<Buffer>,
    /// What the values belong to.
    _descriptors: Vec<Descriptor>,
}

// SAFETY: the names lead into CStrings of the engine, the values are those of the descriptors, which
// describe memory of the buffers; the binding keeps all three. The library's objects have no thread
// affinity.
unsafe impl Send for Binding {}
// SAFETY: as above; a run only reads the binding's own fields, and begins accesses to all memory that
// it has the library read and write, so that of two runs of one binding at a time one is refused.
unsafe impl Sync for Binding {}

impl Work for Binding {
    fn run(&self) -> Result<(), DeviceError> {
        let (read, written) = self.buffers.split_at(self.inputs.len());
        let reads = read.iter().map(HostAccess::read);
        let writes = written.iter().map(HostAccess::write);
        let _accesses: ArrayVec<HostAccess<'_>, { 2 * MAX_TENSORS }> =
            writes.chain(reads).collect::<Result<_, _>>()?;
        let _measured = self.engine.profiling().map(Profiling::during_run);
        // The library takes the outputs' array for writing, though it has nothing to write there.
        let mut outputs: ArrayVec<*mut OrtValue, MAX_TENSORS> =
            self.outputs.iter().copied().collect();
        // SAFETY: the engine owns the library's session, which may be run from several threads. Names,
        // values and the memory behind them are kept by `self`; their shapes and lengths were checked
        // against the contract when it was made. Nobody else is at the memory during the accesses.
        let status = unsafe {
            (ort::api().Run)(
                self.engine.raw(),
                ptr::null(),
                self.input_names.as_ptr(),
                self.inputs.as_ptr(),
                self.inputs.len(),
                self.output_names.as_ptr(),
                self.output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        // SAFETY: `status` was just returned by the library, null for success; ownership passes here.
        unsafe { ort::Error::result_from_status(status) }.map_err(|error| DeviceError::Failed {
            what: format!("network {:?}", self.engine.contract().network),
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
    ) -> Result<(), RunError> {
        let contract = self.engine.contract();
        let network = &contract.network;
        let device = |source| RunError::Device { network: network.clone(), source };
        let stream = (stream as &dyn Any)
            .downcast_ref::<HostStream>()
            .ok_or(DeviceError::Foreign(Object::Stream))
            .map_err(device)?;
        agree_all(contract, inputs, outputs)?;
        for buffer in buffers_of(inputs, outputs) {
            stream.check_memory(buffer).map_err(device)?;
        }
        let binding = self.binding(inputs, outputs)?;
        let network = &self.engine.contract().network;
        stream
            .submit(binding)
            .map_err(|source| RunError::Device { network: network.clone(), source })
    }

    fn runs_before_capture(&self) -> Option<usize> {
        Some(0)
    }

    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), RunError> {
        let contract = self.engine.contract();
        let network = &contract.network;
        count(network, "input", contract.inputs.len(), inputs.len())?;
        count(network, "output", contract.outputs.len(), outputs.len())?;
        for (index, (spec, view)) in contract.inputs.iter().zip(inputs).enumerate() {
            agree(network, "input", spec, (view.dtype, view.shape, view.bytes.len()))?;
            let memory =
                Memory { address: view.bytes.as_ptr().cast_mut().cast(), bytes: view.bytes.len() };
            let value = descriptor(&mut self.inputs[index], &self.info, memory, spec, network)?;
            self.call.inputs[index] = value.as_ptr();
        }
        for (index, (spec, view)) in contract.outputs.iter().zip(outputs).enumerate() {
            agree(network, "output", spec, (view.dtype, view.shape, view.bytes.len()))?;
            let memory =
                Memory { address: view.bytes.as_mut_ptr().cast(), bytes: view.bytes.len() };
            let value = descriptor(&mut self.outputs[index], &self.info, memory, spec, network)?;
            self.call.outputs[index] = value.as_ptr();
        }
        let _measured = self.engine.profiling().map(Profiling::during_run);
        // SAFETY: the engine (kept alive by `self`) owns the library's session, which may be run from
        // several threads. Names live in the engine, descriptors in `self`, and the memory they
        // describe is borrowed by `inputs` and `outputs` until this call returns; the contract's
        // shapes and the views' byte lengths were checked against each other.
        let status = unsafe {
            (ort::api().Run)(
                self.engine.raw(),
                ptr::null(),
                self.call.input_names.as_ptr(),
                self.call.inputs.as_ptr(),
                self.call.inputs.len(),
                self.call.output_names.as_ptr(),
                self.call.output_names.len(),
                self.call.outputs.as_mut_ptr(),
            )
        };
        check(network, status)
    }
}

/// Borrowed memory of one tensor.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) address: *mut c_void,
    pub(super) bytes: usize,
}

/// The descriptor of this memory, made on first sight.
fn descriptor(
    known: &mut ArrayVec<Descriptor, KNOWN_ADDRESSES>,
    info: &MemoryInfo<'static>,
    memory: Memory,
    spec: &TensorSpec,
    network: &str,
) -> Result<NonNull<OrtValue>, RunError> {
    let address = memory.address as usize;
    if let Some(descriptor) = known.iter().find(|descriptor| descriptor.address == address) {
        return Ok(descriptor.value);
    }
    let descriptor = Descriptor::new(info, memory, spec, network)?;
    let value = descriptor.value;
    if known.is_full() {
        known.remove(0);
    }
    known.push(descriptor);
    Ok(value)
}

pub(super) fn element_type(dtype: DType) -> ElementType {
    match dtype {
        DType::F32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::F16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::I64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::U8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::Bool => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
    }
}

/// The library's status as a result; releases the status.
pub(super) fn check(network: &str, status: OrtStatusPtr) -> Result<(), RunError> {
    // SAFETY: `status` was just returned by the library, null for success; ownership passes here.
    match unsafe { ort::Error::result_from_status(status) } {
        Ok(()) => Ok(()),
        Err(error) => {
            Err(RunError::Library { network: network.to_owned(), reason: error.to_string() })
        }
    }
}
