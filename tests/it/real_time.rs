//! Real-time options: requested from the operating system and read back from it.

#![cfg(target_os = "linux")]

use rustix::thread::{
    CapabilitySet, CpuSet, capabilities, gettid, sched_getaffinity, set_capabilities,
};
use std::thread::Builder;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile, warm_up};
use tandem::pilot::{Outcome, RealTimeOptions, RealTimeReport, usable_cores};
use tandem_testkit::automot::{TINY, networks};

/// Number of a core that does not exist.
const ABSENT: usize = 1023;

fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Scheduling class and real-time priority of the calling thread, from its `stat` file.
fn class_and_priority() -> (u32, u32) {
    let tid = gettid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let field = |number: usize| after_name.split(' ').nth(number - 3).unwrap().parse().unwrap();
    (field(41), field(40))
}

/// Runs `test` on a new thread, because cores, priority and capabilities are per thread.
fn on_a_thread(test: impl FnOnce() + Send + 'static) {
    Builder::new().spawn(test).unwrap().join().unwrap();
}

fn pin_tick(cores: &[usize]) -> RealTimeOptions {
    RealTimeOptions { pin_tick: Some(cores.to_vec()), ..RealTimeOptions::default() }
}

fn fifo(priority: u8) -> RealTimeOptions {
    RealTimeOptions { fifo_priority: Some(priority), ..RealTimeOptions::default() }
}

/// Drops a capability of the calling thread.
fn drop_capability(capability: CapabilitySet) {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(capability);
    sets.permitted.remove(capability);
    set_capabilities(None, sets).unwrap();
}

#[test]
fn default_options_request_nothing() {
    on_a_thread(|| {
        let before = (cores(), class_and_priority());
        let options = RealTimeOptions::default();
        assert_eq!(options.apply_process(), RealTimeReport::default());
        assert_eq!(options.apply_understanding_thread(), RealTimeReport::default());
        let thread = options.apply_tick_thread();
        assert_eq!(*thread.report(), RealTimeReport::default());
        assert_eq!((cores(), class_and_priority()), before);
    });
}

#[test]
fn pinned_tick_thread_runs_on_its_core() {
    on_a_thread(|| {
        let all = cores();
        let last = *all.last().unwrap();
        let thread = pin_tick(&[last]).apply_tick_thread();
        assert_eq!(cores(), [last]);
        let expected = Outcome { wanted: vec![last], had: Some(vec![last]), why_not: None };
        assert_eq!(thread.report().pin_tick, Some(expected));
        drop(thread);
        assert_eq!(cores(), all);
    });
}

#[test]
fn understanding_thread_runs_on_its_core() {
    on_a_thread(|| {
        let first = cores()[0];
        let options =
            RealTimeOptions { pin_understanding: Some(vec![first]), ..RealTimeOptions::default() };
        let report = options.apply_understanding_thread();
        assert_eq!(cores(), [first]);
        let expected = Outcome { wanted: vec![first], had: Some(vec![first]), why_not: None };
        assert_eq!(report.pin_understanding, Some(expected));
    });
}

#[test]
fn absent_core_is_reported_and_others_are_used() {
    on_a_thread(|| {
        let all = cores();
        let thread = pin_tick(&[all[0], ABSENT]).apply_tick_thread();
        assert_eq!(cores(), [all[0]]);
        let outcome = thread.report().pin_tick.clone().unwrap();
        assert_eq!(outcome.had, Some(vec![all[0]]));
        assert!(outcome.why_not.unwrap().contains("[1023]"));
        drop(thread);
        let thread = pin_tick(&[ABSENT]).apply_tick_thread();
        assert_eq!(cores(), all, "a thread was pinned");
        let outcome = thread.report().pin_tick.clone().unwrap();
        assert_eq!(outcome.had, None);
        assert!(outcome.why_not.unwrap().contains("[1023]"));
        assert_eq!(usable_cores(&[ABSENT, all[0]]), [all[0]]);
        assert_eq!(usable_cores(&[ABSENT]), Vec::<usize>::new());
        assert_eq!(cores(), all, "the request changed the cores");
    });
}

#[test]
fn fifo_priority_is_set_or_its_refusal_reported() {
    on_a_thread(|| {
        let before = class_and_priority();
        let thread = fifo(7).apply_tick_thread();
        let outcome = thread.report().fifo_priority.clone().unwrap();
        match outcome.had {
            Some(priority) => {
                assert_eq!((priority, outcome.why_not), (7, None));
                assert_eq!(class_and_priority(), (libc::SCHED_FIFO as u32, 7));
                let child = Builder::new().spawn(class_and_priority).unwrap().join().unwrap();
                assert_eq!(child.0, libc::SCHED_OTHER as u32, "child threads inherit the class");
            }
            None => {
                assert_eq!(class_and_priority(), before);
                assert!(outcome.why_not.unwrap().contains("ulimit -r 7"));
            }
        }
        drop(thread);
        assert_eq!(class_and_priority(), before);
    });
}

