//! Judging drives: route files, criteria, scores, result files, campaigns and reports, by the rules
//! of the Bench2Drive benchmark (release 0.0.4).
//!
//! Knows no model and no simulator: it meets them as [`Driver`](tandem_scene::Driver) and
//! [`World`](tandem_scene::World). Scores of the embedded world are computed by the same rules as
//! CARLA's, which does not make them comparable.
//!
//! Each module uses only those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`scoring`] | criteria, scores, and records of drives in the official formats |
//! | [`routes`] | route files, and what the benchmark derives from a route |
//! | [`campaign`] | one drive, many drives, and what they leave in a folder |
//! | [`results`] | result folders of ours or of the official harness: read, merged, scored |
//! | [`report`] | pages, sweeps over latencies, and recordings for Foxglove |

pub mod scoring;

pub mod routes;

pub mod campaign;

pub mod results;

pub mod report;
