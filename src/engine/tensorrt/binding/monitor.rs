//! What the library says while it works: messages, layers, progress, and whether to go on.

use super::listing;
use crate::engine::Layer;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use trtx::interfaces::MonitorProgress;
use trtx::{LogHandler, Severity};

/// Messages kept of one kind; a broken graph can cause thousands.
const MAX_MESSAGES: usize = 64;

/// One step of one phase of a build. Phases nest, and each is named as the library names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress<'a> {
    pub phase: &'a str,
    /// Phases under way when it began: 0 for the one that is the whole build.
    pub depth: u32,
    /// Steps that are done.
    pub step: u32,
    /// Steps of the phase.
    pub steps: u32,
}

/// Who hears of progress. It is called by the library, from any of its threads, and must not panic.
pub type Listener = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

/// Errors and warnings of one use of the library.
#[derive(Clone, Default)]
pub(super) struct Messages(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    errors: Vec<String>,
    warnings: Vec<String>,
    /// The newest listing of an engine's layers.
    layers: Option<Vec<Layer>>,
}

impl Messages {
    fn said(&self) -> MutexGuard<'_, Said> {
        lock(&self.0)
    }

    /// The errors so far.
    pub(super) fn errors(&self) -> Vec<String> {
        self.said().errors.clone()
    }

    /// The layers of the engine, once it is built; `None` if the library did not list them.
    pub(super) fn layers(&self) -> Option<Vec<Layer>> {
        self.said().layers.clone()
    }

    /// The errors since the last call.
    #[cfg(feature = "cuda")]
    pub(super) fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut self.said().errors)
    }

    /// The warnings so far, each once.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.said().warnings.clone()
    }
}

impl LogHandler for Messages {
    fn log(&self, severity: Severity, message: &str) {
        let mut said = self.said();
        let kind = match severity {
            Severity::InternalError | Severity::Error => &mut said.errors,
            Severity::Warning => &mut said.warnings,
            Severity::Info | Severity::Verbose => {
                if message.starts_with(listing::HEAD) {
                    said.layers = listing::read(message);
                }
                return;
            }
        };
        if kind.len() < MAX_MESSAGES && !kind.iter().any(|known| known == message) {
            kind.push(message.to_owned());
        }
    }
}

/// Passes progress on and stops the build when asked to.
pub(super) struct Monitor {
    listener: Listener,
    cancel: Arc<AtomicBool>,
    /// Depth and steps of each phase under way.
    phases: Mutex<BTreeMap<String, (u32, u32)>>,
}

impl Monitor {
    pub(super) fn new(listener: Listener, cancel: Arc<AtomicBool>) -> Self {
        Self { listener, cancel, phases: Mutex::default() }
    }

    fn phases(&self) -> MutexGuard<'_, BTreeMap<String, (u32, u32)>> {
        lock(&self.phases)
    }
}

impl MonitorProgress for Monitor {
    fn phase_start(&self, phase: &str, _parent: Option<&str>, num_steps: i32) {
        let steps = num_steps.try_into().unwrap_or(0);
        let depth = {
            let mut phases = self.phases();
            let depth = phases.len() as u32;
            phases.insert(phase.to_owned(), (depth, steps));
            depth
        };
        (self.listener)(Progress { phase, depth, step: 0, steps });
    }

    fn step_complete(&self, phase: &str, step: i32) -> ControlFlow<()> {
        let (depth, steps) = self.phases().get(phase).copied().unwrap_or_default();
        // The library counts steps from 0 and may report one past the last.
        let step = u32::try_from(step).unwrap_or(0).saturating_add(1).min(steps);
        (self.listener)(Progress { phase, depth, step, steps });
        match self.cancel.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn phase_finish(&self, phase: &str) {
        self.phases().remove(phase);
    }
}
