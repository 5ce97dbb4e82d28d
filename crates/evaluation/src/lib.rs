//! Evaluation of drives: route files, criteria, scores, result files, campaigns and reports, by the
//! rules of the Bench2Drive benchmark (release 0.0.4).
//!
//! Independent of models and simulators, which implement [`Driver`](tandem_scene::Driver) and
//! [`World`](tandem_scene::World). Scores in the embedded world are computed by the same rules as in
//! CARLA, but are not comparable with them.
//!
//! Each module uses only those above it:
//!
//! | module | content |
//! |---|---|
//! | [`scoring`] | criteria, scores, and result records in the official formats |
//! | [`routes`] | route files, and the data that the benchmark derives from a route |
//! | [`campaign`] | running one drive or many, and the result folder |
//! | [`results`] | reading, merging and scoring result folders of tandem or of the official harness |
//! | [`report`] | HTML pages, latency sweeps, and MCAP files for Foxglove |

pub mod scoring;

pub mod routes;

pub mod campaign;

pub mod results;

pub mod report;
