//! The prefix KV cache: slots of one fixed layout, and publication of sealed slots.
//!
//! The understanding expert leases a [`KvWriter`], fills its tensors and seals it into a
//! [`KvSnapshot`], which is published through the [`Handover`]; the action expert reads the latest
//! snapshot at each tick. Three slots suffice: one published, one still read by an earlier tick,
//! and one being written.

mod handover;
mod pool;
mod sync;

pub use handover::{Outdated, Versioned};
pub use pool::{Pool, Snapshot, Writer};

use crate::device::{Device, DeviceError, DeviceTensor, Event};
use crate::tensor::DType;
use crate::timing::Timestamp;
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Maximum number of frames in a prefix.
pub const MAX_FRAMES: usize = 8;

/// Slots shared by the two experts of one driver.
pub type SlotPool = Pool<Slot>;

/// The only owner of a slot while the understanding expert fills it.
pub type KvWriter = Writer<Slot>;

/// One sealed prefix KV cache.
pub type KvSnapshot = Snapshot<Slot, PrefixMeta>;

/// Publishes the newest prefix to the action expert.
pub type Handover = handover::Handover<Slot, PrefixMeta>;

/// Sizes of every slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub layers: usize,
    /// Number of key and value heads.
    pub heads: usize,
    /// Maximum number of tokens in a prefix.
    pub capacity: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub dtype: DType,
}

impl Layout {
    /// Returns the size of one slot's tensors in bytes.
    pub fn bytes(&self) -> usize {
        let per_token = self.heads * (self.key_dim + self.value_dim) * self.dtype.size();
        self.layers * self.capacity * per_token
    }
}

/// Tensors of one prefix on a device, at fixed addresses, so that sessions bind to them once.
pub struct Slot {
    layout: Layout,
    index: usize,
    device: Arc<dyn Device>,
    /// Per layer: keys `[heads, capacity, key_dim]`, values `[heads, capacity, value_dim]`.
    layers: Vec<[DeviceTensor; 2]>,
    ready: Arc<dyn Event>,
}

impl Slot {
    fn zeros(device: &Arc<dyn Device>, layout: Layout, index: usize) -> Result<Self, DeviceError> {
        let Layout { layers, heads, capacity, key_dim, value_dim, dtype } = layout;
        let tensor = |width| DeviceTensor::zeros(&**device, dtype, &[heads, capacity, width]);
        let layers = (0..layers).map(|_| Ok([tensor(key_dim)?, tensor(value_dim)?]));
        let layers = layers.collect::<Result<_, DeviceError>>()?;
        Ok(Self { layout, index, device: Arc::clone(device), layers, ready: device.event()? })
    }

    /// Returns the sizes of this slot.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the index of this slot in its pool, by which prepared graphs are looked up.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the device that holds the tensors.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Returns the event that the understanding expert's stream records after the last write;
    /// streams of readers wait for it.
    pub fn ready(&self) -> &Arc<dyn Event> {
        &self.ready
    }

    /// Returns the keys of one layer: `[heads, capacity, key_dim]`.
    pub fn keys(&self, layer: usize) -> &DeviceTensor {
        &self.layers[layer][0]
    }

    /// Returns the values of one layer: `[heads, capacity, value_dim]`.
    pub fn values(&self, layer: usize) -> &DeviceTensor {
        &self.layers[layer][1]
    }

    /// Returns every tensor: keys and values of layer 0, of layer 1, and so on.
    pub fn tensors(&self) -> impl Iterator<Item = &DeviceTensor> {
        self.layers.iter().flatten()
    }

    /// Returns every tensor for writing, in the order of [`Self::tensors`].
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut DeviceTensor> {
        self.layers.iter_mut().flatten()
    }
}

/// Metadata of a sealed prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrefixMeta {
    /// Increases with each prefix.
    pub version: u64,
    /// Frame numbers, oldest first.
    pub frames: ArrayVec<u64, MAX_FRAMES>,
    /// Capture time of the newest frame.
    pub captured_at: Timestamp,
    /// Number of valid tokens; the rest of the slot belongs to older prefixes.
    pub valid_length: usize,
    /// Rotary position of the token that follows the prefix.
    pub next_position: i64,
}

impl Versioned for PrefixMeta {
    fn version(&self) -> u64 {
        self.version
    }
}

impl SlotPool {
    /// Allocates `slots` slots of one layout; the pool allocates nothing later. Panics if a
    /// size of the layout is zero.
    pub fn new(
        device: &Arc<dyn Device>,
        layout: Layout,
        slots: usize,
    ) -> Result<Self, DeviceError> {
        assert!(layout.bytes() > 0, "a slot of {layout:?} is empty");
        let slots = (0..slots).map(|index| Slot::zeros(device, layout, index).map(Box::new));
        Ok(Self::of(slots.collect::<Result<_, _>>()?))
    }
}

impl KvWriter {
    /// Ends writing. Panics if `meta` claims more tokens than the slot's capacity.
    pub fn seal(self, meta: PrefixMeta) -> KvSnapshot {
        let capacity = self.slot().layout().capacity;
        let length = meta.valid_length;
        assert!(length <= capacity, "a prefix of {length} tokens in a slot of {capacity}");
        self.seal_with(meta)
    }
}