#[test]
fn missing_permission_is_reported_with_a_remedy() {
    on_a_thread(|| {
        drop_capability(CapabilitySet::SYS_NICE);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Rtprio).current;
        if limit != Some(0) {
            return; // Permitted to every user.
        }
        let before = class_and_priority();
        let thread = fifo(50).apply_tick_thread();
        let outcome = thread.report().fifo_priority.clone().unwrap();
        assert_eq!((outcome.wanted, outcome.had), (50, None));
        let why = outcome.why_not.unwrap();
        assert!(why.contains("CAP_SYS_NICE") && why.contains("ulimit -r 50"), "{why}");
        assert_eq!(class_and_priority(), before);
    });
}

#[test]
fn finite_lock_limit_refuses_locking() {
    on_a_thread(|| {
        drop_capability(CapabilitySet::IPC_LOCK);
        if rustix::process::getrlimit(rustix::process::Resource::Memlock).current.is_none() {
            return; // Unlimited.
        }
        let options = RealTimeOptions { lock_memory: true, ..RealTimeOptions::default() };
        let outcome = options.apply_process().lock_memory.unwrap();
        assert_eq!((outcome.wanted, outcome.had), (true, None));
        assert!(outcome.why_not.unwrap().contains("ulimit -l unlimited"));
    });
}

#[test]
fn prefault_beyond_memory_is_reported() {
    on_a_thread(|| {
        let options =
            RealTimeOptions { prefault_mib: Some(u32::MAX), ..RealTimeOptions::default() };
        let outcome = options.apply_process().prefault_mib.unwrap();
        assert_eq!(outcome.had, None);
        assert!(outcome.why_not.unwrap().contains("MiB of memory are available"));
    });
}

#[test]
fn prefault_outside_the_main_thread_is_reported() {
    on_a_thread(|| {
        let options = RealTimeOptions { prefault_mib: Some(100), ..RealTimeOptions::default() };
        let outcome = options.apply_process().prefault_mib.unwrap();
        assert_eq!(outcome.had, Some(48));
        assert!(outcome.why_not.unwrap().contains("other than the main one"));
    });
}

#[test]
fn report_lists_requested_options_only() {
    let mut report = RealTimeReport {
        fifo_priority: Some(Outcome { wanted: 50, had: None, why_not: Some("no".into()) }),
        ..RealTimeReport::default()
    };
    let pinned = Outcome { wanted: vec![0, 9], had: Some(vec![0]), why_not: Some("9".into()) };
    report.add(&RealTimeReport { pin_tick: Some(pinned), ..RealTimeReport::default() });
    let json = serde_json::to_value(&report).unwrap();
    let expected = serde_json::json!({
        "pin_tick": {"wanted": [0, 9], "had": [0], "why_not": "9"},
        "fifo_priority": {"wanted": 50, "had": null, "why_not": "no"},
    });
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_value::<RealTimeReport>(json).unwrap(), report);
}

/// Names and allowed cores of the threads of this process.
fn cores_of_threads() -> Vec<(String, String)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let task = task.unwrap().path();
            let status = std::fs::read_to_string(task.join("status")).ok()?;
            let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            Some((task.file_name()?.to_string_lossy().into_owned(), cores.trim().to_owned()))
        })
        .collect()
}

#[test]
fn engine_workers_run_on_their_threads_cores() {
    let folder = tempfile::tempdir().unwrap();
    let network = NetworkFile::read(&networks(TINY, folder.path()), "action").unwrap();

    let last = *cores().last().unwrap();
    let options = CpuOptions { threads: 3, ..CpuOptions::default() };
    let backend = OnnxRuntime::open(options, &mut |_| {}).unwrap().with_worker_cores(vec![last]);
    let before = cores_of_threads();
    let loaded = backend.load(&network).unwrap();
    warm_up(&loaded).unwrap();
    let workers: Vec<_> =
        cores_of_threads().into_iter().filter(|thread| !before.contains(thread)).collect();
    let pinned = workers.iter().filter(|(_, cores)| *cores == last.to_string()).count();
    assert_eq!(pinned, 2, "{workers:?}");
}
