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

use crate::tensor::{DType, HostTensor};
use crate::timing::Timestamp;
use arrayvec::ArrayVec;

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

/// The tensors of one prefix. They never move, so sessions may bind to them once.
pub struct Slot {
    layout: Layout,
    /// Per layer: keys `[heads, capacity, key_dim]`, values `[heads, capacity, value_dim]`.
    layers: Vec<[HostTensor; 2]>,
}

impl Slot {
    fn zeros(layout: Layout) -> Self {
        let Layout { layers, heads, capacity, key_dim, value_dim, dtype } = layout;
        let tensor = |width| HostTensor::zeros(dtype, &[heads, capacity, width]);
        Self { layout, layers: (0..layers).map(|_| [tensor(key_dim), tensor(value_dim)]).collect() }
    }

    /// The sizes of this slot.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Keys of one layer: `[heads, capacity, key_dim]`.
    pub fn keys(&self, layer: usize) -> &HostTensor {
        &self.layers[layer][0]
    }

    /// Values of one layer: `[heads, capacity, value_dim]`.
    pub fn values(&self, layer: usize) -> &HostTensor {
        &self.layers[layer][1]
    }

    /// Every tensor: keys and values of the first layer, of the second, and so on.
    pub fn tensors(&self) -> impl Iterator<Item = &HostTensor> {
        self.layers.iter().flatten()
    }

    /// Every tensor in the same order, for writing.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut HostTensor> {
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
    /// # Panics
    /// If a size of the layout is zero.
    pub fn new(layout: Layout, slots: usize) -> Self {
        assert!(layout.bytes() > 0, "a slot of {layout:?} holds nothing");
        Self::of((0..slots).map(|_| Box::new(Slot::zeros(layout))).collect())
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
