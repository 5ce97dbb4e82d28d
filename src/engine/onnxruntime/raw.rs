//! The library's C interface, one call at a time: results, descriptors of memory, and runs.

#![expect(unsafe_code, reason = "calls the library's C interface")]

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

/// Maximum number of dimensions of a tensor; a network with more is refused when it is loaded.
pub(super) const MAX_RANK: usize = 8;

/// Converts a status that the library just returned to a result; releases the status.
pub(super) fn check(status: OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: `status` was just returned by the library, null for success; ownership passes here.
    unsafe { ort::Error::result_from_status(status) }
}

/// Returns the library's name of an element type.
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

/// Memory of one tensor.
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
    /// Describes memory that is kept alive by whoever holds the descriptor.
    pub(super) fn new(
        info: &MemoryInfo<'static>,
        memory: Memory,
        spec: &TensorSpec,
    ) -> ort::Result<Self> {
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
        check(status)?;
        let value = NonNull::new(value).expect("the library reported success");
        Ok(Self { address: memory.address as usize, value })
    }

    /// Address of the described memory.
    pub(super) fn address(&self) -> usize {
        self.address
    }

    /// The library's value, valid as long as the descriptor.
    pub(super) fn value(&self) -> NonNull<OrtValue> {
        self.value
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: `value` came from CreateTensorWithDataAsOrtValue, is released only here, and does
        // not own the memory it describes.
        unsafe { (ort::api().ReleaseValue)(self.value.as_ptr()) }
    }
}

// SAFETY: a descriptor is a plain heap object of the library without thread affinity, which is not
// changed after it was made.
unsafe impl Send for Descriptor {}
// SAFETY: as above; a shared descriptor only gives its address and its value's.
unsafe impl Sync for Descriptor {}

/// Names of a network's tensors, as the library takes them.
pub(super) struct Names {
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl Names {
    /// Returns the names of the tensors in `contract`.
    pub(super) fn of(contract: &Contract) -> Self {
        let name = |spec: &TensorSpec| {
            CString::new(spec.name.as_str()).expect("ONNX names hold no zero byte")
        };
        Self {
            inputs: contract.inputs.iter().map(name).collect(),
            outputs: contract.outputs.iter().map(name).collect(),
        }
    }
}

/// Argument arrays of the library's `Run`.
pub(super) struct Arguments {
    input_names: Vec<*const c_char>,
    output_names: Vec<*const c_char>,
    pub(super) inputs: Vec<*const OrtValue>,
    pub(super) outputs: Vec<*mut OrtValue>,
}

// SAFETY: the pointers are only followed in `run`, whose caller answers for what they lead to.
unsafe impl Send for Arguments {}
// SAFETY: as above; `run` only reads the arrays.
unsafe impl Sync for Arguments {}

impl Arguments {
    /// Arguments with these names, and null for each value.
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
    /// `session` and `options` are alive, the names that these arguments were made of too, and every
    /// value is one of a live descriptor. The described memory is valid, has the type and length that
    /// the contract says, and is accessed by nobody else, until the run is over: for a provider that
    /// hands work to a stream, until the stream has done it.
    pub(super) unsafe fn run(
        &self,
        session: *mut OrtSession,
        options: *const OrtRunOptions,
    ) -> ort::Result<()> {
        // The library takes the outputs' array for writing, though it has nothing to write there.
        let mut outputs: ArrayVec<*mut OrtValue, MAX_TENSORS> =
            self.outputs.iter().copied().collect();
        // SAFETY: names and values of each side are equally many, and the library copies none of the
        // arrays' addresses; its sessions may be run from several threads. The rest is the caller's
        // promise.
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
