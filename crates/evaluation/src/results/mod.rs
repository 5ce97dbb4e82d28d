//! Reads, combines and scores folders of results, written by tandem or by the official harness.

mod combine;
mod result_folder;
mod score_card;

pub use combine::{CombineError, CombinedResults};
pub use result_folder::{ResultError, ResultFolder};
pub use score_card::{
    AbilityTable, Figure, OfficialTool, Repetition, RouteSet, ScoreCard, ScoreError,
};
