//! Callbacks of the library: log messages, layers, progress and cancellation.

use super::listing;
use crate::engine::Layer;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use trtx::interfaces::MonitorProgress;
use trtx::{LogHandler, Severity};

/// Maximum number of stored errors, and of warnings; a broken graph can cause thousands.
const MAX_MESSAGES: usize = 64;

/// Progress of one phase of a build. Phases nest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress<'a> {
    /// Phase, named by the library.
    pub phase: &'a str,
    /// Number of enclosing phases; 0 for the build itself.
    pub depth: u32,
    /// Completed steps of the phase, of `steps`.
    pub step: u32,
    pub steps: u32,
}

/// Callback for progress. The library calls it from any of its threads; it must not panic.
pub type Listener = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

/// Log of one use of the library.
#[derive(Clone, Default)]
pub(super) struct Messages(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    errors: Vec<String>,
    warnings: Vec<String>,
    /// Latest list of an engine's layers.
    layers: Option<Vec<Layer>>,
}

impl Messages {
    fn lock(&self) -> MutexGuard<'_, Log> {
        lock(&self.0)
    }

    pub(super) fn errors(&self) -> Vec<String> {
        self.lock().errors.clone()
    }

    /// Returns the layers of the built engine; `None` if the library did not list them.
    pub(super) fn layers(&self) -> Option<Vec<Layer>> {
        self.lock().layers.clone()
    }

    /// Returns the errors since the last call.
    #[cfg(feature = "cuda")]
    pub(super) fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().errors)
    }

    /// Returns the warnings without duplicates.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }
}

impl LogHandler for Messages {
    fn log(&self, severity: Severity, message: &str) {
        let mut log = self.lock();
        let kind = match severity {
            Severity::InternalError | Severity::Error => &mut log.errors,
            Severity::Warning => &mut log.warnings,
            Severity::Info | Severity::Verbose => {
                if message.starts_with(listing::HEAD) {
                    log.layers = listing::read(message);
                }
                return;
            }
        };
        if kind.len() < MAX_MESSAGES && !kind.iter().any(|known| known == message) {
            kind.push(message.to_owned());
        }
    }
}

/// Forwards progress to a listener and cancels the build on request.
pub(super) struct Monitor {
    listener: Listener,
    cancel: Arc<AtomicBool>,
    /// Depth and steps of each phase in progress.
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
