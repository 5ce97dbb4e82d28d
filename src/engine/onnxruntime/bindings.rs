//! Networks bound to memory of a device: sets of descriptors that later runs use again.
//!
//! Three KV slots are three bindings. A run with known memory makes no allocation of ours and copies
//! nothing.

#![expect(unsafe_code, reason = "runs a network on the memory that it is bound to")]

use super::raw::{Arguments, Descriptor, Memory, Names};
use crate::device::{Buffer, DeviceView, DeviceViewMut};
use crate::engine::contract_check::buffers_of;
use crate::engine::{Engine, RunError};
use arrayvec::ArrayVec;
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session as OrtSession};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// Number of bindings that a session keeps before the oldest is dropped: three KV slots, and the
/// vision features of every frame of a history.
const KNOWN_BINDINGS: usize = 32;

/// A network that the library has loaded.
pub(super) trait Network: Engine {
    /// Names of its inputs and outputs.
    fn names(&self) -> &Names;

    /// The library's session, which may be run from several threads.
    fn library_session(&self) -> &OrtSession;

    /// The device whose memory it is bound to, in the library's terms.
    fn memory_info(&self) -> &MemoryInfo<'static>;

    /// Options of its runs, if they are not the default.
    fn run_options(&self) -> Option<&RunOptions> {
        None
    }
}

/// Bindings of one session, the oldest first.
pub(super) struct Bindings<N>(ArrayVec<Arc<Binding<N>>, KNOWN_BINDINGS>);

/// A network with all its tensors.
pub(super) struct Binding<N> {
    arguments: Arguments,
    /// Owner of the names and of the library's session.
    network: Arc<N>,
    /// Memory that the descriptors describe, inputs first.
    buffers: Vec<Buffer>,
    /// Owners of the values.
    _descriptors: Vec<Descriptor>,
}

impl<N: Network> Bindings<N> {
    pub(super) fn new() -> Self {
        Self(ArrayVec::new())
    }

    /// Returns the binding of `network` to these tensors, which are what its contract says. The first
    /// call with some memory makes it.
    ///
    /// # Errors
    /// If the library does not describe the memory.
    pub(super) fn to(
        &mut self,
        network: &Arc<N>,
        inputs: &[DeviceView<'_>],
        outputs: &[DeviceViewMut<'_>],
    ) -> Result<Arc<Binding<N>>, RunError> {
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
            RunError::Library { network, reason: error.to_string() }
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
        arguments.inputs = read.iter().map(|known| known.value().as_ptr().cast_const()).collect();
        arguments.outputs = written.iter().map(|known| known.value().as_ptr()).collect();
        Ok(Self {
            arguments,
            network: Arc::clone(network),
            buffers: buffers_of(inputs, outputs).cloned().collect(),
            _descriptors: descriptors,
        })
    }

    /// The network.
    pub(super) fn network(&self) -> &N {
        &self.network
    }

    /// Memory of the inputs, and memory of the outputs.
    pub(super) fn buffers(&self) -> (&[Buffer], &[Buffer]) {
        self.buffers.split_at(self.arguments.inputs.len())
    }

    /// Runs the network on the tensors.
    ///
    /// # Safety
    /// Nobody else writes the memory of the inputs or accesses that of the outputs until the run is
    /// over, and where the run is handed to a stream, the binding or its memory is kept until the
    /// stream has done it.
    pub(super) unsafe fn call_library(&self) -> ort::Result<()> {
        let options = self.network.run_options().map_or(ptr::null(), AsPointer::ptr);
        let session = self.network.library_session().ptr().cast_mut();
        // SAFETY: the network, which `self` keeps, owns the session, the options and the names. The
        // values are those of the descriptors, which describe memory of the buffers; `self` keeps
        // both. Their shapes and lengths were checked against the contract when the binding was made.
        // The accesses are the caller's promise.
        unsafe { self.arguments.run(session, options) }
    }
}
