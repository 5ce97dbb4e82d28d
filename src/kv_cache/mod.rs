//! The KV cache: slots of one fixed layout, and the handover of sealed ones.
//!
//! The understanding expert takes a [`KvWriter`], fills its tensors and seals it into a
//! [`KvSnapshot`], which it publishes at the [`Handover`]; the action expert takes the latest one
//! at each tick. Three slots suffice: one published, one still read by a tick that began before,
//! one being written.

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

/// Most frames that one prefix is made from.
pub const MAX_FRAMES: usize = 8;

/// The slots of one session of the two experts.
pub type SlotPool = Pool<Slot>;

/// The one owner of a slot while the understanding expert fills it.
pub type KvWriter = Writer<Slot>;

/// One sealed prefix.
pub type KvSnapshot = Snapshot<Slot, PrefixMeta>;

/// Where the action expert finds the newest prefix.
pub type Handover = handover::Handover<Slot, PrefixMeta>;

/// The fixed sizes of every slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Transformer layers.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Most tokens that a prefix can have.
    pub capacity: usize,
    /// Width of a key.
    pub key_dim: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Element type of both.
    pub dtype: DType,
}

impl Layout {
    /// Bytes of one slot's tensors.
    pub fn bytes(&self) -> usize {
        let per_token = self.heads * (self.key_dim + self.value_dim) * self.dtype.size();
        self.layers * self.capacity * per_token
    }
}

/// The tensors of one prefix, on a device. They never move, so sessions may bind to them once.
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

    /// The sizes of this slot.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Its number in its pool, from 0: what was prepared for each slot is found by it.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where its tensors are.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Marks, on the understanding expert's stream, that everything is written; readers' streams
    /// wait for it.
    pub fn ready(&self) -> &Arc<dyn Event> {
        &self.ready
    }

    /// Keys of one layer: `[heads, capacity, key_dim]`.
    pub fn keys(&self, layer: usize) -> &DeviceTensor {
        &self.layers[layer][0]
    }

    /// Values of one layer: `[heads, capacity, value_dim]`.
    pub fn values(&self, layer: usize) -> &DeviceTensor {
        &self.layers[layer][1]
    }

    /// Every tensor: keys and values of the first layer, of the second, and so on.
    pub fn tensors(&self) -> impl Iterator<Item = &DeviceTensor> {
        self.layers.iter().flatten()
    }

    /// Every tensor in the same order, for writing.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut DeviceTensor> {
        self.layers.iter_mut().flatten()
    }
}

/// What a prefix was made from, and how to use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrefixMeta {
    /// Rises with each prefix.
    pub version: u64,
    /// Numbers of the frames that went in, oldest first.
    pub frames: ArrayVec<u64, MAX_FRAMES>,
    /// When the newest of them was captured.
    pub captured_at: Timestamp,
    /// Tokens that the slot holds; what lies behind is of an older prefix.
    pub valid_length: usize,
    /// Position of the token that follows the prefix.
    pub next_position: i64,
}

impl Versioned for PrefixMeta {
    fn version(&self) -> u64 {
        self.version
    }
}

impl SlotPool {
    /// Allocates `slots` slots of one layout; the last allocation this pool makes.
    ///
    /// # Errors
    /// If the device has not so much memory left.
    ///
    /// # Panics
    /// If a size of the layout is zero.
    pub fn new(
        device: &Arc<dyn Device>,
        layout: Layout,
        slots: usize,
    ) -> Result<Self, DeviceError> {
        assert!(layout.bytes() > 0, "a slot of {layout:?} holds nothing");
        let slots = (0..slots).map(|index| Slot::zeros(device, layout, index).map(Box::new));
        Ok(Self::of(slots.collect::<Result<_, _>>()?))
    }
}

impl KvWriter {
    /// Ends writing.
    ///
    /// # Panics
    /// If the metadata claims more tokens than a slot holds.
    pub fn seal(self, meta: PrefixMeta) -> KvSnapshot {
        let capacity = self.slot().layout().capacity;
        let length = meta.valid_length;
        assert!(length <= capacity, "a prefix of {length} tokens in a slot of {capacity}");
        self.seal_with(meta)
    }
}
