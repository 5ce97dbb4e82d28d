//! Tensors in host memory.

use super::{DType, Element};

/// The unit of allocation: one cache line, so that every tensor starts on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: 64 plain bytes, no padding (size equals alignment), every bit pattern valid.
#[expect(unsafe_code, reason = "bytemuck cannot derive Pod for an over-aligned struct")]
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "bytemuck cannot derive Pod for an over-aligned struct")]
unsafe impl bytemuck::Pod for Line {}

/// A dense, row-major tensor that owns its memory at a fixed, 64-byte aligned address.
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    lines: Vec<Line>,
}

impl HostTensor {
    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let lines = vec![Line([0; 64]); bytes.div_ceil(64)];
        Self { dtype, shape: shape.to_vec(), lines }
    }

    /// A tensor holding a copy of `values`.
    ///
    /// # Panics
    /// If `values` does not fill `shape` exactly.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Self {
        let mut tensor = Self::zeros(T::DTYPE, shape);
        tensor.as_mut_slice::<T>().copy_from_slice(values);
        tensor
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if some dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The raw bytes, row-major, native endian.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len() * self.dtype.size()]
    }

    /// The raw bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len() * self.dtype.size();
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..len]
    }

    /// The elements.
    ///
    /// # Panics
    /// If `T` is not this tensor's element type.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        assert_eq!(T::DTYPE, self.dtype, "read as another element type");
        bytemuck::cast_slice(self.bytes())
    }

    /// The elements, for writing.
    ///
    /// # Panics
    /// If `T` is not this tensor's element type.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "written as another element type");
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    /// A borrowed view of the whole tensor.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: self.bytes() }
    }

    /// A borrowed view of the whole tensor, for writing.
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        let len = self.len() * self.dtype.size();
        let bytes = &mut bytemuck::cast_slice_mut(&mut self.lines)[..len];
        TensorViewMut { dtype: self.dtype, shape: &self.shape, bytes }
    }
}

/// Borrowed tensor memory, for reading.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major bytes, native endian.
    pub bytes: &'a [u8],
}

/// Borrowed tensor memory, for writing.
pub struct TensorViewMut<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major bytes, native endian.
    pub bytes: &'a mut [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_start_on_a_cache_line_and_hold_what_they_were_given() {
        let tensor = HostTensor::from_slice(&[2, 3], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(tensor.bytes().as_ptr().align_offset(64), 0);
        assert_eq!(tensor.bytes().len(), 24);
        assert_eq!(tensor.as_slice::<f32>()[5], 6.0);
    }

    #[test]
    #[should_panic(expected = "another element type")]
    fn reading_as_another_type_panics() {
        HostTensor::zeros(DType::F32, &[4]).as_slice::<i64>();
    }

    #[test]
    fn an_empty_tensor_has_no_bytes() {
        assert!(HostTensor::zeros(DType::F32, &[0, 4]).bytes().is_empty());
    }
}
