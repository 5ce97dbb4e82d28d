//! Tensors in host memory.

use super::{DType, Element};

/// Unit of allocation: one cache line, so that each tensor starts on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: `Line` is 64 plain bytes without padding (size equals alignment); every bit pattern is valid.
#[expect(unsafe_code, reason = "bytemuck cannot derive Pod for an over-aligned struct")]
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "bytemuck cannot derive Pod for an over-aligned struct")]
unsafe impl bytemuck::Pod for Line {}

/// Dense, row-major tensor that owns its memory at a fixed, 64-byte aligned address.
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    lines: Vec<Line>,
}

impl HostTensor {
    /// Allocates a tensor filled with zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let lines = vec![Line([0; 64]); bytes.div_ceil(64)];
        Self { dtype, shape: shape.to_vec(), lines }
    }

    /// Allocates a tensor with a copy of `values`. Panics if `values` does not fill `shape` exactly.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Self {
        let mut tensor = Self::zeros(T::DTYPE, shape);
        tensor.as_mut_slice::<T>().copy_from_slice(values);
        tensor
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether some dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the raw bytes, row-major, native endian.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len() * self.dtype.size()]
    }

    /// Returns the raw bytes for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len() * self.dtype.size();
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..len]
    }

    /// Returns the elements. Panics if `T` is not this tensor's element type.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        assert_eq!(T::DTYPE, self.dtype, "read as another element type");
        bytemuck::cast_slice(self.bytes())
    }

    /// Returns the elements for writing. Panics if `T` is not this tensor's element type.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "written as another element type");
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    /// Returns a borrowed view of the tensor.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: self.bytes() }
    }

    /// Returns a borrowed view of the tensor for writing.
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        let len = self.len() * self.dtype.size();
        let bytes = &mut bytemuck::cast_slice_mut(&mut self.lines)[..len];
        TensorViewMut { dtype: self.dtype, shape: &self.shape, bytes }
    }
}

/// Borrowed tensor memory for reading.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major bytes, native endian.
    pub bytes: &'a [u8],
}

/// Borrowed tensor memory for writing.
pub struct TensorViewMut<'a> {
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
    fn tensor_is_aligned_and_contains_the_given_values() {
        let tensor = HostTensor::from_slice(&[2, 3], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(tensor.bytes().as_ptr().align_offset(64), 0);
        assert_eq!(tensor.bytes().len(), 24);
        assert_eq!(tensor.as_slice::<f32>()[5], 6.0);
    }

    #[test]
    #[should_panic(expected = "another element type")]
    fn read_as_another_type_panics() {
        HostTensor::zeros(DType::F32, &[4]).as_slice::<i64>();
    }

    #[test]
    fn empty_tensor_has_no_bytes() {
        assert!(HostTensor::zeros(DType::F32, &[0, 4]).bytes().is_empty());
    }
}
