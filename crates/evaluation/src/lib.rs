//! Judging drives: route files, criteria, scores, result files, campaigns and reports, by the rules
//! of the Bench2Drive benchmark (release 0.0.4).
//!
//! Knows no model and no simulator: it meets them as [`Driver`](tandem_scene::Driver) and
//! [`World`](tandem_scene::World). Scores of the embedded world are computed by the same rules as
//! CARLA's, which does not make them comparable.

mod python;
mod python_json;

pub mod ability;
pub mod bootstrap;
pub mod campaign;
pub mod claim;
pub mod criteria;
pub mod efficiency;
pub mod foxglove;
pub mod gather;
pub mod log;
pub mod merge;
pub mod plan;
pub mod provenance;
pub mod record;
pub mod report;
pub mod result_folder;
pub mod resume;
mod route_bounds;
pub mod routes;
pub mod rule;
pub mod run;
pub mod safety;
pub mod scenario_types;
pub mod score_card;
pub mod smoothness;
pub mod statistics;
pub mod sweep;
mod sweep_page;
pub mod units;
pub mod weather_id;

pub use python::Number;
