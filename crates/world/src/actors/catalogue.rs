//! What actors are made of: CARLA's blueprint names with half sizes.

use crate::noise::Noise;
use tandem_scene::ActorKind;

/// A blueprint.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Model {
    /// Name in CARLA's catalogue.
    pub(crate) type_id: &'static str,
    /// What it is.
    pub(crate) kind: ActorKind,
    /// Half sizes along x, y, z, meters.
    pub(crate) extent_m: [f64; 3],
}

const fn car(type_id: &'static str, extent_m: [f64; 3]) -> Model {
    Model { type_id, kind: ActorKind::Vehicle, extent_m }
}

const fn prop(type_id: &'static str, extent_m: [f64; 3]) -> Model {
    Model { type_id, kind: ActorKind::Static, extent_m }
}

/// Ordinary cars.
const CARS: [Model; 9] = [
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

/// A police car.
pub(crate) const POLICE: Model = car("vehicle.dodge.charger_police", [2.487, 1.038, 0.772]);

/// An ambulance.
pub(crate) const AMBULANCE: Model = car("vehicle.ford.ambulance", [3.180, 1.176, 1.216]);

/// A bicycle with its rider.
pub(crate) const BICYCLE: Model = Model {
    type_id: "vehicle.diamondback.century",
    kind: ActorKind::Bicycle,
    extent_m: [0.823, 0.186, 0.880],
};

/// Somebody on foot.
pub(crate) const PEDESTRIAN: Model = Model {
    type_id: "walker.pedestrian.0001",
    kind: ActorKind::Pedestrian,
    extent_m: [0.188, 0.188, 0.930],
};

/// A traffic cone.
pub(crate) const CONE: Model = prop("static.prop.trafficcone01", [0.187, 0.187, 0.286]);

/// A board that warns of what is ahead.
pub(crate) const WARNING: Model = prop("static.prop.trafficwarning", [0.480, 0.420, 1.190]);

/// Dirt on the road: flat enough to drive over.
pub(crate) const DEBRIS: Model = prop("static.prop.dirtdebris02", [0.800, 0.800, 0.020]);

/// Something at the roadside that hides who stands behind it: `name` as route files have it.
pub(crate) fn blocker(name: &str) -> Model {
    match name {
        "static.prop.container" => prop("static.prop.container", [1.000, 0.570, 0.800]),
        "static.prop.vendingmachine" => prop("static.prop.vendingmachine", [0.500, 0.560, 1.050]),
        _ => prop("static.prop.advertisement", [0.120, 0.750, 1.150]),
    }
}

/// A car chosen by `noise`.
pub(crate) fn any_car(noise: &mut Noise) -> Model {
    CARS[noise.below(CARS.len())]
}
