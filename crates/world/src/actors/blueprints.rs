//! Blueprints of actors: names from CARLA's blueprint library with half sizes.

use crate::noise::Noise;
use tandem_scene::ActorKind;

/// A blueprint of CARLA with the size of its body.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Blueprint {
    pub(crate) type_id: &'static str,
    pub(crate) kind: ActorKind,
    /// Half sizes along x, y, z, meters.
    pub(crate) extent_m: [f64; 3],
}

const fn car(type_id: &'static str, extent_m: [f64; 3]) -> Blueprint {
    Blueprint { type_id, kind: ActorKind::Vehicle, extent_m }
}

const fn prop(type_id: &'static str, extent_m: [f64; 3]) -> Blueprint {
    Blueprint { type_id, kind: ActorKind::Static, extent_m }
}

const CARS: [Blueprint; 9] = [
    car("vehicle.tesla.model3", [2.396, 1.082, 0.744]),
    car("vehicle.audi.tt", [2.091, 0.997, 0.693]),
    car("vehicle.audi.etron", [2.428, 1.016, 0.825]),
    car("vehicle.toyota.prius", [2.257, 1.003, 0.762]),
    car("vehicle.ford.mustang", [2.359, 0.947, 0.650]),
    car("vehicle.chevrolet.impala", [2.679, 1.017, 0.706]),
    car("vehicle.mini.cooper_s", [1.903, 0.985, 0.738]),
    car("vehicle.nissan.patrol", [2.302, 0.966, 0.928]),
    car("vehicle.volkswagen.t2", [2.240, 1.035, 1.019]),
];

pub(crate) const POLICE: Blueprint = car("vehicle.dodge.charger_police", [2.487, 1.038, 0.772]);

pub(crate) const AMBULANCE: Blueprint = car("vehicle.ford.ambulance", [3.180, 1.176, 1.216]);

/// A bicycle including its rider.
pub(crate) const BICYCLE: Blueprint = Blueprint {
    type_id: "vehicle.diamondback.century",
    kind: ActorKind::Bicycle,
    extent_m: [0.823, 0.186, 0.880],
};

pub(crate) const PEDESTRIAN: Blueprint = Blueprint {
    type_id: "walker.pedestrian.0001",
    kind: ActorKind::Pedestrian,
    extent_m: [0.188, 0.188, 0.930],
};

pub(crate) const CONE: Blueprint = prop("static.prop.trafficcone01", [0.187, 0.187, 0.286]);

/// Warning board in front of an obstacle.
pub(crate) const WARNING: Blueprint = prop("static.prop.trafficwarning", [0.480, 0.420, 1.190]);

/// Dirt on the road, flat enough to drive over.
pub(crate) const DEBRIS: Blueprint = prop("static.prop.dirtdebris02", [0.800, 0.800, 0.020]);

/// Returns the prop at the roadside that hides a pedestrian; `name` is its
/// blueprint in the route file.
pub(crate) fn blocker(name: &str) -> Blueprint {
    match name {
        "static.prop.container" => prop("static.prop.container", [1.000, 0.570, 0.800]),
        "static.prop.vendingmachine" => prop("static.prop.vendingmachine", [0.500, 0.560, 1.050]),
        _ => prop("static.prop.advertisement", [0.120, 0.750, 1.150]),
    }
}

/// Samples a car from the ordinary cars.
pub(crate) fn any_car(noise: &mut Noise) -> Blueprint {
    CARS[noise.below(CARS.len())]
}
