//! Captured work of a CUDA device.

#![expect(unsafe_code, reason = "calls the driver")]

use super::context::Context;
use super::event::{CudaEvent, DriverEvent, Place};
use super::handle::{GraphExecHandle, GraphHandle};
use super::memory::PinnedMemory;
use super::stream::{RawStream, Users};
use crate::device::counters::Direction;
use crate::device::{Buffer, DeviceError, Graph, Traffic};
use crate::sync::lock;
use cudarc::driver::{result, sys};
use std::ptr;
use std::sync::{Arc, Mutex};

/// What a stream was given since its capture began, apart from what the driver notes.
#[derive(Default)]
pub(super) struct Captured {
    /// Copies between host and device.
    pub(super) copies: Vec<Copied>,
    /// Buffers that captured copies read or write.
    pub(super) buffers: Vec<Buffer>,
    /// Events that each launch reaches, with the driver's that their nodes record.
    pub(super) events: Vec<(Arc<CudaEvent>, Arc<DriverEvent>)>,
}

/// A captured copy between host and device, counted at each launch.
pub(super) struct Copied {
    pub(super) direction: Direction,
    pub(super) bytes: usize,
    pub(super) host: Arc<PinnedMemory>,
}

impl Copied {
    /// Counts the copy as submitted.
    pub(super) fn count(&self, traffic: &Traffic) {
        traffic.copied(self.direction, self.bytes);
    }
}

/// A captured graph, instantiated. It keeps the memory and events alive that it names, but for what
/// libraries were told by address.
pub(super) struct CudaGraph {
    /// The driver wants one thread at a time to launch a graph; `None` if nothing was captured.
    exec: Mutex<Option<GraphExecHandle>>,
    pieces: usize,
    captured: Captured,
    /// Recorded behind each launch, for whoever waits for a captured event.
    launched: CudaEvent,
    /// The stream that it was captured on, whose green context may go only after the graph.
    _stream: Arc<RawStream>,
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
        Ok(Self {
            exec: Mutex::new(exec),
            pieces,
            captured,
            launched: CudaEvent::new(context)?,
            _stream: Arc::clone(stream),
            users,
            context: Arc::clone(context),
        })
    }

    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// Hands it over to a stream; the context is current.
    pub(super) fn launch(&self, stream: &Arc<RawStream>) -> Result<(), DeviceError> {
        let exec = lock(&self.exec);
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
        self.record_events(stream)
    }

    /// Lets captured events mark this launch: they are waited for by an event recorded behind it, and
    /// tell the times that their nodes record.
    fn record_events(&self, stream: &RawStream) -> Result<(), DeviceError> {
        if self.captured.events.is_empty() {
            return Ok(());
        }
        let launched = self.launched.of(stream.home())?;
        // SAFETY: both are alive and of one context.
        let answer = unsafe { result::event::record(launched.handle().raw(), stream.raw()) };
        self.context.check("recording an event", answer)?;
        for (event, node) in &self.captured.events {
            event.recorded(Place { reached: Arc::clone(&launched), timed: Arc::clone(node) });
        }
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
