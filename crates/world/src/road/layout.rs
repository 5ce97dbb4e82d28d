//! Cross section and rules of a road, as its scenarios need them; route files do not specify them.

/// Width of driving lanes, meters.
pub(crate) const LANE_WIDTH_M: f64 = 3.5;

/// Width of the parking strip, meters.
pub(crate) const PARKING_WIDTH_M: f64 = 2.5;

/// An interval along the road or the route, meters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Stretch {
    pub(crate) from_m: f64,
    pub(crate) to_m: f64,
}

/// Side of the road, in the direction of the route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Traffic control at the route's junction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// No signals, only right of way.
    Uncontrolled,
    /// A stop sign on the route's road.
    StopSign,
    /// Traffic lights on every road.
    Lights,
}

/// Lanes next to the route's own lanes, and the rules of the road.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Layout {
    /// Number of further lanes in the route's direction, left of the route.
    pub(crate) left: usize,
    /// Number of further lanes in the route's direction, right of the route.
    pub(crate) right: usize,
    /// Number of lanes in the opposite direction.
    pub(crate) opposite: usize,
    /// Side on which vehicles are parked.
    pub(crate) parking: Option<Side>,
    pub(crate) speed_limit_kmh: f64,
    /// Traffic control at the first junction.
    pub(crate) control: Control,
    /// True on motorways and rural roads, which have no houses.
    pub(crate) is_rural: bool,
    /// True if ordinary traffic drives ahead in the route's direction.
    pub(crate) traffic_ahead: bool,
    /// True if there is ordinary oncoming traffic.
    pub(crate) traffic_oncoming: bool,
    /// True if ordinary traffic drives in the adjacent lanes of the route's direction.
    pub(crate) traffic_beside: bool,
    /// True if the ego vehicle starts parked.
    pub(crate) starts_parked: bool,
    /// Stretch without parked vehicles, from the route's start.
    pub(crate) free_of_parked: Stretch,
}

impl Layout {
    /// A town street: one lane in each direction, and vehicles parked on the right.
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

    /// [`STREET`](Self::STREET) without traffic ahead and without ordinary parked vehicles around
    /// the scenario, which spawns its own.
    pub(crate) const CLEARED: Self = Self {
        free_of_parked: Stretch { from_m: -30.0, to_m: 110.0 },
        traffic_ahead: false,
        ..Self::STREET
    };

    /// [`STREET`](Self::STREET) without parked vehicles.
    pub(crate) const BARE: Self = Self { parking: None, ..Self::STREET };

    /// [`BARE`](Self::BARE) without ordinary traffic.
    pub(crate) const JUNCTION: Self =
        Self { traffic_ahead: false, traffic_oncoming: false, ..Self::BARE };

    /// [`JUNCTION`](Self::JUNCTION) with traffic lights.
    pub(crate) const LIGHTS: Self = Self { control: Control::Lights, ..Self::JUNCTION };

    /// A carriageway of a motorway, without ordinary traffic.
    pub(crate) const MOTORWAY: Self =
        Self { opposite: 0, is_rural: true, speed_limit_kmh: 80.0, ..Self::JUNCTION };

    /// An interurban road: [`MOTORWAY`](Self::MOTORWAY) with an oncoming lane.
    pub(crate) const INTERURBAN: Self = Self { opposite: 1, ..Self::MOTORWAY };

    /// Returns true if no vehicle may be parked `from_start_m` along the route.
    pub(crate) fn keeps_free(&self, from_start_m: f64) -> bool {
        (self.free_of_parked.from_m..self.free_of_parked.to_m).contains(&from_start_m)
    }
}
