//! Detection of quantized weights, which no family supports.

use super::{CheckpointError, Tensors};

/// Last parts of the names of the additional tensors of GPTQ, AWQ,
/// compressed-tensors, FP8 and bitsandbytes.
const QUANTIZED_PARTS: [&str; 14] = [
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "weight_packed",
    "weight_scale",
    "weight_scale_inv",
    "weight_zero_point",
    "input_scale",
    "absmax",
    "nested_absmax",
    "quant_map",
    "SCB",
    "weight_format",
];

impl Tensors {
    /// Checks that no tensor belongs to quantized weights. Fails if a
    /// tensor does, judged by its name.
    pub fn refuse_quantized(&self) -> Result<(), CheckpointError> {
        let quantized: Vec<&String> =
            self.stored_names().filter(|name| is_quantized(name)).collect();
        if let [first, ..] = quantized[..] {
            return Err(CheckpointError::Quantized {
                dir: self.dir.clone(),
                count: quantized.len(),
                tensor: first.clone(),
            });
        }
        Ok(())
    }
}

fn is_quantized(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    QUANTIZED_PARTS.contains(&last) || name.contains(".quant_state.")
}
