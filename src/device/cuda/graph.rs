//! CUDA graphs.

#![expect(unsafe_code, reason = "calls the driver")]

use super::context::Context;
use super::event::{CudaEvent, DriverEvent, Position};
use super::handle::{GraphExecHandle, GraphHandle};
use super::memory::PinnedMemory;
use super::stream::{RawStream, Users};
use crate::device::counters::Direction;
use crate::device::{Buffer, DeviceCounters, DeviceError, Graph};
use crate::sync::lock;
use cudarc::driver::{result, sys};
use std::ptr;
use std::sync::{Arc, Mutex};

/// State of a capture that the driver does not record.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) copies: Vec<Copied>,
    /// Buffers that captured copies read or write.
    pub(super) buffers: Vec<Buffer>,
    /// Events that each launch records, with the driver events of their nodes.
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
    pub(super) fn count(&self, counters: &DeviceCounters) {
        counters.copied(self.direction, self.bytes);
    }
}

/// An instantiated graph. It keeps its buffers and events alive, except memory that
/// libraries captured by address.
pub(super) struct CudaGraph {
    /// Locked because the driver allows one thread at a time to launch a graph;
    /// `None` for an empty graph.
    exec: Mutex<Option<GraphExecHandle>>,
    nodes: usize,
    captured: Captured,
    /// Recorded after each launch, for waits on captured events.
    launched: CudaEvent,
    /// The stream of the capture, whose green context must outlive the graph.
    _stream: Arc<RawStream>,
    /// Streams with launches, which are waited for before the graph is destroyed.
    users: Users,
    context: Arc<Context>,
}

impl CudaGraph {
    /// Instantiates a captured graph and uploads it to the device, so that the first
    /// launch is as fast as later ones.
    pub(super) fn new(
        graph: Option<GraphHandle>,
        captured: Captured,
        stream: &Arc<RawStream>,
        context: &Arc<Context>,
    ) -> Result<Self, DeviceError> {
        let mut nodes = 0;
        if let Some(graph) = &graph {
            // SAFETY: `graph` is alive; with a null array the driver only writes the number of
            // nodes.
            let status =
                unsafe { sys::cuGraphGetNodes(graph.raw(), ptr::null_mut(), &raw mut nodes) };
            context.check("counting a graph's nodes", status.result())?;
        }
        let exec = match graph.filter(|_| nodes > 0) {
            None => None,
            Some(graph) => {
                let mut exec = ptr::null_mut();
                // SAFETY: `graph` is alive, and the instantiated graph does not need it afterwards.
                let status =
                    unsafe { sys::cuGraphInstantiateWithFlags(&raw mut exec, graph.raw(), 0) };
                context.check("instantiating a graph", status.result())?;
                let exec = GraphExecHandle::new(exec);
                // SAFETY: `exec` and `stream` are alive, and the capture on `stream` has ended.
                let status = unsafe { sys::cuGraphUpload(exec.raw(), stream.raw()) };
                context.check("uploading a graph", status.result())?;
                Some(exec)
            }
        };
        let users = Users::default();
        users.add(stream);
        Ok(Self {
            exec: Mutex::new(exec),
            nodes,
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

    /// Enqueues the graph on a stream. The context must be current.
    pub(super) fn launch(&self, stream: &Arc<RawStream>) -> Result<(), DeviceError> {
        let exec = lock(&self.exec);
        if let Some(exec) = &*exec {
            // SAFETY: `exec` and `stream` are alive, and the lock excludes launches by other
            // threads.
            let status = unsafe { sys::cuGraphLaunch(exec.raw(), stream.raw()) };
            self.context.check("launching a graph", status.result())?;
        }
        drop(exec);
        self.users.add(stream);
        for copy in &self.captured.copies {
            copy.count(&self.context.counters);
            copy.host.users.add(stream);
        }
        self.record_events(stream)
    }

    /// Sets the position of captured events to this launch: waits use an event recorded after the
    /// launch, times are those recorded by the nodes.
    fn record_events(&self, stream: &RawStream) -> Result<(), DeviceError> {
        if self.captured.events.is_empty() {
            return Ok(());
        }
        let launched = self.launched.of(stream.event_context())?;
        // SAFETY: `launched` and `stream` are alive and belong to one context.
        let status = unsafe { result::event::record(launched.handle().raw(), stream.raw()) };
        self.context.check("recording an event", status)?;
        for (event, node) in &self.captured.events {
            event.recorded(Position { reached: Arc::clone(&launched), timed: Arc::clone(node) });
        }
        Ok(())
    }
}

impl Graph for CudaGraph {
    fn nodes(&self) -> usize {
        self.nodes
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        let _ = self.context.bind();
        self.users.wait();
    }
}
