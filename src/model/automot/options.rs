//! What a run file may say of AutoMoT.
//!
//! Defaults drive as the release's agent does, but for two things that it does unlike its own
//! training and that cost either skill or time: drifting positions and the JPEG round trip.

use crate::control::{PathFollowerConfig, RecoveryConfig};
use crate::model::{Delays, OptionsError};
use serde::{Deserialize, Serialize};

/// Ticks between two frames of the release's prompts.
const RELEASE_HISTORY_SPACING_TICKS: usize = 5;

/// The longest history spacing: every frame between is held, some 1.5 MB each.
const MAX_HISTORY_SPACING_TICKS: usize = 20;

/// AutoMoT's options.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutomotOptions {
    /// Which of the heuristics around the model are on.
    pub heuristics: Heuristics,
    /// Ticks between two frames of a prompt, 1 to 20. The release's agent takes 5 (0.25 s), its
    /// training frames were 10 apart (0.5 s).
    pub history_spacing_ticks: usize,
    /// What the instruction's tokens see of each other. `release`: what is before them; `trained`:
    /// the whole instruction.
    pub instruction_mask: Parity,
    /// Positions of the action tokens when a prefix is used again. `trained`: right behind the
    /// prefix, every time; `release`: 101 farther at each re-use.
    pub positions: Parity,
    /// Quality of the JPEG file that the BEV encoder's picture goes through, 1 to 100; the release's
    /// is 95, and costs some 7 ms a tick. Absent: the picture stays as it is.
    pub jpeg_quality: Option<u8>,
    /// Virtual time: what the latency of an action step delays. `command`: as in the release, whose
    /// controller is part of the step; `plan`: the controller runs at every tick.
    pub latency_delays: Delays,
}

/// Which way to go where the release's agent runs the model unlike it was trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// As the release's agent drives.
    Release,
    /// As the model was trained.
    Trained,
}

/// The heuristics around the model, each with the release's numbers; on unless switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heuristics {
    /// Throttle after standing for 15 s.
    pub force_move: bool,
    /// No such throttle for a vehicle that has hardly moved in the model's first 10 s.
    pub parking_start: bool,
    /// Steering out of a place that the vehicle has not left for 75 s.
    pub escape: bool,
    /// Full brake above 35 km/h.
    pub speed_cap: bool,
}

impl Default for AutomotOptions {
    fn default() -> Self {
        Self {
            heuristics: Heuristics::default(),
            history_spacing_ticks: RELEASE_HISTORY_SPACING_TICKS,
            instruction_mask: Parity::Release,
            positions: Parity::Trained,
            jpeg_quality: None,
            latency_delays: Delays::Command,
        }
    }
}

impl AutomotOptions {
    /// Checks ranges.
    ///
    /// # Errors
    /// The first option that is out of its range.
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
    /// The release's: all of them.
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
    fn refused(options: serde_json::Value, key: &str, says: &[&str]) {
        let error = read(options).unwrap_err();
        let found = match &error {
            OptionsError::Option { key, .. } => key,
            OptionsError::Range { key, .. } => *key,
            OptionsError::Family { .. } => panic!("{error}"),
        };
        assert_eq!(found, key);
        let text = error.to_string();
        for word in says {
            assert!(text.contains(word), "{word:?} is missing in: {text}");
        }
    }

    #[test]
    fn absent_options_take_their_defaults_and_all_come_through() {
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
    fn one_heuristic_is_switched_off_and_the_others_stay() {
        let config = PathFollowerConfig::from(
            read(json!({"heuristics": {"escape": false}})).unwrap().heuristics,
        );
        assert_eq!(config.recovery.escape, None);
        assert!(config.recovery.force_move.is_some() && config.speed_cap.is_some());
        assert_eq!(PathFollowerConfig::from(Heuristics::default()), PathFollowerConfig::default());
    }

    #[test]
    fn an_unknown_choice_is_refused_with_its_option_and_the_choices() {
        let drifting = json!({"jpeg_quality": 5, "positions": "drifting"});
        refused(drifting, "positions", &["drifting", "trained", "release"]);
        refused(json!({"instruction_mask": "causal"}), "instruction_mask", &["trained"]);
        let creep = json!({"heuristics": {"creep": true}});
        refused(creep, "heuristics", &["creep", "force_move", "speed_cap"]);
        refused(json!({"heuristics": {"escape": "maybe"}}), "heuristics", &["maybe"]);
        refused(json!({"position": "trained"}), "position", &["positions", "jpeg_quality"]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        refused(json!({"jpeg_quality": 0}), "jpeg_quality", &["1 to 100"]);
        refused(json!({"jpeg_quality": 300}), "jpeg_quality", &["300"]);
        refused(json!({"history_spacing_ticks": 0}), "history_spacing_ticks", &["1 to 20"]);
        refused(json!({"history_spacing_ticks": 21}), "history_spacing_ticks", &["1 to 20"]);
        refused(json!({"history_spacing_ticks": -1}), "history_spacing_ticks", &["-1"]);
    }
}
