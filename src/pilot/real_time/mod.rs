//! Real-time options of the operating system: cores, priority and memory.
//!
//! They are applied in this order: [`RealTimeOptions::apply_process`], so that networks are loaded
//! into locked memory; loading and warming up the networks; creating the pilot, whose understanding
//! thread applies its own options; [`RealTimeOptions::apply_tick_thread`]; the control loop. An
//! option that cannot be applied is reported in [`RealTimeReport`] and is not an error.

#[cfg(not(target_os = "linux"))]
#[path = "unsupported.rs"]
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

/// Number of cores that an affinity mask can represent.
pub(super) const MAX_CORES: usize = 1024;

/// Maximum priority of `SCHED_FIFO`.
pub(super) const MAX_FIFO_PRIORITY: u8 = 99;

/// Maximum heap to prefault, MiB.
pub(super) const MAX_PREFAULT_MIB: u32 = 65_536;

/// Stack that each of the two threads prefaults, bytes: a quarter of the default stack of a thread.
const STACK_BYTES: usize = 512 * 1024;

/// Size of the blocks in which heap is prefaulted, below every mmap threshold.
const BLOCK_BYTES: usize = 1024 * 1024;

/// Freed heap that glibc keeps for a thread other than the main one, MiB: a heap of such a thread
/// has 64 MiB, and an empty second heap is unmapped.
const OTHER_THREAD_MIB: u32 = 48;

/// The block `real_time` of a run file; every option is off by default.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RealTimeOptions {
    /// Cores of the tick thread and of its engine workers.
    pub pin_tick: Option<Vec<usize>>,
    /// Cores of the understanding expert's thread and of its engine workers.
    pub pin_understanding: Option<Vec<usize>>,
    /// `SCHED_FIFO` priority of the tick thread, 1 to 99; other threads are unchanged.
    pub fifo_priority: Option<u8>,
    /// Locks all present and future memory of the process in RAM.
    pub lock_memory: bool,
    /// Heap to prefault and keep, MiB; also prefaults stacks.
    pub prefault_mib: Option<u32>,
}

/// Requested and applied value of one option.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome<T> {
    pub wanted: T,
    /// Applied value; `None` if nothing was applied.
    pub had: Option<T>,
    /// Reason why less than the requested value was applied.
    pub why_not: Option<String>,
}

/// Outcome of every requested option; `None` for options that were not requested.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RealTimeReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_memory: Option<Outcome<bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefault_mib: Option<Outcome<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_understanding: Option<Outcome<Vec<usize>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_tick: Option<Outcome<Vec<usize>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fifo_priority: Option<Outcome<u8>>,
}

/// Applied options of the calling thread; dropping this restores its cores and priority.
#[derive(Debug)]
pub struct TickThread {
    report: RealTimeReport,
    cores: Option<Vec<usize>>,
    scheduling: Option<system::Scheduling>,
    /// Prevents moving the guard to another thread, whose cores and priority it would change.
    not_send: PhantomData<*const ()>,
}

impl RealTimeOptions {
    /// Returns true if memory is locked or prefaulted, so that networks should be run
    /// once before the first tick.
    pub fn prepares_memory(&self) -> bool {
        self.lock_memory || self.prefault_mib.is_some()
    }

    /// Locks memory and prefaults heap. To be called once per process, before networks are loaded,
    /// on the thread that will run the ticks: glibc has one heap per thread, and only the main
    /// thread's heap is unbounded.
    pub fn apply_process(&self) -> RealTimeReport {
        let lock_memory = self.lock_memory.then(|| match system::lock_memory() {
            Ok(()) => Outcome { wanted: true, had: Some(true), why_not: None },
            Err(why) => Outcome { wanted: true, had: None, why_not: Some(why) },
        });
        let prefault_mib = self.prefault_mib.map(prefault);
        RealTimeReport { lock_memory, prefault_mib, ..RealTimeReport::default() }
    }

    /// Applies the options of the understanding expert's thread to the calling thread.
    pub fn apply_understanding_thread(&self) -> RealTimeReport {
        if self.prefault_mib.is_some() {
            touch_stack();
        }
        let pin_understanding = self.pin_understanding.as_deref().map(pin);
        RealTimeReport { pin_understanding, ..RealTimeReport::default() }
    }

    /// Applies the options of the tick thread to the calling thread until the result is
    /// dropped. Threads that it spawns meanwhile inherit its cores but not its
    /// priority; create the pilot before.
    pub fn apply_tick_thread(&self) -> TickThread {
        if self.prefault_mib.is_some() {
            touch_stack();
        }
        let mut thread = TickThread {
            report: RealTimeReport::default(),
            cores: None,
            scheduling: None,
            not_send: PhantomData,
        };
        if let Some(cores) = &self.pin_tick {
            thread.cores = system::cores().ok();
            thread.report.pin_tick = Some(pin(cores));
        }
        if let Some(wanted) = self.fifo_priority {
            thread.scheduling = system::scheduling().ok();
            let applied = system::set_scheduling(system::Scheduling::fifo(wanted));
            let had = applied.and_then(|()| system::scheduling()).map(|now| now.fifo_priority());
            thread.report.fifo_priority = Some(match had {
                Ok(had) => Outcome { wanted, had, why_not: None },
                Err(why) => Outcome { wanted, had: None, why_not: Some(why) },
            });
        }
        thread
    }
}

/// Returns those of `cores` that this process may use. Engine workers are pinned by their library,
/// which does not report which cores it applied.
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
            let why_not = (!missing.is_empty()).then(|| {
                format!("cores do not exist or are not available to this process: {missing:?}")
            });
            Outcome { wanted, had: Some(had), why_not }
        }
    }
}

/// Allocates, touches and frees `wanted` MiB of heap, which the C library keeps.
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
        format!("the C library keeps at most {limit} MiB for a thread other than the main one")
    });
    Outcome { wanted, had: Some(blocks), why_not }
}

/// Prefaults the stack pages below the caller.
#[inline(never)]
fn touch_stack() {
    black_box(&mut [1_u8; STACK_BYTES]);
}

impl TickThread {
    /// Returns the outcome of the tick thread's options.
    pub fn report(&self) -> &RealTimeReport {
        &self.report
    }
}

impl Drop for TickThread {
    fn drop(&mut self) {
        let scheduling = self.scheduling.take().map_or(Ok(()), system::set_scheduling);
        let cores = self.cores.take().map_or(Ok(Vec::new()), |cores| system::set_cores(&cores));
        if let Some(why) = scheduling.err().or(cores.err()) {
            tracing::warn!(why, "cores or priority of the tick thread could not be restored");
        }
    }
}

impl RealTimeReport {
    /// Copies the outcomes of `other`.
    pub fn add(&mut self, other: &Self) {
        let Self { lock_memory, prefault_mib, pin_understanding, pin_tick, fifo_priority } = self;
        take(lock_memory, &other.lock_memory);
        take(prefault_mib, &other.prefault_mib);
        take(pin_understanding, &other.pin_understanding);
        take(pin_tick, &other.pin_tick);
        take(fifo_priority, &other.fifo_priority);
    }

    /// Formats every requested option, one line each.
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

    /// Logs a warning for every option that was not fully applied.
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
            format!(
                "{option}: {wanted:?} not applied: {}",
                why.as_deref().unwrap_or("no reason given")
            )
        }
    })
}

fn warn<T: Debug>(option: &'static str, outcome: &Option<Outcome<T>>) {
    let Some(Outcome { wanted, had, why_not: Some(why) }) = outcome else { return };
    tracing::warn!(option, ?wanted, ?had, why, "real-time option not fully applied");
}
