//! The measured control loop: observe, drive, send, at a period or back to back.

use super::latency_file::{FirstControl, Phase, PhaseName};
use super::processor_time::ProcessorTime;
use super::recorder::{PhaseRecorder, TickFacts};
use super::replay::Replay;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem::pilot::ThreadUsage;
use tandem::scene::{Command, DeadlineVerdict, DriveError, Driver, TickReport};
use tandem::timing::{Span, Stage, Timestamp, now_ns, sleep_until_ns};

/// Settings of [`run_loop`], the measured loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoopOptions {
    /// Name of the phase; only [`PhaseName::Paced`] keeps the period.
    pub name: PhaseName,
    /// Time between the due instants of two ticks.
    pub period: Duration,
    /// Deadline: time allowed from the due instant of a tick (or its observation) to its command.
    pub budget: Duration,
    /// Number of ticks with a prefix before the first that counts.
    pub warm_up: u64,
    /// Number of ticks that count.
    pub ticks: u64,
}

/// Result of [`run_loop`]: a phase, and the time to its first control.
pub struct LoopRun {
    /// The measured phase; shorter than requested if it was interrupted.
    pub phase: Phase,
    /// Time to the first control with a prefix, without loading.
    pub first_control: Option<FirstControl>,
}

/// Maximum number of ticks until the first prefix, without the warm-up of the run.
const TICKS_TO_FIRST_PREFIX: u64 = 10_000;

/// Error returned when a profile cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error(
        "no prefix after {TICKS_TO_FIRST_PREFIX} ticks: prefills fail or never start; RUST_LOG=warn \
            shows why"
    )]
    NoPrefix,
}

/// Runs `driver` on `replay` until `options.ticks` ticks have counted or `cancel` is set. `watch`
/// is called after every tick that counts. In [`PhaseName::Paced`] a tick is due at every multiple
/// of the period. A tick that is due while the previous one is running starts as soon as that one
/// ends. A tick whose complete period has passed by then is skipped and counted, because a real
/// world would not wait either.
///
/// # Errors
/// If the driver fails, or publishes no prefix.
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
            recorder.sample_memory();
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
