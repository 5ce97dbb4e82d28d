//! Streams of the host device, which run work on the caller's thread, and of emulated devices,
//! which have a thread each.

#![expect(unsafe_code, reason = "copies memory by address")]

use super::event::HostEvent;
use super::memory::{self, HostMemory};
use super::{Emulation, OperationHook};
use crate::device::access::Access;
use crate::device::buffer::HostSide;
use crate::device::counters::Direction;
use crate::device::{
    Buffer, Counter, DeviceCounters, DeviceError, Event, Graph, Object, Staged, Stream,
};
use crate::sync::{lock, unpoisoned};
use std::any::Any;
use std::collections::VecDeque;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, ThreadId};

/// Capacity of a stream's queue, beyond which enqueuing blocks; a tick
/// enqueues about ten operations.
const QUEUE_CAPACITY: usize = 1024;

/// Work that a host stream can run: an engine with its tensors bound.
pub trait Work: Send + Sync {
    /// Runs the work once. Fails if the library fails.
    fn run(&self) -> Result<(), DeviceError>;
}

/// An enqueued operation, as passed to the hook of an emulated device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// "fast" or "slow".
    pub stream: &'static str,
    pub kind: OperationKind,
}

/// Kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationKind {
    /// Copies this many bytes from the host.
    Upload(usize),
    /// Copies this many bytes to the host.
    Download(usize),
    /// Copies this many bytes within the device.
    Copy(usize),
    Run,
}

#[derive(Clone)]
enum Command {
    Copy {
        kind: OperationKind,
        from: CopyEnd,
        into: CopyEnd,
        bytes: usize,
    },
    Run(Arc<dyn Work>),
    Record(Arc<HostEvent>),
    /// Waits until the event was reached this many times.
    Wait(Arc<HostEvent>, u64),
    Launch(Arc<HostGraph>),
}

/// Source or target of a copy, with the owner of its memory.
#[derive(Clone)]
struct CopyEnd {
    address: usize,
    memory: Memory,
}

#[derive(Clone)]
enum Memory {
    /// Host side of staged memory, which counts enqueued copies.
    Staged(Arc<HostMemory>),
    Device(Buffer),
}

impl CopyEnd {
    fn of(buffer: &Buffer) -> Self {
        Self { address: buffer.address(), memory: Memory::Device(buffer.clone()) }
    }

    fn copy_enqueued(&self) {
        if let Memory::Staged(memory) = &self.memory {
            memory.copy_enqueued();
        }
    }

    fn copy_finished(&self) {
        if let Memory::Staged(memory) = &self.memory {
            memory.copy_finished();
        }
    }

    fn memory(&self, device: u64) -> Result<&HostMemory, DeviceError> {
        match &self.memory {
            Memory::Staged(memory) => Ok(memory),
            Memory::Device(buffer) => memory::of(buffer, device),
        }
    }
}

/// Captured commands.
struct HostGraph {
    device: u64,
    commands: Vec<Command>,
}

impl Graph for HostGraph {
    fn nodes(&self) -> usize {
        self.commands.len()
    }
}

/// A stream of the host device.
pub struct HostStream {
    shared: Arc<Shared>,
    /// `None` if work runs when it is enqueued.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stream: &'static str,
    device: u64,
    hook: Option<Arc<OperationHook>>,
    counters: Arc<DeviceCounters>,
    /// The capturing thread and its commands since the capture began.
    captured: Mutex<Option<(ThreadId, Vec<Command>)>>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    commands: VecDeque<Command>,
    /// True while a command that left the queue is executed.
    is_running: bool,
    is_closing: bool,
    /// Failure since the last `synchronize`; later work is skipped until the next one.
    failure: Option<DeviceError>,
}

impl HostStream {
    pub(super) fn start(
        stream: &'static str,
        device: u64,
        emulation: Option<Emulation>,
        counters: Arc<DeviceCounters>,
    ) -> std::io::Result<Self> {
        let is_threaded = emulation.is_some();
        let shared = Arc::new(Shared {
            stream,
            device,
            hook: emulation.map(|emulation| emulation.before),
            counters,
            captured: Mutex::new(None),
            queue: Mutex::new(Queue {
                commands: VecDeque::with_capacity(QUEUE_CAPACITY),
                is_running: false,
                is_closing: false,
                failure: None,
            }),
            changed: Condvar::new(),
        });
        let mut thread = None;
        if is_threaded {
            let shared = Arc::clone(&shared);
            let work = move || shared.work();
            thread = Some(thread::Builder::new().name(format!("{stream} stream")).spawn(work)?);
        }
        Ok(Self { shared, thread })
    }

