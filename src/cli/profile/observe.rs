//! What the loop will see.

use super::Arguments;
use crate::cli::print;
use crate::model::automot::SENSORS;
use crate::pilot::Run;
use crate::scene::{Driver, Observation, Route, RoutePlan, SensorSuite};
use crate::world::{Autopilot, EmbeddedWorld, World};

/// Observations of the embedded world while the autopilot drives, their route, and where they are
/// from.
pub(super) fn embedded(
    route: &Route,
    arguments: &Arguments,
    run: &Run,
) -> anyhow::Result<(Vec<Observation>, RoutePlan, String)> {
    print::note(&format!("taking up {} observations", arguments.observations));
    let suite = SensorSuite { truth: true, ..SENSORS };
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
        "{} observations of the embedded world on route {}, driven by the autopilot, seed {}, lap \
         after lap",
        observations.len(),
        route.id,
        run.seed
    );
    Ok((observations, plan, from))
}
