//! Many drives, one result file each, in a folder that any number of processes may work on at once
//! and that can be taken up again wherever it was left.
//!
//! [`run_route`] is one drive. [`Campaign::drive`] makes those of a campaign that are left, in one
//! process; [`drive_with_workers`] starts worker processes that do so and replaces what dies. Who
//! calls them gives the world and the driver of each drive, and the command that starts a worker.
//!
//! ```text
//! run.json                              what was run: a folder belongs to one set of settings
//! routes/RouteScenario_1711_rep0.json   result file of one drive, in the official format
//! logs/RouteScenario_1711_rep0.json     that drive tick by tick, for the report
//! wall/RouteScenario_1711_rep0.json     what it took in real time, which no other file says
//! claims/RouteScenario_1711_rep0.0      who drives it now
//! crashes/RouteScenario_1711_rep0.0     how a process died, or was ended, that drove it
//! merged.json                           all records so far, in the official merged format
//! ```
//!
//! A campaign of several settings has all of that once per setting, in a folder of its name.
//! A log is written before its result file, so whatever has a result has a log. A result file, which
//! appears whole or not at all, is all that makes a drive count; everything else may be lost.

mod claim;
mod drive;
mod driving;
mod folder;
pub mod log;
mod message;
mod provenance;
mod run;
mod supervisor;
mod units;
mod worker;

pub use claim::{ClaimError, Holder};
pub use drive::{BoxError, CampaignSummary, DriveUnit, HeldElsewhere, Progress, Share, Work};
pub use driving::{CheckCampaign, Driven, Event, Listener, Start, drive_here, drive_with_workers};
pub use folder::{
    CRASHES_ALLOWED, Campaign, CampaignError, CampaignPlan, RecordedTime, Setting, WallTime,
};
pub use message::{Ready, RemoteError};
pub use provenance::{MOST_REPETITIONS, Provenance, RunJson};
pub use run::{RouteEnd, RouteOutcome, run_route};
pub use supervisor::{DriveLimit, SupervisorError, Workers};
pub use units::{Shard, ShardError, Unit, repetition_seed, units};
pub use worker::{DriveAndReport, DriveResult, Worker, WorkerError};

pub(crate) use run::words_of;