    /// Enqueues `work`. Fails with its error if work runs when it is enqueued.
    pub fn submit(&self, work: Arc<dyn Work>) -> Result<(), DeviceError> {
        self.enqueue(Command::Run(work))
    }

    /// Fails if `buffer` is memory of another device.
    pub fn check_memory(&self, buffer: &Buffer) -> Result<(), DeviceError> {
        memory::of(buffer, self.shared.device).map(|_| ())
    }

    fn enqueue(&self, command: Command) -> Result<(), DeviceError> {
        if let Some((thread, captured)) = self.shared.captured().as_mut()
            && *thread == thread::current().id()
        {
            if let Command::Wait(..) | Command::Launch(_) = command {
                return Err(DeviceError::Misuse(
                    "a capturing stream cannot wait for an event or launch a graph",
                ));
            }
            captured.push(command);
            return Ok(());
        }
        command.mark_enqueued();
        if self.thread.is_none() {
            return self.shared.run(&command);
        }
        let queue = self.shared.queue();
        let mut queue = unpoisoned(
            self.shared.changed.wait_while(queue, |queue| queue.commands.len() == QUEUE_CAPACITY),
        );
        queue.commands.push_back(command);
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn own_event(&self, event: &Arc<dyn Event>) -> Result<Arc<HostEvent>, DeviceError> {
        let event: Arc<dyn Any + Send + Sync> = Arc::clone(event) as _;
        match event.downcast::<HostEvent>() {
            Ok(event) if event.device == self.shared.device => Ok(event),
            _ => Err(DeviceError::Foreign(Object::Event)),
        }
    }

    /// Returns the host side of staged memory.
    fn host_end(staged: &Staged) -> Result<CopyEnd, DeviceError> {
        let memory = staged
            .host_owner()
            .downcast::<HostMemory>()
            .map_err(|_other| DeviceError::Foreign(Object::Buffer))?;
        Ok(CopyEnd { address: staged.host_address(), memory: Memory::Staged(memory) })
    }
}

impl Stream for HostStream {
    fn upload(&self, staged: &Staged) -> Result<(), DeviceError> {
        self.check_memory(staged.buffer())?;
        if staged.is_unified() {
            return Ok(());
        }
        let bytes = staged.buffer().bytes();
        let (from, into) = (Self::host_end(staged)?, CopyEnd::of(staged.buffer()));
        self.enqueue(Command::Copy { kind: OperationKind::Upload(bytes), from, into, bytes })
    }

    fn download(&self, staged: &Staged) -> Result<(), DeviceError> {
        self.check_memory(staged.buffer())?;
        if staged.is_unified() {
            return Ok(());
        }
        let bytes = staged.buffer().bytes();
        let (from, into) = (CopyEnd::of(staged.buffer()), Self::host_end(staged)?);
        self.enqueue(Command::Copy { kind: OperationKind::Download(bytes), from, into, bytes })
    }

    fn copy(&self, from: &Buffer, into: &Buffer) -> Result<(), DeviceError> {
        assert_eq!(from.bytes(), into.bytes(), "the lengths of a copy differ");
        self.check_memory(from)?;
        self.check_memory(into)?;
        let (bytes, kind) = (from.bytes(), OperationKind::Copy(from.bytes()));
        let (from, into) = (CopyEnd::of(from), CopyEnd::of(into));
        self.enqueue(Command::Copy { kind, from, into, bytes })
    }

    fn record(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        self.enqueue(Command::Record(self.own_event(event)?))
    }

    fn wait(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        let event = self.own_event(event)?;
        let times = event.recorded();
        self.enqueue(Command::Wait(event, times))
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        let mut captured = self.shared.captured();
        if captured.is_some() {
            return Err(DeviceError::Misuse("this stream is already capturing"));
        }
        *captured = Some((thread::current().id(), Vec::new()));
        Ok(())
    }

    fn end_capture(&self) -> Result<Arc<dyn Graph>, DeviceError> {
        let captured = self.shared.captured().take();
        let (_, commands) = captured.ok_or(DeviceError::Misuse("this stream is not capturing"))?;
        Ok(Arc::new(HostGraph { device: self.shared.device, commands }))
    }

