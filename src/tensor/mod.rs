//! Shapes, element types and host tensors.
//!
//! A [`HostTensor`] owns 64-byte aligned memory at a fixed address, so that an engine can bind to it
//! once; a [`TensorView`] borrows such memory for reading. Tensors are row-major.

mod host;

pub use host::{HostTensor, TensorView, TensorViewMut};
pub use tandem_export::dtype::DType;

/// Rust type of a tensor's elements.
pub trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// Element type as named in contracts and files.
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}
element!(f32 => F32, i64 => I64, u8 => U8, half::f16 => F16, half::bf16 => Bf16);
