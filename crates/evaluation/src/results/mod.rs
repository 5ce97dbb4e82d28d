//! Folders of results, of ours or of the official harness: read, merged and scored.

mod gather;
mod result_folder;
mod score_card;

pub use gather::{GatherError, Gathered};
pub use result_folder::{ResultError, ResultFolder};
pub use score_card::{
    AbilityTable, Figure, OfficialTool, Repetition, RouteSet, ScoreCard, ScoreError,
};
