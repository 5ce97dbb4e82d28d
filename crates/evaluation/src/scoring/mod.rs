//! Criteria, scores, and result records with the keys, key order and number
//! formats of the official tools.

mod ability;
mod checkpoint;
mod criteria;
mod efficiency;
mod json_file;
mod merge;
mod python;
mod python_json;
mod record;
mod resume;
mod rule;
mod safety;
mod smoothness;
mod statistics;

pub use ability::{Abilities, Ability, AbilityError, FirstJunction, SignRule, abilities};
pub use checkpoint::{
    Checkpoint, CheckpointBody, GlobalMeta, GlobalRecord, GlobalScores, InfractionRates,
    MaybeGlobal, MergedTable,
};
pub use criteria::{Ending, Judgment, RouteJudge, TICK_CAP, TickVerdict};
pub use efficiency::{EfficiencyError, route_efficiency};
pub use json_file::{WriteError, write_json, write_json_compact};
pub use merge::{
    FoundRecord, MergeError, Merged, OFFICIAL_ROUTES, duplicates, is_result_file_name, records_of,
};
pub use python::Number;
pub use record::{
    Infractions, MIN_SPEED_KEY, Meta, Record, RouteIdentity, Scored, Scores, file_stem, route_id,
    split_route_id,
};
pub use resume::resume_index;
pub use rule::{DEVIATIONS, Deviation, Rule};
pub use safety::Safety;
pub use smoothness::{MotionLog, MotionSample, Series, SmoothnessError};
pub use statistics::{
    Failure, Infraction, InfractionKind, RouteResult, driving_score, infraction_penalty,
    polyline_length_m, rescore, score,
};

pub(crate) use json_file::{json_text, write_new};
pub(crate) use merge::{Means, found_records};
