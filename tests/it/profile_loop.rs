//! The profiled loop with a scripted driver.

use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tandem::scene::{
    Cameras, Control, DeadlineVerdict, DriveError, Driver, FrameId, Gnss, Imu, Observation,
    PrefixInfo, TickReport,
};
use tandem::timing::{Span, Stage, StageSpans, Timestamp, now_ns, sleep_until_ns};
use tandem_profile::{LoopError, LoopOptions, LoopRun, PhaseName, Replay, run_loop};

const PERIOD: Duration = Duration::from_millis(20);

/// Driver with a prefix from its fourth tick on that sleeps at the ticks in `slow`.
#[derive(Default)]
struct Scripted {
    ticks: u64,
    /// Ticks (from 0) that take longer than two periods.
    slow: Vec<u64>,
    never_a_prefix: bool,
    seen: Vec<(FrameId, Timestamp)>,
}

impl Driver for Scripted {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        self.seen.push((observation.frame, observation.time));
        let start_ns = now_ns();
        if self.slow.contains(&self.ticks) {
            sleep_until_ns(start_ns + 5 * PERIOD.as_nanos() as u64 / 2);
        }
        let mut spans = StageSpans::default();
        spans.push(Span { stage: Stage::TICK, start_ns, took_ns: now_ns() - start_ns });
        let has_prefix = self.ticks >= 3 && !self.never_a_prefix;
        let prefix = has_prefix.then(|| PrefixInfo { version: 1, age: Duration::from_millis(1) });
        self.ticks += 1;
        let deadline = DeadlineVerdict::Met;
        let report = TickReport { spans, prefix, deadline, ..TickReport::default() };
        Ok(Control { report, ..Control::default() })
    }
}

fn replay() -> Replay {
    Replay::new(vec![Observation {
        frame: FrameId(1),
        time: Timestamp::ZERO,
        cameras: Cameras::NONE,
        lidar: None,
        imu: Imu::default(),
        gnss: Gnss::default(),
        speed_mps: 0.0,
        truth: None,
    }])
}

fn run(driver: &mut Scripted, name: PhaseName, warm_up: u64, ticks: u64) -> LoopRun {
    let options = LoopOptions { name, period: PERIOD, budget: PERIOD, warm_up, ticks };
    run_loop(driver, &mut replay(), &options, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

#[test]
fn slow_tick_skips_ticks_and_is_late_since_due() {
    let mut driver = Scripted { slow: vec![8], ..Scripted::default() };
    let LoopRun { phase, first_control } = run(&mut driver, PhaseName::Paced, 2, 6);
    assert_eq!(first_control.unwrap().ticks, 4);
    assert_eq!((phase.statistics.ticks(), phase.statistics.stage(Stage::RESPONSE).count()), (6, 6));
    assert!(phase.ticks_skipped >= 1, "two and a half periods include a complete one");
    // The slow tick is the fourth that counts: the three before it are without prefix or warm-up.
    let late = phase.ticks.late_by_ns[3].unwrap();
    assert!(late >= 3 * PERIOD.as_nanos() as u64 / 2, "{late}");
    // Due times are multiples of the period, without those of skipped ticks.
    let dues = &phase.ticks.start_ns;
    let period_ns = PERIOD.as_nanos() as u64;
    assert!(dues.windows(2).all(|pair| (pair[1] - pair[0]).is_multiple_of(period_ns)), "{dues:?}");
    assert!(dues[4] - dues[3] >= 2 * period_ns);
    // The parts of a response add up to it, except for the reported rest.
    let column = |name: &str| &phase.ticks.stages[name].took_ns;
    for tick in 0..6 {
        let parts: u64 = ["wake-up", "sensor receive", "tick", "send"]
            .iter()
            .map(|name| column(name)[tick].unwrap())
            .sum();
        let response = column("response")[tick].unwrap();
        assert!(parts <= response, "tick {tick}: {parts} of {response}");
    }
    assert_eq!(phase.statistics.rest(Stage::RESPONSE).count(), 6);
}

#[test]
fn back_to_back_ticks_never_wait() {
    let mut driver = Scripted::default();
    let LoopRun { phase, .. } = run(&mut driver, PhaseName::BackToBack, 4, 50);
    assert_eq!((phase.statistics.ticks(), phase.ticks_skipped), (50, 0));
    assert_eq!(phase.statistics.stage(Stage::RESPONSE).count(), 0);
    assert_eq!(driver.ticks, 3 + 4 + 50, "no prefix, warm-up, counted");
    assert!(driver.seen.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].0 < pair[1].0));
}

#[test]
fn interrupted_phase_keeps_its_ticks() {
    let cancel = AtomicBool::new(false);
    let name = PhaseName::BackToBack;
    let options = LoopOptions { name, period: PERIOD, budget: PERIOD, warm_up: 0, ticks: 1000 };
    let mut counted = 0;
    let ran = run_loop(&mut Scripted::default(), &mut replay(), &options, &cancel, &mut |_| {
        counted += 1;
        cancel.store(counted == 7, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(ran.unwrap().phase.statistics.ticks(), 7);
}

#[test]
fn driver_without_prefix_is_an_error() {
    let name = PhaseName::BackToBack;
    let options = LoopOptions { name, period: PERIOD, budget: PERIOD, warm_up: 0, ticks: 1 };
    let mut driver = Scripted { never_a_prefix: true, ..Scripted::default() };
    let ran = run_loop(&mut driver, &mut replay(), &options, &AtomicBool::new(false), &mut |_| {});
    assert!(matches!(ran.err(), Some(LoopError::NoPrefix)));
}
