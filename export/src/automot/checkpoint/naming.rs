//! Names of AutoMoT's tensors.

use crate::checkpoint::Naming;

/// Naming scheme of AutoMoT's tensors.
pub(super) const NAMING: Naming = Naming { modules: &MODULES, of_model };

/// First parts of the names of all tensors of the model.
const MODULES: [&str; 15] = [
    "bev_encoder",
    "bev_encoder_proj",
    "language_model",
    "reasoning_projector",
    "reasoning_queries",
    "route_head",
    "route_projector",
    "route_queries",
    "target_point_encoder",
    "velocity_encoder",
    "velocity_head",
    "vision_model",
    "waypoint_projector",
    "waypoint_queries",
    "waypoints_head",
];

/// Converts a stored name to the name in the model: removes the additional wrapper that training puts
/// around the BEV encoder, like the loader of the AutoMoT release.
fn of_model(stored: &str) -> String {
    match stored.strip_prefix("bev_encoder.backbone.") {
        Some(rest) => format!("bev_encoder.{rest}"),
        None => stored.to_owned(),
    }
}
