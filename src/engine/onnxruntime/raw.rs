//! Calls of the library's C API: status conversion, tensor descriptors, and runs.

#![expect(unsafe_code, reason = "calls the library's C API")]

use crate::engine::MAX_TENSORS;
use crate::tensor::DType;
use arrayvec::ArrayVec;
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::sys::{
    ONNXTensorElementDataType as ElementType, OrtRunOptions, OrtSession, OrtStatusPtr, OrtValue,
};
use std::ffi::{CString, c_char, c_void};
use std::ptr::{self, NonNull};
use tandem_export::contract::{Contract, TensorSpec};

/// Maximum number of dimensions of a tensor; networks with more are refused when they are loaded.
pub(super) const MAX_RANK: usize = 8;

/// Converts a status that the library just returned to a result, and releases the status.
pub(super) fn check(status: OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: `status` was just returned by the library, null for success, and is owned by this call.
    unsafe { ort::Error::result_from_status(status) }
}

/// Returns the library's constant for an element type.
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

/// Address and length of a tensor's memory.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) address: *mut c_void,
    pub(super) bytes: usize,
}

/// A tensor descriptor of the library over memory that it does not own.
pub(super) struct Descriptor {
    address: usize,
    value: NonNull<OrtValue>,
}

impl Descriptor {
    /// Creates a descriptor of memory that the owner of the descriptor keeps alive.
    pub(super) fn new(
        info: &MemoryInfo<'static>,
        memory: Memory,
        spec: &TensorSpec,
    ) -> ort::Result<Self> {
        let shape: ArrayVec<i64, MAX_RANK> = spec.shape.iter().map(|&dim| dim as i64).collect();
        let mut value = ptr::null_mut();
        // SAFETY: `shape` and `info` outlive the call. The library accesses the described memory only
        // in a `run` that borrows it; otherwise the descriptor is an address and a length. If another
        // tensor of this input is later at the same address, it has the contract's type and length too.
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
        check(status)?;
        let value = NonNull::new(value).expect("the library reported success");
        Ok(Self { address: memory.address as usize, value })
    }

    /// Returns the address of the described memory.
    pub(super) fn address(&self) -> usize {
        self.address
    }

    /// Returns the library's value, which is valid as long as the descriptor.
    pub(super) fn value(&self) -> NonNull<OrtValue> {
        self.value
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: `value` was created by CreateTensorWithDataAsOrtValue, is released only here, and does
        // not own the memory that it describes.
        unsafe { (ort::api().ReleaseValue)(self.value.as_ptr()) }
    }
}

// SAFETY: a descriptor is a heap object of the library without thread affinity, and immutable after
// its creation.
unsafe impl Send for Descriptor {}
// SAFETY: as above; a shared descriptor only returns two addresses.
unsafe impl Sync for Descriptor {}

/// Names of a network's tensors as C strings.
pub(super) struct Names {
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl Names {
    /// Returns the names of the tensors in `contract`.
    pub(super) fn of(contract: &Contract) -> Self {
        let name = |spec: &TensorSpec| {
            CString::new(spec.name.as_str()).expect("ONNX names contain no zero byte")
        };
        Self {
            inputs: contract.inputs.iter().map(name).collect(),
            outputs: contract.outputs.iter().map(name).collect(),
        }
    }
}

/// Argument arrays of the library's function `Run`.
pub(super) struct Arguments {
    input_names: Vec<*const c_char>,
    output_names: Vec<*const c_char>,
    pub(super) inputs: Vec<*const OrtValue>,
    pub(super) outputs: Vec<*mut OrtValue>,
}

// SAFETY: the pointers are dereferenced only in `run`, whose caller guarantees that they are valid.
unsafe impl Send for Arguments {}
// SAFETY: as above; `run` only reads the arrays.
unsafe impl Sync for Arguments {}

impl Arguments {
    /// Creates arguments with these names and a null pointer for each value.
    pub(super) fn new(names: &Names) -> Self {
        let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect();
        Self {
            input_names: pointers(&names.inputs),
            output_names: pointers(&names.outputs),
            inputs: vec![ptr::null(); names.inputs.len()],
            outputs: vec![ptr::null_mut(); names.outputs.len()],
        }
    }

    /// Runs `session` with these arguments; `options` may be null.
    ///
    /// # Safety
    /// `session`, `options` and the `Names` of these arguments are alive, and every value belongs to a
    /// live descriptor. The described memory is valid, has the contract's type and length, and is not
    /// accessed elsewhere until the run has completed: for a provider that enqueues work on a stream,
    /// until the stream has completed it.
    pub(super) unsafe fn run(
        &self,
        session: *mut OrtSession,
        options: *const OrtRunOptions,
    ) -> ort::Result<()> {
        // The library's parameter is mutable although it writes nothing when outputs are given.
        let mut outputs: ArrayVec<*mut OrtValue, MAX_TENSORS> =
            self.outputs.iter().copied().collect();
        // SAFETY: the arrays of names and values have equal lengths on each side and outlive the call,
        // which does not retain them; sessions may be run from several threads. The caller guarantees
        // the rest.
        let status = unsafe {
            (ort::api().Run)(
                session,
                options,
                self.input_names.as_ptr(),
                self.inputs.as_ptr(),
                self.inputs.len(),
                self.output_names.as_ptr(),
                self.output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        check(status)
    }
}
