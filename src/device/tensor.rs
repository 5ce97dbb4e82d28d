//! Tensors in device memory.

use super::buffer::{StagedRef, StagedRefMut};
use super::{Buffer, Device, DeviceError, Staged};
use crate::tensor::{DType, Element, HostTensor};

/// A row-major tensor in device memory.
pub struct DeviceTensor {
    dtype: DType,
    shape: Vec<usize>,
    buffer: Buffer,
}

/// Read-only view of a device tensor, for the inputs of a session.
#[derive(Clone, Copy)]
pub struct DeviceView<'a> {
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    pub buffer: &'a Buffer,
}

/// Writable view of a device tensor, for the outputs of a session. It needs `&mut`, so that a
/// sealed prefix cannot be the output of a network.
pub struct DeviceViewMut<'a> {
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    pub buffer: &'a Buffer,
}

impl DeviceTensor {
    /// Allocates a tensor of zeros.
    pub fn zeros(device: &dyn Device, dtype: DType, shape: &[usize]) -> Result<Self, DeviceError> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(Self { dtype, shape: shape.to_vec(), buffer: device.allocate(bytes)? })
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the memory of the tensor.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Returns a view for a session that reads it.
    pub fn view(&self) -> DeviceView<'_> {
        DeviceView { dtype: self.dtype, shape: &self.shape, buffer: &self.buffer }
    }

    /// Returns a view for a session that writes it.
    pub fn view_mut(&mut self) -> DeviceViewMut<'_> {
        DeviceViewMut { dtype: self.dtype, shape: &self.shape, buffer: &self.buffer }
    }

    /// Copies the tensor to host memory; for setup and tests.
    pub fn to_host(&self, device: &dyn Device) -> Result<HostTensor, DeviceError> {
        let mut tensor = HostTensor::zeros(self.dtype, &self.shape);
        device.read(&self.buffer, tensor.bytes_mut())?;
        Ok(tensor)
    }

    /// Copies a host tensor of the same size into this one; for setup and tests.
    pub fn set(&mut self, device: &dyn Device, tensor: &HostTensor) -> Result<(), DeviceError> {
        device.write(tensor.bytes(), &self.buffer)
    }
}

/// A tensor in staged memory.
pub struct StagedTensor {
    dtype: DType,
    shape: Vec<usize>,
    staged: Staged,
}

impl StagedTensor {
    /// Allocates a tensor of zeros.
    pub fn zeros(device: &dyn Device, dtype: DType, shape: &[usize]) -> Result<Self, DeviceError> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(Self { dtype, shape: shape.to_vec(), staged: device.stage(bytes)? })
    }

    /// Returns the memory of both sides.
    pub fn staged(&self) -> &Staged {
        &self.staged
    }

    /// Returns a view of the device side for a session that reads it.
    pub fn view(&self) -> DeviceView<'_> {
        DeviceView { dtype: self.dtype, shape: &self.shape, buffer: self.staged.buffer() }
    }

    /// Returns a view of the device side for a session that writes it.
    pub fn view_mut(&mut self) -> DeviceViewMut<'_> {
        DeviceViewMut { dtype: self.dtype, shape: &self.shape, buffer: self.staged.buffer() }
    }

    /// Returns the bytes of the host side; panics as [`Staged::bytes`] does.
    pub fn bytes(&self) -> StagedRef<'_, u8> {
        self.staged.bytes()
    }

    /// Returns the bytes of the host side for writing; panics as [`Staged::bytes_mut`] does.
    pub fn bytes_mut(&mut self) -> StagedRefMut<'_, u8> {
        self.staged.bytes_mut()
    }

    /// Returns the elements of the host side. Panics as [`Staged::bytes`] does, and if
    /// `T` is not the element type.
    pub fn as_slice<T: Element>(&self) -> StagedRef<'_, T> {
        assert_eq!(T::DTYPE, self.dtype, "read as another element type");
        self.staged.bytes().cast()
    }

    /// Returns the elements of the host side for writing. Panics as [`Staged::bytes_mut`] does, and
    /// if `T` is not the element type.
    pub fn as_mut_slice<T: Element>(&mut self) -> StagedRefMut<'_, T> {
        assert_eq!(T::DTYPE, self.dtype, "written as another element type");
        self.staged.bytes_mut().cast()
    }
}
