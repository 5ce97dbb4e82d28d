//! Tensors in a device's memory.

use super::buffer::{StagedRef, StagedRefMut};
use super::{Buffer, Device, DeviceError, Staged};
use crate::tensor::{DType, Element, HostTensor};

/// A tensor in a device's memory, row-major.
pub struct DeviceTensor {
    dtype: DType,
    shape: Vec<usize>,
    buffer: Buffer,
}

/// What a session reads: type, shape, and where.
#[derive(Clone, Copy)]
pub struct DeviceView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major bytes.
    pub buffer: &'a Buffer,
}

/// What a session writes: type, shape, and where. It comes only from who may write, so that nobody
/// hands a sealed prefix to a network as an output.
pub struct DeviceViewMut<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major bytes.
    pub buffer: &'a Buffer,
}

impl DeviceTensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// If the device has not so much memory left.
    pub fn zeros(device: &dyn Device, dtype: DType, shape: &[usize]) -> Result<Self, DeviceError> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(Self { dtype, shape: shape.to_vec(), buffer: device.allocate(bytes)? })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Where it is.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// For a session that reads it.
    pub fn view(&self) -> DeviceView<'_> {
        DeviceView { dtype: self.dtype, shape: &self.shape, buffer: &self.buffer }
    }

    /// For a session that writes it.
    pub fn view_mut(&mut self) -> DeviceViewMut<'_> {
        DeviceViewMut { dtype: self.dtype, shape: &self.shape, buffer: &self.buffer }
    }

    /// A copy in host memory; for setting up and for tests.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn to_host(&self, device: &dyn Device) -> Result<HostTensor, DeviceError> {
        let mut tensor = HostTensor::zeros(self.dtype, &self.shape);
        device.read(&self.buffer, tensor.bytes_mut())?;
        Ok(tensor)
    }

    /// Takes the values of a host tensor of the same size; for setting up and for tests.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn set(&mut self, device: &dyn Device, tensor: &HostTensor) -> Result<(), DeviceError> {
        device.write(tensor.bytes(), &self.buffer)
    }
}

/// A tensor that the host writes or reads, with its copy on the device.
pub struct StagedTensor {
    dtype: DType,
    shape: Vec<usize>,
    staged: Staged,
}

impl StagedTensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// If there is not so much memory left.
    pub fn zeros(device: &dyn Device, dtype: DType, shape: &[usize]) -> Result<Self, DeviceError> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(Self { dtype, shape: shape.to_vec(), staged: device.stage(bytes)? })
    }

    /// Its memory on both sides.
    pub fn staged(&self) -> &Staged {
        &self.staged
    }

    /// For a session that reads the device's side.
    pub fn view(&self) -> DeviceView<'_> {
        DeviceView { dtype: self.dtype, shape: &self.shape, buffer: self.staged.buffer() }
    }

    /// For a session that writes the device's side.
    pub fn view_mut(&mut self) -> DeviceViewMut<'_> {
        DeviceViewMut { dtype: self.dtype, shape: &self.shape, buffer: self.staged.buffer() }
    }

    /// The host's bytes.
    ///
    /// # Panics
    /// As [`Staged::bytes`].
    pub fn bytes(&self) -> StagedRef<'_, u8> {
        self.staged.bytes()
    }

    /// The host's bytes, for writing.
    ///
    /// # Panics
    /// As [`Staged::bytes_mut`].
    pub fn bytes_mut(&mut self) -> StagedRefMut<'_, u8> {
        self.staged.bytes_mut()
    }

    /// The host's elements.
    ///
    /// # Panics
    /// If `T` is not this tensor's element type, and as [`Staged::bytes`].
    pub fn as_slice<T: Element>(&self) -> StagedRef<'_, T> {
        assert_eq!(T::DTYPE, self.dtype, "read as another element type");
        self.staged.bytes().cast()
    }

    /// The host's elements, for writing.
    ///
    /// # Panics
    /// If `T` is not this tensor's element type, and as [`Staged::bytes_mut`].
    pub fn as_mut_slice<T: Element>(&mut self) -> StagedRefMut<'_, T> {
        assert_eq!(T::DTYPE, self.dtype, "written as another element type");
        self.staged.bytes_mut().cast()
    }
}
