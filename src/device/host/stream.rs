//! Streams of the host device: at once on the caller's thread, or a thread each.

#![expect(unsafe_code, reason = "copies between memory that is known by address")]

use super::event::HostEvent;
use super::memory::{self, HostMemory};
use super::{Emulation, Interruption};
use crate::device::buffer::HostSide;
use crate::device::counters::Direction;
use crate::device::{Buffer, Counter, DeviceError, Event, Graph, Object, Staged, Stream, Traffic};
use crate::sync::{lock, unpoisoned};
use std::any::Any;
use std::collections::VecDeque;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, ThreadId};

/// Pieces of work that wait in a stream before handing over more does; a tick hands over about ten.
const QUEUE: usize = 1024;

/// Something that a host stream can run: an engine with its tensors bound.
pub trait Work: Send + Sync {
    /// Does it once.
    ///
    /// # Errors
    /// If the library fails.
    fn run(&self) -> Result<(), DeviceError>;
}

/// A operation of work on its way, as an emulated device's interruption is told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// "fast" or "slow".
    pub stream: &'static str,
    /// What it does.
    pub kind: OperationKind,
}

/// What a operation of work does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationKind {
    /// Copies so many bytes from the host.
    Upload(usize),
    /// Copies so many bytes to the host.
    Download(usize),
    /// Copies so many bytes within the device.
    Copy(usize),
    /// Runs a network.
    Run,
}

#[derive(Clone)]
enum Command {
    Copy {
        kind: OperationKind,
        from: Place,
        into: Place,
        bytes: usize,
    },
    Run(Arc<dyn Work>),
    Record(Arc<HostEvent>),
    /// Until the event was reached so often.
    Wait(Arc<HostEvent>, u64),
    Launch(Arc<HostGraph>),
}

/// One end of a copy, with what keeps its memory alive.
#[derive(Clone)]
struct Place {
    address: usize,
    memory: Memory,
}

#[derive(Clone)]
enum Memory {
    /// The host's side of staged memory, which counts copies under way.
    Staged(Arc<HostMemory>),
    /// Memory of this stream's device.
    Device(Buffer),
}

impl Place {
    fn of(buffer: &Buffer) -> Self {
        Self { address: buffer.address(), memory: Memory::Device(buffer.clone()) }
    }

    fn copying(&self, begins: bool) {
        if let Memory::Staged(memory) = &self.memory {
            memory.copying(begins);
        }
    }

    fn memory(&self, device: u64) -> Result<&HostMemory, DeviceError> {
        match &self.memory {
            Memory::Staged(memory) => Ok(memory),
            Memory::Device(buffer) => memory::of(buffer, device),
        }
    }
}

/// Captured work.
struct HostGraph {
    device: u64,
    commands: Vec<Command>,
}

impl Graph for HostGraph {
    fn pieces(&self) -> usize {
        self.commands.len()
    }
}

/// A stream of the host device.
pub struct HostStream {
    shared: Arc<Shared>,
    /// `None` if work runs when it is handed over.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stream: &'static str,
    device: u64,
    before: Option<Arc<Interruption>>,
    traffic: Arc<Traffic>,
    /// The thread that captures, and what it handed over since.
    captured: Mutex<Option<(ThreadId, Vec<Command>)>>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    commands: VecDeque<Command>,
    /// A command that was taken out and is not done.
    is_running: bool,
    is_closing: bool,
    /// What failed since the last `synchronize`; work behind it is left out until the next.
    failure: Option<DeviceError>,
}

