//! What the operating system is asked for so that ticks come on time: cores, priority, memory.
//!
//! The order matters: [`RealTimeOptions::apply_process`] first, so that networks are loaded into
//! locked memory; then load and warm them; then make the pilot, whose understanding thread places
//! itself; then [`RealTimeOptions::apply_tick_thread`], and loop. What cannot be had is a value in
//! the [`RealTimeReport`], never an error: driving goes on without it.

#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
mod system;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;
mod usage;

use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::hint::black_box;
use std::marker::PhantomData;

pub use usage::ThreadUsage;

/// Cores that a mask can name: 0 to this, exclusive.
pub(super) const MAX_CORES: usize = 1024;

/// The highest priority of `SCHED_FIFO`.
pub(super) const MAX_FIFO_PRIORITY: u8 = 99;

/// The most heap that can be asked for beforehand, MiB.
pub(super) const MAX_PREFAULT_MIB: u32 = 65_536;

/// Stack that each of the two threads touches beforehand, bytes: a quarter of what the standard
/// library gives a thread.
const STACK_BYTES: usize = 512 * 1024;

/// Heap is touched in blocks of this size, below every threshold for a mapping of its own.
const BLOCK_BYTES: usize = 1024 * 1024;

/// Freed heap that glibc keeps for a thread that is not the main one, MiB: its heaps hold 64 MiB, and
/// a second one that is empty again is given back.
const OTHER_THREAD_MIB: u32 = 48;

/// The block `real_time` of a run file; nothing is asked for unless a key says so.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RealTimeOptions {
    /// Cores of the tick thread, and of the engine workers that serve it.
    pub pin_tick: Option<Vec<usize>>,
    /// Cores of the understanding expert's thread, and of the engine workers that serve it.
    pub pin_understanding: Option<Vec<usize>>,
    /// `SCHED_FIFO` priority of the tick thread, 1 to 99; every other thread stays as it is.
    pub fifo_priority: Option<u8>,
    /// Keeps all memory of the process, present and future, in RAM.
    pub lock_memory: bool,
    /// Heap to touch beforehand, MiB, and from then on never to give back; stacks are touched too.
    pub prefault_mib: Option<u32>,
}

/// One option: what was asked for, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome<T> {
    /// As the run file says.
    pub wanted: T,
    /// What is in force; `None` if nothing of it is.
    pub had: Option<T>,
    /// Why that is less than what was wanted.
    pub why_not: Option<String>,
}

/// What came of every option that was asked for; one that was not is absent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RealTimeReport {
    /// See [`RealTimeOptions::lock_memory`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_memory: Option<Outcome<bool>>,
    /// See [`RealTimeOptions::prefault_mib`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefault_mib: Option<Outcome<u32>>,
    /// See [`RealTimeOptions::pin_understanding`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_understanding: Option<Outcome<Vec<usize>>>,
    /// See [`RealTimeOptions::pin_tick`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_tick: Option<Outcome<Vec<usize>>>,
    /// See [`RealTimeOptions::fifo_priority`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fifo_priority: Option<Outcome<u8>>,
}

/// The calling thread while it ticks; dropping this gives it back its cores and its priority.
#[derive(Debug)]
pub struct TickThread {
    report: RealTimeReport,
    cores: Option<Vec<usize>>,
    scheduling: Option<system::Scheduling>,
    /// Cores and priority belong to the thread that asked: a guard does not move to another.
    stays: PhantomData<*const ()>,
}

impl RealTimeOptions {
    /// True if memory is to be ready before the first tick, so that networks should be run once
    /// before it.
    pub fn readies_memory(&self) -> bool {
        self.lock_memory || self.prefault_mib.is_some()
    }

    /// Locks memory and touches heap. Once per process, before networks are loaded, on the thread
    /// that will tick: glibc's heaps belong to threads, and only the main one's is without bounds.
    pub fn apply_process(&self) -> RealTimeReport {
        let lock_memory = self.lock_memory.then(|| match system::lock_memory() {
            Ok(()) => Outcome { wanted: true, had: Some(true), why_not: None },
            Err(why) => Outcome { wanted: true, had: None, why_not: Some(why) },
        });
        let prefault_mib = self.prefault_mib.map(prefault);
        RealTimeReport { lock_memory, prefault_mib, ..RealTimeReport::default() }
    }

    /// Places the calling thread as the understanding expert's, for as long as it lives.
    pub fn apply_understanding_thread(&self) -> RealTimeReport {
        if self.prefault_mib.is_some() {
            touch_stack();
        }
        let pin_understanding = self.pin_understanding.as_deref().map(pin);
        RealTimeReport { pin_understanding, ..RealTimeReport::default() }
    }

    /// Places the calling thread as the tick thread, until the result is dropped. Threads that it
    /// starts meanwhile inherit its cores, but not its priority: start the pilot first.
    pub fn apply_tick_thread(&self) -> TickThread {
        if self.prefault_mib.is_some() {
            touch_stack();
        }
        let mut thread = TickThread {
            report: RealTimeReport::default(),
            cores: None,
            scheduling: None,
            stays: PhantomData,
        };
        if let Some(cores) = &self.pin_tick {
            thread.cores = system::cores().ok();
            thread.report.pin_tick = Some(pin(cores));
        }
        if let Some(wanted) = self.fifo_priority {
            thread.scheduling = system::scheduling().ok();
            let asked = system::set_scheduling(system::Scheduling::fifo(wanted));
            let had = asked.and_then(|()| system::scheduling()).map(|now| now.fifo_priority());
            thread.report.fifo_priority = Some(match had {
                Ok(had) => Outcome { wanted, had, why_not: None },
                Err(why) => Outcome { wanted, had: None, why_not: Some(why) },
            });
        }
        thread
    }
}

