//! The lane by which an obstacle is passed, and the traffic in that lane.

use super::context::ScenarioContext;
use super::flow::{Flow, LEAVE_M, SpeedControl};
use super::parameters::Parameters;
use super::scenario_type::{Constants, from_scenario_runner, from_tandem};
use crate::noise::Interval;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout, Stretch};
use tandem_scene::{Passage, PassageReason};

/// Road for a bypass in the route's direction: a further lane on the left, with traffic.
pub(super) const BESIDE_FREE_LANE: Layout =
    Layout { left: 1, traffic_ahead: false, traffic_beside: true, ..Layout::BARE };

/// The oncoming flow extends beyond the obstacle by this many meters per km/h of the speed limit,
/// plus a constant in meters.
const REACH_PER_KMH_M: f64 = 1.5;
const REACH_M: f64 = 30.0;

/// Default gaps in the oncoming flow, meters.
const GAP_M: Interval = Interval { low: 60.0, high: 150.0 };

/// Default speed limit of the traffic, km/h.
const LIMIT_KMH: f64 = 60.0;

pub(super) const ONCOMING_FLOW: Constants = from_scenario_runner(
    "scenariomanager/scenarioatomics/atomic_behaviors.py",
    &[
        ("time_distance", &[REACH_PER_KMH_M]),
        ("base_distance", &[REACH_M]),
        ("sink_dist", &[LEAVE_M]),
    ],
);
pub(super) const TANDEM: Constants =
    from_tandem(&[("default frequency", &[GAP_M.low, GAP_M.high])]);

/// Constants of a bypass lane in the route's direction, in the scenario's `file`.
pub(super) const fn own_lane(file: &'static str) -> Constants {
    from_scenario_runner(file, &[("_max_speed", &[LIMIT_KMH])])
}

/// Direction of the lane by which an obstacle is passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BypassLane {
    /// The lane on the left in the route's direction.
    OwnLane,
    /// The nearest oncoming lane.
    Oncoming,
}

/// The lane next to an obstacle, with its traffic.
#[derive(Debug)]
pub(super) enum Bypass {
    /// In the route's direction; its traffic is slowed down.
    Own { limit_mps: f64 },
    /// The oncoming lane with its vehicles.
    Oncoming(Option<Flow>),
}

impl Bypass {
    /// Creates the bypass of an obstacle at `stretch` of the road. A parameter that
    /// is not a number is an error.
    pub(super) fn new(
        bypass_lane: BypassLane,
        parameters: &Parameters<'_>,
        context: &ScenarioContext<'_>,
        stretch: Stretch,
    ) -> Result<Self, RoadError> {
        match bypass_lane {
            BypassLane::OwnLane => Self::own(parameters),
            BypassLane::Oncoming => Self::oncoming(parameters, context, stretch),
        }
    }

    /// Creates a bypass lane in the route's direction.
    pub(crate) fn own(parameters: &Parameters<'_>) -> Result<Self, RoadError> {
        Ok(Self::Own { limit_mps: parameters.number("speed", LIMIT_KMH)? / 3.6 })
    }

    /// Creates the oncoming lane next to an obstacle at `stretch` of the road.
    pub(crate) fn oncoming(
        parameters: &Parameters<'_>,
        context: &ScenarioContext<'_>,
        stretch: Stretch,
    ) -> Result<Self, RoadError> {
        let gap_m = parameters.range("frequency", GAP_M)?;
        Ok(Self::Oncoming(context.road.oncoming_track().map(|track| {
            let limit_kmh = context.road.layout().speed_limit_kmh;
            let reach_m = REACH_PER_KMH_M * limit_kmh + REACH_M;
            let beside = |along_m: f64| {
                let aside_m = context.road.route_aside_m(along_m);
                track.locate(context.road.pose_at(along_m, aside_m).0.position).0
            };
            let (source_m, sink_m) =
                (beside(stretch.to_m) - reach_m, beside(stretch.from_m) + reach_m);
            Flow::new(track, source_m, sink_m, limit_kmh / 3.6, gap_m, SpeedControl::Idm)
        })))
    }

    /// Runs a tick in which traffic is slowed down or oncoming vehicles enter.
    pub(crate) fn open(&mut self, context: &mut ScenarioContext<'_>) {
        match self {
            Self::Own { limit_mps } => context.effects.traffic.limit_mps = Some(*limit_mps),
            Self::Oncoming(flow) => {
                context.effects.allowances.oncoming_lane = true;
                if let Some(flow) = flow {
                    flow.tick(context);
                }
            }
        }
    }

    /// Runs a tick in which no vehicle enters.
    pub(crate) fn close(&mut self, context: &mut ScenarioContext<'_>) {
        if let Self::Oncoming(Some(flow)) = self {
            flow.drain(context);
        }
    }

    /// Returns the passage of `actors` at `stretch` of the road; in the oncoming lane it is
    /// `lanes` of a lane farther left.
    pub(super) fn passage(
        &self,
        context: &ScenarioContext<'_>,
        stretch: Stretch,
        lanes: f64,
        actors: Vec<u32>,
    ) -> Passage {
        let (lanes, reason) = match self {
            Self::Own { .. } => (1.0, PassageReason::ObstacleBesideFreeLane),
            Self::Oncoming(_) => (lanes, PassageReason::ObstacleBesideOncomingLane),
        };
        let plan_range = context.plan_range(stretch);
        Passage { plan_range, aside_m: -lanes * LANE_WIDTH_M, reason, actors }
    }
}
