//! Options of AutoMoT in a run file.
//!
//! The defaults are those of the agent of the AutoMoT release, except for two deviations from its
//! own training that cost driving skill or time: drifting positions and the JPEG round trip.

use crate::control::{PathFollowerConfig, RecoveryConfig};
use crate::model::{DelayedOutput, OptionsError};
use serde::{Deserialize, Serialize};

/// Ticks between two frames of a prompt in the release.
const RELEASE_HISTORY_SPACING_TICKS: usize = 5;

/// Maximum history spacing. All frames in between are kept, about 1.5 MB each.
const MAX_HISTORY_SPACING_TICKS: usize = 20;

/// Options of AutoMoT.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutomotOptions {
    /// Heuristics of the release around the model.
    pub heuristics: Heuristics,
    /// Ticks between two frames of a prompt, 1 to 20: 5 (0.25 s) in the agent of the release, 10
    /// (0.5 s) in its training data.
    pub history_spacing_ticks: usize,
    /// Attention mask within the instruction. `release`: causal;
    /// `trained`: the complete instruction.
    pub instruction_mask: ReferenceBehavior,
    /// Positions of the action tokens when a prefix is used again. `trained`: immediately after the
    /// prefix; `release`: 101 higher at each reuse.
    pub positions: ReferenceBehavior,
    /// Quality of the JPEG round trip of the BEV encoder's image, 1 to 100; 95 in the release,
    /// which costs about 7 ms per tick. Absent: no round trip.
    pub jpeg_quality: Option<u8>,
    /// Virtual time: output that the latency of an action step delays. `command`: as
    /// in the release, where the controller is part of the step; `plan`: the
    /// controller runs at every tick.
    pub latency_delays: DelayedOutput,
}

/// Selects the behavior where the agent of the release runs the model
/// differently from its training.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceBehavior {
    /// As in the agent of the release.
    Release,
    /// As in the training of the model.
    Trained,
}

/// Heuristics around the model, with the values of the release; enabled by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heuristics {
    /// Throttle after standing for 15 s.
    pub force_move: bool,
    /// No such throttle for a vehicle that has hardly moved in the first 10 s with the model.
    pub parking_start: bool,
    /// Steering to the side if the vehicle has stayed in one place for 75 s.
    pub escape: bool,
    /// Full brake above 35 km/h.
    pub speed_cap: bool,
}

impl Default for AutomotOptions {
    fn default() -> Self {
        Self {
            heuristics: Heuristics::default(),
            history_spacing_ticks: RELEASE_HISTORY_SPACING_TICKS,
            instruction_mask: ReferenceBehavior::Release,
            positions: ReferenceBehavior::Trained,
            jpeg_quality: None,
            latency_delays: DelayedOutput::Command,
        }
    }
}

impl AutomotOptions {
    /// Checks the ranges of options and returns the first violation.
    pub fn check(&self) -> Result<(), OptionsError> {
        let refused = |key, found: String, expected| {
            let family = tandem_export::automot::NAME;
            Err(OptionsError::Range { family, key, found, expected })
        };
        if !(1..=MAX_HISTORY_SPACING_TICKS).contains(&self.history_spacing_ticks) {
            let found = self.history_spacing_ticks.to_string();
            return refused("history_spacing_ticks", found, "1 to 20");
        }
        match self.jpeg_quality {
            Some(quality) if !(1..=100).contains(&quality) => {
                refused("jpeg_quality", quality.to_string(), "1 to 100")
            }
            _ => Ok(()),
        }
    }
}

impl Default for Heuristics {
    /// Enables all heuristics, as in the release.
    fn default() -> Self {
        Self { force_move: true, parking_start: true, escape: true, speed_cap: true }
    }
}

impl From<Heuristics> for PathFollowerConfig {
    fn from(on: Heuristics) -> Self {
        let all = Self::default();
        Self {
            recovery: RecoveryConfig {
                force_move: all.recovery.force_move.filter(|_| on.force_move),
                parking_start: all.recovery.parking_start.filter(|_| on.parking_start),
                escape: all.recovery.escape.filter(|_| on.escape),
            },
            speed_cap: all.speed_cap.filter(|_| on.speed_cap),
            ..all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelBlock;
    use serde_json::json;
    use tandem_export::automot::NAME;

    fn read(options: serde_json::Value) -> Result<AutomotOptions, OptionsError> {
        let block =
            ModelBlock { family: NAME.into(), options: options.as_object().unwrap().clone() };
        let options: AutomotOptions = block.options(NAME)?;
        options.check().map(|()| options)
    }

    #[track_caller]
    fn check_error(options: serde_json::Value, key: &str, parts: &[&str]) {
        let error = read(options).unwrap_err();
        let found = match &error {
            OptionsError::Option { key, .. } => key,
            OptionsError::Range { key, .. } => *key,
            OptionsError::Family { .. } => panic!("{error}"),
        };
        assert_eq!(found, key);
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    fn absent_options_take_defaults_and_options_roundtrip() {
        assert_eq!(read(json!({})).unwrap(), AutomotOptions::default());
        let given = AutomotOptions { jpeg_quality: Some(3), ..AutomotOptions::default() };
        let block = ModelBlock::of(NAME, &given);
        assert_eq!(block.options::<AutomotOptions>(NAME).unwrap(), given);
        assert!(matches!(
            block.options::<AutomotOptions>("other"),
            Err(OptionsError::Family { family: "other", .. })
        ));
    }

    #[test]
    fn disabling_one_heuristic_keeps_the_others() {
        let config = PathFollowerConfig::from(
            read(json!({"heuristics": {"escape": false}})).unwrap().heuristics,
        );
        assert_eq!(config.recovery.escape, None);
        assert!(config.recovery.force_move.is_some() && config.speed_cap.is_some());
        assert_eq!(PathFollowerConfig::from(Heuristics::default()), PathFollowerConfig::default());
    }

    #[test]
    fn unknown_choice_is_refused_with_option_and_choices() {
        let drifting = json!({"jpeg_quality": 5, "positions": "drifting"});
        check_error(drifting, "positions", &["drifting", "trained", "release"]);
        check_error(json!({"instruction_mask": "causal"}), "instruction_mask", &["trained"]);
        let creep = json!({"heuristics": {"creep": true}});
        check_error(creep, "heuristics", &["creep", "force_move", "speed_cap"]);
        check_error(json!({"heuristics": {"escape": "maybe"}}), "heuristics", &["maybe"]);
        check_error(json!({"position": "trained"}), "position", &["positions", "jpeg_quality"]);
    }

    #[test]
    fn out_of_range_numbers_are_refused() {
        check_error(json!({"jpeg_quality": 0}), "jpeg_quality", &["1 to 100"]);
        check_error(json!({"jpeg_quality": 300}), "jpeg_quality", &["300"]);
        check_error(json!({"history_spacing_ticks": 0}), "history_spacing_ticks", &["1 to 20"]);
        check_error(json!({"history_spacing_ticks": 21}), "history_spacing_ticks", &["1 to 20"]);
        check_error(json!({"history_spacing_ticks": -1}), "history_spacing_ticks", &["-1"]);
    }
}
