//! Checks that the prefix KV cache is finite before it is sealed.
//!
//! Checking the last layer suffices: a NaN or an infinity in the keys, values or hidden state of a
//! token propagates through the token's attention to its hidden state in every later layer, and so
//! to the keys and values of the last layer.

use crate::device::{Device, DeviceError, StagedTensor, Stream};
use crate::kv_cache::{Layout, Slot};
use crate::model::ModelError;
use crate::tensor::DType;

/// Staging buffers for the keys and values of the last layer, 0.4 MB at the
/// sizes of the AutoMoT release.
pub(super) struct FiniteCheck {
    keys: StagedTensor,
    values: StagedTensor,
}

impl FiniteCheck {
    pub(super) fn new(device: &dyn Device, layout: Layout) -> Result<Self, DeviceError> {
        let Layout { heads, capacity, key_dim, value_dim, dtype, .. } = layout;
        let staged = |width| StagedTensor::zeros(device, dtype, &[heads, capacity, width]);
        Ok(Self { keys: staged(key_dim)?, values: staged(value_dim)? })
    }

    /// Reads the last layer of a written slot and checks its first `tokens` tokens; later tokens
    /// are not part of the prefix.
    pub(super) fn check(
        &self,
        slot: &Slot,
        tokens: usize,
        stream: &dyn Stream,
    ) -> Result<(), ModelError> {
        let layout = slot.layout();
        let layer = layout.layers - 1;
        for (from, into) in [(slot.keys(layer), &self.keys), (slot.values(layer), &self.values)] {
            stream.copy(from.buffer(), into.staged().buffer())?;
            stream.download(into.staged())?;
        }
        stream.synchronize()?;
        let found =
            [("keys", &self.keys, layout.key_dim), ("values", &self.values, layout.value_dim)]
                .into_iter()
                .find_map(|(tensor, staged, width)| {
                    let (token, value) = not_finite(staged, layout, width, tokens)?;
                    Some(ModelError::NotFinite { value, tensor, layer, token })
                });
        found.map_or(Ok(()), Err)
    }
}

/// Returns the first value in the first `tokens` tokens that is not finite, with its token.
fn not_finite(
    tensor: &StagedTensor,
    layout: Layout,
    width: usize,
    tokens: usize,
) -> Option<(usize, f32)> {
    fn first<T: Copy>(
        values: &[T],
        (head, used): (usize, usize),
        value: impl Fn(T) -> f32,
    ) -> Option<(usize, f32)> {
        let heads = values.chunks_exact(head).flat_map(|head| head[..used].iter().enumerate());
        heads.map(|(place, &bits)| (place, value(bits))).find(|(_, value)| !value.is_finite())
    }
    let extent = (layout.capacity * width, tokens * width);
    let found = match layout.dtype {
        DType::F32 => first(&tensor.as_slice::<f32>(), extent, |value| value),
        DType::F16 => first(&tensor.as_slice::<half::f16>(), extent, half::f16::to_f32),
        DType::Bf16 => first(&tensor.as_slice::<half::bf16>(), extent, half::bf16::to_f32),
        DType::I64 | DType::U8 | DType::Bool => None,
    };
    found.map(|(place, value)| (place / width, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::HostDevice;
    use crate::kv_cache::SlotPool;
    use crate::tensor::HostTensor;
    use half::bf16;
    use std::sync::Arc;

    const LAYOUT: Layout =
        Layout { layers: 2, heads: 2, capacity: 4, key_dim: 3, value_dim: 2, dtype: DType::Bf16 };

    /// Checks a slot with `value` as the second number of a token's keys or values.
    fn check(value: f32, what: &str, head: usize, token: usize) -> Result<(), String> {
        let device: Arc<dyn Device> = Arc::new(HostDevice::new());
        let pool = SlotPool::new(&device, LAYOUT, 1).unwrap();
        let mut writer = pool.writer().unwrap();
        let place = 2 + usize::from(what == "values");
        let tensor = writer.slot_mut().tensors_mut().nth(place).unwrap();
        let mut values = HostTensor::zeros(tensor.dtype(), tensor.shape());
        let width = tensor.shape()[2];
        let at = (head * LAYOUT.capacity + token) * width + 1;
        values.as_mut_slice::<bf16>()[at] = bf16::from_f32(value);
        tensor.set(&*device, &values).unwrap();
        let stream = device.streams(None).unwrap().slow;
        let finite = FiniteCheck::new(&*device, LAYOUT).unwrap();
        finite.check(writer.slot(), 3, &*stream).map_err(|error| error.to_string())
    }

    #[test]
    fn non_finite_prefix_is_refused_with_position() {
        let error = check(f32::NAN, "keys", 1, 2).unwrap_err();
        assert!(error.contains("computed NaN in the keys of layer 1, token 2"), "{error}");
        let error = check(f32::INFINITY, "values", 0, 0).unwrap_err();
        assert!(error.contains("computed inf in the values of layer 1, token 0"), "{error}");
        check(1.0, "values", 1, 1).unwrap();
    }

    #[test]
    fn tokens_after_the_prompt_are_not_checked() {
        check(f32::NAN, "keys", 0, 3).unwrap();
    }
}
