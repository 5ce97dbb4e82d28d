//! Shapes, element types and host tensors.
//!
//! A [`HostTensor`] owns 64-byte aligned memory whose address never changes, so that an engine may
//! bind to it once; a [`TensorView`] is a borrowed reading of such memory. Shapes are row-major.

mod host;

pub use host::{HostTensor, TensorView, TensorViewMut};
pub use tandem_export::dtype::DType;

/// A Rust type that is the element of a tensor.
pub trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// The element type as it is named in contracts and files.
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}
element!(f32 => F32, i64 => I64, u8 => U8, half::f16 => F16, half::bf16 => Bf16);
