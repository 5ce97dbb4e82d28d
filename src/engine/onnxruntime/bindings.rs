//! Bindings of networks to device memory: sets of tensor descriptors that later runs reuse.
//!
//! Three KV slots are three bindings. A run with bound memory neither allocates host memory here nor
//! copies tensors.

#![expect(unsafe_code, reason = "runs a network on the memory that it is bound to")]

use super::raw::{Arguments, Descriptor, Memory, Names};
use crate::device::{Buffer, DeviceView, DeviceViewMut};
use crate::engine::contract_check::buffers_of;
use crate::engine::{Engine, SessionRunError};
use arrayvec::ArrayVec;
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session as OrtSession};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// Number of bindings that a session keeps before the oldest is dropped: three KV slots, and the
/// vision features of every frame of a history.
const MAX_BINDINGS: usize = 32;

/// Network loaded by the library.
pub(super) trait Network: Engine {
    /// Returns the names of inputs and outputs.
    fn names(&self) -> &Names;

    /// Returns the library's session, which several threads may run.
    fn library_session(&self) -> &OrtSession;

    /// Returns the library's description of the device memory that the network is bound to.
    fn memory_info(&self) -> &MemoryInfo<'static>;

    /// Returns the options of runs; `None` for the defaults.
    fn run_options(&self) -> Option<&RunOptions> {
        None
    }
}

/// Bindings of one session, oldest first.
pub(super) struct Bindings<N>(ArrayVec<Arc<Binding<N>>, MAX_BINDINGS>);

/// Network bound to the memory of all its tensors.
pub(super) struct Binding<N> {
    arguments: Arguments,
    /// Owns the names and the library's session.
    network: Arc<N>,
    /// Memory of the tensors, inputs first.
    buffers: Vec<Buffer>,
    /// Owns the values in `arguments`.
    _descriptors: Vec<Descriptor>,
}

impl<N: Network> Bindings<N> {
    pub(super) fn new() -> Self {
        Self(ArrayVec::new())
    }

    /// Returns the binding of `network` to these tensors, which match its contract. The first call with
    /// given memory creates it; fails if the library cannot create a descriptor.
    pub(super) fn to(
        &mut self,
        network: &Arc<N>,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<Arc<Binding<N>>, SessionRunError> {
        let is_of = |binding: &&Arc<Binding<N>>| {
            let mut known = binding.buffers.iter().map(|buffer| (buffer.address(), buffer.bytes()));
            buffers_of(inputs, outputs)
                .all(|buffer| known.next() == Some((buffer.address(), buffer.bytes())))
        };
        if let Some(binding) = self.0.iter().find(is_of) {
            return Ok(Arc::clone(binding));
        }
        let binding = Arc::new(Binding::new(network, inputs, outputs).map_err(|error| {
            let network = network.contract().network.clone();
            SessionRunError::Library { network, reason: error.to_string() }
        })?);
        if self.0.is_full() {
            self.0.remove(0);
        }
        self.0.push(Arc::clone(&binding));
        Ok(binding)
    }
}

impl<N: Network> Binding<N> {
    fn new(
        network: &Arc<N>,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> ort::Result<Self> {
        let contract = network.contract();
        let specs = contract.inputs.iter().chain(&contract.outputs);
        let descriptors = specs.zip(buffers_of(inputs, outputs)).map(|(spec, buffer)| {
            let (address, bytes) = (buffer.address() as *mut c_void, buffer.bytes());
            Descriptor::new(network.memory_info(), Memory { address, bytes }, spec)
        });
        let descriptors = descriptors.collect::<ort::Result<Vec<_>>>()?;
        let mut arguments = Arguments::new(network.names());
        let (read, written) = descriptors.split_at(inputs.len());
        arguments.inputs =
            read.iter().map(|descriptor| descriptor.value().as_ptr().cast_const()).collect();
        arguments.outputs = written.iter().map(|descriptor| descriptor.value().as_ptr()).collect();
        Ok(Self {
            arguments,
            network: Arc::clone(network),
            buffers: buffers_of(inputs, outputs).cloned().collect(),
            _descriptors: descriptors,
        })
    }

    pub(super) fn network(&self) -> &N {
        &self.network
    }

    /// Returns the buffers of the inputs and those of the outputs.
    pub(super) fn buffers(&self) -> (&[Buffer], &[Buffer]) {
        self.buffers.split_at(self.arguments.inputs.len())
    }

    /// Runs the network on the bound tensors.
    ///
    /// # Safety
    /// Until the run has completed, no other access writes the memory of the inputs or touches that of
    /// the outputs. If the run is enqueued on a stream, the binding or its buffers stay alive until the
    /// stream has completed it.
    pub(super) unsafe fn call_library(&self) -> ort::Result<()> {
        let options = self.network.run_options().map_or(ptr::null(), AsPointer::ptr);
        let session = self.network.library_session().ptr().cast_mut();
        // SAFETY: `self.network` owns the session, the options and the names. The values belong to
        // `self._descriptors`, which describe memory of `self.buffers`. Shapes and lengths were checked
        // against the contract when the binding was created. The caller guarantees exclusive access.
        unsafe { self.arguments.run(session, options) }
    }
}
