//! Parts of pilots whose experts are scripted.

use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem::control::{Localizer, StateFilterConfig};
use tandem::device::{Device, HostDevice};
use tandem::kv_cache::{KvSnapshot, KvWriter, Layout, PrefixMeta, SlotPool};
use tandem::model::{Experts, ModelError, Perception, PrefillRequest};
use tandem::pilot::{Pilot, PilotError, Run};
use tandem::tensor::{DType, HostTensor};
use tandem_scene::GeoReference;

/// Layout of the prefix KV caches of [`pilot`].
pub const LAYOUT: Layout =
    Layout { layers: 2, heads: 1, capacity: 4, key_dim: 8, value_dim: 4, dtype: DType::F32 };

/// Fills the slot of `writer` with `value()` and seals it as a prefix of one token, which was
/// computed from the frame `frame`.
pub fn seal<I>(
    mut writer: KvWriter,
    device: &dyn Device,
    request: &PrefillRequest<I>,
    frame: u64,
    mut value: impl FnMut() -> f32,
) -> Result<KvSnapshot, ModelError> {
    for tensor in writer.slot_mut().tensors_mut() {
        let elements = tensor.shape().iter().product();
        let values: Vec<f32> = std::iter::repeat_with(&mut value).take(elements).collect();
        tensor.set(device, &HostTensor::from_slice(tensor.shape(), &values))?;
    }
    Ok(writer.seal(PrefixMeta {
        version: request.version,
        frames: ArrayVec::from_iter([frame]),
        captured_at: request.captured_at,
        valid_length: 1,
        next_position: 1,
    }))
}

/// Returns a pilot with `experts` on the host, whose pool has `slots` slots of [`LAYOUT`].
pub fn pilot<P: Perception>(
    run: &Run,
    experts: Experts<P>,
    reference: GeoReference,
    slots: usize,
) -> Result<Pilot<P>, PilotError> {
    let localizer = Localizer::new(StateFilterConfig::default(), reference);
    let slots = SlotPool::new(&(Arc::new(HostDevice::new()) as _), LAYOUT, slots).unwrap();
    Pilot::new(run, experts, localizer, slots)
}
