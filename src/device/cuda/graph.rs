//! Captured work of a CUDA device.

#![expect(unsafe_code, reason = "calls the driver")]

use super::context::Context;
use super::event::CudaEvent;
use super::handle::{GraphExecHandle, GraphHandle};
use super::memory::PinnedMemory;
use super::stream::{RawStream, Users};
use crate::device::{Buffer, DeviceError, Graph, Traffic};
use cudarc::driver::sys;
use std::ptr;
use std::sync::{Arc, Mutex};

/// What a stream was given since its capture began, apart from what the driver notes.
#[derive(Default)]
pub(super) struct Captured {
    /// Copies between host and device.
    pub(super) copies: Vec<Copied>,
    /// Buffers that captured copies read or write.
    pub(super) buffers: Vec<Buffer>,
    /// Events that each launch reaches.
    pub(super) events: Vec<Arc<CudaEvent>>,
}

/// A captured copy between host and device, counted at each launch.
pub(super) struct Copied {
    pub(super) to_device: bool,
    pub(super) bytes: usize,
    pub(super) host: Arc<PinnedMemory>,
}

impl Copied {
    /// Counts it as handed over.
    pub(super) fn count(&self, traffic: &Traffic) {
        if self.to_device {
            traffic.uploaded(self.bytes);
        } else {
            traffic.downloaded(self.bytes);
        }
    }
}

/// A captured graph, instantiated. It keeps the memory and events alive that it names, but for what
/// libraries were told by address.
pub(super) struct CudaGraph {
    /// The driver wants one thread at a time to launch a graph; `None` if nothing was captured.
    exec: Mutex<Option<GraphExecHandle>>,
    pieces: usize,
    captured: Captured,
    /// Streams that it was launched on; they are waited for before it goes.
    users: Users,
    context: Arc<Context>,
}

impl CudaGraph {
    /// Makes captured work launchable and brings it to the device, so that the first launch costs
    /// what every launch does.
    pub(super) fn new(
        graph: Option<GraphHandle>,
        captured: Captured,
        stream: &Arc<RawStream>,
        context: &Arc<Context>,
    ) -> Result<Self, DeviceError> {
        let mut pieces = 0;
        if let Some(graph) = &graph {
            // SAFETY: the graph is alive; a null array asks for the number of its nodes alone.
            let answer =
                unsafe { sys::cuGraphGetNodes(graph.raw(), ptr::null_mut(), &raw mut pieces) };
            context.check("counting a graph's nodes", answer.result())?;
        }
        let exec = match graph.filter(|_| pieces > 0) {
            None => None,
            Some(graph) => {
                let mut exec = ptr::null_mut();
                // SAFETY: the graph is alive, and what is made of it does not need it afterwards.
                let answer =
                    unsafe { sys::cuGraphInstantiateWithFlags(&raw mut exec, graph.raw(), 0) };
                context.check("instantiating a graph", answer.result())?;
                let exec = GraphExecHandle::new(exec);
                // SAFETY: both are alive, and the stream's capture has ended.
                let answer = unsafe { sys::cuGraphUpload(exec.raw(), stream.raw()) };
                context.check("uploading a graph", answer.result())?;
                Some(exec)
            }
        };
        let users = Users::default();
        users.note(stream);
        Ok(Self { exec: Mutex::new(exec), pieces, captured, users, context: Arc::clone(context) })
    }

    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// Hands it over to a stream; the context is current.
    pub(super) fn launch(&self, stream: &Arc<RawStream>) -> Result<(), DeviceError> {
        let exec = self.exec.lock().expect("no holder of this lock panics");
        if let Some(exec) = &*exec {
            // SAFETY: both are alive, and the lock keeps other threads from launching it meanwhile.
            let answer = unsafe { sys::cuGraphLaunch(exec.raw(), stream.raw()) };
            self.context.check("launching a graph", answer.result())?;
        }
        drop(exec);
        self.users.note(stream);
        for copy in &self.captured.copies {
            copy.count(&self.context.traffic);
            copy.host.users.note(stream);
        }
        self.captured.events.iter().for_each(|event| event.recorded());
        Ok(())
    }
}

impl Graph for CudaGraph {
    fn pieces(&self) -> usize {
        self.pieces
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        let _ = self.context.bind();
        self.users.wait();
    }
}