    fn launch(&self, graph: &Arc<dyn Graph>) -> Result<(), DeviceError> {
        let graph: Arc<dyn Any + Send + Sync> = Arc::clone(graph) as _;
        match graph.downcast::<HostGraph>() {
            Ok(graph) if graph.device == self.shared.device => {
                self.shared.counters.count(Counter::Launches);
                self.enqueue(Command::Launch(graph))
            }
            _ => Err(DeviceError::Foreign(Object::Graph)),
        }
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.shared.counters.count(Counter::HostWaits);
        let queue = self.shared.queue();
        let mut queue = unpoisoned(
            self.shared
                .changed
                .wait_while(queue, |queue| queue.is_running || !queue.commands.is_empty()),
        );
        queue.failure.take().map_or(Ok(()), Err)
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        self.shared.queue().is_closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread executes all enqueued commands first.
            let _ = thread.join();
        }
    }
}

impl Command {
    /// Marks this command as enqueued in the state of its objects.
    fn mark_enqueued(&self) {
        match self {
            Self::Record(event) => event.enqueue(),
            Self::Copy { from, into, .. } => {
                from.copy_enqueued();
                into.copy_enqueued();
            }
            Self::Launch(graph) => graph.commands.iter().for_each(Self::mark_enqueued),
            Self::Run(_) | Self::Wait(..) => {}
        }
    }

    /// Marks this command as executed or skipped in the state of its objects.
    fn mark_finished(&self) {
        if let Self::Copy { from, into, .. } = self {
            from.copy_finished();
            into.copy_finished();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn captured(&self) -> MutexGuard<'_, Option<(ThreadId, Vec<Command>)>> {
        lock(&self.captured)
    }

    /// Body of the stream's thread: executes commands until the stream is
    /// dropped and its queue is empty.
    fn work(&self) {
        loop {
            let queue = self.queue();
            let mut queue = unpoisoned(
                self.changed
                    .wait_while(queue, |queue| queue.commands.is_empty() && !queue.is_closing),
            );
            let Some(command) = queue.commands.pop_front() else { return };
            queue.is_running = true;
            drop(queue);
            self.changed.notify_all();
            // Kept for the next call of `synchronize`.
            let result = self.run(&command);
            drop(command);
            let mut queue = self.queue();
            queue.is_running = false;
            if let Err(error) = result {
                queue.failure = Some(error);
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    /// Executes a command, or skips it after a failed one.
    fn run(&self, command: &Command) -> Result<(), DeviceError> {
        match command {
            Command::Launch(graph) => {
                let mut result = Ok(());
                for command in &graph.commands {
                    match command {
                        Command::Record(event) => event.reach(self.failure(&result)),
                        command if result.is_ok() => result = self.run_operation(command),
                        command => command.mark_finished(),
                    }
                }
                result
            }
            Command::Record(event) => {
                event.reach(self.queue().failure.clone());
                Ok(())
            }
            Command::Wait(event, times) => {
                event.wait_for(*times);
                Ok(())
            }
            command => self.run_operation(command),
        }
    }

    /// Returns the failure that an event within a graph reports.
    fn failure(&self, within: &Result<(), DeviceError>) -> Option<DeviceError> {
        within.as_ref().err().cloned().or_else(|| self.queue().failure.clone())
    }

    fn run_operation(&self, command: &Command) -> Result<(), DeviceError> {
        let result = if self.queue().failure.is_some() { Ok(()) } else { self.execute(command) };
        command.mark_finished();
        result
    }

    fn execute(&self, command: &Command) -> Result<(), DeviceError> {
        let call_hook = |kind| match &self.hook {
            Some(hook) => hook(&Operation { stream: self.stream, kind }),
            None => Ok(()),
        };
        match command {
            Command::Copy { kind, from, into, bytes } => {
                call_hook(*kind)?;
                let (source, target) = (from.memory(self.device)?, into.memory(self.device)?);
                let _writes = target.accesses().begin(Access::Write)?;
                // Within one allocation the write access covers both.
                let is_within = ptr::eq(source, target);
                let _reads =
                    (!is_within).then(|| source.accesses().begin(Access::Read)).transpose()?;
                // SAFETY: `from` and `into` are valid for `bytes` bytes and kept alive by the
                // command; `ptr::copy` allows overlap. The accesses exclude all conflicting ones.
                unsafe { ptr::copy(from.address as *const u8, into.address as *mut u8, *bytes) };
                match kind {
                    OperationKind::Upload(_) => self.counters.copied(Direction::Upload, *bytes),
                    OperationKind::Download(_) => self.counters.copied(Direction::Download, *bytes),
                    OperationKind::Copy(_) | OperationKind::Run => {}
                }
                Ok(())
            }
            Command::Run(work) => {
                call_hook(OperationKind::Run)?;
                work.run()
            }
            Command::Record(_) | Command::Wait(..) | Command::Launch(_) => {
                unreachable!("handled in `run`")
            }
        }
    }
}
