//! Campaigns: many drives with one result file each, in a folder that several processes may use at
//! once. An interrupted campaign can be continued.
//!
//! [`run_route`] runs one drive. [`Campaign::drive`] runs the unfinished drives of a campaign in
//! one process; [`drive_with_workers`] starts worker processes for them and replaces crashed ones.
//! The caller provides the world and driver of each drive, and the command that starts a worker.
//!
//! ```text
//! run.json                              settings; all results of a folder have the same ones
//! routes/RouteScenario_1711_rep0.json   result file of one drive, in the official format
//! logs/RouteScenario_1711_rep0.json     log of that drive tick by tick, for the report
//! wall/RouteScenario_1711_rep0.json     its start and duration in wall time
//! claims/RouteScenario_1711_rep0.0      claim of the process that drives it
//! crashes/RouteScenario_1711_rep0.0     note on a crash or timeout of a process that drove it
//! merged.json                           records of all finished drives, in the official merged format
//! ```
//!
//! A campaign of several settings has these files once per setting, in a subfolder named
//! after it. A log is written before its result file, so every result has a log. Result
//! files are written atomically, and a drive is finished if and only if its result file
//! exists. All other files may be lost.

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
pub use drive::{
    BoxError, CampaignSummary, DriveTask, DriveUnit, HeldElsewhere, Progress, Remaining,
};
pub use driving::{
    CheckCampaign, Driven, Event, Listener, Start, drive_in_process, drive_with_workers,
};
pub use folder::{
    CRASHES_ALLOWED, Campaign, CampaignError, CampaignPlan, RecordedTime, Setting, WallTime,
};
pub use message::{Ready, RemoteError};
pub use provenance::{MAX_REPETITIONS, Provenance, RunJson};
pub use run::{RouteEnd, RouteOutcome, run_route};
pub use supervisor::{DriveLimit, SupervisorError, Workers};
pub use units::{Shard, ShardError, Unit, repetition_seed, units};
pub use worker::{DriveAndReport, DriveResult, Worker, WorkerError};

pub(crate) use run::error_chain_text;
