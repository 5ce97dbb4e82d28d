//! Specification of a published model: its `config.json`, and the sizes of the AutoMoT release for
//! parts that the file does not describe.

use super::SynthSpec;
use crate::automot::checkpoint::Checkpoint;
use crate::checkpoint::CheckpointError;
use crate::dtype::DType;
use serde_json::Value;
use std::path::Path;

/// Other configuration files, and the part of the model that each describes.
const OTHER_FILES: [(&str, &str); 2] =
    [("automot_args.json", "the action expert"), ("bev_config.json", "the BEV encoder")];

impl SynthSpec {
    /// True if `content` is a `config.json` in the format of Hugging Face's tools, not a specification.
    pub fn is_published(content: &Value) -> bool {
        let keys = ["text_config", "vision_config", "model_type", "architectures"];
        keys.iter().any(|key| content.get(key).is_some())
    }

    /// Reads the `config.json` of a Qwen3-VL or AutoMoT checkpoint, whatever its file name, and the
    /// other configuration files in its folder. Also returns notes on assumptions.
    ///
    /// Fails like [`Checkpoint::open`] for the configuration.
    pub fn of_published(file: &Path) -> Result<(Self, Vec<String>), CheckpointError> {
        let config = Checkpoint::config_of(file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut notes: Vec<String> = OTHER_FILES
            .iter()
            .filter(|(name, _)| !folder.join(name).exists())
            .map(|(name, what)| {
                format!(
                    "no {name} in the folder of {}: {what} has the sizes of the AutoMoT release",
                    file.display()
                )
            })
            .collect();
        // The weights of the networks have one type; the key only concerns loading.
        let dtype = match config.dtype {
            Some(DType::F32) => DType::F32,
            Some(DType::Bf16) => DType::Bf16,
            _ => {
                let found = config.dtype.map_or("no type".to_owned(), |dtype| dtype.to_string());
                notes.push(format!("{} names {found} for the weights: using bf16", file.display()));
                DType::Bf16
            }
        };
        let spec = Self {
            dtype,
            text: config.text,
            vision: config.vision,
            mot: config.mot,
            bev: config.bev,
        };
        Ok((spec, notes))
    }
}
