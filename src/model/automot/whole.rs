//! Whether a prefix holds numbers: the last thing before it is sealed.
//!
//! Looking at the last layer is enough. A value that is no number, or infinite, makes the attention
//! of its own token so at that layer, and from there the token's hidden state in every later one,
//! the last layer's keys and values included; so does one in a hidden state.

use crate::device::{Device, DeviceError, StagedTensor, Stream};
use crate::kv_cache::{Layout, Slot};
use crate::model::ModelError;
use crate::tensor::DType;

/// Room for the last layer's keys and values on the host, 0.4 MB at the release's sizes.
pub(super) struct WholeCheck {
    keys: StagedTensor,
    values: StagedTensor,
}

impl WholeCheck {
    pub(super) fn new(device: &dyn Device, layout: Layout) -> Result<Self, DeviceError> {
        let Layout { heads, capacity, key_dim, value_dim, dtype, .. } = layout;
        let staged = |width| StagedTensor::zeros(device, dtype, &[heads, capacity, width]);
        Ok(Self { keys: staged(key_dim)?, values: staged(value_dim)? })
    }

    /// Reads the last layer of a written slot and looks at its first `tokens` tokens; what lies
    /// behind may be anything.
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

/// The first value of the first `tokens` tokens that is not finite, with its token.
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
        DType::F32 => first(tensor.as_slice::<f32>(), extent, |value| value),
        DType::F16 => first(tensor.as_slice::<half::f16>(), extent, half::f16::to_f32),
        DType::Bf16 => first(tensor.as_slice::<half::bf16>(), extent, half::bf16::to_f32),
        DType::I64 | DType::U8 | DType::Bool => None,
    };
    found.map(|(place, value)| (place / width, value))
}
