//! The loop that a profile is taken of: observe, drive, send, at a period or back to back.

use super::latency_file::{FirstControl, Phase, PhaseName};
use super::others::ProcessorTime;
use super::recorder::{PhaseRecorder, TickFacts};
use super::replay::Replay;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem::pilot::ThreadUsage;
use tandem::scene::{Command, DeadlineVerdict, DriveError, Driver, TickReport};
use tandem::timing::{Span, Stage, Timestamp, now_ns, sleep_until_ns};

/// How to run the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoopOptions {
    /// What the phase is called; only [`PhaseName::Paced`] keeps the period.
    pub name: PhaseName,
    /// Time from one tick to the next.
    pub period: Duration,
    /// Time allowed from when a tick is due (or its observation) to its command.
    pub budget: Duration,
    /// Ticks with a prefix before the first that counts.
    pub warm_up: u64,
    /// Ticks that count.
    pub ticks: u64,
}

/// What came of a loop.
pub struct LoopRun {
    /// The phase; shorter than asked for if it was interrupted.
    pub phase: Phase,
    /// The way to the first control with a prefix, loading not counted.
    pub first_control: Option<FirstControl>,
}

/// Ticks at most until there is a prefix, beside the run's own warm-up; a driver that has none by
/// then never will.
const TICKS_TO_FIRST_PREFIX: u64 = 10_000;

/// A profile could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The driver gave up.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// It never came to a prefix.
    #[error(
        "no prefix after {TICKS_TO_FIRST_PREFIX} ticks: refreshes fail or never start; RUST_LOG=warn says why"
    )]
    NoPrefix,
}

/// Runs `driver` on `replay` until `options.ticks` ticks have counted or `cancel` is set; `watch`
/// sees every tick that counts, after it.
///
/// In [`PhaseName::Paced`] a tick is due at every multiple of the period. One that is due while the
/// one before still runs begins as soon as it can; one whose whole period went by is skipped and
/// counted, as the world would not wait for it either.
///
/// # Errors
/// If the driver fails or never comes to a prefix.
pub fn run_loop(
    driver: &mut dyn Driver,
    replay: &mut Replay,
    options: &LoopOptions,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(&TickReport),
) -> Result<LoopRun, LoopError> {
    let is_paced = options.name == PhaseName::Paced;
    let period_ns = options.period.as_nanos() as u64;
    let mailbox = Mutex::new(Command::FULL_BRAKE);
    let processors = ProcessorTime::now();
    let began_ns = now_ns();
    let mut recorder = PhaseRecorder::new(options.name, options.warm_up, options.ticks, began_ns);
    let mut first_control = None;
    let mut due_ns = began_ns;
    let (mut ticks, mut warm) = (0, 0);
    while recorder.statistics().ticks() < options.ticks && !cancel.load(Ordering::Relaxed) {
        if is_paced {
            sleep_until_ns(due_ns);
        } else {
            due_ns = now_ns();
        }
        let woke_ns = now_ns();
        let before = ThreadUsage::now();
        let time = Timestamp::after(Duration::from_nanos(due_ns - began_ns));
        let observation = replay.next(time);
        let received_ns = now_ns();
        let mut control = driver.drive(&observation)?;
        let answered_ns = now_ns();
        *mailbox.lock().expect("no holder of this lock panics") = control.command;
        let sent_ns = now_ns();
        let used = ThreadUsage::now().zip(before).map(|(after, before)| after - before);

        let report = &mut control.report;
        if is_paced {
            let span =
                |stage, from: u64, to: u64| Span { stage, start_ns: from, took_ns: to - from };
            report.spans.push(span(Stage::WAKE, due_ns, woke_ns));
            report.spans.push(span(Stage::RECEIVE, woke_ns, received_ns));
            report.spans.push(span(Stage::SEND, answered_ns, sent_ns));
            report.spans.push(span(Stage::RESPONSE, due_ns, sent_ns));
            let response = Duration::from_nanos(sent_ns - due_ns);
            report.deadline = match response.checked_sub(options.budget) {
                Some(by) if !by.is_zero() => DeadlineVerdict::Missed { by },
                _ => DeadlineVerdict::Met,
            };
        }
        ticks += 1;
        if report.prefix.is_some() {
            first_control.get_or_insert(FirstControl {
                load_ns: 0,
                loop_ns: sent_ns - began_ns,
                ticks,
            });
        } else if ticks > TICKS_TO_FIRST_PREFIX {
            return Err(LoopError::NoPrefix);
        }
        let is_counted = first_control.is_some() && warm >= options.warm_up;
        if is_counted {
            let used = used.unwrap_or_default();
            let (page_faults, preemptions) = (used.faults(), used.involuntary_switches);
            recorder.tick(report, TickFacts { start_ns: due_ns, page_faults, preemptions });
            watch(report);
            recorder.look_at_memory();
        } else if report.prefix.is_some() {
            warm += 1;
        }
        if is_paced {
            due_ns += period_ns;
            let late_ns = now_ns().saturating_sub(due_ns);
            let skipped = late_ns / period_ns;
            due_ns += skipped * period_ns;
            if is_counted {
                recorder.skipped(skipped);
            }
        }
    }
    let others_share =
        processors.and_then(|before| ProcessorTime::now()?.others_share_since(&before));
    Ok(LoopRun { phase: Phase { others_share, ..recorder.finish() }, first_control })
}
