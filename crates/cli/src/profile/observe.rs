//! Observations that the profiled loop replays.

use super::Arguments;
use crate::print;
use anyhow::bail;
use std::path::Path;
use tandem::pilot::Run;
use tandem::scene::{Driver, Observation, Route, RoutePlan, SensorSuite, World};
use tandem_drivers::Autopilot;
use tandem_recording::RecordingReader;
use tandem_world::EmbeddedWorld;

/// Observations, their route, and a description of their source.
pub(super) type Observed = (Vec<Observation>, RoutePlan, String);

/// Reads the first observations of a recording.
pub(super) fn recorded(file: &Path, arguments: &Arguments) -> anyhow::Result<Observed> {
    let mut reader = RecordingReader::open(file)?;
    let most = usize::try_from(arguments.observations).unwrap_or(usize::MAX);
    let observations = reader.by_ref().take(most).collect::<Result<Vec<_>, _>>()?;
    if observations.is_empty() {
        bail!("recording {} contains no observations", file.display());
    }
    let from = format!(
        "the first {} observations of recording {}, replayed cyclically",
        observations.len(),
        file.display()
    );
    Ok((observations, reader.into_plan(), from))
}

/// Records observations of the embedded world while the autopilot drives.
pub(super) fn embedded(
    route: &Route,
    arguments: &Arguments,
    run: &Run,
    sensors: SensorSuite,
) -> anyhow::Result<Observed> {
    print::note(&format!("recording {} observations", arguments.observations));
    let suite = SensorSuite { truth: true, ..sensors };
    let mut world = EmbeddedWorld::new(route, suite, run.seed)?;
    let plan = RoutePlan::clone(world.plan());
    let mut autopilot = Autopilot::new();
    let mut observations = Vec::new();
    for _ in 0..arguments.observations {
        let observation = world.observe();
        let control = autopilot.drive(&observation)?;
        world.step(&control.command);
        observations.push(Observation { truth: None, ..observation });
    }
    let from = format!(
        "{} observations of the embedded world on route {}, driven by the autopilot, seed {}, \
         replayed cyclically",
        observations.len(),
        route.id,
        run.seed
    );
    Ok((observations, plan, from))
}