impl HostStream {
    pub(super) fn start(
        stream: &'static str,
        device: u64,
        emulation: Option<Emulation>,
        traffic: Arc<Traffic>,
    ) -> std::io::Result<Self> {
        let is_threaded = emulation.is_some();
        let shared = Arc::new(Shared {
            stream,
            device,
            before: emulation.map(|emulation| emulation.before),
            traffic,
            captured: Mutex::new(None),
            queue: Mutex::new(Queue {
                commands: VecDeque::with_capacity(QUEUE),
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

    /// Hands over a run of a network.
    ///
    /// # Errors
    /// What it failed with, if work runs when it is handed over.
    pub fn submit(&self, work: Arc<dyn Work>) -> Result<(), DeviceError> {
        self.hand_over(Command::Run(work))
    }

    /// Refuses memory that is not this stream's device's.
    ///
    /// # Errors
    /// If it is another's.
    pub fn check_memory(&self, buffer: &Buffer) -> Result<(), DeviceError> {
        memory::of(buffer, self.shared.device).map(|_| ())
    }

    fn hand_over(&self, command: Command) -> Result<(), DeviceError> {
        if let Some((thread, captured)) = self.shared.captured().as_mut()
            && *thread == thread::current().id()
        {
            if let Command::Wait(..) | Command::Launch(_) = command {
                return Err(DeviceError::Misuse(
                    "a capturing stream can neither wait for another nor launch a graph",
                ));
            }
            captured.push(command);
            return Ok(());
        }
        command.hand_over();
        if self.thread.is_none() {
            return self.shared.run(&command);
        }
        let queue = self.shared.queue();
        let mut queue = unpoisoned(
            self.shared.changed.wait_while(queue, |queue| queue.commands.len() == QUEUE),
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

    /// The host's side of staged memory.
    fn host_place(staged: &Staged) -> Result<Place, DeviceError> {
        let memory = staged
            .host_owner()
            .downcast::<HostMemory>()
            .map_err(|_other| DeviceError::Foreign(Object::Buffer))?;
        Ok(Place { address: staged.host_address(), memory: Memory::Staged(memory) })
    }
}

impl Stream for HostStream {
    fn upload(&self, staged: &Staged) -> Result<(), DeviceError> {
        self.check_memory(staged.buffer())?;
        if staged.is_unified() {
            return Ok(());
        }
        let bytes = staged.buffer().bytes();
        let (from, into) = (Self::host_place(staged)?, Place::of(staged.buffer()));
        self.hand_over(Command::Copy { kind: OperationKind::Upload(bytes), from, into, bytes })
    }

    fn download(&self, staged: &Staged) -> Result<(), DeviceError> {
        self.check_memory(staged.buffer())?;
        if staged.is_unified() {
            return Ok(());
        }
        let bytes = staged.buffer().bytes();
        let (from, into) = (Place::of(staged.buffer()), Self::host_place(staged)?);
        self.hand_over(Command::Copy { kind: OperationKind::Download(bytes), from, into, bytes })
    }

    fn copy(&self, from: &Buffer, into: &Buffer) -> Result<(), DeviceError> {
        assert_eq!(from.bytes(), into.bytes(), "a copy of another length");
        self.check_memory(from)?;
        self.check_memory(into)?;
        let (bytes, kind) = (from.bytes(), OperationKind::Copy(from.bytes()));
        let (from, into) = (Place::of(from), Place::of(into));
        self.hand_over(Command::Copy { kind, from, into, bytes })
    }

    fn record(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        self.hand_over(Command::Record(self.own_event(event)?))
    }

    fn wait(&self, event: &Arc<dyn Event>) -> Result<(), DeviceError> {
        let event = self.own_event(event)?;
        let times = event.recorded();
        self.hand_over(Command::Wait(event, times))
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        let mut captured = self.shared.captured();
        if captured.is_some() {
            return Err(DeviceError::Misuse("this stream is capturing already"));
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
                self.shared.traffic.count(Counter::Launches);
                self.hand_over(Command::Launch(graph))
            }
            _ => Err(DeviceError::Foreign(Object::Graph)),
        }
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.shared.traffic.count(Counter::HostWaits);
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
            // What was handed over is done first.
            let _ = thread.join();
        }
    }
}

impl Command {
    /// Notes, on the host, that this command is on its way.
    fn hand_over(&self) {
        match self {
            Self::Record(event) => event.hand_over(),
            Self::Copy { from, into, .. } => [from, into].into_iter().for_each(|p| p.copying(true)),
            Self::Launch(graph) => graph.commands.iter().for_each(Self::hand_over),
            Self::Run(_) | Self::Wait(..) => {}
        }
    }

    /// Notes that this command is over, done or left out.
    fn is_over(&self) {
        if let Self::Copy { from, into, .. } = self {
            [from, into].into_iter().for_each(|place| place.copying(false));
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

    /// The stream's thread: takes commands until the stream is dropped and none is left.
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
            // Kept for whoever asks next.
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

    /// Does a command, or leaves it out behind one that failed.
    fn run(&self, command: &Command) -> Result<(), DeviceError> {
        match command {
            Command::Launch(graph) => {
                let mut result = Ok(());
                for command in &graph.commands {
                    match command {
                        Command::Record(event) => event.reach(self.failure(&result)),
                        command if result.is_ok() => result = self.run_piece(command),
                        command => command.is_over(),
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
            command => self.run_piece(command),
        }
    }

    /// What an event within a graph is told of the work before it.
    fn failure(&self, within: &Result<(), DeviceError>) -> Option<DeviceError> {
        within.as_ref().err().cloned().or_else(|| self.queue().failure.clone())
    }

    fn run_piece(&self, command: &Command) -> Result<(), DeviceError> {
        let result = if self.queue().failure.is_some() { Ok(()) } else { self.do_piece(command) };
        command.is_over();
        result
    }

    fn do_piece(&self, command: &Command) -> Result<(), DeviceError> {
        let before = |kind| match &self.before {
            Some(before) => before(&Operation { stream: self.stream, kind }),
            None => Ok(()),
        };
        match command {
            Command::Copy { kind, from, into, bytes } => {
                before(*kind)?;
                let (source, target) = (from.memory(self.device)?, into.memory(self.device)?);
                let _writes = target.accesses().begin(true)?;
                // Within one allocation the writing access stands for both.
                let is_within = ptr::eq(source, target);
                let _reads = (!is_within).then(|| source.accesses().begin(false)).transpose()?;
                // SAFETY: both places hold so many bytes and are kept alive by the command; where they
                // overlap, `ptr::copy` bears it. Nobody else is at either during the accesses.
                unsafe { ptr::copy(from.address as *const u8, into.address as *mut u8, *bytes) };
                match kind {
                    OperationKind::Upload(_) => self.traffic.copied(Direction::Upload, *bytes),
                    OperationKind::Download(_) => self.traffic.copied(Direction::Download, *bytes),
                    OperationKind::Copy(_) | OperationKind::Run => {}
                }
                Ok(())
            }
            Command::Run(work) => {
                before(OperationKind::Run)?;
                work.run()
            }
            Command::Record(_) | Command::Wait(..) | Command::Launch(_) => {
                unreachable!("these are no pieces of work")
            }
        }
    }
}
