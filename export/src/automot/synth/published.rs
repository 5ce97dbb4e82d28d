//! The spec of a published model: its `config.json`, with the AutoMoT release's sizes for what that
//! file does not describe.

use super::SynthSpec;
use crate::automot::checkpoint::Checkpoint;
use crate::checkpoint::CheckpointError;
use crate::dtype::DType;
use serde_json::Value;
use std::path::Path;

/// Files beside `config.json` that describe the rest of the model, and what each describes.
const REST: [(&str, &str); 2] =
    [("automot_args.json", "the action expert"), ("bev_config.json", "the BEV encoder")];

impl SynthSpec {
    /// True if `content` is that of a `config.json` as Hugging Face's tools write it, not a spec.
    pub fn is_published(content: &Value) -> bool {
        let keys = ["text_config", "vision_config", "model_type", "architectures"];
        keys.iter().any(|key| content.get(key).is_some())
    }

    /// Reads the `config.json` of a Qwen3-VL or AutoMoT checkpoint, whatever the file's name, and
    /// the other configuration files in its folder. Returns notes on what was assumed, too.
    ///
    /// # Errors
    /// As for the configuration of a checkpoint.
    pub fn of_published(file: &Path) -> Result<(Self, Vec<String>), CheckpointError> {
        let config = Checkpoint::config_of(file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut notes: Vec<String> = REST
            .iter()
            .filter(|(name, _)| !folder.join(name).exists())
            .map(|(name, what)| {
                format!(
                    "no {name} beside {}: {what} has the AutoMoT release's sizes",
                    file.display()
                )
            })
            .collect();
        // The networks' weights are of one type, whatever the file says of loading them.
        let dtype = match config.dtype {
            Some(DType::F32) => DType::F32,
            Some(DType::Bf16) => DType::Bf16,
            _ => {
                let found = config.dtype.map_or("no type".to_owned(), |dtype| dtype.to_string());
                notes.push(format!(
                    "{} names {found} for the weights: bf16 is taken",
                    file.display()
                ));
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
