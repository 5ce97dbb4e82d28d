//! What a road is like beside the route: as its scenarios need it, since route files do not say.

/// Width of driving lanes, meters.
pub(crate) const LANE_WIDTH_M: f64 = 3.5;

/// Width of the parking strip, meters.
pub(crate) const PARKING_WIDTH_M: f64 = 2.5;

/// A stretch of the road or the route, meters along it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Stretch {
    /// Its beginning.
    pub(crate) from_m: f64,
    /// Its end.
    pub(crate) to_m: f64,
}

/// A side of the road, as the route runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Left,
    Right,
}

/// What rules the route's junction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// Nothing but right of way.
    Uncontrolled,
    /// A stop sign for our road.
    StopSign,
    /// Lights for every road.
    Lights,
}

/// Lanes beside the route's own, and what rules there.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Layout {
    /// Further lanes of our direction, left of the route.
    pub(crate) left: usize,
    /// Further lanes of our direction, right of the route.
    pub(crate) right: usize,
    /// Lanes of the opposite direction.
    pub(crate) opposite: usize,
    /// Where vehicles are parked.
    pub(crate) parking: Option<Side>,
    /// Speed limit, km/h.
    pub(crate) speed_limit_kmh: f64,
    /// What rules the first junction.
    pub(crate) control: Control,
    /// True on motorways and open road: no houses.
    pub(crate) is_rural: bool,
    /// True if ordinary traffic drives in our direction.
    pub(crate) traffic_ahead: bool,
    /// True if ordinary traffic comes toward us.
    pub(crate) traffic_oncoming: bool,
    /// True if ordinary traffic drives in the lanes of our direction beside ours.
    pub(crate) traffic_beside: bool,
    /// True if our vehicle starts parked.
    pub(crate) starts_parked: bool,
    /// Where nobody is parked, from the route's start.
    pub(crate) free_of_parked: Stretch,
}

impl Layout {
    /// A street of a town: one lane each way, and vehicles parked on the right.
    pub(crate) const STREET: Self = Self {
        left: 0,
        right: 0,
        opposite: 1,
        parking: Some(Side::Right),
        speed_limit_kmh: 50.0,
        control: Control::Uncontrolled,
        is_rural: false,
        traffic_ahead: true,
        traffic_oncoming: true,
        traffic_beside: false,
        starts_parked: false,
        free_of_parked: Stretch { from_m: 0.0, to_m: 0.0 },
    };

    /// The same without ordinary vehicles parked around the scenario, which brings those that
    /// matter, and without traffic ahead.
    pub(crate) const CLEARED: Self = Self {
        free_of_parked: Stretch { from_m: -30.0, to_m: 110.0 },
        traffic_ahead: false,
        ..Self::STREET
    };

    /// A street without parked vehicles.
    pub(crate) const BARE: Self = Self { parking: None, ..Self::STREET };

    /// The same without ordinary traffic.
    pub(crate) const JUNCTION: Self =
        Self { traffic_ahead: false, traffic_oncoming: false, ..Self::BARE };

    /// The same with lights at the junction.
    pub(crate) const LIGHTS: Self = Self { control: Control::Lights, ..Self::JUNCTION };

    /// A carriageway of a motorway, without ordinary traffic.
    pub(crate) const MOTORWAY: Self =
        Self { opposite: 0, is_rural: true, speed_limit_kmh: 80.0, ..Self::JUNCTION };

    /// An interurban road: the same with an oncoming lane.
    pub(crate) const INTERURBAN: Self = Self { opposite: 1, ..Self::MOTORWAY };

    /// True if nobody may be parked `from_start_m` down the route.
    pub(crate) fn keeps_free(&self, from_start_m: f64) -> bool {
        (self.free_of_parked.from_m..self.free_of_parked.to_m).contains(&from_start_m)
    }
}