/// Those of `cores` that this process may use. Engine workers are pinned by their library, which
/// reports nothing.
pub fn usable_cores(cores: &[usize]) -> Vec<usize> {
    let probe = || system::set_cores(cores).unwrap_or_default();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("core-probe".into());
        let Ok(thread) = thread.spawn_scoped(scope, probe) else { return Vec::new() };
        thread.join().expect("setting and reading a mask does not panic")
    })
}

fn pin(wanted: &[usize]) -> Outcome<Vec<usize>> {
    let wanted = wanted.to_vec();
    match system::set_cores(&wanted) {
        Err(why) => Outcome { wanted, had: None, why_not: Some(why) },
        Ok(had) => {
            let missing: Vec<&usize> = wanted.iter().filter(|core| !had.contains(core)).collect();
            let why_not = (!missing.is_empty())
                .then(|| format!("no such core here, or this process may not use it: {missing:?}"));
            Outcome { wanted, had: Some(had), why_not }
        }
    }
}

/// Touches `wanted` MiB of heap and frees them into a heap that keeps them.
fn prefault(wanted: u32) -> Outcome<u32> {
    let none = |why| Outcome { wanted, had: None, why_not: Some(why) };
    if let Err(why) = system::keep_freed_heap() {
        return none(why);
    }
    match system::available_mib() {
        Ok(available) if u64::from(wanted) >= available => {
            return none(format!("only {available} MiB of memory are available"));
        }
        Ok(_) => {}
        Err(why) => return none(why),
    }
    let limit = if system::is_main_thread() { wanted } else { OTHER_THREAD_MIB };
    let blocks = wanted.min(limit);
    let touched: Vec<Vec<u8>> = (0..blocks).map(|_| black_box(vec![1; BLOCK_BYTES])).collect();
    drop(touched);
    touch_stack();
    let why_not = (blocks < wanted).then(|| {
        format!("the C library keeps at most {limit} MiB for a thread that is not the main one")
    });
    Outcome { wanted, had: Some(blocks), why_not }
}

/// Makes the pages of the stack below the caller present.
#[inline(never)]
fn touch_stack() {
    black_box(&mut [1_u8; STACK_BYTES]);
}

impl TickThread {
    /// What came of the tick thread's options.
    pub fn report(&self) -> &RealTimeReport {
        &self.report
    }
}

impl Drop for TickThread {
    fn drop(&mut self) {
        let scheduling = self.scheduling.take().map_or(Ok(()), system::set_scheduling);
        let cores = self.cores.take().map_or(Ok(Vec::new()), |cores| system::set_cores(&cores));
        if let Some(why) = scheduling.err().or(cores.err()) {
            tracing::warn!(why, "the tick thread keeps cores or priority beyond its ticks");
        }
    }
}

impl RealTimeReport {
    /// Takes over what `other` reports.
    pub fn add(&mut self, other: &Self) {
        let Self { lock_memory, prefault_mib, pin_understanding, pin_tick, fifo_priority } = self;
        take(lock_memory, &other.lock_memory);
        take(prefault_mib, &other.prefault_mib);
        take(pin_understanding, &other.pin_understanding);
        take(pin_tick, &other.pin_tick);
        take(fifo_priority, &other.fifo_priority);
    }

    /// Every option that was asked for, one line each, for people.
    pub fn lines(&self) -> Vec<String> {
        let Self { lock_memory, prefault_mib, pin_understanding, pin_tick, fifo_priority } = self;
        [
            line("lock_memory", lock_memory),
            line("prefault_mib", prefault_mib),
            line("pin_understanding", pin_understanding),
            line("pin_tick", pin_tick),
            line("fifo_priority", fifo_priority),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Warns of every option that is not in force as it was wanted.
    pub fn warn(&self) {
        warn("lock_memory", &self.lock_memory);
        warn("prefault_mib", &self.prefault_mib);
        warn("pin_understanding", &self.pin_understanding);
        warn("pin_tick", &self.pin_tick);
        warn("fifo_priority", &self.fifo_priority);
    }
}

fn take<T: Clone>(into: &mut Option<Outcome<T>>, from: &Option<Outcome<T>>) {
    if from.is_some() {
        into.clone_from(from);
    }
}

fn line<T: Debug>(option: &str, outcome: &Option<Outcome<T>>) -> Option<String> {
    let Outcome { wanted, had, why_not } = outcome.as_ref()?;
    Some(match (had, why_not) {
        (Some(had), None) => format!("{option}: {had:?}"),
        (Some(had), Some(why)) => format!("{option}: {had:?} of {wanted:?}: {why}"),
        (None, why) => {
            format!("{option}: {wanted:?} not had: {}", why.as_deref().unwrap_or("no reason given"))
        }
    })
}

fn warn<T: Debug>(option: &'static str, outcome: &Option<Outcome<T>>) {
    let Some(Outcome { wanted, had, why_not: Some(why) }) = outcome else { return };
    tracing::warn!(option, ?wanted, ?had, why, "real-time option not in force as wanted");
}
