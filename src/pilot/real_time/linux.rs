//! System calls of the options on Linux. Affinity and locking have safe wrappers; scheduling
//! classes, the usage counters of a thread and the C library's heap are called here.

#![expect(unsafe_code, reason = "calls C library functions without a safe wrapper")]

use super::ThreadUsage;
use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{
    CapabilitySet, CpuSet, capabilities, gettid, sched_getaffinity, sched_setaffinity,
};
use std::mem::MaybeUninit;

/// Class and priority of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scheduling {
    /// A `SCHED_` constant, with or without [`libc::SCHED_RESET_ON_FORK`].
    class: libc::c_int,
    priority: libc::c_int,
}

impl Scheduling {
    /// Returns `SCHED_FIFO` at this priority, not inherited by threads that the thread spawns.
    pub(super) fn fifo(priority: u8) -> Self {
        Self { class: libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, priority: priority.into() }
    }

    /// Returns the priority if the class is `SCHED_FIFO`.
    pub(super) fn fifo_priority(self) -> Option<u8> {
        let is_fifo = self.class & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO;
        u8::try_from(self.priority).ok().filter(|_| is_fifo)
    }
}

/// Locks present and future memory.
pub(super) fn lock_memory() -> Result<(), String> {
    let may_lock =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    // Under a finite limit the call may succeed and a later allocation fail, which ends the
    // process.
    if let Some(limit) = getrlimit(Resource::Memlock).current
        && !may_lock
    {
        return Err(format!(
            "the limit on locked memory is {} KiB; locking needs `ulimit -l unlimited` or CAP_IPC_LOCK",
            limit / 1024
        ));
    }
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
        .map_err(|error| format!("locking memory: {error}"))
}

/// Makes the C library keep freed memory: heaps are not trimmed, and blocks up to 32 MiB are
/// allocated from a heap instead of a mapping that is unmapped on free.
#[cfg(target_env = "gnu")]
pub(super) fn keep_freed_heap() -> Result<(), String> {
    /// Half of a thread's heap, the maximum that glibc accepts.
    const MAX_MMAP_THRESHOLD: libc::c_int = 32 * 1024 * 1024;
    /// Disables trimming.
    const NEVER: libc::c_int = -1;
    let parameters =
        [(libc::M_TRIM_THRESHOLD, NEVER), (libc::M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)];
    for (parameter, value) in parameters {
        // SAFETY: `mallopt` takes two integers, locks the heap itself and may be called at any
        // time.
        if unsafe { libc::mallopt(parameter, value) } != 1 {
            return Err(format!("the C library refused heap parameter {parameter} = {value}"));
        }
    }
    Ok(())
}

/// Reports that the C library is not glibc.
#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_freed_heap() -> Result<(), String> {
    Err("this C library cannot keep freed memory; only glibc can".into())
}

/// Returns the memory available without swapping, MiB.
pub(super) fn available_mib() -> Result<u64, String> {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(kib.ok_or_else(|| format!("{path} has no line MemAvailable"))? / 1024)
}

/// Returns true on the main thread of the process.
pub(super) fn is_main_thread() -> bool {
    gettid() == rustix::process::getpid()
}

/// Returns the cores that the calling thread may run on.
pub(super) fn cores() -> Result<Vec<usize>, String> {
    let set = sched_getaffinity(None).map_err(|error| format!("reading cores: {error}"))?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Pins the calling thread to those cores of `wanted` that exist and are allowed, and returns them.
pub(super) fn set_cores(wanted: &[usize]) -> Result<Vec<usize>, String> {
    let mut set = CpuSet::new();
    for &core in wanted.iter().filter(|&&core| core < CpuSet::MAX_CPU) {
        set.set(core);
    }
    match sched_setaffinity(None, &set) {
        Ok(()) => cores(),
        Err(rustix::io::Errno::INVAL) => {
            Err(format!("this process may not use any of the cores {wanted:?}"))
        }
        Err(error) => Err(format!("pinning to cores {wanted:?}: {error}")),
    }
}

/// Returns class and priority of the calling thread.
pub(super) fn scheduling() -> Result<Scheduling, String> {
    // Raw system calls, because the wrappers of some C libraries fail for single threads.
    // SAFETY: the call takes one integer, the calling thread.
    let class = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    let mut parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel writes one `sched_param` to `parameters`, which outlives the call.
    let status = unsafe { libc::syscall(libc::SYS_sched_getparam, 0, &raw mut parameters) };
    if class < 0 || status < 0 {
        return Err(format!("reading the priority: {}", std::io::Error::last_os_error()));
    }
    let class = libc::c_int::try_from(class).expect("the kernel returns an int");
    Ok(Scheduling { class, priority: parameters.sched_priority })
}

/// Sets class and priority of the calling thread.
pub(super) fn set_scheduling(wanted: Scheduling) -> Result<(), String> {
    let set = |class: libc::c_int| {
        let parameters = libc::sched_param { sched_priority: wanted.priority };
        // SAFETY: the kernel reads one `sched_param` from `parameters`, which outlives the call.
        match unsafe {
            libc::syscall(libc::SYS_sched_setscheduler, 0, class, &raw const parameters)
        } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // Without the right to raise priorities, the flag cannot be cleared either; keeping it is
    // harmless.
    set(wanted.class).or_else(|_| set(wanted.class | libc::SCHED_RESET_ON_FORK)).map_err(|error| {
        format!(
            "{error}; priority {} needs CAP_SYS_NICE or `ulimit -r {}`",
            wanted.priority, wanted.priority
        )
    })
}

/// Returns the kernel's usage counters of the calling thread.
pub(super) fn thread_usage() -> Option<ThreadUsage> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage` to `usage`, which outlives the call.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: `usage` was zeroed and then filled by the kernel; every field is an integer.
    let usage = unsafe { usage.assume_init() };
    let count = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
    Some(ThreadUsage {
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
        voluntary_switches: count(usage.ru_nvcsw),
        involuntary_switches: count(usage.ru_nivcsw),
    })
}
